"""A GAN, diffusion of layers' courses and diffusion of pixels, taught the same world for the same time, side by side.

    python benchmarks/families.py --minutes 30 --out out/families

Each recipe learns `circle` from nothing, one after another, with the same text to read, in as many steps as fit into
so many minutes of a processor core by the pace of its first ones; stages of a recipe are as much shorter as it is, and
what it takes to start a run counts. Each then answers the same questions in clips of ten frames of 64 x 64; `gan.json`
and so on say what came of it. A family that has learnt in `--out` does not learn again. At the end comparison.md and
contact_sheet.png show whatever families lie there, so that they can be asked for one by one.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from paces import NEVER, paced

from kinetograph import files
from kinetograph.evaluation import Report, Subject, examine, prepare, subject, write_beside
from kinetograph.neural.training import recipes

SHAPE = {"width": 64, "height": 64, "frames": 10}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gan": ("gan", {}),
    "layered": ("flow", {"worlds": {"circle": 1.0}, "batch": 192, "warmup": 60, "head_start": 0, "average": 0.99}),
    "flow-circle": ("flow", {"warmup": 50, "cooldown": 0.4, "average": 0.99}),
}
METRICS = ("obeys", "diversity", "flicker", "frechet")
STAGES = ("head_start", "exact_after")  # of a recipe, in steps; they shrink with it
PACED = 24  # steps, of which the last half tells the pace
SHOWN = 6  # questions on the contact sheet


def main() -> None:
    """Train, examine, write a file for each family, and show them side by side."""
    options = asked()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    for name in options.families:
        told = {"training": learnt(name, options)}
        keep(name, options, told)
        exam = prepare("circle", "heldout", options.count, metrics=METRICS)
        told["report"] = examine(who(name, options), exam, out=options.out / "exams" / name).to_dict()
        keep(name, options, told)
        print(f"{name}: {told['training']}", flush=True)
    there = [name for name in FAMILIES if "report" in kept(name, options)]
    write_beside([shown(name, options) for name in there], options.out, SHOWN)
    print((options.out / "comparison.md").read_text())


def asked() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", default=[*FAMILIES], choices=[*FAMILIES])
    parser.add_argument("--minutes", type=float, default=30, help="of a core, for training, each")
    parser.add_argument("--count", type=int, default=200, help="clips of each exam")
    parser.add_argument("--seed", type=int, default=0, help="of the training")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("out") / "families")
    return parser.parse_args()


def who(name: str, options: argparse.Namespace) -> Subject:
    """A family that has learnt, to be examined in the shape of all."""
    taught = subject(f"{FAMILIES[name][0]}:{options.out / name}", "cpu", settings=SHAPE)
    return replace(taught, name=name)


def shown(name: str, options: argparse.Namespace) -> Report:
    """A family's report with its first clips, which are made again."""
    report = Report.from_dict(kept(name, options)["report"])
    questions = prepare("circle", "heldout", SHOWN, metrics=["obeys"]).questions
    maker = who(name, options)
    return replace(
        report,
        clips=tuple(maker.make(question.prompt, question.seed)[0] for question in questions),
        captions=tuple(question.prompt for question in questions),
    )


def kept(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """What is known of a family; nothing where nothing is."""
    path = options.out / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def keep(name: str, options: argparse.Namespace, told: dict[str, Any]) -> None:
    """Write down what is known of a family."""
    files.write(options.out / f"{name}.json", json.dumps(told, indent=2) + "\n")


def learnt(name: str, options: argparse.Namespace) -> dict[str, float]:
    """Train a recipe for about so many minutes, unless it has been; how many steps and minutes it was."""
    if before := kept(name, options):
        return before["training"]
    recipe = replace(recipes.get(name, FAMILIES[name][1]), seed=options.seed, save_every=NEVER, sample_every=NEVER)
    begun = time.process_time()
    pace = mean_pace(recipe)
    steps = max(PACED, int((60 * options.minutes - (time.process_time() - begun)) / pace))
    stages = {stage: round(getattr(recipe, stage) * steps / recipe.steps) for stage in STAGES if hasattr(recipe, stage)}
    replace(recipe, steps=steps, **stages).train(options.out / name, device="cpu")
    return {"steps": steps, "batch": recipe.batch, "minutes": round((time.process_time() - begun) / 60, 1)}


def mean_pace(recipe: Any) -> float:
    """Seconds of a core that a step takes, those of a head start, which cost less, as often as they come."""
    share = getattr(recipe, "head_start", 0) / recipe.steps
    if not share:
        return paced(recipe, PACED)
    return share * paced(recipe, PACED) + (1 - share) * paced(replace(recipe, head_start=0), PACED)


if __name__ == "__main__":
    main()
