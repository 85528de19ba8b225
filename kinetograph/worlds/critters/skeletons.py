"""The skeletons of the critters: where their joints are, and pictures of them as coloured sticks on black.

A joint is an end of a part of the body, so that skeletons move as bodies do. Joints of all animals have the same names;
each kind has some of them, and some only in some gaits: a bird that sits shows no legs. Things have none.
"""

import colorsys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from kinetograph import drawing
from kinetograph.motions import clock
from kinetograph.worlds.critters.bodies import SLOTS
from kinetograph.worlds.critters.drawing import Act, Colour, Stage, layers_of, perform, placed, staged
from kinetograph.worlds.critters.scenes import ANIMALS, Scene


def _table(rows: str) -> dict[str, tuple[str, str]]:
    """'nose: muzzle end; head: head start' as joints, each with a part of the body and one of its ends."""
    pairs = (row.split(": ") for row in rows.split("; "))
    return {joint: (where.rpartition(" ")[0], where.rpartition(" ")[2]) for joint, where in pairs}


FOUR_LEGS = _table(
    "nose: muzzle end; head: head start; near ear: near ear end; far ear: far ear end; shoulder: body end;"
    " hip: body start; tail: tail end; tail tip: tail end end; near fore: near fore end; far fore: far fore end;"
    " near hind: near hind end; far hind: far hind end"
)
BIRD = _table(
    "nose: muzzle end; head: head start; shoulder: body start; hip: body end; tail: tail end; wing: wing end;"
    " far wing: far ear end; near hind: near hind end; far hind: far hind end"
)
FISH = _table(
    "nose: muzzle end; head: pupil start; shoulder: body start; hip: body end; tail: tail end; tail tip: tail end end;"
    " wing: wing end; crest: crest end"
)
JOINTS = {**dict.fromkeys(ANIMALS, FOUR_LEGS), "bird": BIRD, "fish": FISH}
LIMBS = (
    *(("head", "nose"), ("shoulder", "head"), ("shoulder", "hip"), ("hip", "tail"), ("tail", "tail tip")),
    *(("head", "far ear"), ("head", "near ear"), ("shoulder", "far fore"), ("shoulder", "near fore")),
    *(("hip", "far hind"), ("hip", "near hind"), ("shoulder", "far wing"), ("shoulder", "wing"), ("shoulder", "crest")),
)
STICK, KNOB = 0.009, 0.015  # radii in sides


class Skeleton(NamedTuple):
    """Of one animal: its kind, and its joints by name, (t, 2) in sides of the (middle) square, x right and y down."""

    kind: str
    points: dict[str, np.ndarray]


def joints(scene: Scene, s: np.ndarray) -> list[Skeleton]:
    """The skeletons of the animals of a scene at its moments s (t,), those painted first before."""
    return [skeleton(act) for act in perform(scene, s) if act.kind in ANIMALS]


def skeleton(act: Act) -> Skeleton:
    """The skeleton of an animal that performs."""
    parts = {SLOTS[slot]: part for slot, part in layers_of(act).items()}
    shown = {name: at for name, at in JOINTS[act.kind].items() if at[0] in parts}
    points = {name: placed(getattr(parts[slot], end), act) for name, (slot, end) in shown.items()}
    return Skeleton(act.kind, points)


def pose(
    scenes: Sequence[Scene],
    frames: int,
    height: int,
    width: int,
    xp: Any = np,
    device: Any = None,
    moments: np.ndarray | None = None,
) -> Any:
    """Frames uint8 (b, t, h, w, 3) of the skeletons in what `draw` draws with the same arguments: a stick of its own
    colour for every limb, and a white knob for every joint."""
    s = clock(len(scenes), frames, moments)
    canvas = drawing.ground(np.zeros((len(scenes), 3), np.float32), s.shape[1], height, width, xp, device)
    cast = [joints(scene, now) for scene, now in zip(scenes, s, strict=True)]
    paint_skeletons(staged(canvas, xp, device), cast)
    return drawing.finish(canvas, xp)


def paint_skeletons(stage: Stage, cast: Sequence[Sequence[Skeleton]]) -> None:
    """The skeletons of every clip: the first of each, then the second."""
    for order in range(max(map(len, cast), default=0)):
        some = [(i, own[order].points) for i, own in enumerate(cast) if len(own) > order]
        for colour, (a, b) in zip(_colours(), LIMBS, strict=True):
            _paint_sticks(stage, [(i, at[a], at[b]) for i, at in some if a in at and b in at], STICK, colour)
        for name in dict.fromkeys(name for _, at in some for name in at):
            _paint_sticks(stage, [(i, at[name], at[name]) for i, at in some if name in at], KNOB, (255, 255, 255))


def _colours() -> list[Colour]:
    """As many hues as there are limbs, evenly round the circle."""
    rows = [colorsys.hsv_to_rgb(i / len(LIMBS), 1.0, 1.0) for i in range(len(LIMBS))]
    return [(round(255 * r), round(255 * g), round(255 * b)) for r, g, b in rows]


def _paint_sticks(stage: Stage, some: list[tuple[int, np.ndarray, np.ndarray]], radius: float, colour: Colour) -> None:
    if not some:
        return
    start, end = (np.stack([row[k] for row in some]) for k in (1, 2))  # (n, t, 2)
    stage.stick([i for i, *_ in some], start, end, 2 * [np.array(radius)], np.tile(colour, (len(some), 1)))
