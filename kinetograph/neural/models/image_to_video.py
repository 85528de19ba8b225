"""A small space-time U-Net that sets a picture in motion: some frames of a clip are known, the others are guessed.

Text to video is taken in two steps (Girdhar et al. 2023, Emu Video): a model of stills draws one frame, this network
makes the others from it and from the sentence, in the latents of that model. Two experts have a say (Balaji et al.
2022). In much noise the network, which knows all frames, tells where things go: for each frame, which cells of the
nearest known one, its anchor, belong to a figure, how far each of them has gone, and what was behind (layers, masks and
transports in the manner of Finn et al. 2016; each cell is splatted where it comes to lie, Niklaus & Liu 2020); what is
still missing it adds. In less noise, where that is settled,
the model of stills says of each frame what it takes it for, since it has seen far more pictures, and the network, which
sees that, corrects it so that frames belong together.

Around the network lies the preconditioning of EDM (Karras et al. 2022, section 5) for the difference to the anchor,
moved or not: the network says what it is where it drowns in noise, and what to take away where it stands out.

What a sentence says of motion the text encoder of a model of stills has no reason to keep, so the network listens to
its words for itself, and learns to name what they say (`training.naming`).

Outside, convolutions over space and over three neighbours in time at all cells; then the same at half of each side and
half of the frames; inside, at a quarter of each side, a transformer in which cells of all frames attend to each other
and to the words (`models.video_unet`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kinetograph.neural.models.video_unet import (
    WAVES,
    WIDER,
    Convolutions,
    Transformer,
    logit,
    norm,
    silent,
    waves,
)
from kinetograph.neural.pictures import denoiser

PAIR = 2  # frames that are one frame within
MULTIPLE = 4  # of cells, for heights and widths
UNIT = 4  # frames: what waves tell of when a frame is
LISTENING = 2  # layers
PACE = 0.5  # cells a frame: how far a cell goes that is told to go by one
SELDOM = -2.0  # the logit of belonging to a figure, before anything is learnt


@dataclass(frozen=True)
class Config:
    """Sizes: channels of the latents; numbers of a word; channels and blocks of the convolutions at all cells and at
    half of each side; width of the transformer, its layers and heads; numbers of a whole sentence; how far differences
    spread (root of the mean square); and the levels of noise between which the say passes from the model of stills to
    the network."""

    latents: int
    words: int
    channels: int
    deeper: int
    blocks: int
    width: int
    layers: int
    heads: int
    whole: int
    spread: float = 0.35
    passes: tuple[float, float] = (0.6, 0.92)

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> "Config":
        """The configuration in the header of a checkpoint."""
        return cls(**{**table, "passes": tuple(table["passes"])})


class Guess(NamedTuple):
    """Clean latents (b, c, t, h, w); and of the cells of each frame's anchor the logits (b, t, h, w) of belonging to a
    figure, and the ways (b, 2, t, h, w) that they have gone, in cells to the right and down."""

    clean: Tensor
    figures: Tensor
    ways: Tensor


class Model(nn.Module):
    """(noisy latents (b, c, t, h, w), noise level of each frame (b, t), words (b, l, d), what the model of stills takes
    each frame for (b, c, t, h, w)) -> a guess.

    The noisy latents are (1 - level) clean + level noise; a level of 0 marks a known frame, of which each clip has one
    at least, and all others have the same. What the model of stills says counts only where `share` is less than 1. t is
    even, h and w are multiples of four.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        c, e, d = config.channels, config.deeper, config.width
        self.words = nn.Linear(config.words, d)
        self.listen = Listener(config.words, config.whole, config.heads)
        self.condition = nn.Sequential(nn.Linear(2 * WAVES + config.whole, d), nn.SiLU(), nn.Linear(d, d))
        self.moment = nn.Linear(2 * 2 * WAVES + 1, d)
        self.cut = nn.Linear(2 * config.latents + 1, c)
        self.look = silent(nn.Linear(config.latents, c))
        self.before = nn.ModuleList(Convolutions(c, d) for _ in range(config.blocks))
        self.down = nn.Linear(PAIR * 4 * c, e)
        self.before_deeper = nn.ModuleList(Convolutions(e, d) for _ in range(config.blocks))
        self.down_deeper = nn.Linear(4 * e, d)
        self.middle = Transformer(d, config.layers, config.heads)
        self.up_deeper = nn.Linear(d, 4 * e)
        self.after_deeper = nn.ModuleList(Convolutions(e, d) for _ in range(config.blocks))
        self.up = nn.Linear(e, PAIR * 4 * c)
        self.after = nn.ModuleList(Convolutions(c, d) for _ in range(config.blocks))
        self.adapt = silent(nn.Linear(d, 2 * c))
        self.paste = nn.Sequential(nn.Linear(c, WIDER * c), nn.GELU(), silent(nn.Linear(WIDER * c, 2 * config.latents)))
        self.course = silent(nn.Linear(d, 2))
        self.carry = nn.Sequential(nn.Linear(c, WIDER * c), nn.GELU(), silent(nn.Linear(WIDER * c, config.latents + 3)))

    def share(self, level: Tensor) -> Tensor:
        """How much of the say the network has in each clip (b,), by the levels (b, t); the rest is the model of
        stills'."""
        low, high = self.config.passes
        return ((level.amax(1) - low) / (high - low)).clamp(0, 1)

    def forward(self, clip: Tensor, level: Tensor, words: Tensor, drawn: Tensor) -> Guess:
        known = level == 0
        near = nearest(known)
        anchor = clip.gather(2, near[:, None, :, None, None].expand_as(clip))
        kind, s = clip.dtype, level[:, None, :, None, None]
        spread = self.config.spread
        variance = ((1 - s) * spread) ** 2 + s**2
        share = self.share(level)[:, None, None, None, None].to(kind)
        different = clip - (1 - s).to(kind) * anchor
        seen = different * variance.rsqrt().to(kind), anchor, torch.where(share < 1, drawn - anchor, 0)
        told, layers = self._told(*seen, level, near, words)
        rest, correction = told.chunk(2, dim=1)
        moved, figures, ways = self._moved(anchor, near, layers)
        filtered = ((1 - s) * spread**2 / variance).to(kind) * (clip - (1 - s).to(kind) * moved)
        left = (s * spread * variance.rsqrt()).to(kind)
        own, drawn = moved + filtered + left * rest, drawn + left * correction
        unknown = torch.where(share < 1, drawn.lerp(own, share), own)
        return Guess(torch.where(known[:, None, :, None, None], clip, unknown), figures, ways)

    def _moved(self, anchor: Tensor, near: Tensor, layers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Anchors (b, c, t, h, w) with their figures moved before what is behind, by the layers (b, c + 3, t, h, w)
        that the network tells; the figures and their ways as in a guess."""
        behind, pace, figures = layers.split([self.config.latents, 2, 1], dim=1)
        figures = figures + SELDOM
        mask, ways = figures.sigmoid(), pace * paces(near)[:, None, :, None, None].to(pace)
        shown, cover = splatted(torch.cat([mask * anchor, mask], dim=1), ways).split([self.config.latents, 1], dim=1)
        moved = (anchor + behind) * (1 - cover.clamp(max=1)) + shown / cover.clamp(min=1)
        return moved, figures[:, 0], ways

    def courses(self, whole: Tensor, near: Tensor, level: Tensor) -> Tensor:
        """Where everything goes by the sentence (b, d) alone: ways (b, t, 2) of frames from their nearest known one, in
        cells."""
        _, frames = self._frames(level, near, whole)
        course: Tensor = self.course(frames) * paces(near)[..., None]
        return course

    def _frames(self, level: Tensor, near: Tensor, whole: Tensor) -> tuple[Tensor, Tensor]:
        """What a clip is told (b, d), and what each of its frames is (b, t, d)."""
        loudest = waves(logit(level.amax(1))).to(whole)
        c = self.condition(torch.cat([loudest, whole], dim=1))
        return c, F.silu(c[:, None] + self.moment(self._moments(level, near).to(whole)))

    def _told(
        self,
        moved: Tensor,
        anchor: Tensor,
        drawn: Tensor,
        level: Tensor,
        near: Tensor,
        words: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """What the filter does not know of the differences, and what the model of stills does not, (b, 2 c, t, h, w) at
        unit variance; and the layers of `_moved`."""
        kind = moved.dtype
        c, frames = self._frames(level, near, self.listen(words))
        pairs = frames.unflatten(1, (-1, PAIR)).mean(2)
        known = (level == 0).to(kind)[:, None, :, None, None].expand_as(moved[:, :1])
        x = self.cut(torch.cat([moved, anchor, known], dim=1).permute(0, 2, 3, 4, 1))  # (b, t, h, w, c)
        x = x + self.look(drawn.permute(0, 2, 3, 4, 1))
        for block in self.before:
            x = block(x, frames)
        y = self.down(halved(x, PAIR))
        for block in self.before_deeper:
            y = block(y, pairs)
        said = self.words(words)
        heard = torch.ones(said.shape[:2], dtype=torch.bool, device=said.device)
        deep = self.middle(self.down_deeper(halved(y, 1)), said, heard, F.silu(c))
        y = y + doubled(self.up_deeper(deep), 1)
        for block in self.after_deeper:
            y = block(y, pairs)
        x = x + doubled(self.up(y), PAIR)
        for block in self.after:
            x = block(x, frames)
        shift, scale = self.adapt(frames)[:, :, None, None].chunk(2, dim=-1)
        x = torch.addcmul(shift, norm(x), 1 + scale)
        layers = self.carry(x).permute(0, 4, 1, 2, 3)
        course = F.pad(self.course(frames), (layers.shape[1] - 3, 1))  # where all goes, by the sentence alone
        return self.paste(x).permute(0, 4, 1, 2, 3), layers + course.transpose(1, 2)[..., None, None]

    @staticmethod
    def _moments(level: Tensor, near: Tensor) -> Tensor:
        """When each frame is and how long after its anchor, as waves, and whether it is known: (b, t, n)."""
        when = torch.arange(level.shape[1], device=level.device).expand_as(near)
        told = [waves(part.float() / UNIT) for part in (when, when - near)]
        return torch.cat([*told, (level == 0).float()[..., None]], dim=-1)


class Listener(nn.Module):
    """Words of a sentence (b, l, words) -> what it says as a whole (b, d)."""

    def __init__(self, words: int, width: int, heads: int) -> None:
        super().__init__()
        self.hear = nn.Linear(words, width)
        self.whole = nn.Parameter(torch.randn(width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, heads, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, LISTENING, nn.LayerNorm(width), enable_nested_tensor=False)

    def forward(self, words: Tensor) -> Tensor:
        whole = self.whole.expand(len(words), 1, -1)
        heard: Tensor = self.layers(torch.cat([whole, self.hear(words)], dim=1))
        return heard[:, 0]


class Experts(nn.Module):
    """The network with the model of stills: (noisy latents, levels (b, t), token ids (b, l)) -> clean latents, as other
    models of clips are asked."""

    def __init__(self, network: Model, stills: denoiser.Model) -> None:
        super().__init__()
        self.network, self.stills = network, stills

    def forward(self, clip: Tensor, level: Tensor, ids: Tensor) -> Tensor:
        said = self.stills.reader(ids)
        drawn = self.drawn(clip, level, said.last_hidden_state)
        guess: Guess = self.network(clip, level, said.last_hidden_state, drawn)
        return guess.clean

    def drawn(self, clip: Tensor, level: Tensor, words: Tensor) -> Tensor:
        """What the model of stills takes frames of a clip (b, c, t, h, w) for, where it is asked; else the clip."""
        told, asked = clip.clone(), (self.network.share(level)[:, None] < 1) & (level > 0)
        rows, frames = asked.nonzero(as_tuple=True)
        if len(rows):
            some = clip[rows, :, frames], level[rows, frames], words[rows]
            told[rows, :, frames] = self.stills.draw(*some).to(told)
        return told


def middle(frames: int) -> int:
    """The number of the frame in the middle of so many, the earlier of two."""
    return (frames - 1) // 2


def nearest(known: Tensor) -> Tensor:
    """For each frame of (b, t) the number (b, t) of the known one that is nearest, the earlier of two."""
    when = torch.arange(known.shape[1], device=known.device)
    apart = (when[:, None] - when).abs()  # (t, t)
    return torch.where(known[:, None], apart, len(when) + apart).argmin(2)


def paces(near: Tensor) -> Tensor:
    """How many cells what goes at a pace of one has gone in each frame (b, t) since the known one that is nearest."""
    return PACE * (torch.arange(near.shape[1], device=near.device) - near)


def splatted(x: Tensor, way: Tensor) -> Tensor:
    """Frames (b, c, t, h, w) whose cells have gone `way` (b, 2, t, h, w), so many cells to the right and down: each
    gives its share to the four cells on which it comes to lie; what leaves the picture is lost."""
    h, w = x.shape[3:]
    row = torch.arange(h, device=x.device)[:, None] + way[:, 1]  # (b, t, h, w)
    column = torch.arange(w, device=x.device) + way[:, 0]
    top, first = row.detach().floor(), column.detach().floor()
    out = x.new_zeros(x.shape).flatten(3)
    for i, j in ((top, first), (top, first + 1), (top + 1, first), (top + 1, first + 1)):
        inside = (i >= 0) & (i < h) & (j >= 0) & (j < w)
        share = (1 - (row - i).abs()) * (1 - (column - j).abs()) * inside
        place = (i.clamp(0, h - 1) * w + j.clamp(0, w - 1)).long().flatten(2)[:, None].expand(-1, x.shape[1], -1, -1)
        out = out.scatter_add(3, place, (x * share[:, None]).flatten(3))
    return out.view(x.shape)


def halved(x: Tensor, frames: int) -> Tensor:
    """(b, t, h, w, c) -> (b, t / frames, h / 2, w / 2, frames 4 c)."""
    b, t, h, w, c = x.shape
    cut = x.view(b, t // frames, frames, h // 2, 2, w // 2, 2, c)
    return cut.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(4)


def doubled(x: Tensor, frames: int) -> Tensor:
    """What `halved` does, undone."""
    b, t, h, w, c = x.shape
    cut = x.view(b, t, h, w, frames, 2, 2, c // (4 * frames))
    return cut.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(b, t * frames, 2 * h, 2 * w, -1)


PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"channels": 16, "deeper": 16, "blocks": 1, "width": 32, "layers": 1, "heads": 2, "whole": 16},
    "pocket": {"channels": 64, "deeper": 128, "blocks": 2, "width": 256, "layers": 5, "heads": 4, "whole": 128},
    "plain": {
        "channels": 64,
        "deeper": 128,
        "blocks": 0,
        "width": 384,
        "layers": 10,
        "heads": 6,
        "whole": 192,
    },  # as many sums
}
