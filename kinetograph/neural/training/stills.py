"""Pictures of the worlds with a sentence for each: moments out of clips that are never wholly drawn.

Each scene gives several moments at random, for a picture alone costs almost as much to draw as four. Half of the
sentences tell what is to be seen ("a white cat on the beach"), half what happens, as captions of clips do. Scene,
sentence and moments are keyed by (seed, step, place): a batch is the same however many processes share it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kinetograph.errors import InvalidRequest
from kinetograph.neural.training import batches

TOLD = 0.5  # how many sentences tell what happens
RELIEF = 0.02  # above its ground, of all depth: what a figure is at least


@dataclass(frozen=True)
class Stills:
    """Pictures (n, 3, h, w) uint8; the moments of one scene follow each other. For each picture its sentence, the
    world, the scene and the moment, from 0 to 1."""

    pictures: Tensor
    captions: list[str]
    worlds: list[str]
    scenes: list[Any]
    times: np.ndarray


def draw(
    worlds: Mapping[str, ModuleType],
    shares: Mapping[str, float],
    seed: int,
    step: int,
    where: range,
    moments: int,
    size: int,
    device: torch.device,
) -> Stills:
    """The pictures at these places of the batch of this step, `moments` for each place: training combinations only."""
    names, scenes, captions, times = [], [], [], []
    for place in where:
        rng = batches.source(seed, step, place)
        name = batches.pick(rng, tuple(shares), list(shares.values()))
        scene = worlds[name].sample(rng, split="train")
        names.append(name)
        scenes.append(scene)
        captions += [told(worlds[name], scene, rng) for _ in range(moments)]
        times.append(rng.random(moments))
    pictures = torch.empty(len(where), moments, 3, size, size, dtype=torch.uint8, device=device)
    for name in dict.fromkeys(names):
        rows = [i for i, other in enumerate(names) if other == name]
        shown = np.stack([times[i] for i in rows])
        some = [scenes[i] for i in rows]
        clips = worlds[name].draw(some, moments, size, size, xp=torch, device=device, moments=shown)
        pictures[rows] = clips.permute(0, 1, 4, 2, 3)
    each = _each(names, moments), _each(scenes, moments), np.concatenate(times)
    return Stills(pictures.flatten(0, 1), captions, *each)


def covered(
    worlds: Mapping[str, ModuleType],
    names: Sequence[str],
    scenes: Sequence[Any],
    cells: Sequence[int],
    times: np.ndarray | None = None,
) -> Tensor:
    """Where figures cover each scene of the world of this name, as (n, frames, height, width) of zeros and ones: what
    its depth lifts out of its ground, in cells of so many frames, rows and columns. `times` (n, frames) are the moments
    that are shown, instead of so many evenly through each."""
    shown = torch.zeros(len(scenes), *cells)
    for name in dict.fromkeys(names):
        rows = [i for i, other in enumerate(names) if other == name]
        moments = None if times is None else times[rows]
        depths = worlds[name].depth([scenes[i] for i in rows], *cells, moments=moments)
        shown[rows] = torch.from_numpy(worlds[name].relief_of(np.asarray(depths)) > RELIEF).float()
    return shown


def told(world: ModuleType, scene: Any, rng: np.random.Generator) -> str:
    """A sentence for one moment of a scene."""
    return str((world.caption if rng.random() < TOLD else world.still_caption)(scene, rng))


def _each(things: list[Any], times: int) -> list[Any]:
    return [thing for thing in things for _ in range(times)]


def prompts(world: ModuleType, seed: int, count: int, split: str) -> list[str]:
    """Sentences on stills of a split, always the same ones for a seed."""
    sources = [batches.source(seed, 0, place) for place in range(count)]
    return [str(world.still_caption(world.sample(rng, split=split), rng)) for rng in sources]


def words(worlds: Mapping[str, ModuleType]) -> set[str]:
    """Every word that a sentence on a still of these worlds may hold, and one that tells what to change in it."""
    found: set[str] = set()
    for world in worlds.values():
        found.update(world.words(), getattr(world, "STILL_WORDS", ()))
        if hasattr(world, "edits"):
            found.update(world.edits.words())
    return found


def asked(world: ModuleType, caption: str) -> dict[str, str]:
    """The attributes that a sentence on a still asks for; of one that says nothing but 'a shape', none."""
    try:
        return dict(world.parse(caption))
    except InvalidRequest:
        return {}
