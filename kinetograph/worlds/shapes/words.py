"""The words of the shapes world: captions, paraphrases, and what a prompt asks for."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from kinetograph import looks
from kinetograph.attributes import pick
from kinetograph.errors import InvalidRequest
from kinetograph.language import (
    Patterns,
    longest_first,
    meanings,
    patterns,
    plain,
    take,
    vocabulary,
    with_article,
)
from kinetograph.looks import BACKGROUND_WORDS, SIZE_WORDS
from kinetograph.motions import SPEED_WORDS, STRAIGHT, loosely, ways
from kinetograph.worlds.shapes.figures import ROUND
from kinetograph.worlds.shapes.scenes import (
    ATTRIBUTES,
    COLOURS,
    MOTIONS,
    SPINNING,
    Scene,
    attributes,
    default_background,
)

# how often a caption does not mention an attribute
LEFT_OUT = {"shape": 0.05, "colour": 0.1, "size": 0.3, "motion": 0.04}
LEFT_OUT |= {"partner shape": 0.05, "partner colour": 0.1, "partner size": 0.4}
EVERYTHING: Mapping[str, float] = {}  # nothing is left out

NOUNS = {
    "circle": ("circle", "disc", "disk", "ball", "dot"),
    "square": ("square", "box"),
    "triangle": ("triangle",),
    "star": ("star",),
    "hexagon": ("hexagon",),
    "heart": ("heart",),
    "cross": ("cross", "plus sign"),
    "crescent": ("crescent", "moon", "crescent moon", "half moon"),
    "ring": ("ring", "hoop"),
}
COLOUR_WORDS = {colour: looks.COLOUR_WORDS[colour] for colour in COLOURS}
ANYTHING = ("shape", "figure", "object", "thing")  # said where the shape is left out
Phrase = tuple[str, str]  # the same action as a participle and as a finite verb

VERBS: tuple[Phrase, ...] = (
    *(("moving", "moves"), ("going", "goes"), ("drifting", "drifts"), ("gliding", "glides"), ("sliding", "slides")),
    *(("travelling", "travels"), ("heading", "heads"), ("floating", "floats")),
)
COUNTER = ("counter-clockwise", "anticlockwise", "counterclockwise")
_TURNING = (("spinning", "spins"), ("rotating", "rotates"), ("turning", "turns"), ("twirling", "twirls"))
_CIRCLING = (("circling", "circles"), ("orbiting", "orbits"), ("going round", "goes round"))
_FALLING = (("falling", "falls"), ("descending", "descends"), ("sinking", "sinks"))


def _with(verbs: Sequence[Phrase], *rests: str) -> tuple[Phrase, ...]:
    """Every verb with every rest of the phrase."""
    return tuple((f"{participle} {rest}", f"{finite} {rest}") for participle, finite in verbs for rest in rests)


_BOUNCING, _ZIGZAGGING, _MOVING = (("bouncing", "bounces"),), (("zigzagging", "zigzags"),), (("moving", "moves"),)
OTHER_MOTION_PHRASES: dict[str, tuple[Phrase, ...]] = {
    "up": (("rising", "rises"), ("ascending", "ascends")),
    "down": _FALLING,
    "bouncing vertically": _with(_BOUNCING, "vertically", "up and down"),
    "bouncing horizontally": _with(_BOUNCING, "horizontally", "left and right", "from side to side"),
    "zigzagging vertically": (*_with(_ZIGZAGGING, "vertically"), *_with(_MOVING, "vertically in a zigzag")),
    "zigzagging horizontally": (*_with(_ZIGZAGGING, "horizontally"), *_with(_MOVING, "horizontally in a zigzag")),
    "circling clockwise": (*_with(_CIRCLING, "clockwise"), *_with(_MOVING, "clockwise in a circle")),
    "circling counter-clockwise": (
        *_with(_CIRCLING, *COUNTER),
        *_with(_MOVING, *(f"{way} in a circle" for way in COUNTER)),
    ),
    "spinning clockwise": _with(_TURNING, "clockwise"),
    "spinning counter-clockwise": _with(_TURNING, *COUNTER),
    "shrinking": (
        *(("shrinking", "shrinks"), ("contracting", "contracts")),
        *(("getting smaller", "gets smaller"), ("becoming smaller", "becomes smaller")),
    ),
    "expanding": (
        *(("expanding", "expands"), ("growing", "grows"), ("swelling", "swells")),
        *(("getting bigger", "gets bigger"), ("getting larger", "gets larger")),
    ),
    "appearing": (("appearing", "appears"), ("fading in", "fades in"), ("becoming visible", "becomes visible")),
    "disappearing": (
        *(("disappearing", "disappears"), ("fading out", "fades out"), ("fading away", "fades away")),
        ("vanishing", "vanishes"),
    ),
    "still": (
        *(("standing still", "stands still"), ("staying still", "stays still"), ("resting", "rests")),
        *(("staying at rest", "stays at rest"), ("standing motionless", "stands motionless")),
    ),
}


@dataclass(frozen=True)
class Manner:
    """How a relation is said: by the subject, in the passive, and by the partner in words of its own."""

    active: tuple[Phrase, ...]
    passive: tuple[str, ...] = ()
    inverse: tuple[Phrase, ...] = ()


_PASSING = (("passing", "passes"), *VERBS[:1], *VERBS[3:5])
_SITTING: tuple[Phrase, ...] = (("", "is"), ("sitting", "sits"), ("staying", "stays"))
MANNERS = {
    "chases": Manner(
        active=(("chasing", "chases"), ("following", "follows"), ("pursuing", "pursues"), ("hunting", "hunts")),
        passive=("chased by", "followed by", "pursued by", "hunted by"),
        inverse=(("fleeing from", "flees from"), ("running away from", "runs away from")),
    ),
    "orbits": Manner(
        active=(
            *(("orbiting", "orbits"), ("circling", "circles")),
            *_with((*_MOVING, ("circling", "circles"), ("revolving", "revolves")), "around"),
            ("going round", "goes round"),
        ),
        passive=("orbited by", "circled by"),
    ),
    "passes behind": Manner(active=_with(_PASSING, "behind")),
    "passes in front of": Manner(active=_with(_PASSING, "in front of")),
    "bounces off": Manner(
        active=(
            *(("bouncing off", "bounces off"), ("bouncing back from", "bounces back from")),
            ("rebounding from", "rebounds from"),
        )
    ),
    "pushes": Manner(
        active=(("pushing", "pushes"), ("shoving", "shoves")),
        passive=("pushed by", "shoved by"),
    ),
    "left of": Manner(
        active=_with(_SITTING, "to the left of", "left of"),
        inverse=_with(_SITTING, "to the right of", "right of"),
    ),
    "above": Manner(active=_with(_SITTING, "above"), inverse=_with(_SITTING, "below", "beneath", "under")),
}
OPENINGS = ("a video of", "a clip of", "an animation of", "a video that shows", "in this video there is")
GRAMMAR_WORDS = ("a", "an", "the", "on", "against", "background", "backdrop", "there", "is", "that", "and")


@cache
def motion_phrases() -> dict[str, tuple[Phrase, ...]]:
    """Every way of naming each motion, verbs included."""
    phrases = {motion: [*OTHER_MOTION_PHRASES.get(motion, ())] for motion in MOTIONS}
    for motion in STRAIGHT:
        phrases[motion] += _with(VERBS, *ways(motion))
    return {motion: tuple(said) for motion, said in phrases.items()}


def caption(scene: Scene, rng: np.random.Generator, left_out: Mapping[str, float] = LEFT_OUT) -> str:
    """Describe a scene in one of very many ways. Unsaid are the default background and speed, and, as often as
    `left_out` says, what it names: of that a prompt without the word means any. A relation is always said.
    """
    telling = _Telling.of(scene, rng, left_out)
    return telling.of_two(_CAPTIONS_OF_TWO) if "relation" in telling.said else telling.of_one(_CAPTIONS_OF_ONE)


def still_caption(scene: Scene, rng: np.random.Generator) -> str:
    """Describe what one picture of a scene shows, without motion; a relation is said all the same."""
    return caption(scene, rng, {**LEFT_OUT, "motion": 1.0})


def paraphrase(scene: Scene, rng: np.random.Generator, left_out: Mapping[str, float] = EVERYTHING) -> str:
    """Describe a scene in a sentence such as `caption` never builds, out of words that it does use: relative clauses,
    the full passive, another order. It says everything unless told otherwise: a test of what was understood.
    """
    telling = _Telling.of(scene, rng, left_out)
    return telling.of_two(_PARAPHRASES_OF_TWO) if "relation" in telling.said else telling.of_one(_PARAPHRASES_OF_ONE)


# {a} and {b} are the things, {doing} and {does} the action of a on b; {on} is the background, or nothing.
# A row with {a_is} needs something to say of each thing besides its shape; one with {done} a passive.
_CAPTIONS_OF_ONE = (
    *3 * ("{a} {does} {on}", "{a} {doing} {on}"),
    *2 * ("{opening} {a} {doing} {on}", "{a} is {doing} {on}"),
    *("{on}, {a} {does}", "there is {a} {doing} {on}"),
)
_PARAPHRASES_OF_ONE = (
    "there is {a} that {does} {on}",
    "there is {a} that is {doing} {on}",
    "{on}, {a} is {doing}",
    "{doing} {on} is {a}",
    "{a} that {does} is on {ground}",
    "the background is {hue} and {a} {does}",
    "{a_noun} that is {a_is} {does} {on}",
    "{a_noun} {doing} {on} is {a_is}",
)
_CAPTIONS_OF_TWO = (
    *4 * ("{a} {does} {b} {on}",),
    *2 * ("{a} {doing} {b} {on}", "{opening} {a} {doing} {b} {on}"),
    *("{a} is {doing} {b} {on}", "{on}, {a} {does} {b}", "there is {a} {doing} {b} {on}"),
    *2 * ("{b} {done} {a} {on}", "{opening} {b} {done} {a} {on}"),
    *("{b} {undoes} {a} {on}", "{b} {undoing} {a} {on}"),
)
_PARAPHRASES_OF_TWO = (
    "there is {a} that {does} {b} {on}",
    "{on} there is {a} that is {doing} {b}",
    "{doing} {b} is {a} {on}",
    "there is {b} that {a} {does} {on}",
    "the background is {hue} and {a} {does} {b}",
    "{a_noun} that is {a_is} {does} {b_noun} that is {b_is} {on}",
    "{b} is {done} {a} {on}",
    "there is {b} that is {done} {a} {on}",
    "{on} there is {b} that is {done} {a}",
    "there is {b} that {undoes} {a} {on}",
)


@dataclass(frozen=True)
class _Telling:
    """What is to be said, and the source that chooses the words."""

    said: Mapping[str, str]
    rng: np.random.Generator

    @classmethod
    def of(cls, scene: Scene, rng: np.random.Generator, left_out: Mapping[str, float]) -> "_Telling":
        said = {name: value for name, value in attributes(scene).items() if rng.random() >= left_out.get(name, 0.0)}
        usual = default_background(said.get("colour"), said.get("partner colour"))
        if left_out and said.get("background") == usual and rng.random() < 0.7:
            del said["background"]
        if (said.get("speed") == "steadily" and left_out and rng.random() < 0.8) or "motion" not in said:
            said.pop("speed", None)
        return cls(said, rng)

    def pick(self, ways: Sequence[Any]) -> Any:
        return pick(self.rng, ways)

    def word(self, table: Mapping[str, Sequence[str]], name: str) -> str:
        return self.pick(table[self.said[name]]) if name in self.said else ""

    def thing(self, whose: str, bare: bool = False) -> str:
        """'a big red star'; bare: 'a star'."""
        noun = self.word(NOUNS, f"{whose}shape") or self.pick(ANYTHING)
        words = [noun] if bare else [*self.looks(whose), noun]
        return with_article(self.pick(("a", "a", "the")), " ".join(words))

    def looks(self, whose: str) -> list[str]:
        ways = (self.word(SIZE_WORDS, f"{whose}size"), self.word(COLOUR_WORDS, f"{whose}colour"))
        return [way for way in ways if way]

    def ground(self) -> dict[str, str]:
        """The background on its own, as a noun, and as a place."""
        hue = self.word(BACKGROUND_WORDS, "background")
        if not hue:
            return {}
        noun = f"{with_article('a', hue)} {self.pick(('background', 'backdrop'))}"
        return {"hue": hue, "ground": noun, "on": f"{self.pick(('on', 'against'))} {self.pick((noun, noun, hue))}"}

    def of_one(self, rows: Sequence[str]) -> str:
        if "motion" not in self.said:
            return self.sentence(("{a} {on}", "{opening} {a} {on}"), self.things(("",)))
        doing, does = self.pick(motion_phrases()[self.said["motion"]])
        speed = self.word(SPEED_WORDS, "speed")
        if speed:
            ahead = " " not in speed and self.rng.random() < 0.3
            doing, does = (f"{speed} {verb}" if ahead else f"{verb} {speed}" for verb in (doing, does))
        return self.sentence(rows, {**self.things(("",)), "doing": doing, "does": does})

    def of_two(self, rows: Sequence[str]) -> str:
        manner = MANNERS[self.said["relation"]]
        words = self.things(("", "partner "))
        words["doing"], words["does"] = self.pick(manner.active)
        if manner.passive:
            words["done"] = self.pick(manner.passive)
        if manner.inverse:
            words["undoing"], words["undoes"] = self.pick(manner.inverse)
        return self.sentence(rows, words)

    def things(self, who: Sequence[str]) -> dict[str, str]:
        words = self.ground() | {"opening": self.pick(OPENINGS)}
        for letter, whose in zip("ab", who, strict=False):
            words[letter], words[f"{letter}_noun"] = self.thing(whose), self.thing(whose, bare=True)
            if looks := self.looks(whose):
                words[f"{letter}_is"] = " and ".join(looks)
        return words

    def sentence(self, rows: Sequence[str], words: Mapping[str, str]) -> str:
        """One of the rows for which there are words, filled in; without a background, its place is empty."""
        fitting = [row for row in rows if _needs(row) <= words.keys()]
        filled = self.pick(fitting).format(**{"on": "", **words})
        return re.sub(" +", " ", filled).strip(" ,").replace(" ,", ",")


@cache
def _needs(row: str) -> frozenset[str]:
    """The words without which a row is no sentence; the place may always stay empty, unless the row begins with it."""
    names = frozenset(re.findall(r"{(\w+)}", row))
    return names if row.startswith("{on}") else names - {"on"}


@cache
def words() -> tuple[str, ...]:
    """Every word that a caption or a paraphrase may contain, sorted: the vocabulary of a text encoder."""
    tables: tuple[Mapping[str, Sequence[str]], ...]
    tables = (NOUNS, COLOUR_WORDS, BACKGROUND_WORDS, SIZE_WORDS, SPEED_WORDS)
    actions = [pair for ways in motion_phrases().values() for pair in ways]
    actions += [pair for manner in MANNERS.values() for pair in (*manner.active, *manner.inverse)]
    phrases = [phrase for table in tables for ways in table.values() for phrase in ways]
    phrases += [phrase for pair in actions for phrase in pair]
    phrases += [phrase for manner in MANNERS.values() for phrase in manner.passive]
    phrases += [*GRAMMAR_WORDS, *ANYTHING, *OPENINGS]
    return vocabulary(phrases)


# --- parsing ---


def parse(prompt: str) -> dict[str, str]:
    """The attributes that a prompt asks for: those it states, and the background and speed that silence means.

    An attribute that a prompt leaves open is absent: any value obeys. "Right of", "below" and the passive are turned
    round, so that the subject is who does it. Raises InvalidRequest for a prompt in which nothing is understood.
    """
    text = re.sub(
        r"\b(?:of|in|on|across) (?:the|this) (?:picture|screen|frame|image|video|scene)\b", " ", plain(prompt)
    )
    background, text = take(text, _background_patterns())
    text = plain(text)
    said = _parse_two(text) or _parse_one(text)
    if not said and not re.search(rf"\b(?:{'|'.join(ANYTHING)})s?\b", text):
        raise InvalidRequest(
            f"the shapes world understands nothing in {prompt[:80]!r}",
            hint="say what moves and how, for example 'a big red star spins clockwise' or 'a heart orbits a square'",
        )
    said["background"] = background or default_background(said.get("colour"), said.get("partner colour"))
    return {name: said[name] for name in ATTRIBUTES if name in said}


def _parse_one(text: str) -> dict[str, str]:
    """What is said of one thing, or of two of which no relation is told."""
    speed, text = take(text, _patterns("speed"))
    motion, text = take(text, _motion_patterns())
    places = [found.end() for found in _noun().finditer(text)]
    if motion is None and len(places) > 1 and not loosely(text, KINDS):
        return _thing(text[: places[0]], "") | _thing(text[places[0] :], "partner ")
    motion = motion or loosely(text, KINDS)
    said = _thing(text, "")
    if said.get("shape") in ROUND and motion in SPINNING:
        motion = motion.replace("spinning", "circling")  # what else could "a circle rotating" look like
    if motion:
        said["motion"] = motion
    if motion and motion != "still":
        said["speed"] = speed or "steadily"
    return said


def _parse_two(text: str) -> dict[str, str]:
    """What is said of two things in a relation; nothing where no relation is told."""
    found, relation, turned = _relation(text)
    if not found:
        return {}
    before, after = text[: found.start()], text[found.end() :]
    left, right = ([noun.end() for noun in _noun().finditer(part)] for part in (before, after))
    if not left and len(right) > 1:  # "orbiting a square is a heart"
        before, after = after[right[0] :], after[: right[0]]
    elif not right and len(left) > 1:  # "there is a square that a heart orbits"
        before, after = before[left[0] :], before[: left[0]]
    elif len(left) > 1 and not turned:  # "a heart and a square, the heart orbits the square"
        before = before[left[-2] :] if _thing(before[left[-2] :], "").get("colour") else before
    subject, partner = (after, before) if turned else (before, after)
    return {"relation": relation} | _thing(subject, "") | _thing(partner, "partner ")


def _relation(text: str) -> tuple[re.Match[str] | None, str, bool]:
    """Where a relation is told, which, and whether from the partner's end."""
    for pattern, relation, turned in _relation_patterns():
        found = pattern.search(text)
        if found and (_noun().search(text, found.end()) or len(_noun().findall(text)) > 1):
            return found, relation, turned
    return None, "", False


def _thing(text: str, whose: str) -> dict[str, str]:
    """Shape, colour and size, of which each may stand anywhere in these words."""
    said = {}
    for name in ("shape", "size", "colour"):
        value, text = take(text, _patterns(name))
        if value:
            said[f"{whose}{name}"] = value
    return said


_ALSO_SAID: dict[str, dict[str, tuple[str, ...]]] = {  # what people type besides the words of captions
    "speed": {"slowly": ("slow",), "quickly": ("quick", "rapid", "swift"), "steadily": ("steady",)},
    "shape": {
        "circle": ("orb", "discs", "balls", "dots"),
        "square": ("squares",),
        "triangle": ("triangles",),
        "star": ("stars",),
        "hexagon": ("hexagons",),
        "heart": ("hearts",),
        "cross": ("plus", "crosses"),
        "crescent": ("moons", "crescents"),
        "ring": ("rings", "donut", "doughnut"),
    },
}


@cache
def _patterns(attribute: str) -> Patterns:
    tables: dict[str, Mapping[str, Sequence[str]]]
    tables = {"shape": NOUNS, "colour": COLOUR_WORDS, "size": SIZE_WORDS, "speed": SPEED_WORDS}
    return patterns(meanings(tables[attribute], _ALSO_SAID.get(attribute, {})))


@cache
def _noun() -> re.Pattern[str]:
    nouns = [
        *ANYTHING,
        *(phrase for table in (NOUNS, _ALSO_SAID["shape"]) for ways in table.values() for phrase in ways),
    ]
    return re.compile(rf"\b(?:{'|'.join(sorted(nouns, key=len, reverse=True))})\b")


@cache
def _background_patterns() -> Patterns:
    on, article = r"(?:(?:on|against|over|in front of|with) )?", r"(?:(?:an?|the) )?"
    grounds = meanings(BACKGROUND_WORDS)
    named = patterns(grounds, rf"\b{on}{article}{{}} (?:background|backdrop)\b")
    stated = patterns(grounds, r"\b(?:the )?(?:background|backdrop) is {}\b")
    nouns = _noun().pattern.replace("{", "{{").replace("}", "}}")
    looks = "|".join(phrase for table in (COLOUR_WORDS, SIZE_WORDS) for ways in table.values() for phrase in ways)
    bare = patterns(grounds, rf"\b(?:on|against|over) {article}{{}}\b(?! (?:{looks}|{nouns}))")
    return named + stated + bare


@cache
def _motion_patterns() -> Patterns:
    flat = {motion: [phrase for pair in said for phrase in pair] for motion, said in motion_phrases().items()}
    return patterns(meanings(flat))


_AROUND = r"(?: (?:a?round|about))"
_LOOSE_RELATIONS = (  # whatever the tense; True where the partner is named first
    (r"(?:chas|follow|pursu|hunt)ed by", "chases", True),
    (r"(?:fle[ed]\w*|run\w*(?: away)?|escap\w+) from", "chases", True),
    (r"(?:chas|follow|pursu|hunt)(?:e|es|s|ing)?|run\w* after", "chases", False),
    (r"(?:orbited|circled) by", "orbits", True),
    (rf"(?:orbit|revolv|circl|rotat|spin|mov|go|travel|fl[yi])\w*{_AROUND}", "orbits", False),
    (r"orbit(?:s|ing)?|circles|circling", "orbits", False),
    (r"(?:(?:pass|mov|go|slid|glid|travel|drift|hid)\w* )?behind", "passes behind", False),
    (r"(?:pass|mov|go|slid|glid|travel|drift)\w* (?:in front of|over)|in front of", "passes in front of", False),
    (r"(?:bounc|rebound)\w*(?: back)? (?:off|from)(?: of)?(?! side)", "bounces off", False),
    (r"(?:push|shov)ed by", "pushes", True),
    (r"(?:push|shov)(?:e|es|ing)?", "pushes", False),
    (r"(?:(?:to|on|at) the )?left (?:hand )?(?:side )?of", "left of", False),
    (r"(?:(?:to|on|at) the )?right (?:hand )?(?:side )?of", "left of", True),
    (r"above|on top of|over", "above", False),
    (r"below|beneath|underneath|under", "above", True),
)


@cache
def _relation_patterns() -> tuple[tuple[re.Pattern[str], str, bool], ...]:
    """Every way of naming each relation, longest phrase first, then what is only nearly one of them."""
    rows: dict[str, tuple[str, bool]] = {}
    for relation, manner in MANNERS.items():
        rows |= {plain(phrase): (relation, False) for pair in manner.active for phrase in pair}
        rows |= {plain(phrase): (relation, True) for pair in manner.inverse for phrase in pair}
        rows |= dict.fromkeys(manner.passive, (relation, True))
    said = [*((re.escape(phrase), *rows[phrase]) for phrase in longest_first(rows)), *_LOOSE_RELATIONS]
    alone = (
        r"(?! (?:clockwise|counter|anti|anticlockwise|counterclockwise)\b)"  # no partner: "a star circling clockwise"
    )
    return tuple((re.compile(rf"\b(?:{text})\b{alone}"), relation, turned) for text, relation, turned in said)


KINDS = {  # by which beginnings of words a motion is known that no phrase of ours names
    "bouncing": ("bounc",),
    "zigzagging": ("zigzag",),
    "spinning": ("spin", "rotat", "twirl", "turn", "whirl"),
    "circling": ("circling", "circles", "orbit"),
    "shrinking": ("shrink", "shrunk", "contract"),
    "expanding": ("grow", "expand", "swell"),
    "disappearing": ("disappear", "vanish"),
    "appearing": ("appear",),
    "still": ("still", "motionless", "stationary", "rest"),
}
