"""One disc that moves by a law: small enough to train on in an hour, exact enough to be read back from its pixels.

The world plays in the unit square (x to the right, y down; a picture that is not square shows the square in its
middle). A clip is one performance of a motion, from time 0 to time 1: more frames show it more finely, the frame rate
says how fast it is played. Two laws hold and are tested: `parse` undoes `caption`, and `read` undoes `draw`.

The catalogue of motions follows the article in which a GAN learns moving circles, with each of its defects mended:
every motion is drawn, is visible, stays inside the picture, and differs from every other.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import product
from typing import Any

import numpy as np

from kinetograph import drawing, layers
from kinetograph.attributes import check, impossible, pick, tenth, within
from kinetograph.errors import InvalidRequest
from kinetograph.language import Patterns, joined, meanings, patterns, plain, take, vocabulary, with_article
from kinetograph.looks import BACKGROUND_WORDS, BACKGROUNDS, COLOUR_WORDS, COLOURS, SIZE_WORDS, VISIBLE, border, nearest
from kinetograph.motions import (
    SPEED_WORDS,
    SPEEDS,
    STEADY,
    STRAIGHT,
    Bands,
    band,
    best_fit,
    clock,
    drawn,
    loosely,
    times,
    triangle,
    ways,
)
from kinetograph.motions import TOLD_APART as MOTIONS_TOLD_APART
from kinetograph.motions import chances as law_chances

WIDTH, HEIGHT, FRAMES, FPS = 64, 64, 10, 10

SIZES = {"small": (0.068, 0.082), "medium": (0.107, 0.123), "large": (0.150, 0.170)}  # radius, fraction of the square
MOTIONS = (
    *STRAIGHT,
    "bouncing vertically",
    "bouncing horizontally",
    "zigzagging vertically",
    "zigzagging horizontally",
    "circling clockwise",
    "circling counter-clockwise",
    "shrinking",
    "expanding",
    "still",
)
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "colour": tuple(COLOURS),
    "size": tuple(SIZES),
    "motion": MOTIONS,
    "speed": SPEEDS,
    "background": tuple(BACKGROUNDS),
}

TRAVEL = {"slowly": (0.17, 0.22), "steadily": (0.32, 0.40), "quickly": (0.52, 0.60)}  # path length, in sides
MARGIN = 0.02  # no disc comes nearer to the border than this

STEPS = 255  # a pixel that the disc's edge crosses is covered by a whole number of so many parts
LEFT_OUT = {"colour": 0.12, "size": 0.2, "motion": 0.04}  # how often a caption does not mention an attribute

# The article's prompts; every one is legal here and means one motion.
ARTICLE_PROMPTS = (
    "circle moving down",
    "circle moving left",
    "circle moving right",
    "circle moving diagonally up-right",
    "circle moving diagonally down-left",
    "circle moving diagonally up-left",
    "circle moving diagonally down-right",
    "circle rotating clockwise",
    "circle rotating counter-clockwise",
    "circle shrinking",
    "circle expanding",
    "circle bouncing vertically",
    "circle bouncing horizontally",
    "circle zigzagging vertically",
    "circle zigzagging horizontally",
    "circle moving up-left",
    "circle moving down-right",
    "circle moving down-left",
)


@dataclass(frozen=True, kw_only=True)
class Path:
    """Where the disc is at time s: start + travel s + swing tri(cycles s + phase) + orbit (cos, sin)(2 pi (turns s +
    angle)).

    Positions and lengths are in sides of the square; the radius runs linearly from `radius[0]` to `radius[1]`.
    """

    start: tuple[float, float]
    radius: tuple[float, float]
    travel: tuple[float, float] = (0.0, 0.0)
    swing: tuple[float, float] = (0.0, 0.0)
    cycles: float = 0.0
    phase: float = 0.0
    orbit: float = 0.0
    turns: float = 0.0
    angle: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One clip as data: what a prompt can say of it, and the path that no prompt says."""

    colour: str
    size: str
    motion: str
    speed: str
    background: str
    path: Path


# --- what there is ----------------------------------------------------------------------------------------------------


def attributes(scene: Scene) -> dict[str, str]:
    """Everything that can be said of a scene and read back from its pixels. A disc that stands still has no speed."""
    said = {name: getattr(scene, name) for name in ATTRIBUTES}
    if scene.motion == "still":
        del said["speed"]
    return said


def default_background(colour: str | None) -> str:
    """The background that a prompt means when it names none: white, or black where white would hide the disc."""
    return "black" if colour is not None and not visible(colour, "white") else "white"


@cache
def visible(colour: str, background: str) -> bool:
    """Whether a disc of this colour stands out from this background."""
    return math.dist(COLOURS[colour], BACKGROUNDS[background]) >= VISIBLE


@cache
def heldout_combinations() -> frozenset[tuple[str, str, str]]:
    """The tenth of all (colour, motion, size) combinations that training never sees."""
    return frozenset(tenth("circle", product(COLOURS, MOTIONS, SIZES)))


def heldout(scene: Scene) -> bool:
    """Whether this scene belongs to the split that training never sees."""
    return (scene.colour, scene.motion, scene.size) in heldout_combinations()


# --- sampling ---------------------------------------------------------------------------------------------------------


def sample(rng: np.random.Generator, wanted: Mapping[str, str] | None = None, split: str = "all") -> Scene:
    """Draw a scene that has the wanted attributes, from the `train`, the `heldout` or `all` combinations.

    Raises UnknownName for an attribute, a value or a split that does not exist, and InvalidRequest where no such scene
    can be drawn (a white disc on white; a held-out combination asked of the training split).
    """
    wanted = wanted or {}
    check("circle", ATTRIBUTES, wanted, split)
    for _ in range(2000):
        said = _choose(rng, wanted)
        if not visible(said["colour"], said["background"]):
            continue
        scene = Scene(**said, path=_path(rng, said["motion"], said["speed"], said["size"]))
        if split == "all" or heldout(scene) == (split == "heldout"):
            return scene
    raise impossible("circle", wanted, split)


def near_misses(scene: Scene, rng: np.random.Generator) -> list[Scene]:
    """Scenes of the training split that each differ from this one in a single attribute, one for every attribute of the
    world: their captions are wrong by as little as can be. Only the attributes count; the path stays this scene's.

    Where an attribute leaves no such scene (what stands still has no speed), the motion differs instead.
    """
    said = attributes(scene)
    misses = [_misses(scene, name) if name in said else [] for name in ATTRIBUTES]
    motions = misses[list(ATTRIBUTES).index("motion")]
    return [pick(rng, found or motions) for found in misses]


def _misses(scene: Scene, name: str) -> list[Scene]:
    """Every visible scene of the training split that differs from this one in this attribute alone."""
    changes: list[dict[str, Any]] = [{name: value} for value in ATTRIBUTES[name] if value != getattr(scene, name)]
    others = [replace(scene, **change) for change in changes]
    return [other for other in others if visible(other.colour, other.background) and not heldout(other)]


def _choose(rng: np.random.Generator, wanted: Mapping[str, str]) -> dict[str, str]:
    said = {name: pick(rng, values) for name, values in ATTRIBUTES.items()}
    if rng.random() < 0.5:  # half of all clips stand on the background that a prompt need not name
        said["background"] = default_background(wanted.get("colour", said["colour"]))
    return said | dict(wanted)


def _path(rng: np.random.Generator, motion: str, speed: str, size: str) -> Path:
    r = rng.uniform(*SIZES[size])
    shape = drawn(rng, motion, speed, TRAVEL)
    other = r * shape.pop("ratio", 1.0)
    radius = (other, r) if motion == "expanding" else (r, other)
    return Path(start=_start(rng, shape, r), radius=radius, **shape)


def _start(rng: np.random.Generator, shape: Mapping[str, Any], r: float) -> tuple[float, float]:
    """A start from which the whole path, disc and margin included, stays inside the square."""
    travel, swing, orbit = shape.get("travel", (0.0, 0.0)), shape.get("swing", (0.0, 0.0)), shape.get("orbit", 0.0)
    x = _room(travel[0], abs(swing[0]) + orbit + r + MARGIN, rng.random())
    return x, _room(travel[1], abs(swing[1]) + orbit + r + MARGIN, rng.random())


def _room(travel: float, reach: float, u: float) -> float:
    """The start at u (0 ... 1) of the room that is left to something that travels so far and reaches so far to either
    side."""
    low, high = reach - min(travel, 0.0), 1 - reach - max(travel, 0.0)
    return low + (high - low) * u


# What chance decides of a path beside its attributes: numbers from 0 to 1, turns of which 1 is 0 again, and coins, -1
# or 1. All are drawn evenly and independently of each other and of the attributes.
CHANCES, PHASES, COINS = ("x", "y", "radius", "extent", "rate", "sway"), ("phase",), ("way",)


def chances(scene: Scene) -> dict[str, float]:
    """What chance decided of a scene's path, by the names in CHANCES, PHASES and COINS: with the attributes it tells
    the whole path. Only those that the motion leaves to chance."""
    path, (first, last) = scene.path, scene.path.radius
    r = max(first, last)
    law = asdict(path) | {"ratio": min(first, last) / r}
    decided = law_chances(scene.motion, scene.speed, law, TRAVEL)
    for name, start, travel, swing in zip("xy", path.start, path.travel, path.swing, strict=True):
        low, high = (_room(travel, abs(swing) + path.orbit + r + MARGIN, u) for u in (0.0, 1.0))
        decided[name] = within(start, (low, high))
    return decided | {"radius": within(r, SIZES[scene.size])}


# --- words ------------------------------------------------------------------------------------------------------------

NOUNS = ("circle", "ball", "disc", "disk", "dot", "orb")
VERBS = (
    *("moving", "moves", "going", "goes", "drifting", "drifts", "gliding", "glides", "sliding", "slides"),
    *("travelling", "travels", "heading", "heads", "floating", "floats"),
)
OTHER_MOTION_PHRASES = {
    "up": ("rising", "rises", "ascending", "ascends"),
    "down": ("falling", "falls", "descending", "descends", "sinking", "sinks"),
    "bouncing vertically": ("bouncing vertically", "bounces vertically", "bouncing up and down", "bounces up and down"),
    "bouncing horizontally": (
        *("bouncing horizontally", "bounces horizontally", "bouncing left and right", "bounces left and right"),
        *("bouncing from side to side", "bounces from side to side"),
    ),
    "zigzagging vertically": ("zigzagging vertically", "zigzags vertically", "moving vertically in a zigzag"),
    "zigzagging horizontally": ("zigzagging horizontally", "zigzags horizontally", "moving horizontally in a zigzag"),
    "circling clockwise": (
        *("circling clockwise", "circles clockwise", "rotating clockwise", "rotates clockwise"),
        *("orbiting clockwise", "moving clockwise in a circle", "going round clockwise"),
    ),
    "circling counter-clockwise": (
        *("circling counter-clockwise", "circles counter-clockwise", "rotating counter-clockwise"),
        *("rotates counter-clockwise", "orbiting anticlockwise", "circling anticlockwise", "circling counterclockwise"),
        *("moving counter-clockwise in a circle", "going round anticlockwise"),
    ),
    "shrinking": ("shrinking", "shrinks", "contracting", "contracts", "getting smaller", "becoming smaller"),
    "expanding": ("expanding", "expands", "growing", "grows", "swelling", "getting bigger", "getting larger"),
    "still": (
        *("standing still", "stands still", "staying still", "stays still", "not moving", "resting", "rests"),
        *("motionless", "stationary", "at rest"),
    ),
}
OPENINGS = ("", "", "", "", "a video of ", "a clip of ", "an animation of ")
GRAMMAR_WORDS = (
    "a",
    "an",
    "the",
    "of",
    "on",
    "against",
    "over",
    "background",
    "backdrop",
    "in",
    "video",
    "clip",
    "animation",
)


@cache
def motion_phrases() -> dict[str, tuple[str, ...]]:
    """Every way of naming each motion, verbs included."""
    phrases = {motion: [*OTHER_MOTION_PHRASES.get(motion, ())] for motion in MOTIONS}
    for motion in STRAIGHT:
        phrases[motion] += [f"{verb} {way}" for verb in VERBS for way in ways(motion)]
    return {motion: tuple(said) for motion, said in phrases.items()}


def caption(scene: Scene, rng: np.random.Generator, left_out: Mapping[str, float] = LEFT_OUT) -> str:
    """Describe a scene in one of very many ways. Unsaid are the default background and speed, and, as often as
    `left_out` says, the colour, the size or the motion: of those a prompt without the word means any."""
    said = {name: value for name, value in attributes(scene).items() if rng.random() >= left_out.get(name, 0.0)}
    if said.get("background") == default_background(said.get("colour")) and rng.random() < 0.7:
        del said["background"]
    if (said.get("speed") == "steadily" and rng.random() < 0.8) or "motion" not in said:
        said.pop("speed", None)
    return _sentence(said, rng)


def still_caption(scene: Scene, rng: np.random.Generator) -> str:
    """Describe what one picture of a scene shows, without motion."""
    return caption(scene, rng, {**LEFT_OUT, "motion": 1.0})


def _sentence(said: Mapping[str, str], rng: np.random.Generator) -> str:
    size = pick(rng, SIZE_WORDS[said["size"]]) if "size" in said else ""
    colour = pick(rng, COLOUR_WORDS[said["colour"]]) if "colour" in said else ""
    opening = pick(rng, OPENINGS)
    article = pick(rng, ("a", "a", "the", "")) if not opening else "a"
    thing = with_article(article, joined(size, colour, pick(rng, NOUNS)))
    motion = pick(rng, motion_phrases()[said["motion"]]) if "motion" in said else ""
    speed = pick(rng, SPEED_WORDS[said["speed"]]) if "speed" in said else ""
    action = f"{motion} {speed}" if rng.random() < 0.7 or " " in speed else f"{speed} {motion}"
    place = _place(said["background"], rng) if "background" in said else ""
    if place and not opening and rng.random() < 0.15:
        return joined(f"{place},", thing, action)
    return joined(opening, thing, action, place)


def _place(background: str, rng: np.random.Generator) -> str:
    name = pick(rng, BACKGROUND_WORDS[background])
    preposition, noun = pick(rng, ("on", "against", "over")), pick(rng, ("background", "backdrop"))
    return pick(rng, (f"{preposition} {with_article('a', name)} {noun}", f"{preposition} {name}"))


def paraphrase(scene: Scene, rng: np.random.Generator) -> str:
    """Describe a scene fully in an order that `caption` never uses, with the same words: a test of understanding."""
    said = attributes(scene)
    noun, size, colour = (pick(rng, ways) for ways in (NOUNS, SIZE_WORDS[said["size"]], COLOUR_WORDS[said["colour"]]))
    action = pick(rng, motion_phrases()[said["motion"]])
    if "speed" in said:
        action = f"{action} {pick(rng, SPEED_WORDS[said['speed']])}"
    place = _place(said["background"], rng)
    thing = with_article("a", f"{size} {colour} {noun}")
    orders = (
        f"{action}, {thing} {place}",
        f"{thing} {place}, {action}",
        f"{place}, {action}, {thing}",
        f"the {noun}, {size}, {colour}, {action} {place}",
        f"{with_article('a', colour)} {noun}, {size}, {place}, {action}",
    )
    return pick(rng, orders)


def words() -> tuple[str, ...]:
    """Every word that a caption may contain, sorted: the vocabulary of a text encoder for this world."""
    tables = (COLOUR_WORDS, BACKGROUND_WORDS, SIZE_WORDS, SPEED_WORDS, motion_phrases())
    phrases = [*GRAMMAR_WORDS, *NOUNS, *(phrase for table in tables for ways in table.values() for phrase in ways)]
    return vocabulary(phrases)


# --- parsing ----------------------------------------------------------------------------------------------------------


def parse(prompt: str) -> dict[str, str]:
    """The attributes that a prompt asks for: those it states, and the background and speed that silence means.

    An attribute that a prompt leaves open (colour, size, motion) is absent: any value obeys. Raises InvalidRequest for
    a prompt in which nothing names a disc, a colour, a size or a motion.
    """
    text = plain(prompt)
    background, text = take(text, _background_patterns())
    motion, text = take(text, _motion_patterns())
    if motion is None:
        motion = loosely(text, KINDS)
    speed, text = take(text, _patterns_of("speed"))
    size, text = take(text, _patterns_of("size"))
    colour, text = take(text, _patterns_of("colour"))
    if not (motion or size or colour or re.search(rf"\b({'|'.join(NOUNS)})s?\b", text)):
        raise InvalidRequest(
            f"the circle world understands nothing in {prompt[:80]!r}",
            hint="say what moves and how, for example 'a red circle moving up-right'",
        )
    asked = {"colour": colour, "size": size, "motion": motion, "background": background or default_background(colour)}
    if motion is not None and motion != "still":
        asked["speed"] = speed or "steadily"
    return {name: value for name, value in asked.items() if value is not None}


@cache
def _patterns_of(attribute: str) -> Patterns:
    also_said = {"slowly": ("slow",), "quickly": ("quick", "rapid", "swift")}
    tables: dict[str, tuple[Mapping[str, tuple[str, ...]], ...]] = {
        "colour": (COLOUR_WORDS,),
        "size": (SIZE_WORDS,),
        "speed": (SPEED_WORDS, also_said),
    }
    return patterns(meanings(*tables[attribute]))


@cache
def _background_patterns() -> Patterns:
    grounds = meanings(BACKGROUND_WORDS)
    named = patterns(
        grounds, r"\b(?:(?:on|against|over|in front of|with) )?(?:(?:an?|the) )?{} (?:background|backdrop)\b"
    )
    bare = patterns(grounds, r"\b(?:on|against|over) (?:(?:an?|the) )?{}\b")
    return named + bare


@cache
def _motion_patterns() -> Patterns:
    return patterns(meanings(motion_phrases()))


KINDS = {  # by which beginnings of words a motion is known that no phrase of ours names
    "bouncing": ("bounc",),
    "zigzagging": ("zigzag",),
    "circling": ("circles", "circled", "circling", "circular", "rotat", "orbit"),
    "still": ("still",),
}


# --- drawing ----------------------------------------------------------------------------------------------------------

_COLUMNS = ("x", "y", "r0", "r1", "vx", "vy", "ax", "ay", "cycles", "phase", "orbit", "turns", "angle")


def _table(paths: Sequence[Path]) -> np.ndarray:
    """Paths as rows of numbers, (b, 13) float64."""
    return np.array(
        [(*p.start, *p.radius, *p.travel, *p.swing, p.cycles, p.phase, p.orbit, p.turns, p.angle) for p in paths]
    ).reshape(len(paths), len(_COLUMNS))


def positions(table: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Centres (b, n, 2) at the times s (b, n), in sides of the square."""
    x, y, _, _, vx, vy, ax, ay, cycles, phase, orbit, turns, angle = (column[:, None] for column in table.T)
    wave = triangle(cycles * s + phase)
    turn = 2 * np.pi * (turns * s + angle)
    return np.stack(
        [x + vx * s + ax * wave + orbit * np.cos(turn), y + vy * s + ay * wave + orbit * np.sin(turn)], axis=-1
    )


def geometry(
    scenes: Sequence[Scene], frames: int, height: int, width: int, moments: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Centres (b, t, 2) and radii (b, t) in pixels, for a picture of this size; `moments` are as in `draw`."""
    table, side = _table([scene.path for scene in scenes]), min(height, width)
    s = clock(len(scenes), frames, moments)
    centres = positions(table, s) * side + (np.array([width, height]) - side) / 2
    radii = (table[:, 2:3] * (1 - s) + table[:, 3:4] * s) * side
    return centres, radii


def palette(scenes: Sequence[Scene]) -> tuple[np.ndarray, np.ndarray]:
    """The discs' and the backgrounds' colours, (b, 3) float32 each."""
    discs = np.array([COLOURS[scene.colour] for scene in scenes], np.float32).reshape(-1, 3)
    return discs, np.array([BACKGROUNDS[scene.background] for scene in scenes], np.float32).reshape(-1, 3)


def draw(
    scenes: Sequence[Scene],
    frames: int,
    height: int,
    width: int,
    xp: Any = np,
    device: Any = None,
    moments: np.ndarray | None = None,
) -> Any:
    """Draw scenes as uint8 (b, t, h, w, 3), antialiased by the signed distance to the edge.

    `xp` is the array module, numpy, torch, or any that keeps to the array API standard; with a device, one of its own.
    `moments` (b, t) are the times from 0 to 1 that each clip shows, instead of so many evenly through it.
    """
    return _coloured(geometry(scenes, frames, height, width, moments), palette(scenes), height, width, xp, device)


def depth(
    scenes: Sequence[Scene],
    frames: int,
    height: int,
    width: int,
    xp: Any = np,
    device: Any = None,
    moments: np.ndarray | None = None,
) -> Any:
    """How near everything is, as grey frames uint8 (b, t, h, w, 3): the disc white, the background black."""
    white = np.full((len(scenes), 3), 255, np.float32)
    return _coloured(geometry(scenes, frames, height, width, moments), (white, 0 * white), height, width, xp, device)


def relief_of(depths: np.ndarray) -> np.ndarray:
    """How far what is in front lies before what is behind it, 0 to 1 (..., h, w), by frames of depth (..., h, w, 3)."""
    return depths[..., 0] / 255.0


def _coloured(
    places: tuple[np.ndarray, np.ndarray],
    colours: tuple[np.ndarray, np.ndarray],
    height: int,
    width: int,
    xp: Any,
    device: Any,
) -> Any:
    """Discs of these centres and radii on their backgrounds, both in these colours."""
    centres, radii = places
    where = {} if device is None else {"device": device}

    def array(values: np.ndarray) -> Any:
        return xp.asarray(np.asarray(values, np.float32), **where)

    # In steps of a 255th of a pixel: a cover is a whole number of them, so that a clip has 256 colours and no more.
    dx = array(STEPS * (np.arange(width) + 0.5 - centres[..., 0, None]))[:, :, None, :]  # (b, t, 1, w)
    dy = array(STEPS * (np.arange(height) + 0.5 - centres[..., 1, None]))[:, :, :, None]  # (b, t, h, 1)
    reach = array(STEPS * (radii + 0.5))[:, :, None, None]
    cover = xp.round(xp.clip(reach - xp.sqrt(dx * dx + dy * dy), 0.0, STEPS))[..., None]  # (b, t, h, w, 1)
    discs, grounds = (array(some)[:, None, None, None, :] for some in colours)
    return xp.asarray(xp.round(grounds + cover / STEPS * (discs - grounds)), dtype=xp.uint8)


def courses(scenes: Sequence[Scene], moments: np.ndarray) -> np.ndarray:
    """Courses (b, layers, t, numbers) of the discs of scenes at their moments s (b, t): see `kinetograph.layers`."""
    rows = layers.nowhere(*moments.shape)
    centres, radii = geometry(scenes, moments.shape[1], 1, 1, moments)
    for row, (x, y), radius in zip(rows, np.moveaxis(centres, -1, 1), radii, strict=True):
        row[layers.FIGURES[0]] = layers.course(x, y, radius)
    return rows


def reaches(scenes: Sequence[Scene]) -> np.ndarray:
    """How far each layer reaches from its middle at most, (b, layers) in units of its size; 0 where there is none."""
    rows = np.zeros((len(scenes), len(layers.LAYERS)))
    rows[:, layers.FIGURES[0]] = 1.15  # its edge is soft
    return rows


def unsaid(scenes: Sequence[Scene]) -> np.ndarray:
    """What no sentence says of how scenes look, (b, UNSAID): there are none, a disc is as it is."""
    return np.zeros((len(scenes), len(layers.UNSAID)))


def mattes(
    scenes: Sequence[Scene],
    frames: int,
    height: int,
    width: int,
    xp: Any = np,
    device: Any = None,
    moments: np.ndarray | None = None,
) -> Any:
    """How far each layer covers each pixel, (b, layers, t, h, w) from 0 to 1: the disc alone is one."""
    disc = depth(scenes, frames, height, width, xp, device, moments)[..., 0] / 255.0
    empty = 0 * disc
    return xp.stack([disc if slot == layers.FIGURES[0] else empty for slot in range(len(layers.LAYERS))], 1)


def behind(
    scenes: Sequence[Scene],
    frames: int,
    height: int,
    width: int,
    xp: Any = np,
    device: Any = None,
    moments: np.ndarray | None = None,
) -> Any:
    """Frames uint8 (b, t, h, w, 3) of what is behind the discs."""
    count = clock(len(scenes), frames, moments).shape[1]
    grounds = drawing.ground(palette(scenes)[1], count, height, width, xp, device)
    return drawing.finish(grounds, xp)


def stamps(
    scenes: Sequence[Scene], frames: int, height: int, width: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """What `draw` draws on numpy, before it is coloured, and much faster: only the pixels around the discs.

    For each group of scenes: their numbers (n,); the upper left corners (n, t, 2), x and y, of patches in their frames;
    the patches (n, t, p, q) uint8, numbers of the scene's `shades`. Around the patches all is shade 0.
    """
    for size in SIZES:  # apart, so that small discs get small patches
        alike = [i for i, scene in enumerate(scenes) if scene.size == size]
        if alike:
            yield np.array(alike), *_stamps([scenes[i] for i in alike], frames, height, width)


def _stamps(scenes: Sequence[Scene], frames: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    centres, radii = geometry(scenes, frames, height, width)
    side = math.ceil(2 * radii.max()) + 1  # cover ends half a pixel beyond the radius, on either side
    sides = np.minimum(side, (width, height))
    corners = np.clip(np.floor(centres - radii[..., None]).astype(int), 0, np.array([width, height]) - sides)
    dx, dy = (
        (STEPS * (corners[..., i, None] + np.arange(sides[i]) + 0.5 - centres[..., i, None])).astype(np.float32)
        for i in (0, 1)
    )
    cover = (dx * dx)[:, :, None, :] + (dy * dy)[:, :, :, None]  # (n, t, p, q); then in place, which is faster
    np.sqrt(cover, out=cover)
    np.subtract((STEPS * (radii + 0.5)).astype(np.float32)[:, :, None, None], cover, out=cover)
    return corners, np.rint(np.clip(cover, 0.0, STEPS, out=cover), out=cover).astype(np.uint8)


def shades(scene: Scene) -> np.ndarray:
    """The colours (256, 3) uint8 of a pixel by how much of it the disc covers: not at all, ..., whole."""
    return _shades(scene.colour, scene.background)


@cache
def _shades(colour: str, background: str) -> np.ndarray:
    disc, ground = np.array(COLOURS[colour], np.float32), np.array(BACKGROUNDS[background], np.float32)
    cover = np.arange(STEPS + 1, dtype=np.float32)[:, None]
    return np.rint(ground + cover / STEPS * (disc - ground)).astype(np.uint8)


# --- reading ----------------------------------------------------------------------------------------------------------

COLOUR_TOLERANCE = 60.0  # RGB distance beyond which a colour has no name
# least overlap (intersection over union) of what is seen with the disc it is taken for, averaged over the clip
SOLID = 0.72
FLAT = 0.02  # most stray colour beside the disc, as a fraction of the picture's area
# where one value of an attribute ends and the next begins: the middle of the gaps between the ranges above
TOLD_APART: dict[str, Bands] = {
    "size": ((0.0945, "small"), (0.1365, "medium"), (math.inf, "large")),
    "travel": ((0.27, "slowly"), (0.46, "steadily"), (math.inf, "quickly")),
    **MOTIONS_TOLD_APART,
}


@dataclass(frozen=True)
class Track:
    """What was seen of a disc: centres (t, 2) and radii (t,) in sides of the square, and how well it is a disc (t,)."""

    centres: np.ndarray
    radii: np.ndarray
    overlap: np.ndarray


def read(frames: np.ndarray) -> dict[str, str]:
    """Name what a clip shows: uint8 (t, h, w, 3) to the attributes that can be seen.

    An attribute that cannot be told is absent. Nothing is told of a clip that does not show one disc on a plain
    background in every frame: what is seen is drawn again and must cover what was there, so that a smear is not taken
    for a circle. Motion needs four frames.
    """
    ground = np.median(border(frames), axis=0)
    colour = _disc_colour(frames, ground)
    if colour is None:
        return {}
    track = _track(frames, ground, colour)
    if track is None or track.overlap.mean() < SOLID or track.overlap.min() < SOLID / 2:
        return {}
    seen = {
        "colour": nearest(colour, COLOURS, COLOUR_TOLERANCE),
        "background": nearest(ground, BACKGROUNDS, COLOUR_TOLERANCE),
        "size": band(TOLD_APART["size"], float(_smooth_radii(track).max())),
        **(_read_motion(track) if len(frames) >= 4 else {}),
    }
    return {name: value for name, value in seen.items() if value is not None}


def glimpse(frame: np.ndarray, asked: Mapping[str, str] | None = None) -> dict[str, str]:
    """What one picture (h, w, 3) uint8 shows of the attributes, whatever is asked."""
    return read(frame[None])


def shown(said: Mapping[str, str]) -> dict[str, str]:
    """Of these attributes, those that a still can show."""
    return {name: value for name, value in said.items() if name in ("colour", "size", "background")}


def _disc_colour(frames: np.ndarray, ground: np.ndarray) -> np.ndarray | None:
    """The median colour of the pixels that differ most from the background; None where nothing stands out."""
    difference = np.linalg.norm(frames.astype(np.float32) - ground, axis=-1)
    contrast = np.sort(difference.reshape(len(frames), -1), axis=1)[:, -4:].min(
        1
    )  # the fourth strongest pixel of each frame
    if (peak := float(np.median(contrast))) < VISIBLE / 2:
        return None
    colour = np.median(frames[difference > 0.7 * peak], axis=0).astype(np.float32)
    return colour if np.linalg.norm(colour - ground) >= VISIBLE / 2 else None


def _track(frames: np.ndarray, ground: np.ndarray, colour: np.ndarray) -> Track | None:
    """Follow the disc: cover of each pixel by projection on the line from background to disc, then area and
    centroid."""
    _, height, width, _ = frames.shape
    axis = (colour - ground) / float(np.sum((colour - ground) ** 2))
    away = frames.astype(np.float32) - ground
    cover = np.clip(away @ axis, 0, 1)  # (t, h, w)
    stray = np.linalg.norm(away - cover[..., None] * (colour - ground), axis=-1)  # off the line: some third colour
    cover[cover < 0.15] = 0
    area = cover.sum(axis=(1, 2))
    if area.min() < 0.8 or float((stray > VISIBLE).mean()) > FLAT:
        return None
    xs, ys = np.arange(width) + 0.5, np.arange(height) + 0.5
    centres = np.stack([(cover.sum(1) @ xs) / area, (cover.sum(2) @ ys) / area], axis=-1)
    radii = np.sqrt(area / np.pi)
    distance = np.hypot(xs - centres[:, 0, None, None], ys[:, None] - centres[:, 1, None, None]) - radii[:, None, None]
    ideal = np.clip(0.5 - distance, 0, 1)
    overlap = np.minimum(cover, ideal).sum(axis=(1, 2)) / np.maximum(cover, ideal).sum(axis=(1, 2))
    overlap[radii < 2.5] = 1.0  # under two pixels and a half a disc has no shape to compare
    side = min(height, width)
    return Track((centres - (np.array([width, height]) - side) / 2) / side, radii / side, overlap)


def _smooth_radii(track: Track) -> np.ndarray:
    """The straight line through the radii: one frame's noise does not change the size."""
    s = times(len(track.radii))
    return np.polyval(np.polyfit(s, track.radii, 1), s) if len(s) > 1 else track.radii


def _read_motion(track: Track) -> dict[str, str | None]:
    """Fit every law to the path and name the one that fits best, if it fits at all."""
    radii, span = _smooth_radii(track), np.ptp(track.centres, axis=0).max()
    ratio = float(max(radii.min(), 0) / radii.max())
    if span < STEADY:
        if ratio > TOLD_APART["ratio"][-1][0]:
            return {"motion": "still"}
        return {
            "motion": "shrinking" if radii[0] > radii[-1] else "expanding",
            "speed": band(TOLD_APART["ratio"], ratio),
        }
    if ratio < 0.8:  # it moves and changes its size: no law here does both
        return {}
    fit = best_fit(track.centres)
    return {"motion": fit.motion, "speed": band(TOLD_APART[fit.kind], fit.value)} if fit else {}
