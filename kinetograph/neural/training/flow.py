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
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from kinetograph import media, weights
from kinetograph.errors import WeightsError
from kinetograph.neural import checkpoint, flow, pixels
from kinetograph.neural.device import noise
from kinetograph.neural.models import text, video_unet
from kinetograph.neural.training import batches, run
from kinetograph.neural.training.average import Average
from kinetograph.neural.training.naming import Names
from kinetograph.shelf import WORLDS

T = TypeVar("T")


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
    """Everything that a run depends on. Sizes of the network are names of presets; `worlds` maps each to its share."""

    worlds: dict[str, float]
    model: str = "small"
    text: str = "medium"
    sizes: tuple[Size, ...] = SIZES
    rate: float = 1e-3
    signal: tuple[float, float] = (-2.0, 1.8)  # logit of the signal's part: mean and spread
    bound: float = 0.2  # levels below count as this much in the velocity's weight
    known: float = 0.15  # how often the first frames of a clip are given
    wordless: float = 0.1  # how often the sentence is withheld, for guidance
    sentences: int = 64  # that the text encoder names in each step, beside those of the clips
    naming: float = 0.1  # weight of that
    looks: int = 200  # clean clips that the network's principal components are taken from
    average: float = 0.999  # decay of the weights that are kept
    start: str = ""  # a checkpoint folder whose weights the run begins with, instead of chance

    def train(self, folder: Path, **how: Any) -> None:
        """Run this recipe in a folder: see `run.train`."""
        run.train(Trainer, self, folder, **how)


@dataclass(frozen=True)
class Batch:
    """Clips (b, 3, t, h, w) in [-1, 1] with their captions, noise of the same shape, each frame's level (b, t)."""

    clips: Tensor
    captions: list[str]
    noise: Tensor
    level: Tensor


class Trainer(run.Trainer):
    """The network, what it names sentences with, the optimiser and the kept average."""

    recipe: Recipe

    def __init__(self, recipe: Recipe, where: torch.device, processes: run.Processes) -> None:
        self.recipe, self.where, self.processes = recipe, where, processes
        self.kind = torch.bfloat16 if recipe.bfloat16 else torch.float32
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
        clips = []
        for name, share in self.recipe.worlds.items():
            world, rng = self.worlds[name], batches.source(self.recipe.seed, 0, 0)
            scenes = [world.sample(rng, split="train") for _ in range(max(2, round(share * self.recipe.looks)))]
            drawn = world.draw(scenes, size.frames, size.height, size.width, xp=torch, device=torch.device("cpu"))
            clips.append(pixels.to_model(drawn))
        self.model.look_at(clips)
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
        told = {name: found[name] for name in ("steps", "hours", "hardware", "before") if name in found}
        return {"before": {"weights": digest, "batch": found["recipe"]["batch"], **told}}

    @property
    def parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        """Everything that the next step depends on, by name."""
        learners = {f"optimiser {i}": optimiser for i, optimiser in enumerate(self.optimisers)}
        return {"model": self.model, "names": self.names, "average": self.average.model, **learners}

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
        batch = self._draw(step)
        level = batch.level[:, None, :, None, None]
        noisy = (1 - level) * batch.clips + level * batch.noise
        guess = self._guess(noisy, batch.level, self.encode(batch.captions))
        error = (guess.float() - batch.clips).square().mean(dim=(1, 3, 4))  # (b, t)
        unknown = batch.level > 0
        loss = (error / batch.level.clamp(min=self.recipe.bound).square())[unknown].mean()
        naming = self._name_sentences(step)
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
        (loss + self.recipe.naming * naming).backward()
        for network in (self.names,) if self.sharded else (self.model, self.names):
            self.processes.average_gradients(network)  # those of a sharded model are averaged already
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
        self.average.follow(self.model, step)
        figures = {"loss": loss, "error": error[unknown].mean(), "naming": naming}
        return {name: float(value.detach()) for name, value in figures.items()}

    def _guess(self, noisy: Tensor, level: Tensor, ids: Tensor) -> Tensor:
        """The network's guess, computed with numbers of one kind throughout; the weights that learn stay in float32.

        Cheaper than autocast, which keeps what lies between the layers in float32.
        """
        seen = (noisy.to(self.kind), level, ids)
        if self.sharded or self.kind == torch.float32:  # what is sharded is rounded where it is gathered
            return cast(Tensor, self.model(*seen))
        rounded = {name: weight.to(self.kind) for name, weight in self.model.named_parameters()}
        return cast(Tensor, functional_call(self.model, rounded, seen))

    def _draw(self, step: int) -> Batch:
        """The clips of this process at this step, each keyed by its place in the whole batch."""
        recipe = self.recipe
        size = _pick(batches.source(recipe.seed, step, recipe.batch), recipe.sizes, [s.share for s in recipe.sizes])
        places = batches.places(recipe.batch, self.processes.rank, self.processes.ranks)
        clips = torch.empty(len(places), 3, size.frames, size.height, size.width, device=self.where)
        captions, levels = [""] * len(places), []
        scenes: dict[str, list[tuple[int, Any]]] = {name: [] for name in self.worlds}
        for i, place in enumerate(places):
            rng = batches.source(recipe.seed, step, place)
            name, scene, caption = self._describe(rng)
            scenes[name].append((i, scene))
            captions[i] = caption if rng.random() >= recipe.wordless else ""
            levels.append(self._level(rng, size.frames))
        for name, found in scenes.items():
            if found:
                drawn = self.worlds[name].draw(
                    [scene for _, scene in found], size.frames, size.height, size.width, xp=torch, device=self.where
                )
                clips[[i for i, _ in found]] = pixels.to_model(drawn)
        shape = (3, size.frames, size.height, size.width)
        e = torch.stack([noise(recipe.seed, step, place, 1, shape=shape) for place in places]).to(self.where)
        return Batch(clips, captions, e, torch.tensor(np.stack(levels), dtype=torch.float32, device=self.where))

    def _describe(self, rng: np.random.Generator) -> tuple[str, Any, str]:
        """A world's name, a scene of its training split, and its caption."""
        name = _pick(rng, tuple(self.worlds), list(self.recipe.worlds.values()))
        scene = self.worlds[name].sample(rng, split="train")
        return name, scene, self.worlds[name].caption(scene, rng)

    def _level(self, rng: np.random.Generator, frames: int) -> np.ndarray:
        """The noise level of each frame (t,): one for all, but 0 for first frames that are known."""
        mean, spread = self.recipe.signal
        level = np.full(frames, 1 / (1 + math.exp(mean + spread * rng.standard_normal())))
        if rng.random() < self.recipe.known:
            level[: rng.integers(1, frames // 2 + 1)] = 0.0
        return level

    def _name_sentences(self, step: int) -> Tensor:
        """The text encoder's loss: the cross-entropy of naming what sentences say, summed over attributes."""
        recipe = self.recipe
        places = batches.places(recipe.sentences, self.processes.rank, self.processes.ranks)
        described = [self._describe(batches.source(recipe.seed, step, recipe.batch + 1 + place)) for place in places]
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
            clips = flow.sample(model, ids[:-1], ids[-1:], e.to(self.where), flow.Settings(steps=12))
        frames = pixels.to_frames(clips)[:, :: max(1, size.frames // 8)]
        media.write_contact_sheet(path, list(frames), prompts)

    def save_checkpoint(self, folder: Path, kept: nn.Module, history: dict[str, Any]) -> None:
        """Write the kept weights as a checkpoint folder that explains itself."""
        kind = {"kind": "flow", "worlds": list(self.worlds), "words": list(self.vocabulary.words)}
        explained = kind | {"config": asdict(self.config), "recipe": asdict(self.recipe)} | history | self.before
        checkpoint.save_model(folder, kept, explained, torch.float16 if self.recipe.bfloat16 else torch.float32)


def _optimisers(model: video_unet.Model, names: nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices within (Jordan et al. 2024, at AdamW's rate as in Liu et al. 2025), AdamW for the rest."""
    matrices = model.matrices()
    within = set(map(id, matrices))
    others = [p for p in (*model.parameters(), *names.parameters()) if id(p) not in within]
    return [
        torch.optim.Muon(matrices, lr=rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.99), weight_decay=0.01),
    ]


def _pick(rng: np.random.Generator, things: tuple[T, ...], shares: list[float]) -> T:
    """One of these, as often as its share says."""
    return things[int(np.searchsorted(np.cumsum(shares), rng.random() * sum(shares), side="right"))]
