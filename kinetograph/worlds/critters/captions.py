"""What can be said of the critters: captions, paraphrases in other structures, the parser that understands both."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol, TypeVar

import numpy as np

from kinetograph.attributes import pick as choose
from kinetograph.errors import InvalidRequest
from kinetograph.language import Patterns, any_of, joined, meanings, patterns, plain, vocabulary, with_article
from kinetograph.worlds.critters.scenes import ALONE, ANIMALS, PARTNERS, STILL, Scene, attributes

LEFT_OUT = {"coat": 0.25, "direction": 0.6, "place": 0.25, "partner coat": 0.3}  # how often a caption does not say it
EVERYTHING: Mapping[str, float] = {}  # nothing is left out

NOUNS = {
    "cat": ("cat", "cat", "kitten", "kitty"),
    "dog": ("dog", "dog", "puppy", "pup"),
    "mouse": ("mouse", "mouse", "little mouse"),
    "rabbit": ("rabbit", "rabbit", "bunny", "hare"),
    "bird": ("bird", "bird", "birdie", "little bird"),
    "fish": ("fish", "fish", "little fish"),
    "ball": ("ball", "ball", "red ball"),
    "bone": ("bone",),
    "carrot": ("carrot",),
    "cheese": ("piece of cheese", "cheese"),
    "butterfly": ("butterfly", "butterfly", "purple butterfly"),
    "fence": ("fence", "little fence", "hurdle"),
}
COAT_WORDS = {
    "white": ("white", "white", "snow white"),
    "black": ("black", "black", "jet black"),
    "grey": ("grey", "gray"),
    "brown": ("brown", "brown", "chocolate brown"),
    "orange": ("orange", "orange", "ginger"),
    "cream": ("cream", "cream coloured", "beige"),
}


@dataclass(frozen=True)
class Verb:
    """One verb: 'chases', 'chasing', 'chased', and the word that follows it: 'dashes after'."""

    finite: str
    progressive: str
    participle: str = ""  # of verbs that have a passive
    after: str = ""

    def forms(self) -> tuple[str, ...]:
        """Every phrase that is this verb, of an acting subject."""
        return tuple(f"{form} {self.after}".strip() for form in (self.finite, self.progressive))


def _verbs(rows: str) -> tuple[Verb, ...]:
    """'chases chasing chased; dashes dashing - after' as verbs."""
    verbs = []
    for row in rows.split(";"):
        finite, progressive, *rest = row.split()
        participle = rest[0] if rest and rest[0] != "-" else ""
        verbs.append(Verb(finite, progressive, participle, " ".join(rest[1:])))
    return tuple(verbs)


VERBS = {
    "walks": _verbs("walks walking; walks walking; strolls strolling; wanders wandering; ambles ambling"),
    "runs": _verbs("runs running; runs running; dashes dashing; races racing; sprints sprinting; rushes rushing"),
    "jumps": _verbs("jumps jumping; jumps jumping; hops hopping; leaps leaping; bounces bouncing"),
    "sleeps": _verbs("sleeps sleeping; sleeps sleeping; naps napping; snoozes snoozing; dozes dozing"),
    "sits": _verbs("sits sitting; sits sitting; sits sitting - still; sits sitting - quietly"),
    "chases": _verbs(
        "chases chasing chased; chases chasing chased; runs running - after; dashes dashing - after;"
        "races racing - after; pursues pursuing pursued"
    ),
    "fetches": _verbs(
        "fetches fetching fetched; fetches fetching fetched; retrieves retrieving retrieved; brings bringing - back"
    ),
    "follows": _verbs(
        "follows following followed; follows following followed; walks walking - behind; strolls strolling - behind"
    ),
    "jumps over": _verbs("jumps jumping - over; jumps jumping - over; leaps leaping - over; hops hopping - over"),
}
OWN_VERBS = {  # what only some animals do
    ("fish", "walks"): _verbs("swims swimming; swims swimming - slowly"),
    ("fish", "runs"): _verbs("darts darting; swims swimming - quickly"),
    ("bird", "runs"): _verbs("flies flying; flutters fluttering"),
    ("bird", "chases"): _verbs("flies flying - after"),
    ("fish", "chases"): _verbs("darts darting - after; swims swimming - after"),
    ("fish", "follows"): _verbs("swims swimming - behind"),
    ("rabbit", "runs"): _verbs("runs running; scampers scampering"),
    ("mouse", "runs"): _verbs("runs running; scurries scurrying"),
}
DIRECTION_WORDS = {
    "left": ("to the left", "towards the left", "leftwards", "from right to left"),
    "right": ("to the right", "towards the right", "rightwards", "from left to right"),
}
PLACE_WORDS = {
    "meadow": ("in the meadow", "in a meadow", "on the grass", "in a green field", "on a sunny meadow"),
    "beach": ("on the beach", "at the beach", "on the sand", "by the sea", "on a sandy beach"),
    "snow": ("in the snow", "in the snow", "on a snowy day", "in winter", "on the snow"),
    "night": ("at night", "at night", "under the stars", "in the moonlight", "on a starry night"),
    "room": ("in a room", "in the living room", "indoors", "at home", "on the carpet"),
}
MOVING_PLACE_WORDS = {  # of what goes somewhere
    "meadow": ("across the meadow", "through the grass", "across a green field"),
    "beach": ("along the beach", "across the sand"),
    "snow": ("through the snow", "across the snow"),
    "night": ("through the night",),
    "room": ("across the room", "across the carpet"),
}
OPENINGS = ("", "", "", "", "", "a video of ", "a clip of ", "there is ")
STILL_OPENINGS = ("", "", "", "", "a picture of ", "there is ")
STILL_WORDS = ("picture", "with")  # that only sentences on stills use
GRAMMAR = (
    *(
        "a",
        "an",
        "the",
        "and",
        "it",
        "is",
        "that",
        "which",
        "by",
        "being",
        "there",
        "while",
        "sleeping",
        "asleep",
        "going",
    ),
)


def caption(scene: Scene, rng: np.random.Generator, left_out: Mapping[str, float] = LEFT_OUT) -> str:
    """Describe a scene in one of very many ways; as often as `left_out` says, a coat, the direction or the place is not
    mentioned: a prompt without it means any."""
    said = _said(scene, rng, left_out)
    pick = _picker(rng)
    opening = pick(OPENINGS)
    subject, partner = _subject(said, pick, opening), _partner(said, pick)
    verb, end = _verb(said, pick), _end(said, pick)
    if verb.participle and not opening and rng.random() < 0.1:
        return joined(
            partner, pick((verb.participle, f"being {verb.participle}")), "by", _subject(said, pick, "a"), end
        )
    progressive = f"{verb.progressive} {verb.after} {partner}"
    if opening:
        act = progressive
    elif said["action"] == "sleeps" and rng.random() < 0.2:
        act = "is asleep"
    else:
        act = pick((f"{verb.finite} {verb.after} {partner}", f"is {progressive}", progressive))
    place = _place(said, pick) if "place" in said else ""
    if place and not opening and rng.random() < 0.15:
        return joined(f"{place},", subject, act, _way(said, pick))
    return joined(f"{opening}{subject}", act, end)


def still_caption(scene: Scene, rng: np.random.Generator, left_out: Mapping[str, float] = LEFT_OUT) -> str:
    """Describe what one picture of a scene shows, without what happens: 'a white cat on the beach'. Only rest is told,
    for it shows: 'a white cat sleeping on the beach'."""
    said = _said(scene, rng, left_out)
    pick = _picker(rng)
    opening = pick(STILL_OPENINGS)
    subject, partner = _subject(said, pick, opening), _partner({**said, "action": ""}, pick)
    place = pick(PLACE_WORDS[said["place"]]) if "place" in said else ""
    rest = pick(("sleeping", "asleep") if said["action"] == "sleeps" else ("sitting",)) if scene.action in STILL else ""
    company = joined(pick(("and", "with")), partner) if partner else ""
    if place and not opening and rng.random() < 0.15:
        return joined(f"{place},", subject, rest, company)
    return joined(f"{opening}{subject}", rest, company, place)


def paraphrase(scene: Scene, rng: np.random.Generator, left_out: Mapping[str, float] = EVERYTHING) -> str:
    """Describe a scene fully, unless told otherwise, in a structure that no caption has, in words that they have."""
    said, pick = _said(scene, rng, left_out), _picker(rng)
    subject, partner = _subject(said, pick, "a"), _partner(said, pick)
    verb, place, way = _verb(said, pick), _place(said, pick) if "place" in said else "", _way(said, pick)
    finite, progressive = (f"{form} {verb.after} {partner}" for form in (verb.finite, verb.progressive))
    shapes = [
        joined("there is", subject, pick(("that", "which")), finite, way, place),
        joined(place, "there is", subject, "and it", pick((finite, f"is {progressive}")), way),
        joined(progressive, way, place, "is", subject),
    ]
    if partner:
        shapes.append(joined("there is", partner, "and", subject, f"{verb.finite} {verb.after} it", way, place))
    if verb.participle:
        shapes.append(joined(place, "there is", partner, "that is", verb.participle, "by", subject, way))
        shapes.append(joined(partner, "is being", verb.participle, way, "by", subject, place))
    return pick(shapes)


def words() -> tuple[str, ...]:
    """Every word that a caption or a paraphrase may contain, sorted: a text encoder's vocabulary for this world."""
    tables = (NOUNS, COAT_WORDS, DIRECTION_WORDS, PLACE_WORDS, MOVING_PLACE_WORDS)
    phrases = [*GRAMMAR, *OPENINGS, *(phrase for table in tables for ways in table.values() for phrase in ways)]
    verbs = [verb for ways in (*VERBS.values(), *OWN_VERBS.values()) for verb in ways]
    phrases += [phrase for verb in verbs for phrase in (*verb.forms(), verb.participle)]
    return vocabulary(phrases)


One = TypeVar("One")


class Pick(Protocol):
    """Takes one of several, at random."""

    def __call__(self, ways: Sequence[One], /) -> One: ...


def _picker(rng: np.random.Generator) -> Pick:
    def pick(ways: Sequence[One], /) -> One:
        return choose(rng, ways)

    return pick


def _said(scene: Scene, rng: np.random.Generator, left_out: Mapping[str, float]) -> dict[str, str]:
    return {name: value for name, value in attributes(scene).items() if rng.random() >= left_out.get(name, 0.0)}


def _subject(said: Mapping[str, str], pick: Pick, opening: str) -> str:
    article = "a" if opening else pick(("a", "a", "the"))
    return _noun(article, pick(COAT_WORDS[said["coat"]]) if "coat" in said else "", pick(NOUNS[said["animal"]]))


def _partner(said: Mapping[str, str], pick: Pick) -> str:
    if "partner" not in said:
        return ""
    coat = pick(COAT_WORDS[said["partner coat"]]) if "partner coat" in said else ""
    asleep = said["action"] == "jumps over" and said["partner"] in ANIMALS
    return _noun(
        pick(("a", "a", "the")), f"{pick(('sleeping', '')) if asleep else ''} {coat}", pick(NOUNS[said["partner"]])
    )


def _verb(said: Mapping[str, str], pick: Pick) -> Verb:
    own = OWN_VERBS.get((said["animal"], said["action"]), ())
    return pick((*VERBS[said["action"]], *own, *own, *own))


def _place(said: Mapping[str, str], pick: Pick) -> str:
    place = said["place"]
    return pick(PLACE_WORDS[place] if said["action"] in STILL else (*PLACE_WORDS[place], *MOVING_PLACE_WORDS[place]))


def _way(said: Mapping[str, str], pick: Pick) -> str:
    return pick(DIRECTION_WORDS[said["direction"]]) if "direction" in said else ""


def _end(said: Mapping[str, str], pick: Pick) -> str:
    place = _place(said, pick) if "place" in said else ""
    return pick(("{0} {1}", "{1} {0}")).format(_way(said, pick), place)


def _noun(article: str, *parts: str) -> str:
    return with_article(article, joined(*parts))


# --- parsing ----------------------------------------------------------------------------------------------------------

# What people say beside what captions say.
MORE_NOUNS = {
    "cat": ("cats", "kittens", "pussycat", "tabby", "tomcat", "feline"),
    "dog": ("dogs", "puppies", "doggy", "doggie", "hound", "canine", "poodle", "terrier"),
    "mouse": ("mice", "rodent", "mousie"),
    "rabbit": ("rabbits", "bunnies", "hares"),
    "bird": ("birds", "sparrow", "robin"),
    "fish": ("fishes", "goldfish"),
    "ball": ("balls", "toy"),
    "butterfly": ("butterflies", "moth"),
    "fence": ("gate", "hedge", "obstacle", "barrier"),
    "carrot": ("carrots",),
    "bone": ("bones",),
}


def _phrases(text: str) -> tuple[str, ...]:
    """'walk, walked' as two phrases."""
    return tuple(text.split(", "))


MORE_VERBS = {
    "walks": _phrases("walk, walked, stroll, wander, trots, trotting, pads, padding, strides, striding, swim"),
    "runs": _phrases(
        "run, ran, dash, race, sprint, gallops, galloping, scampers, scampering, scurries, scurrying, fly, "
        "flies, flying, darts, darting, swims fast, swimming fast, rushes, speeds, bolts, bolting"
    ),
    "jumps": _phrases("jump, jumped, hop, leap, jumps up and down, skips, skipping"),
    "sleeps": _phrases("sleep, asleep, nap, taking a nap, takes a nap, lies asleep, snoring, snores, slumbers, slept"),
    "sits": _phrases("sit, sat, seated, sits down, resting, rests, stays, waits, waiting"),
    "chases": _phrases(
        "chase, hunts, hunting, hunt, runs behind, running behind, goes after, going after, pursue, run "
        "after, rushes after, rushing after, scampers after, scampering after, in pursuit of, catches, "
        "catching, tries to catch, trying to catch, sprints after, sprinting after, scurries after, flutters "
        "after, bounds after, tearing after"
    ),
    "fetches": _phrases(
        "fetch, brings, bringing, bring back, carries, carrying, picks up, picking up, gets, getting, "
        "collects, goes to get, comes back with, returns with, returning with, coming back with, carries back"
    ),
    "follows": _phrases(
        "follow, walks after, walking after, trails, trailing, tags along behind, wanders behind, wandering "
        "behind, strolls after, strolling after, ambles behind, goes behind, in the footsteps of, swims "
        "slowly after"
    ),
    "jumps over": _phrases(
        "jump over, vaults, vaulting, springs over, springing over, clears, clearing, bounds over, bounding "
        "over, bounces over, bouncing over, flies over, flying over, leaps across, jumps across, jumping "
        "across"
    ),
}
MORE_PASSIVES = {
    "chases": _phrases("hunted"),
    "fetches": _phrases("brought back, carried, brought, picked up"),
    "jumps over": _phrases("jumped over, leapt over"),
}
FLEEING = _phrases(
    "runs away from, running away from, run from, runs from, running from, flees from, fleeing from, escapes from"
)
MORE_PLACES = {
    "meadow": ("meadow", "grass", "field", "lawn", "park", "garden", "countryside", "hills", "grassy"),
    "beach": ("beach", "sand", "sandy", "sea", "seaside", "shore", "coast", "ocean"),
    "snow": ("snow", "snowy", "winter", "wintry", "ice", "icy", "snowfall", "snowing"),
    "night": ("night", "nighttime", "moonlight", "moon", "stars", "starry", "dark", "midnight", "moonlit"),
    "room": ("room", "indoors", "inside", "house", "home", "carpet", "rug", "living room", "kitchen", "bedroom"),
}
MORE_COATS = {
    "white": ("snowy white", "pale"),
    "black": ("dark",),
    "grey": ("silver",),
    "brown": ("chocolate",),
    "orange": ("red", "golden", "gold"),
    "cream": ("sandy", "tan", "yellow", "blonde"),
}
WAYS = {"left": ("left", "leftward", "leftwards"), "right": ("right", "rightward", "rightwards")}


@dataclass(frozen=True)
class Mention:
    """An animal or a thing that a sentence names, where, and in which coat."""

    name: str
    coat: str
    at: int


def parse(prompt: str) -> dict[str, str]:
    """The attributes that a prompt asks for; what it leaves open is absent: any value obeys.

    Who acts is told by the grammar: 'a mouse is chased by a cat' and 'a cat that chases a mouse' ask for the same.
    Raises InvalidRequest for a prompt in which nothing names an animal or an action.
    """
    text = plain(prompt)
    mentions = mentions_of(text)
    action, start, turned = action_of(text, mentions)
    subject, partner = _roles(mentions, action, start, turned)
    asked = {
        "animal": subject.name if subject else "",
        "coat": subject.coat if subject else "",
        "action": action,
        "direction": "" if action in STILL else _direction(text),
        "partner": partner.name if partner else "",
        "partner coat": partner.coat if partner and partner.name in ANIMALS else "",
        "place": _find_place(text, mentions),
    }
    if not (asked["animal"] or action):
        raise InvalidRequest(
            f"the critters world understands nothing in {prompt[:80]!r}",
            hint="say which animal does what, for example 'a brown dog chases a white cat in the snow'",
        )
    return {name: value for name, value in asked.items() if value}


def mentions_of(text: str) -> list[Mention]:
    """Every animal and thing in the order of the text."""
    pattern, names, coats = noun_pattern()
    return [Mention(names[m["noun"]], coats.get(m["coat"] or "", ""), m.start("noun")) for m in pattern.finditer(text)]


@cache
def noun_pattern() -> tuple[re.Pattern[str], dict[str, str], dict[str, str]]:
    """A coat, if there is one, words between that change nothing, and a noun."""
    names = meanings(NOUNS, MORE_NOUNS)
    coats = meanings(COAT_WORDS, MORE_COATS)
    between = r"(?:(?:little|small|big|sleeping|cute|fluffy|young|baby|happy|furry|tiny|lazy|playful|old|piece|of) )*"
    return re.compile(rf"\b(?:(?P<coat>{any_of(coats)}) )?{between}(?P<noun>{any_of(names)})\b"), names, coats


@cache
def _action_patterns() -> tuple[Patterns, ...]:
    """What a subject does to a partner, what is done to it, and what it does alone, the longest phrases first."""
    own: dict[str, list[str]] = {}
    for action, verbs in (*VERBS.items(), *((action, verbs) for (_, action), verbs in OWN_VERBS.items())):
        own.setdefault(action, []).extend(phrase for verb in verbs for phrase in verb.forms())
    forms = {phrase: action for action, ways in own.items() for phrase in ways}
    for action, ways in MORE_VERBS.items():
        forms |= {phrase: action for phrase in ways if phrase not in forms}
    passives = {verb.participle: action for action, verbs in VERBS.items() for verb in verbs if verb.participle}
    passives |= {phrase: action for action, ways in MORE_PASSIVES.items() for phrase in ways}
    gap = r"(?:(?: \w+){{0,5}}?) by"
    return (
        patterns(dict.fromkeys(FLEEING, "chases"), r"\b(?:{})\b(?! (?:the )?(?:left|right)\b)"),
        patterns(passives, rf"\b(?:{{}}){gap}\b"),
        patterns({phrase: action for phrase, action in forms.items() if action in PARTNERS}),
        patterns({phrase: action for phrase, action in forms.items() if action in ALONE}),
    )


def action_of(text: str, mentions: Sequence[Mention]) -> tuple[str, int, bool]:
    """The action, where it is said, and whether the one it is done to is the grammar's subject."""
    adjective = re.compile(rf"\b(sleeping|asleep)(?= (?:\w+ ){{0,2}}(?:{any_of(meanings(NOUNS, MORE_NOUNS))})\b)")
    awake = adjective.sub(lambda m: "_" * len(m[0]), text)
    for kind, rows in enumerate(_action_patterns()):
        for pattern, action in rows:
            if (found := pattern.search(awake)) and _has_partner(mentions, found.end(), kind, action):
                return action, found.start(), kind < 2
    if sleeping := adjective.search(text):
        return "sleeps", sleeping.start(), False
    return "", len(text), False


def _has_partner(mentions: Sequence[Mention], end: int, kind: int, action: str) -> bool:
    """Whether somebody is named where these words need one: 'runs from' a cat, 'jumps across' a fence."""
    if kind > 1:
        return action != "jumps over" or len(mentions) > 1
    return any(mention.at >= end for mention in mentions)


def _roles(mentions: Sequence[Mention], action: str, start: int, turned: bool) -> tuple[Mention | None, Mention | None]:
    """Who acts, and on whom or what."""
    before, after = [m for m in mentions if m.at < start], [m for m in mentions if m.at >= start]
    animals = [m for m in mentions if m.name in ANIMALS]
    if turned:
        return (after[0] if after and after[0].name in ANIMALS else None), (before[-1] if before else None)
    if action in PARTNERS:
        actors, others = [m for m in before if m.name in ANIMALS], after
        if len(after) > 1 and not before:  # 'chasing a ball is a cat'
            actors, others = [m for m in after[1:] if m.name in ANIMALS], after[:1]
        subject = actors[-1] if actors else None
        rest = [m for m in (*others, *before) if m is not subject and m.name in PARTNERS[action]]
        return subject, (rest[0] if rest else None)
    near = before[::-1] if action else []
    subject = next((m for m in near if m.name in ANIMALS), animals[0] if animals else None)
    return subject, None if action else next((m for m in mentions if m is not subject), None)


def _direction(text: str) -> str:
    """'from left to right' is right."""
    aim = re.sub(r"\bfrom (?:the )?(?:left|right)\b", " ", text)
    return next((way for way, ways in WAYS.items() if re.search(rf"\b(?:{'|'.join(ways)})\b", aim)), "")


def _find_place(text: str, mentions: Sequence[Mention]) -> str:
    """The place, where the word that names it is no coat: 'a snow white cat' is not in the snow."""
    pattern, _, _ = noun_pattern()
    rest = pattern.sub(" ", text)
    names = meanings(PLACE_WORDS, MOVING_PLACE_WORDS, MORE_PLACES)
    found = [(m.start(), names[m[0]]) for m in re.finditer(rf"\b(?:{any_of(names)})\b", rest)]
    return found[0][1] if found else ""
