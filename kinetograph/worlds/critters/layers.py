"""The layers of a scene of the critters world: its performers, and the shadows under them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from kinetograph import drawing
from kinetograph import layers as names
from kinetograph.motions import clock
from kinetograph.worlds.critters.drawing import Act, paint_cast, paint_shadows, perform, shadow_width, staged
from kinetograph.worlds.critters.places import paint_places
from kinetograph.worlds.critters.scenes import ANIMALS, Scene

REACH, THING, SHADOW = 0.86, 0.11, 1.15  # of animals, things and shadows, in units of their sizes
MIDDLE = 0.25  # of a body, above its ground, in units of its scale: what it turns about


def courses(scenes: Sequence[Scene], moments: np.ndarray) -> np.ndarray:
    """Courses (b, layers, t, numbers) of the performers and their shadows, at moments s (b, t)."""
    rows = names.nowhere(*moments.shape)
    for clip, (scene, s) in enumerate(zip(scenes, moments, strict=True)):
        acts = perform(scene, s)
        for order, act in enumerate(acts):
            who = _who(scene, acts, order)
            rows[clip, names.FIGURES[who]] = _course(act, order + 1)
            y = np.full_like(act.x, act.floor)
            rows[clip, names.SHADOWS[who]] = names.course(act.x, y, shadow_width(act), order=0)
    return rows


def _who(scene: Scene, acts: Sequence[Act], order: int) -> int:
    """0 where the performer that is painted in this order is the subject, 1 for its partner: a thing, or who is painted
    first of two animals."""
    return int(len(acts) > 1 and (acts[order].kind not in ANIMALS or (scene.partner in ANIMALS and order == 0)))


def _course(act: Act, order: int) -> np.ndarray:
    if act.kind in ANIMALS:
        above, turn = MIDDLE * act.scale, -act.pose.pitch / (2 * np.pi)
    else:
        above, turn = 0.0, -act.pose.cycle if act.kind == "ball" else 0 * act.x
    y = act.floor - act.height - above
    return names.course(act.x, y, act.scale, turn=turn, facing=act.facing, order=order)


def reaches(scenes: Sequence[Scene]) -> np.ndarray:
    """How far each layer reaches from its middle at most, (b, layers) in units of its size; 0 where there is none."""
    rows = np.zeros((len(scenes), len(names.LAYERS)))
    for row, scene in zip(rows, scenes, strict=True):
        acts = perform(scene, np.zeros(1))
        for order, act in enumerate(acts):
            who = _who(scene, acts, order)
            row[names.FIGURES[who]] = REACH if act.kind in ANIMALS else THING
            row[names.SHADOWS[who]] = SHADOW
    return rows


def unsaid(scenes: Sequence[Scene]) -> np.ndarray:
    """What no sentence says of how scenes look, (b, UNSAID), beside what is said of them."""
    return np.array([[getattr(scene, name) for name in names.UNSAID] for scene in scenes])


def mattes(
    scenes: Sequence[Scene],
    frames: int,
    height: int,
    width: int,
    xp: Any = np,
    device: Any = None,
    moments: np.ndarray | None = None,
) -> Any:
    """How far each layer covers each pixel by itself, (b, layers, t, h, w) from 0 to 1; a shadow a fifth at most."""
    s = clock(len(scenes), frames, moments)
    cast = [(scene, perform(scene, now)) for scene, now in zip(scenes, s, strict=True)]
    parts = [[_of(scene, acts, who) for scene, acts in cast] for who in (0, 1)]
    count, shown = len(scenes), s.shape[1]
    white, black = np.full((count, 3), 255, np.float32), np.zeros((count, 3), np.float32)
    found = []
    for some in parts:
        canvas = drawing.ground(white, shown, height, width, xp, device)
        paint_shadows(staged(canvas, xp, device), some, (0.0, 0.0, 0.0))
        found.append((255 - canvas[..., 0]) / 255)
    for some in parts:
        canvas = drawing.ground(black, shown, height, width, xp, device)
        if any(some):
            paint_cast(staged(canvas, xp, device), some, lambda act, part, order, slot: (1, 1, 1))
        found.append(canvas[..., 0])
    return xp.stack(found, 1)


def _of(scene: Scene, acts: Sequence[Act], who: int) -> list[Act]:
    """The act of the subject, or of its partner; none where there is none."""
    return [act for order, act in enumerate(acts) if _who(scene, acts, order) == who]


def behind(
    scenes: Sequence[Scene],
    frames: int,
    height: int,
    width: int,
    xp: Any = np,
    device: Any = None,
    moments: np.ndarray | None = None,
) -> Any:
    """Frames uint8 (b, t, h, w, 3) of the places of scenes: what `draw` draws without performers and shadows."""
    s = clock(len(scenes), frames, moments)
    shift, drift = (np.array([getattr(scene, name) for scene in scenes]) for name in ("shift", "drift"))
    places = [scene.place for scene in scenes]
    return drawing.finish(paint_places(places, shift, drift, s, height, width, xp, device), xp)
