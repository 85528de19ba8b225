"""Flow matching on clips: a network learns to see the clean clip behind any amount of noise.

A clip x and noise e are mixed along a straight line, x_s = (1 - s) x + s e (rectified flow, Liu et al. 2022). The
network guesses x; its error is measured where sampling uses it, in the velocity (x_s - x) / s, with a bound near the
clean end (Li & He 2025). Frames of a clip are so redundant that where things are is decided while the signal is a few
percent: levels are drawn far toward noise (logit-normal, Esser et al. 2024), and widely. In a part of the clips the
first frames are known, which teaches to go on from them.

The text encoder learns with the rest, and from many more sentences than there is time to draw clips of: it names what
each of them says.
"""

import copy
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from kinetograph import media, weights
from kinetograph.errors import WeightsError
from kinetograph.neural import checkpoint, flow, pixels
from kinetograph.neural.device import noise
from kinetograph.neural.models import text, video_unet
from kinetograph.neural.training import batches, clips, optimisers, run
from kinetograph.neural.training.average import Average
from kinetograph.neural.training.naming import Names
from kinetograph.neural.training.rounding import rounded
from kinetograph.shelf import WORLDS


@dataclass(frozen=True, kw_only=True)
class Recipe(clips.Recipe):
    """Everything that a run depends on. Sizes of the network are names of presets."""

    model: str = "small"
    text: str = "medium"
    rate: float = 1e-3
    sentences: int = 64  # that the text encoder names in each step, beside those of the clips
    naming: float = 0.1  # weight of that
    looks: int = 200  # clean clips that the network's principal components are taken from
    average: float = 0.999  # decay of the weights that are kept
    start: str = ""  # a checkpoint folder whose weights the run begins with, instead of chance
    sharded: bool = False  # weights, gradients and the optimiser's state divided among the processes (FSDP2)

    def train(self, folder: Path, **how: Any) -> None:
        """Run this recipe in a folder: see `run.train`."""
        run.train(Trainer, self, folder, **how)


class Trainer(run.Trainer):
    """The network, what it names sentences with, the optimiser and the kept average."""

    recipe: Recipe

    def __init__(self, recipe: Recipe, where: torch.device, processes: run.Processes) -> None:
        self.recipe, self.where, self.processes = recipe, where, processes
        self.kind = recipe.numbers(where)
        self.worlds: dict[str, ModuleType] = {name: WORLDS[name] for name in recipe.worlds}
        self.vocabulary = text.Vocabulary(tuple(sorted({w for world in self.worlds.values() for w in world.words()})))
        words = text.Config(vocabulary=len(self.vocabulary), **text.PRESETS[recipe.text])
        self.config = video_unet.Config(text=words, **video_unet.PRESETS[recipe.model])
        torch.manual_seed(recipe.seed)  # the same first weights in every process
        self.model = video_unet.Model(self.config).to(where)
        self._look_around()
        self.before = self._begin_with(recipe.start) if recipe.start else {}
        self.names = Names(words.width, self.worlds).to(where)
        self.average = Average(self.model, recipe.average)
        self.sharded = recipe.sharded and processes.ranks > 1
        if self.sharded:
            for model in (self.model, self.average.model):
                processes.shard(model, model.blocks(), self.kind)
        self.optimisers = _optimisers(self.model, self.names, recipe.rate)

    def _look_around(self) -> None:
        """Show the network some clean clips of every world before it learns; the same in every process."""
        size = max(self.recipe.sizes, key=lambda size: size.share)
        seen = []
        for name, share in self.recipe.worlds.items():
            world, rng = self.worlds[name], batches.source(self.recipe.seed, 0, 0)
            scenes = [world.sample(rng, split="train") for _ in range(max(2, round(share * self.recipe.looks)))]
            drawn = world.draw(scenes, size.frames, size.height, size.width, xp=torch, device=torch.device("cpu"))
            seen.append(pixels.to_model(drawn))
        self.model.look_at(seen)
        self.processes.take_from_first(self.model.buffers())

    def _begin_with(self, start: str) -> dict[str, Any]:
        """Take the weights of a checkpoint, and return what is to be told of them. Raises WeightsError where they are
        of another network or know other words."""
        folder = weights.locate(start)
        found = weights.configuration(folder, "flow")
        if found["words"] != list(self.vocabulary.words):
            hint = "the order of the words is the order of their vectors"
            raise WeightsError(f"the checkpoint in {folder} knows other words than these worlds use", hint=hint)
        digest = checkpoint.load_model(folder, self.model)
        return {"before": run.summary(found, digest)}

    @property
    def parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        """Everything that the next step depends on, by name."""
        return {
            "model": self.model,
            "names": self.names,
            "average": self.average.model,
            **optimisers.numbered(self.optimisers),
        }

    def kept(self) -> video_unet.Model:
        """The averaged model, gathered where it is sharded."""
        if not self.sharded:
            return self.average.model
        whole = video_unet.Model(self.config).to(self.where)
        whole.load_state_dict(
            {name.removeprefix("kept/"): value for name, value in run.gathered({"kept": self.average.model}).items()}
        )
        return whole.eval()

    def step(self, step: int) -> dict[str, float]:
        """Take step `step` (counted from 1) and return its figures."""
        run.set_rate(self.optimisers, self.recipe, step)
        places = batches.places(self.recipe.batch, self.processes.rank, self.processes.ranks)
        batch = clips.draw(self.recipe, self.worlds, step, places, self.where)
        level = batch.level[:, None, :, None, None]
        e = clips.noise_for(self.recipe, step, places, tuple(batch.clips.shape[1:]), self.where)
        noisy = (1 - level) * batch.clips + level * e
        guess = self._guess(noisy, batch.level, self.encode(batch.captions))
        error = (guess.float() - batch.clips).square().mean(dim=(1, 3, 4))  # (b, t)
        unknown = batch.level > 0
        loss = (error / batch.level.clamp(min=self.recipe.bound).square())[unknown].mean()
        naming = self._name_sentences(step)
        apart = [self.names] if self.sharded else [self.model, self.names]  # a sharded model's are averaged already
        total = loss + self.recipe.naming * naming
        optimisers.descend(total, self.optimisers, self.processes, apart, self.model)
        self.average.follow(self.model, step)
        figures = {"loss": loss, "error": error[unknown].mean(), "naming": naming}
        return {name: float(value.detach()) for name, value in figures.items()}

    def _guess(self, noisy: Tensor, level: Tensor, ids: Tensor) -> Tensor:
        """The network's guess, computed with numbers of one kind throughout; the weights that learn stay in float32."""
        seen = (noisy.to(self.kind), level, ids)
        if self.sharded or self.kind == torch.float32:  # what is sharded is rounded where it is gathered
            return cast(Tensor, self.model(*seen))
        return cast(Tensor, functional_call(self.model, rounded(self.model, self.kind), seen))

    def _name_sentences(self, step: int) -> Tensor:
        """The text encoder's loss: the cross-entropy of naming what sentences say, summed over attributes."""
        recipe = self.recipe
        places = batches.places(recipe.sentences, self.processes.rank, self.processes.ranks)
        sources = (batches.source(recipe.seed, step, recipe.batch + 1 + place) for place in places)
        described = [clips.describe(rng, self.worlds, recipe.worlds) for rng in sources]
        whole = self.model.text(self.encode([caption for _, _, caption in described])).whole.float()
        return self.names(whole, [(name, self.worlds[name].parse(caption)) for name, _, caption in described])

    def encode(self, captions: list[str]) -> Tensor:
        """Token ids (b, l) on the training device, as long as the longest caption."""
        return text.trimmed(self.vocabulary.encode(captions, self.config.text.length)).to(self.where)

    def draw_samples(self, path: Path, kept: nn.Module, count: int = 2) -> None:
        """A contact sheet of the kept weights on held-out sentences of each world, always the same ones."""
        prompts = [p for world in self.worlds.values() for p in batches.prompts(world, 7, count, "heldout")]
        size = self.recipe.sizes[0]
        shape = (3, size.frames, size.height, size.width)
        ids, e = self.encode([*prompts, ""]), torch.stack([noise(7, i, shape=shape) for i in range(len(prompts))])
        model = copy.deepcopy(cast(video_unet.Model, kept)).to(self.kind)
        with torch.no_grad():
            drawn = flow.sample(model, ids[:-1], ids[-1:], e.to(self.where), flow.Settings(steps=12))
        frames = pixels.to_frames(drawn)[:, :: max(1, size.frames // 8)]
        media.write_contact_sheet(path, list(frames), prompts)

    def save_checkpoint(self, folder: Path, kept: nn.Module, history: dict[str, Any]) -> None:
        """Write the kept weights as a checkpoint folder that explains itself."""
        kind = {"kind": "flow", "worlds": list(self.worlds), "words": list(self.vocabulary.words)}
        recipe = asdict(self.recipe) | {"start": Path(self.recipe.start).name}
        explained = kind | {"config": asdict(self.config), "recipe": recipe} | history | self.before
        checkpoint.save_model(folder, kept, explained, torch.float16 if self.recipe.bfloat16 else torch.float32)


def _optimisers(model: video_unet.Model, names: nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices within (Jordan et al. 2024, at AdamW's rate as in Liu et al. 2025), AdamW for the rest."""
    matrices = model.matrices()
    within = set(map(id, matrices))
    others = [p for p in (*model.parameters(), *names.parameters()) if id(p) not in within]
    return [
        optimisers.Muon(matrices, rate),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.99), weight_decay=0.01),
    ]
