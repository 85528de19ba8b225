"""What a network is told of a prompt: a handful of tensors, for each clip and each frame."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor


@dataclass(frozen=True)
class Words:
    """Tensors by their names, each (b, t, ...): b clips, and t frames, or 1 where all frames are told the same."""

    tensors: Mapping[str, Tensor]

    @property
    def steady(self) -> bool:
        """Whether all frames are told the same words, whatever picture is laid `beside` each."""
        return all(tensor.shape[1] == 1 for name, tensor in self.tensors.items() if name != "beside")

    def at(self, frames: range) -> dict[str, Tensor]:
        """What some of the frames are told: tensors of (b * len(frames)) rows."""
        return {name: _rows(tensor, frames) for name, tensor in self.tensors.items()}

    def blended(self, shares: Tensor) -> "Words":
        """One clip of t frames out of p prompts, of which each frame hears its share: shares (t, p), in sum 1.

        Masks are united: what any prompt that is heard has words for is listened to.
        """
        return Words({name: _blended(tensor[:, 0], shares)[None] for name, tensor in self.tensors.items()})


def ids(tokenizer: Any, sentences: Sequence[str]) -> Tensor:
    """Token ids (b, l) of sentences, filled up or cut to the most that the tokenizer's model reads."""
    length = tokenizer.model_max_length
    told = tokenizer(list(sentences), max_length=length, padding="max_length", truncation=True, return_tensors="pt")
    return cast(Tensor, told.input_ids)


def rows(told: Sequence[Words], frames: range) -> dict[str, Tensor]:
    """Several Words, one below the other: the groups of a guided batch."""
    parts = [words.at(frames) for words in told]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _rows(tensor: Tensor, frames: range) -> Tensor:
    some = tensor.expand(-1, len(frames), *tensor.shape[2:]) if tensor.shape[1] == 1 else tensor[:, frames]
    return some.flatten(0, 1)


def _blended(tensor: Tensor, shares: Tensor) -> Tensor:
    heard = shares.to(tensor.device)
    if not tensor.is_floating_point():
        return ((heard > 0).float() @ tensor.float().flatten(1) > 0).to(tensor.dtype).unflatten(1, tensor.shape[1:])
    blend = heard @ tensor.float().flatten(1)  # (t, p) @ (p, ...)
    return blend.to(tensor.dtype).unflatten(1, tensor.shape[1:])
