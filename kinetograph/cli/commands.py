"""All commands together."""

from typing import Annotated

import typer

import kinetograph
from kinetograph.cli import (
    batch,
    conformance,
    control,
    convert,
    dataset,
    evaluate,
    explain,
    fetch,
    generate,
    look,
    serve,
    train,
    verify,
)
from kinetograph.cli.output import Command

app = typer.Typer(
    name="kinetograph",
    help="Text to video on any machine. Every command has --help; docs/cli.md has examples.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: importing rich takes as long as everything else together
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"kinetograph {kinetograph.__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Text to video on any machine. Every command has --help; docs/cli.md has examples."""


for command in (
    *(generate.generate, generate.extend, generate.edit, control.control),
    *(look.engines, look.worlds, look.describe, look.info, look.reproduce),
    *(batch.batch, verify.verify, verify.sign, fetch.fetch, convert.convert),
    *(dataset.dataset, train.train, train.recipes, evaluate.evaluate, evaluate.ablation, explain.explain),
    *(serve.serve, serve.worker, serve.keys, conformance.conformance),
):
    app.command(cls=Command)(command)
