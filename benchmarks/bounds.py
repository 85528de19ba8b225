"""What the pocket model's autoencoder leaves of the scores that its companions can have.

    python benchmarks/bounds.py --count 24

Clips that would be right, encoded and drawn again, judged as if an engine had made them: no companion whose pictures
come out of these latents can be expected to do better, but for what an edit takes from its source (`keep`).
"""

import argparse
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kinetograph import trials, weights
from kinetograph.engines.zero import modes
from kinetograph.media import Frames
from kinetograph.neural import pixels
from kinetograph.neural.pictures import folder
from kinetograph.shelf import WORLDS
from kinetograph.trials import depth, edge, edit, pose

TRIALS = {"edge": edge, "depth": depth, "pose": pose, "edit": edit}
SHAPE = trials.Shape(8, 128, 128, Fraction(4))


def again(pictures: Any, frames: Frames) -> Frames:
    """Frames (t, h, w, 3) as the autoencoder draws them again."""
    return np.asarray(pixels.to_frames(pictures.decode(modes.encoded(pictures, frames), 2, False)[:, :, None])[:, 0])


def main() -> None:
    """Print a line for every trial."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pocket-image")
    parser.add_argument("--world", default="critters")
    parser.add_argument("--count", type=int, default=24)
    said = parser.parse_args()
    world = WORLDS[said.world]
    pictures = folder.load(Path(weights.path_of(said.model)), "sd", "float32", torch.device("cpu"))
    for name, trial in TRIALS.items():
        rng = np.random.default_rng(5)
        with tempfile.TemporaryDirectory() as aside:
            asked = [trial.ask(world, rng, SHAPE, Path(aside), "heldout") for _ in range(said.count)]
        score = trial.score([again(pictures, one.truth) for one in asked], asked, world)[name]
        parts = ", ".join(f"{part} {value.value:.3f}" for part, value in score.parts.items())
        print(f"{name}: {score.value:.3f} ({score.low:.3f} to {score.high:.3f}) {score.unit}; {parts}", flush=True)


if __name__ == "__main__":
    main()
