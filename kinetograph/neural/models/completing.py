"""What a sentence leaves open is decided before anything is drawn: "a cat" is white or black, in the snow or in a room.

A network that is asked for all of it at once draws the mean of what may be, half snow and half room. So what a sentence
says is named, attribute by attribute, and for what it does not say a value is drawn by chance, one after the other,
each as likely as what is known by then makes it (the chain rule of probability). The rest of the model is told the
values beside the sentence.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEFT = 0.01  # the least chance that what is not barred must have, or nothing is


@dataclass(frozen=True)
class Config:
    """Sizes: width of what is read in a sentence, how many values the attributes of each world have, and width of the
    network that tells what is usual."""

    width: int
    worlds: tuple[tuple[int, ...], ...]
    hidden: int


class Answers(NamedTuple):
    """Of which world sentences tell (b,), the number of the value that each attribute has (b, a), or one more than
    there are for one that a scene has not, and whether the sentence says it (b, a). Worlds of fewer attributes have
    nothing in the last."""

    world: Tensor
    values: Tensor
    said: Tensor


class Completion(nn.Module):
    """Names what sentences say, and completes them."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width, self.worlds = config.width, config.worlds
        self.most = max(len(counts) for counts in self.worlds)
        self.world = nn.Linear(width, len(self.worlds))
        self.named = nn.ModuleList(_heads(width, counts) for counts in self.worlds)
        self.usual = nn.ModuleList(_heads(width, counts) for counts in self.worlds)
        self.hidden = nn.Sequential(nn.Linear(width, config.hidden), nn.SiLU(), nn.Linear(config.hidden, width))
        rows = len(self.worlds) + sum(count + 1 for counts in self.worlds for count in counts)
        self.known, self.told = nn.Embedding(rows, width), nn.Embedding(rows, width)
        nn.init.zeros_(self.told.weight)  # what is told has no meaning before anything is learnt
        first = torch.zeros(len(self.worlds), self.most, dtype=torch.long)
        row = len(self.worlds)
        for world, counts in enumerate(self.worlds):
            for attribute, count in enumerate(counts):
                first[world, attribute] = row
                row += count + 1
        self.first: Tensor
        self.register_buffer("first", first, persistent=False)

    def tell(self, true: Answers) -> Tensor:
        """What the rest of a model is told of values, (b, d)."""
        found: Tensor = self.told(true.world) + (self._rows(self.told, true) * self._there(true)).sum(1)
        return found

    def error(self, whole: Tensor, true: Answers) -> Tensor:
        """How surely sentences (b, d) are named and completed wrongly: cross-entropies, summed over attributes."""
        total = F.cross_entropy(self.world(whole).float(), true.world, reduction="sum")
        said = true.said[..., None].to(whole)
        rows = self._rows(self.known, true)
        left = rows * (1 - said) * self._there(true)
        before = self.known(true.world) + (rows * said).sum(1)
        seen = self.hidden(before[:, None] + left.cumsum(1) - left)  # what is known before each is decided
        for world, counts in enumerate(self.worlds):
            here = true.world == world
            for attribute, count in enumerate(counts):
                right, says = true.values[here, attribute], true.said[here, attribute]
                named = _of(self.named, world)[attribute](whole[here]).float()
                total = total + F.cross_entropy(named, torch.where(says, right, count), reduction="sum")
                usual = _of(self.usual, world)[attribute](seen[here, attribute]).float()
                wrong = F.cross_entropy(usual, right, reduction="none")
                total = total + torch.where(says, 0.0, wrong).sum()
        return total / max(1, len(whole))

    def complete(self, whole: Tensor, noise: Tensor, unwanted: Tensor | None = None) -> Answers:
        """What sentences (b, d) say and what they leave open, by normal noise (b, most attributes); of that nothing
        that any of the sentences says which are `unwanted` (k, d)."""
        found = self._named(whole, self.world(whole).argmax(1))
        for row in range(len(whole)):
            one = Answers(*(part[row : row + 1] for part in found))
            never = whole[:0] if unwanted is None else unwanted
            barred = self._named(never, one.world.expand(len(never)))
            self._decide(one, torch.special.ndtr(noise[row].float()), barred)
        return found

    def _named(self, whole: Tensor, world: Tensor) -> Answers:
        """What sentences (b, d) say that tell of these worlds (b,)."""
        values = torch.zeros(len(whole), self.most, dtype=torch.long, device=whole.device)
        said = torch.zeros_like(values, dtype=torch.bool)
        for row, at in enumerate(world.tolist()):
            for attribute, (head, count) in enumerate(zip(_of(self.named, at), self.worlds[at], strict=True)):
                best = int(head(whole[row]).argmax())
                said[row, attribute], values[row, attribute] = best < count, best
        return Answers(world, values, said)

    def _decide(self, one: Answers, chances: Tensor, barred: Answers) -> None:
        """Choose what one sentence leaves open, each value as often as it is likely, and none that is barred if there
        are others."""
        world = int(one.world)
        seen = self.known(one.world)[0] + (self._rows(self.known, one)[0] * one.said[0, :, None]).sum(0)
        for attribute, head in enumerate(_of(self.usual, world)):
            if not one.said[0, attribute]:
                likely = head(self.hidden(seen)).float().softmax(0)
                left = likely.index_fill(0, barred.values[barred.said[:, attribute], attribute], 0.0)
                shares = (left if left.sum() > LEFT else likely).cumsum(0)
                value = int((shares < chances[attribute] * shares[-1]).sum())
                one.values[0, attribute] = value
                seen = seen + self.known(self.first[world, attribute] + value)

    def _rows(self, table: nn.Module, true: Answers) -> Tensor:
        found: Tensor = table(self.first[true.world] + true.values)
        return found

    def _there(self, true: Answers) -> Tensor:
        """Which attributes the worlds have, (b, a, 1) of ones and zeros."""
        there: Tensor = (self.first[true.world] > 0)[..., None].to(self.told.weight.dtype)
        return there


def _heads(width: int, counts: Sequence[int]) -> nn.ModuleList:
    return nn.ModuleList(nn.Linear(width, count + 1) for count in counts)


def _of(heads: nn.ModuleList, world: int) -> nn.ModuleList:
    """The heads of a world."""
    return cast(nn.ModuleList, heads[world])


PRESETS = {"tiny": {"hidden": 64}, "pocket": {"hidden": 384}, "large": {"hidden": 768}}
