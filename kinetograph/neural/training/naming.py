"""What a text encoder learns from sentences alone: to name what each of them says."""

from types import ModuleType

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Names(nn.Module):
    """Names what a sentence says: for each world, for each attribute, one of its values, or that nothing is said."""

    def __init__(self, width: int, worlds: dict[str, ModuleType]) -> None:
        super().__init__()
        self.attributes = {name: world.ATTRIBUTES for name, world in worlds.items()}
        self.heads = nn.ModuleDict(
            {
                f"{name} {attribute}": nn.Linear(width, len(values) + 1)
                for name, attributes in self.attributes.items()
                for attribute, values in attributes.items()
            }
        )

    def forward(self, whole: Tensor, said: list[tuple[str, dict[str, str]]]) -> Tensor:
        """Mean over sentences (b, d) of the summed cross-entropy of their attributes."""
        losses = []
        for name, attributes in self.attributes.items():
            which = [i for i, (world, _) in enumerate(said) if world == name]
            for attribute, values in attributes.items():
                numbers = {value: number for number, value in enumerate(values)}
                right = [numbers.get(said[i][1].get(attribute, ""), len(values)) for i in which]
                logits = self.heads[f"{name} {attribute}"](whole[which])
                # of whole numbers even where no sentence is of this world and there are none
                wanted = torch.tensor(right, dtype=torch.long, device=whole.device)
                losses.append(F.cross_entropy(logits, wanted, reduction="sum"))
        return torch.stack(losses).sum() / len(said)
