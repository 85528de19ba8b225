"""What a training gains from keeping the memory that tensors free (`neural.device.keep_memory`), side by side.

    python benchmarks/allocator.py --recipe layered --rounds 3

Each round takes a few steps of the recipe in a process that keeps it and in one that gives it back, one after the
other, on one thread; told are seconds of the processor, so that other work on the machine matters little.
"""

import argparse
import statistics
import subprocess
import sys

import torch
from paces import paced

from kinetograph.neural.training import recipes, run

STEPS = 8  # of which the last half tells


def main() -> None:
    """Take the steps in processes of their own, and print a table and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="layered")
    parser.add_argument(
        "--set", nargs="*", default=["head_start=0", "batch=64", "drawings=48", "stills=2", "looks=200"]
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--alone", choices=["keep", "give"], help="take the steps here, and print the seconds of one")
    options = parser.parse_args()
    if options.alone:
        print(seconds(options.recipe, dict(pair.split("=", 1) for pair in options.set), options.alone == "keep"))
        return
    found: dict[str, list[float]] = {"keep": [], "give": []}
    for number in range(1, options.rounds + 1):
        for how, times in found.items():
            command = [sys.executable, __file__, "--alone", how, "--recipe", options.recipe, "--set", *options.set]
            times.append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        print(
            f"round {number}: kept {found['keep'][-1]:.2f} s a step, given back {found['give'][-1]:.2f} s", flush=True
        )
    ratios = [give / keep for keep, give in zip(found["keep"], found["give"], strict=True)]
    print(f"given back / kept: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


def seconds(name: str, settings: dict[str, str], keeps: bool) -> float:
    """Seconds of the processor that a step takes."""
    torch.set_num_threads(1)
    if not keeps:
        run.keep_memory = lambda: None  # type: ignore[assignment]
    return paced(recipes.get(name, settings), STEPS)


if __name__ == "__main__":
    main()
