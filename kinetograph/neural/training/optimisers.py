"""Optimisers for networks of convolutions and attention, one for their matrices and one for everything else, and a step
of them."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kinetograph.neural.device import has_bfloat16
from kinetograph.neural.training import run


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024) for linear layers and convolutions: a convolution's weight (o, i, h, w) learns as the
    matrix (o, h w i) that it is. At AdamW's rate (Liu et al. 2025).

    torch's own computes in bfloat16 on any processor; this one only where there are instructions for it, for elsewhere
    that is most of a small network's step.
    """

    def __init__(self, weights: Iterable[Tensor], rate: float) -> None:
        super().__init__(list(weights), {"lr": rate, "weight_decay": 0.01, "momentum": 0.95})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take a step with the gradients of the weights."""
        told = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._take(group, weight, as_matrix(weight.grad))
        return told

    def _take(self, group: dict[str, Any], weight: Tensor, slope: Tensor) -> None:
        state = self.state[weight]
        before = state.get("momentum_buffer")
        if before is None:
            before = state["momentum_buffer"] = torch.zeros_like(slope)
        before.lerp_(slope, 1 - group["momentum"])
        way = orthogonal(slope.lerp(before, group["momentum"]))  # Nesterov's momentum
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.add_(as_weight(way, weight), alpha=-0.2 * group["lr"] * max(way.shape) ** 0.5)


def orthogonal(matrix: Tensor) -> Tensor:
    """Nearly the orthogonal matrix next to this one, by five steps of Newton and Schulz with Jordan's coefficients:
    singular values become about 1."""
    wide = matrix.to(torch.bfloat16 if has_bfloat16(matrix.device) else torch.float32)
    wide = wide.T if len(wide) > wide.shape[1] else wide
    wide = wide / wide.norm().clamp(min=1e-7)
    for _ in range(5):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=-4.775, alpha=2.0315), wide, beta=3.4445)
    return (wide.T if len(matrix) > matrix.shape[1] else wide).to(matrix)


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
