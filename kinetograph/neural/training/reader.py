"""Supervised learning of the reader: from clips to the names of what they show. The worlds know every answer."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kinetograph import media
from kinetograph.neural import checkpoint, pixels
from kinetograph.neural.models import eye, reader
from kinetograph.neural.training import batches, run
from kinetograph.shelf import WORLDS


@dataclass(frozen=True, kw_only=True)
class Recipe(run.Recipe):
    """Everything that a run depends on. The eye's size is the name of a preset; each world has its share of a batch."""

    worlds: tuple[str, ...]
    model: str = "small"
    rate: float = 1e-3

    def train(self, folder: Path, **how: Any) -> None:
        """Run this recipe in a folder: see `run.train`."""
        run.train(Trainer, self, folder, **how)


class Trainer(run.Trainer):
    """The network and its optimiser. An attribute that a clip does not have (the speed of what stands still) teaches
    nothing."""

    def __init__(self, recipe: Recipe, where: torch.device, processes: run.Processes) -> None:
        self.recipe, self.where, self.processes = recipe, where, processes
        attributes = {
            world: {name: len(values) for name, values in WORLDS[world].ATTRIBUTES.items()} for world in recipe.worlds
        }
        self.config = reader.Config(eye.Config(**eye.PRESETS[recipe.model]), attributes)
        torch.manual_seed(recipe.seed)
        self.reader = reader.Model(self.config).to(where)
        self.optimiser = torch.optim.AdamW(self.reader.parameters(), lr=recipe.rate, betas=(0.9, 0.99))

    @property
    def parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        """The network and its optimiser."""
        return {"reader": self.reader, "optimiser": self.optimiser}

    def step(self, step: int) -> dict[str, float]:
        """One batch: the sum of the attributes' cross-entropies."""
        run.set_rate([self.optimiser], self.recipe, step)
        share = self.recipe.batch // len(self.recipe.worlds)
        places = batches.places(share, self.processes.rank, self.processes.ranks)
        drawn = {world: self._draw(world, step, places) for world in self.recipe.worlds}
        with self.recipe.autocast(self.where):
            logits = self._own(self.reader(torch.cat([clips for clips, _ in drawn.values()])), len(places))
        wanted = {f"{world}/{name}": row for world, (_, said) in drawn.items() for name, row in said.items()}
        losses = {name: batches.naming(logits[name], wanted[name]) for name in logits}
        self.optimiser.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        self.processes.average_gradients(self.reader)
        self.optimiser.step()
        right = {name: _right(logits[name], wanted[name]) for name in logits}
        return {f"right_{name}": float(share) for name, share in right.items()} | {
            "loss": float(sum(loss.detach() for loss in losses.values()))
        }

    def _own(self, logits: dict[str, Tensor], count: int) -> dict[str, Tensor]:
        """Of the answers about each world those of its own clips, of which each world has `count` in turn."""
        first = {world: i * count for i, world in enumerate(self.recipe.worlds)}
        begins = {name: first[name.partition("/")[0]] for name in logits}
        return {name: rows[begins[name] : begins[name] + count] for name, rows in logits.items()}

    def _draw(self, name: str, step: int, places: range) -> tuple[Tensor, dict[str, Tensor]]:
        world = WORLDS[name]
        scenes = [world.sample(batches.source(self.recipe.seed, step, place)) for place in places]
        frames, size = self.config.eye.frames, self.config.eye.size
        clips = pixels.to_model(world.draw(scenes, frames, size, size, xp=torch, device=self.where))
        return clips, batches.numbers(world, [world.attributes(scene) for scene in scenes], self.where)

    def kept(self) -> reader.Model:
        """The reader."""
        return self.reader

    def draw_samples(self, path: Path, kept: nn.Module, count: int = 3) -> None:
        """Some clips of each world with the names that the reader gives them."""
        shown, labels = [], []
        for world in self.recipe.worlds:
            clips, _ = self._draw(world, 0, range(count))
            with torch.no_grad():
                logits = kept(clips)
            values = WORLDS[world].ATTRIBUTES
            answers = {name: logits[f"{world}/{name}"].argmax(1).tolist() for name in values}
            labels += [", ".join(values[name][row[i]] for name, row in answers.items()) for i in range(count)]
            shown += list(pixels.to_frames(clips))
        media.write_contact_sheet(path, shown, labels)

    def save_checkpoint(self, folder: Path, kept: nn.Module, history: dict[str, Any]) -> None:
        """Write the reader as a checkpoint folder that explains itself."""
        explained = {"kind": "reader", "worlds": list(self.recipe.worlds), "config": asdict(self.config)}
        checkpoint.save_model(folder, kept, explained | {"recipe": asdict(self.recipe)} | history)


def _right(logits: Tensor, wanted: Tensor) -> Tensor:
    """The share of right answers among the clips that have the attribute."""
    said = wanted != batches.UNSAID
    return (logits.argmax(1) == wanted).sum() / said.sum().clamp(min=1)
