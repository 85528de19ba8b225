"""`kinetograph convert`: pickled weights to safetensors, the one command that opens a pickle."""

from pathlib import Path
from typing import Annotated

import typer

from kinetograph.cli.output import Json, say

Source = Annotated[Path, typer.Argument(metavar="PATH", help="A file of pickled weights, or a model's folder.")]
Out = Annotated[
    Path | None,
    typer.Option("--out", help="The new file or folder; by default .safetensors beside it, or FOLDER-safe."),
]
Force = Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")]


def convert(path: Source, out: Out = None, force: Force = False, as_json: Json = False) -> None:
    """Make safetensors of pickled weights (.bin, .pt, .pth, .ckpt), in a process that can only make tensors."""
    from kinetograph import conversion

    made = conversion.convert(path, out, overwrite=force)
    facts = {"path": str(made.path), "weights": made.weights, "tensors": made.tensors, "left": made.left}
    left = f", left behind: {', '.join(made.left[:5])}" if made.left else ""
    say(facts, [str(made.path), f"{made.tensors} tensors in {len(made.weights)} files{left}"], as_json)
