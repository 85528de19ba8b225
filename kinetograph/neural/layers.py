"""A still taken apart into layers, and a clip put together of them, each moved as a whole along its course.

What a layer does in a clip is told by the numbers of `STEPS` for each frame; `steps` takes them out of a world's
courses. Lengths are in sides of the (middle) square, x to the right and y down.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from kinetograph.layers import FACING, FIGURES, OPACITY, ORDER, SIZE, TURN, X, Y

# A layer in a frame: where the middle of what the still shows of it comes to lie; then, against the still, the
# logarithm of how much larger it is, its turn in revolutions, clockwise, and how wide it is, less than nothing where it
# is mirrored; how opaque it is, and its order among the others.
STEPS = ("x", "y", "size", "turn", "mirror", "opacity", "order")
_SIZE, _TURN, _MIRROR, _OPACITY, _ORDER = range(2, len(STEPS))
SMALLEST = 4e-4  # squares of the side: what covers less is not there
THINNEST = 0.12  # of its width: as what turns round is seen edge on
FAINTEST = 1e-4  # of a pixel: what covers less is not drawn
LEAST = 0.04  # of the whole: what covers less of a pixel has no colour of its own


class Seen(NamedTuple):
    """What is measured of the layers of a still: middles (b, layers, 2), logarithms of sizes (b, layers), a size being
    the root of an area; how opaque they are (b, layers), and whether they are there (b, layers)."""

    middles: Tensor
    sizes: Tensor
    opacity: Tensor
    there: Tensor


class Still(NamedTuple):
    """A still in layers: their colours (b, 3, h, w), the mattes (b, layers, h, w) of what is to be seen of each, and
    what is behind them (b, 3, h, w)."""

    colours: Tensor
    mattes: Tensor
    behind: Tensor


def measured(mattes: Tensor) -> Seen:
    """What is measured of mattes (b, layers, h, w)."""
    side = min(mattes.shape[2:])
    x, y = _places(mattes)
    total = mattes.sum((2, 3))
    area, kept = total / side**2, total.clamp(min=1e-6)
    middles = torch.stack([(mattes.sum(2) * x).sum(2), (mattes.sum(3) * y).sum(2)], dim=2) / kept[..., None]
    opacity = mattes.square().sum((2, 3)) / kept
    solid = torch.ones_like(opacity)
    solid[:, FIGURES] = opacity[:, FIGURES]  # shadows are as they are
    return Seen(middles, area.clamp(min=1e-6).log() / 2, solid.clamp(max=1), area > SMALLEST)


class Cast(NamedTuple):
    """Layers that were drawn, each in a square of its own, facing right, as it looks in each of t frames: their colours
    (b, layers, 3, t, s, s) and how far they cover each pixel (b, layers, t, s, s). Of the frame that stands for the
    still: logarithms of half the sides of their squares, in sides of the picture, turns in revolutions (b, layers), and
    the middles of what is to be seen (b, layers, 2), in half sides from the middle of the square. And what is behind,
    (b, 3, t, h, w), of any size."""

    colours: Tensor
    covers: Tensor
    extents: Tensor
    turns: Tensor
    middles: Tensor
    behind: Tensor


# What is told of a layer in a frame: of the still, the same in all frames, whether it is there at all, the logarithm of
# its size, how opaque it is and where it faces; of a frame that is given whether it is seen and where its middle is.
TOLD = ("there", "size", "opacity", "facing", "seen", "x", "y")
MEDIUM, CENTRE, AROUND = -2.0, 0.5, 0.2  # about what sizes and places are in the mean, and how far places spread


def known(seen: Seen, facing: Tensor, given: Tensor, middles: Tensor) -> Tensor:
    """What is known of the layers of a clip before their courses are, (b, layers, t, TOLD), where frames are `given`
    (b, t) that show middles (b, layers, t, 2); only those count. Of the still itself, the last of them, or where none
    is given one without a place in the clip, `seen` and facing are told."""
    there = seen.there.float()
    of_still = there[..., None] * torch.stack([there, seen.sizes - MEDIUM, seen.opacity, facing], dim=-1)
    shown = (given[:, None] & seen.there[:, :, None]).float()[..., None]  # (b, layers, t, 1)
    of_frames = torch.cat([shown, shown * (middles - CENTRE) / AROUND], dim=-1)
    return torch.cat([of_still[:, :, None].expand(-1, -1, given.shape[1], -1), of_frames], dim=-1)


def steps(courses: Tensor, still: Tensor, middles: Tensor, facing: Tensor) -> Tensor:
    """The steps (b, layers, t, steps) of courses (b, layers, t, numbers) for a still that shows layers at the moment of
    `still` (b, layers, numbers) with their middles there (b, layers, 2), but each mirrored about it where `facing`
    (b, layers), 1 or -1, is not where it faces by the course."""
    then, shown = still[:, :, None], facing[:, :, None]
    grown = courses[..., SIZE] - then[..., SIZE]
    turn, mirror = shown * (courses[..., TURN] - then[..., TURN]), courses[..., FACING] * shown
    off_x = (middles[..., 0] - still[..., X]) * facing * still[..., FACING].sign()
    off_y = middles[..., 1] - still[..., Y]
    angle = 2 * torch.pi * turn
    across = angle.cos() * off_x[..., None] - angle.sin() * off_y[..., None]
    along = angle.sin() * off_x[..., None] + angle.cos() * off_y[..., None]
    x = courses[..., X] + grown.exp() * mirror * across
    y = courses[..., Y] + grown.exp() * along
    return torch.stack([x, y, grown, turn, mirror, courses[..., OPACITY], courses[..., ORDER]], dim=-1)


# A layer of each clip as its steps (b, t, steps) show it; the first two are the numbers of clips, and of their layers.
Moved = Callable[[Tensor, Tensor, Tensor], Tensor]


def put_together(still: Still, seen: Seen, told: Tensor) -> Tensor:
    """A clip (b, 3, t, h, w): the layers of a still as the steps (b, layers, t, steps) tell, those of the lowest order
    first, before what is behind them."""
    lifted = _lifted(still.colours[:, None], still.mattes)

    def moved(rows: Tensor, layer: Tensor, steps: Tensor) -> Tensor:
        return warped(lifted[rows, layer], seen.middles[rows, layer], steps)

    return _laid(still.behind[:, :, None].expand(-1, -1, told.shape[2], -1, -1), seen, told, moved)


def performed(cast: Cast, seen: Seen, told: Tensor, height: int, width: int) -> Tensor:
    """A clip (b, 3, t, height, width) of drawn layers, as the steps (b, layers, t, steps) tell, those of the lowest
    order first, before what is behind them."""
    lifted = _lifted(cast.colours, cast.covers)
    frames = cast.behind.transpose(1, 2).flatten(0, 1)
    behind = F.interpolate(frames, (height, width), mode="bilinear", align_corners=False)

    def moved(rows: Tensor, layer: Tensor, steps: Tensor) -> Tensor:
        u, v = _unmoved(steps, height, width, steps[..., _TURN] + cast.turns[rows, layer][:, None])
        half = cast.extents[rows, layer].exp()[:, None, None, None]
        middle = cast.middles[rows, layer][:, None, None, None]
        grid = torch.stack([u / half + middle[..., 0], v / half + middle[..., 1]], dim=-1)
        return _sampled(lifted[rows, layer], grid)

    return _laid(behind.unflatten(0, (len(told), -1)).transpose(1, 2), seen, told, moved)


def _lifted(colours: Tensor, covers: Tensor) -> Tensor:
    """Layers off their ground (b, layers, 4, ...): colours (b, layers or 1, 3, ...) by covers (b, layers, ...), and
    these."""
    covers = covers[:, :, None]
    return torch.cat([covers * colours, covers], dim=2)


def _laid(behind: Tensor, seen: Seen, told: Tensor, moved: Moved) -> Tensor:
    """Layers laid before what is behind them (b, 3, t, h, w), each as it looks when it is `moved`, (b, 4, t, h, w)."""
    told = torch.where(seen.there[:, :, None, None], told, 0)
    opacity = (told[..., _OPACITY] / seen.opacity[:, :, None].clamp(min=LEAST)).clamp(min=0) * seen.there[:, :, None]
    order = told[..., _ORDER].mean(2).argsort(dim=1)  # (b, layers)
    rows, clip = torch.arange(len(order), device=order.device), behind
    for layer in order.T:
        found = moved(rows, layer, told[rows, layer])
        there = found[:, 3:]
        cover = (there * opacity[rows, layer][:, None, :, None, None]).clamp(max=1)
        clip = clip * (1 - cover) + found[:, :3] * (cover / there.clamp(min=FAINTEST)) * (there > FAINTEST)
    return clip


def coloured(picture: Tensor, mattes: Tensor, behind: Tensor) -> Tensor:
    """The colours (b, 3, h, w) of what lies before what is behind: the picture without what shines through."""
    cover = mattes.sum(1, keepdim=True).clamp(max=1)
    own = behind + (picture - behind) / cover.clamp(min=LEAST)
    return own.clamp(-1, 1)


# By how much the sides of a picture shrink from one level of filling to the next, rows and columns: first along the
# horizon, where what is behind things goes on.
_ALONG, _ALL = ((1, 2),) * 5, ((2, 2),) * 6
_TRUSTED = 0.25  # of a coarse pixel: where so much is known, what lies around says nothing


def filled(picture: Tensor, covered: Tensor) -> Tensor:
    """The picture (b, 3, h, w) with what is `covered` (b, 1, h, w), from 0 to 1, as what lies beside it: it is averaged
    to ever fewer pixels out of those that are known, which are then filled in from the coarsest on (push-pull, Gortler
    et al. 1996)."""
    levels = [((1 - covered) * picture, 1 - covered)]
    for rows, columns in _ALONG + _ALL:
        height, width = levels[-1][0].shape[2:]
        step = min(rows, height), min(columns, width)
        known, share = (F.avg_pool2d(part, step, ceil_mode=True) for part in levels[-1])
        levels.append((known, share))
    *finer, (known, share) = levels
    found = known / share.clamp(min=FAINTEST)
    for level, (known, share) in reversed([*enumerate(finer)]):
        around = F.interpolate(found, known.shape[2:], mode="bilinear", align_corners=False)
        trust = (share / _TRUSTED).clamp(max=1) if level else share
        found = around.lerp(known / share.clamp(min=FAINTEST), trust)
    return found


def warped(layer: Tensor, middle: Tensor, told: Tensor) -> Tensor:
    """A layer (b, c, h, w) whose middle (b, 2) is there in the still, as each of the steps (b, t, steps) shows it:
    (b, c, t, h, w), bilinear; outside the still there is nothing."""
    (height, width), t = layer.shape[2:], told.shape[1]
    side = min(height, width)
    x, y = _unmoved(told, height, width, told[..., _TURN])
    from_x, from_y = x + middle[:, None, 0, None, None], y + middle[:, None, 1, None, None]
    grid = torch.stack([(from_x - 0.5) * 2 * side / width, (from_y - 0.5) * 2 * side / height], dim=-1)
    return _sampled(layer[:, :, None].expand(-1, -1, t, -1, -1), grid)


def _sampled(source: Tensor, grid: Tensor) -> Tensor:
    """What is at these places (b, t, h, w, 2) of each frame (b, c, t, ...), (b, c, t, h, w)."""
    frames = source.transpose(1, 2).flatten(0, 1)
    found = F.grid_sample(frames, grid.flatten(0, 1).to(frames), align_corners=False)
    return found.unflatten(0, grid.shape[:2]).transpose(1, 2)


def _unmoved(told: Tensor, height: int, width: int, turn: Tensor) -> tuple[Tensor, Tensor]:
    """Where the pixels (b, t, height, width) of a clip come from, in sides from the middle of a layer as its still
    shows it, by its steps (b, t, steps), but turned by `turn` (b, t)."""
    x, y = _places(told.new_empty(height, width))
    dx, dy = x - told[..., :1], y - told[..., 1:2]  # (b, t, w) and (b, t, h)
    mirror = torch.where(told[..., _MIRROR] < 0, -1.0, 1.0) * told[..., _MIRROR].abs().clamp(min=THINNEST)
    scale = torch.exp(-told[..., _SIZE])
    u = (dx * (scale / mirror)[..., None])[:, :, None, :]  # (b, t, 1, w)
    v = (dy * scale[..., None])[..., None]  # (b, t, h, 1)
    cos, sin = (2 * torch.pi * turn).cos()[..., None, None], (2 * torch.pi * turn).sin()[..., None, None]
    return cos * u + sin * v, cos * v - sin * u


def _places(picture: Tensor) -> tuple[Tensor, Tensor]:
    """Where the columns (w,) and the rows (h,) of pictures (..., h, w) are, in sides of the middle square."""
    side = min(picture.shape[-2:])
    rows, columns = ((torch.arange(n, device=picture.device) + 0.5 - (n - side) / 2) / side for n in picture.shape[-2:])
    return columns, rows
