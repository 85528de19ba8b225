"""What there is in the critters world: animals, actions, partners, places; sampling, and what training never sees."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from kinetograph.attributes import check, impossible, pick, tenth

ANIMALS = ("cat", "dog", "mouse", "rabbit", "bird", "fish")
COATS = ("white", "black", "grey", "brown", "orange", "cream")
ALONE = ("walks", "runs", "jumps", "sleeps", "sits")
STILL = ("sleeps", "sits")
PARTNERS = {  # what each action is done to
    "chases": (*ANIMALS, "ball", "butterfly"),
    "fetches": ("ball", "bone", "carrot", "cheese"),
    "follows": (*ANIMALS, "butterfly"),
    "jumps over": (*ANIMALS, "ball", "bone", "fence"),
}
THINGS = ("ball", "bone", "carrot", "cheese", "butterfly", "fence")
PLACES = ("meadow", "beach", "snow", "night", "room")
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "animal": ANIMALS,
    "coat": COATS,
    "action": (*ALONE, *PARTNERS),
    "direction": ("left", "right"),
    "partner": (*ANIMALS, *THINGS),
    "partner coat": COATS,
    "place": PLACES,
}
ALWAYS_HELD_OUT = (("cat", "fetches", "ball"), ("dog", "chases", "mouse"))

Cell = tuple[str, str, str, str]  # animal, action, partner and coat; one of the last two is "" for any or none


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One clip as data: what a prompt can say of it, and six numbers from 0 to 1 that no prompt says.

    What is still faces its direction too, but nothing is said of it; `partner` is "" for an animal alone, and
    `partner_coat` for a thing.
    """

    animal: str
    coat: str
    action: str
    direction: str
    partner: str
    partner_coat: str
    place: str
    start: float  # where in the room that the path leaves
    pace: float  # how far it goes, within what its action allows
    level: float  # how near the ground it stands on is
    phase: float  # where its gait begins
    shift: float  # where the details of the place lie
    drift: float  # how far they have moved


def attributes(scene: Scene) -> dict[str, str]:
    """Everything that can be said of a scene and read back from its pixels. What is still has no direction."""
    said = {name: getattr(scene, name.replace(" ", "_")) for name in ATTRIBUTES}
    if scene.action in STILL:
        del said["direction"]
    return {name: value for name, value in said.items() if value}


def heldout(scene: Scene) -> bool:
    """Whether this scene belongs to the split that training never sees."""
    return _cell(scene) in heldout_combinations()


@cache
def heldout_combinations() -> frozenset[Cell]:
    """The tenth of all (animal, action, partner) and of all (animal, coat, action), and two more."""
    kinds = ([cell for cell in _cells() if bool(cell[2]) == pair] for pair in (False, True))
    tenths = [cell for kind in kinds for cell in tenth("critters", kind)]
    return frozenset([*tenths, *((*triple, "") for triple in ALWAYS_HELD_OUT)])


@cache
def _cells() -> tuple[Cell, ...]:
    alone = [(animal, action, "", coat) for animal in ANIMALS for action in ALONE for coat in COATS]
    pairs = [(a, action, partner, "") for a in ANIMALS for action, ways in PARTNERS.items() for partner in ways]
    return (*alone, *pairs)


def _cell(scene: Scene) -> Cell:
    return (scene.animal, scene.action, scene.partner, "" if scene.partner else scene.coat)


# --- sampling ---------------------------------------------------------------------------------------------------------


def sample(rng: np.random.Generator, wanted: Mapping[str, str] | None = None, split: str = "all") -> Scene:
    """Draw a scene that has the wanted attributes, from the `train`, the `heldout` or `all` combinations.

    Raises UnknownName for an attribute, a value or a split that does not exist, and InvalidRequest where no such scene
    can be drawn (a cat that sleeps to the left; a held-out combination asked of the training split).
    """
    wanted = wanted or {}
    check("critters", ATTRIBUTES, wanted, split)
    asked = tuple(wanted.get(name, "") for name in ("animal", "action", "partner", "coat"))
    actions = _possible(split, asked, "direction" in wanted, wanted.get("partner coat", ""))
    if not actions:
        raise impossible("critters", wanted, split)
    animal, action, partner, coat = pick(rng, pick(rng, actions))
    coat, other = _coats(rng, wanted.get("coat", coat), wanted.get("partner coat", ""))
    return Scene(
        animal=animal,
        coat=coat,
        action=action,
        direction=wanted.get("direction") or pick(rng, ATTRIBUTES["direction"]),
        partner=partner,
        partner_coat=other if partner in ANIMALS else "",
        place=wanted.get("place") or pick(rng, PLACES),
        **dict(zip(("start", "pace", "level", "phase", "shift", "drift"), rng.random(6).tolist(), strict=True)),
    )


def near_misses(scene: Scene, rng: np.random.Generator) -> list[Scene]:
    """Scenes of the training split that each differ from this one in one attribute and in as few others as can be, one
    for every attribute of the world: their captions are wrong by little.

    Where an attribute leaves no such scene (what sleeps has no direction), the coat differs instead, or the place.
    """
    said = attributes(scene)
    misses = {name: _misses(scene, name) if name in said else [] for name in ATTRIBUTES}
    instead = misses["coat"] or misses["place"] or misses["animal"] or misses["action"]
    return [pick(rng, found or instead) for found in misses.values()]


def _misses(scene: Scene, name: str) -> list[Scene]:
    """Every scene of the training split that differs from this one in this attribute, and in no other if it can be."""
    field = name.replace(" ", "_")
    changes: list[dict[str, Any]] = [{field: value} for value in ATTRIBUTES[name] if value != getattr(scene, field)]
    changed = [_fitting(replace(scene, **change)) for change in changes]
    misses = [miss for miss in changed if miss.coat != miss.partner_coat and _cell(miss) in _training()]
    near = [miss for miss in misses if _distance(scene, miss) == 1]
    return near or misses


def _fitting(scene: Scene) -> Scene:
    """The scene without what its action has not, and with what it must have."""
    ways = PARTNERS.get(scene.action, ("",))
    partner = scene.partner if scene.partner in ways else ways[0]
    spare = scene.partner_coat or next(coat for coat in COATS if coat != scene.coat)
    return replace(scene, partner=partner, partner_coat=spare if partner in ANIMALS else "")


def _distance(scene: Scene, other: Scene) -> int:
    ours, theirs = attributes(scene), attributes(other)
    return sum(ours.get(name) != theirs.get(name) for name in ATTRIBUTES)


@cache
def _training() -> frozenset[Cell]:
    return frozenset(_cells()) - heldout_combinations()


@cache
def _possible(split: str, asked: Sequence[str], moves: bool, partner_coat: str) -> tuple[tuple[Cell, ...], ...]:
    """The cells that have what is asked, a tuple for each action, so that every action is as likely as any other."""
    animal, action, partner, coat = asked
    held = heldout_combinations()
    cells = [
        cell
        for cell in _cells()
        if animal in ("", cell[0])
        and action in ("", cell[1])
        and partner in ("", cell[2])
        and (not coat or cell[3] in ("", coat))
        and not (moves and cell[1] in STILL)
        and (not partner_coat or (cell[2] in ANIMALS and partner_coat != coat))
        and (split == "all" or (cell in held) == (split == "heldout"))
    ]
    actions = dict.fromkeys(cell[1] for cell in cells)
    return tuple(tuple(cell for cell in cells if cell[1] == action) for action in actions)


def _coats(rng: np.random.Generator, coat: str, other: str) -> tuple[str, str]:
    """The subject's coat and another for its partner, each as asked where one is asked for."""
    coat = coat or pick(rng, [c for c in COATS if c != other])
    return coat, other or pick(rng, [c for c in COATS if c != coat])
