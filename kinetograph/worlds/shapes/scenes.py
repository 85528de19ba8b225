"""What there is in the shapes world: its values, its split, and scenes drawn at random."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import product
from typing import Any

import numpy as np

from kinetograph import looks
from kinetograph.attributes import between, check, impossible, pick, tenth
from kinetograph.errors import InvalidRequest
from kinetograph.looks import BACKGROUNDS, VISIBLE
from kinetograph.motions import SPEEDS, STRAIGHT, drawn, sense
from kinetograph.worlds.shapes.figures import FIGURES, ROUND, outline

COLOURS = {name: rgb for name, rgb in looks.COLOURS.items() if name not in ("brown", "grey")}  # ten, far apart
SIZES = {"small": (0.075, 0.087), "medium": (0.105, 0.120), "large": (0.145, 0.165)}  # the unit of a shape, in sides
SPINNING = ("spinning clockwise", "spinning counter-clockwise")
MOTIONS = (
    *STRAIGHT,
    *("bouncing vertically", "bouncing horizontally", "zigzagging vertically", "zigzagging horizontally"),
    *("circling clockwise", "circling counter-clockwise", *SPINNING),
    *("shrinking", "expanding", "appearing", "disappearing", "still"),
)

# What a speed means for each kind of motion: the range it is drawn from. `read` decides by the gaps between them.
TRAVEL = {"slowly": (0.15, 0.19), "steadily": (0.28, 0.34), "quickly": (0.45, 0.51)}  # path length, in sides
SPINS = {"slowly": (0.13, 0.17), "steadily": (0.26, 0.33), "quickly": (0.46, 0.56)}  # revolutions of what spins
FADES = {"slowly": (0.70, 0.80), "steadily": (0.42, 0.50), "quickly": (0.18, 0.25)}  # how long it takes to appear
MARGIN = 0.02  # nothing comes nearer to the border than this
TILT = 0.2  # how far from upright anything may stand, in radians

DISTINCT = 110.0  # least distance in RGB between two things
MIXED = 70.0  # least distance in RGB of a thing from every blend of the background and the other thing
PAIRS = 0.45  # how many of all scenes show two things

# --- scenes ---

_PLAIN = (("small", "small"), ("small", "medium"), ("medium", "small"), ("medium", "medium"))
_WITH_LARGE = (*_PLAIN, ("small", "large"), ("large", "small"), ("medium", "large"), ("large", "medium"))
# the sizes of subject and partner for which there is room, and for which nothing is hidden for too long
RELATIONS: dict[str, tuple[tuple[str, str], ...]] = {
    "chases": _PLAIN,
    "orbits": (*_PLAIN[:3], ("small", "large")),
    "passes behind": _PLAIN[:2],
    "passes in front of": _PLAIN[:2],
    "bounces off": (*_PLAIN, ("small", "large")),
    "pushes": _PLAIN,
    "left of": _WITH_LARGE,
    "above": _WITH_LARGE,
}
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "shape": tuple(FIGURES),
    "colour": tuple(COLOURS),
    "size": tuple(SIZES),
    "motion": MOTIONS,
    "speed": SPEEDS,
    "background": tuple(BACKGROUNDS),
    "relation": tuple(RELATIONS),
    "partner shape": tuple(FIGURES),
    "partner colour": tuple(COLOURS),
    "partner size": tuple(SIZES),
}
OF_ONE, OF_TWO = ("motion", "speed"), ("relation", "partner shape", "partner colour", "partner size")

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Course:
    """Where a thing is at time s, how large, how turned and how opaque.

    centre  = start + travel min(s, knee) + after max(s - knee, 0)
            + swing tri(cycles s + phase) + orbit (cos, sin)(2 pi (turns s + angle))
    size    in a straight line from `size[0]` to `size[1]`; angle = tilt + 2 pi spin s, clockwise
    opacity = from `opacity[0]` to `opacity[1]` while s runs through `fade`

    Positions and lengths are in sides of the square.
    """

    size: Point
    start: Point = (0.0, 0.0)
    travel: Point = (0.0, 0.0)
    knee: float = 1.0
    after: Point = (0.0, 0.0)
    swing: Point = (0.0, 0.0)
    cycles: float = 0.0
    phase: float = 0.0
    orbit: float = 0.0
    turns: float = 0.0
    angle: float = 0.0
    tilt: float = 0.0
    spin: float = 0.0
    opacity: Point = (1.0, 1.0)
    fade: Point = (0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One clip as data: what a prompt can say of it, and the courses that no prompt says.

    One thing has a motion and a speed; two have a relation and a partner. What a scene does not have is "".
    """

    shape: str
    colour: str
    size: str
    background: str
    motion: str = ""
    speed: str = ""
    relation: str = ""
    partner_shape: str = ""
    partner_colour: str = ""
    partner_size: str = ""
    courses: tuple[Course, ...] = field(default=())


# --- what there is ---


def attributes(scene: Scene) -> dict[str, str]:
    """Everything that can be said of a scene and read back from its pixels. What stands still has no speed."""
    return _said(vars(scene))


def _said(fields: Mapping[str, Any]) -> dict[str, str]:
    said = {name: str(fields.get(name.replace(" ", "_"), "")) for name in ATTRIBUTES}
    if said["motion"] == "still":
        said["speed"] = ""
    return {name: value for name, value in said.items() if value}


def default_background(colour: str | None, partner: str | None = None) -> str:
    """The background that a prompt means when it names none: white, unless that hides what it names and another does
    not.
    """
    return next((ground for ground in BACKGROUNDS if visible(colour, ground, partner)), "white")


@cache
def visible(colour: str | None, background: str, partner: str | None = None) -> bool:
    """Whether one thing, or each of two, stands out from the background, and the two from each other and its blends."""
    ground = BACKGROUNDS[background]
    things = [COLOURS[name] for name in (colour, partner) if name]
    if not all(math.dist(thing, ground) >= VISIBLE for thing in things):
        return False
    if len(things) < 2:
        return True
    one, two = things
    blends = min(_off_segment(one, ground, two), _off_segment(two, ground, one))
    return math.dist(one, two) >= DISTINCT and blends >= MIXED


def _off_segment(point: Sequence[float], start: Sequence[float], end: Sequence[float]) -> float:
    p, a, b = (np.array(each, float) for each in (point, start, end))
    along = float(np.clip((p - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1))
    return float(np.linalg.norm(p - a - along * (b - a)))


@cache
def heldout_combinations() -> frozenset[tuple[str, str, str]]:
    """The tenth of all (shape, colour, motion) and of all (shape, relation, partner shape) that training never sees."""
    alone = [row for row in product(FIGURES, COLOURS, MOTIONS) if _can(row[0], row[2])]
    return frozenset(tenth("shapes", alone) + tenth("shapes", product(FIGURES, RELATIONS, FIGURES)))


def _can(shape: str, motion: str) -> bool:
    return shape not in ROUND or motion not in SPINNING


def heldout(scene: Scene) -> bool:
    """Whether this scene belongs to the split that training never sees."""
    return _heldout(attributes(scene))


def _heldout(said: Mapping[str, str]) -> bool:
    names = ("shape", "relation", "partner shape") if "relation" in said else ("shape", "colour", "motion")
    return tuple(said[name] for name in names) in heldout_combinations()


def possible(said: Mapping[str, str]) -> bool:
    """Whether a scene with all these attributes can be drawn and seen."""
    if not visible(said["colour"], said["background"], said.get("partner colour")):
        return False
    if "relation" in said:
        return (said["size"], said["partner size"]) in RELATIONS[said["relation"]]
    return _can(said["shape"], said["motion"])


# --- sampling ---


def sample(rng: np.random.Generator, wanted: Mapping[str, str] | None = None, split: str = "all") -> Scene:
    """Draw a scene that has the wanted attributes, from the `train`, the `heldout` or `all` combinations.

    Raises UnknownName for an attribute, a value or a split that does not exist, and InvalidRequest where no such
    scene can be drawn (a white star on white, a ring that spins, a thing with a motion and a relation).
    """
    wanted = wanted or {}
    _check(wanted, split)
    two = bool(wanted.keys() & set(OF_TWO)) or (not wanted.keys() & set(OF_ONE) and rng.random() < PAIRS)
    for _ in range(2000):
        said = _choose(rng, wanted, two)
        if not possible(said) or (split != "all" and _heldout(said) != (split == "heldout")):
            continue
        courses = _courses(rng, said)
        if courses:
            return _scene(said, courses)
    raise impossible("shapes", wanted, split)


def _scene(said: Mapping[str, str], courses: tuple[Course, ...]) -> Scene:
    return Scene(**{name.replace(" ", "_"): value for name, value in said.items()}, courses=courses)


def near_misses(scene: Scene, rng: np.random.Generator) -> list[Scene]:
    """Scenes of the training split that each differ from this one in a single attribute, one for every attribute of the
    world: their captions are wrong by as little as can be. Only the attributes count; the courses stay this scene's.

    Where an attribute leaves no such scene, something nearest to it is wrong instead: the motion of a thing that is
    alone, the relation of two, or who does it to whom.
    """
    said = attributes(scene)
    core = "relation" if "relation" in said else "motion"
    misses = [
        _misses(said, name) or _swapped(said) or _misses(said, core) or _misses(said, "shape") for name in ATTRIBUTES
    ]
    return [_scene(pick(rng, ways), scene.courses) for ways in misses]


def _misses(said: Mapping[str, str], name: str) -> list[dict[str, str]]:
    """The attributes of every scene of the training split that differs from this one in this attribute alone."""
    if name not in said:
        return []
    speed = {} if "relation" in said or "speed" in said else {"speed": "steadily"}  # for what does not stand still
    others = [{**said, **speed, name: value} for value in ATTRIBUTES[name] if value != said[name]]
    return [other for other in others if possible(other) and not _heldout(other)]


def _swapped(said: Mapping[str, str]) -> list[dict[str, str]]:
    """The same relation the other way round, where there is one and training may see it."""
    if "relation" not in said:
        return []
    names = ("shape", "colour", "size")
    mirror = {name: said[f"partner {name}"] for name in names} | {f"partner {name}": said[name] for name in names}
    other = {**said, **mirror}
    return [other] if possible(other) and not _heldout(other) else []


def _check(wanted: Mapping[str, str], split: str) -> None:
    check("shapes", ATTRIBUTES, wanted, split)
    if wanted.keys() & set(OF_ONE) and wanted.keys() & set(OF_TWO):
        hint = "name a motion and its speed, or a relation and a partner"
        raise InvalidRequest(
            "in the shapes world one thing has a motion, or two have a relation, never both", hint=hint
        )


def _choose(rng: np.random.Generator, wanted: Mapping[str, str], two: bool) -> dict[str, str]:
    """Attributes of one thing or of two, as wanted; whether there is such a scene remains to be seen."""
    said = {name: pick(rng, ATTRIBUTES[name]) for name in ATTRIBUTES if name not in (OF_ONE if two else OF_TWO)}
    said |= wanted
    if two:
        fitting = [both for both in RELATIONS[said["relation"]] if _agrees(both, wanted)]
        if fitting:
            said["size"], said["partner size"] = pick(rng, fitting)
        if "partner shape" not in wanted and said["partner shape"] == said["shape"] and rng.random() < 0.5:
            said["partner shape"] = pick(rng, ATTRIBUTES["partner shape"])  # two of a shape are rarer
    if "background" not in wanted and rng.random() < 0.5:  # half stand on the background that a prompt need not name
        said["background"] = default_background(said["colour"])
    return said


def _agrees(sizes: tuple[str, str], wanted: Mapping[str, str]) -> bool:
    return all(wanted.get(name, size) == size for name, size in zip(("size", "partner size"), sizes, strict=True))


def _courses(rng: np.random.Generator, said: Mapping[str, str]) -> tuple[Course, ...]:
    """The courses of everything in the scene, placed at random where all of it has room; () where there is none."""
    if "relation" in said:
        first, second = (_Body.of(rng, said[f"{whose}shape"], said[f"{whose}size"]) for whose in ("", "partner "))
        return _placed(rng, (first, second), _RELATED[said["relation"]](rng, first, second))
    body = _Body.of(rng, said["shape"], said["size"])
    course = _motion(rng, said["motion"], said["speed"], body)
    return _placed(rng, (body,), (course,))


@dataclass(frozen=True)
class _Body:
    """A thing before it is given a course."""

    shape: str
    size: float
    tilt: float

    @classmethod
    def of(cls, rng: np.random.Generator, shape: str, size: str) -> "_Body":
        return cls(shape, between(rng, SIZES[size]), TILT * (2 * float(rng.random()) - 1))

    @property
    def reach(self) -> float:
        return self.size * outline(self.shape).reach

    def extent(self, angle: float) -> float:
        """How far it extends from its centre in this direction (radians, clockwise from the right)."""
        return self.size * outline(self.shape).extent[round((angle - self.tilt) * 36 / math.pi) % 72]

    def course(self, **how: Any) -> Course:
        return Course(**{"size": (self.size, self.size), "tilt": self.tilt, **how})


def _placed(rng: np.random.Generator, bodies: Sequence[_Body], courses: Sequence[Course]) -> tuple[Course, ...]:
    """The courses moved together to where everything stays in the square."""
    shift = []
    for i in (0, 1):
        spans = [span(course, body.reach, i) for course, body in zip(courses, bodies, strict=True)]
        low, high = MARGIN - min(span[0] for span in spans), 1 - MARGIN - max(span[1] for span in spans)
        if high < low:
            return ()
        shift.append(low + (high - low) * float(rng.random()))
    return tuple(replace(c, start=(c.start[0] + shift[0], c.start[1] + shift[1])) for c in courses)


def span(course: Course, reach: float, i: int) -> tuple[float, float]:
    """The least and the greatest coordinate that anything of a course comes to."""
    knee = course.start[i] + course.travel[i] * course.knee
    ends = (course.start[i], knee, knee + course.after[i] * (1 - course.knee))
    around = abs(course.swing[i]) + course.orbit + reach
    return min(ends) - around, max(ends) + around


def _motion(rng: np.random.Generator, motion: str, speed: str, body: _Body) -> Course:
    """The course that shows this motion at this speed."""
    kind, _, way = motion.partition(" ")
    if kind == "spinning":
        return body.course(spin=sense(way) * between(rng, SPINS[speed]))
    if kind in ("appearing", "disappearing"):
        length = between(rng, FADES[speed])
        edge = max(0.05, 0.3 - length / 2)  # half of it is over neither too early nor too late to be seen
        begin = between(rng, (edge, 1 - edge - length))
        return body.course(opacity=(0.0, 1.0) if kind == "appearing" else (1.0, 0.0), fade=(begin, begin + length))
    law = drawn(rng, motion, speed, TRAVEL)
    if "ratio" in law:
        sizes = (body.size, body.size * law.pop("ratio"))
        law["size"] = sizes if kind == "shrinking" else sizes[::-1]
    return body.course(**law)


def _polar(length: float, angle: float) -> Point:
    return length * math.cos(angle), length * math.sin(angle)


def _any_angle(rng: np.random.Generator) -> float:
    return 2 * math.pi * float(rng.random())


def _chase(rng: np.random.Generator, a: _Body, b: _Body) -> tuple[Course, Course]:
    """Both run along one line or round one circle, the partner ahead."""
    apart = a.reach + b.reach + between(rng, (0.015, 0.05))
    angle = _any_angle(rng)
    if rng.random() < 0.5:
        travel = _polar(between(rng, (0.30, 0.45)), angle)
        return a.course(travel=travel), b.course(travel=travel, start=_polar(apart, angle))
    radius = max(between(rng, (0.24, 0.30)), apart * 0.66)  # the chord is at most that of 100 degrees
    turns = between(rng, (0.5, 0.9)) * (1 if rng.random() < 0.5 else -1)
    ahead = math.copysign(2 * math.asin(apart / 2 / radius), turns) / (2 * math.pi)
    around = {"orbit": radius, "turns": turns}
    return a.course(**around, angle=angle), b.course(**around, angle=angle + ahead)


def _orbit(rng: np.random.Generator, a: _Body, b: _Body) -> tuple[Course, Course]:
    """The subject circles round its partner."""
    radius = a.reach + b.reach + between(rng, (0.01, 0.04))
    turns = between(rng, (0.6, 1.2)) * (1 if rng.random() < 0.5 else -1)
    return a.course(orbit=radius, turns=turns, angle=float(rng.random())), b.course()


def _pass(rng: np.random.Generator, a: _Body, b: _Body) -> tuple[Course, Course]:
    """The subject crosses its partner in a straight line, as long as there is room for."""
    angle = _any_angle(rng)
    room = (0.5 - MARGIN - a.reach) / max(abs(math.cos(angle)), abs(math.sin(angle)))
    half = room * between(rng, (0.88, 0.98))
    aside = _polar(b.size * 0.3 * (2 * float(rng.random()) - 1), angle + math.pi / 2)
    x, y = _polar(half, angle)
    return a.course(start=(aside[0] - x, aside[1] - y), travel=(2 * x, 2 * y)), b.course()


def _bounce(rng: np.random.Generator, a: _Body, b: _Body) -> tuple[Course, Course]:
    """The subject comes to its partner, touches it and goes back, somewhat to the side."""
    angle = _any_angle(rng)  # from the partner to where the subject comes from
    touch = _polar(a.extent(angle + math.pi) + b.extent(angle), angle)
    knee, speed = between(rng, (0.42, 0.58)), between(rng, (0.5, 0.62))
    come = _polar(speed, angle + math.pi)
    start = (touch[0] - come[0] * knee, touch[1] - come[1] * knee)
    back = _polar(speed, angle + math.radians(50) * (float(rng.random()) - 0.5))
    return a.course(start=start, travel=come, knee=knee, after=back), b.course()


def _push(rng: np.random.Generator, a: _Body, b: _Body) -> tuple[Course, Course]:
    """The subject comes to its partner and takes it along."""
    angle = _any_angle(rng)
    apart = a.extent(angle) + b.extent(angle + math.pi)
    knee, way = between(rng, (0.35, 0.48)), _polar(between(rng, (0.42, 0.55)), angle)
    start = (way[0] * knee + _polar(apart, angle)[0], way[1] * knee + _polar(apart, angle)[1])
    return a.course(travel=way), b.course(start=start, knee=knee, after=way)


def _beside(angle: float) -> Callable[[np.random.Generator, _Body, _Body], tuple[Course, Course]]:
    """Both rest, or drift together, the partner in this direction from the subject."""

    def related(rng: np.random.Generator, a: _Body, b: _Body) -> tuple[Course, Course]:
        apart = a.reach + b.reach + between(rng, (0.01, 0.12))
        drift = _polar(between(rng, (0.0, 0.1)), _any_angle(rng))
        off = angle + math.radians(30) * (float(rng.random()) - 0.5)
        return a.course(travel=drift), b.course(travel=drift, start=_polar(apart, off))

    return related


_RELATED: dict[str, Callable[[np.random.Generator, _Body, _Body], tuple[Course, Course]]] = {
    "chases": _chase,
    "orbits": _orbit,
    "passes behind": _pass,
    "passes in front of": _pass,
    "bounces off": _bounce,
    "pushes": _push,
    "left of": _beside(0.0),
    "above": _beside(math.pi / 2),
}
