"""Larger frames by Real-ESRGAN's networks, with weights that the user brings: RRDBNet, and the compact one for videos.

https://arxiv.org/abs/2107.10833. Every frame for itself; what a frame lacks is invented. The sizes of the network, and
by how much it enlarges, are read from its weights.
"""

import re
from math import isqrt

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kinetograph.neural.pretrained import weighing
from kinetograph.neural.pretrained.weighing import Weights

WANTED = "Real-ESRGAN network (RRDBNet or SRVGGNetCompact)"


class Upscaler:
    """A network that makes frames `scale` times as wide and high. Raises InvalidRequest for a file of another kind."""

    def __init__(self, path: str, device: str) -> None:
        self._weights, self._device = weighing.read(path, "upscale", device), device
        names = self._weights.keys()
        if {"conv_first.weight", "conv_up1.weight", "conv_hr.weight", "conv_last.weight"} <= names:
            folded = isqrt(self._weights["conv_first.weight"].shape[1] // 3)  # 2 where pixels are folded into channels
            self.scale, self._run = 4 // folded, _rrdb
        elif {"body.0.weight", "body.1.weight"} <= names and "conv_first.weight" not in names:
            self.scale, self._run = isqrt(self._weights[_last(self._weights)].shape[0] // 3), _compact
        else:
            raise weighing.unknown(path, "upscale", WANTED, self._weights)

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """Frames uint8 (t, h, w, 3), larger."""
        with torch.inference_mode():
            return np.concatenate([self._one(frame) for frame in frames])

    def _one(self, frame: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(np.ascontiguousarray(frame)).to(self._device).permute(2, 0, 1)[None].float() / 255
        height, width = frame.shape[:2]
        if self._run is _rrdb and self.scale < 4:  # sides must be divisible to be folded
            folds = 4 // self.scale
            x = F.pad(x, (0, -width % folds, 0, -height % folds), mode="replicate")
        y = self._run(self._weights, x)[..., : height * self.scale, : width * self.scale]
        return (y.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def _conv(weights: Weights, name: str, x: Tensor) -> Tensor:
    return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1)


def _rrdb(weights: Weights, x: Tensor) -> Tensor:
    """Residuals of residual dense blocks, then twice the nearest neighbours and a convolution."""
    folds = isqrt(weights["conv_first.weight"].shape[1] // 3)
    first = _conv(weights, "conv_first", F.pixel_unshuffle(x, folds))
    h = first
    for number in range(_count(weights, r"body\.(\d+)\.rdb1")):
        block = h
        for dense in ("rdb1", "rdb2", "rdb3"):
            block = _dense(weights, f"body.{number}.{dense}", block)
        h = h + 0.2 * block
    h = first + _conv(weights, "conv_body", h)
    for name in ("conv_up1", "conv_up2"):
        h = F.leaky_relu(_conv(weights, name, F.interpolate(h, scale_factor=2, mode="nearest")), 0.2)
    return _conv(weights, "conv_last", F.leaky_relu(_conv(weights, "conv_hr", h), 0.2))


def _dense(weights: Weights, name: str, x: Tensor) -> Tensor:
    """Five convolutions, each of which sees what all before it made."""
    seen = x
    for number in (1, 2, 3, 4):
        seen = torch.cat((seen, F.leaky_relu(_conv(weights, f"{name}.conv{number}", seen), 0.2)), dim=1)
    return x + 0.2 * _conv(weights, f"{name}.conv5", seen)


def _compact(weights: Weights, x: Tensor) -> Tensor:
    """Convolutions and PReLUs in a row, whose channels become pixels, upon the frame enlarged plainly."""
    h, last = x, _last(weights)
    for number in range(_count(weights, r"body\.(\d+)\.weight")):
        name = f"body.{number}"
        weight = weights[f"{name}.weight"]
        h = _conv(weights, name, h) if weight.ndim == 4 else F.prelu(h, weight)
    scale = isqrt(weights[last].shape[0] // 3)
    return F.pixel_shuffle(h, scale) + F.interpolate(x, scale_factor=scale, mode="nearest")


def _count(weights: Weights, pattern: str) -> int:
    return 1 + max(int(found[1]) for name in weights if (found := re.match(pattern, name)))


def _last(weights: Weights) -> str:
    return f"body.{_count(weights, r'body.([0-9]+).weight') - 1}.weight"
