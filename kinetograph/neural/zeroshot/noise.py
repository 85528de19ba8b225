"""All the noise of a clip, each piece keyed by the seed and by what it is for, so that no length changes another."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kinetograph.neural import device

FIRST, FRESH, SWAPPED, PLACE, GRAIN, GAP = range(6)  # what noise is for: the key after the seed


@dataclass(frozen=True)
class Noise:
    """The noise of one clip whose latent frames have the shape (c, h, w). Drawn on the CPU, float32."""

    seed: int
    shape: tuple[int, int, int]

    def first(self, frame: int = 0) -> Tensor:
        """What a frame begins as. Frame 0's is what a single picture of this seed begins as."""
        return self._drawn(FIRST, frame)

    def fresh(self, frame: int) -> Tensor:
        """What the forward process adds to a frame."""
        return self._drawn(FRESH, frame)

    def swapped(self, frame: int, step: int) -> Tensor:
        """What a sampler that draws noise draws for a frame at a step."""
        return self._drawn(SWAPPED, frame, step)

    def place(self, row: int, column: int) -> Tensor:
        """What lies beyond the first frame: the plane is tiled by frames, this is one of them; (0, 0) is the first."""
        return self._drawn(PLACE, _natural(row), _natural(column))

    def grain(self, row: int, column: int, fine: int) -> Tensor:
        """(c, h * fine, w * fine): the detail within the cells of a tile of the plane."""
        c, h, w = self.shape
        return device.noise(self.seed, GRAIN, _natural(row), _natural(column), shape=(c, h * fine, w * fine))

    def gap(self, frame: int) -> Tensor:
        """What fills the places of a frame that nothing has moved to."""
        return self._drawn(GAP, frame)

    def _drawn(self, *key: int) -> Tensor:
        return device.noise(self.seed, *key, shape=self.shape)


@dataclass(frozen=True)
class Shared(Noise):
    """Noise that is the same in every frame: what begins alike flickers less."""

    def first(self, frame: int = 0) -> Tensor:
        """What every frame begins as."""
        return super().first(0)

    def swapped(self, frame: int, step: int) -> Tensor:
        """What a sampler that draws noise draws for every frame at a step."""
        return super().swapped(0, step)


def first(noises: Sequence[Noise], frames: range) -> Tensor:
    """(b, c, t, h, w): what these frames of several clips begin as."""
    return torch.stack([torch.stack([noise.first(frame) for frame in frames], dim=1) for noise in noises])


def swapped(noises: Sequence[Noise], frames: range, step: int) -> Tensor:
    """(b, c, t, h, w): what a sampler draws for these frames of several clips at a step."""
    return torch.stack([torch.stack([noise.swapped(frame, step) for frame in frames], dim=1) for noise in noises])


def _natural(place: int) -> int:
    """0, 1, -1, 2, -2 ... as 0, 1, 2, 3, 4 ...: keys are not negative."""
    return 2 * place - 1 if place > 0 else -2 * place
