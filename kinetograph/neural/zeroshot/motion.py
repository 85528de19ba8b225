"""Motion dynamics: where the picture is at each moment, and latents that are moved there without ceasing to be noise.

Text2Video-Zero takes the first frame's latents at a level T', moves them for each frame, and adds noise up to a level
T, from where all frames are denoised together. At T' latents are almost nothing but noise, so what is moved must stay
white: interpolation would shrink and blur it, and networks draw blurred noise as mud. Here noise is moved in two ways,
both exactly white. A translation is a change of phase in Fourier space, which loses nothing. Whatever else (zoom,
rotation, shear, any field) divides each cell into smaller ones that are independent and agree with it, moves those, and
lets each new cell be the sum of what has come to it (Chang et al. 2024, "How I Warped Your Noise", do it the other way
round). What little there is of the picture in the latents, the clean estimate, is moved as pictures are.

Beyond the frame lies a plane of noise without end, keyed by the seed: what comes into view is fresh, never a mirror
image, and moves on with the rest.
"""

import bisect
import math
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from dataclasses import field as made
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from kinetograph.errors import InvalidRequest
from kinetograph.neural.sampling import Level, move, noised
from kinetograph.neural.zeroshot.noise import Noise

FINE = 8  # cells within a cell, per side, where a motion is no translation
MARGIN = 8  # cells around a frame that take part in its change of phase, whose ends wrap around
FURTHEST = 64  # frames: no pose looks further away than this


@dataclass(frozen=True)
class Pose:
    """Where the picture is, against where it was: all about the middle of the frame.

    `x` and `y` are fractions of the frame's width and height to the right and down; `zoom` is a factor; `rotation` is
    in degrees clockwise; `shear` moves what lies a height above the middle so many heights to the left.
    """

    x: float = 0.0
    y: float = 0.0
    zoom: float = 1.0
    rotation: float = 0.0
    shear: float = 0.0

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, astuple(self))) or self.zoom <= 0:
            hint = "finite numbers, and a zoom above 0"
            raise InvalidRequest(f"{self} is no place for a picture", field="motion", hint=hint)
        if max(abs(self.x), abs(self.y)) > FURTHEST or not 1 / FURTHEST <= self.zoom <= FURTHEST:
            hint = f"within {FURTHEST} frames, and a zoom of 1/{FURTHEST} to {FURTHEST}"
            raise InvalidRequest(f"{self} is too far away", field="motion", hint=hint)

    @property
    def plain(self) -> bool:
        """Whether it is a translation and nothing else."""
        return (self.zoom, self.rotation, self.shear) == (1, 0, 0)

    def matrix(self, aspect: float) -> Tensor:
        """(2, 2): what it does to (x, y) about the middle, in fractions of a frame that is `aspect` times as wide."""
        turn = math.radians(self.rotation)
        rotation = torch.tensor([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
        sheared = torch.tensor([[1.0, self.shear], [0.0, 1.0]])
        square = torch.diag(torch.tensor([aspect, 1.0]))
        return square.inverse() @ (self.zoom * rotation @ sheared) @ square


T = TypeVar("T")
Path = Callable[[float], Pose]  # of seconds
Field = Callable[[float], Tensor]  # of seconds -> (2, h, w): how far each place has moved, in fractions of the frame
STILL = Pose()


def steady(x: float = 0.0, y: float = 0.0, zoom: float = 1.0, rotation: float = 0.0, shear: float = 0.0) -> Path:
    """A motion that goes on as it began: so much in each second, the zoom by its factor in each."""
    return lambda s: Pose(x * s, y * s, zoom**s, rotation * s, shear * s)


def keyed(keys: Sequence[tuple[float, Pose]]) -> Path:
    """A motion through poses at given seconds; before the first and after the last the picture stands."""

    def at(seconds: float) -> Pose:
        (_, a), (_, b), part = between(keys, seconds)
        x, y, rotation, shear = (u + part * (v - u) for u, v in zip(_rest(a), _rest(b)))
        return Pose(x, y, a.zoom ** (1 - part) * b.zoom**part, rotation, shear)

    between(keys, 0.0)
    return at


def _rest(pose: Pose) -> tuple[float, float, float, float]:
    return pose.x, pose.y, pose.rotation, pose.shear


def between(keys: Sequence[tuple[float, T]], seconds: float) -> tuple[tuple[float, T], tuple[float, T], float]:
    """The keys before and after a moment, and how far it is from the one to the other, from 0 to 1.

    Raises InvalidRequest for no keys, and for keys that do not follow each other.
    """
    times = [time for time, _ in keys]
    if not times or any(b <= a for a, b in pairwise(times)):
        raise InvalidRequest("the moments do not follow each other", field="keys", hint="give each a later second")
    after = bisect.bisect_right(times, seconds)
    if after in (0, len(keys)):
        end = keys[0] if after == 0 else keys[-1]
        return end, end, 0.0
    return keys[after - 1], keys[after], (seconds - times[after - 1]) / (times[after] - times[after - 1])


def shares(keys: Sequence[tuple[float, int]], moments: Sequence[float], count: int) -> Tensor:
    """(t, count): how much of each of `count` sentences holds at each moment, where keys are (second, sentence)."""
    parts = torch.zeros(len(moments), count)
    for row, moment in zip(parts, moments):
        (_, a), (_, b), part = between(keys, moment)
        row[a] += 1 - part
        row[b] += part
    return parts


@dataclass(frozen=True)
class Motion:
    """How a picture moves: a path, and a field that moves places further, on top of it."""

    path: Path = made(default_factory=steady)
    field: Field | None = None


@dataclass(frozen=True)
class Codec:
    """How latents (n, c, h, w) become pictures (n, 3, H, W), and pictures latents."""

    decode: Callable[[Tensor], Tensor]
    encode: Callable[[Tensor], Tensor]


# ---- latents that are moved


def launched(
    x: Tensor,
    clean: Tensor,
    now: Level,
    forth: Level,
    to: Level,
    motion: Motion,
    moments: Sequence[float],
    noise: Noise,
    codec: Codec | None = None,
) -> Tensor:
    """(c, t - 1, h, w): where the frames after the first begin, at the level `to`.

    `x` (c, h, w) are the first frame's latents at the level `now`, T', and `clean` what is clean in them by then;
    `moments` are the seconds of all frames. Frame k is x, moved, then noised to `forth`, T, by noise of its own. Where
    no step begins at T, it goes straight to where one does, which changes none of its noise.

    With a `codec` what is clean is moved as a picture, decoded and encoded again, since a cell of latents says where
    things are within it, and a mean of two cells does not. A field moves latents all the same.
    """
    x, clean = x.cpu().float(), clean.cpu().float()
    pure = (x - now.alpha * clean) / now.sigma
    redrawn = _redrawing(clean, codec) if codec and motion.field is None else None
    frames = []
    for frame, moment in enumerate(moments[1:], start=1):
        field, pose = motion.field(moment) if motion.field else None, motion.path(moment)
        moved_pure, moved_clean = moved(pure, clean, pose, field, noise, frame)
        moved_clean = redrawn(pose) if redrawn else moved_clean
        there, at = now.alpha * moved_clean + now.sigma * moved_pure, now
        if forth.ratio > now.ratio:
            there, at = noised(there, noise.fresh(frame), forth, now), forth
        frames.append(move(there, moved_clean, at, to))
    return torch.stack(frames, dim=1) if frames else x[:, None][:, :0]


def _redrawing(clean: Tensor, codec: Codec) -> Callable[[Pose], Tensor]:
    """What gives latents (c, h, w) of the picture that these show, moved to a pose."""
    picture = codec.decode(clean[None])[0].cpu()
    return lambda pose: codec.encode(_drawn_at(picture, _moved_back(picture, pose))[None])[0].to(clean)


def moved(
    pure: Tensor, clean: Tensor, pose: Pose, field: Tensor | None, noise: Noise, frame: int
) -> tuple[Tensor, Tensor]:
    """White noise (c, h, w), still white, and a picture (c, h, w), each moved to a pose."""
    if pose.plain and field is None:
        h, w = pure.shape[1:]
        return translated(pure, pose.x * w, pose.y * h, noise), _drawn_at(clean, _moved_back(clean, pose))
    return carried(pure, clean, pose, field, noise, frame)


def translated(pure: Tensor, x: float, y: float, noise: Noise) -> Tensor:
    """White noise (c, h, w) moved by x and y cells, whole or not: exactly itself, and exactly white.

    Whole cells are moved as they are; what is left, at most half a cell, by phases. The frequency that has no phase
    stays: so nothing is lost, and left is the mirror image of right.
    """
    (rows, dy), (columns, dx) = _whole(y), _whole(x)
    margins = MARGIN * bool(dy), MARGIN * bool(dx)
    there = _window(pure, noise, -rows, -columns, margins)
    for axis, part in ((1, dy), (2, dx)):
        there = _shifted(there, part, axis) if part else there
    h, w = pure.shape[1:]
    return there[:, margins[0] :, margins[1] :][:, :h, :w]


def _whole(cells: float) -> tuple[int, float]:
    """Whole cells and what is left of them; halves away from zero, so that both directions are alike."""
    whole = int(math.copysign(math.floor(abs(cells) + 0.5), cells))
    return whole, cells - whole


def _shifted(x: Tensor, part: float, axis: int) -> Tensor:
    count = x.shape[axis]
    phase = torch.exp(-2j * math.pi * part / count * torch.arange(count // 2 + 1))
    if count % 2 == 0:
        phase[-1] = 1
    shape = [-1 if place == axis else 1 for place in range(x.ndim)]
    return torch.fft.irfft(torch.fft.rfft(x, dim=axis) * phase.reshape(shape), n=count, dim=axis)


def _window(pure: Tensor, noise: Noise, top: int, left: int, margins: tuple[int, int]) -> Tensor:
    """What the plane of noise holds in a frame whose corner lies at (top, left), with margins around it."""
    h, w = pure.shape[1:]
    top, left = top - margins[0], left - margins[1]
    bottom, right = top + h + 2 * margins[0], left + w + 2 * margins[1]
    rows = range(math.floor(top / h), -(-bottom // h))
    columns = range(math.floor(left / w), -(-right // w))
    plane = torch.cat([torch.cat([_tile(pure, noise, i, j) for j in columns], dim=2) for i in rows], dim=1)
    top, left, bottom, right = (top - rows[0] * h, left - columns[0] * w, bottom - rows[0] * h, right - columns[0] * w)
    return plane[:, top:bottom, left:right]


def _tile(pure: Tensor, noise: Noise, row: int, column: int) -> Tensor:
    return pure if row == column == 0 else noise.place(row, column)


def carried(
    pure: Tensor, clean: Tensor, pose: Pose, field: Tensor | None, noise: Noise, frame: int
) -> tuple[Tensor, Tensor]:
    """The same for any motion: each cell is divided, the parts are moved, and what comes to a cell makes it.

    Parts are independent and of unit variance, and each of them goes to one cell: so the cells are, too, when each is
    its parts' sum over the square root of their number. A picture is their mean instead. Where nothing comes, there is
    fresh noise, and the picture as it was.
    """
    c, h, w = pure.shape
    total, picture, count = torch.zeros(c, h * w), torch.zeros(c, h * w), torch.zeros(h * w)
    for row, column in _seen(pose, field, w / h):
        places = _places(row, column, h, w)  # (h * FINE, w * FINE, 2)
        cells, inside = _cells(_forward(places, pose, field, w / h), h, w)
        parts = _divided(_tile(pure, noise, row, column), noise.grain(row, column, FINE))
        total.index_add_(1, cells, parts.flatten(1)[:, inside])
        picture.index_add_(1, cells, _drawn_at(clean, places).flatten(1)[:, inside])
        count += torch.bincount(cells, minlength=h * w)
    some = count > 0
    filled = torch.where(some, total / count.clamp(min=1).sqrt(), noise.gap(frame).flatten(1))
    return filled.view(c, h, w), torch.where(some, picture / count.clamp(min=1), clean.flatten(1)).view(c, h, w)


def _divided(tile: Tensor, grain: Tensor) -> Tensor:
    """(c, h, w) white -> (c, h * FINE, w * FINE) white, whose sum over a cell is FINE times the cell."""
    coarse = F.avg_pool2d(grain, FINE)
    return grain + (tile / FINE - coarse).repeat_interleave(FINE, 1).repeat_interleave(FINE, 2)


def _places(row: int, column: int, h: int, w: int, fine: int = FINE) -> Tensor:
    """(h * fine, w * fine, 2): where the parts of a tile lie, x and y in fractions of the frame."""
    y = (torch.arange(h * fine) + 0.5) / (h * fine) + row
    x = (torch.arange(w * fine) + 0.5) / (w * fine) + column
    return torch.stack([x[None].expand(len(y), -1), y[:, None].expand(-1, len(x))], dim=-1)


def _forward(places: Tensor, pose: Pose, field: Tensor | None, aspect: float) -> Tensor:
    """Where places (..., 2) are moved to."""
    there = (places - 0.5) @ pose.matrix(aspect).T + 0.5 + torch.tensor([pose.x, pose.y])
    return there if field is None else there + _drawn_at(field.cpu().float(), places).movedim(0, -1)


def _moved_back(picture: Tensor, pose: Pose) -> Tensor:
    """(h, w, 2): where the cells of a moved picture come from."""
    _, h, w = picture.shape
    there = _places(0, 0, h, w, fine=1) - torch.tensor([pose.x, pose.y])
    return there if pose.plain else (there - 0.5) @ pose.matrix(w / h).inverse().T + 0.5


def _drawn_at(picture: Tensor, places: Tensor) -> Tensor:
    """(c, ...): a picture (c, h, w) between its cells; beyond its edge it goes on as at the edge."""
    grid = places.reshape(1, 1, -1, 2) * 2 - 1
    drawn = F.grid_sample(picture[None], grid, mode="bicubic", padding_mode="border", align_corners=False)
    return drawn.view(len(picture), *places.shape[:-1])


def _cells(places: Tensor, h: int, w: int) -> tuple[Tensor, Tensor]:
    """Which cells of the frame places lie in, and which of the places lie in any (both flat)."""
    x, y = (places[..., 0] * w).floor().long().flatten(), (places[..., 1] * h).floor().long().flatten()
    inside = (x >= 0) & (x < w) & (y >= 0) & (y < h)
    return (y * w + x)[inside], inside


def _seen(pose: Pose, field: Tensor | None, aspect: float) -> list[tuple[int, int]]:
    """The tiles of the plane that may come into the frame."""
    corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    reach = torch.zeros(2) if field is None else field.cpu().float().abs().amax((1, 2))
    inverse = pose.matrix(aspect).inverse().T
    shifts = corners * 2 - 1  # to the four corners of how far the field may reach
    back = (corners[:, None] + shifts * reach - 0.5 - torch.tensor([pose.x, pose.y])) @ inverse + 0.5
    low, high = back.flatten(0, 1).amin(0).floor().int().tolist(), back.flatten(0, 1).amax(0).ceil().int().tolist()
    tiles = [(row, column) for row in range(low[1], high[1]) for column in range(low[0], high[0])]
    if len(tiles) > FURTHEST**2:
        raise InvalidRequest("the motion looks too far away", field="motion", hint="a smaller zoom, rotation or field")
    return tiles
