"""How one thing moves: the values, the words, and the laws that are fitted to a path to name its motion.

Paths are in sides of the square, x to the right and y down; time runs from 0 to 1 through a clip.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from kinetograph.attributes import between, within

SPEEDS = ("slowly", "steadily", "quickly")  # steadily is what a prompt means that names no speed
STRAIGHT = {
    "up": (0, -1),
    "down": (0, 1),
    "left": (-1, 0),
    "right": (1, 0),
    "up-left": (-1, -1),
    "up-right": (1, -1),
    "down-left": (-1, 1),
    "down-right": (1, 1),
}

# What a speed means for each kind of motion: the range it is drawn from. The gaps between the ranges are what readers
# decide by.
BOUNCES = {"slowly": (0.95, 1.05), "steadily": (1.45, 1.55), "quickly": (2.1, 2.3)}  # there-and-backs
TURNS = {"slowly": (0.45, 0.52), "steadily": (0.75, 0.85), "quickly": (1.15, 1.30)}  # revolutions
RATIO = {"slowly": (0.72, 0.80), "steadily": (0.50, 0.60), "quickly": (0.28, 0.36)}  # smallest to largest size
BOUNCE_SWING, ZIGZAG_SWING, ORBIT = (0.15, 0.21), (0.09, 0.13), (0.17, 0.25)  # amplitudes, in sides
ZIGZAG_CYCLES = (1.9, 2.1)

Bands = tuple[tuple[float, str | None], ...]  # where each name ends, ascending
TOLD_APART: dict[str, Bands] = {  # the middle of the gaps between the ranges above
    "cycles": ((1.25, "slowly"), (1.8, "steadily"), (math.inf, "quickly")),
    "turns": ((0.635, "slowly"), (1.0, "steadily"), (math.inf, "quickly")),
    "ratio": ((0.43, "quickly"), (0.66, "steadily"), (0.88, "slowly")),
}
FIT = 0.03  # largest distance (root mean square, in sides) between a path and the law it is taken for
STEADY = 0.05  # what spans less than this stands still

Point = tuple[float, float]


def times(frames: int) -> np.ndarray:
    """The moments of a clip, from 0 to 1; a single frame shows the start."""
    return np.linspace(0.0, 1.0, frames) if frames > 1 else np.zeros(1)


def clock(clips: int, frames: int, moments: np.ndarray | None = None) -> np.ndarray:
    """The moments of so many clips, (b, t): those asked for, else the same in each, from its start to its end."""
    return np.tile(times(frames), (clips, 1)) if moments is None else moments


def triangle(u: np.ndarray) -> np.ndarray:
    """A triangle wave between -1 and 1 with period 1: constant speed, sharp turns."""
    return 1 - 4 * np.abs(u % 1.0 - 0.5)


def along(way: str, length: float) -> Point:
    """A step of this length 'vertically' or 'horizontally'."""
    return (0.0, length) if way == "vertically" else (length, 0.0)


def drawn(
    rng: np.random.Generator, motion: str, speed: str, travel: Mapping[str, tuple[float, float]]
) -> dict[str, Any]:
    """The numbers of a law that make it this motion at this speed; only those that are not zero.

    `travel` says how far things go at each speed, in sides. The keys: travel and swing (x, y), cycles, phase, orbit,
    turns, angle, and ratio, of the smallest to the largest size.
    """
    kind, _, way = motion.partition(" ")
    if motion in STRAIGHT:
        x, y = STRAIGHT[motion]
        length = between(rng, travel[speed]) / math.hypot(x, y)
        return {"travel": (x * length, y * length)}
    if kind == "bouncing":
        swing, cycles = between(rng, BOUNCE_SWING), between(rng, BOUNCES[speed])
        return {"swing": along(way, swing), "cycles": cycles, "phase": float(rng.random())}
    if kind == "zigzagging":
        length = between(rng, travel[speed]) * (1 if rng.random() < 0.5 else -1)
        swing, cycles = between(rng, ZIGZAG_SWING), between(rng, ZIGZAG_CYCLES)
        path = {"travel": along(way, length), "swing": along(way, swing)[::-1]}
        return {**path, "cycles": cycles, "phase": float(rng.random())}
    if kind == "circling":
        turns = between(rng, TURNS[speed]) * sense(way)
        return {"orbit": between(rng, ORBIT), "turns": turns, "angle": float(rng.random())}
    return {"ratio": between(rng, RATIO[speed])} if motion in ("shrinking", "expanding") else {}


def chances(
    motion: str, speed: str, law: Mapping[str, Any], travel: Mapping[str, tuple[float, float]]
) -> dict[str, float]:
    """What chance decided when `drawn` made this law, which it undoes.

    The keys: extent (how far it goes, swings or circles), rate (how often, or to which part of its size) and sway (how
    far a zigzag swings), all 0 to 1 and uniform; phase (when in its turn), likewise, but 1 is 0 again; and way, -1 or
    1, of the two ways that a zigzag may go. Only those that the motion leaves to chance.
    """
    kind, swing, length = motion.partition(" ")[0], math.hypot(*law["swing"]), math.hypot(*law["travel"])
    if motion in STRAIGHT:
        return {"extent": within(length, travel[speed])}
    if kind == "bouncing":
        rate = within(law["cycles"], BOUNCES[speed])
        return {"extent": within(swing, BOUNCE_SWING), "rate": rate, "phase": law["phase"]}
    if kind == "zigzagging":
        decided = {"extent": within(length, travel[speed]), "way": math.copysign(1.0, sum(law["travel"]))}
        rate = within(law["cycles"], ZIGZAG_CYCLES)
        return {**decided, "sway": within(swing, ZIGZAG_SWING), "rate": rate, "phase": law["phase"]}
    if kind == "circling":
        rate = within(abs(law["turns"]), TURNS[speed])
        return {"extent": within(law["orbit"], ORBIT), "rate": rate, "phase": law["angle"]}
    return {"rate": within(law["ratio"], RATIO[speed])} if motion in ("shrinking", "expanding") else {}


def sense(way: str) -> int:
    """1 clockwise, -1 counter-clockwise: y points down, so growing angles turn clockwise."""
    return 1 if way == "clockwise" else -1


# --- words ---

SPEED_WORDS = {
    "slowly": ("slowly", "gently", "gradually", "leisurely"),
    "steadily": ("steadily", "at a steady pace", "at medium speed"),
    "quickly": ("quickly", "fast", "rapidly", "swiftly"),
}
UPWARD = {"up": ("up", "upward", "upwards"), "down": ("down", "downward", "downwards")}
SIDEWARD = {"left": ("left", "leftward", "leftwards"), "right": ("right", "rightward", "rightwards")}
TOWARD = {"left": "left", "right": "right", "up": "top", "down": "bottom"}
TOWARD_CORNER = {"up": "upper", "down": "lower"}


def ways(direction: str) -> list[str]:
    """'up-right', 'up and to the right', 'toward the top right' ...: the direction without its verb."""
    if "-" not in direction:
        return [*(UPWARD | SIDEWARD)[direction], *_to_the(TOWARD[direction])]
    up, side = direction.split("-")
    corners = (f"{TOWARD[up]} {side}", f"{TOWARD_CORNER[up]} {side}")
    plain = [direction, f"diagonally {direction}", f"{up} and {side}", f"diagonally {up} and {side}"]
    return [*plain, f"{up} and to the {side}", *(way for corner in corners for way in _to_the(corner))]


def _to_the(place: str) -> list[str]:
    return [f"to the {place}", f"toward the {place}", f"towards the {place}"]


Stems = Mapping[str, tuple[str, ...]]


def loosely(text: str, kinds: Stems) -> str | None:
    """A motion said in words of our own but not in a phrase of ours: 'it goes quickly up and then right'.

    `kinds` tells by which beginnings of words each kind of motion is known; otherwise it is a direction, or nothing.
    """
    heard = text.split()
    words = set(heard)
    kind = next((kind for kind, stems in kinds.items() if any(word.startswith(stems) for word in heard)), None)
    if kind in ("bouncing", "zigzagging"):
        sideways = words & {"horizontally", "left", "right", "side", "sideways"}
        return f"{kind} {'horizontally' if sideways else 'vertically'}"
    if kind in ("circling", "spinning"):
        against = words & {"counter", "anticlockwise", "counterclockwise", "anti"}
        return f"{kind} {'counter-clockwise' if against else 'clockwise'}"
    return kind or _direction(words)


def _direction(words: set[str]) -> str | None:
    up = next((d for d, ways in UPWARD.items() if words & {*ways, TOWARD[d], TOWARD_CORNER[d]}), "")
    side = next((d for d, ways in SIDEWARD.items() if words & set(ways)), "")
    return "-".join(d for d in (up, side) if d) or None


# --- the laws, fitted ---


class Fit(NamedTuple):
    """A law that was fitted to a path: by how much it misses, its motion, and the number that tells its speed."""

    error: float  # root mean square, in sides
    motion: str
    kind: str  # which number: travel, cycles or turns
    value: float


def band(bands: Bands, value: float) -> str | None:
    """The name of a number by the gaps between the ranges it is drawn from."""
    return next((name for limit, name in bands if value < limit), None)


def best_fit(path: np.ndarray) -> Fit | None:
    """The law nearest to a path (t, 2) that moves: straight, bouncing, zigzagging or circling; None beyond FIT."""
    fit = min([_fit_line(path), *_fit_waves(path), *_fit_turns(path)])
    return fit if fit.error < FIT else None


def regress(p: np.ndarray, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slope over time and residual of a straight line through p (t, d) at the times s (t,)."""
    s = s - s.mean()
    slope = s @ (p - p.mean(0)) / np.sum(s**2)
    return slope, p - p.mean(0) - np.outer(s, slope)


def rms(residual: np.ndarray) -> float:
    """Root mean square distance of points (t, d) from where they should be."""
    return float(np.sqrt(np.mean(np.sum(residual**2, axis=-1))))


def _fit_line(p: np.ndarray) -> Fit:
    """A constant velocity, named by the nearest of eight directions."""
    velocity, residual = regress(p, times(len(p)))
    way = velocity / max(float(np.linalg.norm(velocity)), 1e-9)
    name = max(STRAIGHT, key=lambda d: float(way @ (np.array(STRAIGHT[d]) / np.linalg.norm(STRAIGHT[d]))))
    return Fit(rms(residual), name, "travel", float(np.linalg.norm(velocity)))


def _fit_waves(p: np.ndarray) -> list[Fit]:
    """Bouncing (a wave along one axis, the other at rest) and zigzagging (a wave across a steady travel)."""
    fits = []
    for way, axis in (("horizontally", 0), ("vertically", 1)):
        across = 1 - axis
        error, amplitude, cycles = _best_wave(p[:, axis], *_waves(len(p), 0.85, 2.45, 0.04))
        if abs(amplitude) > 0.1:
            rest = p[:, across] - p[:, across].mean()
            fits.append(Fit(math.sqrt(error + np.mean(rest**2)), f"bouncing {way}", "cycles", cycles))
        error, amplitude, _ = _best_wave(p[:, across], *_waves(len(p), 1.8, 2.25, 0.05))
        velocity, residual = regress(p[:, axis : axis + 1], times(len(p)))
        travel = abs(float(velocity[0]))
        if abs(amplitude) > 0.05 and travel > 0.1:
            fits.append(Fit(math.sqrt(error + np.mean(residual**2)), f"zigzagging {way}", "travel", travel))
    return fits


def _best_wave(x: np.ndarray, waves: np.ndarray, cycles: np.ndarray) -> tuple[float, float, float]:
    """Mean square error, amplitude and cycles of the triangle wave (centred rows of `waves`) that lies nearest to x."""
    x = x - x.mean()
    amplitude = waves @ x / np.sum(waves**2, axis=1)
    error = np.mean((x - amplitude[:, None] * waves) ** 2, axis=1)
    best = int(error.argmin())
    return float(error[best]), float(amplitude[best]), float(cycles[best])


@cache
def _waves(frames: int, least: float, most: float, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Every wave of these cycles and 24 phases in half a period (a negative amplitude is the other half), as rows."""
    grids = np.meshgrid(np.arange(least, most, step), np.arange(24) / 48, indexing="ij")
    n, phase = (grid.reshape(-1, 1) for grid in grids)
    waves = triangle(n * times(frames) + phase)
    return waves - waves.mean(1, keepdims=True), n[:, 0]


def _fit_turns(p: np.ndarray) -> list[Fit]:
    """Circling: about a centre, at a constant rate."""
    fits = []
    for turns in turn_rates():
        circle = fit_circle([p], times(len(p)), turns)
        if circle.radii[0] > 0.1:
            way = "clockwise" if turns > 0 else "counter-clockwise"
            fits.append(Fit(circle.error, f"circling {way}", "turns", abs(turns)))
    return fits


@cache
def turn_rates() -> tuple[float, ...]:
    """Every rate of circling that is tried, in revolutions a clip, clockwise and counter-clockwise."""
    steps = np.arange(0.36, 1.45, 0.03)
    return tuple(np.concatenate([steps, -steps]).tolist())


@dataclass(frozen=True)
class Circle:
    """Paths round one centre at one rate: how far they are from it, and each one's radius and starting angle
    (radians)."""

    error: float
    radii: tuple[float, ...]
    angles: tuple[float, ...]


def fit_circle(paths: Sequence[np.ndarray], s: np.ndarray, turns: float) -> Circle:
    """Least squares in the common centre and each path's R cos, R sin, for paths (t, 2) at the times s (t,)."""
    path = np.concatenate(paths).T.reshape(-1)
    inverse, design = _circle_design(tuple(s.tolist()), turns, len(paths))
    solution = inverse @ path
    error = rms((path - design @ solution).reshape(2, -1).T)
    turned = [(float(solution[i]), float(solution[i + 1])) for i in range(2, len(solution), 2)]
    return Circle(error, tuple(math.hypot(c, z) for c, z in turned), tuple(math.atan2(z, c) for c, z in turned))


@cache
def _circle_design(s: tuple[float, ...], turns: float, paths: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns centre x, centre y, then R cos and R sin of each path, for all x and then all y; and the inverse."""
    c, z = np.cos(2 * np.pi * turns * np.array(s)), np.sin(2 * np.pi * turns * np.array(s))
    columns = np.zeros((2, paths, len(s), 2 + 2 * paths))
    columns[0, ..., 0] = columns[1, ..., 1] = 1
    for i in range(paths):
        columns[0, i, :, 2 + 2 * i : 4 + 2 * i] = np.stack([c, -z], axis=1)
        columns[1, i, :, 2 + 2 * i : 4 + 2 * i] = np.stack([z, c], axis=1)
    design = columns.reshape(-1, 2 + 2 * paths)
    return np.linalg.pinv(design), design
