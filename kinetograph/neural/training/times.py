"""How far along the way to noise pictures are met in training: as levels of a diffusion model, counted from the clean
end.

Of one picture's several times each has a stretch of its own, so that every picture is met both clear and dim. They
may gather around the middle (logit-normal, Esser et al. 2024): what is nearly clean or nearly noise teaches little.
"""

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Spread:
    """Each picture is met `noises` times, at logits of `spread` around `middle`; 0 is all times alike."""

    noises: int = 1
    spread: float = 0.0
    middle: float = 0.0

    def draw(self, rng: np.random.Generator, pictures: int, levels: int) -> np.ndarray:
        """Times (pictures, noises) below `levels`; those of one picture rise."""
        chance = torch.from_numpy((rng.random((pictures, self.noises)) + np.arange(self.noises)) / self.noises)
        if self.spread:
            chance = torch.sigmoid(self.middle + self.spread * torch.special.ndtri(chance))
        return (chance * levels).long().clamp(max=levels - 1).numpy()
