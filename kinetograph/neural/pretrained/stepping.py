"""Hearing of every step of a pipeline, and stopping within it, whatever callbacks the pipeline has or lacks.

Pipelines agree on two things only: they call `scheduler.step`, and they open a `progress_bar`. Both are listened to;
what the listener raises goes through the pipeline like any error. The scheduler's class is exchanged for one that
tells, not its method: pipelines copy their schedulers, and a copy must speak for itself. A pipeline made of blocks
opens its bars there; Echo has them only, and no scheduler.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from traceback import walk_tb
from typing import Any

import torch

OnStep = Callable[[int, int, "Moment | None"], None]  # (step from 1, of how many, what is known of the clip by now)


class Moment:
    """What the scheduler saw at one step: the noisy sample, what the network said, the level."""

    def __init__(self, scheduler: Any, said: torch.Tensor, time: Any, sample: torch.Tensor, result: Any) -> None:
        self._scheduler, self._said, self._time, self._sample, self._result = scheduler, said, time, sample, result

    def clean(self) -> torch.Tensor | None:
        """The clean estimate in latents, None where the kind of prediction is not known."""
        known = getattr(self._result, "pred_original_sample", None)
        if isinstance(known, torch.Tensor):
            return known
        config, x, said = self._scheduler.config, self._sample.float(), self._said.float()
        if x.shape != said.shape:
            return None
        sigma = self._sigma()
        if sigma is not None and ("FlowMatch" in type(self._scheduler).__name__ or config.get("use_flow_sigmas")):
            return x - sigma * said  # x = (1 - t) clean + t noise, and the network says noise - clean
        alphas = getattr(self._scheduler, "alphas_cumprod", None)
        if alphas is None or not isinstance(self._time, torch.Tensor | int):
            return None
        alpha = alphas[min(int(self._time), len(alphas) - 1)].to(x).sqrt()
        spread = (1 - alpha**2).sqrt()
        match config.get("prediction_type"):
            case "v_prediction":
                return alpha * x - spread * said
            case "sample":
                return said
            case _:
                return (x - spread * said) / alpha

    def _sigma(self) -> float | None:
        sigmas, times = getattr(self._scheduler, "sigmas", None), getattr(self._scheduler, "timesteps", None)
        if sigmas is None or times is None or not isinstance(self._time, torch.Tensor) or self._time.numel() != 1:
            return None
        place = (times == self._time.to(times)).nonzero()
        return float(sigmas[int(place[0])]) if len(place) and int(place[0]) < len(sigmas) else None


class Listener:
    """Counts the steps of one run over all its stages and tells of them."""

    def __init__(self, on_step: OnStep) -> None:
        self._on_step = on_step
        self._done = self._total = 0
        self._bars = 0
        self._moment: Moment | None = None

    def open(self, total: int | None) -> None:
        """A stage of so many steps begins."""
        self._bars += 1
        self._total = self._done + (total or 1)

    def scheduled(self, count: int) -> None:
        """A scheduler was set to so many steps: they are counted where no bar is opened."""
        if not self._bars:
            self._total = max(self._total, self._done + count)

    def stepped(self, moment: Moment) -> None:
        """A scheduler made a step, which is told at once where no bar is open to tell of it."""
        self._moment = moment
        if not self._bars:
            self._tell(1)

    def advanced(self, count: int) -> None:
        """A bar advanced."""
        self._tell(count)

    def _tell(self, count: int) -> None:
        self._done += count
        self._total = max(self._total, self._done)
        self._on_step(self._done, self._total, self._moment)


def is_listeners(error: BaseException) -> bool:
    """Whether what comes out of a pipeline was raised by whoever listens, and is no word of the pipeline."""
    return any(frame.f_code is Listener._tell.__code__ for frame, _ in walk_tb(error.__traceback__))


class Bar:
    """What a pipeline takes for its progress bar."""

    def __init__(self, listener: Listener, items: Iterable[Any] | None, total: int | None) -> None:
        self._listener, self._items = listener, items
        known = total if total is not None else len(items) if hasattr(items, "__len__") else None  # type: ignore[arg-type]
        self.n, self.total = 0, known
        listener.open(known)

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *reason: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Any]:
        for item in () if self._items is None else self._items:  # a tensor has no truth
            yield item
            self.update()

    def update(self, count: int = 1) -> None:
        """Some steps are done."""
        self.n += count
        self._listener.advanced(count)

    def close(self) -> None:
        """The stage is over."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **named: None  # set_postfix and the like: only words


@contextmanager
def listening(pipeline: Any, on_step: OnStep) -> Iterator[None]:
    """Within, `on_step` hears of every step that the pipeline makes; what it raises ends the run."""
    listener = Listener(on_step)
    schedulers = [part for name, part in pipeline.components.items() if "scheduler" in name and hasattr(part, "step")]
    before = [type(scheduler) for scheduler in schedulers]
    openers = [pipeline, *_with_bars(getattr(pipeline, "_blocks", None))]
    told = [opener.__dict__.get("progress_bar") for opener in openers]
    for opener in openers:
        opener.progress_bar = lambda iterable=None, total=None: Bar(listener, iterable, total)
    for scheduler in schedulers:
        scheduler.__class__ = _telling(type(scheduler), listener)
    try:
        yield
    finally:
        for scheduler, kind in zip(schedulers, before):
            scheduler.__class__ = kind
        for opener, own in zip(openers, told):
            if own is None:
                del opener.progress_bar
            else:
                opener.progress_bar = own


def _with_bars(block: Any) -> list[Any]:
    """The blocks of a modular pipeline, at any depth, that open bars."""
    found = [block] if hasattr(block, "progress_bar") else []
    return found + [one for inner in getattr(block, "sub_blocks", {}).values() for one in _with_bars(inner)]


def _telling(kind: type, listener: Listener) -> type:
    """A scheduler's class that tells of its steps; a copy of such a scheduler tells, too."""

    def set_timesteps(self: Any, *args: Any, **named: Any) -> Any:
        result = kind.set_timesteps(self, *args, **named)  # type: ignore[attr-defined]
        listener.scheduled(len(self.timesteps))
        return result

    def step(
        self: Any, model_output: torch.Tensor, timestep: Any, sample: torch.Tensor, *args: Any, **named: Any
    ) -> Any:
        result = kind.step(self, model_output, timestep, sample, *args, **named)  # type: ignore[attr-defined]
        listener.stepped(Moment(self, model_output, timestep, sample, result))
        return result

    set_timesteps.__signature__ = _signature(kind.set_timesteps)  # type: ignore[attr-defined]
    step.__signature__ = _signature(kind.step)  # type: ignore[attr-defined]
    return type(kind.__name__, (kind,), {"step": step, "set_timesteps": set_timesteps, "__module__": kind.__module__})


def _signature(function: Any) -> Any:
    """Pipelines look at a scheduler's signature to see what it takes."""
    import inspect

    return inspect.signature(function)
