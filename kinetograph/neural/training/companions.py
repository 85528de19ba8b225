"""Companions of a picture model, taught by what worlds know of their own pictures: ControlNets, and a model of edits.

A ControlNet (Zhang et al. 2023) is shown the edges, the depth or the skeletons of a still beside its noised latents and
its caption, and learns to bend what the picture model says; the model itself stays as it is. A model of edits (Brooks
et al. 2023, InstructPix2Pix) is the picture model's UNet with as many channels again, in which it sees the still before
an edit, and is told the instruction.

Stills are drawn and encoded as they are needed. Scenes, noise, times and what is left out are keyed by seed, step and
place, so that a run that was stopped goes on exactly.
"""

import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from kinetograph import files, hub, media, weights
from kinetograph.errors import TrainingError, WeightsError
from kinetograph.neural import checkpoint, pixels, sampling
from kinetograph.neural.device import channels_last, noise
from kinetograph.neural.pictures import families, folder, pocket
from kinetograph.neural.pictures.folder import Pictures
from kinetograph.neural.pictures.words import Words
from kinetograph.neural.sampling import Levels
from kinetograph.neural.training import batches, optimisers, run, times, truths
from kinetograph.neural.training.ahead import Ahead, drawing
from kinetograph.neural.training.average import Average
from kinetograph.neural.training.controlnets import ControlNets
from kinetograph.neural.training.instructed import Editors
from kinetograph.neural.training.rounding import rounded
from kinetograph.neural.training.truths import Stills
from kinetograph.neural.zeroshot import loop

Kind = Literal["edge", "depth", "pose", "edit"]
WAYS: Mapping[Kind, "Way"] = {
    "edge": ControlNets("edge"),
    "depth": ControlNets("depth"),
    "pose": ControlNets("pose"),
    "edit": Editors(),
}
SHOWN, STEPS = 8, 20  # pictures on a contact sheet, and steps for each
EVALUATED = 2**31  # a step of training that never comes: what is drawn for it is not learnt from


class Way(Protocol):
    """How one kind of companion learns, draws and is written."""

    @property
    def what(self) -> str:
        """One of them, for its card."""
        ...

    def begin(self, pictures: Pictures, slim: bool) -> nn.Module:
        """The companion before it has learnt anything."""

    @property
    def part(self) -> str:
        """Where in its folder its weights lie, from there."""
        ...

    def draw(
        self, shares: Mapping[str, float], seed: int, step: int, where: range, size: int, device: torch.device
    ) -> Stills:
        """What is learnt from at these places of a step."""

    def seen(self, pictures: Pictures, shown: Tensor, blind: Tensor) -> Tensor:
        """What it sees of what is shown, (n, 3, h, w) uint8, where it is not blind (n,)."""

    def said(self, model: nn.Module, own: Callable[..., Any], x: Tensor, shown: Tensor, told: dict[str, Any]) -> Tensor:
        """What is predicted of noised latents, by the `model` with its help or by its `own` network; both are `told`
        the time and the words, by name."""

    def drawing(
        self, pictures: Pictures, network: nn.Module, shown: Tensor, words: Words, wordless: Words, levels: Levels
    ) -> tuple[nn.Module, loop.Predict, list[tuple[float, Words]]]:
        """How pictures are drawn: the network that says what latents are, what is asked, and in which groups."""

    def write(self, folder: Path, net: nn.Module, source: Path, whole: bool) -> list[Path]:
        """Write it as diffusers reads it, beside the model in `source`; return the files."""


@dataclass(frozen=True, kw_only=True)
class Recipe(run.Recipe):
    """What kind of companion learns beside which model, and from stills of which worlds.

    `model` is a text-to-image model of Stable Diffusion's family: a folder, a hub id, or a name of the package.
    `silent` is how often nothing is told and, to a model of edits, how often nothing is shown. An error counts
    `figures` times more in cells that figures cover, where something is shown to tell which cells these are.
    """

    kind: Kind
    model: str = weights.POCKET
    start: str = ""  # a companion whose weights the run begins with: a folder, or a name of the package
    worlds: dict[str, float] = field(default_factory=lambda: {"critters": 1.0})
    size: int = 128  # of a still's side
    noises: int = 1  # that each still is met in, at times as `times.Spread` says
    spread: float = 0.0
    middle: float = 0.0
    compiled: bool = False  # what learns and the model beside it, in some minutes before the first step
    helpers: int = 0  # processes that draw for coming steps while one is taken, for a GPU that would wait; 0: none
    silent: float = 0.1
    figures: float = 0.0
    slim: bool = True  # a ControlNet without attention: half the size
    whole: bool = False  # a model of edits with all parts, not only the one that it does not share
    rate: float = 1e-3
    average: float = 0.999  # decay of the weights that are kept
    model_sha256: str = ""

    def train(self, folder: Path, **how: Any) -> None:
        """Run this recipe in a folder: see `run.train`."""
        run.train(Trainer, self.settled(), folder, **how)

    def settled(self) -> "Recipe":
        """The recipe with its model found, and its sum. Raises TrainingError, UnknownName and WeightsError."""
        truths.check(self.kind, self.worlds)
        if self.size % 8 or self.size < 64:
            near = max(64, round(self.size / 8) * 8)
            raise TrainingError(f"a size of {self.size} is no multiple of 8 from 64 on", hint=f"nearest: {near}")
        found = hub.locate(weights.path_of(self.model))
        if found.pipeline != families.FAMILIES["sd"].pipeline:
            hint = "companions are made for models of Stable Diffusion's family"
            raise WeightsError(f"{found.path} is {found.pipeline or 'no text-to-image model'}", hint=hint)
        start = self.start and weights.path_of(self.start)
        return replace(self, model=str(found.path), start=start, model_sha256=hub.digest(found.path))


def lesson(recipe: Recipe, where: range, device: torch.device, step: int) -> Stills:
    """What is learnt from at these places of the batch of a step, drawn on a device."""
    return WAYS[recipe.kind].draw(recipe.worlds, recipe.seed, step, where, recipe.size, device)


class Trainer(run.Trainer):
    """The model, its companion, the average that is kept, and the optimiser."""

    recipe: Recipe

    def __init__(self, recipe: Recipe, where: torch.device, processes: run.Processes) -> None:
        self.recipe, self.where, self.processes = recipe, where, processes
        self.kind = recipe.numbers(where)
        variant = hub.locate(recipe.model).variant
        self.pictures = folder.load(Path(recipe.model), "sd", "float32", where, variant)
        torch.manual_seed(recipe.seed)  # the first weights of what is not taken from the model
        self.way = WAYS[recipe.kind]
        self.network = self._begun().to(where).train().requires_grad_(True)
        for network in (self.network, self.pictures.network, self.pictures.vae):
            channels_last(network)
        self.pictures.convert(self.kind)
        if where.type == "cpu":
            for network in (self.network, self.pictures.network):
                pocket.plain_attention(network)
        self.average = Average(self.network, recipe.average)
        self.optimisers = optimisers.of([self.network], recipe.rate)
        self.alphas = self.pictures.pipe.scheduler.alphas_cumprod.sqrt().to(where)
        drawn = drawing(recipe.helpers, where)
        self.lessons = Ahead(partial(lesson, recipe, self._places, drawn), recipe.helpers, recipe.steps)
        self.said = torch.compile(self._said) if recipe.compiled else self._said

    def _begun(self) -> nn.Module:
        from diffusers.utils.constants import SAFETENSORS_WEIGHTS_NAME

        network = self.way.begin(self.pictures, self.recipe.slim)
        if self.recipe.start:
            path = Path(self.recipe.start) / self.way.part / SAFETENSORS_WEIGHTS_NAME
            tensors = checkpoint.load(path)
            checkpoint.refuse_unfit(path, tensors, network)
            network.load_state_dict(tensors)
        return network

    @property
    def parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        """Everything that the next step depends on, by name."""
        networks = {"network": self.network, "average": self.average.model}
        return {**networks, **optimisers.numbered(self.optimisers)}

    def kept(self) -> nn.Module:
        """The averaged companion."""
        return self.average.model

    def step(self, step: int) -> dict[str, float]:
        """Take step `step` (counted from 1) and return its figures."""
        run.set_rate(self.optimisers, self.recipe, step)
        loss = self.error(self.network, step)
        optimisers.descend(loss, self.optimisers, self.processes, [self.network], self.network)
        self.average.follow(self.network, step)
        return {"loss": float(loss.detach())}

    # ---- the loss

    def error(self, network: nn.Module, step: int) -> Tensor:
        """How wrong the companion is about the noised stills of a step, on average."""
        recipe = self.recipe
        where = self._places
        stills = self.lessons(step).to(self.where)
        chances = [_Chances.of(recipe, step, place, len(self.alphas), self._cells) for place in where]
        told = ["" if row.mute else text for row, text in zip(chances, stills.told, strict=True)]
        time, e = (torch.cat(parts).to(self.where) for parts in zip(*[(row.time, row.noise) for row in chances]))
        alpha = self.alphas[time][:, None, None, None]
        sigma = (1 - alpha**2).sqrt()
        with torch.no_grad():
            clean = self._latents(stills.pictures, torch.stack([row.spread for row in chances]).to(self.where))
            blind = torch.tensor([row.blind for row in chances], device=self.where)
            shown = self.way.seen(self.pictures, stills.shown, blind)
            words = self.pictures.words(told, recipe.size, recipe.size).at(range(1))
        clean, shown = self._each(clean), self._each(shown)
        words = {name: self._each(tensor) for name, tensor in words.items()}
        noisy, shown = self._short(alpha * clean + sigma * e), self._short(shown)
        said = self.said(rounded(network, self.kind), noisy, shown, time, words)
        velocity = self.pictures.prediction == "v"
        errors = (said.float() - (alpha * e - sigma * clean if velocity else e)).square()
        figures = F.adaptive_max_pool2d(stills.figures, self._cells[1:]) * ~blind[:, None, None, None]
        return (errors * (1 + recipe.figures * self._each(figures))).mean()

    @property
    def _places(self) -> range:
        return batches.places(self.recipe.batch, self.processes.rank, self.processes.ranks)

    def _each(self, rows: Tensor) -> Tensor:
        """Rows of stills as often as each is met."""
        return rows.repeat_interleave(self.recipe.noises, 0)

    def _short(self, pictures: Tensor) -> Tensor:
        """Pictures or latents in the numbers that are computed with."""
        return pictures.to(self.kind).contiguous(memory_format=torch.channels_last)

    def _said(
        self, weights: dict[str, Tensor], x: Tensor, shown: Tensor, time: Tensor, words: Mapping[str, Tensor]
    ) -> Tensor:
        """What is predicted of noised latents, with the help of the companion or by it; it has these weights."""

        def own(x: Tensor, **told: Any) -> Any:
            return functional_call(self.network, weights, (x,), told)

        told = {**families.asked(self.pictures.family, words), "timestep": time, "return_dict": False}
        return self.way.said(self.pictures.network, own, x, shown, told)

    @cached_property
    def _cells(self) -> tuple[int, int, int]:
        side = self.recipe.size // self.pictures.cell
        return self.pictures.channels, side, side

    def _latents(self, pictures: Tensor, spread: Tensor) -> Tensor:
        """What stills are encoded as, anywhere within what the encoder thinks possible."""
        found = self.pictures.vae.encode(pixels.signed(pictures).to(self.kind)).latent_dist
        return self.pictures.scaled(found.mean.float() + found.std.float() * spread)

    # ---- pictures of what has been learnt

    def draw_samples(self, path: Path, kept: nn.Module) -> None:
        """A contact sheet of stills that are not learnt from: the still, what is shown, and what is made of that."""
        stills = lesson(self.recipe, range(SHOWN), self.where, EVALUATED)
        made = self.made(kept, stills.told, stills.shown, STEPS)
        before, shown = (part.movedim(1, 3).cpu().numpy() for part in (stills.pictures, stills.shown))
        rows = [np.stack(row) for row in zip(shown, before, made, strict=True)]
        media.write_contact_sheet(path, rows, stills.told, scale=1)

    @torch.no_grad()
    def made(self, network: nn.Module, told: Sequence[str], shown: Tensor, steps: int) -> media.Frames:
        """Pictures (n, h, w, 3) uint8 for sentences, with what is shown (n, 3, h, w) uint8, through the sampler that
        makes clips; the same ones for the same weights."""
        recipe, pictures, count = self.recipe, self.pictures, len(told)
        network = copy.deepcopy(network).to(self.kind)
        positive, negative = (
            pictures.words(list(texts), recipe.size, recipe.size, negative=texts is not told)
            for texts in (told, [""] * count)
        )
        levels, start = pictures.levels(steps), noise(recipe.seed, 0, shape=(self._cells[0], count, *self._cells[1:]))
        words, wordless = _by_frame(positive), _by_frame(negative)
        saying, predict, groups = self.way.drawing(pictures, network, shown, words, wordless, levels)
        denoise = loop.frames_denoiser(predict, pictures.prediction, groups)
        with _using(pictures, saying):
            latents = sampling.sample(denoise, sampling.begin(start[None], levels[0]), levels, "dpmpp-2m")
        frames: media.Frames = pixels.to_frames(pictures.decode(latents[0].transpose(0, 1))[:, :, None])[:, 0]
        return frames

    # ---- files

    def save_checkpoint(self, folder: Path, kept: nn.Module, history: dict[str, Any]) -> None:
        """Write the companion in half precision as diffusers reads it, with its card and its sums."""
        weights.seal(folder, self.way.write(folder, kept, Path(self.recipe.model), self.recipe.whole))
        files.write(folder / weights.CARD, card(self.recipe, kept, history))


@dataclass(frozen=True)
class _Chances:
    """What chance decides of one still: the times (n,) that it is met at, its noise (n, c, h, w) at each, where in what
    is possible its latents lie (c, h, w), and what is left out."""

    time: Tensor
    noise: Tensor
    spread: Tensor
    mute: bool
    blind: bool

    @classmethod
    def of(cls, recipe: Recipe, step: int, place: int, levels: int, shape: tuple[int, ...]) -> "_Chances":
        rng = batches.source(recipe.seed + 1, step, place)  # a stream of its own: scenes have the other
        spread = times.Spread(recipe.noises, recipe.spread, recipe.middle)
        time = torch.from_numpy(spread.draw(rng, 1, levels)[0])
        mute, blind, both = rng.random(3) < recipe.silent * np.array([1, 1, 0.5])
        sizes = (recipe.noises, *shape), shape
        added, within = (torch.from_numpy(rng.standard_normal(size, dtype=np.float32)) for size in sizes)
        return cls(time, added, within, bool(mute | both), bool(blind | both))


def _by_frame(words: Words) -> Words:
    """What each of several clips is told, as what each frame of one is told."""
    return Words({name: tensor.transpose(0, 1) for name, tensor in words.tensors.items()})


@contextmanager
def _using(pictures: Pictures, network: nn.Module) -> Iterator[None]:
    """Within, another network says what latents are."""
    before, pictures.network = pictures.network, network
    try:
        yield
    finally:
        pictures.network = before


# ---- the card


SETTINGS = (
    "batch",
    "noises",
    "spread",
    "middle",
    "figures",
    "rate",
    "warmup",
    "cooldown",
    "silent",
    "average",
    "size",
    "seed",
)
TITLES = {
    "edge": "Obeys edges",
    "depth": "Obeys depth",
    "pose": "Obeys skeletons",
    "edit": "Edits by instructions",
}


def card(recipe: Recipe, net: nn.Module, history: Mapping[str, Any]) -> str:
    """What the folder holds and how it was made, for people."""
    count = sum(parameter.numel() for parameter in net.parameters())
    worlds = ", ".join(f"{name} {share:g}" for name, share in recipe.worlds.items())
    begun = f", beginning with the weights of `{Path(recipe.start).name}`" if recipe.start else ""
    sets = {name: getattr(recipe, name) for name in SETTINGS}
    return (
        "---\nlicense: apache-2.0\n---\n"
        f"# {TITLES[recipe.kind]}\n\n"
        f"{WAYS[recipe.kind].what} beside the picture model `{Path(recipe.model).name}` (sha256 of its weights "
        f"`{recipe.model_sha256[:16]}`), taught by stills that worlds drew and what they know of them.\n\n"
        "| | |\n|---|---|\n"
        f"| Recipe | `kinetograph train pocket-{recipe.kind}`, {history['steps']} steps of {recipe.batch} stills"
        f"{begun} |\n"
        f"| Data | training combinations of the worlds {worlds}, drawn as needed |\n"
        f"| Hardware | {history['hardware']} |\n| Hours | {history['hours']} |\n"
        f"| Parameters | {count / 1e6:.2f} M, float16 |\n| Licence | Apache-2.0 |\n\n"
        f"Settings: `{json.dumps(sets)}`.\n"
    )
