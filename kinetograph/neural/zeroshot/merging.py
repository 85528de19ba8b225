"""Token merging: tokens that are nearly alike attend as one (Bolya & Hoffman 2023, "Token Merging for Fast Stable
Diffusion"). Attention costs the square of its tokens; what is lost is what told them apart."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

MOST = 0.75  # of the tokens: one of every two by two stays


def merged(x: Tensor, width: int, ratio: float) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Tokens x (b, n, d) of a picture `width` tokens wide, fewer by `ratio`, and what gives each its place again.

    Of every two by two tokens the first one stays. Of the others, those that are most like one that stays become one
    with it, at their mean.
    """
    b, n, d = x.shape
    stays, others = _divided(n, width, x.device)
    gone = min(int(n * ratio), len(others))
    if not gone:
        return x, lambda y: y
    alike = F.normalize(x[:, others], dim=-1) @ F.normalize(x[:, stays], dim=-1).transpose(1, 2)  # (b, others, stays)
    likeness, nearest = alike.max(-1)
    order = likeness.argsort(dim=-1, descending=True)
    going, going_to = order[:, :gone], nearest.gather(1, order[:, :gone])
    left = order[:, gone:]
    joined = x[:, stays].scatter_reduce(1, _wide(going_to, d), _at(x[:, others], going), "mean", include_self=True)

    def restored(y: Tensor) -> Tensor:
        kept, ends = y[:, : left.shape[1]], y[:, left.shape[1] :]
        width = y.shape[-1]
        filled = y.new_empty(b, len(others), width)
        filled.scatter_(1, _wide(left, width), kept)
        filled.scatter_(1, _wide(going, width), _at(ends, going_to))
        out = y.new_empty(b, n, width)
        out[:, stays], out[:, others] = ends, filled
        return out

    return torch.cat([_at(x[:, others], left), joined], dim=1), restored


def _divided(n: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    place = torch.arange(n, device=device)
    first = (place // width % 2 == 0) & (place % width % 2 == 0)
    return place[first], place[~first]


def _wide(index: Tensor, width: int) -> Tensor:
    return index[..., None].expand(-1, -1, width)


def _at(x: Tensor, index: Tensor) -> Tensor:
    return x.gather(1, _wide(index, x.shape[-1]))
