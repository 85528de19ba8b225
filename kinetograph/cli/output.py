"""How the commands speak: text or JSON on stdout, warnings, errors and progress on stderr."""

import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, TextIO

import typer
from typer.core import TyperCommand

from kinetograph.errors import KinetographError

DEFAULT_ENGINE = "flow"  # engine.DEFAULT_ENGINE, repeated: importing that module takes longer than printing the help
DEFAULT_CONTINUER = "flow"  # the engine of the package that goes on from frames
DEFAULT_EDITOR = "zero:pocket-edit"  # the model of edits that comes with the package
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, errors included, on stdout.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, or cuda.")]


class Command(TyperCommand):
    """A command that turns what the library raises on purpose into a message and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; an error goes to stderr, or with --json to stdout."""
        try:
            return super().invoke(ctx)
        except KinetographError as error:
            say_error(error, ctx.params.get("as_json", False))
            raise typer.Exit(error.exit_code) from error


def say_error(error: KinetographError, as_json: bool) -> None:
    """Print an error: its message and, where there is one, its hint."""
    if as_json:
        facts = {"type": type(error).__name__, "message": str(error), "hint": error.hint, "exit_code": error.exit_code}
        say_json({"error": facts})
        return
    typer.echo(f"error: {error}" + (f"\nhint: {error.hint}" if error.hint else ""), err=True)


def say_json(content: Mapping[str, Any]) -> None:
    """Print one JSON object, indented, as it is: no letter is escaped that need not be."""
    typer.echo(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False))


def say(content: Mapping[str, Any], lines: Sequence[str], as_json: bool) -> None:
    """Print the outcome of a command, for a program or for a person."""
    if as_json:
        say_json(content)
    else:
        typer.echo("\n".join(lines))


@contextmanager
def listening(as_json: bool) -> Iterator[list[str]]:
    """Collect what the library warns of; without --json, show each at once as `warning: ...`."""
    heard: list[str] = []

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        heard.append(str(message))
        if not as_json:
            typer.echo(f"warning: {message}", err=True)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)  # what is meant for whoever asked; the rest is for developers
        warnings.showwarning = show
        yield heard


Advance = Callable[[int, int, str], None]


def speaks() -> bool:
    """Whether this process tells what came of it, and keeps it: of those that torchrun began, only the first one."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def progress(label: str, wanted: bool = True) -> Iterator[Advance]:
    """A bar on stderr, told (done, of how many, a few words); silent where nobody watches or it is not wanted."""
    if not (wanted and sys.stderr.isatty()):
        yield lambda done, total, words: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[words]}"),
    )
    # Drawn when there is something to tell: a thread that draws by the clock would forbid forks (see dataset).
    with Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=False) as bar:
        task, drawn = bar.add_task(label, total=None, words=""), 0.0

        def advance(done: int, total: int, words: str) -> None:
            nonlocal drawn
            due = time.monotonic() > drawn + 0.1 or done == total
            drawn = time.monotonic() if due else drawn
            bar.update(task, completed=done, total=total, words=words, refresh=due)

        yield advance


def table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows of text as lines with aligned columns; the last column is as long as it is."""
    widths = [max(map(len, column)) for column in list(zip(*rows, strict=True))[:-1]]
    return ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[-1]]).rstrip() for row in rows]
