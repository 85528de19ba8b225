"""The adversarial loop: a critic learns to tell real pairs of clip and sentence from generated and mismatched ones, a
generator learns to leave it no way to tell.

The objective pairs each generated clip with a real one of the same sentence (relativistic pairing, Jolicoeur-Martineau
2018) and keeps the critic's slope small at both (R1, Mescheder et al. 2018, and R2), which together make a GAN converge
without tricks (R3GAN, Huang et al. 2024). That the clip belongs to its sentence is learnt from contrast: among all
sentences of the batch the right one must score highest (XMC-GAN, Zhang et al. 2021), and higher than the same sentence
with one attribute changed. The critic also learns to name the attributes of real clips, and the generator to have its
own named as their sentences say (AC-GAN, Odena et al. 2017).

A world that draws its clips knows by which chances: where a disc starts, in which phase it swings. They are the noise
of the generated clip, which so has one real clip to be like, as in pix2pix (Isola et al. 2017); how far it strays is
seen by the critic's keypoints (feature matching, Larsen et al. 2016). Without it all seeds of a sentence came to one
path in this loop, and by the game alone a path does not become exact. Where the caption leaves the motion unsaid, and
in worlds that do not tell their chances, there is the game alone.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kinetograph import media
from kinetograph.errors import TrainingError
from kinetograph.neural import checkpoint, pixels
from kinetograph.neural.models import eye, text, video_gan
from kinetograph.neural.training import batches, run
from kinetograph.neural.training.average import Average
from kinetograph.shelf import WORLDS

CLOSE = 0.1  # keypoints nearer than this (a sixtieth of half a side) are pulled together less and less


@dataclass(frozen=True, kw_only=True)
class Recipe(run.Recipe):
    """Everything that an adversarial run depends on. Sizes of the networks are names of presets."""

    world: str
    model: str = "small"
    text: str = "small"
    rate: float = 5e-4
    slope: float = 1.0  # weight gamma of R1 and R2
    slope_falls: float = 0.1  # to this part during the cooldown: the critic may look closer (as in R3GAN)
    slope_every: int = 4  # steps between two penalties ("lazy", Karras et al. 2020), each weighted accordingly
    contrast: float = 1.0  # weight of the sentence's part in both losses
    naming: float = 0.5  # weight of naming in the critic's loss
    head_start: int = 1000  # steps in which only the critic learns, from real clips
    turns: int = 2  # of the generator for each of the critic: its step costs a third
    obedience: float = 2.0  # weight of being named right in the generator's loss
    exactness: float = 200.0  # weight of standing where the real clip of the same chances does, in the generator's loss
    exactness_at_first: float = 0.5  # the same before: a blob that is held to much before it can do anything hides
    exact_after: int = 2600  # the last of those steps, head start included
    average: float = 0.999  # decay of the weights that are kept

    def train(self, folder: Path, **how: Any) -> None:
        """Run this recipe in a folder: see `run.train`."""
        run.train(Trainer, self, folder, **how)


def configuration(recipe: Recipe) -> tuple[video_gan.Config, text.Vocabulary]:
    """The sizes of the networks and the words they know."""
    vocabulary = text.Vocabulary(WORLDS[recipe.world].words())
    words = text.Config(vocabulary=len(vocabulary), **text.PRESETS[recipe.text])
    seeing = eye.Config(**eye.PRESETS[recipe.model])
    attributes = {name: len(values) for name, values in WORLDS[recipe.world].ATTRIBUTES.items()}
    sizes = video_gan.PRESETS[recipe.model]
    _check_room(recipe, sizes["noise"])
    return video_gan.Config(text=words, eye=seeing, attributes=attributes, **sizes), vocabulary


def _check_room(recipe: Recipe, noise: int) -> None:
    """Raise TrainingError where a world leaves more to chance than the model has noise for."""
    if not batches.tells_chances(WORLDS[recipe.world]):
        return
    world = WORLDS[recipe.world]
    needed = 2 * max(len(world.CHANCES) + len(world.COINS), 2 * len(world.PHASES))
    if needed > noise:
        message = f"the world {recipe.world} leaves more to chance than the model {recipe.model!r} has noise for"
        raise TrainingError(message, hint=f"it takes a noise of {needed}, the model has {noise}")


class Seen(NamedTuple):
    """What the critic sees of clips: a vector each (b, d), and keypoints (b, t, n)."""

    vector: Tensor
    keypoints: Tensor


class Trainer(run.Trainer):
    """Both networks, their optimisers and the kept average: one call is one step of each."""

    recipe: Recipe

    def __init__(self, recipe: Recipe, where: torch.device, processes: run.Processes) -> None:
        self.recipe, self.where, self.processes = recipe, where, processes
        self.world: ModuleType = WORLDS[recipe.world]
        self.config, self.vocabulary = configuration(recipe)
        torch.manual_seed(recipe.seed)  # the same first weights in every process
        self.generator = video_gan.Generator(self.config).to(where)
        self.critic = video_gan.Critic(self.config).to(where)
        self.average = Average(self.generator, recipe.average)
        self.optimisers = [
            torch.optim.Adam(network.parameters(), lr=recipe.rate, betas=(momentum, 0.99))
            for network, momentum in ((self.generator, 0.5), (self.critic, 0.0))
        ]

    @property
    def parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        """Everything that the next step depends on, by name."""
        return {
            "generator": self.generator,
            "critic": self.critic,
            "average": self.average.model,
            "generator optimiser": self.optimisers[0],
            "critic optimiser": self.optimisers[1],
        }

    def step(self, step: int) -> dict[str, float]:
        """Take step `step` (counted from 1) and return its figures."""
        run.set_rate(self.optimisers, self.recipe, step)
        places = batches.places(self.recipe.batch, self.processes.rank, self.processes.ranks)
        size, frames = self.config.eye.size, self.config.eye.frames
        batch = batches.draw(self.world, self.recipe.seed, step, places, frames, size, self.where)
        misses = [caption for captions in batch.near_misses for caption in captions]
        right, wrong = self.encode(batch.captions + misses).split([len(batch.captions), len(misses)])
        if step <= self.recipe.head_start:
            return self._show_critic(batch, right, wrong)
        noise = self._noise(batch, step, places)
        for turn in range(self.recipe.turns):
            fake = self.generator(right, noise, frames, size, size)  # in float32: places need their last bits
            if turn == 0:
                real, figures = self._teach_critic(step, batch, fake.detach(), right, wrong)
            figures |= self._teach_generator(step, batch, fake, real, right, wrong)
        self.average.follow(self.generator, step)
        return figures

    def _noise(self, batch: batches.Batch, step: int, places: range) -> Tensor:
        """Noise (b, z) that holds what chance decided of each real clip: the generator is asked for that very clip."""
        noise = batches.noise(self.recipe.seed, step, places, self.config.noise, self.where)
        return video_gan.told(noise, *batches.chances(self.world, batch.scenes, self.where))

    def _show_critic(self, batch: batches.Batch, right: Tensor, wrong: Tensor) -> dict[str, float]:
        """Teach the critic what real clips show, before there is any generated one to tell from them."""
        seen, _ = self._look(batch.clips)
        loss, figures = self._understanding(seen, batch, *self._want(right, wrong))
        self._learn(self.critic, self.optimisers[1], loss)
        return {name: float(value.detach()) for name, value in figures.items()}

    def _understanding(
        self, seen: Tensor, batch: batches.Batch, wanted: Tensor, unwanted: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The critic's losses on real clips alone: their own sentences above others, their attributes by name."""
        judged = self.critic.judge(seen, wanted)
        near_miss = F.softplus(self.critic.judge(seen, unwanted) - judged[:, None]).mean()
        matching, naming = self._matching(seen, wanted), self._naming(seen, batch.true)
        loss = self.recipe.contrast * (near_miss + matching) + self.recipe.naming * naming
        return loss, {"near_miss": near_miss, "matching": matching, "naming": naming}

    def _teach_critic(
        self, step: int, batch: batches.Batch, fake: Tensor, right: Tensor, wrong: Tensor
    ) -> tuple[Seen, dict[str, float]]:
        penalise = step % self.recipe.slope_every == 0
        real, fake = batch.clips.requires_grad_(penalise), fake.requires_grad_(penalise)
        (real_seen, _), (fake_seen, _) = self._look(real), self._look(fake)
        wanted, unwanted = self._want(right, wrong)
        judged_real, judged_fake = self.critic.judge(real_seen, wanted), self.critic.judge(fake_seen, wanted)
        pairing = F.softplus(judged_fake - judged_real).mean()
        understanding, figures = self._understanding(real_seen, batch, wanted, unwanted)
        loss, figures["critic"] = pairing + understanding, pairing
        if penalise:
            slope = squared_slope(judged_real, real) + squared_slope(judged_fake, fake)
            gamma = self.recipe.slope * self.recipe.slope_falls ** (1 - run.left(self.recipe, step))
            loss = loss + gamma / 2 * self.recipe.slope_every * slope
            figures["slope"] = slope
        self._learn(self.critic, self.optimisers[1], loss)
        return self._seen(real_seen, real), {name: float(value.detach()) for name, value in figures.items()}

    def _teach_generator(
        self, step: int, batch: batches.Batch, fake: Tensor, real: Seen, right: Tensor, wrong: Tensor
    ) -> dict[str, float]:
        self.critic.requires_grad_(False)
        fake_seen, keypoints = self._look(fake)
        wanted, unwanted = self._want(right, wrong)
        judged_fake = self.critic.judge(fake_seen, wanted)
        pairing = F.softplus(self.critic.judge(real.vector, wanted) - judged_fake).mean()
        near_miss = F.softplus(self.critic.judge(fake_seen, unwanted) - judged_fake[:, None]).mean()
        matching, naming = self._matching(fake_seen, wanted), self._naming(fake_seen, batch.asked)
        astray = self._astray(keypoints, real.keypoints, batch)
        loss = pairing + self.recipe.contrast * (near_miss + matching) + self.recipe.obedience * naming
        self._learn(self.generator, self.optimisers[0], loss + exactness(self.recipe, step) * astray)
        self.critic.requires_grad_(True)
        figures = {"generator": pairing, "fake_near_miss": near_miss, "fake_matching": matching}
        figures |= {"fake_naming": naming, "astray": astray}
        return {name: float(value.detach()) for name, value in figures.items()}

    def _want(self, right: Tensor, wrong: Tensor) -> tuple[Tensor, Tensor]:
        """The critic's vectors for the right sentences (b, d) and for the k wrong ones of each clip (b, k, d)."""
        vectors = self.critic.want(torch.cat([right, wrong]))
        return vectors[: len(right)], vectors[len(right) :].unflatten(0, (len(right), -1))

    def _naming(self, seen: Tensor, said: dict[str, Tensor]) -> Tensor:
        """Cross-entropy of naming the attributes of clips, summed over the attributes."""
        losses = [batches.naming(logits, said[name]) for name, logits in self.critic.name(seen).items()]
        return torch.stack(losses).sum()

    def _matching(self, seen: Tensor, wanted: Tensor) -> Tensor:
        """Cross-entropy of finding each clip's sentence among those of the batch."""
        scores = self.critic.compare(seen, wanted)  # (b, b), a row for each clip
        return F.cross_entropy(scores, torch.arange(len(scores), device=scores.device))

    def _seen(self, seen: Tensor, clip: Tensor) -> Seen:
        """What the critic saw of real clips before this step, and where it sees it now that it has learnt."""
        with torch.no_grad(), self._autocast():
            return Seen(seen.detach(), self.critic.see.keypoints(clip).float())

    def _astray(self, keypoints: Tensor, real: Tensor, batch: batches.Batch) -> Tensor:
        """How far from the keypoints of the real clips (b, t, n) those of the generated ones lie, the mean over the
        clips whose caption says the motion; nothing in a world that does not tell its chances."""
        far = F.huber_loss(keypoints, real, reduction="none", delta=CLOSE).mean((1, 2)) / CLOSE
        if not batches.tells_chances(self.world):
            return 0 * far.sum()
        said = batch.asked["motion"] != batches.UNSAID
        return (far * said).sum() / said.sum().clamp(min=1)

    def _look(self, clip: Tensor) -> tuple[Tensor, Tensor]:
        """The critic's vectors of clips (b, d) and their keypoints (b, t, n)."""
        with self._autocast():
            seen, keypoints = self.critic.see.look(clip)
        return seen.float(), keypoints.float()

    def _learn(self, network: nn.Module, optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.processes.average_gradients(network)
        optimiser.step()

    def encode(self, captions: list[str]) -> Tensor:
        """Token ids (b, l) on the training device, as long as the longest caption."""
        return text.trimmed(self.vocabulary.encode(captions, self.config.text.length)).to(self.where)

    def _autocast(self) -> Any:
        return self.recipe.autocast(self.where)

    def kept(self) -> video_gan.Generator:
        """The averaged generator."""
        return self.average.model

    def draw_samples(self, path: Path, kept: nn.Module, count: int = 12) -> None:
        """A contact sheet of the kept weights on held-out sentences, always the same ones."""
        prompts = batches.prompts(self.world, 7, count, "heldout")
        noise = batches.noise(7, 0, range(count), self.config.noise, self.where)
        frames, size = self.config.eye.frames, self.config.eye.size
        with torch.no_grad():
            clips = kept(self.encode(prompts), noise, frames, size, size)
        media.write_contact_sheet(path, list(pixels.to_frames(clips)), prompts)

    def save_checkpoint(self, folder: Path, kept: nn.Module, history: dict[str, Any]) -> None:
        """Write the kept generator as a checkpoint folder that explains itself."""
        words = {"kind": "video_gan", "world": self.recipe.world, "words": list(self.vocabulary.words)}
        explained = {**words, "config": asdict(self.config), "recipe": asdict(self.recipe), **history}
        checkpoint.save_model(folder, kept, explained)


def exactness(recipe: Recipe, step: int) -> float:
    """How much it counts in the generator's loss, at a step, where things are."""
    return recipe.exactness if step > recipe.exact_after else recipe.exactness_at_first


def squared_slope(judged: Tensor, clips: Tensor) -> Tensor:
    """Mean squared norm of the critic's gradient at these clips: R1 at real ones, R2 at generated ones."""
    (gradient,) = torch.autograd.grad(judged.sum(), clips, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3, 4)).mean()
