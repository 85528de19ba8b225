"""Edits of critters: an instruction, the scene that it is given for, and the scene in which it has been done.

Whatever an instruction does not name stays exactly as it is: where everybody stands and where the details of the place
lie. Where that cannot be (a dog that would not fit where a mouse stands), there is no such edit.

Two laws hold: what is asked for by an instruction is what the scene after it has, and a scene after an edit has, but
for what was asked for, the attributes of the one before.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np

from kinetograph.attributes import pick
from kinetograph.edits import REPLACING, Edit, chosen, every
from kinetograph.errors import InvalidRequest
from kinetograph.language import any_of, joined, last, meanings, plain, vocabulary, with_article
from kinetograph.worlds.critters import captions
from kinetograph.worlds.critters.captions import COAT_WORDS, NOUNS
from kinetograph.worlds.critters.drawing import Act, perform
from kinetograph.worlds.critters.scenes import ANIMALS, COATS, PARTNERS, PLACES, STILL, Scene, attributes, heldout

NEAR = 1e-9  # in sides: what moves less stays where it is


# --- what can be done -------------------------------------------------------------------------------------------------


def edits(scene: Scene) -> list[Edit]:
    """Everything that can be done to a scene, each changing a single attribute."""
    return every(_changes(scene), partial(_edit, scene))


def _changes(scene: Scene) -> dict[str, list[str]]:
    """What each attribute might become, whether there is room for it or not."""
    said = attributes(scene)
    values = {
        "place": PLACES,
        "coat": tuple(coat for coat in COATS if coat != scene.partner_coat),
        "animal": ANIMALS,
        "action": STILL if scene.action in STILL else (),
        "partner": tuple(value for value in PARTNERS.get(scene.action, ()) if _alike(value, scene.partner)),
        "partner coat": tuple(coat for coat in COATS if scene.partner_coat and coat != scene.coat),
    }
    changes = {name: [value for value in ways if value != said[name]] for name, ways in values.items() if ways}
    return {name: ways for name, ways in changes.items() if ways}


def _edit(scene: Scene, name: str, value: str) -> Edit | None:
    """This change, where everything else can stay as it is."""
    edit = Edit(name, value, _changed(scene, name, value))
    return edit if name in ("place", "coat", "partner coat") or _rest_stays(scene, edit) else None


def _alike(partner: str, other: str) -> bool:
    """An animal is replaced by an animal, and a thing by a thing."""
    return (partner in ANIMALS) == (other in ANIMALS)


def _changed(scene: Scene, name: str, value: str) -> Scene:
    """The scene with this value, begun where whoever is not meant (or who is, where there is nobody else) stays put."""
    changed: dict[str, Any] = {name.replace(" ", "_"): value}
    after = replace(scene, **changed)
    if name not in ("animal", "partner"):
        return after
    who = _kept(scene, name)
    here, low, high = (
        float(_begins(one, who).x[0]) for one in (scene, replace(after, start=0.0), replace(after, start=1.0))
    )
    return replace(after, start=scene.start if high == low else (here - low) / (high - low))


def _kept(scene: Scene, name: str) -> bool:
    """Whether it is the subject whose place is kept."""
    return not scene.partner or name == "partner"


def _begins(scene: Scene, subject: bool) -> Act:
    return _act(scene, np.zeros(1), subject)


def _act(scene: Scene, s: np.ndarray, subject: bool) -> Act:
    """The subject's act, or its partner's: where it fetches, it is painted first, otherwise last."""
    acts = perform(scene, s)
    return acts[0 if subject == (scene.action == "fetches") else -1]


def _rest_stays(scene: Scene, edit: Edit) -> bool:
    """Whether whoever is not meant does the same, and who is meant still has room."""
    if not 0 <= edit.scene.start <= 1:
        return False
    s, who = np.linspace(0, 1, 9), _kept(scene, edit.attribute)
    before, after = _act(scene, s, who), _act(edit.scene, s, who)
    gone = float(np.abs(before.x - after.x).max())
    high = float(np.abs(before.height - after.height).max()) if scene.partner else 0.0
    return max(gone, high) < NEAR


def edit(scene: Scene, rng: np.random.Generator, split: str = "all") -> tuple[Scene, str]:
    """One of the edits of a scene, every attribute as likely as any other: the scene after it, and an instruction.

    Of the `train` or the `heldout` split, it is one whose scene belongs to that split. Raises InvalidRequest where
    there is none.
    """
    found = chosen(_changes(scene), partial(_edit, scene), rng, split, heldout)
    return found.scene, instruction(scene, found, rng)


# --- words ------------------------------------------------------------------------------------------------------------

TO_PLACES = {
    "meadow": ("put it in a meadow", "move it to the meadow", "make it a green field", "set it on the grass"),
    "beach": ("put it on the beach", "move it to the beach", "take it to the sea", "make it a sandy beach"),
    "snow": ("make it winter", "put it in the snow", "make it snowy", "turn it into a snowy day"),
    "night": ("make it night", "turn it into night", "make it a starry night", "put it under the stars"),
    "room": ("put it in a room", "move it indoors", "bring it inside", "make it a living room"),
}
SCENERY = {
    "meadow": ("meadow", "green field"),
    "beach": ("beach", "sandy beach"),
    "snow": ("snowy landscape", "winter day"),
    "night": ("starry night", "night"),
    "room": ("room", "living room"),
}
COLOURING = ("make {} {}", "paint {} {}", "turn {} {}", "give {} a {} coat", "change {} to {}", "{} should be {}")
CALMING = {
    "sleeps": ("put {} to sleep", "make {} sleep", "let {} sleep", "{} should be asleep"),
    "sits": ("make {} sit", "let {} sit", "make {} sit down", "{} should sit"),
}


def instruction(scene: Scene, edit: Edit, rng: np.random.Generator) -> str:
    """Tell somebody to do this, in one of many ways."""
    if edit.attribute == "place":
        return _to_place(scene.place, edit.value, rng)
    partner = edit.attribute.startswith("partner")
    name, coat = (scene.partner, scene.partner_coat) if partner else (scene.animal, scene.coat)
    other, other_coat = (scene.animal, scene.coat) if partner else (scene.partner, scene.partner_coat)
    told_apart = name == other and coat != other_coat  # of two cats, the white one
    if edit.attribute == "coat" and not scene.partner and rng.random() < 0.2:
        return f"make it {pick(rng, COAT_WORDS[edit.value][:2])}"
    who = joined(
        "the", pick(rng, COAT_WORDS[coat]) if coat and (told_apart or rng.random() < 0.2) else "", _noun(name, rng)
    )
    if edit.attribute.endswith("coat"):
        return pick(rng, COLOURING).format(who, pick(rng, COAT_WORDS[edit.value]))
    if edit.attribute == "action":
        return pick(rng, CALMING[edit.value]).format(who)
    return pick(rng, REPLACING).format(who, with_article("a", _noun(edit.value, rng)))


def _to_place(old: str, new: str, rng: np.random.Generator) -> str:
    if rng.random() < 0.6:
        return pick(rng, TO_PLACES[new])
    here, there = pick(rng, SCENERY[old]), with_article("a", pick(rng, SCENERY[new]))
    return pick(
        rng, (f"turn the {here} into {there}", f"change the background to {there}", f"replace the {here} with {there}")
    )


def _noun(name: str, rng: np.random.Generator) -> str:
    return pick(rng, [noun for noun in NOUNS[name] if " " not in noun or noun == "piece of cheese"])


def words() -> tuple[str, ...]:
    """Every word that an instruction may contain, sorted."""
    calming = [way for ways in CALMING.values() for way in ways]
    said = [way.format("the", "a") for way in (*REPLACING, *COLOURING, *calming, "change the background to {}")]
    tables = (TO_PLACES, SCENERY, NOUNS, COAT_WORDS)
    return vocabulary([*said, "an", "it", *(phrase for table in tables for ways in table.values() for phrase in ways)])


# --- understanding ----------------------------------------------------------------------------------------------------


def requested(instruction: str, said: Mapping[str, str]) -> dict[str, str]:
    """What an instruction asks of a scene with these attributes: those that change, and what they become.

    Raises InvalidRequest where nothing is understood.
    """
    text = plain(instruction)
    nouns, _, _ = captions.noun_pattern()
    named, rest = captions.mentions_of(text), nouns.sub(" ", text)
    whose = _whose(named[0], said) if named else ""
    coat, bare = _coat(rest)
    place = last(bare, meanings(captions.PLACE_WORDS, captions.MOVING_PLACE_WORDS, captions.MORE_PLACES))
    if len(named) > 1:
        found = {"partner" if whose else "animal": named[1].name, f"{whose}coat": named[1].coat}
    elif coat and (named or not place):
        found = {f"{whose}coat": coat}
    elif place:
        found = {"place": place}
    else:
        action, _, _ = captions.action_of(rest, [])
        found = {"action": action if action in STILL else ""}
    found = {name: value for name, value in found.items() if value}
    if not found:
        hint = "for example 'make it night', 'make the cat black' or 'turn the dog into a rabbit'"
        raise InvalidRequest(f"the critters world understands no edit in {instruction[:80]!r}", hint=hint)
    return found


def _whose(mention: captions.Mention, said: Mapping[str, str]) -> str:
    """ "partner " where the partner is meant: by what it is, and of two of a kind by its coat."""
    if mention.name != said.get("partner"):
        return ""
    ours = mention.name == said.get("animal")
    return "" if ours and mention.coat in ("", said.get("coat")) else "partner "


def _coat(text: str) -> tuple[str, str]:
    """The last coat that a text names, and the text without any."""
    pattern, coats = _coats()
    found = pattern.findall(text)
    return (coats[found[-1]] if found else ""), pattern.sub(" ", text)


@cache
def _coats() -> tuple[re.Pattern[str], dict[str, str]]:
    """Words for coats, but for those that mean places too."""
    places = meanings(captions.MORE_PLACES)
    coats = {way: coat for way, coat in meanings(COAT_WORDS, captions.MORE_COATS).items() if way not in places}
    return re.compile(rf"\b(?:{any_of(coats)})\b"), coats
