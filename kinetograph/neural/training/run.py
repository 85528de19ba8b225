"""What every training run shares: its folder, its processes, its stop. Loops differ, runs do not."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from kinetograph.errors import TrainingError
from kinetograph.neural import checkpoint

STATE, RECIPE, METRICS, SAMPLES = "state.safetensors", "recipe.json", "metrics.jsonl", "samples"


@dataclass(frozen=True)
class Step:
    """What the loop tells whoever watches: how far it is, and the last figures written to metrics.jsonl."""

    step: int
    steps: int
    figures: Mapping[str, float] = field(default_factory=dict)


OnStep = Callable[[Step], None]


@dataclass(frozen=True)
class Processes:
    """This process among those that train together: rank of ranks. Alone, it is 0 of 1."""

    rank: int = 0
    ranks: int = 1

    def average_gradients(self, model: nn.Module) -> None:
        """Replace each gradient by its mean over all processes: their batches become one."""
        if self.ranks == 1:
            return
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        flat = torch.cat([g.reshape(-1) for g in gradients])
        dist.all_reduce(flat)
        flat /= self.ranks
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))

    def any_wishes(self, wish: bool) -> bool:
        """Whether any process wishes it, so that all stop at the same step."""
        if self.ranks == 1:
            return wish
        wishes = torch.tensor([float(wish)])
        dist.all_reduce(wishes, op=dist.ReduceOp.MAX, group=dist.group.WORLD)
        return bool(wishes.item())


@contextmanager
def processes(device: torch.device) -> Iterator[Processes]:
    """The processes that torchrun started, or this one alone. GPUs talk over nccl, CPUs over gloo."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Processes()
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


@contextmanager
def stopping() -> Iterator[Callable[[], bool]]:
    """Within, the first Ctrl-C or SIGTERM asks for a clean stop, to be seen by calling the yielded function; the second is obeyed
    at once (KeyboardInterrupt), and loses what came since the last saved state, never that state."""
    asked: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def open_folder(folder: Path, recipe: Mapping[str, Any], resume: bool) -> None:
    """Make the folder of a run and write its recipe; with `resume`, check that the recipe is the one it was begun with.

    Raises TrainingError for a folder that holds another run, or nothing to resume.
    """
    begun = folder / RECIPE
    if resume:
        if not (folder / STATE).is_file():
            raise TrainingError(f"{folder} holds no run to resume", hint="start it without --resume")
        differing = differences(json.loads(begun.read_text()), json.loads(json.dumps(recipe)))
        if differing:
            raise TrainingError(f"{folder} was begun with another recipe", hint=f"these differ: {', '.join(differing)}")
        return
    if folder.exists() and any(folder.iterdir()):
        raise TrainingError(f"{folder} is not empty", hint="continue it with --resume, or choose another folder with --out")
    (folder / SAMPLES).mkdir(parents=True, exist_ok=True)
    begun.write_text(json.dumps(recipe, indent=2) + "\n")


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Names of the settings in which two recipes differ; how long a run goes on is no difference."""
    return sorted(name for name in {*one, *other} - {"steps"} if one.get(name) != other.get(name))


def write_figures(folder: Path, figures: Mapping[str, Any]) -> None:
    """Append one line to metrics.jsonl."""
    with (folder / METRICS).open("a") as file:
        file.write(json.dumps(figures) + "\n")


def drop_figures_after(folder: Path, step: int) -> None:
    """Forget the lines of steps that a resumed run will take again."""
    path = folder / METRICS
    if path.exists():
        kept = [line for line in path.read_text().splitlines() if _step_of(line) <= step]
        path.write_text("".join(line + "\n" for line in kept))


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError):
        return float("inf")  # a line cut short by a crash


def save_state(folder: Path, parts: Mapping[str, nn.Module | torch.optim.Optimizer], **counters: float) -> None:
    """Write everything that the next step depends on to one file, replacing the last one whole."""
    tensors = {f"{name}/{key}": value for name, part in parts.items() for key, value in _tensors(part).items()}
    checkpoint.save(folder / STATE, tensors, counters)


def load_state(folder: Path, parts: Mapping[str, nn.Module | torch.optim.Optimizer]) -> dict[str, Any]:
    """Restore what `save_state` wrote and return its counters."""
    from safetensors import safe_open

    tensors = checkpoint.load(folder / STATE)
    for name, part in parts.items():
        own = {key.removeprefix(f"{name}/"): value for key, value in tensors.items() if key.startswith(f"{name}/")}
        _restore(part, own)
    with safe_open(folder / STATE, "pt") as file:
        return dict(json.loads(file.metadata()["configuration"]))


def _tensors(part: nn.Module | torch.optim.Optimizer) -> dict[str, Tensor]:
    if isinstance(part, nn.Module):
        return part.state_dict()
    return {f"{i}/{key}": value for i, row in part.state_dict()["state"].items() for key, value in row.items()}


def _restore(part: nn.Module | torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    if isinstance(part, nn.Module):
        part.load_state_dict(tensors)
        return
    state: dict[int, dict[str, Tensor]] = {}
    for path, value in tensors.items():
        index, key = path.split("/", 1)
        state.setdefault(int(index), {})[key] = value
    part.load_state_dict({"state": state, "param_groups": part.state_dict()["param_groups"]})


def hours(since: float, before: float = 0.0) -> float:
    """Hours of training: those of earlier sessions and those since a `time.monotonic()`."""
    return before + (time.monotonic() - since) / 3600
