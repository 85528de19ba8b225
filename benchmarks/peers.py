"""What benchmarks of trained peers have in common: a budget on the command line, and the same exams for everybody."""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kinetograph.evaluation import Report, Subject, compare, examine, prepare, subject
from kinetograph.neural import device as devices
from kinetograph.shelf import METRICS, WORLDS

EXAMS = {"heldout": None, "article": WORLDS["circle"].ARTICLE_PROMPTS}  # held-out combinations; the article's own words


@dataclass(frozen=True)
class Budget:
    """What a training may use; whichever of steps and minutes is used up first ends it."""

    steps: int
    minutes: float
    seed: int
    device: torch.device


def examined(who: Subject, options: argparse.Namespace) -> dict[str, Report]:
    """A subject's reports, also written to disk; everybody gets the same questions."""

    def report(name: str) -> Report:
        exam = prepare("circle", "heldout", options.count, prompts=EXAMS[name], metrics=options.metrics)
        return examine(who, exam, out=options.out / name / who.name.replace("/", "_"))

    return {name: report(name) for name in options.exams}


def run(options: argparse.Namespace, name: str, train: Callable[[Budget], tuple[Subject, dict[str, Any]]]) -> None:
    """Examine the engines, train the peer, examine it too; write NAME.json and print the tables."""
    if options.threads:
        torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    # The engines first: whatever is missing is missed before hours of training.
    others = [examined(subject(engine, options.device), options) for engine in options.engines]
    peer, facts = train(Budget(options.steps, options.minutes, options.seed, devices.choose(options.device)))
    found = [*others, examined(peer, options)]
    plain = [{exam: report.to_dict() for exam, report in reports.items()} for reports in found]
    (options.out / f"{name}.json").write_text(json.dumps({"training": facts, "reports": plain}, indent=2) + "\n")
    print(f"trained: {facts}\n")
    for exam in options.exams:
        print(f"### {exam} prompts, {options.count} clips\n\n{compare(*(reports[exam] for reports in found))}\n")


def arguments(description: str | None, name: str, steps: int) -> argparse.ArgumentParser:
    """The command line of such a benchmark; `steps` is the peer's own budget."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60, help="of training, at most")
    parser.add_argument("--steps", type=int, default=steps, help="of training, at most")
    parser.add_argument("--engines", nargs="*", default=["gan"], help="examined beside the peer")
    parser.add_argument("--metrics", nargs="+", default=METRICS.names())
    parser.add_argument("--exams", nargs="+", default=list(EXAMS), choices=list(EXAMS))
    parser.add_argument("--count", type=int, default=1000, help="clips of each exam")
    parser.add_argument("--seed", type=int, default=0, help="of the training")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0, help="0 leaves the number to torch")
    parser.add_argument("--out", type=Path, default=Path("out") / name)
    return parser
