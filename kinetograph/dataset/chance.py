"""The random source of each clip: a pure function of the seed and the clip's number, and cheap."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

ROW = 64  # numbers drawn beforehand for each clip: hardly any asks for more
ROWS = 2**32 - 1  # a place that no clip has: where those numbers come from


class Source:
    """The random source of one clip: to a world, a numpy Generator.

    What worlds mostly ask for, one number at a time, comes from a row that was drawn for many clips at once, in a tenth
    of the time of numpy's own call. All else comes from a Generator of the clip's own.
    """

    def __init__(self, seed: int, place: int, row: Sequence[float]) -> None:
        self._key, self._row = (seed, place), iter(row)

    def random(self, size: Any = None) -> Any:
        """As `Generator.random`."""
        drawn = next(self._row, None) if size is None else None
        return self._own.random(size) if drawn is None else drawn

    def integers(self, low: int, high: int | None = None, size: Any = None) -> Any:
        """As `Generator.integers`."""
        if high is not None or size is not None:
            return self._own.integers(low, high, size)
        drawn = next(self._row, None)
        return int(low * (self._own.random() if drawn is None else drawn))

    def uniform(self, low: float = 0.0, high: float = 1.0, size: Any = None) -> Any:
        """As `Generator.uniform`."""
        return low + (high - low) * self.random(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    @cached_property
    def _own(self) -> np.random.Generator:
        return np.random.Generator(_stream(*self._key))


def _stream(seed: int, place: int) -> np.random.Philox:
    # By spawn key: a list of whole numbers is filled up with zeros, so that [seed, place] would be [seed, place, 0], a
    # key that training draws its clips by.
    return np.random.Philox(np.random.SeedSequence(seed, spawn_key=(place,)))


def source(seed: int, place: int) -> Source:
    """The random source of one clip."""
    return sources(seed, range(place, place + 1))[0]


def sources(seed: int, places: range) -> list[Source]:
    """The random sources of successive clips: whichever shards are made, and wherever, each gets the same numbers."""
    numbers = _stream(seed, ROWS)
    numbers.advance(places.start * ROW // 4)  # it makes four numbers at each step
    rows = np.random.Generator(numbers).random((len(places), ROW)).tolist()
    return [Source(seed, place, row) for place, row in zip(places, rows, strict=True)]
