"""Critters and things as articulated parts: a part is a tapered capsule between two joints, posed by functions of time.

A body faces right in its own frame: x forward, y up from the ground, points as complex numbers x + iy, lengths in
units of the body. Every function here takes a pose, arrays over time, and returns the parts in the order of painting.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Points = np.ndarray  # (t,) complex
Numbers = np.ndarray  # (t,) float


@dataclass(frozen=True)
class Part:
    """A tapered capsule: its tone, its two ends (t,) complex, its radii at them (t,)."""

    tone: str
    start: Points
    end: Points
    radii: tuple[Numbers, Numbers]


@dataclass(frozen=True, kw_only=True)
class Pose:
    """What the body does at each moment: a gait, its phase in cycles, and what is added to it."""

    gait: str  # walk, run, jump, sit, lie
    cycle: Numbers  # legs, wings and fins
    beat: Numbers  # slow things: breath, wagging, nodding
    air: Numbers  # 0 on the ground ... 1 at the top of a leap
    pitch: Numbers  # the whole body turned nose up, in radians
    dip: Numbers  # 0 head up ... 1 head at the ground


@dataclass(frozen=True, kw_only=True)
class Body:
    """A posed body: its parts by slot, in the order of SLOTS, and where it holds what it carries."""

    parts: dict[str, Part]
    mouth: Points


SLOTS = (
    *("far hind", "far fore", "tail", "tail end", "far ear", "body", "belly", "near hind", "near fore", "crest"),
    *("head", "muzzle", "near ear", "inner ear", "nose", "wing", "eye", "pupil", "glint"),
)


# --- four legs --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Build:
    """The proportions of an animal on four legs, standing."""

    hip: complex
    shoulder: complex
    thickness: tuple[float, float]  # radii at the hip and at the shoulder
    legs: tuple[float, float]  # radii at the joint and at the foot
    head: complex
    skull: float
    muzzle: complex  # from the head; its radii
    snout: tuple[float, float]
    nose: float
    ears: tuple[complex, complex, complex, complex]  # far ear's base and tip, near ear's base and tip, from the head
    ear: tuple[float, float]  # radii
    ear_tone: str
    inner: float  # the inner ear's part of the ear's radii
    tail: complex  # from the hip
    bends: tuple[float, float]  # directions of the tail's two segments, in turns from straight ahead
    lengths: tuple[float, float]
    tail_radii: tuple[float, float, float]
    tail_tone: str
    wag: float  # in turns
    hops: bool = False
    laid: float = 0.0  # how far the ears lie back when it runs or sleeps, in turns


BUILDS = {
    "cat": Build(
        hip=-0.24 + 0.34j, shoulder=0.15 + 0.34j, thickness=(0.145, 0.14), legs=(0.065, 0.052),
        head=0.33 + 0.54j, skull=0.185, muzzle=0.12 - 0.065j, snout=(0.06, 0.075), nose=0.026,
        ears=(-0.11 + 0.10j, -0.13 + 0.27j, 0.09 + 0.11j, 0.13 + 0.27j), ear=(0.085, 0.008), ear_tone="coat", inner=0.5,
        tail=-0.11 + 0.04j, bends=(0.44, 0.27), lengths=(0.17, 0.30), tail_radii=(0.05, 0.045, 0.04), tail_tone="coat",
        wag=0.05,
    ),
    "dog": Build(
        hip=-0.25 + 0.38j, shoulder=0.17 + 0.39j, thickness=(0.15, 0.165), legs=(0.07, 0.058),
        head=0.33 + 0.62j, skull=0.165, muzzle=0.22 - 0.06j, snout=(0.10, 0.085), nose=0.042,
        ears=(0.02 + 0.12j, -0.02 + 0.02j, -0.07 + 0.10j, -0.13 - 0.14j), ear=(0.06, 0.075), ear_tone="dark", inner=0.0,
        tail=-0.11 + 0.09j, bends=(0.36, 0.33), lengths=(0.12, 0.10), tail_radii=(0.05, 0.042, 0.034), tail_tone="coat",
        wag=0.09,
    ),
    "mouse": Build(
        hip=-0.15 + 0.25j, shoulder=0.12 + 0.22j, thickness=(0.20, 0.15), legs=(0.05, 0.045),
        head=0.30 + 0.30j, skull=0.16, muzzle=0.19 - 0.05j, snout=(0.09, 0.045), nose=0.038,
        ears=(0.05 + 0.2j, 0.06 + 0.21j, -0.14 + 0.17j, -0.13 + 0.18j), ear=(0.145, 0.145), ear_tone="coat", inner=0.62,
        tail=-0.17 - 0.08j, bends=(0.48, 0.38), lengths=(0.22, 0.24), tail_radii=(0.032, 0.028, 0.02), tail_tone="pink",
        wag=0.05,
    ),
    "rabbit": Build(
        hip=-0.16 + 0.28j, shoulder=0.12 + 0.27j, thickness=(0.205, 0.15), legs=(0.075, 0.062),
        head=0.27 + 0.52j, skull=0.165, muzzle=0.11 - 0.06j, snout=(0.06, 0.08), nose=0.03,
        ears=(0.05 + 0.12j, 0.09 + 0.44j, -0.07 + 0.12j, -0.12 + 0.43j), ear=(0.062, 0.058), ear_tone="coat", inner=0.5,
        tail=-0.20 + 0.05j, bends=(0.5, 0.5), lengths=(0.03, 0.03), tail_radii=(0.09, 0.09, 0.09), tail_tone="light",
        wag=0.02, hops=True, laid=0.12,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Gait:
    """How legs move: how far they swing (radians), how much they fold forward, how far the body bobs and rocks."""

    swing: float
    fold: float
    bob: float
    rock: float
    phases: tuple[float, float, float, float]  # far hind, far fore, near hind, near fore


GAITS = {
    "walk": Gait(0.48, 0.18, 0.014, 0.0, (0.5, 0.0, 0.0, 0.5)),
    "run": Gait(0.95, 0.30, 0.035, 0.10, (0.12, 0.62, 0.0, 0.5)),
    "jump": Gait(0.0, 0.0, 0.0, 0.0, (0.0, 0.0, 0.0, 0.0)),
}
HOPS = {
    "walk": Gait(0.45, 0.15, 0.05, 0.05, (0.06, 0.46, 0.0, 0.4)),
    "run": Gait(0.90, 0.25, 0.09, 0.14, (0.06, 0.51, 0.0, 0.45)),
    "jump": GAITS["jump"],
}
LEGS = ("far hind", "far fore", "near hind", "near fore")


def quadruped(build: Build, pose: Pose) -> Body:
    """Cat, dog, mouse or rabbit."""
    posture = {"sit": _sitting, "lie": _lying}.get(pose.gait, _standing)
    return posture(build, pose)


def _standing(build: Build, pose: Pose) -> Body:
    gait = (HOPS if build.hops else GAITS)[pose.gait]
    bob = 1j * gait.bob * np.abs(_wave(pose.cycle / 2 if build.hops else pose.cycle))
    rock = np.exp(1j * gait.rock * _wave(pose.cycle + 0.2))
    middle = (build.hip + build.shoulder) / 2
    hip, shoulder = (middle + (joint - middle) * rock + bob for joint in (build.hip, build.shoulder))
    neck = (build.head - build.shoulder) * np.exp(-1.25j * pose.dip)
    head = shoulder + neck + 0.012j * _wave(pose.cycle + 0.1)
    legs = {}
    for name, phase in zip(LEGS, gait.phases, strict=True):
        joint, reach = (hip, build.hip) if "hind" in name else (shoulder, build.shoulder)
        joint = joint - 0.03j + (0.05 if "far" in name else 0.0)
        turn = 2 * np.pi * (pose.cycle + phase)
        stretch = -1.15 if "hind" in name else 1.05  # in the air, the legs reach back and forward
        angle = gait.swing * np.sin(turn) + stretch * np.minimum(1.6 * pose.air, 1.0)
        length = (reach.imag - 0.03 - build.legs[1]) * (1 - gait.fold * np.maximum(np.cos(turn), 0.0))
        legs[name] = (joint, joint - 1j * length * np.exp(1j * angle))
    tail = _wave(pose.cycle if pose.gait == "run" else pose.beat)
    back = build.laid * (1.0 if pose.gait == "run" else np.minimum(1.5 * pose.air, 1.0))
    return _assembled(build, hip, shoulder, head, legs, build.bends, tail, back + 0.012 * _wave(pose.cycle))


def _sitting(build: Build, pose: Pose) -> Body:
    still = np.zeros_like(pose.beat)
    rear, _ = build.thickness
    hip = -0.13 + 1j * (rear + 0.01) + still
    shoulder = 0.09 + 1j * (build.shoulder.imag + 0.05) + 0.006j * _wave(pose.beat) + still
    neck = build.head - build.shoulder
    head = shoulder + (neck.real - 0.07) + 1j * (0.75 * neck.imag + 0.05) + (0.012 + 0.008j) * _wave(pose.beat + 0.2)
    foot = 1j * build.legs[1]
    legs = {
        "far hind": (hip + 0.10, hip.real + 0.27 + foot),
        "near hind": (hip - 0.02j, hip.real + 0.24 + foot),
        "far fore": (shoulder + 0.05 - 0.06j, shoulder.real + 0.10 + foot),
        "near fore": (shoulder - 0.06j, shoulder.real + 0.05 + foot),
    }
    low = (0.49, 0.42) if build.bends[0] > 0.4 else build.bends
    base = hip + (-rear * 0.8 - 0.06j) - (hip + build.tail)
    return _assembled(build, hip, shoulder, head, legs, low, _wave(pose.beat * 2), still, base, thick=(1.0, 0.95))


def _lying(build: Build, pose: Pose) -> Body:
    still = np.zeros_like(pose.beat)
    breath = 0.05 * _wave(pose.beat)
    rear, front = build.thickness
    hip, shoulder = -0.16 + 1j * rear * 0.93 + still, 0.10 + 1j * front * 0.9 + still
    head = 0.25 + 1j * (build.skull * 0.92) + 0.006j * _wave(pose.beat) + still
    foot = 1j * build.legs[1]
    legs = {
        "far hind": (-0.05 + foot + still, 0.02 + foot + still),
        "near hind": (-0.14 + foot + still, 0.04 + foot + still),
        "far fore": (0.16 + foot + still, 0.30 + foot + still),
        "near fore": (0.10 + foot + still, 0.24 + foot + still),
    }
    base = -rear * 0.75 - 1j * (rear * 0.93 - 0.06) - build.tail
    bends = (0.5, 0.52) if build.bends[0] > 0.4 else (0.46, 0.44)
    back = build.laid * 1.25 + still
    return _assembled(
        build,
        hip,
        shoulder,
        head,
        legs,
        bends,
        still,
        back,
        base,
        thick=(1 + breath, 1 + breath),
        asleep=True,
        curl=0.55,
    )


def _assembled(
    build: Build,
    hip: Points,
    shoulder: Points,
    head: Points,
    legs: dict[str, tuple[Points, Points]],
    bends: tuple[float, float],
    wag: Numbers,
    ears_back: Numbers,
    tail_shift: Points | complex = 0j,
    *,
    thick: tuple[Numbers | float, Numbers | float] = (1.0, 1.0),
    asleep: bool = False,
    curl: float = 1.0,
) -> Body:
    """All the parts on their joints."""
    root = hip + build.tail + tail_shift
    swing = build.wag * wag
    middle = root + curl * build.lengths[0] * _turn(bends[0] + swing)
    tip = middle + curl * build.lengths[1] * _turn(bends[1] + 1.7 * swing)
    r0, r1, r2 = build.tail_radii
    laid = _turn(ears_back)
    bases = [head + ear * laid for ear in (build.ears[0], build.ears[2])]
    tips = [head + _ear_tip(ear, tip_of, laid) for ear, tip_of in zip(build.ears[::2], build.ears[1::2], strict=True)]
    nose = head + build.muzzle
    tip_of_nose = nose + build.snout[1] * 0.6 + 0.01j
    parts = {
        **{name: _part("dark" if "far" in name else "coat", *legs[name], *build.legs) for name in LEGS},
        "tail": _part(build.tail_tone, root, middle, r0, r1),
        "tail end": _part(build.tail_tone, middle, tip, r1, r2),
        "far ear": _part("dark", bases[0], tips[0], *build.ear),
        "body": _part("coat", hip, shoulder, build.thickness[0] * thick[0], build.thickness[1] * thick[1]),
        "head": _part("coat", head, head + 0.01, build.skull, build.skull),
        "muzzle": _part("light", head + build.muzzle * 0.55, nose, *build.snout),
        "near ear": _part(build.ear_tone, bases[1], tips[1], *build.ear),
        "nose": _part("nose", tip_of_nose, tip_of_nose + 0.001, build.nose, build.nose),
    }  # fmt: skip
    if build.inner:
        inner = [build.inner * r for r in build.ear]
        parts["inner ear"] = _part("pink", bases[1], bases[1] + 0.8 * (tips[1] - bases[1]), *inner)
    return Body(parts=parts | _eye(head + 0.045 + 0.035j, asleep), mouth=nose + 0.04 - 0.05j)


def _ear_tip(base: complex, tip: complex, laid: Points) -> Points:
    """The tip of an ear that lies back: it turns about its base, which turns with the head a little."""
    tips: Points = base * laid + (tip - base) * laid * laid
    return tips


# --- wings and fins ---------------------------------------------------------------------------------------------------


def bird(pose: Pose) -> Body:
    """A round bird: legs that step, wings that flap, a beak."""
    still = np.zeros_like(pose.beat)
    low = pose.gait in ("sit", "lie")
    asleep = pose.gait == "lie"
    flies = pose.gait == "run"
    drop = -0.17j if low else 0.02j * np.abs(_wave(pose.cycle)) * (pose.gait == "walk")
    chest, rump = 0.10 + 0.38j + drop + still, -0.20 + 0.36j + drop + still
    nod = 0.03 * _wave(pose.cycle * 2) * (pose.gait == "walk") + 0.015j * _wave(pose.beat) * low
    head = chest + ((0.02 + 0.10j) if asleep else (0.13 + 0.21j) * np.exp(-1.5j * pose.dip)) + nod
    flap = _wave(pose.cycle) if flies else np.sin(pose.air * np.pi * 3)
    lifted = 1.0 if flies else np.minimum(pose.air * 2, 1.0)
    wing = 0.54 + lifted * (-0.04 + 0.19 * -flap)
    shoulder = chest - 0.06 + 0.02j
    step = 0.55 * _wave(pose.cycle) * (pose.gait == "walk")
    parts = {
        "tail": _part("dark", rump - 0.06 + 0.02j, rump - 0.26 + 0.08j + 0.02j * _wave(pose.beat), 0.075, 0.06),
        "body": _part("coat", chest, rump, 0.20 * (1 + 0.03 * asleep * _wave(pose.beat)), 0.12),
        "belly": _part("light", chest + 0.05 - 0.07j, chest - 0.05 - 0.09j, 0.11, 0.09),
        "head": _part("coat", head, head + 0.01, 0.165, 0.165),
        "wing": _part("dark", shoulder, shoulder + 0.32 * _turn(wing), 0.10, 0.06),
        "muzzle": _part("beak", head + 0.13 - 0.02j, head + 0.28 - 0.045j, 0.07, 0.012),
    }
    if asleep:
        parts["muzzle"] = _part("beak", head + 0.10 - 0.07j, head + 0.17 - 0.14j, 0.06, 0.012)
    if not low:
        tucked = -0.35 * (lifted if flies else np.minimum(pose.air * 2, 1.0))
        for name, side in (("far hind", -1.0), ("near hind", 1.0)):
            top = chest - 0.10 + 0.03 * side - 0.16j
            parts[name] = _part(
                "beak", top, top + (0.04 - 0.165j) * np.exp(1j * (side * step + 3 * tucked)), 0.028, 0.03
            )
    if flies:
        parts["far ear"] = _part("dark", shoulder + 0.07, shoulder + 0.07 + 0.30 * _turn(wing), 0.09, 0.05)
    return Body(parts=parts | _eye(head + 0.04 + 0.03j, asleep), mouth=head + 0.24 - 0.06j)


def fish(pose: Pose) -> Body:
    """A fish: a body that tapers to a tail that sways."""
    still = np.zeros_like(pose.beat)
    asleep = pose.gait == "lie"
    lively = {"walk": 0.8, "run": 1.0, "jump": 1.0, "sit": 0.4, "lie": 0.12}[pose.gait]
    sway = lively * _wave(pose.cycle if pose.gait in ("walk", "run") else pose.beat * 2)
    front, back = 0.13 + 0.24j + still, -0.17 + 0.24j + 0.03j * sway
    root, reach = back - 0.08, 0.24 * (1 - 0.32 * np.abs(sway))
    fan = 0.17
    tips = [root - reach + 1j * (side * fan + 0.06 * sway) for side in (1, -1)]
    parts = {
        "tail": _part("dark", root, tips[0], 0.05, 0.075),
        "tail end": _part("dark", root, tips[1], 0.05, 0.07),
        "crest": _part("dark", front - 0.05 + 0.16j, front - 0.24 + 0.24j + 0.02j * sway, 0.075, 0.03),
        "body": _part("coat", front, back, 0.215 * (1 + 0.04 * asleep * _wave(pose.beat)), 0.085),
        "belly": _part("light", front + 0.02 - 0.10j, front - 0.18 - 0.07j, 0.09, 0.05),
        "wing": _part("dark", front - 0.06 - 0.03j, front - 0.20 - 0.08j + 0.04j * sway, 0.05, 0.065),
        "muzzle": _part("light", front + 0.18 - 0.05j, front + 0.205 - 0.05j, 0.04, 0.035),
    }
    return Body(parts=parts | _eye(front + 0.09 + 0.05j, asleep), mouth=front + 0.25 - 0.05j)


def _eye(at: Points, asleep: bool) -> dict[str, Part]:
    """An open eye with a highlight, or a lid."""
    if asleep:
        return {"pupil": _part("lid", at - 0.05 + 0.0j, at + 0.05 - 0.02j, 0.016, 0.016)}
    return {
        "eye": _part("white", at, at + 0.001, 0.062, 0.062),
        "pupil": _part("pupil", at + 0.012, at + 0.013, 0.044, 0.044),
        "glint": _part("white", at + 0.026 + 0.018j, at + 0.027 + 0.018j, 0.016, 0.016),
    }


def _part(tone: str, start: Points, end: Points, r0: Numbers | float, r1: Numbers | float) -> Part:
    start, end = np.broadcast_arrays(start, end)
    return Part(tone, start, end, (np.broadcast_to(r0, start.shape), np.broadcast_to(r1, start.shape)))


def _wave(u: Numbers) -> Numbers:
    return np.sin(2 * np.pi * u)


def _turn(u: Numbers | float) -> Points:
    turned: Points = np.exp(2j * np.pi * np.asarray(u))
    return turned


Shape = Callable[[Pose], Body]


def _walker(build: Build) -> Shape:
    return lambda pose: quadruped(build, pose)


SHAPES: dict[str, Shape] = {**{name: _walker(build) for name, build in BUILDS.items()}, "bird": bird, "fish": fish}
SCALES = {"cat": 0.37, "dog": 0.38, "mouse": 0.27, "rabbit": 0.35, "bird": 0.33, "fish": 0.35}  # of one unit, in sides

# --- things -----------------------------------------------------------------------------------------------------------

# Rows of (tone, start, end, radius at the start, radius at the end), about the thing's centre, in sides.
THINGS: dict[str, tuple[tuple[str, complex, complex, float, float], ...]] = {
    "ball": (
        ("red", 0, 0.001, 0.047, 0.047),
        ("white", -0.034, 0.034, 0.010, 0.010),
        ("white", 0, 0.001, 0.018, 0.018),
    ),
    "bone": (
        ("bone", -0.045, 0.045, 0.014, 0.014),
        *(("bone", x + y * 1j, x + 0.001 + y * 1j, 0.021, 0.021) for x in (-0.05, 0.05) for y in (-0.016, 0.016)),
    ),
    "carrot": (
        ("leaf", -0.045, -0.085 + 0.02j, 0.014, 0.012),
        ("leaf", -0.045, -0.085 - 0.015j, 0.014, 0.012),
        ("carrot", -0.035, 0.065, 0.030, 0.008),
    ),
    "cheese": (
        ("cheese", -0.045 - 0.026j, 0.045 - 0.026j, 0.018, 0.018),
        ("cheese", -0.045 - 0.02j, 0.02 + 0.03j, 0.016, 0.022),
        ("cheese", 0.045 - 0.024j, 0.02 + 0.028j, 0.018, 0.022),
        ("cheese", 0.012 - 0.008j, 0.022 + 0.0j, 0.03, 0.03),
        ("hole", 0.026 + 0.012j, 0.027 + 0.012j, 0.010, 0.010),
        ("hole", -0.008 - 0.016j, -0.009 - 0.016j, 0.009, 0.009),
    ),
    "fence": (
        ("fence", -0.075 - 0.015j, 0.075 - 0.015j, 0.012, 0.012),
        ("fence", -0.075 + 0.028j, 0.075 + 0.028j, 0.012, 0.012),
        *(("fence", x - 0.043j, x + 0.055j, 0.014, 0.012) for x in (-0.06, -0.02, 0.02, 0.06)),
    ),
}  # fmt: skip
HALVES = {
    "ball": 0.047,
    "bone": 0.036,
    "carrot": 0.03,
    "cheese": 0.044,
    "fence": 0.057,
}  # from the centre to the ground


def thing(name: str, angle: Numbers) -> dict[str, Part]:
    """A thing turned by an angle (t,), in turns."""
    if name == "butterfly":
        return butterfly(angle)
    spin = _turn(angle)
    return {str(i): _part(tone, a * spin, b * spin, ra, rb) for i, (tone, a, b, ra, rb) in enumerate(THINGS[name])}


def butterfly(beat: Numbers) -> dict[str, Part]:
    """Two pairs of wings that open and close, `beat` cycles (t,)."""
    open_ = 0.66 + 0.34 * _wave(beat)
    rows = (("wing", 0.038 + 0.030j, 0.034, 0.024), ("wing low", 0.026 - 0.024j, 0.022, 0.018))
    parts = {}
    for i, (tone, tip, outer, inner) in enumerate(rows):
        for side in (-1, 1):
            at = side * tip.real * open_ + 1j * tip.imag
            parts[f"{i}{side}"] = _part(tone, at * 0.5, at, inner * (0.4 + 0.6 * open_), outer * (0.4 + 0.6 * open_))
    return parts | {"body": _part("pupil", -0.03j + 0 * open_, 0.035j + 0 * open_, 0.009, 0.009)}
