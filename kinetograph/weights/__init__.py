"""The checkpoints that come with the package, and how any checkpoint folder is found, checked and described without
torch.

A checkpoint is a folder: `model.safetensors`, whose header holds the configuration that shaped the weights;
`SHA256SUMS`, one line a file; `README.md`, the card. The sums are checked at every load, because a safetensors file
with one flipped bit loads without complaint.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from kinetograph import files, gate
from kinetograph.errors import UnknownName, WeightsError

HERE = Path(__file__).parent
MODEL, SUMS, CARD = "model.safetensors", "SHA256SUMS", "README.md"


def bundled() -> list[str]:
    """Names of the checkpoints that come with the package."""
    return sorted(path.parent.name for path in HERE.glob(f"*/{MODEL}"))


POCKET = "pocket-image"  # the picture model of the package
COMPANIONS = {kind: f"pocket-{kind}" for kind in ("edge", "depth", "pose", "edit")}  # and what goes with it


def pictures() -> list[str]:
    """Names of the picture models, and of their companions, that come with the package: folders as diffusers reads
    them."""
    return sorted({path.parent.name for name in ("model_index.json", "config.json") for path in HERE.glob(f"*/{name}")})


def path_of(name: str) -> str:
    """The folder of a picture model or a companion that comes with the package; any other name as it is.

    Raises WeightsError for one that should come with the package and is not there, or was altered.
    """
    if name in pictures():
        compare(HERE / name, declared(HERE / name, ""), _remembered)
        return str(HERE / name)
    if name in (POCKET, *COMPANIONS.values()) and not Path(name).exists():
        made = name.replace("pocket-image", "pocket-autoencoder, then pocket-image")
        hint = f"name another model's folder, or train it: the recipe {made}"
        raise WeightsError(f"the weights {name} are not in this copy of the package", hint=hint)
    return name


def locate(name: str) -> Path:
    """The folder of a checkpoint: a bundled name, or a path to a folder that holds one.

    Raises UnknownName where neither exists, WeightsError where a folder holds no checkpoint.
    """
    if name in bundled():
        return HERE / name
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise UnknownName("checkpoint", name, bundled())
    if not (folder / MODEL).is_file():
        raise WeightsError(
            f"{folder} holds no checkpoint", hint=f"a checkpoint folder holds a file {MODEL}; training writes one"
        )
    return folder


def configuration(folder: Path, kind: str = "") -> dict[str, Any]:
    """The configuration in the header of a checkpoint, read without loading a tensor.

    Raises WeightsError for a broken header and for a checkpoint of another kind, where one is asked for.
    """
    found = _header(folder / MODEL)
    if kind and found.get("kind") != kind:
        hint = f"it says it is of the kind {found.get('kind', 'none')!r}"
        raise WeightsError(f"the checkpoint in {folder} is not of the kind {kind!r}", hint=hint)
    return found


def _header(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(gate.whole_header(path)[gate.METADATA]["configuration"])
        if not isinstance(found, dict):
            raise TypeError("the configuration is not a table")
        return found
    except (WeightsError, ValueError, KeyError, TypeError) as error:
        said = error.hint if isinstance(error, WeightsError) else f"its header could not be read: {error}"
        raise WeightsError(f"{path} is not a checkpoint of this project", hint=said) from error


@contextmanager
def understood(folder: Path) -> Iterator[None]:
    """Within, a header that lacks something, or says something that the code does not know, is a WeightsError."""
    try:
        yield
    except (AttributeError, KeyError, TypeError) as error:
        hint = f"another version of kinetograph wrote it, or it is damaged ({type(error).__name__}: {error})"
        raise WeightsError(f"the checkpoint in {folder} does not fit this version", hint=hint) from error


def declared(folder: Path, needed: str = MODEL) -> dict[str, str]:
    """The sha256 that SHA256SUMS states for each file, not yet compared. Raises WeightsError for sums that are missing
    or damaged, or lack the file that is needed."""
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
        sums = {name.strip(): digest for digest, name in (line.split("  ", 1) for line in lines if line.strip())}
    except (OSError, ValueError) as error:
        hint = "without its sums a checkpoint is not loaded"
        raise WeightsError(f"{folder / SUMS} is missing or damaged", hint=hint) from error
    if needed and needed not in sums:
        hint = "without its sum a checkpoint is not loaded"
        raise WeightsError(f"{folder / SUMS} does not list {needed}", hint=hint)
    return sums


def verify(folder: Path) -> str:
    """The sha256 of the weights, after comparing every file with SHA256SUMS. Raises WeightsError, naming the file that
    differs."""
    sums = declared(folder)
    compare(folder, sums)
    return sums[MODEL]


def compare(folder: Path, sums: Mapping[str, str], read: Callable[[Path], str] | None = None) -> None:
    """Read every file of these sums. Raises WeightsError, naming the file that differs."""
    for name, digest in sums.items():
        if (found := (read or sha256)(folder / name)) != digest:
            hint = f"its sha256 is {found[:12]}..., {SUMS} says {digest[:12]}...: fetch or train it again"
            raise WeightsError(f"{folder / name} was altered or cut short", hint=hint)


def _remembered(path: Path) -> str:
    """The sha256 of a file that was read once and has kept its size and time; a missing one is read, and refused."""
    try:
        state = path.stat()
    except OSError:
        return sha256(path)
    return _read_once(str(path), state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=256)
def _read_once(path: str, size: int, changed: int) -> str:
    return sha256(Path(path))


def seal(folder: Path, written: Iterable[Path] = ()) -> None:
    """Write SHA256SUMS for these files in a folder, else for its weights."""
    names = [path.relative_to(folder).as_posix() for path in sorted(set(written))] or [MODEL]
    files.write(folder / SUMS, "".join(f"{sha256(folder / name)}  {name}\n" for name in names))


def sha256(path: Path) -> str:
    """The sha256 of a file, in hexadecimal. Raises WeightsError where it cannot be read."""
    try:
        return files.sha256(path)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read", hint=f"the system says: {error.strerror}") from error
