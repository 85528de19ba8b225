"""Do the latents of an autoencoder look like a picture, or like noise?

    python benchmarks/latents.py kinetograph/weights/pocket-image

The share of the variance within stills of the worlds that lies in waves of each length, in cells: of the latents,
beside the stills themselves at a cell to a pixel. Diffusion hides short waves first. Then how well stills are drawn
again: the mean square error in [-1, 1], and of how many held-out ones the world still reads every attribute.
"""

import argparse
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kinetograph import trials
from kinetograph.neural import pixels
from kinetograph.neural.pictures import pocket
from kinetograph.neural.training import autoencoder, recipes, stills
from kinetograph.shelf import WORLDS

LENGTHS = (float("inf"), 10.0, 5.0, 3.3, 2.5, 1.0)  # of waves, in cells: the longest is the picture's own side


def shares(pictures: Tensor) -> list[float]:
    """Of pictures (n, c, h, w), the share of the variance within each that lies between two LENGTHS."""
    power = torch.fft.fft2(pictures - pictures.mean((2, 3), keepdim=True)).abs().square()
    down, across = (torch.fft.fftfreq(side) for side in pictures.shape[2:])
    waves = (down[:, None].square() + across.square()).sqrt()
    bands = [(waves > 1 / longer) & (waves <= 1 / shorter) for longer, shorter in pairwise(LENGTHS)]
    return [float(power[..., band].sum() / power.sum()) for band in bands]


def legible(coder: Any, world: ModuleType, size: int, count: int) -> tuple[int, int]:
    """Of how many held-out stills of one thing the world reads every attribute: as it drew them, and drawn again."""
    rng, read = np.random.default_rng(5), np.zeros(2, dtype=int)
    for _ in range(count):
        scene = trials.sampled(world, rng, "heldout", alone=True)
        still = trials.drawn(world, scene, trials.Shape(2, size, size, Fraction(8)))[:1]
        said = world.shown(world.attributes(scene))
        latents = coder.encode(pixels.to_model(torch.tensor(still[None]))[0].transpose(0, 1)).latent_dist.mean
        again = pixels.to_frames(coder.decode(latents).sample[:, :, None])[:, 0]
        read += [said.items() <= world.glimpse(frame, said).items() for frame in (still[0], again[0])]
    return int(read[0]), int(read[1])


@torch.no_grad()
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of a run of pocket-autoencoder, or of a whole model")
    parser.add_argument("--count", type=int, default=64, help="scenes, two stills of each")
    asked = parser.parse_args()
    coder = autoencoder.load(asked.folder).eval()
    recipe = recipes.pocket_image()
    worlds = {name: WORLDS[name] for name in recipe.worlds}
    where = (5, 1, range(asked.count), 2, recipe.size)
    pictures = pixels.signed(stills.draw(worlds, recipe.worlds, *where, torch.device("cpu")).pictures)
    latents = coder.encode(pictures).latent_dist.mean
    rows = zip(shares(latents), shares(torch.nn.functional.avg_pool2d(pictures, pocket.CELL)), strict=True)
    for (longer, shorter), (mine, theirs) in zip(pairwise(LENGTHS), rows, strict=True):
        print(f"waves of {shorter:4.1f} to {longer:4.1f} cells   latents {mine:5.1%}   picture {theirs:5.1%}")
    print(f"drawn again: {float((coder.decode(latents).sample - pictures).square().mean()):.5f}")
    for name, world in worlds.items():
        drawn, again = legible(coder, world, recipe.size, asked.count)
        print(f"{name:9}read right of {asked.count}: {drawn} as drawn, {again} drawn again")


if __name__ == "__main__":
    main()
