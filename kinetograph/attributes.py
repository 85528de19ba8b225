"""What worlds have in common about attributes: choosing values, checking what is wanted, holding out a tenth.

A world names its attributes in a table, name -> values; a scene has one value of each, or of some.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from kinetograph.errors import InvalidRequest, UnknownName

SPLITS = ("train", "heldout", "all")
Table = Mapping[str, tuple[str, ...]]
One = TypeVar("One")
Combination = TypeVar("Combination", bound=tuple[str, ...])


def pick(rng: np.random.Generator, ways: Sequence[One]) -> One:
    """One of several, each as likely as any other."""
    return ways[int(rng.integers(len(ways)))]  # rng.choice builds an array first: ten times as slow


def between(rng: np.random.Generator, limits: tuple[float, float]) -> float:
    """A number between two limits, each as likely as any other."""
    return limits[0] + (limits[1] - limits[0]) * float(rng.random())


def within(value: float, limits: tuple[float, float]) -> float:
    """How far a number lies between two limits, 0 to 1: it undoes `between`."""
    return (value - limits[0]) / (limits[1] - limits[0])


def check(world: str, table: Table, wanted: Mapping[str, str], split: str) -> None:
    """Raise UnknownName for an attribute, a value or a split that does not exist."""
    if split not in SPLITS:
        raise UnknownName("split", split, SPLITS)
    for name, value in wanted.items():
        if name not in table:
            raise UnknownName(f"attribute of the {world} world", name, tuple(table))
        if value not in table[name]:
            raise UnknownName(name, value, table[name])


def impossible(world: str, wanted: Mapping[str, str], split: str) -> InvalidRequest:
    """The error for wishes that no scene of a split fulfils."""
    asked = ", ".join(f"{name} {value}" for name, value in wanted.items()) or "anything"
    hint = "change one of these or leave it out"
    return InvalidRequest(f"the {world} world has no visible clip with {asked} in the split '{split}'", hint=hint)


def tenth(world: str, combinations: Iterable[Combination]) -> list[Combination]:
    """The tenth of all combinations that training never sees, chosen by hash: the same for ever, on any machine."""

    def digest(combination: Combination) -> bytes:
        return hashlib.sha256("/".join(("kinetograph", world, *combination)).encode()).digest()

    everything = sorted(combinations, key=digest)
    return everything[: len(everything) // 10]
