"""A GAN, diffusion of layers' courses and diffusion of pixels, taught the same world for the same time, side by side.

    python benchmarks/families.py --minutes 10 --out out/families

Each recipe learns `circle` from nothing, one after another, alone on this machine, with the same text to read, in as
many steps as fit into the time by the pace of its first ones; then all answer the same exams. What it takes to start a
run counts; the recipe of layers draws at 128 x 128, and its exam is asked in the size and the frames of the others.
"""

import argparse
import json
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from peers import arguments, examined

from kinetograph.evaluation import compare, subject
from kinetograph.neural.training import recipes

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gan": ("gan", {}),
    "layered": ("flow", {"worlds": {"circle": 1.0}, "batch": 192, "warmup": 60, "head_start": 0, "average": 0.99}),
    "flow-circle": ("flow", {"warmup": 50, "cooldown": 0.4, "average": 0.99}),
}
PACED = 12  # steps, of which the last half tells the pace
NEVER = 10**9


class Enough(Exception):
    """A run was only to show its pace."""


def main() -> None:
    """Train, examine, write families.json and print a table."""
    parser = arguments(__doc__, "families", 0)
    metrics = ["obeys", "diversity", "flicker", "frechet"]
    parser.set_defaults(minutes=10, count=200, engines=list(FAMILIES), metrics=metrics)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    facts, found = {}, []
    for name in options.engines:
        facts[name] = trained(name, options)
        print(f"{name}: {facts[name]}", flush=True)
    for name in options.engines:
        who = subject(f"{FAMILIES[name][0]}:{options.out / name}", options.device)
        found.append(examined(who, options.count, options.metrics, options.out)["heldout"])
    told = {"training": facts, "reports": [report.to_dict() for report in found]}
    (options.out / "families.json").write_text(json.dumps(told, indent=2) + "\n")
    print(f"\n{options.count} held-out clips each\n\n{compare(*found)}")


def trained(name: str, options: argparse.Namespace) -> dict[str, float]:
    """Train a recipe for about so many minutes, and return how many steps and minutes it was."""
    recipe = replace(recipes.get(name, FAMILIES[name][1]), seed=options.seed, save_every=NEVER, sample_every=NEVER)
    begun, pace = time.perf_counter(), paced(recipe, options.out / f"{name}-pace", options.device)
    left = 60 * options.minutes - (time.perf_counter() - begun)
    steps = max(PACED, int(left / pace))
    replace(recipe, steps=steps).train(options.out / name, device=options.device)
    return {"steps": steps, "batch": recipe.batch, "minutes": round((time.perf_counter() - begun) / 60, 1)}


def paced(recipe: Any, folder: Path, device: str) -> float:
    """Seconds that a step takes, by the first ones of a run that is then given up."""
    at: list[float] = []

    def heard(step: Any) -> None:
        at.append(time.perf_counter())
        if len(at) == PACED:
            raise Enough

    with suppress(Enough):
        replace(recipe, steps=NEVER).train(folder, device=device, on_step=heard)
    return (at[-1] - at[PACED // 2]) / (PACED - 1 - PACED // 2)


if __name__ == "__main__":
    main()
