"""Numbers as files: JSON and tables."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kinetograph import files


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """One JSON object, indented."""
    files.write(path, (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A table with a header: every row has the first one's keys."""
    text = io.StringIO()
    table = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    files.write(path, text.getvalue().encode())
