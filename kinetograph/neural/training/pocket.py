"""The pocket model of pictures learns to draw stills of the worlds from a sentence: latent diffusion (Rombach et al.
2022), in the latents of an autoencoder that was trained before.

The network predicts velocities (Salimans & Ho 2022) under Stable Diffusion's levels, which end in pure noise (Lin et
al. 2024). The text encoder learns with it, and from many more sentences than there is time to draw pictures of: it
names what each of them says.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from kinetograph import files, hub, media, weights
from kinetograph.errors import TrainingError, WeightsError
from kinetograph.neural import pixels, sampling
from kinetograph.neural.device import channels_last, noise
from kinetograph.neural.pictures import folder as loading
from kinetograph.neural.pictures import pocket, words, writing
from kinetograph.neural.pictures.families import FAMILIES
from kinetograph.neural.training import autoencoder, batches, optimisers, run, stills, times
from kinetograph.neural.training.ahead import Ahead, drawing
from kinetograph.neural.training.average import Average
from kinetograph.neural.training.naming import Names
from kinetograph.neural.training.rounding import rounded
from kinetograph.neural.zeroshot import loop
from kinetograph.shelf import WORLDS

MADE = "made.json"


@dataclass(frozen=True, kw_only=True)
class Recipe(run.Recipe):
    """Everything that a run depends on; `worlds` maps each to its share. Of `batch` scenes, `moments` pictures each."""

    worlds: dict[str, float]
    autoencoder: str = ""  # the folder of the run that trained it, or a whole model: a folder, or a name of the package
    start: str = ""  # a whole model whose weights the run begins with, instead of chance
    model: str = "pocket"
    size: int = 128
    moments: int = 2
    noises: int = 1  # that each picture is seen in, for to draw and encode one takes as long as to learn from it
    spread: float = 0.0  # of the logits of times around `middle` (logit-normal, Esser et al. 2024); 0: all times alike
    middle: float = 0.0
    figures: float = 0.0  # how many times more an error counts in cells that figures cover, by the signal's share there
    compiled: bool = False  # the network, in two minutes before the first step: faster by half on a CPU
    helpers: int = 0  # processes that draw for coming steps while one is taken, for a GPU that would wait; 0: none
    rate: float = 1e-3
    wordless: float = 0.1  # how often the sentence is withheld, for guidance
    sentences: int = 64  # that the text encoder names in each step
    naming: float = 0.1  # weight of that; 0: it names none
    reading: bool = True  # whether the text encoder learns, too; a model that others share it with leaves it as it is
    average: float = 0.999  # decay of the weights that are kept
    autoencoder_sha256: str = ""

    def train(self, folder: Path, **how: Any) -> None:
        """Run this recipe in a folder: see `run.train`."""
        run.train(Trainer, self.settled(), folder, **how)

    @property
    def taught(self) -> bool:
        """Whether sentences are named: that is what the text encoder learns by, too."""
        return self.reading and self.naming > 0

    def settled(self) -> "Recipe":
        """The recipe with its models found, and the sum of its autoencoder. Raises TrainingError where it names
        none, or would leave a text encoder as chance made it."""
        if not self.autoencoder:
            hint = "kinetograph train pocket-autoencoder, then --set autoencoder=runs/pocket-autoencoder"
            raise TrainingError("the recipe does not say its autoencoder", hint=hint)
        if not (self.reading or self.start):
            raise TrainingError("a text encoder that never learnt has nothing to say", hint="--set start=pocket-image")
        coder, start = (name and weights.path_of(name) for name in (self.autoencoder, self.start))
        digest = files.sha256(_weights_of(Path(coder) / "vae"))
        return replace(self, autoencoder=coder, start=start, autoencoder_sha256=digest)


class Network(nn.Module):
    """What learns: (noisy latents (n, c, h, w), times (n,), token ids (n, l)) -> velocities of the latents' shape."""

    def __init__(self, unet: Any, text_encoder: Any) -> None:
        super().__init__()
        self.unet, self.text_encoder = unet, text_encoder

    def forward(self, noisy: Tensor, time: Tensor, ids: Tensor) -> Tensor:
        said = self.text_encoder(ids).last_hidden_state
        return cast(Tensor, self.unet(noisy, time, encoder_hidden_states=said, return_dict=False)[0])


@dataclass(frozen=True)
class Lesson:
    """What a step learns from: pictures (n, 3, h, w) uint8, what is told of them, and which cells figures cover, (n, 1,
    h / CELL, w / CELL); the noise (n noises, c, h / CELL, w / CELL) and the times (n noises,) that each is seen in; and
    sentences to be named, with the world of each and what it says."""

    pictures: Tensor
    told: list[str]
    figures: Tensor
    noise: Tensor
    times: Tensor
    sentences: list[str]
    said: list[tuple[str, dict[str, str]]]


@dataclass(frozen=True)
class Lessons:
    """Makes what the steps of a recipe learn from, at its own part of a batch, on a device; noise is for latents of so
    many channels, times are below `levels`."""

    recipe: Recipe
    part: tuple[int, int]  # this process among all
    where: torch.device
    channels: int
    levels: int

    def __call__(self, step: int) -> Lesson:
        recipe, places = self.recipe, batches.places(self.recipe.batch, *self.part)
        worlds = {name: WORLDS[name] for name in recipe.worlds}
        sizes = (recipe.moments, recipe.size)
        found = stills.draw(worlds, recipe.worlds, recipe.seed, step, places, *sizes, self.where)
        silent = [batches.source(recipe.seed + 1, step, place).random(recipe.moments) for place in places]
        withheld = [chance < recipe.wordless for row in silent for chance in row]
        told = ["" if hidden else said for hidden, said in zip(withheld, found.captions, strict=True)]
        cells = (1, *self._cells)
        figures = torch.zeros(len(told), *cells)
        if recipe.figures:
            figures = stills.covered(worlds, found.worlds, found.scenes, cells, found.times[:, None])
        return Lesson(found.pictures, told, figures, *self._seen(step, places), *self._sentences(step, worlds))

    @property
    def _cells(self) -> tuple[int, int]:
        side = self.recipe.size // pocket.CELL
        return side, side

    def _seen(self, step: int, places: range) -> tuple[Tensor, Tensor]:
        """Noise, and a time for each, keyed by the place of its scene; those of one picture are spread over all that
        there are."""
        recipe, shape = self.recipe, (self.channels, *self._cells)
        count = recipe.moments * recipe.noises
        e = torch.cat([noise(recipe.seed, step, place, 1, shape=(count, *shape)) for place in places])
        sources = [batches.source(recipe.seed + 2, step, place) for place in places]
        spread = times.Spread(recipe.noises, recipe.spread, recipe.middle)
        return e, torch.from_numpy(
            np.concatenate([spread.draw(rng, recipe.moments, self.levels).ravel() for rng in sources])
        )

    def _sentences(
        self, step: int, worlds: Mapping[str, ModuleType]
    ) -> tuple[list[str], list[tuple[str, dict[str, str]]]]:
        """What the text encoder names in a step, and what is right; nothing where it does not learn."""
        recipe = self.recipe
        found = []
        for place in batches.places(recipe.sentences, *self.part) if recipe.taught else ():
            rng = batches.source(recipe.seed, step, recipe.batch + place)
            name = batches.pick(rng, tuple(recipe.worlds), list(recipe.worlds.values()))
            found.append((name, stills.told(worlds[name], worlds[name].sample(rng, split="train"), rng)))
        return [text for _, text in found], [(name, stills.asked(worlds[name], text)) for name, text in found]


class Trainer(run.Trainer):
    """The network, what it names sentences with, the optimisers and the kept average."""

    recipe: Recipe

    def __init__(self, recipe: Recipe, where: torch.device, processes: run.Processes) -> None:
        self.recipe, self.where, self.processes = recipe, where, processes
        self.kind = recipe.numbers(where)
        self.worlds: dict[str, ModuleType] = {name: WORLDS[name] for name in recipe.worlds}
        self.vae = autoencoder.load(Path(recipe.autoencoder)).eval().requires_grad_(False).to(where, self.kind)
        channels_last(self.vae)
        self.tokenizer = pocket.tokenizer(stills.words(self.worlds))
        torch.manual_seed(recipe.seed)  # the same first weights in every process
        self.network = self._begun().to(where)
        self.network.text_encoder.requires_grad_(recipe.reading)
        channels_last(self.network)
        if where.type == "cpu":
            pocket.plain_attention(self.network.unet)
            self.network.text_encoder.set_attn_implementation("eager")
        self.names = Names(self.network.text_encoder.config.hidden_size, self.worlds).to(where)
        self.average = Average(self.network, recipe.average)
        self.optimisers = optimisers.of([self.network, self.names], recipe.rate)
        self.alphas = pocket.scheduler().alphas_cumprod.sqrt().to(where)
        drawn = drawing(recipe.helpers, where)
        part = processes.rank, processes.ranks
        lessons = Lessons(recipe, part, drawn, int(self.vae.config.latent_channels), len(self.alphas))
        self.lessons = Ahead(lessons, recipe.helpers, recipe.steps)
        self.velocities = torch.compile(self._velocities) if recipe.compiled else self._velocities

    def _begun(self) -> Network:
        recipe, channels = self.recipe, int(self.vae.config.latent_channels)
        unet = pocket.unet(recipe.model, channels, recipe.size // pocket.CELL)
        reader = pocket.text_encoder(recipe.model, self.tokenizer)
        if recipe.start:
            before = loading.load(Path(recipe.start), "sd", "float32", torch.device("cpu")).pipe
            if before.tokenizer.get_vocab() != self.tokenizer.get_vocab():
                raise WeightsError(f"the model in {recipe.start} knows other words than these worlds use")
            _continue(unet, before.unet)
            reader.load_state_dict(before.text_encoder.state_dict())
        return Network(unet.train(), reader.train())

    @property
    def parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        """Everything that the next step depends on, by name."""
        networks = {"network": self.network, "names": self.names, "average": self.average.model}
        return {**networks, **optimisers.numbered(self.optimisers)}

    def kept(self) -> nn.Module:
        """The averaged network."""
        return self.average.model

    def step(self, step: int) -> dict[str, float]:
        """Take step `step` (counted from 1) and return its figures."""
        run.set_rate(self.optimisers, self.recipe, step)
        lesson = self.lessons(step)
        latents, ids, figures = self._shown(lesson)
        e, time = lesson.noise.to(self.where), lesson.times.to(self.where)
        alpha = self.alphas[time][:, None, None, None]
        sigma = (1 - alpha**2).sqrt()
        said = self._said(alpha * latents + sigma * e, time, ids)
        errors = (said - (alpha * e - sigma * latents)).square()
        loss = counted(errors, alpha, self.recipe.figures * figures)
        naming = self._named(lesson, step) if self.recipe.taught else loss.new_zeros(())
        both, total = [self.network, self.names], loss + self.recipe.naming * naming
        optimisers.descend(total, self.optimisers, self.processes, both, self.network)
        self.average.follow(self.network, step)
        told = {"loss": loss, "error": errors.mean(), "naming": naming}
        return {name: float(value.detach()) for name, value in told.items()}

    def _shown(self, lesson: Lesson) -> tuple[Tensor, Tensor, Tensor]:
        """The latents of pictures, each as often as it is seen, token ids of their sentences, and which cells figures
        cover, (n, 1, h, w)."""
        latents = encoded(self.vae, pixels.signed(lesson.pictures.to(self.where)))
        parts = latents, self._ids(lesson.told), lesson.figures.to(self.where)
        latents, ids, figures = (part.repeat_interleave(self.recipe.noises, 0) for part in parts)
        return latents, ids, figures

    def _said(self, noisy: Tensor, time: Tensor, ids: Tensor) -> Tensor:
        """The network's velocities, computed with numbers of one kind; what learns stays in float32."""
        seen = noisy.to(self.kind).contiguous(memory_format=torch.channels_last)
        return self.velocities(rounded(self.network, self.kind), seen, time, ids).float()

    def _velocities(self, weights: dict[str, Tensor], noisy: Tensor, time: Tensor, ids: Tensor) -> Tensor:
        return cast(Tensor, functional_call(self.network, weights, (noisy, time, ids)))

    def _ids(self, sentences: list[str]) -> Tensor:
        return words.ids(self.tokenizer, sentences).to(self.where)

    def _named(self, lesson: Lesson, step: int) -> Tensor:
        """The text encoder's loss: the cross-entropy of naming what sentences say, summed over attributes."""
        recipe = self.recipe
        whole = self.network.text_encoder(self._ids(lesson.sentences)).pooler_output
        if recipe.start and step <= recipe.warmup:  # what names is new, and would have what is known forgotten
            whole = whole.detach()
        return self.names(whole, lesson.said)

    def _pictures(self, kept: nn.Module) -> loading.Pictures:
        network = cast(Network, kept)
        pipe = pocket.pipeline(self.vae, network.text_encoder, self.tokenizer, network.unet)
        return loading.Pictures(pipe, FAMILIES["sd"], self.where, Path(self.recipe.autoencoder))

    def draw_samples(self, path: Path, kept: nn.Module) -> None:
        """A contact sheet of the kept weights: sentences on scenes that training never sees, several times each."""
        prompts = [prompt for world in self.worlds.values() for prompt in stills.prompts(world, 7, 4, "heldout")]
        rows = drawn(self._pictures(kept), prompts, self.recipe.size, seeds=range(4), steps=12)
        media.write_contact_sheet(path, rows, prompts, scale=1)

    def save_checkpoint(self, folder: Path, kept: nn.Module, history: dict[str, Any]) -> None:
        """Write the kept model in diffusers' format with the sums of its files, and how it was made."""
        kind = torch.float16 if self.recipe.bfloat16 else torch.float32
        network = cast(Network, kept)
        pipe = pocket.pipeline(self.vae, network.text_encoder, self.tokenizer, network.unet)
        for name in ("text_encoder", "unet"):
            writing.write_part(folder / name, getattr(pipe, name), kind)
        if not (folder / "vae").exists():  # as it was trained: what encodes here may be rounded further
            writing.copy_part(Path(self.recipe.autoencoder) / "vae", folder / "vae")
        self.tokenizer.save_pretrained(folder / "tokenizer")
        pipe.scheduler.save_pretrained(folder / "scheduler")
        weights.seal(folder, folder.glob("*/*.safetensors"))
        files.write(folder / MADE, json.dumps({"recipe": asdict(self.recipe)} | history, indent=2) + "\n")
        files.write(folder / hub.INDEX, pipe.to_json_string())  # last: now it is a model


def counted(errors: Tensor, alpha: Tensor, more: Tensor) -> Tensor:
    """The mean of squared errors (n, c, h, w), in each cell so much `more` (n, 1, h, w) as the signal has a share in
    the noised latents, alpha squared (n, 1, 1, 1): none in pure noise, which does not tell yet what covers a cell."""
    return (errors * (1 + more * alpha**2)).mean()


def _continue(unet: nn.Module, before: nn.Module) -> None:
    """Give a network the weights of another; attention that the other has not begins by saying nothing. Raises
    WeightsError for a network of another shape."""
    state, known = unet.state_dict(), before.state_dict()
    lacking = {name for name in state.keys() - known.keys() if ".attentions." in name}
    for name in state.keys() | known.keys():
        shapes = [list(table[name].shape) if name in table else None for table in (known, state)]
        if name not in lacking and shapes[0] != shapes[1]:
            hint = f"{name} is {shapes[0] or 'not there'} in it, and {shapes[1] or 'not there'} in the recipe's network"
            raise WeightsError("the model to begin with is of another shape", hint=hint)
    for name in lacking:
        if ".proj_out." in name:
            state[name].zero_()
    unet.load_state_dict(state | known)


def drawn(pictures: loading.Pictures, prompts: list[str], size: int, seeds: range, steps: int) -> list[media.Frames]:
    """For each prompt one picture (h, w, 3) for each seed: (seeds, h, w, 3), with a guidance of 4."""
    wordless = pictures.words([""] * len(prompts), size, size, negative=True)
    guided = loop.guided(pictures.words(prompts, size, size), wordless, 4.0)
    denoise = loop.frames_denoiser(pictures.predict, pictures.prediction, guided)
    shape, levels = (pictures.channels, 1, size // pictures.cell, size // pictures.cell), pictures.levels(steps)
    columns = []
    for seed in seeds:
        start = torch.stack([noise(seed, index, shape=shape) for index in range(len(prompts))]).to(pictures.device)
        latents = sampling.sample(denoise, sampling.begin(start, levels[0]), levels, "dpmpp-2m")
        columns.append(pixels.to_frames(pictures.decode(latents[:, :, 0])[:, :, None])[:, 0])
    return [np.stack(row) for row in zip(*columns, strict=True)]


@torch.no_grad()
def encoded(vae: Any, pictures: Tensor) -> Tensor:
    """Latents (n, c, h, w), float32, of pictures (n, 3, h, w): as the network sees them."""
    seen = pictures.to(vae.dtype).contiguous(memory_format=torch.channels_last)
    return cast(Tensor, vae.encode(seen).latent_dist.mean.float() * vae.config.scaling_factor)


def _weights_of(part: Path) -> Path:
    found = sorted(part.glob("*.safetensors"))
    if not found:
        raise TrainingError(f"there is no autoencoder in {part}", hint="kinetograph train pocket-autoencoder makes one")
    return found[0]
