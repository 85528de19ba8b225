"""A whole clip to one vector: what the GAN's critic and the reader of features see with."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

REACH, QUICK = 6.0, 8.0  # scales of keypoints and of their steps that make both about as loud as other features
CELL = 4  # pixels; the picture is first cut into cells of 4 x 4
PLACE = 3  # numbers of a keypoint: centre x and y, spread


@dataclass(frozen=True)
class Config:
    """Sizes of an eye: the clips it takes (frames, side in pixels), its channels, its keypoints, the width of its
    vector."""

    frames: int = 10
    size: int = 64
    channels: tuple[int, int, int] = (32, 64, 96)
    keypoints: int = 32
    width: int = 256

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> "Config":
        """The configuration in the header of a checkpoint, where tuples have become lists."""
        return cls(**{**table, "channels": tuple(table["channels"])})


class Model(nn.Module):
    """Clip (b, 3, t, h, w) in [-1, 1] -> vector (b, d).

    Convolutions look at each frame, at cells of 4 x 4 pixels; a softmax over space tells where things are (keypoints),
    strided convolutions what they are; a perceptron over all frames tells what happens.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        a, b, c = config.channels
        self.retina = nn.Sequential(nn.Conv2d(3 * CELL**2, a, 3, padding=1), nn.LeakyReLU(0.2))
        self.where = nn.Conv2d(a, config.keypoints, 1)
        self.what = nn.Sequential(nn.Conv2d(a, b, 2, 2), Residual(b), nn.Conv2d(b, c, 2, 2), Residual(c))
        side = config.size // CELL // 4
        places = PLACE * config.keypoints
        self.frame = nn.Linear(c * side * side + places, config.width)
        self.clip = perceptron(config.width * config.frames + 3 * places, config.width, config.width, hidden=2)
        self.apply(keep_variance)

    def forward(self, clip: Tensor) -> Tensor:
        return self.look(clip)[0]

    def look(self, clip: Tensor) -> tuple[Tensor, Tensor]:
        """The vector of a clip (b, d), and the keypoints that it comes from in part (b, t, 3 k)."""
        h, where = self._locate(clip)
        what = self.what(h).flatten(1).unflatten(0, where.shape[:2])
        seen = F.leaky_relu(self.frame(torch.cat([what, where], dim=2)), 0.2)  # (b, t, d)
        return self.clip(torch.cat([seen.flatten(1), paces(where)], dim=1)), where

    def keypoints(self, clip: Tensor) -> Tensor:
        """The keypoints alone (b, t, 3 k): where in each frame things are, and how far they spread."""
        return self._locate(clip)[1]

    def _locate(self, clip: Tensor) -> tuple[Tensor, Tensor]:
        frames = clip.transpose(1, 2).flatten(0, 1)  # (b t, 3, h, w)
        cells = F.pixel_unshuffle(frames, CELL).contiguous(memory_format=torch.channels_last)
        h = self.retina(cells)
        where = keypoints(self.where(h)).flatten(1)
        return h, where.unflatten(0, (clip.shape[0], clip.shape[2]))


def keypoints(maps: Tensor) -> Tensor:
    """Maps (n, k, h, w) -> where each is strong, (n, k, 3): the mean position under a softmax over space (Levine et al.
    2016), and how far it spreads around it."""
    _, _, rows, columns = maps.shape
    weight = maps.float().flatten(2).softmax(2)
    cells = cell_centres(rows, columns, weight)
    centre = weight @ cells  # (n, k, 2)
    variance = (weight @ cells.square().sum(1, keepdim=True)) - centre.square().sum(2, keepdim=True)
    spread = variance.clamp_min(1e-6).sqrt()  # a disc seen evenly: its radius over the square root of two
    return REACH * torch.cat([centre, 2 * spread], dim=2)


def paces(where: Tensor) -> Tensor:
    """How keypoints (b, t, 3 k) move: their mean steps, mean distances and mean bends, (b, 9 k); zeros where there are
    too few frames.

    A perceptron over all frames would find these too, but slowly: with steps and distances an eye learnt to name
    seventeen motions to a cross-entropy of 1.15 in the time in which it came to 2.51 without. The bends show a path
    that trembles.
    """
    steps = differences(where)
    return QUICK * torch.cat([steps.mean(1), steps.abs().mean(1), differences(steps).abs().mean(1)], dim=1)


def differences(x: Tensor) -> Tensor:
    """From each frame (b, t, n) to the next: (b, t - 1, n), or a zero for a single frame."""
    return x.diff(dim=1) if x.shape[1] > 1 else torch.zeros_like(x)


def cell_centres(rows: int, columns: int, like: Tensor) -> Tensor:
    """Centres of cells (n, 2) as (x, y), row by row; the middle square of the picture spans [-1, 1]."""
    side = min(rows, columns)
    x = (torch.arange(columns, device=like.device, dtype=like.dtype) + 0.5 - columns / 2) * 2 / side
    y = (torch.arange(rows, device=like.device, dtype=like.dtype) + 0.5 - rows / 2) * 2 / side
    return torch.stack([x.expand(rows, -1), y[:, None].expand(-1, columns)], dim=-1).flatten(0, 1)


class Residual(nn.Module):
    """A 3 x 3 convolution over space beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.change = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + F.leaky_relu(self.change(F.leaky_relu(x, 0.2)), 0.2)


def keep_variance(module: nn.Module) -> None:
    """Initialise for leaky rectifiers (He et al. 2015): torch's default loses the signal of a small object on the way
    up."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, a=0.2, nonlinearity="leaky_relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def perceptron(inputs: int, width: int, out: int, hidden: int) -> nn.Sequential:
    """Linear layers with leaky rectifiers between: `hidden` of them, then the last."""
    layers: list[nn.Module] = []
    for _ in range(hidden):
        layers += [nn.Linear(inputs, width), nn.LeakyReLU(0.2)]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, out))


PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"frames": 4, "size": 16, "channels": (8, 8, 8), "keypoints": 4, "width": 16},
    "small": {},
}
