"""A text-to-video GAN: a generator with time inside, and a critic that sees the whole clip and the sentence.

Generator. The text and the chances of one clip set the coefficients of a cosine series in time, which places a blob in
every frame, its centre and its size (BlobGAN, Epstein et al. 2022, here one round blob on a path; time enters as a
continuous coordinate, as in StyleGAN-V, Skorokhodov et al. 2022), and the colours of the blob and of the background
that its mask is blended with (Vondrick et al. 2016). Everything is a function of position and time, so the same weights
draw any size and any number of frames.

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

PLACE = 3  # numbers that place a blob: log size, centre x and y
SIZE, SPAN = 0.13, 1.6  # of blobs, in half sides of the picture: from SIZE e^-SPAN to SIZE e^SPAN
REACH = 1.1  # farthest centre of a blob, in half sides
CALM = (2.0, 6.0, 6.0)  # the wave of each from which on a path falls off fast
SHARPNESS = 10.0  # of the fit between clip and sentence: a cosine, so that it cannot grow without bound


@dataclass(frozen=True)
class Config:
    """Sizes of both networks: the sentence, the critic's eye (whose clips are those of training; the generator draws
    any size), and the generator's noise, style, gated blocks that make a path, and waves of the path.
    """

    text: text.Config
    eye: eye.Config
    attributes: dict[str, int]  # how many values each attribute of the world has: what the critic learns to name
    noise: int
    style: int
    blocks: int
    waves: int

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> "Config":
        """The configuration in the header of a checkpoint."""
        return cls(**{**table, "text": text.Config(**table["text"]), "eye": eye.Config.of(table["eye"])})


class Generator(nn.Module):
    """(token ids (b, l), noise (b, z)) -> clip (b, 3, t, h, w), colours in [-1, 1] or a little outside."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.text = text.Model(config.text)
        self.path = Path(config)
        self.edge = nn.Parameter(torch.tensor(4.0))  # how fast the mask falls off, in logits per pixel: antialiased
        mapping = eye.perceptron(config.text.width + config.noise, config.style, config.style, hidden=2)
        self.colours = nn.Sequential(mapping.apply(eye.keep_variance), nn.Linear(config.style, 6))  # of blob and ground

    def forward(self, ids: Tensor, noise: Tensor, frames: int, height: int, width: int) -> Tensor:
        """Generate clips of any size and length."""
        asked = torch.cat([self.text(ids).whole, chances(noise)], dim=1)  # (b, d)
        front, back = self.colours(asked).unflatten(1, (2, 3, 1, 1, 1)).unbind(1)  # (b, 3, 1, 1, 1)
        mask = self.mask(self.path(asked, frames), height, width)  # (b, 1, t, h, w)
        return back + mask * (front - back)

    def mask(self, place: Tensor, height: int, width: int) -> Tensor:
        """How much of each pixel a blob at these places (b, t, 3) covers, (b, 1, t, h, w): a sigmoid of the distance
        to its edge, in pixels.
        """
        pixels = eye.cell_centres(height, width, place)  # (n, 2), half sides
        size, centre = blobs(place)
        away = (pixels - centre[:, :, None]).square().sum(3).add(1e-6).sqrt()  # (b, t, n)
        to_edge = (away - size) * min(height, width) / 2
        return torch.sigmoid(-self.edge * to_edge).unflatten(2, (height, width))[:, None]


def chances(noise: Tensor) -> Tensor:
    """Normal numbers (b, z) as what chance decides of a path: half of them uniform (where, how far), half as pairs on a
    circle (when in its turn). Unit variance.

    A perceptron that must first make a phase out of two normal numbers spends most of itself on that.
    """
    plain, pairs = noise.chunk(2, dim=1)
    phases = F.normalize(pairs.unflatten(1, (-1, 2)), dim=2).flatten(1)
    return torch.cat([math.sqrt(3) * torch.erf(plain / math.sqrt(2)), math.sqrt(2) * phases], dim=1)


def told(noise: Tensor, plain: Tensor, phases: Tensor, coins: Tensor) -> Tensor:
    """Noise (b, z) that says what chance decided of a clip, so that `chances` gives that to the generator: numbers from
    0 to 1 (b, n), turns (b, p) and coins, -1 or 1 (b, c). What is NaN stays as the noise has it.

    Where chance decided evenly, the noise is as normal as before.
    """
    uniform, pairs = noise.chunk(2, dim=1)
    pairs = pairs.unflatten(1, (-1, 2))
    n, c, p = plain.shape[1], coins.shape[1], phases.shape[1]
    numbers, sides, free = uniform.split([n, c, uniform.shape[1] - n - c], dim=1)
    turns, others = pairs.split([p, pairs.shape[1] - p], dim=1)
    angle = math.tau * phases[..., None]
    turned = turns.norm(dim=2, keepdim=True) * torch.cat([angle.cos(), angle.sin()], dim=2)
    numbers = _unless_nan(torch.special.ndtri(plain.clamp(1e-4, 1 - 1e-4)), numbers)
    sides, turns = _unless_nan(sides.abs() * coins, sides), _unless_nan(turned, turns)
    return torch.cat([numbers, sides, free, torch.cat([turns, others], dim=1).flatten(1)], dim=1)


def _unless_nan(said: Tensor, otherwise: Tensor) -> Tensor:
    return torch.where(said.isnan(), otherwise, said)


class Gated(nn.Module):
    """A perceptron whose hidden units multiply each other (SwiGLU, Shazeer 2020), beside the identity.

    What sentence and noise ask of a path are products: how far, times the cosine of how far along.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(width, 3 * width), nn.Linear(3 * width // 2, width)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.hidden(F.layer_norm(x, x.shape[-1:])).chunk(2, dim=-1)
        return x + self.out(F.silu(gate) * value)


class Path(nn.Module):
    """What is asked (b, d) -> places of the blob (b, t, 3) at the times 0 ... 1, by a cosine series.

    The higher a wave, the smaller it starts, those of the size smallest, so that an untrained path is smooth: jitter is
    hard to unlearn.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        first = nn.Linear(config.text.width + config.noise, config.style)
        last = nn.Linear(config.style, PLACE * config.waves)
        self.coefficients = nn.Sequential(first, *(Gated(config.style) for _ in range(config.blocks)), last)
        k = torch.arange(config.waves)
        self.waves: Tensor
        self.scale: Tensor
        self.register_buffer("waves", math.pi * k)
        self.register_buffer("scale", 0.5 / (1 + k) / (1 + (k / torch.tensor(CALM)[:, None]) ** 2))  # (3, k)

    def forward(self, asked: Tensor, frames: int) -> Tensor:
        s = torch.linspace(0, 1, frames, device=asked.device, dtype=asked.dtype) if frames > 1 else asked.new_zeros(1)
        series = self.coefficients(asked).unflatten(1, (PLACE, -1)) * self.scale  # (b, 3, k)
        return (series @ torch.cos(self.waves[:, None] * s)).transpose(1, 2)  # (b, t, 3)


def blobs(place: Tensor) -> tuple[Tensor, Tensor]:
    """Sizes (b, t, 1) and centres (b, t, 2) of blobs, in half sides of the picture, from the numbers (b, t, 3) that
    place them.

    Both are bounded: a generator whose blob may shrink to nothing or leave the picture hides it at the first rebuke,
    and what cannot be seen does not learn. A softsign bounds without letting the slope vanish.
    """
    return SIZE * torch.exp(SPAN * F.softsign(place[..., :1])), REACH * F.softsign(place[..., 1:])


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
    "tiny": {"noise": 16, "style": 32, "blocks": 1, "waves": 4},
    "small": {"noise": 16, "style": 192, "blocks": 4, "waves": 12},
}
