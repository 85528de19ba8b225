"""Drawing the shapes world: courses to places, scenes to frames."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kinetograph import drawing
from kinetograph.looks import BACKGROUNDS
from kinetograph.motions import clock, triangle
from kinetograph.worlds.shapes.figures import FIGURES, ROUND, outline
from kinetograph.worlds.shapes.scenes import COLOURS, Course, Scene


def positions(courses: Sequence[Course], s: np.ndarray) -> np.ndarray:
    """Centres (n, t, 2) at the times s (t,) or (n, t), in sides of the square."""

    def row(name: str) -> np.ndarray:
        return np.array([getattr(course, name) for course in courses])[:, None]

    knee = row("knee")
    before, after = np.minimum(s, knee)[..., None], np.maximum(s - knee, 0)[..., None]
    wave = triangle(row("cycles") * s + row("phase"))[..., None]
    turn = 2 * np.pi * (row("turns") * s + row("angle"))
    circle = row("orbit")[..., None] * np.stack([np.cos(turn), np.sin(turn)], axis=-1)
    return np.asarray(
        row("start") + row("travel") * before + row("after") * after + row("swing") * wave + circle, dtype=np.float64
    )


@dataclass(frozen=True)
class Layer:
    """One thing of one clip, ready to be drawn."""

    clip: int
    shape: str
    colour: str
    size: str
    partner: bool
    course: Course

    def moved(self, clip: int) -> "Layer":
        """The same in another clip."""
        return replace(self, clip=clip)


def layers_of(clip: int, scene: Scene) -> list[Layer]:
    """What a scene shows, lowest first: the partner lies below, unless the subject passes behind it."""
    looks = (
        (scene.shape, scene.colour, scene.size, False),
        (scene.partner_shape, scene.partner_colour, scene.partner_size, True),
    )
    layers = [Layer(clip, *look, course) for look, course in zip(looks, scene.courses, strict=False)]
    return layers if scene.relation == "passes behind" else layers[::-1]


def draw(
    scenes: Sequence[Scene],
    frames: int,
    height: int,
    width: int,
    xp: Any = np,
    device: Any = None,
    moments: np.ndarray | None = None,
) -> Any:
    """Draw scenes as uint8 (b, t, h, w, 3), antialiased by the signed distance to the edge, on numpy or torch.

    `moments` (b, t) are the times from 0 to 1 that each clip shows, instead of so many evenly through it.
    """
    s = clock(len(scenes), frames, moments)
    grounds = np.array([BACKGROUNDS[scene.background] for scene in scenes], np.float32).reshape(-1, 3)
    canvas = drawing.ground(grounds, s.shape[1], height, width, xp, device)
    _paint(canvas, scenes, s, lambda layer, level, levels: COLOURS[layer.colour], xp, device)
    return drawing.finish(canvas, xp)


def depth(
    scenes: Sequence[Scene],
    frames: int,
    height: int,
    width: int,
    xp: Any = np,
    device: Any = None,
    moments: np.ndarray | None = None,
) -> Any:
    """How near everything is, as grey frames uint8 (b, t, h, w, 3): the background black, what lies on top white, and
    what lies between them half as bright."""
    s = clock(len(scenes), frames, moments)
    canvas = drawing.ground(np.zeros((len(scenes), 3), np.float32), s.shape[1], height, width, xp, device)
    _paint(canvas, scenes, s, lambda layer, level, levels: 3 * (255 * (level + 1) / levels,), xp, device)
    return drawing.finish(canvas, xp)


Shade = Callable[[Layer, int, int], tuple[float, ...]]  # of a thing, by its level of how many


def _paint(canvas: Any, scenes: Sequence[Scene], s: np.ndarray, shade: Shade, xp: Any, device: Any) -> None:
    """Everything at its moments s (b, t), the lowest first, each thing in its colour."""
    stacks = [layers_of(clip, scene) for clip, scene in enumerate(scenes)]
    for level in (0, 1):
        layers = [layer for stack in stacks for layer in stack[level : level + 1]]
        shades = [shade(layer, level, len(stacks[layer.clip])) for layer in layers]
        paint_layers(canvas, layers, s, shades, xp, device)


def paint_layers(
    canvas: Any,
    layers: Sequence[Layer],
    s: np.ndarray,
    shades: Sequence[tuple[float, ...]],
    xp: Any,
    device: Any,
) -> None:
    """Things of which no two cover each other, each in its clip and its colour, at its moments s (b, t)."""
    alike: dict[tuple[str, str], list[int]] = {}  # apart by size, so that small things get small patches
    for number, layer in enumerate(layers):
        alike.setdefault((layer.shape, layer.size), []).append(number)
    for some in alike.values():
        colours = np.array([shades[number] for number in some], np.float32)
        _draw_layers(canvas, [layers[number] for number in some], s, colours, xp, device)


def _draw_layers(
    canvas: Any, layers: Sequence[Layer], moments: np.ndarray, colours: np.ndarray, xp: Any, device: Any
) -> None:
    """Draw things of one shape into their clips."""
    height, width = canvas.shape[2:4]
    clips, side = np.array([layer.clip for layer in layers]), min(height, width)
    courses, s = [layer.course for layer in layers], moments[clips]
    figure, reach = FIGURES[layers[0].shape], outline(layers[0].shape).reach

    def run(name: str) -> np.ndarray:
        return np.array([getattr(course, name) for course in courses])

    centres = positions(courses, s) * side + (np.array([width, height]) - side) / 2
    begin, end = run("size").T[..., None]
    sizes = (begin * (1 - s) + end * s) * side  # (n, t)
    angles = run("tilt")[:, None] + 2 * np.pi * run("spin")[:, None] * s
    fade, opacity = run("fade")[..., None], run("opacity")[..., None]
    done = np.clip((s - fade[:, 0]) / (fade[:, 1] - fade[:, 0]), 0, 1)
    unit = drawing.array(sizes, xp, device)[:, :, None, None]

    def distance(dx: Any, dy: Any) -> Any:
        if layers[0].shape not in ROUND:
            dx, dy = drawing.turned(dx, dy, angles, xp, device)
        return figure(dx / unit, dy / unit, xp) * unit

    drawing.paint(
        canvas,
        clips,
        centres,
        sizes * reach,
        distance,
        colours,
        xp=xp,
        device=device,
        opacity=opacity[:, 0] + (opacity[:, 1] - opacity[:, 0]) * done,
    )
