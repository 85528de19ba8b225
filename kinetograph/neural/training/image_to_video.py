"""A network learns to set pictures in motion: of the clips of the worlds some frames are known, it guesses the others.

What a step teaches is flow matching as in `training.flow`, in the latents of a model of stills; the error is measured
in the velocity. That model draws and reads: its autoencoder and its text encoder stay as they are. Which frames are
known changes from clip to clip: any single one, the first one, or some that begin the clip, so that one network
animates a picture, wherever in time it lies, and goes on with a clip.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from kinetograph import gate, hub, media, weights
from kinetograph.errors import TrainingError, UnknownName, WeightsError
from kinetograph.neural import checkpoint, flow, pixels
from kinetograph.neural.device import noise
from kinetograph.neural.models import image_to_video
from kinetograph.neural.pictures import denoiser, sharing, words
from kinetograph.neural.pictures import folder as folders
from kinetograph.neural.training import batches, clips, optimisers, run, stills, teachers
from kinetograph.neural.training.average import Average
from kinetograph.neural.training.naming import Names
from kinetograph.neural.training.pool import Pool
from kinetograph.neural.training.rounding import rounded
from kinetograph.shelf import WORLDS

KIND = "image-to-video"
MIDDLE, FIRST, ANY = 0.5, 0.2, 0.1  # how often this frame alone is known; else some that begin the clip
LEAST_FRAMES = 4  # of a clip: some are known, and some are not
CLIPS = 0  # the step of training that never comes: clips are drawn from its random sources


@dataclass(frozen=True, kw_only=True)
class Recipe(run.Recipe):
    """Everything that a run depends on. `clips` is how many different clips there are, each with a new sentence and new
    noise each time; `pool` a folder that keeps their latents (66 kB a clip of 16 frames at
    128 x 128), for the time that encoding takes."""

    worlds: dict[str, float]
    pictures: str = weights.POCKET  # the folder of a picture model in Stable Diffusion's layout, or one of the package
    model: str = "pocket"
    start: str = ""  # a checkpoint folder whose weights the run begins with, instead of chance
    clips: int = 12_000
    pool: str = ""
    frames: int = 16
    height: int = 128
    width: int = 128
    signal: tuple[float, float] = (-0.8, 1.6)  # logit of the signal's part: mean and spread
    bound: float = 0.2  # levels below count as this much in the velocity's weight
    sentences: int = 64  # in each step, beside clips: that the network names, and tells the courses of
    naming: float = 0.1  # weight of that
    head_start: int = 0  # the first steps, in which there are no clips and only what sentences say is learnt
    telling: float = 0.05  # weight of telling which cells figures cover in known frames, and how far they have gone
    shared: float = 0.8  # the share of the noise's variance that all frames have in common: see `flow.related`
    wordless: float = 0.1  # how often the sentence is withheld, for guidance
    rate: float = 1e-3
    average: float = 0.999  # decay of the weights that are kept
    pictures_sha256: str = ""

    def train(self, folder: Path, **how: Any) -> None:
        """Run this recipe in a folder: see `run.train`."""
        run.train(Trainer, self.settled(), folder, **how)

    def settled(self) -> "Recipe":
        """The recipe with its picture model found, and its sum. Raises TrainingError, UnknownName and WeightsError."""
        if self.model not in image_to_video.PRESETS:
            raise UnknownName("network", self.model, image_to_video.PRESETS)
        for name in self.worlds:
            WORLDS[name]  # raises UnknownName
        found = teachers.stable_diffusion(self.pictures, "networks that set stills in motion are made")
        predicted = gate.settings(found.path / "scheduler" / "scheduler_config.json").get("prediction_type")
        if predicted != "v_prediction":
            hint = "its network must predict velocities (v_prediction), as ours does"
            raise WeightsError(f"the network of {found.path} predicts {predicted or 'epsilon'}", hint=hint)
        blocks = gate.settings(found.path / "vae" / "config.json")["block_out_channels"]
        self._check_sizes(2 ** (len(blocks) - 1) * image_to_video.MULTIPLE)
        return replace(self, pictures=str(found.path), pictures_sha256=hub.digest(found.path))

    def _check_sizes(self, multiple: int) -> None:
        if self.clips < 1:
            raise TrainingError(f"{self.clips} clips teach nothing", hint="1 or more")
        if self.frames % image_to_video.PAIR or self.frames < LEAST_FRAMES:
            near = max(LEAST_FRAMES, self.frames + 1)
            raise TrainingError(f"clips of {self.frames} frames cannot be taught", hint=f"an even number: {near}")
        for name in ("height", "width"):
            side = getattr(self, name)
            if side % multiple or side < 1:
                near = max(1, round(side / multiple)) * multiple
                raise TrainingError(f"a {name} of {side} is no multiple of {multiple}", hint=f"nearest: {near}")


class Trainer(run.Trainer):
    """The network, its optimisers and the kept average; beside them the picture model, which learns nothing."""

    recipe: Recipe

    def __init__(self, recipe: Recipe, where: torch.device, processes: run.Processes) -> None:
        self.recipe, self.where, self.processes = recipe, where, processes
        self.kind = recipe.numbers(where)
        self.worlds: dict[str, ModuleType] = {name: WORLDS[name] for name in recipe.worlds}
        self.pictures = folders.load(Path(recipe.pictures), "sd", "float32", where)
        self.reader = self.pictures.pipe.text_encoder.requires_grad_(False)
        self.pictures.convert(self.kind)
        if where.type == "cpu":
            for network in (self.pictures.network, self.pictures.vae):
                optimisers.channels_last(network)
        torch.manual_seed(recipe.seed)  # the same first weights in every process
        sizes = image_to_video.PRESETS[recipe.model]
        told = {"latents": self.pictures.channels, "words": self.reader.config.hidden_size}
        self.config = image_to_video.Config(**told, **sizes)
        self.model = image_to_video.Model(self.config).to(where)
        self.stills = denoiser.Model.of(self.pictures.pipe).to(where).requires_grad_(False)
        self.experts = image_to_video.Experts(self.model, self.stills)
        self.autoencoder = hub.digest(Path(recipe.pictures) / "vae")
        self.before = self._begin_with(recipe.start) if recipe.start else {}
        self.names = Names(self.config.whole, self.worlds).to(where)
        self.average = Average(self.model, recipe.average)
        self.optimisers = optimisers.of([self.model, self.names], recipe.rate)
        self.pool = self._pool() if recipe.pool else None

    def _begin_with(self, start: str) -> dict[str, Any]:
        """Take the weights of a checkpoint, and return what is to be told of them. Raises WeightsError."""
        folder = weights.locate(start)
        found = weights.configuration(folder, KIND)
        if found.get("autoencoder", self.autoencoder) != self.autoencoder:
            hint = "its latents are of another autoencoder"
            raise WeightsError(f"the checkpoint in {folder} belongs to another picture model", hint=hint)
        return {"before": run.summary(found, checkpoint.load_model(folder, self.model))}

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape (c, t, h, w) of a clip's latents."""
        recipe, cell = self.recipe, self.pictures.cell
        return self.pictures.channels, recipe.frames, recipe.height // cell, recipe.width // cell

    def _pool(self) -> Pool:
        recipe = self.recipe
        made_by: dict[str, Any] = {name: getattr(recipe, name) for name in ("seed", "height", "width")}
        made_by |= {"worlds": [*recipe.worlds.items()], "autoencoder": self.autoencoder}
        return Pool(Path(recipe.pool), recipe.clips, self.shape, made_by)

    @property
    def parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        """Everything that the next step depends on, by name."""
        networks = {"model": self.model, "names": self.names, "average": self.average.model}
        return {**networks, **optimisers.numbered(self.optimisers)}

    def kept(self) -> nn.Module:
        """The averaged network."""
        return self.average.model

    def step(self, step: int) -> dict[str, float]:
        """Take step `step` (counted from 1) and return its figures."""
        run.set_rate(self.optimisers, self.recipe, step)
        recipe, told = self.recipe, self._listened(step)
        total = recipe.naming * told["naming"] + recipe.telling * told["courses"]
        if step > recipe.head_start:
            told |= self.error(self.model, step)
            total = total + told["loss"] + recipe.telling * (told["figures"] + told["ways"])
        optimisers.descend(total, self.optimisers, self.processes, [self.model, self.names], self.model)
        self.average.follow(self.model, step)
        return {name: float(value.detach()) for name, value in told.items()}

    def error(self, network: nn.Module, step: int) -> dict[str, Tensor]:
        """How wrong the network is about the unknown frames of a step: in the velocity (`loss`), in the frames
        (`error`), in which cells of known ones belong to `figures`, and in the `ways` that these went, in cells."""
        recipe = self.recipe
        places = batches.places(recipe.batch, self.processes.rank, self.processes.ranks)
        numbers, captions, levels = zip(*(self._asked(step, place) for place in places), strict=True)
        clean, level = self.latents(list(numbers)), torch.tensor(np.stack(levels), device=self.where)
        e = torch.stack([self._noise(recipe.seed, step, place) for place in places]).to(self.where)
        s = level[:, None, :, None, None]
        guess = self._guess(network, (1 - s) * clean + s * e, level, list(captions))
        error = (guess.clean - clean).square().mean(dim=(1, 3, 4))  # (b, t)
        unknown = level > 0
        counted = error / level.clamp(min=recipe.bound).square()
        told = {"loss": counted[unknown].mean(), "error": error[unknown].mean()}
        return told | self._layers(guess, list(numbers), image_to_video.nearest(level == 0))

    def _layers(self, guess: image_to_video.Guess, numbers: list[int], near: Tensor) -> dict[str, Tensor]:
        """How wrong a guess is about figures and their ways; of each clip only the middle of all figures is known."""
        names, scenes = zip(*map(self.scene, numbers), strict=True)
        before, gone = self._gone(names, scenes, near)
        ways = (guess.ways * before[:, None]).sum((3, 4)) / before.sum((2, 3)).clamp(min=1)[:, None]
        figures = F.binary_cross_entropy_with_logits(guess.figures, before)
        return {"figures": figures, "ways": strayed(ways.transpose(1, 2), gone)}

    def _gone(self, names: Sequence[str], scenes: Sequence[Any], near: Tensor) -> tuple[Tensor, Tensor]:
        """Of scenes the cells (b, t, h, w) that figures cover in the known frame that is nearest to each frame, and how
        far their middle has gone since, (b, t, 2): no number where nothing is seen."""
        covered = stills.covered(self.worlds, names, scenes, self.shape[1:]).to(self.where)
        before = covered.gather(1, near[:, :, None, None].expand_as(covered))
        return before, middles(covered) - middles(before)

    def _listened(self, step: int) -> dict[str, Tensor]:
        """How wrong the network is about sentences alone: in `naming` what they say, their motions too, and in the
        `courses` of what they tell of."""
        recipe = self.recipe
        places = batches.places(recipe.sentences, self.processes.rank, self.processes.ranks)
        sources = [batches.source(recipe.seed, step, recipe.batch + place) for place in places]
        names, scenes, captions = zip(
            *(clips.describe(rng, self.worlds, recipe.worlds) for rng in sources), strict=True
        )
        with torch.no_grad():
            words = self.reader(self.ids(list(captions))).last_hidden_state
        whole = self.model.listen(words)
        said = [(name, stills.asked(self.worlds[name], text)) for name, text in zip(names, captions, strict=True)]
        level = torch.ones(len(places), recipe.frames, device=self.where)
        level[:, image_to_video.middle(recipe.frames)] = 0.0
        near = image_to_video.nearest(level == 0)
        _, gone = self._gone(names, scenes, near)
        courses = strayed(self.model.courses(whole, near, level), gone)
        return {"naming": self.names(whole, said), "courses": courses}

    def _noise(self, *path: int) -> Tensor:
        """Noise (c, t, h, w) for a clip, of which the frames have a share in common."""
        channels, frames, *cells = self.shape
        common = noise(*path, 0, shape=(channels, 1, *cells))
        return flow.related(common, noise(*path, 1, shape=(channels, frames, *cells)), self.recipe.shared)

    def _asked(self, step: int, place: int) -> tuple[int, str, np.ndarray]:
        """The number of a clip, what is said of it, and the noise of its frames."""
        recipe, rng = self.recipe, batches.source(self.recipe.seed, step, place)
        number = int(rng.integers(recipe.clips))
        name, scene = self.scene(number)
        caption = self.worlds[name].caption(scene, rng)
        return number, caption if rng.random() >= recipe.wordless else "", level(rng, recipe.frames, recipe.signal)

    def scene(self, number: int) -> tuple[str, Any]:
        """The world's name and the scene of one of the clips."""
        rng = batches.source(self.recipe.seed, CLIPS, number)
        return clips.describe(rng, self.worlds, self.recipe.worlds)[:2]

    def latents(self, numbers: list[int]) -> Tensor:
        """Latents (n, c, t, h, w) of clips by their numbers."""
        found = self.pool.take(numbers, self._encoded) if self.pool else self._encoded(numbers)
        return found.to(self.where)

    def _encoded(self, numbers: list[int]) -> Tensor:
        """The same, drawn and encoded."""
        recipe = self.recipe
        rows = []
        for name, scene in map(self.scene, numbers):
            size = recipe.frames, recipe.height, recipe.width
            clip = self.worlds[name].draw([scene], *size, xp=torch, device=self.where)
            frames = pixels.to_model(clip)[0].transpose(0, 1).contiguous(memory_format=torch.channels_last)
            rows.append(self.pictures.encode(frames, chunk=64).transpose(0, 1))
        return torch.stack(rows)

    def _guess(self, network: nn.Module, noisy: Tensor, level: Tensor, captions: list[str]) -> image_to_video.Guess:
        """The network's guess, computed with numbers of one kind; what learns stays in float32."""
        noisy = noisy.to(self.kind)
        with torch.no_grad():
            said = self.reader(self.ids(captions))
            states = said.last_hidden_state.to(self.kind)
            drawn = self.experts.drawn(noisy, level, states)
        told = noisy, level, states, drawn
        guess = functional_call(network, rounded(network, self.kind), told)
        return image_to_video.Guess(*(part.float() for part in guess))

    def ids(self, prompts: list[str]) -> Tensor:
        """Token ids (b, l) of prompts."""
        return words.ids(self.pictures.pipe.tokenizer, prompts).to(self.where)

    def draw_samples(self, path: Path, kept: nn.Module, count: int = 2) -> None:
        """A contact sheet on held-out scenes of each world, always the same ones: their middle frames set in motion."""
        recipe, middle = self.recipe, image_to_video.middle(self.recipe.frames)
        shown, prompts = [], []
        for world in self.worlds.values():
            rng = batches.source(7, 0, 0)
            scenes = [world.sample(rng, split="heldout") for _ in range(count)]
            prompts += [world.caption(scene, rng, {}) for scene in scenes]
            size = recipe.frames, recipe.height, recipe.width
            shown.append(pixels.to_model(world.draw(scenes, *size, xp=torch, device=self.where)))
        pictures = torch.cat(shown)[:, :, middle]
        known = self.pictures.encode(pictures)[:, :, None]
        model = image_to_video.Experts(cast(image_to_video.Model, kept), self.stills)
        ids = self.ids([*prompts, ""])
        e = torch.stack([self._noise(7, i) for i in range(len(prompts))]).to(self.where)
        settings = flow.Settings(steps=12, shift=2.0, guidance=2.0)
        with torch.no_grad():
            drawn = flow.sample(model, ids[:-1], ids[-1:], e, settings, known=flow.Known(known, middle))
        decoded = self.pictures.decode(drawn.transpose(1, 2).flatten(0, 1), chunk=8).unflatten(0, (len(prompts), -1))
        frames = pixels.to_frames(decoded.transpose(1, 2))[:, :: max(1, recipe.frames // 8)]
        media.write_contact_sheet(path, list(frames), prompts)

    def save_checkpoint(self, folder: Path, kept: nn.Module, history: dict[str, Any]) -> None:
        """Write the kept network as a checkpoint folder that says which picture model it belongs to."""
        source, recipe = Path(self.recipe.pictures), self.recipe
        named = {"pictures": source.name, "start": Path(recipe.start).name, "pool": Path(recipe.pool).name}
        told: dict[str, Any] = {"kind": KIND, "worlds": list(self.worlds), "config": asdict(self.config)}
        told |= {"autoencoder": self.autoencoder}
        told |= {"multiple": self.pictures.cell * image_to_video.MULTIPLE, "recipe": asdict(recipe) | named}
        kind = torch.float16 if recipe.bfloat16 else torch.float32
        checkpoint.save_model(folder, kept, told | history | self.before, kind)
        sharing.note(folder, source, list(hub.parts(gate.settings(source / gate.INDEX))))


def strayed(ways: Tensor, gone: Tensor) -> Tensor:
    """How far ways (b, t, 2) are from what was gone, where that is a number: squared below a cell, then as it is."""
    seen = gone.isfinite()
    return F.smooth_l1_loss(ways, gone.nan_to_num(), reduction="none")[seen].sum() / seen.sum().clamp(min=1)


def middles(covered: Tensor) -> Tensor:
    """The middle of what is covered in frames (b, t, h, w), in cells from the left and the top: (b, t, 2), not a number
    where nothing is."""
    rows, columns = (torch.arange(n, dtype=covered.dtype, device=covered.device) for n in covered.shape[2:])
    total = covered.sum((2, 3))
    found = [(covered.sum(2) * columns).sum(2), (covered.sum(3) * rows).sum(2)]
    return torch.stack(found, dim=2) / total[:, :, None]


def level(rng: np.random.Generator, frames: int, signal: tuple[float, float]) -> np.ndarray:
    """The noise level of each frame (t,): one for all, but 0 for those that are known."""
    mean, spread = signal
    levels = np.full(frames, 1 / (1 + math.exp(mean + spread * rng.standard_normal())), np.float32)
    way = rng.random()
    if way < MIDDLE:
        levels[image_to_video.middle(frames)] = 0.0
    elif way < MIDDLE + FIRST:
        levels[0] = 0.0
    elif way < MIDDLE + FIRST + ANY:
        levels[rng.integers(frames)] = 0.0
    else:
        levels[: rng.integers(2, max(3, frames // 4 + 1))] = 0.0
    return levels
