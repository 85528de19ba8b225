"""A network learns to make clips in layers: to draw the layers of the worlds' scenes from sentences, to tell where they
go, and to find them in pictures.

Worlds know the layers of their scenes, how they look, their mattes, what is behind them and their courses
(`kinetograph.layers`), so all is taught outright, the courses by flow matching as in `training.flow`. No clip is drawn:
a step sees many sentences, and pictures of a moment for some of them. Everything is keyed by (seed, step, place in the
whole batch), however many processes share it.

In most scenes no frame is given: the layers may be drawn at any moment, and only what they look like is told, not
where; in the others the first frames are, and the still is the last of them. Some layers are told to face the other way
than they do, for pictures do not always look where sentences go: the network learns to turn them.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kinetograph import layers, media, weights
from kinetograph.errors import TrainingError, UnknownName, WeightsError
from kinetograph.motions import times
from kinetograph.neural import animating, checkpoint, pixels
from kinetograph.neural import layers as sheets
from kinetograph.neural.device import channels_last, noise
from kinetograph.neural.models import layered, painting, text
from kinetograph.neural.training import batches, drawings, optimisers, run, stills, stirring
from kinetograph.neural.training.average import Average
from kinetograph.neural.training.naming import Names
from kinetograph.shelf import WORLDS

KIND = "layered"
LEAST_FRAMES = 4  # of a clip
MULTIPLE = 2**layered.HALVINGS  # of pixels, for heights and widths
LOOKS = 0  # the step of training that never comes: what is looked at before
SMALL = 64  # pixels: where layers are only measured
UNSURE, STRAYS = 0.03, 0.004  # spreads: of what is measured of sizes and opacity, and of places in sides
BLURRED, SPECKLED = 1.2, 0.03  # at most, of stills: pixels (one standard deviation) and a part of their range
FINE = 192  # pixels: where layers are cut out
SHADOWED = 0.15  # how often a shadow is drawn: they are all alike


@dataclass(frozen=True, kw_only=True)
class Recipe(run.Recipe):
    """Everything that a run depends on. `batch` counts sentences, `drawings` the scenes among them whose layers are
    drawn in a step, and `stills` those in whose pictures they are found."""

    worlds: dict[str, float]
    model: str = "pocket"
    start: str = ""  # a checkpoint folder whose weights the run begins with, instead of chance
    drawings: int = 48
    stills: int = 6
    frames: int = 16
    height: int = 128
    width: int = 128
    signal: tuple[float, float] = (-0.3, 1.5)  # logit of the signal's part: mean and spread
    bound: float = 0.1  # levels below count as this much in the velocity's weight
    given: float = 0.4  # how often the first frames are
    turned: tuple[float, float] = (0.5, 0.25)  # how often a layer is told to face the other way: free, and given
    noises: int = 4  # that each scene is seen behind in a step
    stirred: float = 0.4  # how often a caption is told in other words (`training.stirring`)
    wordless: float = 0.1  # how often the sentence is withheld, for guidance
    looks: int = 2_000  # scenes that are looked at before the first step
    naming: float = 0.2  # weight of naming what sentences say
    head_start: int = 0  # the first steps, in which nothing else is learnt
    rate: float = 3e-3
    average: float = 0.998  # decay of the weights that are kept

    def train(self, folder: Path, **how: Any) -> None:
        """Run this recipe in a folder: see `run.train`."""
        run.train(Trainer, self.settled(), folder, **how)

    def settled(self) -> "Recipe":
        """The recipe, as it is. Raises TrainingError and UnknownName for what cannot be taught."""
        if self.model not in layered.PRESETS:
            raise UnknownName("network", self.model, layered.PRESETS)
        for name in self.worlds:
            WORLDS[name]  # raises UnknownName
        self._check_sizes()
        return self

    def _check_sizes(self) -> None:
        for what, count in (("drawings", self.drawings), ("stills", self.stills)):
            if not 1 <= count <= self.batch:
                hint = f"1 to {self.batch}, the sentences of a step"
                raise TrainingError(f"{count} {what} cannot be taught in a step", hint=hint)
        if self.frames < LEAST_FRAMES:
            raise TrainingError(f"clips of {self.frames} frames cannot be taught", hint=f"{LEAST_FRAMES} or more")
        for name in ("height", "width"):
            side = getattr(self, name)
            if side % MULTIPLE or side < 1:
                near = max(1, round(side / MULTIPLE)) * MULTIPLE
                raise TrainingError(f"a {name} of {side} is no multiple of {MULTIPLE}", hint=f"nearest: {near}")


class Scenes(NamedTuple):
    """The scenes of a step: the world of each, its caption, the sentence in which that is told, and its still's moment;
    which of its first frames are given (b, t), and where its layers are said to face (b, layers); and by which chance
    all else is drawn."""

    worlds: list[str]
    scenes: list[Any]
    captions: list[str]
    sentences: list[str]
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
        self.vocabulary = text.Vocabulary(tuple(sorted({w for world in self.worlds.values() for w in world.words()})))
        torch.manual_seed(recipe.seed)  # the same first weights in every process
        sizes = layered.PRESETS[recipe.model]
        words = text.Config(vocabulary=len(self.vocabulary), **text.PRESETS[sizes["text"]])
        self.config = layered.Config(frames=recipe.frames, **sizes | {"text": words})
        self.model = layered.Model(self.config).to(where)
        channels_last(self.model)
        self.names = Names(self.config.width, self.worlds).to(where)
        self.reader = painting.Reader(self.config.width).to(where)
        self.before = self._begin_with(recipe.start) if recipe.start else self._look()
        self.average = Average(self.model, recipe.average)
        self.optimisers = optimisers.of(self.learning, recipe.rate)

    def _begin_with(self, start: str) -> dict[str, Any]:
        """Take the weights of a checkpoint, and return what is to be told of them. Raises WeightsError."""
        folder = weights.locate(start)
        found = weights.configuration(folder, KIND)
        with weights.understood(folder):
            config = layered.Config.of(found["config"])
        if config != self.config or found["words"] != list(self.vocabulary.words):
            raise WeightsError(
                f"the checkpoint in {folder} is of other sizes or words", hint="start with one of the same"
            )
        return {"before": run.summary(found, checkpoint.load_model(folder, self.model))}

    def _look(self) -> dict[str, Any]:
        """Let the network see how courses differ, before it learns; there is nothing to be told of that."""
        steps, _, there = self.truth(self.asked(LOOKS, range(self.recipe.looks)))
        self.model.courses.look_at(self.model.courses.whitened(steps), there)
        self.processes.take_from_first(self.model.courses.components.buffers())
        return {}

    @property
    def learning(self) -> list[nn.Module]:
        """The network, and what is there to teach it alone."""
        return [self.model, self.names, self.reader]

    @property
    def parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        """Everything that the next step depends on, by name."""
        networks = dict(zip(("model", "names", "reader"), self.learning, strict=True))
        networks |= {"average": self.average.model}
        return {**networks, **optimisers.numbered(self.optimisers)}

    def kept(self) -> nn.Module:
        """The averaged network."""
        return self.average.model

    def step(self, step: int) -> dict[str, float]:
        """Take step `step` (counted from 1) and return its figures."""
        run.set_rate(self.optimisers, self.recipe, step)
        recipe, processes = self.recipe, self.processes
        places = batches.places(recipe.batch, processes.rank, processes.ranks)
        shown = [len(batches.places(n, processes.rank, processes.ranks)) for n in (recipe.drawings, recipe.stills)]
        asked = self.asked(step, places)
        told = self.error(asked, *shown) if step > recipe.head_start else self._named(asked)[1]
        total = torch.stack([value * (recipe.naming if name == "naming" else 1) for name, value in told.items()]).sum()
        optimisers.descend(total, self.optimisers, processes, self.learning, self.model)
        self.average.follow(self.model, step)
        return {name: float(value.detach()) for name, value in told.items()}

    # --- what is asked ---

    def asked(self, step: int, places: Sequence[int], split: str = "train") -> Scenes:
        """The scenes at these places of the batch of a step."""
        rows = [self._scene(batches.source(self.recipe.seed, step, place), split) for place in places]
        names, scenes, captions, sentences, moments, given, turned, chances = zip(*rows, strict=True)
        decided = np.array(moments), np.stack(given), np.stack(turned)
        return Scenes([*names], [*scenes], [*captions], [*sentences], *decided, [*chances])

    def _scene(self, rng: np.random.Generator, split: str) -> tuple[Any, ...]:
        recipe = self.recipe
        name = batches.pick(rng, tuple(self.worlds), list(recipe.worlds.values()))
        world = self.worlds[name]
        scene = world.sample(rng, split=split)
        caption = world.caption(scene, rng) if rng.random() >= recipe.wordless else ""
        sentence = stirring.stirred(caption, rng) if caption and rng.random() < recipe.stirred else caption
        given, moment = np.zeros(recipe.frames, bool), float(rng.random())
        if rng.random() < recipe.given:
            last = int(rng.integers(animating.MOST_GIVEN))
            given[: last + 1] = True
            moment = float(times(recipe.frames)[last])
        often = recipe.turned[int(given.any())] if "direction" in world.ATTRIBUTES else 0.0
        turned = np.where(rng.random(len(layers.LAYERS)) < often, -1.0, 1.0)
        turned[list(layers.SHADOWS)] = 1.0
        return name, scene, caption, sentence, moment, given, turned, rng

    # --- how wrong the network is ---

    def error(self, asked: Scenes, drawn: int, shown: int) -> dict[str, Tensor]:
        """How wrong the network is about scenes: in `naming` what sentences say, about the `courses` of layers (in the
        velocity), how the layers of the first `drawn` look, and in pictures of the first `shown` about their `mattes`
        and where layers are `facing`."""
        said, told = self._named(asked)
        told |= {"courses": self.courses_error(self.model.courses, self.truth(asked), asked, said)}
        nothing = torch.zeros((), device=self.where)  # of few pictures, others have them all
        told |= self._drawing(asked, drawn, said) if drawn else dict.fromkeys(drawings.PARTS, nothing)
        if not shown:
            return told | dict.fromkeys(("mattes", "facing"), nothing)
        return told | self._matting(self.model.matting, self._stills(asked, shown), said.rows(slice(shown)))

    def _named(self, asked: Scenes) -> tuple[text.Text, dict[str, Tensor]]:
        said = self.model.read(self.ids(asked.sentences))
        pairs = zip(asked.worlds, asked.captions, strict=True)
        named = [(name, stills.asked(self.worlds[name], caption)) for name, caption in pairs]
        return said, {"naming": self.names(said.whole, named)}

    def courses_error(
        self,
        network: layered.Courses,
        truth: tuple[Tensor, Tensor, Tensor],
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
        clean, there, known = network.whitened(clean)[rows], there[rows], known[rows]
        s = level[:, None, None, None]
        guess = network((1 - s) * clean + s * e, level, said.rows(rows), known)
        error = (guess - clean).square() / s.clamp(min=recipe.bound).square()
        counted = there[:, :, None, None].expand_as(error).float()
        return (error * counted).sum() / counted.sum().clamp(min=1)

    def truth(self, asked: Scenes) -> tuple[Tensor, Tensor, Tensor]:
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

    def _drawing(self, asked: Scenes, count: int, said: text.Text) -> dict[str, Tensor]:
        told = [i for i in range(count) if asked.captions[i]] or [0]  # of silence there is nothing to draw
        wanted = self.drawings(_some(asked, told))
        with self.recipe.autocast(self.where):
            return drawings.error(self.model.painter, self.reader, said.rows(torch.tensor(told)), wanted)

    def drawings(self, asked: Scenes) -> drawings.Drawings:
        """The layers of scenes as they are to be drawn, and what is behind them: both figures of each, of shadows one
        in a few."""
        scenes, moments, side = asked.scenes, asked.moments, FINE
        courses = self._of_worlds(asked, "courses", moments[:, None])[:, :, 0]
        reaches, unsaid = (self._of_worlds(asked, what) for what in ("reaches", "unsaid"))
        slots = [(i, slot) for i, rng in enumerate(asked.chances) for slot in _few(rng)]
        rows, which = (np.array(part) for part in zip(*slots, strict=True))
        there = np.isfinite(courses[rows, which, layers.X])
        clear = np.flatnonzero(there & (np.nan_to_num(courses[rows, which, layers.OPACITY]) > drawings.FAINT))
        r, w = rows[clear], which[clear]
        extents = np.log(reaches[r, w]) + courses[r, w, layers.SIZE]
        pictures, behind = (self._drawn(asked, how, side) for how in ("draw", "behind"))
        alone, visible = self._mattes(asked, moments[:, None], (side, side))
        colours = sheets.coloured(pictures, visible[:, :, 0], behind)[r]
        opacity = self._tensor(courses[r, w, layers.OPACITY])[:, None, None]
        covers, seen = (part[r, w, 0] / opacity for part in (alone, visible))
        where = self._tensor(courses[r, w])
        squares = drawings.cut(colours, covers, seen, where, self._tensor(np.exp(extents)))
        whole = np.arange(len(scenes))
        numbers = np.concatenate([rows, whole])
        rest = np.stack([rng.standard_normal((len(layers.LAYERS) + 1, painting.REST)) for rng in asked.chances])
        of_slots = np.concatenate([which, np.full(len(scenes), painting.BEHIND)])
        wanted = painting.Asked(
            torch.from_numpy(of_slots).to(self.where),
            self._tensor(moments[numbers]),
            self._tensor(unsaid[numbers]),
            self._tensor(rest[numbers, of_slots]),
        )
        return drawings.Drawings(
            torch.from_numpy(numbers).to(self.where),
            wanted,
            torch.from_numpy(np.concatenate([there, np.ones(len(scenes), bool)])).to(self.where),
            torch.from_numpy(clear).to(self.where),
            squares,
            self._tensor(extents),
            self._tensor(courses[r, w, layers.TURN]),
            F.interpolate(behind, 2 * painting.SIDE, mode="area"),
        )

    def _stills(self, asked: Scenes, shown: int) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures (n, 3, h, w) of the first scenes, as worn as what is given may be; their mattes as far as they are
        to be seen, and where layers face (n, layers), 0 where none is."""
        recipe, some = self.recipe, _some(asked, range(shown))
        mattes = self._visible(some, some.moments[:, None], (recipe.height, recipe.width))[:, :, 0]
        faces = self._tensor(self._of_worlds(some, "courses", some.moments[:, None]))[:, :, 0, layers.FACING]
        there = sheets.measured(mattes).there
        worn = self._worn(self._drawn(some, "draw"), some.chances)
        return worn, mattes, torch.where(there, faces.nan_to_num().sign(), 0)

    def _matting(
        self, network: layered.Matting, shown: tuple[Tensor, Tensor, Tensor], said: text.Text
    ) -> dict[str, Tensor]:
        pictures, mattes, faces = shown
        with self.recipe.autocast(self.where):  # courses stay in float32, where a thousandth is to be seen
            found = layered.Found(*(part.float() for part in network(pictures, said)))
        right = F.binary_cross_entropy_with_logits(found.facing, (faces > 0).float(), reduction="none")
        counted = (faces != 0).float()
        counted[:, layers.SHADOWS] = 0
        return {
            "mattes": 10 * F.binary_cross_entropy_with_logits(found.mattes, mattes),
            "facing": 0.2 * (right * counted).sum() / counted.sum().clamp(min=1),
        }

    def _drawn(self, asked: Scenes, how: str, side: int = 0) -> Tensor:
        """The stills of scenes as their worlds draw them, or what is behind in them, (n, 3, h, w), or of another
        side."""
        size = (1, side, side) if side else (1, self.recipe.height, self.recipe.width)
        found = torch.empty(len(asked.scenes), 3, *size[1:], device=self.where)
        for world, rows in _by_world(asked):
            draw = getattr(self.worlds[world], how)
            some = [asked.scenes[i] for i in rows]
            frames = draw(some, *size, xp=torch, device=self.where, moments=asked.moments[rows, None])
            found[rows] = pixels.to_model(frames)[:, :, 0]
        return found

    def _of_worlds(self, asked: Scenes, what: str, moments: np.ndarray | None = None) -> np.ndarray:
        """What worlds say of their scenes, at moments (b, t) if it depends on these."""
        found: dict[int, np.ndarray] = {}
        for world, rows in _by_world(asked):
            when = () if moments is None else (moments[rows],)
            told = getattr(self.worlds[world], what)([asked.scenes[i] for i in rows], *when)
            found |= dict(zip(rows, told, strict=True))
        return np.stack([found[i] for i in range(len(asked.scenes))])

    def _visible(self, asked: Scenes, moments: np.ndarray, size: int | tuple[int, int]) -> Tensor:
        """Mattes (b, layers, t, h, w) of scenes at moments (b, t), as far as each is to be seen."""
        return self._mattes(asked, moments, (size, size) if isinstance(size, int) else size)[1]

    def _mattes(self, asked: Scenes, moments: np.ndarray, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Mattes (b, layers, t, h, w) of scenes at moments (b, t), each by itself, and as far as it is to be seen."""
        count = moments.shape[1]
        alone = torch.empty(len(asked.scenes), len(layers.LAYERS), count, *size, device=self.where)
        visible = torch.empty_like(alone)
        order = self._of_worlds(asked, "courses", moments[:, :1])[:, :, 0, layers.ORDER]
        for world, rows in _by_world(asked):
            some, at = [asked.scenes[i] for i in rows], moments[rows]
            mattes = self.worlds[world].mattes(some, count, *size, xp=torch, device=self.where, moments=at)
            alone[rows] = mattes
            visible[rows] = torch.from_numpy(layers.visible(mattes.cpu().numpy(), order[rows])).to(self.where)
        return alone, visible

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
        """Token ids (b, l), as long as the longest caption."""
        return text.trimmed(self.vocabulary.encode(captions, self.config.text.length)).to(self.where)

    # --- what is kept ---

    def draw_samples(self, path: Path, kept: nn.Module, count: int = 2) -> None:
        """A contact sheet of clips for held-out sentences of each world, always the same ones."""
        recipe, model = self.recipe, cast(layered.Model, kept)
        prompts = []
        for world in self.worlds.values():
            rng = batches.source(7, 0, 0)
            prompts += [world.caption(world.sample(rng, split="heldout"), rng, {}) for _ in range(count)]
        ids = self.ids([*prompts, ""])
        drawn = []
        with torch.no_grad():
            for i in range(len(prompts)):
                chance = partial(_chance, i)
                staged = animating.drawn(model, ids[[i, -1]], recipe.frames, (recipe.height, recipe.width), chance)
                e = noise(7, i, 1, shape=(1, len(layers.LAYERS), recipe.frames, len(sheets.STEPS)))
                drawn.append(staged.clip(staged.sample(e.to(self.where), animating.COURSES)))
        frames = pixels.to_frames(torch.cat(drawn))[:, :: max(1, recipe.frames // 8)]
        media.write_contact_sheet(path, list(frames), prompts)

    def save_checkpoint(self, folder: Path, kept: nn.Module, history: dict[str, Any]) -> None:
        """Write the kept network as a checkpoint folder."""
        told: dict[str, Any] = {"kind": KIND, "worlds": list(self.worlds), "words": list(self.vocabulary.words)}
        told |= {"config": asdict(self.config), "multiple": MULTIPLE}
        told |= {"recipe": asdict(self.recipe) | {"start": Path(self.recipe.start).name}}
        checkpoint.save_model(folder, kept, told | history | self.before, torch.float16)


def _chance(clip: int, *shape: int) -> Tensor:
    """The noise by which a sample is drawn."""
    return noise(7, clip, shape=shape)


def _few(rng: np.random.Generator) -> list[int]:
    """The layers of a scene that are drawn in a step: its figures, and seldom a shadow."""
    return [*layers.FIGURES, *(slot for slot in layers.SHADOWS if rng.random() < SHADOWED)]


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
