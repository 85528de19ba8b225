"""Training clips drawn from a world as they are needed: a pure function of (seed, step), so that resuming is exact.

Each clip is keyed by (seed, step, its place in the whole batch), so that the batch is the same however many processes
share it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from kinetograph.neural import pixels

T = TypeVar("T")


@dataclass(frozen=True)
class Batch:
    """Clips (b, 3, t, h, w) in [-1, 1] of some scenes, a caption for each, and for each several captions, wrong in one
    attribute."""

    scenes: list[Any]
    clips: Tensor
    captions: list[str]
    near_misses: list[list[str]]
    true: dict[str, Tensor]  # for each attribute the number (b,) of its value, or UNSAID where a clip has none
    asked: dict[str, Tensor]  # the same, but only what the captions say


def places(size: int, rank: int, ranks: int) -> range:
    """The places in a whole batch of `size` that process `rank` of `ranks` draws."""
    return range(size * rank // ranks, size * (rank + 1) // ranks)


def source(seed: int, step: int, place: int) -> np.random.Generator:
    """The random source of one clip of one step."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=(step, place))))


def pick(rng: np.random.Generator, things: Sequence[T], shares: Sequence[float]) -> T:
    """One of these, as often as its share says."""
    return things[int(np.searchsorted(np.cumsum(shares), rng.random() * sum(shares), side="right"))]


def draw(world: ModuleType, seed: int, step: int, where: range, frames: int, size: int, device: torch.device) -> Batch:
    """The clips at these places of the batch of this step: training combinations only, drawn on the device."""
    scenes: list[Any] = []
    captions: list[str] = []
    near_misses: list[list[str]] = []
    for place in where:
        rng = source(seed, step, place)
        scene = world.sample(rng, split="train")
        scenes.append(scene)
        captions.append(world.caption(scene, rng))
        near_misses.append([world.caption(miss, rng, {}) for miss in world.near_misses(scene, rng)])
    clips = world.draw(scenes, frames, size, size, xp=torch, device=device)
    true = numbers(world, [world.attributes(scene) for scene in scenes], device)
    asked = numbers(world, [world.parse(caption) for caption in captions], device)
    return Batch(scenes, pixels.to_model(clips), captions, near_misses, true, asked)


UNSAID = -100  # the class that cross-entropy ignores


def numbers(world: ModuleType, said: Sequence[Mapping[str, str]], device: torch.device) -> dict[str, Tensor]:
    """Attributes as class numbers (b,), for each attribute of the world; UNSAID where nothing is said."""
    return {
        name: torch.tensor([values.index(row[name]) if name in row else UNSAID for row in said], device=device)
        for name, values in world.ATTRIBUTES.items()
    }


def naming(logits: Tensor, wanted: Tensor) -> Tensor:
    """Cross-entropy of naming one attribute (b,), the mean over the clips that have it; nothing where none has it.

    Even then every weight has a gradient, which is zero: processes that share a batch average them all.
    """
    total = F.cross_entropy(logits.float(), wanted, ignore_index=UNSAID, reduction="sum")
    return total / (wanted != UNSAID).sum().clamp(min=1)


def noise(seed: int, step: int, where: range, width: int, device: torch.device) -> Tensor:
    """One noise vector (b, z) for each place, keyed like the clips but from a stream of its own."""
    rows = [source(seed + 1, step, place).standard_normal(width, dtype=np.float32) for place in where]
    return torch.from_numpy(np.stack(rows)).to(device)


def tells_chances(world: ModuleType) -> bool:
    """Whether a world says by which chances it drew a scene: `chances`, and their names by kind."""
    return hasattr(world, "chances")


def chances(world: ModuleType, scenes: Sequence[Any], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """What chance decided of the paths of scenes: numbers (b, n), turns (b, p) and coins (b, c), in the world's order.
    NaN is what a scene does not leave to chance; a world that does not tell its chances has none."""
    tells = tells_chances(world)
    names = [world.CHANCES, world.PHASES, world.COINS] if tells else [(), (), ()]
    decided = [world.chances(scene) if tells else {} for scene in scenes]
    rows = [[[row.get(name, math.nan) for name in kind] for row in decided] for kind in names]
    plain, phases, coins = (torch.tensor(row, dtype=torch.float32, device=device) for row in rows)
    return plain, phases, coins


def prompts(world: ModuleType, seed: int, count: int, split: str) -> list[str]:
    """Captions of a split that name every attribute, always the same ones for a seed."""
    sources = [source(seed, 0, place) for place in range(count)]
    return [world.caption(world.sample(rng, split=split), rng, {}) for rng in sources]
