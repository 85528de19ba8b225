"""How scenes of the critters world are performed and drawn: paths, gaits and shadows, painted part by part."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kinetograph import drawing
from kinetograph.motions import clock
from kinetograph.worlds.critters.bodies import HALVES, SCALES, SHAPES, SLOTS, Part, Pose, thing
from kinetograph.worlds.critters.places import DIM, PLACES, SHADOW, paint_places
from kinetograph.worlds.critters.scenes import ANIMALS, Scene

# A coat's tones: the body, what is light of it (belly, muzzle), what is dark (far legs, wings), a closed lid.
COATS = {
    "white": ((250, 250, 248), (255, 228, 222), (216, 210, 206), (70, 60, 70)),
    "black": ((44, 42, 50), (104, 100, 114), (22, 20, 28), (150, 146, 160)),
    "grey": ((140, 141, 150), (212, 206, 202), (104, 105, 116), (50, 48, 58)),
    "brown": ((128, 78, 42), (224, 190, 154), (94, 54, 28), (40, 24, 14)),
    "orange": ((240, 142, 44), (255, 224, 178), (204, 106, 24), (90, 44, 10)),
    "cream": ((246, 226, 186), (255, 246, 230), (222, 196, 160), (100, 74, 50)),
}
TONES = {
    "white": (255, 255, 255),
    "pupil": (28, 24, 32),
    "nose": (60, 36, 44),
    "pink": (245, 160, 165),
    "beak": (250, 176, 44),
    "red": (224, 48, 60),
    "bone": (252, 248, 236),
    "carrot": (248, 96, 28),
    "leaf": (40, 150, 60),
    "cheese": (254, 210, 44),
    "hole": (222, 164, 20),
    "fence": (20, 160, 150),
    "wing": (216, 60, 200),
    "wing low": (150, 50, 190),
}
ALONE = 1.1  # an animal alone is drawn so much larger
PAIR = 0.78  # animals in company are drawn so much smaller
LONG = {  # how far each reaches behind and before its middle, in units of its scale
    "cat": (0.62, 0.56), "dog": (0.53, 0.72), "mouse": (0.72, 0.62), "rabbit": (0.46, 0.52), "bird": (0.54, 0.54),
    "fish": (0.60, 0.40),
}  # fmt: skip
CURLED = 0.46  # the same for one that lies, to either side
MARGIN = 0.025
GAITS = {"walks": "walk", "runs": "run", "jumps": "jump", "sleeps": "lie", "sits": "sit"}
PAIRED = {"chases": "run", "follows": "walk", "fetches": "run", "jumps over": "run"}
TRAVEL = {
    "walks": (0.19, 0.24),
    "runs": (0.44, 0.50),
    "jumps": (0.25, 0.31),
    "chases": (0.21, 0.24),
    "follows": (0.10, 0.13),
}
FETCH = (0.25, 0.29)  # how far it runs before it turns
STEPS = {"walk": 2.0, "run": 3.0, "jump": 0.0, "lie": 0.0, "sit": 0.0}  # cycles of the gait in a clip
HOP, LEAP = 0.19, 0.31  # heights
GAP = {"chases": 0.035, "follows": 0.05}
FLIGHT, HOVER, FLUTTER = 0.15, 0.05, 0.17  # how high birds fly, fish swim, butterflies flutter

Colour = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Act:
    """One performer over time: where its middle is (t,) in sides, height over its ground, facing, and its pose."""

    kind: str
    coat: str
    scale: float
    x: np.ndarray
    height: np.ndarray
    facing: np.ndarray  # 1 right ... -1 left
    floor: float  # where the ground is that it stands on, from the top
    pose: Pose


# --- who does what when -----------------------------------------------------------------------------------------------


def perform(scene: Scene, s: np.ndarray) -> list[Act]:
    """The performers of a scene, those painted first before."""
    stage = {"fetches": _fetch, "jumps over": _leap}.get(scene.action, _pursue if scene.partner else _alone)
    acts = stage(scene, s)
    return acts if scene.direction == "right" else [replace(act, x=1 - act.x, facing=-act.facing) for act in acts]


def _alone(scene: Scene, s: np.ndarray) -> list[Act]:
    gait, still = GAITS[scene.action], np.zeros_like(s)
    rear, front = _extent(scene.animal, ALONE)
    travel = _between(TRAVEL.get(scene.action, (0.0, 0.0)), scene.pace)
    hop = (2 * s) % 1 * (s < 1)
    air = np.clip(4 * _rise(hop, 0.12, 0.88), 0, 1) if gait == "jump" else still
    x = _room(rear, front + travel, scene.start) + travel * s
    rise = (HOP + 0.03 * scene.pace) * air
    return [_animal(scene, scene.animal, scene.coat, ALONE, x, rise, s, gait, air=air)]


def _pursue(scene: Scene, s: np.ndarray) -> list[Act]:
    """Chasing and following: the partner ahead, both as fast."""
    gait, travel = PAIRED[scene.action], _between(TRAVEL[scene.action], scene.pace)
    rear, front = _extent(scene.animal, PAIR)
    behind, ahead = _extent(scene.partner, PAIR)
    apart = front + GAP[scene.action] + behind
    x = _room(rear, apart + ahead + travel, scene.start) + travel * s
    subject = _animal(scene, scene.animal, scene.coat, PAIR, x, 0 * s, s, gait)
    return [_partner(scene, x + apart, s, gait, gone=travel * s), subject]


def _leap(scene: Scene, s: np.ndarray) -> list[Act]:
    """Over the partner, which lies in the middle."""
    rear, front = _extent(scene.animal, PAIR)
    wide = _extent(scene.partner, PAIR)[0] if scene.partner not in ANIMALS else CURLED * SCALES[scene.partner] * PAIR
    travel = min(max(rear + front + 2 * wide + 0.05, 0.50), 1 - 2 * MARGIN - rear - front)
    air = np.clip(4 * _rise(s, 0.08, 0.92), 0, 1)
    x = 0.5 - travel / 2 + (rear - front) / 2 + travel * s
    pitch = 0.45 * np.cos(np.pi * np.clip((s - 0.08) / 0.84, 0, 1)) * (air > 0)
    middle = 0.5 + 0.02 * (scene.start - 0.5) + 0 * s
    subject = _animal(scene, scene.animal, scene.coat, PAIR, x, LEAP * air, s, "jump", air=air, pitch=pitch)
    return [_partner(scene, middle, s, "lie"), subject]


def _fetch(scene: Scene, s: np.ndarray) -> list[Act]:
    """Out to the thing, down to it, round, and back with it."""
    rear, front = _extent(scene.animal, PAIR)
    out = _between(FETCH, scene.pace)
    way = np.clip(s / 0.42, 0, 1) - np.clip((s - 0.60) / 0.40, 0, 1)
    run = np.clip(s / 0.42, 0, 1) + np.clip((s - 0.60) / 0.40, 0, 1)
    dip = np.clip(1 - np.abs(s - 0.48) / 0.10, 0, 1)
    dip = dip * dip * (3 - 2 * dip)
    x = _room(max(rear, front + 0.1), front + out + 0.07, scene.start) + out * way
    turn = np.cos(np.pi * np.clip((s - 0.54) / 0.08, 0, 1))
    facing = np.where(turn < 0, -1, 1) * np.maximum(np.abs(turn), 0.2)
    low = np.clip(1 - np.abs(s - 0.48) / 0.16, 0, 1)
    subject = _animal(
        scene, scene.animal, scene.coat, PAIR, x, 0 * s, s, "run", dip=dip, facing=facing, run=run / 2, low=low
    )
    mouth = SHAPES[scene.animal](subject.pose).mouth * SCALES[scene.animal] * PAIR
    held_x, held_y = x + facing * (mouth.real + 0.02), subject.height + mouth.imag
    rest = _room(max(rear, front + 0.1), front + out + 0.07, scene.start) + out + front - 0.01
    grip = np.clip((s - 0.44) / 0.08, 0, 1)
    half = HALVES[scene.partner]
    thing_x = rest + (held_x - rest) * grip
    thing_y = half + (np.maximum(held_y, half) - half) * grip
    return [subject, _thing(scene, thing_x, thing_y, s, 0 * s)]


def _partner(scene: Scene, x: np.ndarray, s: np.ndarray, gait: str, gone: np.ndarray | float = 0.0) -> Act:
    """Whom or what something is done to; `gone` is how far it has come, by which a ball has rolled."""
    if scene.partner in ANIMALS:
        return _animal(scene, scene.partner, scene.partner_coat, PAIR, x, 0 * s, s, gait, late=0.37)
    if scene.partner == "butterfly":
        return _thing(scene, x, FLUTTER + 0.03 * np.sin(2 * np.pi * (2 * s + scene.phase)), s, 4 * s + scene.phase)
    rolls = scene.partner == "ball" and gait != "lie"
    angle = 0 * s - gone / (2 * np.pi * HALVES["ball"]) + scene.phase if rolls else 0 * s
    skip = 0.03 * np.abs(np.sin(2 * np.pi * (1.5 * s + scene.phase))) if rolls else 0 * s
    return _thing(scene, x, HALVES[scene.partner] + skip, s, angle)


def _animal(
    scene: Scene,
    kind: str,
    coat: str,
    size: float,
    x: np.ndarray,
    height: np.ndarray,
    s: np.ndarray,
    gait: str,
    *,
    air: np.ndarray | None = None,
    pitch: np.ndarray | None = None,
    dip: np.ndarray | None = None,
    facing: np.ndarray | None = None,
    run: np.ndarray | None = None,
    low: np.ndarray | None = None,
    late: float = 0.0,
) -> Act:
    """An animal's act: its pose from its gait, and how high its kind keeps above the ground."""
    none = np.zeros_like(s)
    air, dip, low = (none if value is None else value for value in (air, dip, low))
    beat = s + scene.phase + late
    cycle = STEPS[gait] * (s if run is None else run) + scene.phase + late
    lean = none if pitch is None else pitch
    if kind == "fish" and gait in ("walk", "run", "jump"):
        height = height + (HOVER + 0.012 * np.sin(2 * np.pi * beat)) * (1 - low)
        lean = lean + 0.06 * np.cos(2 * np.pi * beat)
    if kind == "bird" and gait == "run":
        height = height + (FLIGHT + 0.012 * np.sin(2 * np.pi * cycle)) * (1 - low)
    if kind == "fish" and gait in ("sit", "lie"):
        lean, height = lean + {"sit": 0.6, "lie": -0.06}[gait], height + {"sit": 0.035, "lie": -0.012}[gait]
    pose = Pose(gait=gait, cycle=cycle, beat=beat, air=air, pitch=lean, dip=dip)
    faces = np.ones_like(s) if facing is None else facing
    scale = SCALES[kind] * size
    return Act(kind=kind, coat=coat, scale=scale, x=x, height=height, facing=faces, floor=floor(scene), pose=pose)


def _thing(scene: Scene, x: np.ndarray, height: np.ndarray, s: np.ndarray, angle: np.ndarray) -> Act:
    pose = Pose(gait="", cycle=angle, beat=s, air=0 * s, pitch=0 * s, dip=0 * s)
    ones = np.ones_like(s)
    return Act(kind=scene.partner, coat="", scale=1.0, x=x, height=height, facing=ones, floor=floor(scene), pose=pose)


def _extent(kind: str, size: float) -> tuple[float, float]:
    """How far a performer reaches behind and before its middle, in sides."""
    if kind not in ANIMALS:
        half = {"fence": 0.09, "carrot": 0.095}.get(kind, 0.07)
        return half, half
    rear, front = LONG[kind]
    return rear * SCALES[kind] * size, front * SCALES[kind] * size


def _room(rear: float, front: float, u: float) -> float:
    """Where the middle is at u (0 ... 1) of the room left to something that reaches so far behind and before."""
    low, high = MARGIN + rear, 1 - MARGIN - front
    return low + max(high - low, 0.0) * u


def _between(limits: tuple[float, float], u: float) -> float:
    return limits[0] + (limits[1] - limits[0]) * u


def _rise(s: np.ndarray, start: float, end: float) -> np.ndarray:
    """f (1 - f) of the way f from start to end: a parabola, a quarter high."""
    f = np.clip((s - start) / (end - start), 0, 1)
    return f * (1 - f)


# --- painting ---------------------------------------------------------------------------------------------------------

Shade = Callable[[Act, Part, int, int], Colour]  # of a part, by who is painted when, and its place in that order


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What is painted on: the canvas, where its middle square lies, and on which arrays."""

    canvas: Any
    corner: np.ndarray
    side: int
    xp: Any
    device: Any

    def paint(
        self, clips: Sequence[int], centres: np.ndarray, reach: np.ndarray, outline: Any, colours: Any, **how: Any
    ) -> None:
        """Paint a figure in some clips: centres (n, t, 2) and reach (n, t, 2) in sides; `outline` measures pixels."""
        centres, reach = self.corner + self.side * centres, self.side * reach
        where = {"xp": self.xp, "device": self.device, **how}
        drawing.paint(self.canvas, np.asarray(clips), centres, reach, outline, np.asarray(colours), **where)

    def stick(
        self, clips: Sequence[int], start: np.ndarray, end: np.ndarray, radii: Sequence[np.ndarray], colours: Any
    ) -> None:
        """Paint a capsule in some clips: its ends (n, t, 2) and its radii there, (n, t) or a number, in sides."""
        half = (end - start) / 2
        hx, hy, r0, r1 = (self.pixels(lengths) for lengths in (half[..., 0], half[..., 1], *radii))
        self.paint(
            clips,
            start + half,
            np.abs(half) + np.maximum(*radii)[..., None],
            lambda dx, dy: drawing.capsule(dx, dy, (-hx, -hy), (hx, hy), (r0, r1), self.xp),
            colours,
        )

    def pixels(self, lengths: np.ndarray) -> Any:
        """Lengths (n, t) in sides as an array (n, t, 1, 1) in pixels."""
        return drawing.array(self.side * lengths[..., None, None], self.xp, self.device)


def draw(
    scenes: Sequence[Scene],
    frames: int,
    height: int,
    width: int,
    xp: Any = np,
    device: Any = None,
    moments: np.ndarray | None = None,
) -> Any:
    """Draw scenes as uint8 (b, t, h, w, 3), antialiased by the signed distance to every part's edge.

    `xp` is the array module, numpy or torch: one text draws on either, and on the device asked for. `moments` (b, t)
    are the times from 0 to 1 that each clip shows, instead of so many evenly through it.
    """
    s = clock(len(scenes), frames, moments)
    shift, drift = (np.array([getattr(scene, name) for scene in scenes]) for name in ("shift", "drift"))
    canvas = paint_places([scene.place for scene in scenes], shift, drift, s, height, width, xp, device)
    stage = staged(canvas, xp, device)
    cast = [perform(scene, now) for scene, now in zip(scenes, s, strict=True)]
    paint_shadows(stage, cast)
    paint_cast(stage, cast)
    paint_letters(stage, scenes, cast, s)
    return drawing.finish(canvas, xp)


def staged(canvas: Any, xp: Any, device: Any) -> Stage:
    """The middle square of a canvas (b, t, h, w, 3), on which the performers play."""
    height, width = canvas.shape[2:4]
    side = min(height, width)
    corner = np.array([(width - side) / 2, (height - side) / 2])
    return Stage(canvas=canvas, corner=corner, side=side, xp=xp, device=device)


def floor(scene: Scene) -> float:
    """Where the ground is that the performers stand on, in sides from the top."""
    return 0.82 + 0.05 * scene.level


def paint_cast(stage: Stage, cast: Sequence[Sequence[Act]], shade: Shade | None = None) -> None:
    """The performers of every clip, part by part: the first of each, then the second. `shade` is the colour of a part
    where it is not the part's own."""
    shade = shade or (lambda act, part, order, slot: tone(part.tone, act.coat))
    for order in range(max(map(len, cast))):
        layers = [(i, acts[order], layers_of(acts[order])) for i, acts in enumerate(cast) if len(acts) > order]
        for slot in sorted({slot for *_, layer in layers for slot in layer}):
            some = [(i, act, layer[slot]) for i, act, layer in layers if slot in layer]
            _paint_part(stage, some, [shade(act, part, order, slot) for _, act, part in some])


def layers_of(act: Act) -> dict[int, Part]:
    """The parts of a performer by the order in which they are painted."""
    if act.kind not in SHAPES:
        return dict(enumerate(thing(act.kind, act.pose.cycle).values()))
    parts = SHAPES[act.kind](act.pose).parts
    return {SLOTS.index(name): _pitched(part, act.pose.pitch) for name, part in parts.items()}


def _pitched(part: Part, pitch: np.ndarray) -> Part:
    """The part after the whole body has turned about its middle."""
    middle, turn = 0.25j, np.exp(1j * pitch)
    return replace(part, start=middle + (part.start - middle) * turn, end=middle + (part.end - middle) * turn)


def placed(points: np.ndarray, act: Act) -> np.ndarray:
    """Points of a body (t,) complex where they are in the picture, (t, 2) in sides."""
    y = act.floor - act.height - act.scale * points.imag
    return np.stack([act.x + act.facing * act.scale * points.real, y], axis=-1)


def tone(name: str, coat: str) -> Colour:
    """The colour of a part: one of the coat's own tones, or one that all share."""
    own = ("coat", "light", "dark", "lid")
    return COATS[coat][own.index(name)] if name in own else TONES[name]


def _paint_part(stage: Stage, some: list[tuple[int, Act, Part]], colours: list[Colour]) -> None:
    """One part of each of some performers."""
    start = np.stack([placed(part.start, act) for _, act, part in some])  # (n, t, 2)
    end = np.stack([placed(part.end, act) for _, act, part in some])
    radii = [np.stack([act.scale * part.radii[k] for _, act, part in some]) for k in (0, 1)]
    stage.stick([i for i, *_ in some], start, end, radii, colours)


def paint_shadows(stage: Stage, cast: Sequence[Sequence[Act]], colour: tuple[float, float, float] = SHADOW) -> None:
    """A flat ellipse under every performer, the smaller the higher it is."""
    for order in (0, 1):
        some = [(i, acts[order]) for i, acts in enumerate(cast) if len(acts) > order]
        if some:
            _paint_shadow(stage, [i for i, _ in some], [act for _, act in some], colour)


def shadow_width(act: Act) -> np.ndarray:
    """Half the width (t,) of a performer's shadow, in sides."""
    wide = 0.36 * act.scale if act.kind in SHAPES else 0.05
    return np.asarray(wide * (1 - 1.6 * np.clip(act.height, 0, 0.4)))


def _paint_shadow(stage: Stage, clips: list[int], acts: list[Act], colour: tuple[float, float, float]) -> None:
    wide = np.stack([shadow_width(act) for act in acts])  # (n, t)
    centres = np.stack([np.stack([act.x, act.floor + 0 * act.x], axis=-1) for act in acts])
    a = stage.pixels(wide)
    stage.paint(
        clips,
        centres,
        np.stack([wide, 0.24 * wide], axis=-1),
        lambda dx, dy: drawing.ellipse(dx, dy, a, 0.24 * a, stage.xp),
        np.tile(np.array(colour), (len(clips), 1)),
        opacity=DIM,
    )


def paint_letters(stage: Stage, scenes: Sequence[Scene], cast: Sequence[Sequence[Act]], s: np.ndarray) -> None:
    """The letters z that rise over a sleeper."""
    asleep = [i for i, scene in enumerate(scenes) if scene.action == "sleeps"]
    for late in (0.0, 0.5) if asleep else ():
        rise = np.stack([(s[i] + scenes[i].phase + late) % 1 for i in asleep])  # (n, t)
        acts = [cast[i][0] for i in asleep]
        x = np.stack([act.x + act.facing * (0.45 * act.scale + 0.05 * r) for act, r in zip(acts, rise, strict=True)])
        y = np.stack([act.floor - 0.42 * act.scale - 0.17 * r for act, r in zip(acts, rise, strict=True)])
        size = 0.014 + 0.012 * rise
        _paint_letter(stage, asleep, np.stack([x, y], axis=-1), size, scenes, np.sin(np.pi * rise))


def _paint_letter(
    stage: Stage, clips: list[int], centres: np.ndarray, size: np.ndarray, scenes: Sequence[Scene], opacity: np.ndarray
) -> None:
    z, pen = stage.pixels(size), 0.006 * stage.side
    strokes = (((-z, -z), (z, -z)), ((z, -z), (-z, z)), ((-z, z), (z, z)))

    def outline(dx: Any, dy: Any) -> Any:
        top, slant, foot = (drawing.capsule(dx, dy, a, b, (pen, pen), stage.xp) for a, b in strokes)
        return stage.xp.minimum(stage.xp.minimum(top, slant), foot)

    reach = np.repeat(size[..., None] + 0.01, 2, axis=-1)
    stage.paint(clips, centres, reach, outline, [PLACES[scenes[i].place].ink for i in clips], opacity=opacity)
