"""A handful of pictures in a folder: found, opened, cut to squares; and what is no picture is named."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from kinetograph import files, media
from kinetograph.errors import TrainingError

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
MOST_PICTURES = 10_000


def pictures(folder: Path) -> list[Path]:
    """The pictures in a folder, by name, each of which can be read. Raises TrainingError, naming what is wrong."""
    if not folder.is_dir():
        raise TrainingError(f"{folder} is no folder of pictures", hint="name a folder that holds three or more")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES)
    if not 0 < len(found) <= MOST_PICTURES:
        others = sorted({path.suffix or "no suffix" for path in folder.iterdir()} - set(PICTURES))
        hint = f"pictures end in {' '.join(PICTURES)}" + (f"; here are {', '.join(others)}" if others else "")
        raise TrainingError(f"{folder} holds {len(found)} pictures", hint=hint)
    for path in found:
        _opened(path)
    return found


def _opened(path: Path) -> Image.Image:
    """A picture, upright, in RGB."""
    try:
        with Image.open(path) as picture:
            picture.load()
            return (ImageOps.exif_transpose(picture) or picture).convert("RGB")
    except media.DECODING_ERRORS as error:
        raise TrainingError(f"{path} cannot be read as a picture", hint=f"remove or mend it: {error}") from error


def sum_of(paths: Sequence[Path]) -> str:
    """One sum for these files: the same files, the same sum, wherever they lie."""
    return hashlib.sha256("".join(files.sha256(path) for path in paths).encode()).hexdigest()


def squares(paths: Sequence[Path], size: int) -> Tensor:
    """The largest square in the middle of each picture, in [-1, 1] (n, 3, size, size)."""
    cut = [ImageOps.fit(_opened(path), (size, size), Image.Resampling.LANCZOS) for path in paths]
    return torch.from_numpy(np.stack([np.asarray(square) for square in cut])).permute(0, 3, 1, 2).float() / 127.5 - 1
