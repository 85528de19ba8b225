"""Weights rounded for one step of computing, while what learns stays in float32."""

import torch
from torch import Tensor, nn


def rounded(network: nn.Module, kind: torch.dtype) -> dict[str, Tensor]:
    """The parameters of a network by name, as numbers of this kind that gradients flow through: for `functional_call`.

    Cheaper than autocast, which keeps what lies between the layers in float32.
    """
    return {name: weight.to(kind) for name, weight in network.named_parameters()}
