"""ControlNets: networks beside the network, each of which sees a control clip and bends what the network says.

Zhang et al. 2023. One adds what it says to every level of the UNet; several add theirs up, each by its strength. They
are asked chunk by chunk like the network itself, and cross-frame attention works in them too, where they are given to
`crossing`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kinetograph.neural.sampling import Level, Levels
from kinetograph.neural.zeroshot.loop import Predict

DOWN, MIDDLE = "down_block_additional_residuals", "mid_block_additional_residual"  # the UNet's words for them


@dataclass(frozen=True)
class Guide:
    """A ControlNet, what it sees of each frame (t, 3, H, W), uint8 or in [0, 1], its strength, and from which to which
    part of the steps it is asked."""

    network: nn.Module
    hints: Tensor
    scale: float = 1.0
    since: float = 0.0
    until: float = 1.0

    def works(self, step: int, steps: int) -> bool:
        """Whether it is asked at a step, counted from 0."""
        return step / steps >= self.since and (step + 1) / steps <= self.until


# (what the network is told of each row, what of it a ControlNet takes)
Asked = Callable[[Mapping[str, Any]], dict[str, Any]]


def controlled(
    predict: Predict, guides: Sequence[Guide], levels: Levels, time: Callable[[Level, int], Tensor], asked: Asked
) -> Predict:
    """A network that obeys these guides. `time` is what networks are told of a level, for so many rows; `asked` brings
    what the network is told to a network's arguments."""

    def said(x: Tensor, level: Level, told: Mapping[str, Any], frames: range) -> Tensor:
        step = step_of(level, levels)
        working = [guide for guide in guides if guide.scale and guide.works(step, len(levels) - 1)]
        if not working:
            return predict(x, level, told, frames)
        words = asked({name: value for name, value in told.items() if name != "beside"})
        found = [_residuals(guide, x, time(level, len(x)), words, frames) for guide in working]
        down = tuple(torch.stack(parts).sum(0) for parts in zip(*(parts for parts, _ in found)))
        middle = torch.stack([part for _, part in found]).sum(0)
        more: dict[str, Any] = {DOWN: down, MIDDLE: middle}
        return predict(x, level, {**told, **more}, frames)

    return said


def step_of(level: Level, levels: Levels) -> int:
    """The step that a level belongs to; one between two steps, as some samplers ask for, belongs to the former."""
    return max(0, sum(other.ratio >= level.ratio * (1 - 1e-9) for other in levels[:-1]) - 1)


def _residuals(guide: Guide, x: Tensor, time: Tensor, words: Mapping[str, Any], frames: range) -> tuple[Any, Tensor]:
    network: Any = guide.network
    parameter = next(network.parameters())
    hints = guide.hints[frames.start : frames.stop]
    hints = hints.to(parameter) / (255 if hints.dtype == torch.uint8 else 1)
    with torch.no_grad():
        down, middle = network(
            x.to(parameter),
            time,
            controlnet_cond=hints.repeat(len(x) // len(frames), 1, 1, 1),
            conditioning_scale=guide.scale,
            return_dict=False,
            **words,
        )
    return down, middle
