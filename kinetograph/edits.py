"""What worlds have in common about edits: what an edit is, which ones a scene allows, and one of them by chance.

A world says what each attribute of a scene might become, and what comes of one such change: None where the rest could
not stay as it is.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kinetograph.errors import InvalidRequest

Changes = Mapping[str, Sequence[str]]  # attribute -> what it might become
REPLACING = ("turn {} into {}", "replace {} with {}", "swap {} for {}", "change {} into {}", "make {} {}")


@dataclass(frozen=True)
class Edit:
    """One attribute that becomes another, and the scene after that."""

    attribute: str
    value: str
    scene: Any


Change = Callable[[str, str], Edit | None]  # what comes of a value of an attribute


def every(changes: Changes, change: Change) -> list[Edit]:
    """All that can be."""
    return [edit for name, values in changes.items() for value in values if (edit := change(name, value))]


def chosen(
    changes: Changes, change: Change, rng: np.random.Generator, split: str, heldout: Callable[[Any], bool]
) -> Edit:
    """One of them, every attribute as likely as any other; of a split, one whose scene belongs to it.

    Raises InvalidRequest where there is none.
    """
    for name in _shuffled(rng, list(changes)):
        for value in _shuffled(rng, changes[name]):
            found = change(name, value)
            if found and (split == "all" or heldout(found.scene) == (split == "heldout")):
                return found
    raise InvalidRequest(f"no edit of this scene is in the split {split!r}", hint="take another scene")


def _shuffled(rng: np.random.Generator, ways: Sequence[str]) -> list[str]:
    return [ways[place] for place in rng.permutation(len(ways))]
