"""Supervised learning of the reader: from clips to the names of what they show. The world knows every answer."""

from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kinetograph import media
from kinetograph.neural import checkpoint, pixels
from kinetograph.neural.models import eye, reader
from kinetograph.neural.training import batches, run
from kinetograph.shelf import WORLDS


@dataclass(frozen=True, kw_only=True)
class Recipe(run.Recipe):
    """Everything that a run depends on. The eye's size is the name of a preset."""

    world: str
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
        self.world: ModuleType = WORLDS[recipe.world]
        self.config = reader.Config(
            eye.Config(**eye.PRESETS[recipe.model]),
            {name: len(values) for name, values in self.world.ATTRIBUTES.items()},
        )
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
        places = batches.places(self.recipe.batch, self.processes.rank, self.processes.ranks)
        clips, answers = self._draw(step, places)
        with torch.autocast(self.where.type, torch.bfloat16, enabled=self.recipe.bfloat16):
            logits = self.reader(clips)
        losses = {
            name: F.cross_entropy(logits[name].float(), answers[name], ignore_index=batches.UNSAID) for name in logits
        }
        self.optimiser.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        self.processes.average_gradients(self.reader)
        self.optimiser.step()
        right = {name: (logits[name].argmax(1) == answers[name]).float().mean() for name in logits}
        return {f"right_{name}": float(share) for name, share in right.items()} | {
            "loss": float(sum(loss.detach() for loss in losses.values()))
        }

    def _draw(self, step: int, places: range) -> tuple[Tensor, dict[str, Tensor]]:
        scenes = [self.world.sample(batches.source(self.recipe.seed, step, place)) for place in places]
        frames, size = self.config.eye.frames, self.config.eye.size
        clips = pixels.to_model(self.world.draw(scenes, frames, size, size, xp=torch, device=self.where))
        said = [self.world.attributes(scene) for scene in scenes]
        return clips, batches.numbers(self.world, said, self.where)

    def kept(self) -> reader.Model:
        """The reader."""
        return self.reader

    def draw_samples(self, path: Path, kept: nn.Module, count: int = 8) -> None:
        """Some clips with the names that the reader gives them."""
        clips, _ = self._draw(0, range(count))
        with torch.no_grad():
            answers = {name: logits.argmax(1).tolist() for name, logits in kept(clips).items()}
        names = [[self.world.ATTRIBUTES[name][answers[name][i]] for name in answers] for i in range(count)]
        media.write_contact_sheet(path, list(pixels.to_frames(clips)), [", ".join(row) for row in names])

    def save_checkpoint(self, folder: Path, kept: nn.Module, history: dict[str, Any]) -> None:
        """Write the reader as a checkpoint folder that explains itself."""
        explained = {"kind": "reader", "world": self.recipe.world, "config": asdict(self.config)}
        checkpoint.save_model(folder, kept, explained | {"recipe": asdict(self.recipe)} | history)
