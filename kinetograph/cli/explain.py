"""`kinetograph explain`: diffusion made visible."""

from pathlib import Path
from typing import Annotated, Any

import typer

from kinetograph.cli.generate import Set, option
from kinetograph.cli.output import Json, listening, progress, say
from kinetograph.errors import InvalidRequest

What = Annotated[str, typer.Argument(metavar="WHAT", help="forward, reverse, schedule, steps or guidance.")]
Out = Annotated[Path, typer.Option("--out", help="The folder for the pictures; made if missing.")]
Prompt = Annotated[str | None, typer.Option("--prompt", help="What the clip shows; by default anything of the world.")]
Engine = Annotated[
    str | None,
    typer.Option(
        "--engine",
        metavar="REF",
        help="A diffusion model: zero (the default) or flow, or one of yours: zero:FOLDER.",
    ),
]
World = Annotated[
    str | None, typer.Option("--world", help="Where clips or questions come from; of questions by default critters.")
]
Ask = Annotated[
    str | None,
    typer.Option(
        "--ask",
        help="For `steps` and `guidance`: motion (the default), the trial of a model of pictures set in motion, or "
        "captions, the exam of a model of clips.",
    ),
]
Schedule = Annotated[
    str | None, typer.Option("--schedule", help="For `forward`: flow (the default), scaled-linear, cosine, karras ...")
]
Values = Annotated[
    str | None, typer.Option("--values", help="For `steps` and `guidance`: what to measure, with commas between.")
]
Count = Annotated[int | None, typer.Option("--count", help="For `steps` and `guidance`: how many prompts; 24.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Another seed, other noise; by default 0.")]
Device = Annotated[str | None, typer.Option("--device", help="auto (the default), cpu, or cuda.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]


def explain(
    what: What,
    out: Out,
    prompt: Prompt = None,
    engine: Engine = None,
    ask: Ask = None,
    world: World = None,
    schedule: Schedule = None,
    values: Values = None,
    count: Count = None,
    options: Set = None,
    seed: Seed = None,
    device: Device = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Show how diffusion works: a clip dissolving, noise becoming one, schedules, and what steps and guidance buy."""
    from kinetograph import explaining

    given: dict[str, Any] = {
        "prompt": prompt,
        "engine": engine,
        "ask": ask,
        "world": world,
        "schedule": schedule,
        "values": _numbers(values),
    }
    given |= {"count": count, "options": dict(map(option, options or ())) or None, "seed": seed, "device": device}
    settings = {name: value for name, value in given.items() if value is not None}
    with listening(as_json) as heard, progress(what) as advance:
        files = explaining.explain(
            what, out, overwrite=force, on_progress=lambda p: advance(p.step, p.steps, ""), **settings
        )
    names = [str(file) for file in files]
    say({"what": what, "folder": str(out), "files": names, "warnings": heard}, names, as_json)


def _numbers(text: str | None) -> list[float] | None:
    try:
        return None if text is None else [float(part) for part in text.split(",")]
    except ValueError as error:
        message = f"--values {text!r} are no numbers"
        raise InvalidRequest(message, field="values", hint="write them as 1,2,4") from error
