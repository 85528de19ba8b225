"""What is to be seen in frames of the shapes world: one or two things, told apart by colour, named by their outline."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from kinetograph.looks import VISIBLE, border, nearest
from kinetograph.motions import TOLD_APART as MOTIONS_TOLD_APART
from kinetograph.motions import Bands, band, times
from kinetograph.worlds.shapes.figures import FIGURES, outline
from kinetograph.worlds.shapes.scenes import COLOURS

COLOUR_TOLERANCE = 50.0  # RGB distance beyond which a colour has no name
OTHER = 45.0  # RGB distance from all blends of what is known at which there is another colour
ALONE = (
    300.0  # squared RGB distance by which a blend of all three colours must be nearer than one colour and the ground
)
STRAY = 0.15  # most pixels of a third colour, for each pixel of what is seen
ALIKE = 0.11  # how much of what is seen may differ from the outline it is taken for (squares, over the clip)
FRAME_ALIKE = 0.3  # the same for a single frame
# where one value of an attribute ends and the next begins: the middle of the gaps between the ranges above
TOLD_APART: dict[str, Bands] = {
    "size": ((0.096, "small"), (0.132, "medium"), (math.inf, "large")),
    "travel": ((0.235, "slowly"), (0.395, "steadily"), (math.inf, "quickly")),
    "spins": ((0.08, None), (0.215, "slowly"), (0.395, "steadily"), (math.inf, "quickly")),
    "fades": ((0.335, "quickly"), (0.6, "steadily"), (math.inf, "slowly")),
    **MOTIONS_TOLD_APART,
}


@dataclass(frozen=True)
class Sight:
    """One thing as it was seen: name of its shape and colour, and for each frame where it was and how much of it.

    Centres (t, 2) and unit sizes (t,) are in sides of the square; `opacity` (t,) runs up to 1; `clear` (t,) says in
    which frames all of it was there to be seen; `area` (t,) is how much of it one saw, about 1 where it is clear;
    `turns` are the revolutions it made about itself.
    """

    shape: str
    colour: str | None
    centres: np.ndarray
    sizes: np.ndarray
    opacity: np.ndarray
    clear: np.ndarray
    area: np.ndarray
    turns: float

    @property
    def size(self) -> str | None:
        """The name of its largest size."""
        return band(TOLD_APART["size"], float(self.sizes[self.clear].max()))


# --- which colours ---


def separated(frames: np.ndarray, ground: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """The colours of one or two things and how much of each pixel each covers, (t, h, w); [] where there is neither."""
    away = frames.astype(np.float32) - ground
    noise = float(np.median(np.abs(border(frames) - ground))) * 1.48
    first = _strongest(away, np.linalg.norm(away, axis=-1))
    if first is None:
        return []
    cover, stray = _unmixed(away, [first])
    second = _strongest(away, stray) if _much(stray, cover) else None
    colours = [first]
    if second is not None:
        colours.append(second)
        cover, stray = _unmixed(away, colours)
    if _much(stray, cover):
        return []
    faint = [0.1 + 1.3 * noise / float(np.linalg.norm(colour)) for colour in colours]
    return [(ground + c, _cleaned(part, least)) for c, part, least in zip(colours, cover, faint, strict=True)]


def _much(stray: np.ndarray, cover: Sequence[np.ndarray]) -> bool:
    """Whether there is more of another colour than the edges of what is known explain."""
    return float((stray > OTHER).sum()) > STRAY * float(sum((part > 0.5).sum() for part in cover))


def _strongest(away: np.ndarray, strength: np.ndarray) -> np.ndarray | None:
    """The commonest colour, less the background, among the pixels that are strongest; None where none stands out."""
    flat = strength.reshape(len(strength), -1)
    peak = float(np.partition(flat, -6, axis=1)[:, -6].max())  # the sixth strongest pixel of the best frame
    if peak < VISIBLE / 2:
        return None
    strong = away[strength > 0.85 * peak]
    bins = np.rint(strong / 64).astype(int)  # two things may be equally strong: keep to one corner of the colours
    codes = bins @ np.array([1, 16, 256])
    values, counts = np.unique(codes, return_counts=True)
    start = strong[codes == values[counts.argmax()]].mean(0)
    near = strong[np.linalg.norm(strong - start, axis=1) < 48]
    return np.asarray(np.median(near, axis=0))


def _unmixed(away: np.ndarray, colours: Sequence[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
    """How much each colour covers each pixel, least squares with shares from 0 to 1 in all, and the rest's length."""
    matrix = np.stack(colours).astype(np.float32)
    gram, along = matrix @ matrix.T, np.moveaxis(away @ matrix.T, -1, 0)
    cover, cost = _one_share(along, gram) if len(colours) == 1 else _two_shares(along, gram)
    return [*cover], np.sqrt(np.maximum((away**2).sum(-1) + cost, 0))


def _one_share(along: np.ndarray, gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a = np.clip(along / gram[0, 0], 0, 1)
    return a, (a * a * gram[0, 0] - 2 * a * along)[0]


def _two_shares(along: np.ndarray, gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest point of the triangle between the background and two colours: inside it, or on one of its sides.

    Few pixels have all three, so that one colour alone is preferred where it is nearly as good: where the two colours
    lie on opposite sides of the background, noise would pass for much of both.
    """
    (u, v), g, mixed, h = along, gram[0, 0], gram[0, 1], gram[1, 1]
    det = max(g * h - mixed * mixed, 1e-4 * g * h)  # black and white lie in one line with grey
    a, b = (h * u - mixed * v) / det, (g * v - mixed * u) / det
    none = np.zeros_like(a)
    far = np.clip((v - u - mixed + g) / (g - 2 * mixed + h), 0, 1)
    inside = (a >= 0) & (b >= 0) & (a + b <= 1)
    best, cost = np.stack([a, b]), np.where(inside, _cost(a, b, along, gram), np.inf)
    for side, bonus in (
        ((1 - far, far), 0.0),
        ((np.clip(u / g, 0, 1), none), ALONE),
        ((none, np.clip(v / h, 0, 1)), ALONE),
    ):
        other = _cost(*side, along, gram) - bonus
        nearer = other < cost
        best, cost = np.where(nearer, np.stack(side), best), np.where(nearer, other, cost)
    return best, cost


def _cost(a: np.ndarray, b: np.ndarray, along: np.ndarray, gram: np.ndarray) -> np.ndarray:
    """Squared distance of a pixel from these shares, less the squared length of the pixel."""
    length = a * a * gram[0, 0] + 2 * a * b * gram[0, 1] + b * b * gram[1, 1]
    return np.asarray(length - 2 * (a * along[0] + b * along[1]))


def _cleaned(cover: np.ndarray, least: float) -> np.ndarray:
    """Without what is so faint, on average over nine pixels, that it may be noise."""
    padded = np.pad(cover, ((0, 0), (1, 1), (1, 1)))
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    mean = (rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]) / 9
    return np.where(mean > least, cover, 0)


# --- which shape ---

_RINGS, _RAYS = 14, 72
_FAR = 1.75  # as far as outlines are compared, in radii of the disc of the same area


def sight(cover: np.ndarray, colour: np.ndarray, moving: bool) -> Sight | None:
    """Follow one thing and name its shape; None where it has none of them. Only what is alone may turn or fade."""
    _, height, width = cover.shape
    weight = cover.sum((1, 2))
    there = weight > max(2.0, 0.02 * float(weight.max()))
    if there.sum() < min(3, len(cover)):
        return None
    flat = (cover**2).sum((1, 2)) / np.maximum(weight, 1e-6)
    opacity = np.where(there, flat / flat.max(), 0)
    fading = moving and opacity.min() < 0.35
    area = np.where(there, weight / (np.maximum(opacity, 0.05) if fading else 1), 0)
    clear = there & (opacity > 0.5) if fading else there & (moving | (area > 0.86 * np.quantile(area, 0.7)))
    if clear.sum() < min(3, len(cover)) or (moving and not fading and not there.all()):
        return None
    xs, ys = np.arange(width) + 0.5, np.arange(height) + 0.5
    safe = np.maximum(weight, 1e-6)
    centres = np.stack([cover.sum(1) @ xs / safe, cover.sum(2) @ ys / safe], axis=-1)
    radii = np.sqrt(area / np.pi)
    whole = cover[clear] / (opacity[clear, None, None] if fading else 1)
    seen = _rays(whole, centres[clear], radii[clear])
    matched = _matched(seen, radii[clear], times(len(cover))[clear], turning=moving)
    if matched is None:
        return None
    shape, turns = matched
    side = min(height, width)
    return Sight(
        shape=shape,
        colour=nearest(colour, COLOURS, COLOUR_TOLERANCE),
        centres=(centres - (np.array([width, height]) - side) / 2) / side,
        sizes=np.sqrt(area / outline(shape).area) / side,
        opacity=opacity,
        clear=clear,
        area=area / np.quantile(area[there], 0.7),
        turns=turns,
    )


def _rays(cover: np.ndarray, centres: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """The cover around each centre, (n, rings, rays), at distances in proportion to the radius; bilinear."""
    n, height, width = cover.shape
    far, angle = _polar_grid()
    x = centres[:, 0, None, None] + radii[:, None, None] * far * np.cos(angle) - 0.5
    y = centres[:, 1, None, None] + radii[:, None, None] * far * np.sin(angle) - 0.5
    inside = (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)
    x, y = np.clip(x, 0, width - 1.001), np.clip(y, 0, height - 1.001)
    i, j, which = x.astype(int), y.astype(int), np.arange(n)[:, None, None]
    u, v = x - i, y - j
    above = cover[which, j, i] * (1 - u) + cover[which, j, i + 1] * u
    below = cover[which, j + 1, i] * (1 - u) + cover[which, j + 1, i + 1] * u
    return np.asarray((above * (1 - v) + below * v) * inside)


def _polar_grid() -> tuple[np.ndarray, np.ndarray]:
    far = (np.arange(_RINGS)[:, None] + 0.5) * (_FAR / _RINGS)
    return far, np.arange(_RAYS) * (2 * np.pi / _RAYS)


@cache
def _templates(softness: float) -> np.ndarray:
    """The cover of every shape on the polar grid, (shapes, rings, rays), its edge so many radii soft."""
    far, angle = _polar_grid()
    covers = []
    for shape, figure in FIGURES.items():
        unit = math.sqrt(outline(shape).area / math.pi)  # a radius in units of the shape
        distance = figure(unit * far * np.cos(angle), unit * far * np.sin(angle), np) / unit
        covers.append(np.clip(0.5 - distance / softness, 0, 1))
    return np.stack(covers)


SOFT = (0.05, 0.08, 0.13, 0.2, 0.3, 0.45)  # in radii


def _matched(seen: np.ndarray, radii: np.ndarray, s: np.ndarray, turning: bool) -> tuple[str, float] | None:
    """The shape whose outline, turned at a constant rate, is nearest to what was seen (n, rings, rays), and its turns.

    None where not even that is near enough.
    """
    weight = radii**2 / np.sum(radii**2)
    each = [_misfit(seen, _templates(soft)) for soft in SOFT]  # (k, n, rays) of each softness
    away = min(each, key=lambda one: float((one.min(2) @ weight).min()))  # a clip may be blurred
    rates = _spin_rates() if turning else np.zeros(1)
    shift = np.rint(_RAYS * rates[:, None] * (s - s[0])).astype(int)  # (rates, n)
    angles = (shift[..., None] + np.arange(_RAYS)) % _RAYS
    laws = away[:, np.arange(len(s))[:, None], angles]  # (k, rates, n, rays)
    total = np.einsum("krna,n->kra", laws, weight)
    k, rate, angle = np.unravel_index(int(total.argmin()), total.shape)
    if total[k, rate, angle] > ALIKE or (laws[k, rate, :, angle] > FRAME_ALIKE).any():
        return None
    return tuple(FIGURES)[k], float(rates[rate])


def _misfit(seen: np.ndarray, templates: np.ndarray) -> np.ndarray:
    """How much of each frame (n, rings, rays) differs from each shape (k, rings, rays) at each angle, (k, n, rays)."""
    far = _polar_grid()[0]  # each ring counts by its area
    spectrum = np.fft.rfft(seen * far, axis=-1), np.fft.rfft(templates, axis=-1).conj()
    agree = np.fft.irfft(np.einsum("nra,kra->kna", *spectrum), n=_RAYS, axis=-1)
    own, wanted = (seen**2 * far).sum((1, 2)), (templates**2 * far).sum((1, 2))
    away = own[:, None] + wanted[:, None, None] - 2 * agree
    return np.asarray(away / wanted[:, None, None])


@cache
def _spin_rates() -> np.ndarray:
    steps = np.arange(0.06, 0.63, 0.02)
    return np.concatenate([np.zeros(1), steps, -steps])
