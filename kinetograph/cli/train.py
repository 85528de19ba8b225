"""`kinetograph train` and `kinetograph recipes`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kinetograph.cli.generate import option
from kinetograph.cli.output import Device, Json, progress, say, speaks
from kinetograph.errors import Interrupted

if TYPE_CHECKING:
    from kinetograph.neural.training.run import Step

Name = Annotated[str, typer.Argument(metavar="RECIPE", help="Which recipe: `kinetograph recipes` lists them.")]
Out = Annotated[Path | None, typer.Option("--out", help="The folder of the run; by default runs/RECIPE.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in that folder.")]
Steps = Annotated[int | None, typer.Option("--steps", min=1, help="How many steps, instead of what the recipe says.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of the recipe; may be repeated.")
]


def train(
    recipe: Name,
    out: Out = None,
    resume: Resume = False,
    steps: Steps = None,
    settings: Set = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Train a model by a recipe. Ctrl-C saves the state and stops; --resume goes on from there.

    Under torchrun every process trains, and only the first one tells of progress, of the outcome and of a stop.
    """
    from kinetograph.neural.training import recipes

    folder, chosen = out or Path("runs") / recipe, recipes.get(recipe, dict(map(option, settings or ())))
    first = speaks()
    last: dict[str, float] = {}
    with progress(recipe, first) as advance:

        def watch(step: "Step") -> None:
            last.update(step.figures, step=step.step)
            advance(step.step, step.steps, "  ".join(f"{name} {value:.3g}" for name, value in step.figures.items()))

        try:
            chosen.train(folder, device=device, resume=resume, steps=steps, on_step=watch)
        except Interrupted as error:
            if first:
                raise
            raise typer.Exit(error.exit_code) from error
    if first:
        lines = [str(folder), "  ".join(f"{name} {value:.4g}" for name, value in last.items())]
        say({"recipe": recipe, "folder": str(folder), "figures": last}, lines, as_json)


def recipes(as_json: Json = False) -> None:
    """List the recipes, each with its command, hardware, hours and the score to expect."""
    from kinetograph.neural.training import recipes

    found = [{"name": name, "description": recipes.describe(name)} for name in recipes.names()]
    say({"recipes": found}, [_entry(**recipe) for recipe in found], as_json)


def _entry(name: str, description: str) -> str:
    return "\n".join([name, *(f"  {line}".rstrip() for line in description.splitlines())])
