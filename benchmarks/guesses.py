"""What a pocket model of pictures guesses of noised stills, and what its guesses miss in figures and behind them.

    python benchmarks/guesses.py kinetograph/weights/pocket-image

One step each, no sampling: where a model stands long before its samples show it. For each world and each time (of
999, the more the noisier) the mean square error of the guess in the latents' cells that figures cover, and in the
others. `--out FILE.png` shows the first guesses of each world, clean ones first.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kinetograph import media
from kinetograph.neural import pixels, sampling
from kinetograph.neural.pictures import folder, pocket
from kinetograph.neural.training import pocket as learning
from kinetograph.neural.training import recipes, stills
from kinetograph.neural.zeroshot import loop
from kinetograph.shelf import WORLDS

TIMES = (100, 300, 500, 600, 700, 800, 900)
SHOWN, CPU = 4, torch.device("cpu")


def guessed(pictures: folder.Pictures, latents: Tensor, captions: Sequence[str], time: int) -> Tensor:
    """What the model takes for clean in latents (n, c, h, w) that are noised to a time."""
    signal = float(pictures.pipe.scheduler.alphas_cumprod[time])
    level = sampling.Level(math.sqrt(signal), math.sqrt(1 - signal), time)
    side = pocket.CELL * latents.shape[-1]
    denoise = loop.frames_denoiser(
        pictures.predict, pictures.prediction, [(1.0, pictures.words(list(captions), side, side))]
    )
    noise = torch.randn(latents.shape, generator=torch.manual_seed(time))
    return denoise(sampling.noised(latents, noise, level)[:, :, None], level)[:, :, 0]


def frames(pictures: folder.Pictures, latents: Tensor) -> np.ndarray:
    """Pictures (n, h, w, 3) of latents."""
    return pixels.to_frames(pictures.decode(latents)[:, :, None])[:, 0]


def missed(pictures: folder.Pictures, world: str, count: int) -> tuple[list[list[float]], np.ndarray, list[str]]:
    """For each time the errors in figures and behind them; the first stills and guesses, and their captions."""
    worlds, size = {world: WORLDS[world]}, recipes.pocket_image().size
    found = stills.draw(worlds, {world: 1.0}, 77, 1, range(count), 1, size, CPU)
    true = pixels.signed(found.pictures)
    latents = learning.encoded(pictures.vae, true)
    cells = (1, *latents.shape[2:])
    figures = stills.covered(worlds, found.worlds, found.scenes, cells, found.times[:, None]).expand_as(latents)
    errors, shown = [], [pixels.to_frames(true[:SHOWN, :, None])[:, 0]]
    for time in TIMES:
        guess = guessed(pictures, latents, found.captions, time)
        wrong = (guess - latents).square()
        errors.append([float((wrong * part).sum() / part.sum()) for part in (figures, 1 - figures)])
        shown.append(frames(pictures, guess[:SHOWN]))
    return errors, np.stack(shown, axis=1), found.captions[:SHOWN]


def main() -> None:
    """Print the tables, and write the sheet where one is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of a model, or of a run of pocket-image")
    parser.add_argument("--count", type=int, default=32, help="stills of each world")
    parser.add_argument("--out", type=Path, help="a contact sheet")
    asked = parser.parse_args()
    pictures = folder.load(asked.folder, "sd", "float32", CPU)
    rows, captions = [], []
    print("time      " + "".join(f"{time:8}" for time in TIMES))
    for name in recipes.pocket_image().worlds:
        errors, shown, told = missed(pictures, name, asked.count)
        for part, values in zip(("figures", "behind"), zip(*errors, strict=True), strict=True):
            print(f"{name:10}" + "".join(f"{value:8.3f}" for value in values) + f"  {part}", flush=True)
        rows += list(shown)
        captions += told
    if asked.out:
        media.write_contact_sheet(asked.out, rows, captions, scale=1)


if __name__ == "__main__":
    main()
