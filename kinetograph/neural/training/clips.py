"""Clips of the worlds to learn diffusion from: what is drawn for a step, with its sentences and levels of noise.

Everything is keyed by (seed, step, place in the whole batch), so that a batch is the same however many processes share
it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kinetograph.neural import pixels
from kinetograph.neural.device import noise
from kinetograph.neural.training import batches, run


@dataclass(frozen=True)
class Size:
    """One size of clips to train on, and its share of the batches."""

    share: float
    frames: int
    height: int
    width: int


SIZES = (
    Size(0.85, 16, 128, 128),
    Size(0.05, 16, 96, 128),
    Size(0.05, 16, 128, 96),
    Size(0.05, 24, 96, 96),
)


@dataclass(frozen=True, kw_only=True)
class Recipe(run.Recipe):
    """What every recipe of diffusion on clips says; `worlds` maps each to its share."""

    worlds: dict[str, float]
    sizes: tuple[Size, ...] = SIZES
    signal: tuple[float, float] = (-2.0, 1.8)  # logit of the signal's part: mean and spread
    bound: float = 0.2  # levels below count as this much in the velocity's weight
    known: float = 0.15  # how often the first frames of a clip are given
    wordless: float = 0.1  # how often the sentence is withheld, for guidance


@dataclass(frozen=True)
class Batch:
    """Clips (b, 3, t, h, w) in [-1, 1] with their captions, and each frame's level of noise (b, t)."""

    clips: Tensor
    captions: list[str]
    level: Tensor


def draw(recipe: Recipe, worlds: Mapping[str, ModuleType], step: int, places: range, device: torch.device) -> Batch:
    """The clips at these places of the batch of this step, all of one size."""
    size = batches.pick(batches.source(recipe.seed, step, recipe.batch), recipe.sizes, [s.share for s in recipe.sizes])
    captions, levels, names, scenes = [], [], [], []
    for place in places:
        rng = batches.source(recipe.seed, step, place)
        name, scene, caption = describe(rng, worlds, recipe.worlds)
        names.append(name)
        scenes.append(scene)
        captions.append(caption if rng.random() >= recipe.wordless else "")
        levels.append(level(rng, size.frames, recipe.signal, recipe.known))
    clips = torch.empty(len(places), 3, size.frames, size.height, size.width, device=device)
    for name in dict.fromkeys(names):
        rows = [i for i, other in enumerate(names) if other == name]
        some = [scenes[i] for i in rows]
        drawn = worlds[name].draw(some, size.frames, size.height, size.width, xp=torch, device=device)
        clips[rows] = pixels.to_model(drawn)
    noised = torch.tensor(np.stack(levels), dtype=torch.float32, device=device)
    return Batch(clips, captions, noised)


def noise_for(recipe: Recipe, step: int, places: range, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Noise (b, *shape) for the clips at these places."""
    return torch.stack([noise(recipe.seed, step, place, 1, shape=shape) for place in places]).to(device)


def describe(
    rng: np.random.Generator, worlds: Mapping[str, ModuleType], shares: Mapping[str, float]
) -> tuple[str, Any, str]:
    """A world's name, a scene of its training split, and its caption."""
    name = batches.pick(rng, tuple(worlds), list(shares.values()))
    scene = worlds[name].sample(rng, split="train")
    return name, scene, worlds[name].caption(scene, rng)


def level(rng: np.random.Generator, frames: int, signal: tuple[float, float], known: float) -> np.ndarray:
    """The noise level of each frame (t,): one for all, but 0 for first frames that are known."""
    mean, spread = signal
    levels = np.full(frames, 1 / (1 + math.exp(mean + spread * rng.standard_normal())))
    if rng.random() < known:
        levels[: rng.integers(1, frames // 2 + 1)] = 0.0
    return levels
