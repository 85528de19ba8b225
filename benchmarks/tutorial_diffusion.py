"""The peer of the flow engine: the diffusion network that the article's author wrote later, on our data.

    python benchmarks/tutorial_diffusion.py --minutes 60 --engines flow:runs/flow --out out/tutorial-diffusion

A three-dimensional U-Net (64 channels times 1, 2, 4, 8) of factorised convolutions over space, sparse linear
attention over space and attention over time with rotary embedding and a relative position bias, is told time and text
by shifting and scaling; Gaussian diffusion with a cosine schedule, L1 loss on the noise, Adam at 1e-4, two clips a
batch, an average of decay 0.995, 10,000 steps, guidance of 2. It is rebuilt here from that description, with the
properties that limit it.

What is not the method but a slip of the original is given its best case, so that the comparison is fair:
    data          the circle world's training split (the original's captions named shapes that were never drawn)
    gradients     of text-conditioned steps too (the original went backward only in the branch without text)
    no text       a vector that learns, in a tenth of the clips (the original passed no such share)
    text          our encoder, trained along (the original asks a frozen BERT, which cannot be had offline)
    size          64 x 64 and ten frames, as the world is examined (the original: 32 x 32 and five)
    steps         1,000 in training, `--sampling-steps` of them in sampling (the original: 10)
"""

import copy
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from peers import Budget, arguments, run
from torch import Tensor, nn
from torch.nn import functional as F

from kinetograph.evaluation import Subject
from kinetograph.media import Frames
from kinetograph.neural import device as devices
from kinetograph.neural import pixels, sampling
from kinetograph.neural.models import text
from kinetograph.neural.training import batches
from kinetograph.shelf import WORLDS

WIDTH, TIMES, HEADS, HEAD = 64, (1, 2, 4, 8), 8, 32
SIDE, FRAMES = 64, 10
TRAINED = 1000  # levels of noise in training
BATCH, RATE, STEPS, DECAY, WORDLESS, GUIDANCE = 2, 1e-4, 10_000, 0.995, 0.1, 2.0
FAR = 32  # frames beyond which the position bias does not tell distances apart


def factorised(inputs: int, outputs: int) -> nn.Conv3d:
    """A convolution over space only."""
    return nn.Conv3d(inputs, outputs, (1, 3, 3), padding=(0, 1, 1))


class Block(nn.Module):
    """Two convolutions over space with group norms; what is told (b, d) scales and shifts between them."""

    def __init__(self, inputs: int, outputs: int, told: int) -> None:
        super().__init__()
        self.first, self.second = factorised(inputs, outputs), factorised(outputs, outputs)
        self.norms = nn.ModuleList(nn.GroupNorm(8, outputs) for _ in range(2))
        self.told = nn.Linear(told, 2 * outputs)
        self.past = nn.Conv3d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        scale, shift = self.told(F.silu(told))[:, :, None, None, None].chunk(2, dim=1)
        h = F.silu(self.norms[0](self.first(x)) * (1 + scale) + shift)
        return F.silu(self.norms[1](self.second(h))) + self.past(x)


class LinearAttention(nn.Module):
    """Sparse attention over the places of each frame: linear in their number."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, width)
        self.qkv, self.out = nn.Conv3d(width, 3 * HEADS * HEAD, 1, bias=False), nn.Conv3d(HEADS * HEAD, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, _, t, h, w = x.shape
        rows = self.qkv(self.norm(x)).transpose(1, 2).reshape(b * t, 3, HEADS, HEAD, h * w)
        q, k, v = rows.unbind(1)  # (b t, heads, d, places)
        context = k.softmax(dim=-1) @ v.transpose(-1, -2)
        made = (context.transpose(-1, -2) @ (q.softmax(dim=-2) * HEAD**-0.5)).reshape(b, t, HEADS * HEAD, h, w)
        return x + self.out(made.transpose(1, 2))


class TemporalAttention(nn.Module):
    """Attention over the frames at each place, with rotary embedding and a bias for each distance in time."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * HEADS * HEAD, bias=False), nn.Linear(HEADS * HEAD, width, bias=False)
        self.bias = nn.Embedding(2 * FAR + 1, HEADS)

    def forward(self, x: Tensor) -> Tensor:
        b, c, t, h, w = x.shape
        rows = x.permute(0, 3, 4, 2, 1).reshape(b * h * w, t, c)
        q, k, v = self.qkv(self.norm(rows)).view(-1, t, 3, HEADS, HEAD).permute(2, 0, 3, 1, 4)
        place = torch.arange(t, device=x.device)
        bias = self.bias((place[None] - place[:, None]).clamp(-FAR, FAR) + FAR).permute(2, 0, 1)
        made = F.scaled_dot_product_attention(rotated(q), rotated(k), v, attn_mask=bias)
        rows = rows + self.out(made.transpose(1, 2).flatten(2))
        return rows.view(b, h, w, t, c).permute(0, 4, 3, 1, 2)


def rotated(x: Tensor) -> Tensor:
    """Queries or keys (..., t, d), each pair of numbers turned by an angle that grows with time (Su et al. 2021)."""
    t, d = x.shape[-2:]
    angles = torch.arange(t, device=x.device)[:, None] * 10_000.0 ** (-torch.arange(0, d, 2, device=x.device) / d)
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()], dim=-1).flatten(-2)


class Level(nn.Module):
    """Two blocks, attention over space and over time, and on the way down or up a change of size."""

    def __init__(self, inputs: int, outputs: int, told: int, resize: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(inputs, outputs, told), Block(outputs, outputs, told)])
        self.attend = nn.Sequential(LinearAttention(outputs), TemporalAttention(outputs))
        self.resize = resize

    def forward(self, x: Tensor, told: Tensor) -> tuple[Tensor, Tensor]:
        """What goes on, and what is remembered for the way up."""
        for block in self.blocks:
            x = block(x, told)
        x = self.attend(x)
        return self.resize(x), x


class Network(nn.Module):
    """(noisy clip (b, 3, t, h, w), step (b,), token ids (b, l), who has no text (b,)) -> the noise in it."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.text = text.Model(text.Config(vocabulary=vocabulary, **text.PRESETS["small"]))
        self.silence = nn.Parameter(torch.randn(self.text.config.width))
        told = 4 * WIDTH + self.text.config.width
        self.time = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, 4 * WIDTH))
        self.first = nn.Sequential(nn.Conv3d(3, WIDTH, (1, 7, 7), padding=(0, 3, 3)), TemporalAttention(WIDTH))
        widths = [WIDTH, *(WIDTH * k for k in TIMES)]
        steps = [*pairwise(widths)]
        self.down = nn.ModuleList(
            Level(a, b, told, nn.Conv3d(b, b, (1, 4, 4), (1, 2, 2), (0, 1, 1)) if b != widths[-1] else nn.Identity())
            for a, b in steps
        )
        deep = widths[-1]
        self.middle = nn.ModuleList([Block(deep, deep, told), Block(deep, deep, told)])
        self.between = TemporalAttention(deep)
        self.up = nn.ModuleList(
            Level(2 * b, a, told, nn.ConvTranspose3d(a, a, (1, 4, 4), (1, 2, 2), (0, 1, 1)) if i else nn.Identity())
            for i, (a, b) in reversed([*enumerate(steps)])
        )
        self.last = Block(2 * WIDTH, WIDTH, told)
        self.out = nn.Conv3d(WIDTH, 3, 1)

    def forward(self, x: Tensor, step: Tensor, ids: Tensor, silent: Tensor) -> Tensor:
        words = torch.where(silent[:, None], self.silence, self.text(ids).whole)
        told = torch.cat([self.time(sinusoids(step)), words], dim=1)
        x = self.first(x)
        start, remembered = x, []
        for level in self.down:
            x, kept = level(x, told)
            remembered.append(kept)
        x = self.middle[1](self.between(self.middle[0](x, told)), told)
        for level in self.up:
            x, _ = level(torch.cat([x, remembered.pop()], dim=1), told)
        return self.out(self.last(torch.cat([x, start], dim=1), told))


def sinusoids(step: Tensor) -> Tensor:
    """Steps (b,) as sines and cosines (b, WIDTH)."""
    rates = torch.exp(-math.log(10_000) * torch.arange(WIDTH // 2, device=step.device) / (WIDTH // 2 - 1))
    angles = step[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


@dataclass(frozen=True)
class Training:
    """What a training came to: minutes of a core on a CPU, of the clock on a GPU. The loss is the mean of its last
    hundred steps."""

    steps: int
    minutes: float
    loss: float
    parameters: int
    device: str


def train(world: ModuleType, budget: Budget) -> tuple[Network, text.Vocabulary, Training]:
    """Train until the steps or the minutes are used up, whichever comes first; the averaged network is given back."""
    torch.manual_seed(budget.seed)
    vocabulary = text.Vocabulary(world.words())
    network = Network(len(vocabulary)).to(budget.device)
    average = copy.deepcopy(network)
    optimiser = torch.optim.Adam(network.parameters(), RATE)
    losses: list[float] = []
    clock = time.process_time if budget.device.type == "cpu" else time.monotonic
    start = clock()
    for clips, captions in clips_and_captions(world, budget):
        if len(losses) == budget.steps or clock() - start > 60 * budget.minutes:
            break
        ids = vocabulary.encode(captions, network.text.config.length).to(budget.device)
        loss = error(network, clips, ids)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        decay = min(DECAY, len(losses) / (len(losses) + 20))  # so that a short budget is not spent on forgetting
        with torch.no_grad():
            for kept, new in zip(average.parameters(), network.parameters(), strict=True):
                kept.lerp_(new, 1 - decay)
        losses.append(loss.item())
        if len(losses) % 100 == 0:
            print(f"step {len(losses)}: {sum(losses[-100:]) / 100:.4f}", flush=True)
    taken, last = round((clock() - start) / 60, 2), losses[-100:]
    count = sum(p.numel() for p in network.parameters())
    return (
        average.eval(),
        vocabulary,
        Training(len(losses), taken, sum(last) / max(1, len(last)), count, str(budget.device)),
    )


def error(network: Network, clips: Tensor, ids: Tensor) -> Tensor:
    """The mean distance between the noise in clips (b, 3, t, h, w) and what the network takes for it."""
    alphas = kept_signal().to(clips.device)
    step = torch.randint(TRAINED, (len(clips),), device=clips.device)
    signal = alphas[step][:, None, None, None, None]
    noise = torch.randn_like(clips)
    silent = torch.rand(len(clips), device=clips.device) < WORDLESS
    made = network(signal.sqrt() * clips + (1 - signal).sqrt() * noise, step, ids, silent)
    return F.l1_loss(made, noise)


def kept_signal() -> Tensor:
    """The cosine schedule's products of alpha, (TRAINED,) (Nichol and Dhariwal 2021)."""
    return torch.cumprod(1 - sampling.cosine_betas().float(), dim=0)


def clips_and_captions(world: ModuleType, budget: Budget) -> Iterator[tuple[Tensor, list[str]]]:
    """Batches of clips (b, 3, t, h, w) of the training split in [-1, 1], with their captions; without end."""
    step = 0
    while True:
        drawn = batches.draw(world, budget.seed, step, range(BATCH), FRAMES, SIDE, budget.device)
        yield drawn.clips, drawn.captions
        step += 1


def peer(network: Network, vocabulary: text.Vocabulary, device: torch.device, steps: int) -> Subject:
    """The trained peer as something to be examined: ancestral sampling with guidance, the clean estimate clipped."""
    alphas, path = kept_signal(), torch.linspace(TRAINED - 1, 0, steps).round().long().tolist()

    def clean(x: Tensor, place: int, ids: Tensor) -> Tensor:
        step, silent = torch.full((2,), place, device=device), torch.tensor([False, True], device=device)
        said, unsaid = network(x.expand(2, -1, -1, -1, -1), step, ids.expand(2, -1), silent)
        noise = unsaid + GUIDANCE * (said - unsaid)
        return ((x - (1 - alphas[place]).sqrt() * noise) / alphas[place].sqrt()).clamp(-1, 1)

    def make(prompt: str, seed: int) -> tuple[Frames, float]:
        start = time.perf_counter()
        ids = vocabulary.encode([prompt], network.text.config.length).to(device)
        source = [devices.noise(seed, k, shape=(1, 3, FRAMES, SIDE, SIDE)).to(device) for k in range(steps)]
        x = source[0]
        with torch.inference_mode():
            for k, place in enumerate(path):
                guess = clean(x, place, ids)
                x = stepped(x, guess, alphas, place, path[k + 1], source[k + 1]) if k + 1 < steps else guess
        return pixels.to_frames(x)[0], time.perf_counter() - start

    return Subject(name="tutorial-diffusion", make=make, device=str(device), versions=devices.versions(device))


def stepped(x: Tensor, clean: Tensor, alphas: Tensor, now: int, to: int, noise: Tensor) -> Tensor:
    """One ancestral step, from the level of one step to that of a lower one (Ho et al. 2020, equations 6 and 7)."""
    before, after = alphas[now], alphas[to]
    alpha = before / after
    mean = (after.sqrt() * (1 - alpha) * clean + alpha.sqrt() * (1 - after) * x) / (1 - before)
    return mean + ((1 - alpha) * (1 - after) / (1 - before)).sqrt() * noise


def trained(budget: Budget, out: Path, steps: int) -> tuple[Subject, dict[str, Any]]:
    """The peer after its training, whose weights are kept in `out`."""
    network, vocabulary, training = train(WORLDS["circle"], budget)
    torch.save(network.state_dict(), out / "tutorial_diffusion.pt")
    return peer(network, vocabulary, budget.device, steps), asdict(training)


def main() -> None:
    """Examine the engines, train the peer, examine it too; write tutorial_diffusion.json and print the tables."""
    parser = arguments(__doc__, "tutorial-diffusion", STEPS)
    parser.add_argument("--sampling-steps", type=int, default=50)
    options = parser.parse_args()
    run(options, "tutorial_diffusion", lambda budget: trained(budget, options.out, options.sampling_steps))


if __name__ == "__main__":
    main()
