"""A network learns to make clips in layers: to tell what a sentence leaves open, to draw the layers of scenes, to tell
where they go, and to find them in pictures.

It learns from what worlds know of their scenes (`training.scenes`), the courses by flow matching as in `training.flow`.
Everything is keyed by (seed, step, place in the whole batch), however many processes share it.
"""

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kinetograph import layers, media, weights
from kinetograph.errors import TrainingError, UnknownName, WeightsError
from kinetograph.neural import animating, checkpoint, pixels
from kinetograph.neural import layers as sheets
from kinetograph.neural.device import channels_last, noise
from kinetograph.neural.models import completing, layered, painting, text
from kinetograph.neural.training import batches, drawings, optimisers, run, scenes
from kinetograph.neural.training.ahead import Ahead, drawing
from kinetograph.neural.training.average import Average
from kinetograph.shelf import WORLDS

KIND = "layered"
LEAST_FRAMES = 4  # of a clip
MULTIPLE = 2**layered.HALVINGS  # of pixels, for heights and widths
LOOKS = 0  # the step of training that never comes: what is looked at before


@dataclass(frozen=True, kw_only=True)
class Recipe(scenes.Recipe):
    """Everything that a run depends on."""

    model: str = "pocket"
    start: str = ""  # a checkpoint folder whose weights the run begins with, instead of chance
    signal: tuple[float, float] = (-0.3, 1.5)  # logit of the signal's part: mean and spread
    bound: float = 0.1  # levels below count as this much in the velocity's weight
    looks: int = 2_000  # scenes that are looked at before the first step
    naming: float = 0.2  # weight of naming what sentences say, and of completing them
    head_start: int = 0  # the first steps, in which nothing else is learnt
    helpers: int = 0  # processes that draw for coming steps while one is taken, for a GPU that would wait; 0: none
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
        values = tuple(tuple(map(len, world.ATTRIBUTES.values())) for world in self.worlds.values())
        self.config = layered.Config(frames=recipe.frames, values=values, **sizes | {"text": words})
        self.model = layered.Model(self.config).to(where)
        channels_last(self.model)
        self.reader = painting.Reader(self.config.width).to(where)
        drawn = drawing(recipe.helpers, where)
        self.source = scenes.Lessons(recipe, (processes.rank, processes.ranks), drawn)
        self.lessons = Ahead(self.source, recipe.helpers, recipe.steps)
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
        steps, _, there = self.source.courses(self.source.asked(LOOKS, range(self.recipe.looks)))
        clean = self.model.courses.whitened(steps.to(self.where))
        self.model.courses.look_at(clean, there.to(self.where))
        self.processes.take_from_first(self.model.courses.components.buffers())
        return {}

    @property
    def learning(self) -> list[nn.Module]:
        """The network, and what is there to teach it alone."""
        return [self.model, self.reader]

    @property
    def parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        """Everything that the next step depends on, by name."""
        networks = dict(zip(("model", "reader"), self.learning, strict=True))
        networks |= {"average": self.average.model}
        return {**networks, **optimisers.numbered(self.optimisers)}

    def kept(self) -> nn.Module:
        """The averaged network."""
        return self.average.model

    def step(self, step: int) -> dict[str, float]:
        """Take step `step` (counted from 1) and return its figures."""
        run.set_rate(self.optimisers, self.recipe, step)
        recipe, processes = self.recipe, self.processes
        lesson = self.lessons(step).to(self.where)
        told = self.error(lesson) if step > recipe.head_start else self._named(lesson)[1]
        total = torch.stack([value * (recipe.naming if name == "naming" else 1) for name, value in told.items()]).sum()
        optimisers.descend(total, self.optimisers, processes, self.learning, self.model)
        self.average.follow(self.model, step)
        return {name: float(value.detach()) for name, value in told.items()}

    # --- how wrong the network is ---

    def error(self, lesson: scenes.Lesson) -> dict[str, Tensor]:
        """How wrong the network is: in `naming` what sentences say and leave open, about the `courses` of layers (in
        the velocity), how layers look, and in pictures about their `mattes` and where layers are `facing`."""
        said, told = self._named(lesson)
        beside = self.model.completion.tell(lesson.true)
        told |= {
            "courses": self.courses_error(self.model.courses, lesson, said.beside(beside, lesson.told & lesson.free))
        }
        told |= self._drawing(lesson, said.beside(beside, lesson.told).rows(lesson.drawn))
        return told | self._matting(self.model.matting, lesson.pictures, said)

    def _named(self, lesson: scenes.Lesson) -> tuple[text.Text, dict[str, Tensor]]:
        said = self.model.read(self.ids(lesson.sentences))
        true = completing.Answers(*(part[lesson.spoken] for part in lesson.true))
        return said, {"naming": self.model.completion.error(said.whole[lesson.spoken], true)}

    def courses_error(self, network: layered.Courses, lesson: scenes.Lesson, said: text.Text) -> Tensor:
        """How wrong a network is about the courses of scenes, in the velocity."""
        recipe = self.recipe
        clean, known, there = lesson.courses
        rows = torch.arange(len(clean), device=self.where).repeat_interleave(recipe.noises)
        mean, spread = recipe.signal
        level, e = torch.sigmoid(-mean - spread * lesson.levels).flatten(), lesson.noise.flatten(0, 1)
        clean, there, known = network.whitened(clean)[rows], there[rows], known[rows]
        s = level[:, None, None, None]
        guess = network((1 - s) * clean + s * e, level, said.rows(rows), known)
        error = (guess - clean).square() / s.clamp(min=recipe.bound).square()
        counted = there[:, :, None, None].expand_as(error).float()
        return (error * counted).sum() / counted.sum().clamp(min=1)

    def _drawing(self, lesson: scenes.Lesson, said: text.Text) -> dict[str, Tensor]:
        """How wrong drawings are; nothing, of few, where other processes have them all."""
        if lesson.drawings is None:
            return dict.fromkeys(drawings.PARTS, torch.zeros((), device=self.where))
        with self.recipe.autocast(self.where):
            return drawings.error(self.model.painter, self.reader, said, lesson.drawings)

    def _matting(self, network: layered.Matting, shown: scenes.Pictures | None, said: text.Text) -> dict[str, Tensor]:
        if shown is None:
            return dict.fromkeys(("mattes", "facing"), torch.zeros((), device=self.where))
        pictures, mattes, faces = shown
        said = said.rows(slice(len(pictures)))
        with self.recipe.autocast(self.where):  # courses stay in float32, where a thousandth is to be seen
            found = layered.Found(*(part.float() for part in network(pictures, said)))
        right = F.binary_cross_entropy_with_logits(found.facing, (faces > 0).float(), reduction="none")
        counted = (faces != 0).float()
        counted[:, layers.SHADOWS] = 0
        return {
            "mattes": 10 * F.binary_cross_entropy_with_logits(found.mattes, mattes),
            "facing": 0.2 * (right * counted).sum() / counted.sum().clamp(min=1),
        }

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
