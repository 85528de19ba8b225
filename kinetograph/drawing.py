"""Figures on a canvas: signed distances, antialiased, in batches, on numpy or torch.

A figure is a function of its distance: `distance(dx, dy)` takes the pixels' offsets from the figure's centre and tells
how far outside its edge they lie, negative inside, all in pixels. Only a patch around each figure is computed, so that
a small figure costs little however large the picture is. Later figures cover earlier ones.

    canvas = ground(colours, frames=16, height=128, width=128, xp=np)  # float32 (b, t, h, w, 3)
    paint(canvas, clips, centres, reach, lambda dx, dy: disc(dx, dy, radius), colours, xp=np)
    clips = finish(canvas, np)  # uint8

`xp` is the array module, numpy or torch; arrays that describe figures are numpy's, a few numbers for each frame.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

Distance = Callable[[Any, Any], Any]


def ground(colours: np.ndarray, frames: int, height: int, width: int, xp: Any, device: Any = None) -> Any:
    """A canvas (b, t, h, w, 3) float32 in 0 ... 255, each clip filled with its colour (b, 3)."""
    filled = array(colours, xp, device)[:, None, None, None, :]
    return filled + xp.zeros((len(colours), frames, height, width, 3), dtype=xp.float32, **_where(device))


def array(values: Any, xp: Any, device: Any = None) -> Any:
    """Numbers as a float32 array of this module, on this device."""
    return xp.asarray(np.asarray(values, np.float32), **_where(device))


def _where(device: Any) -> dict[str, Any]:
    return {} if device is None else {"device": device}


def finish(canvas: Any, xp: Any) -> Any:
    """The canvas as uint8 frames, rounded."""
    return xp.asarray(xp.clip(canvas + 0.5, 0.0, 255.0), dtype=xp.uint8)  # round() takes thrice as long


def paint(
    canvas: Any,
    clips: np.ndarray,
    centres: np.ndarray,
    reach: np.ndarray,
    distance: Distance,
    colours: np.ndarray,
    *,
    xp: Any,
    device: Any = None,
    opacity: np.ndarray | float = 1.0,
) -> None:
    """Cover the canvas with one figure in each of some of its clips.

    `clips` (n,) are the numbers of those clips; `centres` (n, t, 2) are x and y in pixels, `reach` (n, t), (n, t, 2)
    for x and y apart, or a number: how far any figure extends from its centre, also in pixels; `distance` is called
    with offsets (n, t, 1, p) and (n, t, p, 1); `colours` are (n, 3) or (n, t, 3); `opacity` is (n, t), or a number for
    all.
    """
    n, frames = centres.shape[:2]
    height, width = canvas.shape[2:4]
    farthest = np.max(np.reshape(reach, (-1, np.shape(reach)[2] if np.ndim(reach) == 3 else 1)), axis=0) if n else 0.0
    if n == 0 or np.max(farthest) <= 0:
        return
    side = np.broadcast_to(np.ceil(2 * farthest) + 3, 2).astype(int)  # cover ends half a pixel beyond the edge
    sides = np.minimum(side, (width, height))
    corners = np.clip(np.floor(centres - side / 2 + 0.5), 0, np.array([width, height]) - sides).astype(int)
    xs, ys = (corners[..., i, None] + np.arange(sides[i]) for i in (0, 1))  # (n, t, p): columns, rows
    dx = array(xs + 0.5 - centres[..., 0, None], xp, device)[:, :, None, :]
    dy = array(ys + 0.5 - centres[..., 1, None], xp, device)[:, :, :, None]
    solid = array(np.broadcast_to(opacity, (n, frames)), xp, device)[:, :, None, None]
    cover = (xp.clip(0.5 - distance(dx, dy), 0.0, 1.0) * solid)[..., None]  # (n, t, p, p, 1)
    colour = array(colours if colours.ndim == 3 else colours[:, None], xp, device)[:, :, None, None, :]
    starts = (clips[:, None] * frames + np.arange(frames))[:, :, None, None] * (height * width)
    place = xp.asarray(starts + ys[..., None] * width + xs[:, :, None], **_where(device))
    pixels = canvas.reshape(-1, 3)  # a view, for a canvas lies in one piece; one index a pixel is faster than four
    below = pixels[place]
    pixels[place] = below + cover * (colour - below)


# --- figures ----------------------------------------------------------------------------------------------------------
# Each returns the signed distance in pixels of the points (dx, dy) to its edge; sizes are arrays that broadcast.


def turned(dx: Any, dy: Any, angle: np.ndarray, xp: Any, device: Any = None) -> tuple[Any, Any]:
    """The points as seen by a figure that is turned clockwise by an angle (n, t), in radians; y points down."""
    c, s = (array(f(angle), xp, device)[..., None, None] for f in (np.cos, np.sin))
    return c * dx + s * dy, c * dy - s * dx


def disc(dx: Any, dy: Any, radius: Any, xp: Any) -> Any:
    """A disc."""
    return xp.sqrt(dx * dx + dy * dy) - radius


def capsule(dx: Any, dy: Any, start: tuple[Any, Any], end: tuple[Any, Any], radii: tuple[Any, Any], xp: Any) -> Any:
    """Everything within a radius of a segment, the radius running from one end to the other (nearly exact): a limb."""
    (ax, ay), (bx, by) = start, end
    px, py, sx, sy = dx - ax, dy - ay, bx - ax, by - ay
    h = xp.clip((px * sx + py * sy) / (sx * sx + sy * sy + 1e-6), 0.0, 1.0)
    return xp.sqrt((px - h * sx) ** 2 + (py - h * sy) ** 2) - (radii[0] + h * (radii[1] - radii[0]))


def ellipse(dx: Any, dy: Any, a: Any, b: Any, xp: Any) -> Any:
    """An upright ellipse with half axes a and b; exact on the edge, close to it near it (Quilez)."""
    inner = xp.sqrt((dx / a) ** 2 + (dy / b) ** 2)
    slope = xp.sqrt((dx / (a * a)) ** 2 + (dy / (b * b)) ** 2)
    return inner * (inner - 1.0) / (slope + 1e-6)


def box(dx: Any, dy: Any, a: Any, b: Any, xp: Any) -> Any:
    """An upright rectangle with half sides a and b."""
    x, y = xp.abs(dx) - a, xp.abs(dy) - b
    outside = xp.sqrt(xp.clip(x, 0.0, None) ** 2 + xp.clip(y, 0.0, None) ** 2)
    return outside + xp.clip(xp.where(x > y, x, y), None, 0.0)


def polygon(dx: Any, dy: Any, corners: list[tuple[Any, Any]], xp: Any) -> Any:
    """Any polygon without crossings, by its corners in order, each an (x, y) of arrays that broadcast."""
    nearest, inside = None, None
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        ex, ey, px, py = bx - ax, by - ay, dx - ax, dy - ay
        h = xp.clip((px * ex + py * ey) / (ex * ex + ey * ey + 1e-6), 0.0, 1.0)
        square = (px - h * ex) ** 2 + (py - h * ey) ** 2
        crosses = ((ay > dy) != (by > dy)) & ((ex * py - ey * px) * ey < 0)
        nearest = square if nearest is None else xp.where(square < nearest, square, nearest)
        inside = crosses if inside is None else inside != crosses
    return xp.sqrt(nearest) * xp.where(inside, -1.0, 1.0)
