"""A text-to-video GAN: a generator with time inside, and a critic that sees the whole clip and the sentence.

Generator. The text and one noise vector per clip make a style. The style sets the coefficients of a cosine series in
time, which places a blob in every frame: centre, size, aspect and angle of an ellipse (BlobGAN, Epstein et al. 2022,
here one blob on a path; time enters as a continuous coordinate, as in StyleGAN-V, Skorokhodov et al. 2022). A
modulated perceptron on Fourier features paints the blob in its own coordinates, another one a background that stands
still, and the blob's mask blends the two (Vondrick et al. 2016). Everything is a function of position and time, so the
same weights draw any size and any number of frames.

Critic. Convolutions over space, then a perceptron over all frames makes one vector for the clip; its product with a
vector of the text is the critic's score of the pair (projection, Miyato & Koyama 2018). It also names what it sees
(auxiliary classifier, Odena et al. 2017).
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

PLACE = 5  # numbers that place a blob: log size, log aspect, angle, centre x and y
SLOW = 0.2  # multiplier of the rate at which textures learn, as in StyleGAN's mapping (Karras et al. 2019)
SIZE, SPAN = 0.13, 1.6  # of blobs, in half sides of the picture: from SIZE e^-SPAN to SIZE e^SPAN
REACH = 1.1  # farthest centre of a blob, in half sides
SHARPNESS = 10.0  # of the fit between clip and sentence: a cosine, so that it cannot grow without bound


@dataclass(frozen=True)
class Config:
    """Sizes of both networks: the sentence, the critic's eye (whose clips are those of training; the generator draws
    any size),
    and the generator's noise, style, width of the path's perceptron, waves of the path, Fourier features and channels."""

    text: text.Config
    eye: eye.Config
    attributes: dict[str, int]  # how many values each attribute of the world has: what the critic learns to name
    noise: int
    style: int
    motion: int
    waves: int
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
        self.path = Path(config)
        self.edge = nn.Parameter(torch.tensor(4.0))  # how fast the mask falls off, in logits per pixel: antialiased
        self.front = Painter(config.style, config.fourier, config.channels)
        self.back = Painter(config.style, config.fourier, config.channels)
        for part in (self.mapping, self.path, self.front.layers, self.back.layers):
            part.apply(eye.keep_variance)

    def forward(self, ids: Tensor, noise: Tensor, frames: int, height: int, width: int) -> Tensor:
        """Generate clips; height and width are multiples of CELL."""
        direction = F.normalize(noise, dim=1) * math.sqrt(noise.shape[1])
        style = self.mapping(torch.cat([self.text(ids).whole, direction], dim=1))  # (b, d)
        place = self.path(style, frames).flatten(0, 1)  # (b t, 5)
        rows, columns = height // CELL, width // CELL
        cells = eye.cell_centres(rows, columns, place)  # (n, 2)
        styles = style.repeat_interleave(frames, dim=0)  # (b t, d)
        mask = self.mask(place, height, width).unflatten(0, (-1, frames))  # (b, t, 1, h, w)
        front = enlarge(self.front(styles, localise(cells, place)), rows).unflatten(0, (-1, frames))  # (b, t, 3, h, w)
        back = enlarge(self.back(style, cells.expand(len(style), -1, -1)), rows)[:, None]  # (b, 1, 3, h, w)
        return torch.lerp(back.expand_as(front), front, mask.expand_as(front)).transpose(1, 2)

    def mask(self, place: Tensor, height: int, width: int) -> Tensor:
        """How much of each pixel the blob covers, (b, 1, h, w): a sigmoid of the distance to its edge, in pixels."""
        pixels = eye.cell_centres(height, width, place)
        outside = localise(pixels, place).square().sum(2).add(1e-6).sqrt() - 1  # (b, n), in sizes of the blob
        to_edge = outside * blob_size(place) * min(height, width) / 2
        return torch.sigmoid(-self.edge * to_edge).unflatten(1, (height, width))[:, None]


class Path(nn.Module):
    """Style (b, d) -> places of the blob (b, t, 5) at the times 0 ... 1: a cosine series whose coefficients the style sets.

    The higher a wave, the smaller it starts, so that an untrained path is smooth: jitter is hard to unlearn.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.coefficients = eye.perceptron(config.style, config.motion, PLACE * config.waves, hidden=2)
        k = torch.arange(config.waves)
        self.waves: Tensor
        self.scale: Tensor
        self.register_buffer("waves", math.pi * k)
        self.register_buffer("scale", torch.tensor([0.5, 0.2, 0.2, 0.5, 0.5])[:, None] / (1 + k))  # (5, k)

    def forward(self, style: Tensor, frames: int) -> Tensor:
        s = torch.linspace(0, 1, frames, device=style.device, dtype=style.dtype) if frames > 1 else style.new_zeros(1)
        series = self.coefficients(style).unflatten(1, (PLACE, -1)) * self.scale  # (b, 5, k)
        return (series @ torch.cos(self.waves[:, None] * s)).transpose(1, 2)  # (b, t, 5)


class Painter(nn.Module):
    """Codes (b, m) and points (b, n, 2) -> colours (b, n, 3): Fourier features through a modulated perceptron."""

    def __init__(self, code: int, fourier: int, channels: int) -> None:
        super().__init__()
        self.frequencies: Tensor
        self.phases: Tensor
        self.register_buffer("frequencies", 2 * torch.randn(2, fourier))  # radians per unit: a few slow waves
        self.register_buffer("phases", 2 * math.pi * torch.rand(fourier))
        self.modulation = nn.Linear(code, 4 * channels)
        self.layers = nn.ModuleList([nn.Linear(fourier, channels), nn.Linear(channels, channels)])
        self.out = nn.Linear(channels, 3)
        self.plain = nn.Linear(code, 3)
        nn.init.zeros_(self.out.weight)  # one plain colour to begin with: texture is learnt, not unlearnt

    def forward(self, code: Tensor, points: Tensor) -> Tensor:
        h = torch.sin(points @ self.frequencies + self.phases)
        for layer, m in zip(self.layers, self.modulation(code).chunk(2, dim=1), strict=True):
            scale, bias = m[:, None].chunk(2, dim=2)
            h = F.leaky_relu(layer(h) * (1 + scale) + bias, 0.2)
        return SLOW * self.out(h) + self.plain(code)[:, None]


def blob_size(place: Tensor) -> Tensor:
    """The size of blobs (b, 5) -> (b, 1), in half sides of the picture.

    Bounded, as are aspect and centre: a generator whose blob may shrink to nothing or leave the picture hides it at
    the first rebuke, and what cannot be seen does not learn. A softsign bounds without letting the slope vanish.
    """
    return SIZE * torch.exp(SPAN * F.softsign(place[:, :1]))


def localise(points: Tensor, place: Tensor) -> Tensor:
    """Points (n, 2) of the picture in the coordinates (b, n, 2) of each blob, whose edge is the unit circle."""
    size, aspect = blob_size(place), torch.exp(0.3 * F.softsign(place[:, 1:2]))
    c, s = torch.cos(place[:, 2:3]), torch.sin(place[:, 2:3])  # (b, 1)
    x, y = (points - REACH * F.softsign(place[:, None, 3:])).unbind(2)
    return torch.stack([(c * x + s * y) / (size * aspect), (c * y - s * x) * aspect / size], dim=2)


def enlarge(colours: Tensor, rows: int) -> Tensor:
    """Colours of cells (b, h' w', 3), row by row -> pixels (b, 3, h, w). Not squashed into [-1, 1]: a saturated tanh
    would
    not learn."""
    cells = colours.transpose(1, 2).unflatten(2, (rows, -1))
    return F.interpolate(cells, scale_factor=CELL, mode="bilinear", align_corners=False)


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
    "tiny": {"noise": 8, "style": 32, "motion": 32, "waves": 4, "fourier": 8, "channels": 8},
    "small": {"noise": 32, "style": 192, "motion": 256, "waves": 12, "fourier": 16, "channels": 32},
}
