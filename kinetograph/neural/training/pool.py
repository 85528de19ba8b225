"""Latents of a run's clips, kept in a file: an autoencoder takes as long for a clip as a small network's whole step, so
each clip is encoded when it is first met, and read the next time."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kinetograph import files
from kinetograph.errors import TrainingError


class Pool:
    """Latents (c, t, h, w) of clips by their numbers, in half precision: a .npy file, with what made them beside it.

    Several processes may fill it together: what they write for one clip is the same.
    """

    def __init__(self, path: Path, count: int, shape: Sequence[int], made_by: Mapping[str, Any]) -> None:
        """Open a pool of so many clips, or begin it. Raises TrainingError for one that was made otherwise, OSError."""
        said = path.with_suffix(".json")
        made = {**made_by, "shape": [count, *shape]}
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write(said, json.dumps(made, indent=2) + "\n")
            _begin(path, (count, *shape))
        if not said.exists() or json.loads(said.read_text()) != made:
            hint = f"name another file, or remove {path} and {said.name}"
            raise TrainingError(f"{path} holds latents of other clips, or of another autoencoder", hint=hint)
        self._rows = np.lib.format.open_memmap(path, mode="r+")

    def take(self, numbers: Sequence[int], make: Callable[[list[int]], Tensor]) -> Tensor:
        """Latents (n, c, t, h, w), float32, of these clips; those that are not there yet are made."""
        missing = sorted({number for number in numbers if not self._rows[number].any()})
        if missing:
            self._rows[missing] = make(missing).half().cpu().numpy()
        return torch.from_numpy(self._rows[list(numbers)].astype(np.float32))


def _begin(path: Path, shape: Sequence[int]) -> None:
    """A file of zeros that takes no room yet; that of another process, where it was faster."""
    mine = path.with_name(f".{path.name}.{os.getpid()}.npy")
    np.lib.format.open_memmap(mine, mode="w+", dtype=np.float16, shape=tuple(shape)).flush()
    try:
        os.link(mine, path)
    except FileExistsError:
        pass
    finally:
        mine.unlink()
