"""A model of stills learns to move: layers between the frames of a clip, while what it knows of pictures stays.

What a step teaches is flow matching as in `training.flow`, in the latents of the picture model's autoencoder: of noisy
frames the network guesses the clean ones, and its error is measured in the velocity. Only the layers between frames
learn (Guo et al. 2023): a checkpoint is small, and any clip is made of frames that the picture model would draw.
"""

import copy
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from kinetograph import gate, hub, media, weights
from kinetograph.errors import WeightsError
from kinetograph.neural import checkpoint, flow, pixels, seeing
from kinetograph.neural.device import noise
from kinetograph.neural.models import moving_unet
from kinetograph.neural.pictures import pocket, sharing
from kinetograph.neural.pictures.families import FAMILIES
from kinetograph.neural.training import batches, clips, optimisers, run, stills
from kinetograph.neural.training.average import Average
from kinetograph.neural.training.learnt import Learnt
from kinetograph.shelf import WORLDS


@dataclass(frozen=True, kw_only=True)
class Recipe(clips.Recipe):
    """Everything that a run depends on. Latents hold less that is said twice than pixels do: levels lie less far toward
    noise than in `training.flow`."""

    pictures: str = weights.POCKET  # the folder of a picture model in Stable Diffusion's layout, or one of the package
    start: str = ""  # a checkpoint folder whose weights the run begins with, instead of silence
    rate: float = 1e-3
    signal: tuple[float, float] = (-0.5, 1.6)
    bound: float = 0.05
    average: float = 0.999  # decay of the weights that are kept
    shared: float = 0.5  # the share of the noise's variance that all frames have in common: see `flow.related`
    figures: float = 0.0  # how many times more an error counts in cells that figures cover, by the signal's share there
    compiled: bool = False  # the network, in some minutes before the first step of each size of clips
    pictures_sha256: str = ""

    def train(self, folder: Path, **how: Any) -> None:
        """Run this recipe in a folder: see `run.train`."""
        run.train(Trainer, self.settled(), folder, **how)

    def settled(self) -> "Recipe":
        """The recipe with its picture model found, and its sum. Raises UnknownName and WeightsError."""
        found = hub.locate(weights.path_of(self.pictures))
        if found.pipeline != FAMILIES["sd"].pipeline:
            hint = "only models of Stable Diffusion's family can be set in motion"
            raise WeightsError(f"{found.path} is {found.pipeline or 'no text-to-image model'}", hint=hint)
        return replace(self, pictures=str(found.path), pictures_sha256=hub.digest(found.path))


class Trainer(run.Trainer):
    """The network, what of it learns, the optimisers and the kept average."""

    recipe: Recipe

    def __init__(self, recipe: Recipe, where: torch.device, processes: run.Processes) -> None:
        self.recipe, self.where, self.processes = recipe, where, processes
        self.kind = recipe.numbers(where)
        self.worlds: dict[str, ModuleType] = {name: WORLDS[name] for name in recipe.worlds}
        torch.manual_seed(recipe.seed)  # the same first weights in every process
        self.moving = seeing.moving(Path(recipe.pictures), where, self.kind, recipe.shared)
        self.model = self.moving.model
        self.model.requires_grad_(False)
        if where.type == "cpu":
            pocket.plain_attention(self.model.unet, self.model.reader)
            for network in (self.model.unet, self.moving.pictures.pipe.vae):
                optimisers.channels_last(network)
        self.learning = Learnt(self.model.motion()).requires_grad_(True)
        self.before = self._begin_with(recipe.start) if recipe.start else {}
        self.average = Average(self.learning, recipe.average)
        self.optimisers = optimisers.of([self.learning_layers()], recipe.rate)
        motion = self.learning.named()
        self.still = {n: w.to(self.kind) for n, w in self.model.named_parameters() if n not in motion}
        self.called = torch.compile(self._called) if recipe.compiled else self._called

    def _begin_with(self, start: str) -> dict[str, Any]:
        """Take the layers of a checkpoint, and return what is to be told of them. Raises WeightsError where they are of
        another picture model."""
        folder = weights.locate(start)
        found, digest = weights.configuration(folder, "motion"), weights.verify(folder)
        moving_unet.put_into(self.model, checkpoint.load(folder / weights.MODEL))
        return {"before": run.summary(found, digest)}

    def learning_layers(self) -> nn.Module:
        """The layers between the frames."""
        return nn.ModuleList(part.motion for part in self.model.modules() if isinstance(part, moving_unet.Followed))

    @property
    def parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        """Everything that the next step depends on, by name."""
        return {"learning": self.learning, "average": self.average.model, **optimisers.numbered(self.optimisers)}

    def kept(self) -> nn.Module:
        """The averaged layers."""
        return self.average.model

    def step(self, step: int) -> dict[str, float]:
        """Take step `step` (counted from 1) and return its figures."""
        run.set_rate(self.optimisers, self.recipe, step)
        places = batches.places(self.recipe.batch, self.processes.rank, self.processes.ranks)
        batch = clips.draw(self.recipe, self.worlds, step, places, self.where)
        clean, level = self.moving.encode(batch.clips), batch.level[:, None, :, None, None]
        e = self.moving.noise(partial(clips.noise_for, self.recipe, step, places, device=self.where), clean.shape[1:])
        guess = self._guess((1 - level) * clean + level * e, batch.level, self.moving.ids(batch.captions))
        error = (guess - clean).square().mean(dim=1)  # (b, t, h, w)
        unknown = batch.level > 0
        loss = (self._counted(error, batch) / batch.level.clamp(min=self.recipe.bound).square())[unknown].mean()
        optimisers.descend(loss, self.optimisers, self.processes, [self.learning], self.learning)
        self.average.follow(self.learning, step)
        figures = {"loss": loss, "error": error[unknown].mean()}
        return {name: float(value.detach()) for name, value in figures.items()}

    def _counted(self, error: Tensor, batch: clips.Batch) -> Tensor:
        """The error (b, t) of frames, out of that of their cells: as `training.pocket.counted` weighs figures."""
        if not self.recipe.figures:
            return error.mean(dim=(2, 3))
        figures = stills.covered(self.worlds, batch.worlds, batch.scenes, error.shape[1:]).to(error)
        clear, noise = (1 - batch.level).square(), batch.level.square()
        signal = (clear / (clear + noise))[:, :, None, None]
        return (error * (1 + self.recipe.figures * signal * figures)).mean(dim=(2, 3))

    def _guess(self, noisy: Tensor, level: Tensor, ids: Tensor) -> Tensor:
        """The network's guess, computed with numbers of one kind; what learns stays in float32."""
        rounded = self.still | {name: weight.to(self.kind) for name, weight in self.learning.named().items()}
        return self.called(rounded, noisy.to(self.kind), level, ids).float()

    def _called(self, weights: dict[str, Tensor], noisy: Tensor, level: Tensor, ids: Tensor) -> Tensor:
        return cast(Tensor, functional_call(self.model, weights, (noisy, level, ids)))

    def draw_samples(self, path: Path, kept: nn.Module, count: int = 2) -> None:
        """A contact sheet of the kept weights on held-out sentences of each world, always the same ones."""
        prompts = [p for world in self.worlds.values() for p in batches.prompts(world, 7, count, "heldout")]
        size, moving = self.recipe.sizes[0], copy.deepcopy(self.moving)
        moving_unet.put_into(moving.model, cast(Learnt, kept).named())
        moving.model.to(self.kind)
        ids, shape = moving.ids([*prompts, ""]), moving.shape(size.frames, size.height, size.width)
        e = torch.stack([moving.noise(partial(noise, 7, i), shape) for i in range(len(prompts))])
        with torch.no_grad():
            drawn = flow.sample(moving.model, ids[:-1], ids[-1:], e.to(self.where), flow.Settings(steps=12, shift=1.0))
            frames = pixels.to_frames(moving.decode(drawn))[:, :: max(1, size.frames // 8)]
        media.write_contact_sheet(path, list(frames), prompts)

    def save_checkpoint(self, folder: Path, kept: nn.Module, history: dict[str, Any]) -> None:
        """Write the kept layers as a checkpoint folder that says which picture model they belong to."""
        kind = torch.float16 if self.recipe.bfloat16 else torch.float32
        pictures, source = self.moving.pictures, Path(self.recipe.pictures)
        halvings = len(pictures.network.config.block_out_channels) - 1
        told = {"kind": "motion", "worlds": list(self.worlds), "multiple": pictures.cell * 2**halvings}
        named = {"pictures": source.name, "start": Path(self.recipe.start).name}
        told |= {"recipe": asdict(self.recipe) | named} | history | self.before
        rounded = {name: weight.to(kind) for name, weight in cast(Learnt, kept).named().items()}
        checkpoint.save(folder / weights.MODEL, rounded, told)
        weights.seal(folder)
        sharing.note(folder, source, list(hub.parts(gate.settings(source / gate.INDEX))))
