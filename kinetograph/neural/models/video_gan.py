"""A text-to-video GAN: a generator with time inside, and a critic that sees the whole clip and the sentence.

Generator. The text and one noise vector per clip make a style; the style sets the frequencies and phases of a bank of
oscillators, whose state at time s makes a motion code for each frame (continuous motion codes: StyleGAN-V,
Skorokhodov et al.
2022). The code moves a plane of Fourier features by an affine map, as StyleGAN3 does with its input (Karras et al.
2021,
appendix F), here anew for every frame, so that to move an object is to change two numbers. A modulated perceptron
turns the
features into a foreground, a mask and a background that stands still, and these are blended (Vondrick et al. 2016).
It runs once
for each cell of 4 x 4 pixels and paints the mask inside the cell as a quadratic of the position: sharp edges at a
sixteenth of
the cost. Everything is a function of position and time, so the same weights draw any size and any number of frames.

Critic. Convolutions over space, then a perceptron over all frames makes one vector for the clip; its product with a
vector of the text is the
critic's score of the pair (projection, Miyato & Koyama 2018). It also names what it sees (auxiliary classifier, Odena
et al. 2017).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kinetograph.neural.models import eye, text
from kinetograph.neural.models.eye import CELL

QUADRATIC = 6  # coefficients of 1, x, y, xx, xy, yy
SHARPNESS = 10.0  # of the fit between clip and sentence: a cosine, so that it cannot grow without bound


@dataclass(frozen=True)
class Config:
    """Sizes of both networks: the sentence, the critic's eye (whose clips are those of training; the generator draws
    any size),
    and the generator's noise, style, motion code, oscillators, Fourier features and channels."""

    text: text.Config
    eye: eye.Config
    attributes: dict[str, int]  # how many values each attribute of the world has: what the critic learns to name
    noise: int
    style: int
    motion: int
    oscillators: int
    fourier: int
    channels: int

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> "Config":
        """The configuration in the header of a checkpoint."""
        seen = {**table["eye"], "channels": tuple(table["eye"]["channels"])}
        return cls(**{**table, "text": text.Config(**table["text"]), "eye": eye.Config(**seen)})


class Generator(nn.Module):
    """(token ids (b, l), noise (b, z)) -> clip (b, 3, t, h, w), colours in [-1, 1] or a little outside."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.text = text.Model(config.text)
        self.mapping = eye.perceptron(config.text.width + config.noise, config.style, config.style, hidden=2)
        self.clock = Clock(config)
        self.moving = Painter(config.motion, config.fourier, config.channels, out=QUADRATIC + 3)
        self.still = Painter(config.style, config.fourier // 2, config.channels // 2, out=3)
        for part in (self.mapping, self.clock.code, self.moving.layers, self.still.layers):
            part.apply(eye.keep_variance)

    def forward(self, ids: Tensor, noise: Tensor, frames: int, height: int, width: int) -> Tensor:
        """Generate clips; height and width are multiples of CELL."""
        direction = F.normalize(noise, dim=1) * math.sqrt(noise.shape[1])
        style = self.mapping(torch.cat([self.text(ids).whole, direction], dim=1))  # (b, d)
        motion = self.clock(style, frames).flatten(0, 1)  # (b t, m)
        cells = eye.cell_centres(height // CELL, width // CELL, style)  # (n, 2)
        shape = (height // CELL, width // CELL)
        painted = self.moving(motion, cells).unflatten(1, shape)  # (b t, h', w', 9)
        mask = torch.sigmoid(inside_cells(painted[..., :QUADRATIC], min(shape)))  # (b t, 1, h, w)
        front = enlarge(painted[..., QUADRATIC:]).unflatten(0, (-1, frames))  # (b, t, 3, h, w)
        back = enlarge(self.still(style, cells).unflatten(1, shape))[:, None]  # (b, 1, 3, h, w)
        clip = torch.lerp(back.expand_as(front), front, mask.unflatten(0, (-1, frames)).expand_as(front))
        return clip.transpose(1, 2)


class Clock(nn.Module):
    """Style (b, d) -> motion codes (b, t, m) at the times 0 ... 1: oscillators whose pace and phase the style sets."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.wave = nn.Linear(config.style, 2 * config.oscillators)
        self.pace = nn.Parameter(torch.linspace(0.25, 3.0, config.oscillators))  # cycles per clip, to begin with
        self.code = eye.perceptron(config.style + config.oscillators + 1, config.motion, config.motion, hidden=3)

    def forward(self, style: Tensor, frames: int) -> Tensor:
        s = torch.linspace(0, 1, frames, device=style.device, dtype=style.dtype) if frames > 1 else style.new_zeros(1)
        pace, phase = self.wave(style).chunk(2, dim=1)  # (b, k) each
        waves = torch.sin(2 * math.pi * ((self.pace + pace)[:, None] * s[:, None] + phase[:, None]))  # (b, t, k)
        still = style[:, None].expand(-1, frames, -1)
        return self.code(torch.cat([still, waves, (s - 0.5).expand(len(style), -1)[..., None]], dim=2))


class Painter(nn.Module):
    """Code (b, m) and points (n, 2) -> values (b, n, out): Fourier features of moved points through a modulated
    perceptron."""

    def __init__(self, code: int, fourier: int, channels: int, out: int) -> None:
        super().__init__()
        self.frequencies: Tensor
        self.phases: Tensor
        self.register_buffer("frequencies", torch.randn(fourier, 2))  # radians per half picture: a few slow waves
        self.register_buffer("phases", 2 * math.pi * torch.rand(fourier))
        self.place = nn.Linear(code, 4)  # log scale, angle and translation of the points
        self.modulation = nn.Linear(code, 6 * channels)
        self.layers = nn.ModuleList(
            [nn.Linear(fourier + 2, channels), nn.Linear(channels, channels), nn.Linear(channels, channels)]
        )
        self.out = nn.Linear(channels, out)
        nn.init.zeros_(self.place.bias)

    def forward(self, code: Tensor, points: Tensor) -> Tensor:
        moved = move(points, *self.place(code).split([1, 1, 2], dim=1))  # (b, n, 2)
        h = torch.cat([moved, torch.sin(moved @ (2.5 * self.frequencies.T) + self.phases)], dim=2)
        for layer, m in zip(self.layers, self.modulation(code).chunk(3, dim=1), strict=True):
            scale, bias = m[:, None].chunk(2, dim=2)
            h = F.leaky_relu(layer(h) * (1 + scale) + bias, 0.2)
        return self.out(h)


def move(points: Tensor, log_scale: Tensor, angle: Tensor, shift: Tensor) -> Tensor:
    """Points (n, 2) shifted, turned and scaled (by e^-2 to e^2, so that no step can blow up), for each of b codes:
    (b, n, 2)."""
    scale = torch.exp(2 * torch.tanh(log_scale / 2))
    c, s = scale * torch.cos(angle), scale * torch.sin(angle)  # (b, 1)
    x, y = (points + shift[:, None]).unbind(2)
    return torch.stack([c * x - s * y, s * x + c * y], dim=2)


def inside_cells(coefficients: Tensor, cells: int) -> Tensor:
    """Quadratics (b, h', w', 6) of the position inside each cell -> pixels (b, 1, h, w).

    Positions are in sixteenths of the picture's side, whatever its size, so that a larger picture shows the same shape.
    """
    d = (torch.arange(CELL, device=coefficients.device, dtype=coefficients.dtype) + 0.5) / CELL - 0.5
    d = d * 16 / cells
    x, y = d.expand(CELL, -1), d[:, None].expand(-1, CELL)
    basis = torch.stack([torch.ones_like(x), x, y, x * x, x * y, y * y]).flatten(1)  # (6, 16)
    return F.pixel_shuffle(torch.einsum("bhwk,kp->bphw", 4 * coefficients, basis), CELL)


def enlarge(colours: Tensor) -> Tensor:
    """Colours of cells (b, h', w', 3) -> pixels (b, 3, h, w). Not squashed into [-1, 1]: a saturated tanh would not
    learn."""
    return F.interpolate(colours.permute(0, 3, 1, 2), scale_factor=CELL, mode="bilinear", align_corners=False)


class Critic(nn.Module):
    """(clip (b, 3, t, h, w), token ids (b, l)) -> score (b,): is this a real clip, and one of this sentence?"""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.text = text.Model(config.text)
        self.see = eye.Model(config.eye)  # clip -> vector (b, d)
        self.wanted = eye.perceptron(config.text.width, config.eye.width, config.eye.width, hidden=1)
        self.alone = nn.Linear(config.eye.width, 1)
        self.names = nn.ModuleDict({name: nn.Linear(config.eye.width, n) for name, n in config.attributes.items()})
        self.wanted.apply(eye.keep_variance)

    def want(self, ids: Tensor) -> Tensor:
        """Sentences (b, l) as the vectors (b, d) that clips are held against."""
        return F.normalize(self.wanted(self.text(ids).whole), dim=1)

    def judge(self, seen: Tensor, wanted: Tensor) -> Tensor:
        """Score of what was seen (b, d) as clips of what is wanted: (b,) for one sentence each (b, d), (b, k) for k
        sentences each (b, k, d)."""
        fit = (F.normalize(seen, dim=1)[:, None] * wanted.view(len(seen), -1, seen.shape[1])).sum(2)  # (b, k)
        scores = self.alone(seen) / math.sqrt(seen.shape[1]) + SHARPNESS * fit
        return scores[:, 0] if wanted.dim() == 2 else scores

    def compare(self, seen: Tensor, wanted: Tensor) -> Tensor:
        """How well each clip seen (b, d) fits each sentence wanted (b, d): (b, b), a row for each clip."""
        return SHARPNESS * F.normalize(seen, dim=1) @ wanted.T

    def name(self, seen: Tensor) -> dict[str, Tensor]:
        """What it takes the clips seen (b, d) for: logits (b, values) for each attribute."""
        return {name: head(F.leaky_relu(seen, 0.2)) for name, head in self.names.items()}

    def forward(self, clip: Tensor, ids: Tensor) -> Tensor:
        """Score (b,) of clips as clips of these sentences."""
        return self.judge(self.see(clip), self.want(ids))


PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"noise": 8, "style": 32, "motion": 32, "oscillators": 8, "fourier": 8, "channels": 16},
    "small": {"noise": 32, "style": 192, "motion": 256, "oscillators": 32, "fourier": 32, "channels": 64},
}
