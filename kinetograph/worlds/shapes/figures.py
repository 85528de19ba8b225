"""The nine shapes: signed distances in units of the shape's size, and what is measured of each.

Each is upright, its centre of mass at the origin; y points down.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np


def _circle(x: Any, y: Any, xp: Any) -> Any:
    return xp.sqrt(x * x + y * y) - 1.0


def _ring(x: Any, y: Any, xp: Any) -> Any:
    return xp.abs(xp.sqrt(x * x + y * y) - 0.87) - 0.25


def _square(x: Any, y: Any, xp: Any) -> Any:
    return xp.maximum(xp.abs(x), xp.abs(y)) - 0.87


def _triangle(x: Any, y: Any, xp: Any) -> Any:
    return xp.maximum(y, 0.8660254 * xp.abs(x) - 0.5 * y) - 0.68


def _hexagon(x: Any, y: Any, xp: Any) -> Any:
    return xp.maximum(0.8660254 * xp.abs(x) + 0.5 * xp.abs(y), xp.abs(y)) - 0.953


def _cross(x: Any, y: Any, xp: Any) -> Any:
    x, y = xp.abs(x), xp.abs(y)
    return xp.minimum(xp.maximum(x - 1.13, y - 0.4), xp.maximum(x - 0.4, y - 1.13))


def _heart(x: Any, y: Any, xp: Any) -> Any:
    """A square on its corner, and a disc on the middle of each upper side."""
    x, y = xp.abs(x), y - 0.2946
    half = 0.665
    lobe = xp.sqrt((x - half * 0.70711) ** 2 + (y + half * 0.70711) ** 2)
    return xp.minimum((x + xp.abs(y)) * 0.70711, lobe) - half


def _star(x: Any, y: Any, xp: Any) -> Any:
    """Five points, folded into half of one: mirrored at the lines between the points (Quilez)."""
    x, y = xp.abs(x), -y
    for kx, ky in ((0.8090170, -0.5877853), (-0.8090170, -0.5877853)):
        beyond = 2.0 * xp.clip(kx * x + ky * y, 0.0, None)
        x, y = x - beyond * kx, y - beyond * ky
    tip, notch = 1.34, (0.3938, 0.5420)  # half as far out as the tip, half a point further round
    ex, ey = notch[0], notch[1] - tip
    length = math.hypot(ex, ey)
    return (-ey * xp.abs(x) + ex * (y - tip)) / length


def _crescent(x: Any, y: Any, xp: Any) -> Any:
    """A disc without another one that covers its right."""
    x = x - 0.4504
    return xp.maximum(xp.sqrt(x * x + y * y) - 1.2, 0.95 - xp.sqrt((x - 0.62) ** 2 + y * y))


FIGURES: dict[str, Callable[[Any, Any, Any], Any]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "hexagon": _hexagon,
    "heart": _heart,
    "cross": _cross,
    "crescent": _crescent,
    "ring": _ring,
}
ROUND = ("circle", "ring")  # nobody sees them spin


@dataclass(frozen=True)
class Outline:
    """What is measured of a shape, in units of its size: area, farthest point, how far it extends in 72 directions."""

    area: float
    reach: float
    extent: tuple[float, ...]


@cache
def outline(shape: str) -> Outline:
    """Measure a shape on a fine grid. Direction 0 is to the right, then clockwise, five degrees apart."""
    x, y = np.meshgrid(*2 * [np.linspace(-1.6, 1.6, 641)])
    inside = FIGURES[shape](x, y, np) < 0
    far = np.linspace(0, 1.6, 321)[:, None]
    angle = np.arange(72) * (2 * np.pi / 72)
    rays = FIGURES[shape](far * np.cos(angle), far * np.sin(angle), np) < 0
    edge = np.where(rays, far, 0.0).max(0)
    extent = (edge * np.cos(angle - angle[:, None])).max(1)  # no part of it lies beyond a wall at this distance
    return Outline(float(inside.sum()) * 0.005**2, float(np.hypot(x, y)[inside].max()), tuple(extent.tolist()))
