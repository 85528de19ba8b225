"""A network that draws layers from a sentence: each by itself, upright, facing right, filling a square of its own, as
it looks at any moment of a clip; and what is behind them.

A drawing has few colours and sharp edges, so a pixel is shared out among a handful of parts (the softmax of a
deconvolution, the first of them the air around), and the sentence says which colour each has: what colours things have
is learnt for all outlines at once. What no sentence says, the colour of a thing of which only the shape is told, is the
noise of a conditional variational autoencoder (Sohn, Lee & Yan 2015); the moment and the chances by which a scene was
drawn, where a gait begins or a cloud lies, are told outright.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kinetograph.layers import LAYERS, UNSAID
from kinetograph.neural.models.text import Text

BEHIND = len(LAYERS)  # the number of what is behind all layers, where these are counted
SLOTS = BEHIND + 1
SIDE = 64  # pixels of the square that a layer fills; what is behind has twice as many
FIRST = 8  # cells of a side at which a drawing begins
PARTS = 12  # that share out a pixel
REST = 8  # numbers that say what the sentence does not
BEATS = 4  # of a chance, and as many half turns of the clip again
STILL = 0.5  # the moment that stands for all of a clip
TIMES = 4 * BEATS + len(UNSAID) * 4 * BEATS


class Asked(NamedTuple):
    """What is to be drawn: which layers (n,), at which moments (n,) from 0 to 1, by which chances (n, UNSAID) from 0
    to 1, and the rest (n, REST), normal."""

    slots: Tensor
    moments: Tensor
    chances: Tensor
    rest: Tensor


@dataclass(frozen=True)
class Config:
    """Sizes: width and heads of what is read in a sentence, and channels of a layer where it is finest."""

    width: int
    heads: int
    channels: int


class Painter(nn.Module):
    """What is heard of a sentence and what is asked -> codes, of which layers and grounds are drawn.

    Nothing changes its colours in a clip, so these are always those of the `STILL`."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width, c = config.width, config.channels
        wide = [3 * c, 2 * c, 3 * c // 2, c, c // 2]  # of 8, 16 ... 128 cells a side
        self.code = 8 * c
        self.listener = Listener(width, config.heads)
        self.told = nn.Sequential(
            nn.Linear(width + TIMES + REST, self.code), nn.SiLU(), nn.Linear(self.code, self.code), nn.SiLU()
        )
        self.begin = nn.Linear(self.code, c // 2 * FIRST**2)
        self.ground = nn.Parameter(torch.randn(1, wide[0], FIRST, FIRST))
        self.enter = nn.Conv2d(c // 2, wide[0], 1)
        self.blocks = nn.ModuleList(Growing(n, m, self.code) for n, m in pairwise(wide))
        self.share, self.far = nn.Conv2d(wide[3], PARTS, 3, padding=1), nn.Conv2d(wide[4], PARTS, 3, padding=1)
        self.palette = nn.Linear(self.code, 3 * PARTS)
        self.sight = nn.Linear(self.code, 3)

    def codes(self, heard: Tensor, asked: Asked) -> Tensor:
        """Codes (n, c) of what is asked, by what the listener heard of each (n, d)."""
        codes: Tensor = self.told(torch.cat([heard, _waves(asked).to(heard), asked.rest.to(heard)], dim=1))
        return codes

    def hues(self, heard: Tensor, asked: Asked) -> Tensor:
        """The colours of the parts of what is asked, (n, PARTS, 3)."""
        still = asked._replace(moments=torch.full_like(asked.moments, STILL))
        return self.palette(self.codes(heard, still)).unflatten(1, (PARTS, 3))

    def seen(self, codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """How surely layers are there, a logit (n,), the logarithm of half the side of their squares, in sides of the
        picture, and how far they are turned, in revolutions (n,)."""
        there, extent, turn = self.sight(codes).unbind(1)
        return there, extent - 2, turn

    def layers(self, codes: Tensor, hues: Tensor) -> tuple[Tensor, Tensor]:
        """Colours (n, 3, SIDE, SIDE) in [-1, 1] and logits of how far each pixel is covered (n, SIDE, SIDE)."""
        logits = self.share(self._grown(codes, 3))
        air, parts = logits[:, 0], logits[:, 1:]
        return torch.einsum("nphw,npc->nchw", parts.softmax(1), hues[:, 1:]), parts.logsumexp(1) - air

    def grounds(self, codes: Tensor, hues: Tensor) -> Tensor:
        """What is behind, (n, 3, 2 SIDE, 2 SIDE) in [-1, 1]."""
        return torch.einsum("nphw,npc->nchw", self.far(self._grown(codes, 4)).softmax(1), hues)

    def _grown(self, codes: Tensor, doublings: int) -> Tensor:
        x = self.ground + self.enter(self.begin(codes).unflatten(1, (-1, FIRST, FIRST)))
        for block in self.blocks[:doublings]:
            x = block(x, codes)
        return F.silu(x)


class Listener(nn.Module):
    """(sentences, which layer (n,)) -> what is said of it, (n, d): each layer has a query that attends to the words."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.slots = nn.Embedding(SLOTS, width)
        self.norm = nn.LayerNorm(width)
        self.query, self.keys = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, said: Text, slots: Tensor) -> Tensor:
        x = self.slots(slots) + said.whole
        k, v = self.keys(said.states).chunk(2, dim=-1)
        parts = (self.query(self.norm(x))[:, None], k, v)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=said.mask[:, None, None, :])
        return x + self.out(found.transpose(1, 2).flatten(1))


class Growing(nn.Module):
    """Cells (n, a, h, w) with a code to (n, b, 2h, 2w): two convolutions, scaled and shifted by the code."""

    def __init__(self, before: int, after: int, code: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, padding=1)
        self.second = nn.Conv2d(after, after, 3, padding=1)
        self.adapt = nn.Linear(code, 4 * after)
        self.skip = nn.Conv2d(before, after, 1)

    def forward(self, x: Tensor, codes: Tensor) -> Tensor:
        shift_1, scale_1, shift_2, scale_2 = self.adapt(codes)[:, :, None, None].chunk(4, dim=1)
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        h = self.first(F.silu(x))
        h = F.silu(_normal(h) * (1 + scale_1) + shift_1)
        h = self.second(h) * (1 + scale_2) + shift_2
        return self.skip(x) + h


def _normal(x: Tensor) -> Tensor:
    """Cells whose channels have a root mean square of one, so that codes alone scale them."""
    return x * x.square().mean(1, keepdim=True).add(1e-4).rsqrt()


def _waves(asked: Asked) -> Tensor:
    """Moments and chances as waves (n, TIMES): half turns of the clip, turns of each chance, and of what begins by
    chance and turns so often in a clip."""
    n = torch.arange(1, BEATS + 1, device=asked.moments.device, dtype=torch.float32)
    s, u = asked.moments[:, None, None], asked.chances[:, :, None]
    halves = math.pi * s * torch.arange(1, 2 * BEATS + 1, device=s.device)
    turns = 2 * math.pi * torch.cat([u * n, n * s + u], dim=2)
    angles = torch.cat([halves.flatten(1), turns.flatten(1)], dim=1)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class Reader(nn.Module):
    """What a drawing has that a sentence does not say: (drawings (n, 4, SIDE, SIDE), extents (n,), what is heard
    (n, d)) -> means and logarithms of variances, (n, REST) each. It is there to learn with alone."""

    def __init__(self, width: int, channels: int = 24) -> None:
        super().__init__()
        wide = [4, channels, 2 * channels, 3 * channels, 4 * channels]
        self.down = nn.ModuleList(nn.Conv2d(n, m, 4, 2, 1) for n, m in pairwise(wide))
        self.out = nn.Sequential(nn.Linear(16 * wide[-1] + width + 1, 128), nn.SiLU(), nn.Linear(128, 2 * REST))

    def forward(self, drawings: Tensor, extents: Tensor, heard: Tensor) -> tuple[Tensor, Tensor]:
        x = drawings
        for down in self.down:
            x = F.silu(down(x))
        mean, log_variance = self.out(torch.cat([x.flatten(1), extents[:, None], heard], dim=1)).chunk(2, dim=1)
        return mean, log_variance.clamp(-8, 2)


PRESETS = {"tiny": {"channels": 8}, "pocket": {"channels": 32}, "large": {"channels": 64}}
