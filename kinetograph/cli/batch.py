"""`kinetograph batch`: a file of prompts to a folder of clips, by several processes or on a Ray cluster."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kinetograph.cli import generate
from kinetograph.cli.output import DEFAULT_ENGINE, Device, Json, listening, progress
from kinetograph.errors import InvalidRequest

if TYPE_CHECKING:
    from kinetograph.batch import Entry
    from kinetograph.executors import Executor

File = Annotated[Path, typer.Argument(metavar="FILE", help="One prompt a line, or in a .jsonl one JSON object a line.")]
Out = Annotated[Path, typer.Option("--out-dir", help="The folder; what was interrupted there goes on.")]
Format = Annotated[str, typer.Option("--format", help="mp4, webm, gif, webp, apng, png or npz.")]
Workers = Annotated[
    int | None, typer.Option("--workers", help="Processes of this machine; by default this one makes everything.")
]
Ray = Annotated[
    str | None,
    typer.Option("--ray", metavar="ADDRESS", help="A Ray cluster: auto, local, or its address."),
]
Force = Annotated[bool, typer.Option("--force", help="Make everything anew.")]


def batch(
    file: File,
    out_dir: Out,
    engine: generate.Engine = DEFAULT_ENGINE,
    format: Format = "mp4",
    seed: generate.Seed = None,
    frames: generate.Count = None,
    fps: generate.Fps = None,
    size: generate.Size = None,
    options: generate.Set = None,
    workers: Workers = None,
    ray: Ray = None,
    device: Device = "auto",
    force: Force = False,
    no_provenance: generate.NoProvenance = False,
    no_enlarge: generate.NoEnlarge = False,
    as_json: Json = False,
) -> None:
    """Make a clip of every line of a file; the same command again goes on where it stopped."""
    from kinetograph import batch as batches

    lines = batches.read_lines(file)
    done, known = 0, len(lines)
    with listening(as_json) as heard, progress(engine) as advance:

        def tell(entry: "Entry") -> None:
            nonlocal done
            done += 1
            advance(done, known, "")
            if entry.error and not as_json:
                generate.say_failure(entry)

        outcome = batches.run(
            engine,
            lines,
            out_dir,
            seed=seed,
            format=format,
            settings=generate.settings_of(frames, fps, size, options or ()),
            device=device,
            provenance=not no_provenance,
            enlarge=1 if no_enlarge else None,
            overwrite=force,
            executor=_executor(workers, ray, device),
            on_entry=tell,
        )
    generate.say_outcome(engine, outcome, as_json, heard)


def _executor(workers: int | None, ray: str | None, device: str) -> "Executor | None":
    if workers is not None and ray is not None:
        hint = "--ray spreads over a cluster, --workers over this machine"
        raise InvalidRequest("--workers and --ray do not go together", field="ray", hint=hint)
    if workers is None and ray is None:
        return None
    from kinetograph import executors

    return executors.processes(workers) if workers is not None else executors.cluster(ray or "auto", device)
