"""How strongly a sentence should guide the pocket model's stills.

    python benchmarks/stills.py --world shapes --guidance 1.5 2 3 4 --count 120

Of each guidance the share of held-out stills of one thing in which the world reads every attribute that the sentence
asks for, all of the same sentences and noise, sampled as the engine `zero` does by default.
"""

import argparse
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from kinetograph import trials, weights
from kinetograph.engines.zero.options import PocketOptions
from kinetograph.metrics import proportion
from kinetograph.neural import device, pixels, sampling
from kinetograph.neural.pictures import folder
from kinetograph.neural.training import stills
from kinetograph.neural.zeroshot import loop
from kinetograph.shelf import WORLDS

AT_ONCE = 20


def sentences(world: ModuleType, seed: int, count: int) -> list[str]:
    """Sentences on held-out stills of one thing each."""
    rng = np.random.default_rng(seed)
    return [world.still_caption(trials.sampled(world, rng, "heldout", alone=True), rng) for _ in range(count)]


def drawn(pictures: Any, prompts: list[str], seeds: range, options: PocketOptions, size: int = 128) -> np.ndarray:
    """A still (h, w, 3) of each sentence, from the noise of its seed."""
    wordless = pictures.words([""] * len(prompts), size, size, negative=True)
    told = loop.guided(pictures.words(prompts, size, size), wordless, options.guidance)
    denoise = loop.frames_denoiser(pictures.predict, pictures.prediction, told)
    shape, levels = (pictures.channels, 1, size // 8, size // 8), pictures.levels(options.steps, options.placement)

    def noise(*path: int) -> torch.Tensor:
        return torch.stack([device.noise(seed, *path, shape=shape) for seed in seeds])

    found = sampling.sample(
        denoise,
        sampling.begin(noise(0), levels[0]),
        levels,
        options.sampler,
        noise_source=lambda *path: noise(1, *path),
        eta=options.eta,
        fresh_above=loop.SD.at(options.eta_above) if options.eta_above else sampling.CLEAN,
    )
    return np.asarray(pixels.to_frames(pictures.decode(found[:, :, 0])[:, :, None])[:, 0])


def right(world: ModuleType, prompt: str, still: np.ndarray) -> bool:
    """Whether the world reads in a still all that its sentence says and a still can show."""
    said = world.shown(stills.asked(world, prompt))
    return bool(said.items() <= world.glimpse(still, said).items())


def main() -> None:
    """Print the shares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pocket-image")
    parser.add_argument("--world", default="shapes")
    parser.add_argument("--guidance", type=float, nargs="+", default=[PocketOptions().guidance])
    parser.add_argument("--steps", type=int, default=PocketOptions().steps)
    parser.add_argument("--count", type=int, default=120)
    parser.add_argument("--seed", type=int, default=100)
    asked = parser.parse_args()
    world = WORLDS[asked.world]
    pictures = folder.load(Path(weights.path_of(asked.model)), "sd", "float32", torch.device("cpu"))
    prompts = sentences(world, asked.seed, asked.count)
    for guidance in asked.guidance:
        options = PocketOptions(guidance=guidance, steps=asked.steps)
        parts = [range(first, min(first + AT_ONCE, asked.count)) for first in range(0, asked.count, AT_ONCE)]
        shown = np.concatenate([drawn(pictures, prompts[part.start : part.stop], part, options) for part in parts])
        score = proportion([right(world, prompt, still) for prompt, still in zip(prompts, shown, strict=True)])
        said = f"{score.value:.3f} ({score.low:.2f} to {score.high:.2f})"
        print(f"{asked.world}, guidance {guidance:g}, {asked.steps} steps: {said} of {asked.count}", flush=True)


if __name__ == "__main__":
    main()
