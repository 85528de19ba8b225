"""Edits of shapes: an instruction, the scene that it is given for, and the scene in which it has been done.

Whatever an instruction does not name stays exactly as it is: where things are, how they move and how large they are.
Where that cannot be (a star that would leave the picture were it large), there is no such edit. The laws are those of
the critters' edits.
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
from kinetograph.looks import BACKGROUND_WORDS, BACKGROUNDS, SIZE_WORDS
from kinetograph.worlds.shapes.figures import FIGURES, outline
from kinetograph.worlds.shapes.scenes import (
    COLOURS,
    MARGIN,
    SIZES,
    Course,
    Scene,
    attributes,
    heldout,
    possible,
    span,
)
from kinetograph.worlds.shapes.words import COLOUR_WORDS, NOUNS

# --- what can be done -------------------------------------------------------------------------------------------------


def edits(scene: Scene) -> list[Edit]:
    """Everything that can be done to a scene, each changing a single attribute."""
    return every(_changes(scene), partial(_edit, scene))


def _changes(scene: Scene) -> dict[str, list[str]]:
    """What each attribute might become. Where two touch or pass, only their colours change: others would part them."""
    said = attributes(scene)
    values = {"background": tuple(BACKGROUNDS), "colour": tuple(COLOURS)}
    values |= {"partner colour": tuple(COLOURS)} if scene.relation else {"shape": tuple(FIGURES), "size": tuple(SIZES)}
    return {name: [value for value in ways if value != said[name]] for name, ways in values.items()}


def _edit(scene: Scene, name: str, value: str) -> Edit | None:
    """This change, where it can be seen and has room."""
    changed: dict[str, Any] = {name.replace(" ", "_"): value}
    after = replace(scene, **changed)
    if name == "size":
        after = replace(after, courses=(_resized(scene.courses[0], scene.size, value),))
    fits = name not in ("size", "shape") or _has_room(after)
    return Edit(name, value, after) if fits and possible(attributes(after)) else None


def _resized(course: Course, old: str, new: str) -> Course:
    """The course of a thing as far up in the range of one size as it was in that of another."""
    (a, b), (c, d), largest = SIZES[old], SIZES[new], max(course.size)
    factor = (c + (d - c) * (largest - a) / (b - a)) / largest
    return replace(course, size=(course.size[0] * factor, course.size[1] * factor))


def _has_room(scene: Scene) -> bool:
    (course,) = scene.courses
    reach = max(course.size) * outline(scene.shape).reach
    ends = [end for i in (0, 1) for end in span(course, reach, i)]
    return min(ends) >= MARGIN and max(ends) <= 1 - MARGIN


def edit(scene: Scene, rng: np.random.Generator, split: str = "all") -> tuple[Scene, str]:
    """One of the edits of a scene, every attribute as likely as any other: the scene after it, and an instruction.

    Of the `train` or the `heldout` split, it is one whose scene belongs to that split. Raises InvalidRequest where
    there is none.
    """
    found = chosen(_changes(scene), partial(_edit, scene), rng, split, heldout)
    return found.scene, instruction(scene, found, rng)


# --- words ------------------------------------------------------------------------------------------------------------

GROUNDING = (
    "make the background {}",
    "change the background to {}",
    "paint the background {}",
    "put it on {} background",
)
COLOURING = ("make {} {}", "paint {} {}", "turn {} {}", "change {} to {}", "{} should be {}")
SIZING = ("make {} {}", "{} should be {}")


def instruction(scene: Scene, edit: Edit, rng: np.random.Generator) -> str:
    """Tell somebody to do this, in one of many ways."""
    if edit.attribute == "background":
        way, colour = pick(rng, GROUNDING), pick(rng, BACKGROUND_WORDS[edit.value])
        return way.format(with_article("a", colour) if way.startswith("put") else colour)
    partner = edit.attribute.startswith("partner")
    shape, colour = (scene.partner_shape, scene.partner_colour) if partner else (scene.shape, scene.colour)
    told_apart = scene.shape == scene.partner_shape or rng.random() < 0.2  # of two stars, the red one
    who = joined("the", pick(rng, COLOUR_WORDS[colour]) if told_apart else "", pick(rng, NOUNS[shape]))
    if edit.attribute == "shape":
        return pick(rng, REPLACING).format(who, with_article("a", pick(rng, NOUNS[edit.value])))
    if edit.attribute == "size":
        return pick(rng, SIZING).format(who, pick(rng, SIZE_WORDS[edit.value]))
    return pick(rng, COLOURING).format(who, pick(rng, COLOUR_WORDS[edit.value]))


def words() -> tuple[str, ...]:
    """Every word that an instruction may contain, sorted."""
    said = [way.format("the", "a") for way in (*GROUNDING, *COLOURING, *REPLACING, *SIZING)]
    tables = (NOUNS, COLOUR_WORDS, BACKGROUND_WORDS, SIZE_WORDS)
    return vocabulary([*said, "an", *(phrase for table in tables for ways in table.values() for phrase in ways)])


# --- understanding ----------------------------------------------------------------------------------------------------


def requested(instruction: str, said: Mapping[str, str]) -> dict[str, str]:
    """What an instruction asks of a scene with these attributes: those that change, and what they become.

    Raises InvalidRequest where nothing is understood.
    """
    text = plain(instruction)
    if re.search(r"\bbackground\b", text):
        found = {"background": last(text, meanings(BACKGROUND_WORDS))}
    else:
        found = _of_things(text, said)
    found = {name: value for name, value in found.items() if value}
    if not found:
        hint = "for example 'make the background black', 'make the star red' or 'turn the square into a heart'"
        raise InvalidRequest(f"the shapes world understands no edit in {instruction[:80]!r}", hint=hint)
    return found


def _of_things(text: str, said: Mapping[str, str]) -> dict[str, str]:
    pattern, nouns, colours = _mention()
    named = [(nouns[m["noun"]], colours.get(m["colour"] or "", "")) for m in pattern.finditer(text)]
    rest = pattern.sub(" ", text)
    whose = _whose(*named[0], said) if named else ""
    if len(named) > 1:
        return {f"{whose}shape": named[1][0], f"{whose}colour": named[1][1]}
    return {f"{whose}colour": last(rest, colours), f"{whose}size": last(rest, meanings(SIZE_WORDS))}


def _whose(shape: str, colour: str, said: Mapping[str, str]) -> str:
    """ "partner " where the partner is meant: by what it is, and of two of a kind by its colour."""
    if shape != said.get("partner shape"):
        return ""
    return "" if shape == said.get("shape") and colour in ("", said.get("colour")) else "partner "


@cache
def _mention() -> tuple[re.Pattern[str], dict[str, str], dict[str, str]]:
    """A colour, if there is one, and a noun."""
    nouns, colours = meanings(NOUNS), meanings(COLOUR_WORDS)
    return re.compile(rf"\b(?:(?P<colour>{any_of(colours)}) )?(?P<noun>{any_of(nouns)})\b"), nouns, colours
