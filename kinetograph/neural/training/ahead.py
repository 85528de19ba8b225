"""What coming steps learn from, made in processes of their own while a step is taken: a GPU learns faster than one
processor draws. What a step learns from depends on its number alone, so it is the same whoever makes it, and when.
"""

import multiprocessing
import signal
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Generic, TypeVar

import torch

from kinetograph.errors import TrainingError

T = TypeVar("T")
EACH = 2  # steps that every process is asked for at a time


class Ahead(Generic[T]):
    """Makes what steps learn from, asked for one after the other: `make(step)`, here, or by so many `helpers` (which
    pickle it) up to step `last`. Raises TrainingError for helpers that cannot be, or are no more."""

    def __init__(self, make: Callable[[int], T], helpers: int, last: int) -> None:
        if helpers < 0:
            raise TrainingError(f"{helpers} helpers cannot draw", hint="0, or as many as there are processors to spare")
        self._make, self._last = make, last
        self._coming: dict[int, Future[T]] = {}
        self._pool: ProcessPoolExecutor | None = None
        self._depth = EACH * helpers
        if helpers:
            # a process that holds a GPU cannot be forked
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(helpers, mp_context=context, initializer=_begin)
            weakref.finalize(self, self._pool.shutdown, wait=False, cancel_futures=True)

    def __call__(self, step: int) -> T:
        """What this step learns from."""
        if self._pool is None:
            return self._make(step)
        for coming in range(step, min(step + self._depth - 1, self._last) + 1):
            if coming not in self._coming:
                self._coming[coming] = self._pool.submit(self._make, coming)
        try:
            return self._coming.pop(step).result()
        except BrokenProcessPool as error:
            hint = "for want of memory, perhaps: continue with --resume, and fewer with --set helpers="
            raise TrainingError("a process that draws for coming steps was ended", hint=hint) from error


def drawing(helpers: int, where: torch.device) -> torch.device:
    """Where what is learnt from is drawn: with those who learn, or by helpers, which have no GPU."""
    return torch.device("cpu") if helpers else where


def _begin() -> None:
    """Ctrl-C stops who learns, and not who draws for it; each has one thread, for there are others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
