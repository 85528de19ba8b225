"""`kinetograph dataset`: clips of a world on disk."""

from pathlib import Path
from typing import Annotated

import typer

from kinetograph.cli.output import Json, progress, say
from kinetograph.request import parse_size

World = Annotated[str, typer.Argument(metavar="WORLD", help="Which world: `kinetograph worlds` lists them.")]
Count = Annotated[int, typer.Option("--count", help="How many clips.")]
Out = Annotated[Path, typer.Option("--out", help="The folder; what was interrupted there goes on.")]
Seed = Annotated[int, typer.Option("--seed", help="Another seed, other clips.")]
Frames = Annotated[
    int | None, typer.Option("--frames", help="Frames in a clip; by default what the world is made for.")
]
Size = Annotated[
    str | None, typer.Option("--size", help="Width and height in pixels; by default what the world is made for.")
]
Format = Annotated[str, typer.Option("--format", help="npz (every pixel exact) or mp4.")]
Split = Annotated[str, typer.Option("--split", help="train, heldout or all.")]
Shard = Annotated[int, typer.Option("--shard", help="Clips in one tar file.")]
Workers = Annotated[int | None, typer.Option("--workers", help="Processes; by default one for each processor.")]


def dataset(
    world: World,
    count: Count,
    out: Out,
    seed: Seed = 0,
    frames: Frames = None,
    size: Size = None,
    format: Format = "npz",
    split: Split = "train",
    shard: Shard = 1000,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Write a data set: tar shards in the WebDataset layout, a manifest with digests, a contact sheet."""
    from kinetograph import dataset as datasets

    with progress(world) as advance:
        written = datasets.write(
            world,
            count,
            out,
            seed=seed,
            frames=frames,
            size=None if size is None else parse_size(size),
            format=format,
            shard=shard,
            split=split,
            workers=workers,
            on_progress=lambda done, total: advance(done, total, "clips"),
        )
    total = sum(row.bytes for row in written.shards)
    facts = {"folder": str(out), "world": world, "clips": len(written), "splits": written.splits, "bytes": total}
    lines = [str(out), f"{len(written)} clips in {len(written.shards)} shards, {total / 1e6:.1f} MB"]
    say({**facts, "shards": [row.file for row in written.shards]}, lines, as_json)
