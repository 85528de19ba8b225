"""`kinetograph control`: a control clip from a video, to look at and to use again."""

from pathlib import Path
from typing import Annotated

import typer

from kinetograph.cli.output import Json, say

Kind = Annotated[str, typer.Argument(metavar="KIND", help="edge, depth or pose.", show_default=False)]
Clip = Annotated[Path, typer.Argument(metavar="CLIP", help="The video.", show_default=False)]
Out = Annotated[Path, typer.Option("--out", help="The file; npz keeps every pixel.", show_default=False)]
Estimator = Annotated[
    str | None,
    typer.Option("--estimator", metavar="MODULE:FUNCTION", help="Your own code, which sees depth or poses in frames."),
]
Low = Annotated[float, typer.Option("--low", help="Of edges: what is weaker is none.")]
High = Annotated[float, typer.Option("--high", help="Of edges: what is stronger is one.")]
Smooth = Annotated[int, typer.Option("--smooth", min=1, help="Of depth: the mean over so many frames.")]
Force = Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")]


def control(
    kind: Kind,
    clip: Clip,
    out: Out,
    estimator: Estimator = None,
    low: Low = 100.0,
    high: High = 200.0,
    smooth: Smooth = 1,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Make a control clip from a video: edges, depth or poses. `generate --control KIND=FILE` obeys it."""
    from kinetograph import controls, media
    from kinetograph.video import Video

    media.format_of(out)
    estimate = None if estimator is None else controls.estimator(estimator)
    made = controls.made(controls.kind(kind), clip, estimate, low=low, high=high, smooth=smooth)
    Video(made.frames, made.fps).save(out, enlarge=1, overwrite=force)
    count, height, width, _ = made.frames.shape
    facts = {"path": str(out), "kind": kind, "frames": count, "width": width, "height": height, "fps": str(made.fps)}
    say(facts, [str(out), f"{kind}: {count} frames of {width}x{height} at {made.fps} fps"], as_json)
