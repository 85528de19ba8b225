"""A clip dissolves into noise, with the numbers beside it."""

import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from kinetograph import media
from kinetograph.engine import OnProgress, Progress, ignore
from kinetograph.errors import InvalidRequest
from kinetograph.explaining import numbers, plates
from kinetograph.explaining.schedule import named
from kinetograph.media import Frames
from kinetograph.shelf import WORLDS

if TYPE_CHECKING:
    from torch import Tensor

    from kinetograph.neural.sampling import Level

ROWS, COLUMNS = 7, 5  # of the sheet
LONG, FPS = 48, Fraction(12)  # frames of the clip, and how fast they are shown
FAINT = 0.05  # share of signal in the variance at which one frame shows next to nothing
MEANS = (1, 4, 16, 64)  # of so many frames


def show(
    sheet: Path,
    clip: Path,
    *,
    prompt: str | None = None,
    world: str = "circle",
    schedule: str = "flow",
    seed: int = 0,
    on_progress: OnProgress = ignore,
) -> None:
    """A world's own clip of the prompt, or of any scene, at the rising noise of a schedule.

    The last row of the sheet shows why video stands more noise than pictures: means over frames bring out what no
    single frame shows.
    """
    if seed < 0:
        raise InvalidRequest(f"seed is {seed}, less than nothing", field="seed", hint="nearest: 0")
    module, path = WORLDS[world], named(schedule)
    rng = np.random.default_rng(seed)
    scene = module.sample(rng, None if prompt is None else module.parse(prompt))
    said = module.caption(scene, rng) if prompt is None else prompt
    few = spread(path, ROWS)
    rows = [*_dissolving(_drawn(module, scene, COLUMNS), few, seed), means(_drawn(module, scene, MEANS[-1]), seed)]
    labels = [f"{'' if index else f'{said}:   '}{numbers.line(level)}" for index, level in enumerate(few)]
    media.write_contact_sheet(sheet, rows, [*labels, _told()], scale=max(1, 128 // module.HEIGHT))
    on_progress(Progress(step=1, steps=2))
    media.write(clip, _played(_drawn(module, scene, LONG), path, seed), FPS, overwrite=True)
    on_progress(Progress(step=2, steps=2))


def spread(things: Any, count: int) -> list[Any]:
    """So many of the things, evenly, the first and the last among them."""
    return [things[round(place)] for place in np.linspace(0, len(things) - 1, count)]


def _dissolving(clip: "Tensor", levels: "Sequence[Level]", seed: int) -> list[Frames]:
    """A clip (1, 3, t, h, w) at each of these levels, under the same noise each time."""
    from kinetograph.neural import device, sampling

    noise = device.noise(seed, shape=tuple(clip.shape))
    return [visible(sampling.noised(clip, noise, level), level) for level in levels]


def _played(clip: "Tensor", path: "Sequence[Level]", seed: int) -> Frames:
    """A clip (1, 3, t, h, w) that dissolves while it plays, with the numbers beside it."""
    from kinetograph.neural import device, sampling

    noise, levels = device.noise(seed, shape=tuple(clip.shape)), spread(path, clip.shape[2])
    frames = [
        visible(sampling.noised(clip[:, :, [place]], noise[:, :, [place]], level), level)
        for place, level in enumerate(levels)
    ]
    return np.stack([plates.plate([*frame], level, path) for frame, level in zip(frames, levels, strict=True)])


def visible(x: "Tensor", level: "Level") -> Frames:
    """A noisy clip (1, 3, t, h, w) as frames (t, h, w, 3), scaled to the variance of a clean one: else the noise of
    variance exploding would be all that one sees.
    """
    from kinetograph.neural import pixels

    return np.asarray(pixels.to_frames(x / math.hypot(level.alpha, level.sigma))[0])


def means(clip: "Tensor", seed: int) -> Frames:
    """Means over MEANS frames around the middle of a noisy clip (1, 3, t, h, w), all stretched to the same contrast."""
    import torch

    from kinetograph.neural import device, pixels, sampling

    level = sampling.Level(math.sqrt(FAINT), math.sqrt(1 - FAINT))
    x = sampling.noised(clip, device.noise(seed, shape=tuple(clip.shape)), level)
    middle = clip.shape[2] // 2
    pictures = [x[:, :, middle - (many // 2) :][:, :, :many].mean(2, keepdim=True) for many in MEANS]
    return np.asarray(pixels.to_frames(torch.cat([0.5 * (one - one.mean()) / one.std() for one in pictures], 2))[0])


def _drawn(module: ModuleType, scene: Any, frames: int) -> "Tensor":
    """One performance of a scene in so many frames, (1, 3, t, h, w)."""
    import torch

    from kinetograph.neural import pixels

    return pixels.to_model(torch.from_numpy(np.array(module.draw([scene], frames, module.HEIGHT, module.WIDTH))))


def _told() -> str:
    many = ", ".join(map(str, MEANS[1:]))
    return f"{FAINT:.0%} of the variance is signal: one frame, then means over {many} frames of the same performance"
