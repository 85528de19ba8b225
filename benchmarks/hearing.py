"""What is heard of motion in a sentence: by the network that sets stills in motion, and in the text encoder's summary.

    python benchmarks/hearing.py unfinished/image-to-video

For held-out sentences of each world, the part of where figures go (the way of their middle from the middle frame, mean
square, over all frames in which they are seen) that is explained by what the network tells of the sentence alone, and
by a perceptron that learns it from the pooled output of the text encoder of stills on sentences of the training split.
1 is all; 0 is no more than that everything stands still.
"""

import argparse
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from kinetograph import weights
from kinetograph.engines import flow as engine
from kinetograph.neural import seeing
from kinetograph.neural.models import image_to_video
from kinetograph.neural.training import batches, stills
from kinetograph.neural.training import image_to_video as training
from kinetograph.shelf import WORLDS

STEPS, BATCH, RATE, WIDTH, SIDE, HELD_OUT = 800, 64, 2e-3, 256, 16, 256


def main() -> None:
    """Print a table."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("checkpoint", type=Path)
    ask.add_argument("--count", type=int, default=4000, help="sentences that the perceptron learns from")
    said = ask.parse_args()
    seen = cast(seeing.Latents, engine.load(str(said.checkpoint), "cpu")._seen["float32"])
    print("| world | the network | a perceptron on the summary |\n|---|---|---|")
    for name in weights.configuration(said.checkpoint)["worlds"]:
        ids, gone = asked(seen, name, HELD_OUT, "heldout")
        own = explained(network(seen, ids), gone)
        other = explained(perceptron(seen, asked(seen, name, said.count, "train"), ids), gone)
        print(f"| {name} | {own:.2f} | {other:.2f} |", flush=True)


def asked(seen: seeing.Latents, name: str, count: int, split: str) -> tuple[Tensor, Tensor]:
    """Token ids of sentences, and where what they tell of goes, (n, t, 2) in cells: no number where nothing is seen."""
    world = WORLDS[name]
    rngs = [batches.source(12, 0 if split == "train" else 1, place) for place in range(count)]
    scenes = [world.sample(rng, split=split) for rng in rngs]
    captions = [world.caption(scene, rng) for scene, rng in zip(scenes, rngs, strict=True)]
    covered = stills.covered({name: world}, [name] * count, scenes, (seen.frames, SIDE, SIDE))
    where = training.middles(covered)
    return seen.ids(captions), where - where[:, image_to_video.middle(seen.frames), None]


@torch.inference_mode()
def network(seen: seeing.Latents, ids: Tensor) -> Tensor:
    """Where things go by what the network hears."""
    net, level = seen.model.network, torch.ones(len(ids), seen.frames)
    level[:, image_to_video.middle(seen.frames)] = 0
    words = seen.model.stills.reader(ids).last_hidden_state
    return net.courses(net.listen(words), image_to_video.nearest(level == 0), level)


def perceptron(seen: seeing.Latents, learnt: tuple[Tensor, Tensor], ids: Tensor) -> Tensor:
    """Where things go by what a perceptron learns from summaries of sentences."""
    torch.manual_seed(1)
    told, new = (summaries(seen, some) for some in (learnt[0], ids))
    frames = learnt[1].shape[1]
    layers = [nn.Linear(told.shape[1], WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH), nn.GELU()]
    net = nn.Sequential(*layers, nn.Linear(WIDTH, 2 * frames), nn.Unflatten(1, (frames, 2)))
    optimiser = torch.optim.AdamW(net.parameters(), RATE)
    for step in range(STEPS):
        optimiser.param_groups[0]["lr"] = RATE * min(1.0, 2 * (STEPS - step) / STEPS)
        rows = torch.randint(len(told), (BATCH,))
        optimiser.zero_grad()
        training.strayed(net(told[rows]), learnt[1][rows]).backward()
        optimiser.step()
    with torch.no_grad():
        return cast(Tensor, net(new))


@torch.no_grad()
def summaries(seen: seeing.Latents, ids: Tensor) -> Tensor:
    """The pooled output of the text encoder (n, d)."""
    return torch.cat([seen.model.stills.reader(some).pooler_output for some in ids.split(256)])


def explained(told: Tensor, gone: Tensor) -> float:
    """The part of the square of where things went that is not left over."""
    seen = gone.isfinite()
    return float(1 - (told - gone)[seen].square().mean() / gone[seen].square().mean())


if __name__ == "__main__":
    main()
