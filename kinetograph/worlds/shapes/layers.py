"""The layers of a scene of the shapes world: its things, which cast no shadows."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from kinetograph import drawing
from kinetograph import layers as names
from kinetograph.looks import BACKGROUNDS
from kinetograph.motions import clock
from kinetograph.worlds.shapes.drawing import Layer, layers_of, paint_layers, positions
from kinetograph.worlds.shapes.figures import outline
from kinetograph.worlds.shapes.scenes import Course, Scene

ROOM = 1.1  # of a figure's reach: its edge is soft


def courses(scenes: Sequence[Scene], moments: np.ndarray) -> np.ndarray:
    """Courses (b, layers, t, numbers) of the things of scenes at their moments s (b, t)."""
    rows = names.nowhere(*moments.shape)
    for clip, (scene, s) in enumerate(zip(scenes, moments, strict=True)):
        for order, layer in enumerate(layers_of(clip, scene)):
            rows[clip, _slot(layer)] = _course(layer.course, s, order)
    return rows


def _course(course: Course, s: np.ndarray, order: int) -> np.ndarray:
    x, y = positions([course], s[None])[0].T
    (begin, end), (clear, solid), (start, stop) = course.size, course.opacity, course.fade
    opacity = clear + (solid - clear) * np.clip((s - start) / (stop - start), 0, 1)
    return names.course(x, y, begin * (1 - s) + end * s, turn=course.spin * s, opacity=opacity, order=order)


def reaches(scenes: Sequence[Scene]) -> np.ndarray:
    """How far each layer reaches from its middle at most, (b, layers) in units of its size; 0 where there is none."""
    rows = np.zeros((len(scenes), len(names.LAYERS)))
    for clip, scene in enumerate(scenes):
        for layer in layers_of(clip, scene):
            rows[clip, _slot(layer)] = ROOM * outline(layer.shape).reach
    return rows


def unsaid(scenes: Sequence[Scene]) -> np.ndarray:
    """What no sentence says of how scenes look, (b, UNSAID): there are none, figures are as they are."""
    return np.zeros((len(scenes), len(names.UNSAID)))


def mattes(
    scenes: Sequence[Scene],
    frames: int,
    height: int,
    width: int,
    xp: Any = np,
    device: Any = None,
    moments: np.ndarray | None = None,
) -> Any:
    """How far each layer covers each pixel by itself, (b, layers, t, h, w) from 0 to 1."""
    s = clock(len(scenes), frames, moments)
    black = np.zeros((len(scenes) * len(names.LAYERS), 3), np.float32)
    canvas = drawing.ground(black, s.shape[1], height, width, xp, device)
    things = [layer for clip, scene in enumerate(scenes) for layer in layers_of(clip, scene)]
    apart = [layer.moved(layer.clip * len(names.LAYERS) + _slot(layer)) for layer in things]
    paint_layers(canvas, apart, np.repeat(s, len(names.LAYERS), axis=0), [(1.0, 1.0, 1.0)] * len(apart), xp, device)
    return canvas[..., 0].reshape(len(scenes), len(names.LAYERS), *canvas.shape[1:4])


def behind(
    scenes: Sequence[Scene],
    frames: int,
    height: int,
    width: int,
    xp: Any = np,
    device: Any = None,
    moments: np.ndarray | None = None,
) -> Any:
    """Frames uint8 (b, t, h, w, 3) of what is behind all things: what `draw` draws without them."""
    count = clock(len(scenes), frames, moments).shape[1]
    grounds = np.array([BACKGROUNDS[scene.background] for scene in scenes], np.float32).reshape(-1, 3)
    return drawing.finish(drawing.ground(grounds, count, height, width, xp, device), xp)


def _slot(layer: Layer) -> int:
    return names.FIGURES[1 if layer.partner else 0]
