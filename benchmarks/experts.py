"""Who sees what behind noise: the network that sets stills in motion, the model of stills, and both together.

    python benchmarks/experts.py unfinished/image-to-video

Mean square errors of the guesses of held-out clips of each world, the middle frame known, in noise that frames share as
the network learnt it: of the known frame alone, the network alone, the model of stills alone (which knows no other
frame), both by their share of the say, and both with what the network corrects.
"""

import argparse
import dataclasses
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from kinetograph import weights
from kinetograph.engines import flow as engine
from kinetograph.neural import flow, pixels, seeing
from kinetograph.neural.device import noise
from kinetograph.neural.models import image_to_video
from kinetograph.neural.training import batches
from kinetograph.shelf import WORLDS

LEVELS = (0.3, 0.5, 0.7, 0.85, 0.95)
CPU = torch.device("cpu")


def main() -> None:
    """Print a table."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("checkpoint", type=Path)
    ask.add_argument("--count", type=int, default=6, help="clips of each world")
    said = ask.parse_args()
    seen = cast(seeing.Latents, engine.load(str(said.checkpoint), "cpu")._seen["float32"])
    print("| world | level | known frame | network | stills | both | corrected |\n|---|---|---|---|---|---|---|")
    for name in weights.configuration(said.checkpoint)["worlds"]:
        for level, errors in measured(seen, name, said.count):
            print(f"| {name} | {level} | " + " | ".join(f"{error:.4f}" for error in errors) + " |")


@torch.inference_mode()
def measured(seen: seeing.Latents, name: str, count: int) -> list[tuple[float, list[float]]]:
    """For each level the five errors."""
    world, rng = WORLDS[name], batches.source(11, 0, 0)
    scenes = [world.sample(rng, split="heldout") for _ in range(count)]
    ids = seen.ids([world.caption(scene, rng, {}) for scene in scenes])
    clean = seen.encode(pixels.to_model(world.draw(scenes, seen.frames, 128, 128, xp=torch, device=CPU)))
    one = (count, clean.shape[1], 1, *clean.shape[3:])
    e = flow.related(noise(5, 0, shape=one), noise(5, 1, shape=tuple(clean.shape)), seen.shared)
    middle = image_to_video.middle(seen.frames)
    unknown = [frame for frame in range(seen.frames) if frame != middle]
    rows = []
    for s in LEVELS:
        level = torch.full((count, seen.frames), s)
        level[:, middle] = 0
        wide = level[:, None, :, None, None]
        guesses = guessed(seen.model, (1 - wide) * clean + wide * e, level, ids)
        known = clean[:, :, middle : middle + 1].expand_as(clean)
        rows.append((s, [float((g - clean)[:, :, unknown].square().mean()) for g in (known, *guesses)]))
    return rows


def guessed(experts: image_to_video.Experts, noisy: Tensor, level: Tensor, ids: Tensor) -> tuple[Tensor, ...]:
    """Of the network alone, the model of stills alone, both, and both with what is corrected."""
    network = experts.network
    config, share = network.config, network.share(level)[:, None, None, None, None]
    corrected, stills = experts(noisy, level, ids), experts.stills(noisy, level, ids)
    network.config = dataclasses.replace(config, passes=(-1.0, 0.0))
    alone = experts(noisy, level, ids)
    network.config = config
    return alone, stills, stills.lerp(alone, share), corrected


if __name__ == "__main__":
    main()
