"""Frames between frames by RIFE's network (of the versions 4.2 to 4.6), with weights that the user brings.

https://arxiv.org/abs/2011.06294. It guesses where every pixel goes, from coarse to fine in four passes, draws both
neighbours to the moment between, and mixes them.
"""

from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kinetograph.neural.pretrained import weighing
from kinetograph.neural.pretrained.weighing import Weights

SCALES = (8, 4, 2, 1)  # the first pass sees the frames at an eighth of their size
MULTIPLE = 32  # of the sides: an eighth, halved twice
WANTED = "RIFE network of the versions 4.2 to 4.6"


class Interpolator:
    """A network that makes frames between two. Raises InvalidRequest for a file of another kind."""

    def __init__(self, path: str, device: str) -> None:
        self._weights, self._device = weighing.read(path, "rife", device), device
        names = self._weights.keys()
        needed = {f"block{number}.{part}.weight" for number in range(4) for part in ("conv0.0.0", "lastconv.0")}
        if not needed <= names or "block0.convblock.0.beta" not in names or "block4.conv0.0.0.weight" in names:
            raise weighing.unknown(path, "rife", WANTED, self._weights)

    def __call__(self, frames: np.ndarray, times: int) -> np.ndarray:
        """The clip, uint8 (t, h, w, 3), with `times` - 1 frames between every two."""
        parts: list[np.ndarray] = []
        with torch.inference_mode():
            for now, after in pairwise(frames):
                first, second = (self._tensor(frame) for frame in (now, after))
                parts += [now, *(self._between(first, second, step / times, now.shape) for step in range(1, times))]
        return np.stack([*parts, frames[-1]])

    def _tensor(self, frame: np.ndarray) -> Tensor:
        x = torch.from_numpy(np.ascontiguousarray(frame)).to(self._device).permute(2, 0, 1)[None].float() / 255
        height, width = frame.shape[:2]
        return F.pad(x, (0, -width % MULTIPLE, 0, -height % MULTIPLE))

    def _between(self, first: Tensor, second: Tensor, moment: float, shape: tuple[int, ...]) -> np.ndarray:
        mixed = between(self._weights, first, second, moment)[..., : shape[0], : shape[1]]
        return (mixed[0].clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()


def between(weights: Weights, first: Tensor, second: Tensor, moment: float) -> Tensor:
    """The frame at a moment between 0 and 1."""
    time = torch.full_like(first[:, :1], moment)
    flow, mask = _pass(weights, 0, torch.cat((first, second, time), dim=1), None)
    for number in (1, 2, 3):
        drawn = (warped(first, flow[:, :2]), warped(second, flow[:, 2:]))
        more, other = _pass(weights, number, torch.cat((*drawn, time, mask), dim=1), flow)
        flow, mask = flow + more, mask + other
    share = torch.sigmoid(mask)
    return share * warped(first, flow[:, :2]) + (1 - share) * warped(second, flow[:, 2:])


def warped(image: Tensor, flow: Tensor) -> Tensor:
    """Each pixel from where the flow, in pixels (b, 2, h, w), says; beyond the edge the edge goes on."""
    height, width = image.shape[-2:]
    y, x = torch.meshgrid(
        torch.arange(height, device=image.device), torch.arange(width, device=image.device), indexing="ij"
    )
    places = torch.stack((x + flow[:, 0], y + flow[:, 1]), dim=-1)
    sides = torch.tensor([max(width - 1, 1), max(height - 1, 1)], device=image.device)
    return F.grid_sample(image, 2 * places / sides - 1, mode="bilinear", padding_mode="border", align_corners=True)


def _pass(weights: Weights, number: int, x: Tensor, flow: Tensor | None) -> tuple[Tensor, Tensor]:
    """One pass: how much farther everything goes, and whom to believe, at the frames' own size."""
    scale, name = SCALES[number], f"block{number}"
    x = _resized(x, 1 / scale)
    if flow is not None:
        x = torch.cat((x, _resized(flow, 1 / scale) / scale), dim=1)
    for part in ("conv0.0.0", "conv0.1.0"):
        x = F.leaky_relu(_conv(weights, f"{name}.{part}", x, stride=2), 0.2)
    for layer in range(8):
        part = f"{name}.convblock.{layer}"
        x = F.leaky_relu(_conv(weights, f"{part}.conv", x) * weights[f"{part}.beta"] + x, 0.2)
    last = weights[f"{name}.lastconv.0.weight"], weights[f"{name}.lastconv.0.bias"]
    x = F.pixel_shuffle(F.conv_transpose2d(x, *last, stride=2, padding=1), 2)
    x = _resized(x, scale)
    return x[:, :4] * scale, x[:, 4:5]


def _conv(weights: Weights, name: str, x: Tensor, stride: int = 1) -> Tensor:
    return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], stride=stride, padding=1)


def _resized(x: Tensor, scale: float) -> Tensor:
    return x if scale == 1 else F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)
