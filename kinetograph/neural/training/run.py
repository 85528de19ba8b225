"""What every training run shares: its folder, its processes, its loop, its stop. What a step does is the trainer's
business."""

import gc
import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
import torch.distributed as dist
from safetensors import safe_open
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from kinetograph import files
from kinetograph.errors import CannotWrite, Interrupted, TrainingError
from kinetograph.neural import checkpoint
from kinetograph.neural.device import choose, has_bfloat16, keep_memory, versions

STATE, RECIPE, METRICS, SAMPLES = "state.safetensors", "recipe.json", "metrics.jsonl", "samples"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What every recipe says. Steps, batches and frequencies are counted in steps of the whole batch, over all
    processes."""

    steps: int
    batch: int
    seed: int = 1
    rate: float  # of learning, after the warm-up
    warmup: int = 100
    cooldown: float = 0.3  # last part of the run, in which the rate falls to nothing
    bfloat16: bool = True  # computed with where the device has it; weights and losses stay in float32
    save_every: int = 100
    sample_every: int = 100
    log_every: int = 10

    def numbers(self, where: torch.device) -> torch.dtype:
        """The numbers to compute with on this device."""
        return torch.bfloat16 if self.bfloat16 and has_bfloat16(where) else torch.float32

    def autocast(self, where: torch.device) -> torch.autocast:
        """A context in which networks compute with numbers of that kind."""
        return torch.autocast(where.type, torch.bfloat16, enabled=self.numbers(where) == torch.bfloat16)


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
        """Replace each gradient by its mean over all processes: their batches become one. What no process used keeps
        none, as where there is only one."""
        if self.ranks == 1:
            return
        learning = [p for p in model.parameters() if p.requires_grad]
        used = torch.tensor([float(p.grad is not None) for p in learning])
        dist.all_reduce(used, op=dist.ReduceOp.MAX)
        learning = [p for p, by_any in zip(learning, used.tolist(), strict=True) if by_any]
        if not learning:
            return
        flat = torch.cat([torch.zeros_like(p).reshape(-1) if p.grad is None else p.grad.reshape(-1) for p in learning])
        dist.all_reduce(flat)
        flat /= self.ranks
        for parameter, mean in zip(learning, flat.split([p.numel() for p in learning]), strict=True):
            parameter.grad = mean.view_as(parameter)

    def take_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by those of the first process: what is computed everywhere may differ by its rounding."""
        if self.ranks > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def shard(self, model: nn.Module, blocks: Iterable[nn.Module], kind: torch.dtype = torch.float32) -> None:
        """Divide a model's weights among the processes, block by block (FSDP2, Zhao et al. 2023), and let them be
        numbers of this kind where they are gathered for computing."""
        mesh = init_device_mesh(next(model.parameters()).device.type, (self.ranks,))
        rounding = MixedPrecisionPolicy(param_dtype=kind, cast_forward_inputs=False)
        for block in (*blocks, model):
            fully_shard(block, mesh=mesh, mp_policy=rounding)

    def any_wishes(self, wish: bool) -> bool:
        """Whether any process wishes it, so that all stop at the same step."""
        if self.ranks == 1:
            return wish
        wishes = torch.tensor([float(wish)])
        dist.all_reduce(wishes, op=dist.ReduceOp.MAX, group=dist.group.WORLD)
        return bool(wishes.item())


class Trainer(Protocol):
    """What one kind of model adds to a run: its parts, its step, its samples and its checkpoint."""

    recipe: Recipe
    processes: Processes
    where: torch.device

    @property
    def parts(self) -> Mapping[str, nn.Module | torch.optim.Optimizer]:
        """Everything that the next step depends on, by name."""
        ...

    def kept(self) -> nn.Module:
        """What has been learnt so far, whole. Where weights are sharded, every process must ask for it together."""
        ...

    def step(self, step: int) -> dict[str, float]:
        """Take step `step` (counted from 1) and return its figures."""
        ...

    def draw_samples(self, path: Path, kept: nn.Module) -> None:
        """Draw a picture of what has been learnt so far."""
        ...

    def save_checkpoint(self, folder: Path, kept: nn.Module, history: dict[str, Any]) -> None:
        """Write what has been learnt so far as a checkpoint folder; `history` goes into its header."""
        ...


def train(
    trainer: Callable[[Any, torch.device, Processes], Trainer],
    recipe: Recipe,
    folder: Path,
    *,
    device: str = "auto",
    resume: bool = False,
    steps: int | None = None,
    on_step: OnStep = lambda step: None,
) -> None:
    """Run a recipe in a folder until its last step, alone or as one of the processes that torchrun started.

    `steps` replaces the recipe's number of steps. Resuming with the same number takes the very steps that would have
    come; with another, the cooldown lies elsewhere. Raises Interrupted after a clean stop by Ctrl-C (the state is
    saved), TrainingError where the folder holds another run or the figures are no longer finite, and CannotWrite.
    """
    recipe = recipe if steps is None else replace(recipe, steps=steps)
    where = choose(device, place=int(os.environ.get("LOCAL_RANK", "0")))
    if where.type == "cpu":
        keep_memory()
    try:
        with processes(where) as together, stopping() as stopped:
            if together.rank == 0:
                open_folder(folder, asdict(recipe), resume)
            _loop(trainer(recipe, where, together), folder, resume, stopped, on_step)
    except OSError as error:
        raise CannotWrite.because(Path(error.filename or folder), error) from error


def _loop(trainer: Trainer, folder: Path, resume: bool, stopped: Callable[[], bool], on_step: OnStep) -> None:
    recipe, first = trainer.recipe, trainer.processes.rank == 0
    counters = load_state(folder, trainer.parts) if resume else {"step": 0, "hours": 0.0}
    began, start = time.monotonic(), int(counters["step"])
    if resume and first:
        drop_figures_after(folder, start)
    for step in range(start + 1, recipe.steps + 1):
        figures = trainer.step(step)
        if not all(math.isfinite(value) for value in figures.values()):
            raise TrainingError(
                f"step {step} gave numbers that are not finite", hint=f"{folder} holds the last good state"
            )
        stop = trainer.processes.any_wishes(stopped())
        _report(trainer, folder, step, figures, float(counters["hours"]) + (time.monotonic() - began) / 3600, stop)
        if first:
            on_step(Step(step, recipe.steps, figures))
        if stop and step < recipe.steps:
            raise Interrupted(f"stopped after step {step} of {recipe.steps}", hint="continue with --resume")


def _report(trainer: Trainer, folder: Path, step: int, figures: dict[str, float], hours: float, stop: bool) -> None:
    """Write what is due after a step. The first process writes; all gather, for that takes every process's shard."""
    recipe, first = trainer.recipe, trainer.processes.rank == 0
    last = stop or step == recipe.steps
    if first and (last or step % recipe.log_every == 0):
        write_figures(folder, {"step": step, "hours": round(hours, 4)} | figures)
    if last or step % recipe.sample_every == 0:
        kept = trainer.kept()
        if first:
            trainer.draw_samples(folder / SAMPLES / f"{step:06d}.png", kept)
    if last or step % recipe.save_every == 0:
        kept, state = trainer.kept(), gathered(trainer.parts)
        if not first:
            return
        chip = versions(trainer.where)["chip"]
        history = {"steps": step, "hours": round(hours, 3), "hardware": f"{trainer.processes.ranks} x {chip}"}
        with undisturbed():
            trainer.save_checkpoint(folder, kept, history)
            checkpoint.save(folder / STATE, state, {"step": step, "hours": hours})  # last: resuming makes up for it


def summary(found: Mapping[str, Any], digest: str) -> dict[str, Any]:
    """What a checkpoint tells of the one that it began with: its sum, and what its configuration says of its run."""
    told = {name: found[name] for name in ("steps", "hours", "hardware", "before") if name in found}
    return {"weights": digest, "batch": found["recipe"]["batch"], **told}


def set_rate(optimisers: Iterable[torch.optim.Optimizer], recipe: Recipe, step: int) -> None:
    """Set the learning rate of a step: up in a straight line, level, and down to nothing at the end."""
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate * min(step / recipe.warmup, left(recipe, step))


def left(recipe: Recipe, step: int) -> float:
    """How much of the cooldown is left at a step: 1 until it begins, almost 0 at the last."""
    return min(1.0, (recipe.steps - step + 1) / max(1.0, recipe.cooldown * recipe.steps))


@contextmanager
def processes(device: torch.device) -> Iterator[Processes]:
    """The processes that torchrun started, or this one alone. GPUs talk over nccl, CPUs over gloo."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Processes()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)  # nccl talks through the current one
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(dist.get_rank(), dist.get_world_size())
        dist.barrier()  # the first still writes when the others are done
    finally:
        gc.collect()  # sharded models are cycles that hold on to the group: gone after it, they abort the process
        dist.destroy_process_group()


@contextmanager
def stopping() -> Iterator[Callable[[], bool]]:
    """Within, the first Ctrl-C or SIGTERM asks for a clean stop, to be seen by calling the yielded function; the
    second is obeyed at once (KeyboardInterrupt), and loses what came since the last saved state, never that state.
    """
    asked: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        if asked and _writing.now:
            _writing.late = True
        elif asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass
class _Writing:
    """Whether the loop is within `undisturbed`, and whether a second Ctrl-C came meanwhile."""

    now: bool = False
    late: bool = False


_writing = _Writing()


@contextmanager
def undisturbed() -> Iterator[None]:
    """A second Ctrl-C that comes within is obeyed at the end: files that belong together are written together."""
    _writing.now = True
    try:
        yield
    finally:
        _writing.now = False
        late, _writing.late = _writing.late, False
    if late:
        raise KeyboardInterrupt


def open_folder(folder: Path, recipe: Mapping[str, Any], resume: bool) -> None:
    """Make the folder of a run and write its recipe; with `resume`, check that the recipe is the one it was begun with.

    Raises TrainingError for a folder that holds another run, or nothing to resume, or is no folder.
    """
    if folder.exists() and not folder.is_dir():
        raise TrainingError(f"{folder} is a file, no folder", hint="choose another with --out")
    begun = folder / RECIPE
    if resume:
        if not (folder / STATE).is_file():
            raise TrainingError(f"{folder} holds no run to resume", hint="start it without --resume")
        differing = differences(_recipe_in(begun), json.loads(json.dumps(recipe)))
        if differing:
            raise TrainingError(f"{folder} was begun with another recipe", hint=f"these differ: {', '.join(differing)}")
        files.write(begun, json.dumps(recipe, indent=2) + "\n")  # the number of steps may be another
        return
    if folder.exists() and any(folder.iterdir()):
        raise TrainingError(
            f"{folder} is not empty", hint="continue it with --resume, or choose another folder with --out"
        )
    (folder / SAMPLES).mkdir(parents=True, exist_ok=True)
    files.write(begun, json.dumps(recipe, indent=2) + "\n")


def _recipe_in(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        hint = "it says what was begun; put it back, or start in another folder"
        raise TrainingError(f"{path} is missing or damaged: {error}", hint=hint) from error


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
        files.write(path, "".join(line + "\n" for line in kept))


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError):
        return float("inf")  # a line cut short by a crash


def gathered(parts: Mapping[str, nn.Module | torch.optim.Optimizer]) -> dict[str, Tensor]:
    """Every tensor of the parts by name, whole. Where some are sharded, every process must ask together."""
    return {f"{name}/{key}": _whole(value) for name, part in parts.items() for key, value in _tensors(part).items()}


def load_state(folder: Path, parts: Mapping[str, nn.Module | torch.optim.Optimizer]) -> dict[str, Any]:
    """Restore what was gathered into a folder's state, and return its counters."""
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
        own = part.state_dict()
        part.load_state_dict({name: _like(tensor, own[name]) for name, tensor in tensors.items()})
        return
    learning = [p for group in part.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for path, value in tensors.items():
        index, key = path.split("/", 1)
        state.setdefault(int(index), {})[key] = _like(value, learning[int(index)])
    part.load_state_dict({"state": state, "param_groups": part.state_dict()["param_groups"]})


def _whole(value: Tensor) -> Tensor:
    return value.full_tensor() if isinstance(value, DTensor) else value


def _like(value: Tensor, example: Tensor) -> Tensor:
    """A whole tensor, sharded as the example is; a count of steps is not."""
    if isinstance(example, DTensor) and value.shape == example.shape:
        return distribute_tensor(value, example.device_mesh, example.placements)
    return value
