"""The peer of the GAN: the article's own network and loop, trained on our data and examined beside our engines.

    python benchmarks/article_gan.py --minutes 60 --out out/article-gan

The article "Building an AI Text-to-Video Model from Scratch Using Python" trains a GAN on single frames of moving
circles. Its network, losses, optimisers and inference are rebuilt here as they are, with the properties that limit
it: the critic sees one frame and no text, the word vectors are in no optimiser, every frame has noise of its own.

What is not the method but a slip of the original is given its best case, so that the comparison is fair:
    data          the circle world's training split, every frame with its disc (the original's were blank or repeated)
    output        mapped from [-1, 1] to 0 ... 255 (the original clipped everything below 0 to black)
    vocabulary    sorted, the same in every process (the original's was a set's order); unknown words are skipped
    motions       the world's 17, with captions that also say colour, size, speed and background
The original's budget is 81,250 steps of 16 frames: 13 epochs over the frames of 10,000 clips.
"""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from peers import Budget, arguments, run
from torch import Tensor, nn
from torch.nn import functional as F

from kinetograph.evaluation import Subject
from kinetograph.language import tokens
from kinetograph.media import Frames
from kinetograph.neural import device as devices
from kinetograph.neural import pixels
from kinetograph.neural.training import batches
from kinetograph.shelf import WORLDS

NOISE, TEXT, BATCH = 100, 10, 16
SIDE, FRAMES = 64, 10
STEPS = 81_250
POOL = 256  # clips drawn at a time, whose frames are shuffled and used once


class Words(nn.Module):
    """Prompts -> (b, 10): the mean of the vectors of the words, of which order is no part."""

    def __init__(self, vocabulary: tuple[str, ...]) -> None:
        super().__init__()
        self.places = {word: place for place, word in enumerate(vocabulary)}
        self.vectors = nn.Embedding(len(vocabulary), TEXT)

    def forward(self, prompts: list[str]) -> Tensor:
        """Unknown words are skipped; a prompt of unknown words only is the zero vector."""
        return torch.stack([self._mean(prompt) for prompt in prompts])

    def _mean(self, prompt: str) -> Tensor:
        known = [self.places[word] for word in tokens(prompt) if word in self.places]
        rows = self.vectors(torch.tensor(known, dtype=torch.long, device=self.vectors.weight.device))
        return rows.mean(0) if known else self.vectors.weight.new_zeros(TEXT)


class Generator(nn.Module):
    """(noise (b, 100), text (b, 10)) -> frames (b, 3, 64, 64) in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(NOISE + TEXT, 256 * 8 * 8)
        self.rest = nn.Sequential(
            nn.ConvTranspose2d(256, 128, 4, 2, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(128, 64, 4, 2, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(64, 3, 4, 2, 1),
            nn.Tanh(),
        )

    def forward(self, noise: Tensor, text: Tensor) -> Tensor:
        return self.rest(self.first(torch.cat([noise, text], 1)).view(-1, 256, 8, 8))


class Critic(nn.Module):
    """Frames (b, 3, 64, 64) -> the probability (b, 1) that each is real."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 64, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(64, 128, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(128, 256, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(256 * 8 * 8, 1),
            nn.Sigmoid(),
        )

    def forward(self, frames: Tensor) -> Tensor:
        return self.layers(frames)


@dataclass(frozen=True)
class Training:
    """What a training came to. The losses are means over its last hundred steps."""

    steps: int
    minutes: float
    critic_loss: float
    generator_loss: float
    parameters: int
    device: str


def train(
    world: ModuleType, seed: int, steps: int, minutes: float, device: torch.device
) -> tuple[Generator, Words, Training]:
    """Train until the steps or the minutes are used up, whichever comes first."""
    torch.manual_seed(seed)
    generator, critic, words = Generator().to(device), Critic().to(device), Words(world.words()).to(device)
    g, d = (torch.optim.Adam(part.parameters(), 2e-4, (0.5, 0.999)) for part in (generator, critic))
    losses: list[tuple[float, float]] = []
    start = time.monotonic()
    for real, prompts in frames_and_captions(world, seed, device):
        if len(losses) == steps or time.monotonic() - start > 60 * minutes:
            break
        losses.append(step(real, words(prompts), generator, critic, g, d))
        if len(losses) % 1000 == 0:
            print(f"step {len(losses)}: critic {losses[-1][0]:.3f}, generator {losses[-1][1]:.3f}", flush=True)
    critic_loss, generator_loss = np.mean(losses[-100:], axis=0).tolist() if losses else (0.0, 0.0)
    count = sum(p.numel() for part in (generator, words) for p in part.parameters())
    taken = round((time.monotonic() - start) / 60, 2)
    return generator.eval(), words, Training(len(losses), taken, critic_loss, generator_loss, count, str(device))


def step(
    real: Tensor,
    text: Tensor,
    generator: Generator,
    critic: Critic,
    g: torch.optim.Optimizer,
    d: torch.optim.Optimizer,
) -> tuple[float, float]:
    """The critic learns to tell real frames (b, 3, 64, 64) from made ones, then the generator to deceive it."""
    ones, zeros = real.new_ones(len(real), 1), real.new_zeros(len(real), 1)
    text = text.detach()  # in no optimiser, as in the original
    fake = generator(torch.randn(len(real), NOISE, device=real.device), text)
    d.zero_grad()
    seen, invented = critic(real), critic(fake.detach())
    critic_loss = F.binary_cross_entropy(seen, ones) + F.binary_cross_entropy(invented, zeros)
    critic_loss.backward()
    d.step()
    g.zero_grad()
    generator_loss = F.binary_cross_entropy(critic(fake), ones)
    generator_loss.backward()
    g.step()
    return critic_loss.item(), generator_loss.item()


def frames_and_captions(world: ModuleType, seed: int, device: torch.device) -> Iterator[tuple[Tensor, list[str]]]:
    """Batches of single frames of the training split, shuffled, each with the caption of its clip; without end."""
    pool = 0
    while True:
        clips, captions = [], []
        for place in range(POOL):
            rng = batches.source(seed, pool, place)
            scene = world.sample(rng, split="train")
            captions.append(world.caption(scene, rng))
            clips.append(scene)
        drawn = world.draw(clips, FRAMES, SIDE, SIDE, xp=torch, device=device)
        frames = pixels.to_model(drawn).transpose(1, 2).flatten(0, 1)  # (clips x frames, 3, h, w)
        order = batches.source(seed, pool, POOL).permutation(len(frames))
        for places in order.reshape(-1, BATCH):
            yield frames[torch.from_numpy(places).to(device)], [captions[place // FRAMES] for place in places]
        pool += 1


def peer(generator: Generator, words: Words, device: torch.device) -> Subject:
    """The trained peer as something to be examined: ten frames, each from noise of its own."""

    def make(prompt: str, seed: int) -> tuple[Frames, float]:
        start = time.perf_counter()
        noise = devices.noise(seed, shape=(FRAMES, NOISE)).to(device)
        with torch.inference_mode():
            made = generator(noise, words([prompt]).expand(FRAMES, -1))  # (t, 3, h, w)
        clip = pixels.to_frames(made.transpose(0, 1)[None])[0]
        return clip, time.perf_counter() - start

    return Subject(name="article-gan", make=make, device=str(device), versions=devices.versions(device))


def trained(budget: Budget, out: Path) -> tuple[Subject, dict[str, Any]]:
    """The peer after its training, whose weights are kept in `out`."""
    generator, words, training = train(WORLDS["circle"], budget.seed, budget.steps, budget.minutes, budget.device)
    torch.save({"generator": generator.state_dict(), "words": words.state_dict()}, out / "article_gan.pt")
    return peer(generator, words, budget.device), asdict(training)


def main() -> None:
    """Examine the engines, train the peer, examine it too; write article_gan.json and print the tables."""
    options = arguments(__doc__, "article-gan", STEPS).parse_args()
    run(options, "article_gan", lambda budget: trained(budget, options.out))


if __name__ == "__main__":
    main()
