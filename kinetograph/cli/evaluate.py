"""`kinetograph evaluate`: an engine examined on a world."""

import itertools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kinetograph.cli.generate import LONGEST_NAME, Set, Size, option, settings_of
from kinetograph.cli.generate import Count as Frames
from kinetograph.cli.output import DEFAULT_ENGINE, Device, Json, listening, progress, say
from kinetograph.cli.output import table as aligned

if TYPE_CHECKING:
    from kinetograph.evaluation import Row

REPORTS = Path("reports")

Engine = Annotated[str, typer.Option("--engine", metavar="REF", help="Who is examined.")]
World = Annotated[str, typer.Option("--world", help="The world that reads the clips.")]
Split = Annotated[str, typer.Option("--split", help="Where the prompts come from: heldout, train or all.")]
Count = Annotated[int, typer.Option("--count", help="How many clips.")]
Prompts = Annotated[Path | None, typer.Option("--prompts", help="A file of prompts, one a line, instead of a split.")]
Kind = Annotated[
    str,
    typer.Option(
        "--ask",
        help="captions, paraphrases (wordings training never saw), pairs (minimal pairs); or a trial of an engine that "
        "takes more than sentences: edge, depth, pose, edit, motion.",
    ),
]
Metrics = Annotated[str | None, typer.Option("--metrics", help="Names with commas between; by default all.")]
Out = Annotated[
    Path | None,
    typer.Option("--out", help="A folder for report.json and a contact sheet; by default a new one under reports."),
]
Beside = Annotated[
    Path | None, typer.Option("--out", help="A folder for comparison.md and a contact sheet; by default none.")
]
Seed = Annotated[int, typer.Option("--seed", help="Another seed, other prompts.")]


def evaluate(
    engine: Engine = DEFAULT_ENGINE,
    world: World = "circle",
    split: Split = "heldout",
    count: Count = 1000,
    ask: Kind = "captions",
    prompts: Prompts = None,
    frames: Frames = None,
    size: Size = None,
    options: Set = None,
    metrics: Metrics = None,
    out: Out = None,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Score an engine: a value, its 95 % interval, its unit and the number of clips, for every metric."""
    from kinetograph import batch, evaluation

    given = None if prompts is None else batch.read_prompts(prompts)
    folder = out or _fresh(engine, world, split if prompts is None else prompts.stem)
    told = settings_of(frames, None, size, options or ())
    asked = told.pop("options")
    chosen = None if metrics is None else [name.strip() for name in metrics.split(",") if name.strip()]
    with listening(as_json) as heard, progress(engine) as advance:
        report = evaluation.evaluate(
            engine,
            world,
            split,
            count,
            kind=ask,
            prompts=given,
            options=asked,
            settings={name: value for name, value in told.items() if value is not None},
            metrics=chosen,
            seed=seed,
            out=folder,
            device=device,
            on_progress=lambda p: advance(p.step, p.steps, "clips"),
        )
    lines = aligned([("metric", "value", "95 % interval", "better", "clips", "unit"), *map(_row, report.rows())])
    say({**report.to_dict(), "out": str(folder), "warnings": heard}, [*lines, f"report: {folder}"], as_json)


def ablation(
    engine: Engine = "zero",
    world: World = "critters",
    split: Split = "heldout",
    count: Count = 50,
    options: Set = None,
    out: Beside = None,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Score a zero-shot engine with each part of its method switched off and on: the paper's ablation, as a table."""
    from kinetograph import evaluation

    with listening(as_json) as heard, progress(engine) as advance:
        reports = evaluation.ablation(
            engine,
            world,
            count,
            split=split,
            options=dict(map(option, options or ())),
            seed=seed,
            out=out,
            device=device,
            on_progress=lambda p: advance(p.step, p.steps, "clips"),
        )
    rows = [report.to_dict() for report in reports]
    said = {"engine": engine, "reports": rows, "out": out and str(out), "warnings": heard}
    say(said, [evaluation.compare(*reports)], as_json)


def _fresh(*names: str) -> Path:
    """A folder under reports without a report in it, named after what is asked of whom."""
    plain = REPORTS / re.sub(r"[^\w.-]+", "_", "-".join(names))[-LONGEST_NAME:]
    numbered = (plain.with_name(f"{plain.name}-{number}") for number in itertools.count(2))
    return next(folder for folder in itertools.chain([plain], numbered) if not any(folder.glob("*")))


def _row(row: "Row") -> tuple[str, ...]:
    return row.name, f"{row.value:.4g}", f"{row.low:.4g} ... {row.high:.4g}", row.better, str(row.count), row.unit
