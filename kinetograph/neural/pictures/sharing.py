"""Models that share parts with another: a folder that holds only what is its own, and a file that names the model which
has the rest.

`sharing.json` says which model (a folder beside this one, one of the package, or any on this machine) and the sums of
those parts, so that another edition of them is not taken for the one that was meant.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kinetograph import files, gate, hub, weights
from kinetograph.errors import WeightsError

FILE = "sharing.json"


def write(folder: Path, index: Mapping[str, Any], source: Path, own: Sequence[str]) -> None:
    """Write the model_index.json of a model that has these parts of its own, and where the others are: in `source`."""
    others = [name for name in hub.parts(index) if name not in own]
    note(folder, source, others)
    kept = {name: value for name, value in index.items() if name not in others}
    files.write(folder / gate.INDEX, json.dumps(kept, indent=2) + "\n")


def note(folder: Path, source: Path, others: Sequence[str]) -> None:
    """Write which parts the model in `source` lends, and their sums."""
    beside = source.resolve().parent in (folder.resolve().parent, weights.HERE.resolve())
    said = {
        "model": source.name if beside else str(source),
        "sha256": {name: hub.digest(source / name) for name in others},
    }
    files.write(folder / FILE, json.dumps(said, indent=2) + "\n")


def lender(path: Path) -> tuple[Path, list[str]] | None:
    """The folder of the model that lends this one parts, and which; None for a model that is whole.

    Raises WeightsError where they are not those that were meant, and what `hub.locate` raises.
    """
    said = gate.settings(path / FILE) if (path / FILE).is_file() else {}
    name, sums = said.get("model"), said.get("sha256")
    if not (isinstance(name, str) and isinstance(sums, dict)):
        return None
    beside = path.parent / Path(name).name  # where both have been moved together
    found = hub.locate(str(beside) if beside.is_dir() else weights.path_of(name)).path
    for part, digest in sums.items():
        if not gate.is_inside(part) or hub.digest(found / part) != digest:
            hint = f"it was made with another {part} than that of {found}"
            raise WeightsError(f"{path} does not fit the model that it shares parts with", hint=hint)
    return found, list(sums)
