"""Stills of worlds and what is true of them, drawn as they are needed: controls, and pairs before and after an edit.

Each still is keyed by (seed, step, its place in the whole batch), so that the batch is the same however many processes
share it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kinetograph import controls
from kinetograph.errors import TrainingError
from kinetograph.neural.pictures.pocket import CELL
from kinetograph.neural.training import batches, stills
from kinetograph.shelf import WORLDS

GONE = {"appearing": 1.0, "disappearing": 0.0}  # when what comes or goes is to be seen whole


@dataclass(frozen=True)
class Stills:
    """Pictures (b, 3, h, w) uint8, what is told of each, what is shown of each, (b, 3, h, w) uint8, and which cells
    figures cover, (b, 1, rows, columns): in the picture and, before an edit, in what is shown."""

    pictures: Tensor
    told: list[str]
    shown: Tensor
    figures: Tensor

    def to(self, where: torch.device) -> "Stills":
        """The same on another device."""
        return Stills(self.pictures.to(where), self.told, self.shown.to(where), self.figures.to(where))


def controlled(
    kind: str, shares: Mapping[str, float], seed: int, step: int, where: range, size: int, device: torch.device
) -> Stills:
    """Stills with their captions and control pictures; of the training split, as everything here. Cells are of `CELL`
    pixels."""
    rows = [_row(shares, seed, step, place) for place in where]
    told = [stills.told(row.world, row.scene, row.rng) for row in rows]
    pictures = _drawn(rows, "draw", size, device)
    if kind == "edge":
        edges = controls.edges(pictures.movedim(1, 3).cpu().numpy())
        return Stills(pictures, told, torch.from_numpy(edges).movedim(3, 1).to(device), _covered(rows, size))
    return Stills(pictures, told, _drawn(rows, kind, size, device), _covered(rows, size))


def edited(shares: Mapping[str, float], seed: int, step: int, where: range, size: int, device: torch.device) -> Stills:
    """Stills after an edit with their instructions; what is shown is the still before it."""
    before = [_row(shares, seed, step, place) for place in where]
    pairs = [row.world.edit(row.scene, row.rng, "train") for row in before]
    after = [_Row(row.world, scene, row.moment, row.rng) for row, (scene, _) in zip(before, pairs, strict=True)]
    told = [instruction for _, instruction in pairs]
    figures = torch.maximum(_covered(after, size), _covered(before, size))
    return Stills(_drawn(after, "draw", size, device), told, _drawn(before, "draw", size, device), figures)


def check(kind: str, shares: Mapping[str, float]) -> None:
    """Refuse worlds that do not know what is asked of them. Raises TrainingError and UnknownName."""
    needed = {"edge": "draw", "edit": "edit"}.get(kind, kind)
    for name in shares:
        if not hasattr(WORLDS[name], needed):
            able = [other for other in WORLDS.names() if hasattr(WORLDS[other], needed)]
            raise TrainingError(f"the world {name} has no {needed}", hint=f"these have: {', '.join(able)}")
    if not shares or min(shares.values()) < 0 or not sum(shares.values()):
        raise TrainingError(f"shares of worlds that cannot be: {dict(shares)}", hint="for example critters=1")


@dataclass(frozen=True)
class _Row:
    """One still before it is drawn: a scene and a moment of it, and what its words are chosen by."""

    world: ModuleType
    scene: Any
    moment: float
    rng: np.random.Generator


def _row(shares: Mapping[str, float], seed: int, step: int, place: int) -> _Row:
    rng = batches.source(seed, step, place)
    world = WORLDS[batches.pick(rng, tuple(shares), list(shares.values()))]
    scene, moment = world.sample(rng, split="train"), float(rng.random())
    return _Row(world, scene, GONE.get(getattr(scene, "motion", ""), moment), rng)


def _covered(rows: Sequence[_Row], size: int) -> Tensor:
    """Which cells the figures of these rows cover, (b, 1, size / CELL, size / CELL)."""
    names = [row.world.__name__ for row in rows]
    worlds = {row.world.__name__: row.world for row in rows}
    moments = np.array([[row.moment] for row in rows])
    return stills.covered(worlds, names, [row.scene for row in rows], (1, size // CELL, size // CELL), moments)


def _drawn(rows: Sequence[_Row], how: str, size: int, device: torch.device) -> Tensor:
    """What the worlds draw of these rows in one of their ways, each in its place, (b, 3, size, size) uint8."""
    pictures = torch.empty(len(rows), 3, size, size, dtype=torch.uint8, device=device)
    for world in dict.fromkeys(row.world for row in rows):
        places = [place for place, row in enumerate(rows) if row.world is world]
        moments = np.array([[rows[place].moment] for place in places])
        draw: Callable[..., Tensor] = getattr(world, how)
        clips = draw([rows[place].scene for place in places], 1, size, size, xp=torch, device=device, moments=moments)
        pictures[places] = clips[:, 0].movedim(3, 1)
    return pictures
