"""Whole files or none: text, tables and figures under a temporary name first."""

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kinetograph.errors import CannotWrite


def write(path: Path, content: bytes) -> None:
    """Replace a file in one step. Raises CannotWrite."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise CannotWrite.because(path, error) from error


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """One JSON object, indented."""
    write(path, (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A table with a header: every row has the first one's keys."""
    text = io.StringIO()
    table = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write(path, text.getvalue().encode())
