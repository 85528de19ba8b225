"""Which network guesses courses best: the one that there is, or a transformer over frames.

    python benchmarks/courses.py flow --minutes 3
    python benchmarks/courses.py flow --steps 50

Each learns from nothing, one after another, for the same time or in as many steps, from the same sentences as a
checkpoint reads them, behind the same noise, inside the same linear filter; what it takes to make scenes and to read
sentences is not counted. The reader is frozen, and was taught with a network of the first kind. In the last column
stands the error (`courses`, as in training) on the same held-out sentences.
"""

import argparse
import time
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kinetograph import weights
from kinetograph.layers import LAYERS
from kinetograph.neural.device import CPU
from kinetograph.neural.layers import STEPS, TOLD
from kinetograph.neural.models import layered, text
from kinetograph.neural.models.video_unet import WAVES, Transformer, logit, norm, silent, waves
from kinetograph.neural.training import layered as training
from kinetograph.neural.training import optimisers, recipes, run, scenes

UNIT = 4  # frames: by which waves tell when
HELD_OUT = 10_000  # a step of its own, of held-out sentences


class Frames(layered.Courses):
    """A transformer whose tokens are frames, or some frames each, and which attends to the words."""

    def __init__(self, config: layered.Config, width: int, layers: int, each: int) -> None:
        super().__init__(config)
        self.each = each
        self.words, self.told = nn.Linear(config.width, width), nn.Linear(config.width, width)
        numbers = each * len(LAYERS) * (2 * len(STEPS) + len(TOLD))
        self.cut = nn.Linear(numbers + 2 * WAVES, width)
        self.middle = Transformer(width, layers, config.heads)
        told = each * len(LAYERS) * len(STEPS)
        self.paste = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), silent(nn.Linear(2 * width, told)))
        del self.enter, self.blocks, self.leave

    def forward(self, noisy: Tensor, level: Tensor, said: text.Text, known: Tensor) -> Tensor:
        """Clean steps: see `layered.Courses`."""
        b, _, t, _ = noisy.shape
        c = F.silu(self.condition(torch.cat([waves(logit(level)), said.whole], dim=1)))
        filtered, spreads = self._filtered(noisy, level, c)
        frames = [part.transpose(1, 2).flatten(2) for part in (noisy, filtered, known)]
        seen = torch.cat(frames, dim=2).view(b, t // self.each, -1)
        when = waves(torch.arange(0, t, self.each)[None].float() / UNIT).expand(b, -1, -1)
        x = self.cut(torch.cat([seen, when], dim=2))[:, :, None, None]
        x = self.middle(x, self.words(said.states), said.mask, self.told(c))[:, :, 0, 0]
        rest = self.paste(norm(x)).view(b, t, len(LAYERS), len(STEPS)).transpose(1, 2)
        return filtered + self._spread(rest, spreads)


NETWORKS: dict[str, Any] = {
    "a perceptron of the whole clip": layered.Courses,
    "a transformer of frames": lambda config: Frames(config, 192, 5, 1),
    "a transformer of four frames each": lambda config: Frames(config, 256, 5, 4),
}


def main() -> None:
    """Print a table."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("checkpoint")
    ask.add_argument("--minutes", type=float, default=3.0, help="of learning, for each network")
    ask.add_argument("--steps", type=int, default=0, help="for each network, instead of minutes")
    ask.add_argument("--worlds", default="circle,shapes")
    said = ask.parse_args()
    start, asked = weights.locate(said.checkpoint), said.worlds.split(",")
    shares = {world: float(world in asked) for world in weights.configuration(start)["worlds"]}  # it knows their words
    recipe = recipes.get("layered")
    assert isinstance(recipe, training.Recipe)
    recipe = replace(recipe, start=str(start), worlds=shares, warmup=60).settled()
    reading = training.Trainer(recipe, CPU, run.Processes())
    print("| network | weights | steps | seconds | held-out error |\n|---|---|---|---|---|")
    for name, make in NETWORKS.items():
        torch.manual_seed(recipe.seed)
        network = make(reading.config)
        network.components.load_state_dict(reading.model.courses.components.state_dict())
        steps, seconds = learnt(network, reading, said.steps, 60 * said.minutes)
        size = sum(weight.numel() for weight in network.parameters()) / 1e6
        told = f"| {name} | {size:.1f} M | {steps} | {seconds:.0f} | {held_out(network, reading):.3f} |"
        print(told, flush=True)


def learnt(network: layered.Courses, reading: training.Trainer, steps: int, seconds: float) -> tuple[int, float]:
    """Let a network learn for so many steps, or if that is 0 for so long, and return how many and how long it was."""
    descent, step, spent = optimisers.of([network], reading.recipe.rate), 0, 0.0
    while (done := step / steps if steps else spent / seconds) < 1:
        step += 1
        lesson = reading.source(step)
        sentences = read(reading, lesson)
        left = min(1.0, (1 - done) / reading.recipe.cooldown)
        for optimiser in descent:
            for group in optimiser.param_groups:
                group["lr"] = reading.recipe.rate * min(step / reading.recipe.warmup, left)
        begun = time.perf_counter()
        error = reading.courses_error(network, lesson, sentences)
        optimisers.descend(error, descent, reading.processes, [network], network)
        spent += time.perf_counter() - begun
    return step, spent


@torch.no_grad()
def held_out(network: layered.Courses, reading: training.Trainer) -> float:
    """The error of a network, the mean of some batches."""
    found = []
    for batch in range(4):
        lesson = reading.source(HELD_OUT + batch, "heldout")
        found.append(reading.courses_error(network, lesson, read(reading, lesson)))
    return float(torch.stack(found).mean())


@torch.no_grad()
def read(reading: training.Trainer, lesson: scenes.Lesson) -> text.Text:
    """What the sentences say, as the checkpoint reads them."""
    return reading.model.read(reading.ids(lesson.sentences))


if __name__ == "__main__":
    main()
