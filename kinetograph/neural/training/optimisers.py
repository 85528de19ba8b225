"""Optimisers for networks of convolutions and attention, one for their matrices and one for everything else, and a step
of them."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kinetograph.neural.training import run


class Muon(torch.optim.Muon):
    """Muon (Jordan et al. 2024) for linear layers and convolutions: a convolution's weight (o, i, h, w) learns as the
    matrix (o, h w i) that it is. At AdamW's rate (Liu et al. 2025)."""

    def __init__(self, weights: Iterable[nn.Parameter], rate: float) -> None:
        self.weights = list(weights)
        with torch.no_grad():
            matrices = [nn.Parameter(as_matrix(weight.detach()).clone()) for weight in self.weights]
        super().__init__(matrices, lr=rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take a step with the gradients of the weights."""
        matrices = self.param_groups[0]["params"]
        for weight, matrix in zip(self.weights, matrices, strict=True):
            matrix.copy_(as_matrix(weight))  # loading a state changes the weights alone
            matrix.grad = None if weight.grad is None else as_matrix(weight.grad)
        told = super().step(closure)
        for weight, matrix in zip(self.weights, matrices, strict=True):
            weight.copy_(as_weight(matrix, weight))
        return told

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of the weights."""
        for weight in self.weights:
            weight.grad = None


def of(networks: Iterable[nn.Module], rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices and convolutions within networks, AdamW for what is left: norms, biases, embeddings, and
    convolutions to or from few channels. What learns nothing (`requires_grad`) is left out."""
    weights: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for network in networks:
        for module in network.modules():
            learning = (pair for pair in module.named_parameters(recurse=False) if pair[1].requires_grad)
            for name, parameter in learning:
                matrix = name == "weight" and isinstance(module, (nn.Linear, nn.Conv2d)) and _wide(parameter)
                (weights if matrix else others).append(parameter)
    return [Muon(weights, rate), torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.99), weight_decay=0.01)]


def numbered(optimisers: Sequence[torch.optim.Optimizer]) -> dict[str, torch.optim.Optimizer]:
    """Optimisers by the names under which a run saves them."""
    return {f"optimiser {i}": optimiser for i, optimiser in enumerate(optimisers)}


def descend(
    loss: Tensor,
    optimisers: Sequence[torch.optim.Optimizer],
    processes: run.Processes,
    averaged: Sequence[nn.Module],
    clipped: nn.Module,
) -> None:
    """One step down a loss: gradients of the `averaged` networks become their means over all processes, those of the
    `clipped` one are kept to a norm of 1."""
    for optimiser in optimisers:
        optimiser.zero_grad(set_to_none=True)
    loss.backward()
    for network in averaged:
        processes.average_gradients(network)
    nn.utils.clip_grad_norm_(clipped.parameters(), 1.0)
    for optimiser in optimisers:
        optimiser.step()


def channels_last(network: nn.Module) -> None:
    """Lay the weights of convolutions down in the order in which processors like them, and `as_matrix` copies none."""
    for parameter in network.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def _wide(weight: Tensor) -> bool:
    return min(weight.shape[:2]) > 8


def as_matrix(weight: Tensor) -> Tensor:
    """(o, i, h, w) -> (o, h w i), which for a convolution in channels-last form is no copy; a matrix is one already."""
    return weight.permute(0, 2, 3, 1).flatten(1) if weight.dim() == 4 else weight


def as_weight(matrix: Tensor, like: Tensor) -> Tensor:
    """What `as_matrix` does, undone."""
    if like.dim() != 4:
        return matrix
    o, i, h, w = like.shape
    return matrix.view(o, h, w, i).permute(0, 3, 1, 2)
