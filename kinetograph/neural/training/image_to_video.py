"""A network learns to set pictures in motion: to take stills of the worlds apart into layers, and to tell from
sentences where their layers go.

Worlds know the layers of their scenes, their mattes, what is behind them and their courses (`kinetograph.layers`), so
both are taught outright, the courses by flow matching as in `training.flow`. No clip is drawn or encoded: a step sees
many sentences, and a still for some of them. Everything is keyed by (seed, step, place in the whole batch), however
many processes share it.

Most stills that are not given the model that is to be set in motion draws anew, out of as much noise as leaves things
in their places (SDEdit, Meng et al. 2022): outlines come out of it ragged, as they are in what it draws from nothing,
and the network learns what they should have been.

In most scenes no frame is given: the still may be of any moment, and only what it shows is told, not where; in the
others the first frames are, and the still is the last of them. Some layers are told to face the other way than they do,
for stills do not always look where sentences go: the network learns to turn them.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kinetograph import gate, hub, layers, media, weights
from kinetograph.errors import TrainingError, UnknownName, WeightsError
from kinetograph.motions import times
from kinetograph.neural import animating, checkpoint, flow, pixels, sampling
from kinetograph.neural import layers as sheets
from kinetograph.neural.device import noise
from kinetograph.neural.models import image_to_video, text
from kinetograph.neural.pictures import denoiser, sharing, words
from kinetograph.neural.pictures import folder as folders
from kinetograph.neural.training import batches, optimisers, run, stills, teachers
from kinetograph.neural.training.average import Average
from kinetograph.neural.training.naming import Names
from kinetograph.shelf import WORLDS

KIND = "image-to-video"
LEAST_FRAMES = 4  # of a clip
MULTIPLE = 2**image_to_video.HALVINGS  # of pixels, for heights and widths
LOOKS = 0  # the step of training that never comes: what is looked at before
SMALL = 64  # pixels: where layers are only measured
UNSURE, STRAYS = 0.03, 0.004  # spreads: of what is measured of sizes and opacity, and of places in sides
BLURRED, SPECKLED = 1.2, 0.03  # at most, of stills: pixels (one standard deviation) and a part of their range
DOWN, LATE = 10, (6, 7, 8)  # steps down from noise; stills are drawn anew from one of these on: 84, 77 or 67 % noise


@dataclass(frozen=True, kw_only=True)
class Recipe(run.Recipe):
    """Everything that a run depends on. `batch` counts sentences, `stills` the pictures among what they tell of."""

    worlds: dict[str, float]
    pictures: str = weights.POCKET  # the folder of a picture model in Stable Diffusion's layout, or one of the package
    model: str = "pocket"
    start: str = ""  # a checkpoint folder whose weights the run begins with, instead of chance
    stills: int = 12
    frames: int = 16
    height: int = 128
    width: int = 128
    signal: tuple[float, float] = (-0.3, 1.5)  # logit of the signal's part: mean and spread
    bound: float = 0.1  # levels below count as this much in the velocity's weight
    given: float = 0.4  # how often the first frames are
    turned: tuple[float, float] = (0.5, 0.25)  # how often a layer is told to face the other way: free, and given
    noises: int = 4  # that each scene is seen behind in a step
    redrawn: float = 0.75  # how often the model of stills draws one anew that is not given
    wordless: float = 0.1  # how often the sentence is withheld, for guidance
    looks: int = 2_000  # scenes that are looked at before the first step
    naming: float = 0.2  # weight of naming what sentences say
    head_start: int = 0  # the first steps, in which nothing else is learnt
    rate: float = 3e-3
    average: float = 0.998  # decay of the weights that are kept
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
        self._check_sizes()
        return replace(self, pictures=str(found.path), pictures_sha256=hub.digest(found.path))

    def _check_sizes(self) -> None:
        if not 1 <= self.stills <= self.batch:
            hint = f"1 to {self.batch}, the sentences of a step"
            raise TrainingError(f"{self.stills} stills cannot be taught in a step", hint=hint)
        if self.frames < LEAST_FRAMES:
            raise TrainingError(f"clips of {self.frames} frames cannot be taught", hint=f"{LEAST_FRAMES} or more")
        for name in ("height", "width"):
            side = getattr(self, name)
            if side % MULTIPLE or side < 1:
                near = max(1, round(side / MULTIPLE)) * MULTIPLE
                raise TrainingError(f"a {name} of {side} is no multiple of {MULTIPLE}", hint=f"nearest: {near}")


class Scenes(NamedTuple):
    """The scenes of a step: the world of each, what is to be read of it, and its still's moment; which of its first
    frames are given (b, t), and where its layers are said to face (b, layers); and by which chance all else is
    drawn."""

    worlds: list[str]
    scenes: list[Any]
    captions: list[str]
    moments: np.ndarray
    given: np.ndarray
    turned: np.ndarray
    chances: list[np.random.Generator]


class Trainer(run.Trainer):
    """The network, its optimisers and the kept average."""

    recipe: Recipe

    def __init__(self, recipe: Recipe, where: torch.device, processes: run.Processes) -> None:
        self.recipe, self.where, self.processes = recipe, where, processes
        self.worlds: dict[str, ModuleType] = {name: WORLDS[name] for name in recipe.worlds}
        self.pictures = folders.load(Path(recipe.pictures), "sd", "float32", where)
        self.tokenizer = self.pictures.pipe.tokenizer
        self.drawing = denoiser.Model.of(self.pictures.pipe).to(where).requires_grad_(False)
        torch.manual_seed(recipe.seed)  # the same first weights in every process
        known = {"tokens": len(self.tokenizer), "end": self.tokenizer.eos_token_id}
        sizes = image_to_video.PRESETS[recipe.model] | {"length": self.tokenizer.model_max_length}
        self.config = image_to_video.Config(frames=recipe.frames, **known, **sizes)
        self.model = image_to_video.Model(self.config).to(where)
        optimisers.channels_last(self.model)
        self.names = Names(self.config.width, self.worlds).to(where)
        self.before = self._begin_with(recipe.start) if recipe.start else self._look()
        self.average = Average(self.model, recipe.average)
        self.optimisers = optimisers.of([self.model, self.names], recipe.rate)

    def _begin_with(self, start: str) -> dict[str, Any]:
        """Take the weights of a checkpoint, and return what is to be told of them. Raises WeightsError."""
        folder = weights.locate(start)
        found = weights.configuration(folder, KIND)
        with weights.understood(folder):
            config = image_to_video.Config.of(found["config"])
        if config != self.config:
            raise WeightsError(f"the checkpoint in {folder} is of other sizes", hint="start with one of the same")
        return {"before": run.summary(found, checkpoint.load_model(folder, self.model))}

    def _look(self) -> dict[str, Any]:
        """Let the network see how courses differ, before it learns; there is nothing to be told of that."""
        steps, _, there = self.truth(self.asked(LOOKS, range(self.recipe.looks)))
        self.model.courses.look_at(self.model.courses.whitened(steps), there)
        self.processes.take_from_first(self.model.courses.components.buffers())
        return {}

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
        recipe, processes = self.recipe, self.processes
        places = batches.places(recipe.batch, processes.rank, processes.ranks)
        shown = len(batches.places(recipe.stills, processes.rank, processes.ranks))
        asked = self.asked(step, places)
        told = self.error(asked, shown) if step > recipe.head_start else self._named(asked)[1]
        total = torch.stack([value * (recipe.naming if name == "naming" else 1) for name, value in told.items()]).sum()
        optimisers.descend(total, self.optimisers, processes, [self.model, self.names], self.model)
        self.average.follow(self.model, step)
        return {name: float(value.detach()) for name, value in told.items()}

    # --- what is asked ---

    def asked(self, step: int, places: Sequence[int], split: str = "train") -> Scenes:
        """The scenes at these places of the batch of a step."""
        rows = [self._scene(batches.source(self.recipe.seed, step, place), split) for place in places]
        names, scenes, captions, moments, given, turned, chances = zip(*rows, strict=True)
        decided = np.array(moments), np.stack(given), np.stack(turned)
        return Scenes([*names], [*scenes], [*captions], *decided, [*chances])

    def _scene(self, rng: np.random.Generator, split: str) -> tuple[Any, ...]:
        recipe = self.recipe
        name = batches.pick(rng, tuple(self.worlds), list(recipe.worlds.values()))
        world = self.worlds[name]
        scene = world.sample(rng, split=split)
        caption = world.caption(scene, rng) if rng.random() >= recipe.wordless else ""
        given, moment = np.zeros(recipe.frames, bool), float(rng.random())
        if rng.random() < recipe.given:
            last = int(rng.integers(animating.MOST_GIVEN))
            given[: last + 1] = True
            moment = float(times(recipe.frames)[last])
        often = recipe.turned[int(given.any())] if "direction" in world.ATTRIBUTES else 0.0
        turned = np.where(rng.random(len(layers.LAYERS)) < often, -1.0, 1.0)
        turned[list(layers.SHADOWS)] = 1.0
        return name, scene, caption, moment, given, turned, rng

    # --- how wrong the network is ---

    def error(self, asked: Scenes, shown: int) -> dict[str, Tensor]:
        """How wrong the network is about scenes: in `naming` what sentences say, about the `courses` of layers (in the
        velocity), and in the first `shown` about the `mattes` of stills, the `colours` of their layers, and where these
        are `facing`."""
        said, told = self._named(asked)
        told |= {"courses": self.courses_error(self.model.courses, self.truth(asked), asked, said)}
        if not shown:  # of few stills, others have them all
            return told | dict.fromkeys(("mattes", "colours", "facing"), torch.zeros((), device=self.where))
        return told | self._matting(self.model.matting, self._stills(asked, shown), said.rows(slice(shown)))

    def _named(self, asked: Scenes) -> tuple[text.Text, dict[str, Tensor]]:
        said = self.model.read(self.ids(asked.captions))
        pairs = zip(asked.worlds, asked.captions, strict=True)
        named = [(name, stills.asked(self.worlds[name], caption)) for name, caption in pairs]
        return said, {"naming": self.names(said.whole, named)}

    def courses_error(
        self,
        network: image_to_video.Courses,
        truth: tuple[Tensor, sheets.Known, Tensor],
        asked: Scenes,
        said: text.Text,
    ) -> Tensor:
        """How wrong a network is about the courses of scenes of which that is the `truth`, in the velocity."""
        recipe = self.recipe
        clean, known, there = truth
        rows = torch.arange(len(clean), device=self.where).repeat_interleave(recipe.noises)
        mean, spread = recipe.signal
        level = torch.sigmoid(-mean - spread * self._normal(asked, recipe.noises)).flatten()
        e = self._normal(asked, recipe.noises, *clean.shape[1:]).flatten(0, 1)
        clean, there, known = network.whitened(clean)[rows], there[rows], sheets.Known(*(part[rows] for part in known))
        s = level[:, None, None, None]
        guess = network((1 - s) * clean + s * e, level, said.rows(rows), known)
        error = (guess - clean).square() / s.clamp(min=recipe.bound).square()
        counted = there[:, :, None, None].expand_as(error).float()
        return (error * counted).sum() / counted.sum().clamp(min=1)

    def truth(self, asked: Scenes) -> tuple[Tensor, sheets.Known, Tensor]:
        """The true steps (b, layers, t, steps) of scenes, what is known of them, and which layers are there."""
        frames = self.recipe.frames
        even = np.tile(times(frames), (len(asked.scenes), 1))
        courses = self._tensor(self._of_worlds(asked, "courses", even))
        then = self._tensor(self._of_worlds(asked, "courses", asked.moments[:, None]))[:, :, 0]
        seen = sheets.measured(self._visible(asked, asked.moments[:, None], SMALL)[:, :, 0])
        middles = self._middles(asked, even)
        facing = then[..., layers.FACING].nan_to_num(1.0).sign() * self._tensor(asked.turned)
        steps = sheets.steps(courses, then, seen.middles, facing).nan_to_num()
        there = seen.there & then[..., layers.X].isfinite()
        # what is measured of pictures that a network took apart is not exact
        sizes, opacity = (part + UNSURE * self._normal(asked, part.shape[1]) for part in (seen.sizes, seen.opacity))
        seen = seen._replace(there=there, sizes=sizes, opacity=opacity.clamp(0, 1))
        middles = middles + STRAYS * self._normal(asked, *middles.shape[1:])
        return steps, sheets.known(seen, facing, torch.from_numpy(asked.given).to(self.where), middles), there

    def _middles(self, asked: Scenes, even: np.ndarray) -> Tensor:
        """Where the middles of layers are to be seen (b, layers, t, 2) in the first of even frames (b, t), those that
        may be given; nothing is looked at where none are."""
        middles = torch.zeros(len(asked.scenes), len(layers.LAYERS), even.shape[1], 2, device=self.where)
        rows = np.flatnonzero(asked.given.any(1))
        if len(rows):
            shown = self._visible(_some(asked, rows), even[rows, : animating.MOST_GIVEN], SMALL)
            for i in range(shown.shape[2]):
                middles[torch.from_numpy(rows), :, i] = sheets.measured(shown[:, :, i]).middles
        return middles

    def _normal(self, asked: Scenes, *shape: int) -> Tensor:
        """Normal noise (b, *shape), by the chance of each scene."""
        return self._tensor(np.stack([rng.standard_normal(shape) for rng in asked.chances]))

    def _stills(self, asked: Scenes, shown: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Stills (n, 3, h, w) of the first scenes, as what a network draws may be; their mattes as far as they are to
        be seen, what colours layers have, and where they face (n, layers), 0 where none is."""
        recipe, some = self.recipe, _some(asked, range(shown))
        pictures, behind = (self._drawn(some, how) for how in ("draw", "behind"))
        mattes = self._visible(some, some.moments[:, None], (recipe.height, recipe.width))[:, :, 0]
        faces = self._tensor(self._of_worlds(some, "courses", some.moments[:, None]))[:, :, 0, layers.FACING]
        there = sheets.measured(mattes).there
        colours = sheets.coloured(pictures, mattes, behind)
        worn = self._worn(self._redrawn(pictures, some), some.chances)
        return worn, mattes, colours, torch.where(there, faces.nan_to_num().sign(), 0)

    def _matting(
        self,
        network: image_to_video.Matting,
        shown: tuple[Tensor, Tensor, Tensor, Tensor],
        said: text.Text,
    ) -> dict[str, Tensor]:
        pictures, mattes, colours, faces = shown
        with self.recipe.autocast(self.where):  # courses stay in float32, where a thousandth is to be seen
            found = image_to_video.Found(*(part.float() for part in network(pictures, said)))
        right = F.binary_cross_entropy_with_logits(found.facing, (faces > 0).float(), reduction="none")
        counted = (faces != 0).float()
        counted[:, layers.SHADOWS] = 0
        cover = mattes.sum(1, keepdim=True)
        return {
            "mattes": 10 * F.binary_cross_entropy_with_logits(found.mattes, mattes),
            "colours": ((pictures + found.lack - colours).abs() * cover).sum() / (3 * cover.sum()).clamp(min=1),
            "facing": 0.2 * (right * counted).sum() / counted.sum().clamp(min=1),
        }

    def _drawn(self, asked: Scenes, how: str) -> Tensor:
        """The stills of scenes as their worlds draw them, or what is behind in them, (n, 3, h, w)."""
        size = 1, self.recipe.height, self.recipe.width
        found = torch.empty(len(asked.scenes), 3, *size[1:], device=self.where)
        for world, rows in _by_world(asked):
            draw = getattr(self.worlds[world], how)
            some = [asked.scenes[i] for i in rows]
            frames = draw(some, *size, xp=torch, device=self.where, moments=asked.moments[rows, None])
            found[rows] = pixels.to_model(frames)[:, :, 0]
        return found

    def _of_worlds(self, asked: Scenes, what: str, moments: np.ndarray) -> np.ndarray:
        """What worlds say of their scenes at moments (b, t)."""
        found: dict[int, np.ndarray] = {}
        for world, rows in _by_world(asked):
            told = getattr(self.worlds[world], what)([asked.scenes[i] for i in rows], moments[rows])
            found |= dict(zip(rows, told, strict=True))
        return np.stack([found[i] for i in range(len(asked.scenes))])

    def _visible(self, asked: Scenes, moments: np.ndarray, size: int | tuple[int, int]) -> Tensor:
        """Mattes (b, layers, t, h, w) of scenes at moments (b, t), as far as each is to be seen."""
        height, width = (size, size) if isinstance(size, int) else size
        count = moments.shape[1]
        found = torch.empty(len(asked.scenes), len(layers.LAYERS), count, height, width, device=self.where)
        order = self._of_worlds(asked, "courses", moments[:, :1])[:, :, 0, layers.ORDER]
        for world, rows in _by_world(asked):
            some, at = [asked.scenes[i] for i in rows], moments[rows]
            mattes = self.worlds[world].mattes(some, count, height, width, xp=torch, device=self.where, moments=at)
            found[rows] = torch.from_numpy(layers.visible(mattes.cpu().numpy(), order[rows])).to(self.where)
        return found

    def _redrawn(self, pictures: Tensor, asked: Scenes) -> Tensor:
        """Pictures, most of those that are not given as the model of stills draws them for the sentence, out of noise
        in which things keep their places; one by one, so that none depends on how many there are."""
        down = sampling.schedule("flow", DOWN, shift=flow.Settings().shift)
        found = pictures.clone()
        rows = zip(found, asked.captions, asked.given, asked.chances, strict=True)
        for picture, caption, given, rng in rows:
            if caption and not given.any() and rng.random() < self.recipe.redrawn:
                levels = down[int(rng.choice(LATE)) :]
                latents = self.pictures.encode(picture[None])[:, :, None]
                noisy = sampling.noised(latents, self._tensor(rng.standard_normal(latents.shape)), levels[0])
                ids = self.ids([caption])
                drawn = sampling.sample(flow.denoiser(self.drawing, ids), noisy, levels, "dpmpp-2m")
                picture.copy_(self.pictures.decode(drawn[:, :, 0])[0])
        return found

    def _worn(self, pictures: Tensor, chances: Sequence[np.random.Generator]) -> Tensor:
        """Pictures, half of them blurred and half with specks."""
        for picture, rng in zip(pictures, chances, strict=True):
            if rng.random() < 0.5:
                picture.copy_(_blurred(picture, BLURRED * rng.random()))
            if rng.random() < 0.5:
                specks = self._tensor(rng.standard_normal(picture.shape))
                picture.add_(2 * SPECKLED * rng.random() * specks).clamp_(-1, 1)
        return pictures.contiguous(memory_format=torch.channels_last)

    def _tensor(self, values: Any) -> Tensor:
        return torch.as_tensor(np.asarray(values), dtype=torch.float32, device=self.where)

    def ids(self, captions: list[str]) -> Tensor:
        """Token ids (b, l) of sentences, as the model of stills is told them."""
        return words.ids(self.tokenizer, captions).to(self.where)

    # --- what is kept ---

    def draw_samples(self, path: Path, kept: nn.Module, count: int = 2) -> None:
        """A contact sheet on held-out scenes of each world, always the same ones: stills of theirs set in motion."""
        recipe, model = self.recipe, cast(image_to_video.Model, kept)
        rows, prompts = [], []
        for name, world in self.worlds.items():
            rng = batches.source(7, 0, 0)
            scenes = [world.sample(rng, split="heldout") for _ in range(count)]
            prompts += [world.caption(scene, rng, {}) for scene in scenes]
            nothing = np.zeros((count, recipe.frames), bool), np.ones((count, len(layers.LAYERS)))
            rows.append(self._drawn(Scenes([name] * count, scenes, [], np.full(count, 0.5), *nothing, []), "draw"))
        ids = self.ids([*prompts, ""])
        drawn = []
        with torch.no_grad():
            for i, still in enumerate(torch.cat(rows)):
                staged = animating.staged(model, still[None], ids[[i, -1]], recipe.frames, given=False)
                e = noise(7, i, shape=(1, len(layers.LAYERS), recipe.frames, len(sheets.STEPS)))
                drawn.append(staged.clip(staged.sample(e.to(self.where), animating.Settings())))
        frames = pixels.to_frames(torch.cat(drawn))[:, :: max(1, recipe.frames // 8)]
        media.write_contact_sheet(path, list(frames), prompts)

    def save_checkpoint(self, folder: Path, kept: nn.Module, history: dict[str, Any]) -> None:
        """Write the kept network as a checkpoint folder that says which picture model it belongs to."""
        source, recipe = Path(self.recipe.pictures), self.recipe
        named = {"pictures": source.name, "start": Path(recipe.start).name}
        told: dict[str, Any] = {"kind": KIND, "worlds": list(self.worlds), "config": asdict(self.config)}
        told |= {"multiple": MULTIPLE, "recipe": asdict(recipe) | named}
        checkpoint.save_model(folder, kept, told | history | self.before, torch.float16)
        sharing.note(folder, source, list(hub.parts(gate.settings(source / gate.INDEX))))


def _some(asked: Scenes, rows: Sequence[int] | np.ndarray) -> Scenes:
    """Some of the scenes, by their numbers."""
    return Scenes._make(part[rows] if isinstance(part, np.ndarray) else [part[i] for i in rows] for part in asked)


def _by_world(asked: Scenes) -> list[tuple[str, list[int]]]:
    """The worlds of scenes, with the numbers of the scenes of each."""
    return [
        (name, [i for i, other in enumerate(asked.worlds) if other == name]) for name in dict.fromkeys(asked.worlds)
    ]


def _blurred(picture: Tensor, spread: float) -> Tensor:
    """A picture (3, h, w) blurred by so many pixels."""
    if spread < 0.1:
        return picture
    x = torch.arange(-3, 4, device=picture.device) / spread
    bell = torch.softmax(-x.square() / 2, dim=0)
    rows = bell[None, None, :, None].expand(3, 1, -1, 1)
    padded = F.pad(picture[None], (3, 3, 3, 3), mode="replicate")
    return F.conv2d(F.conv2d(padded, rows, groups=3), rows.transpose(2, 3), groups=3)[0]
