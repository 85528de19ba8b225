"""An exponential moving average of weights: what is kept and shown, while the raw weights learn."""

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

Kind = TypeVar("Kind", bound=nn.Module)


class Average(Generic[Kind]):
    """A slowly following copy of a model. The half-life grows with the number of steps at first, so that the start is
    forgotten."""

    def __init__(self, model: Kind, decay: float) -> None:
        self.model: Kind = copy.deepcopy(model).requires_grad_(False).eval()
        self.decay = decay

    @torch.no_grad()
    def follow(self, model: Kind, step: int) -> None:
        """Move towards the model's weights after step `step` (counted from 1)."""
        decay = min(self.decay, step / (step + 20))
        for kept, new in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True):
            kept.lerp_(new, 1 - decay) if kept.is_floating_point() else kept.copy_(new)
