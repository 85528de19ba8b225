"""What a model of layers learns from: scenes of the worlds, with the sentences, the courses, the drawings and the
pictures that belong to them.

Worlds know the layers of their scenes, how they look, their mattes, what is behind them and their courses
(`kinetograph.layers`), so all is taught outright. No clip is drawn: a step sees many sentences, and pictures of a
moment for some of them. Everything is keyed by (seed, step, place in the whole batch).

In most scenes no frame is given: the layers may be drawn at any moment, and only what they look like is told, not
where; in the others the first frames are, and the still is the last of them. Some layers are told to face the other way
than they do, for pictures do not always look where sentences go: the network learns to turn them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from kinetograph import layers
from kinetograph.motions import times
from kinetograph.neural import animating, pixels
from kinetograph.neural import layers as sheets
from kinetograph.neural.models import painting
from kinetograph.neural.models.completing import Answers
from kinetograph.neural.training import batches, drawings, run, stills, stirring
from kinetograph.shelf import WORLDS

SMALL = 64  # pixels: where layers are only measured
UNSURE, STRAYS = 0.03, 0.004  # spreads: of what is measured of sizes and opacity, and of places in sides
BLURRED, SPECKLED = 1.2, 0.03  # at most, of stills: pixels (one standard deviation) and a part of their range
FINE = 192  # pixels: where layers are cut out
SHADOWED = 0.15  # how often a shadow is drawn: they are all alike


@dataclass(frozen=True, kw_only=True)
class Recipe(run.Recipe):
    """What scenes are learnt from. `batch` counts sentences, `drawings` the scenes among them whose layers are drawn in
    a step, and `stills` those in whose pictures they are found."""

    worlds: dict[str, float]
    drawings: int = 48
    stills: int = 6
    frames: int = 16
    height: int = 128
    width: int = 128
    given: float = 0.4  # how often the first frames are
    turned: tuple[float, float] = (0.5, 0.25)  # how often a layer is told to face the other way: free, and given
    noises: int = 4  # that each scene is seen behind in a step
    stirred: float = 0.4  # how often a caption is told in other words (`training.stirring`)
    wordless: float = 0.1  # how often the sentence is withheld, for guidance
    untold: float = 0.1  # how often what is true is not told beside a sentence, as where a picture is given


class Scenes(NamedTuple):
    """The scenes of a step: the world of each, its caption, the sentence in which that is told, whether all that is
    true of it is told beside, and its still's moment; which of its first frames are given (b, t), and where its layers
    are said to face (b, layers); and by which chance all else is drawn."""

    worlds: list[str]
    scenes: list[Any]
    captions: list[str]
    sentences: list[str]
    told: np.ndarray
    moments: np.ndarray
    given: np.ndarray
    turned: np.ndarray
    chances: list[np.random.Generator]


class Courses(NamedTuple):
    """True steps (b, layers, t, steps) of scenes, what is known of them, and which layers are there (b, layers)."""

    steps: Tensor
    known: Tensor
    there: Tensor


class Pictures(NamedTuple):
    """Stills (n, 3, h, w), as worn as what is given may be; their mattes as far as they are to be seen, and where
    layers face (n, layers), 0 where none is."""

    stills: Tensor
    mattes: Tensor
    faces: Tensor


@dataclass(frozen=True)
class Lesson:
    """What a step learns from: sentences, the rows of those that say something, what is true of every scene, whether
    that is told beside its sentence (b,), and whether no frame is given (b,); courses, with normal noise for each as
    often as it is seen, for its level (b, noises) and itself (b, noises, layers, t, steps); what is to be drawn of some
    scenes, with their rows, and pictures of the first."""

    sentences: list[str]
    spoken: Tensor
    true: Answers
    told: Tensor
    free: Tensor
    courses: Courses
    levels: Tensor
    noise: Tensor
    drawn: Tensor
    drawings: drawings.Drawings | None
    pictures: Pictures | None

    def to(self, where: torch.device) -> "Lesson":
        """The same on another device."""
        moved: Lesson = _moved(self, where)
        return moved


@dataclass(frozen=True)
class Lessons:
    """Makes what the steps of a recipe learn from, at its own part of every batch, on a device."""

    recipe: Recipe
    part: tuple[int, int]  # this process among all
    where: torch.device

    def __call__(self, step: int, split: str = "train") -> Lesson:
        recipe = self.recipe
        drawn, shown = (len(batches.places(n, *self.part)) for n in (recipe.drawings, recipe.stills))
        asked = self.asked(step, batches.places(recipe.batch, *self.part), split)
        courses = self.courses(asked)
        levels, noise = (self._normal(asked, recipe.noises, *rest) for rest in ((), courses.steps.shape[1:]))
        rows = [i for i in range(drawn) if asked.captions[i]] or [0][:drawn]  # of silence there is nothing to draw
        return Lesson(
            asked.sentences,
            torch.tensor([i for i, caption in enumerate(asked.captions) if caption], dtype=torch.long),
            self.true(asked),
            torch.from_numpy(asked.told),
            torch.from_numpy(~asked.given.any(1)),
            courses,
            levels,
            noise,
            torch.tensor(rows, dtype=torch.long),
            self.drawings(_some(asked, rows)) if rows else None,
            self.pictures(asked, shown) if shown else None,
        )

    @property
    def worlds(self) -> dict[str, ModuleType]:
        """The worlds by their names."""
        return {name: WORLDS[name] for name in self.recipe.worlds}

    def true(self, asked: Scenes) -> Answers:
        """What is true of scenes, and what of that their captions say."""
        names = list(self.worlds)
        most = max(len(world.ATTRIBUTES) for world in self.worlds.values())
        values, said = np.zeros((2, len(asked.scenes), most), np.int64)
        for i, (name, scene, caption) in enumerate(zip(asked.worlds, asked.scenes, asked.captions, strict=True)):
            world = self.worlds[name]
            told = stills.asked(world, caption) if caption else {}
            values[i, : len(world.ATTRIBUTES)] = numbers(world, world.attributes(scene))
            said[i, : len(world.ATTRIBUTES)] = [attribute in told for attribute in world.ATTRIBUTES]
        of_worlds = torch.tensor([names.index(name) for name in asked.worlds])
        return Answers(of_worlds, torch.from_numpy(values), torch.from_numpy(said.astype(bool)))

    def asked(self, step: int, places: Sequence[int], split: str = "train") -> Scenes:
        """The scenes at these places of the batch of a step."""
        rows = [self._scene(batches.source(self.recipe.seed, step, place), split) for place in places]
        names, scenes, captions, sentences, told, moments, given, turned, chances = zip(*rows, strict=True)
        decided = np.array(told), np.array(moments), np.stack(given), np.stack(turned)
        return Scenes([*names], [*scenes], [*captions], [*sentences], *decided, [*chances])

    def _scene(self, rng: np.random.Generator, split: str) -> tuple[Any, ...]:
        recipe = self.recipe
        name = batches.pick(rng, tuple(self.worlds), list(recipe.worlds.values()))
        world = self.worlds[name]
        scene = world.sample(rng, split=split)
        caption = world.caption(scene, rng) if rng.random() >= recipe.wordless else ""
        sentence = stirring.stirred(caption, rng) if caption and rng.random() < recipe.stirred else caption
        told = bool(caption) and rng.random() >= recipe.untold
        given, moment = np.zeros(recipe.frames, bool), float(rng.random())
        if rng.random() < recipe.given:
            last = int(rng.integers(animating.MOST_GIVEN))
            given[: last + 1] = True
            moment = float(times(recipe.frames)[last])
        often = recipe.turned[int(given.any())] if "direction" in world.ATTRIBUTES else 0.0
        turned = np.where(rng.random(len(layers.LAYERS)) < often, -1.0, 1.0)
        turned[list(layers.SHADOWS)] = 1.0
        return name, scene, caption, sentence, told, moment, given, turned, rng

    def courses(self, asked: Scenes) -> Courses:
        """The true courses of scenes."""
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
        given = torch.from_numpy(asked.given).to(self.where)
        return Courses(steps, sheets.known(seen, facing, given, middles), there)

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

    def pictures(self, asked: Scenes, shown: int) -> Pictures:
        """Pictures of the first scenes."""
        recipe, some = self.recipe, _some(asked, range(shown))
        mattes = self._visible(some, some.moments[:, None], (recipe.height, recipe.width))[:, :, 0]
        faces = self._tensor(self._of_worlds(some, "courses", some.moments[:, None]))[:, :, 0, layers.FACING]
        there = sheets.measured(mattes).there
        worn = self._worn(self._drawn(some, "draw"), some.chances)
        return Pictures(worn, mattes, torch.where(there, faces.nan_to_num().sign(), 0))

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


def numbers(world: ModuleType, attributes: Mapping[str, str]) -> list[int]:
    """The numbers of a scene's values, in the order of its world's attributes; of one that it has not, one more than
    there are."""
    table = world.ATTRIBUTES.items()
    return [values.index(attributes[name]) if name in attributes else len(values) for name, values in table]


def _moved(value: Any, where: torch.device) -> Any:
    """Tensors, in whatever holds them, on another device."""
    if isinstance(value, Tensor):
        return value.to(where)
    if isinstance(value, tuple):
        return type(value)(*(_moved(part, where) for part in value))
    if isinstance(value, (Lesson, drawings.Drawings)):
        return type(value)(**{name: _moved(part, where) for name, part in vars(value).items()})
    return value


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
