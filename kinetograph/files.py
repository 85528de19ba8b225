"""Files that are whole or not there: written under a temporary name, flushed to the disk, then renamed."""

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from kinetograph.errors import CannotWrite


def fill(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file under a temporary name in the same folder, which then takes the path's place.

    Nothing is left behind when that fails. Raises CannotWrite for what the operating system refuses, and whatever else
    `write` raises.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:  # a keyboard interrupt must not leave a file behind either
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise CannotWrite.because(path, error) from error
        raise


def write(path: Path, content: bytes | str) -> None:
    """Replace a file in one step; a text is UTF-8. Raises CannotWrite."""
    fill(path, lambda temporary: temporary.write_bytes(content.encode() if isinstance(content, str) else content))


def sha256(path: Path) -> str:
    """The sha256 of a file, in hexadecimal. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
