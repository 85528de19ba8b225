"""Latents of a run's clips, kept in a folder: an autoencoder takes as long for a clip as a small network's whole step,
so each clip is encoded when it is first met, and read the next time."""

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kinetograph import files
from kinetograph.errors import TrainingError

LATENTS, THERE, MADE_BY = "latents.npy", "there.npy", "made-by.json"


class Pool:
    """Latents (c, t, h, w) of clips by their numbers, in half precision.

    Several processes may fill it together: a clip is marked as there after its latents were written, and what two of
    them write for one clip is the same.
    """

    def __init__(self, folder: Path, count: int, shape: Sequence[int], made_by: Mapping[str, Any]) -> None:
        """Open a pool of so many clips, or begin it. Raises TrainingError for a folder that is none, or was made
        otherwise, and OSError."""
        made = json.loads(json.dumps({**made_by, "shape": [count, *shape]}))
        if not folder.exists():
            _begin(folder, (count, *shape), made)
        try:
            found = json.loads((folder / MADE_BY).read_text())
            self._rows, self._there = (np.load(folder / name, mmap_mode="r+") for name in (LATENTS, THERE))
        except (OSError, ValueError) as error:
            hint = "name another folder, or remove this one"
            raise TrainingError(f"{folder} holds no latents of clips: {error}", hint=hint) from error
        if found != made:
            hint = "name another folder, or remove this one"
            raise TrainingError(f"{folder} holds latents of other clips, or of another autoencoder", hint=hint)

    def take(self, numbers: Sequence[int], make: Callable[[list[int]], Tensor]) -> Tensor:
        """Latents (n, c, t, h, w), float32, of these clips; those that are not there yet are made."""
        missing = sorted({number for number in numbers if not self._there[number]})
        if missing:
            self._rows[missing] = make(missing).half().cpu().numpy()
            self._rows.flush()
            self._there[missing] = 1
        return torch.from_numpy(self._rows[list(numbers)].astype(np.float32))


def _begin(folder: Path, shape: Sequence[int], made: Mapping[str, Any]) -> None:
    """A folder of zeros that take no room yet; that of another process, where it was faster."""
    mine = folder.with_name(f".{folder.name}.{os.getpid()}")
    mine.mkdir(parents=True)
    for name, size, kind in ((LATENTS, tuple(shape), np.float16), (THERE, (shape[0],), np.uint8)):
        np.lib.format.open_memmap(mine / name, mode="w+", dtype=kind, shape=size).flush()
    files.write(mine / MADE_BY, json.dumps(made, indent=2) + "\n")
    try:
        mine.rename(folder)
    except OSError:
        shutil.rmtree(mine)
        if not folder.exists():
            raise
