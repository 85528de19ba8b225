"""What a clip of critters shows: the place by its colours, performers by templates that the world itself draws, actions
by their paths."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations
from typing import NamedTuple

import numpy as np

from kinetograph.motions import times
from kinetograph.worlds.critters.bodies import SCALES, Pose
from kinetograph.worlds.critters.drawing import ALONE, COATS, PAIR, Act, Stage, paint_cast
from kinetograph.worlds.critters.places import HORIZON, PLACES, column, rows
from kinetograph.worlds.critters.scenes import ANIMALS, PARTNERS, THINGS

APART = 34.0  # RGB distance from every colour of a place at which a pixel is none of it
BELONGS = 0.94  # least part of what is no performer that is of the place's colours
LAYERED = 0.7  # least part of the rows that have the place's colour in the middle
SMALLEST = 0.0016  # area of the smallest performer, in squares of the side
FLUTTERS = 0.007  # area of the smallest that does not open and close wings
CROWD = 0.005  # area of a third performer that is one too many
CELLS, WINDOW = 24, 0.5  # a template: so many cells a side, over so much of the picture at size 1
ALIKE = 0.77  # least likeness (cosine) to a template, averaged over the clip
SPECK = 0.6  # what is less like any template than this is a letter or a wave
LIKE_ANOTHER = 0.03  # two gaits as near as this cannot be told apart
STEADY = 0.05  # a performer whose path spans less than this stays where it is
STRAIGHT = 0.022  # largest distance (root mean square, in sides) from the line or arc that a path is taken for
TRAVEL = {"walks": (0.13, 0.33), "runs": (0.36, 0.60)}
PURSUIT = {"follows": (0.07, 0.165), "chases": (0.175, 0.32)}


@dataclass(frozen=True)
class Blob:
    """One connected figure in one frame: its label, its area in squares of the side, its centre and box in sides."""

    label: int
    area: float
    centre: tuple[float, float]


@dataclass(frozen=True)
class Track:
    """One performer over time: where it was seen (t, 2), nan where it was not; who it is and how it holds itself."""

    path: np.ndarray
    kind: str
    coat: str
    gaits: dict[str, float]  # how much it is like its templates in each
    facing: np.ndarray  # (t,) 1 right, -1 left, 0 unknown
    likeness: float

    @property
    def seen(self) -> np.ndarray:
        """The frames in which it was seen."""
        seen: np.ndarray = np.isfinite(self.path[:, 0])
        return seen

    def holds(self, gait: str) -> bool:
        """Whether it is as in this gait, or all but."""
        return self.gaits[gait] > max(self.gaits.values()) - LIKE_ANOTHER


def read(frames: np.ndarray) -> dict[str, str]:
    """Name what a clip shows: uint8 (t, h, w, 3) to the attributes that can be seen; what cannot be told is absent.

    Nothing is told of a clip that shows none of the places, or performers unlike those that the world draws.
    """
    place, _, _, tracks = looked(frames)
    if not tracks or min(track.likeness for track in tracks) < ALIKE:
        return {}
    seen = _alone(tracks[0]) if len(tracks) == 1 else _together(*tracks)
    return {name: value for name, value in ({**seen, "place": place}).items() if value} if seen else {}


class Looked(NamedTuple):
    """What is seen in a clip: its place, "" where it is none, the figures of every frame and their labels (t, h, w),
    and its one or two performers."""

    place: str
    labels: np.ndarray
    blobs: list[list[Blob]]
    tracks: list[Track]


def looked(frames: np.ndarray) -> Looked:
    """Look at a clip."""
    place, away = _place(frames)
    labels, blobs = _blobs(away)
    nobody = not place or _stray(away, labels, blobs) > 1 - BELONGS
    return Looked(place, labels, blobs, [] if nobody else _tracks(frames, labels, blobs))


def figures(frames: np.ndarray) -> tuple[np.ndarray, list[list[Blob]]]:
    """The figures of every frame that stand out from its place, the largest first, and their labels (t, h, w)."""
    return _blobs(_place(frames)[1])


# --- the place --------------------------------------------------------------------------------------------------------


def _place(frames: np.ndarray) -> tuple[str, np.ndarray]:
    """The place whose colours most of the picture has, and which pixels (t, h, w) are none of them."""
    small = frames[:: max(1, len(frames) // 4), :, ::4]
    name = min(PLACES, key=lambda place: float(_far(place, small).mean()))
    height, width = frames.shape[1:3]
    middle = np.median(frames, axis=(0, 2))  # (h, 3)
    layered = np.linalg.norm(middle - column(PLACES[name], rows(height, width)), axis=-1) < 1.6 * APART
    if layered.mean() < LAYERED:
        return "", np.zeros(frames.shape[:3], bool)
    return name, _opened(_far(name, frames), 3 if min(height, width) > 96 else 2)


def _far(place: str, frames: np.ndarray) -> np.ndarray:
    """Which pixels are far from every colour that a place has above, or below, its horizon."""
    r, g, b = np.moveaxis(frames >> 3, -1, 0).astype(np.intp)
    height, width = frames.shape[1:3]
    below = rows(height, width) > HORIZON
    far: np.ndarray = _strange(place)[(below[:, None] * 32768 + (r * 32 + g) * 32 + b)]
    return far


def _opened(mask: np.ndarray, size: int) -> np.ndarray:
    """The mask (..., h, w) without what is thinner than this: the edges between colours, letters, waves."""
    for _ in range(2):  # first it shrinks, then, upside down and inside out, it grows back
        for axis in (-1, -2):
            mask = np.logical_and.reduce([np.roll(mask, k, axis) for k in range(size)])
        mask = ~mask[..., ::-1, ::-1]
    return mask


@cache
def _strange(place: str) -> np.ndarray:
    """For every colour in 15 bits, above and then below the horizon, whether it is far from the place's, (65536,)."""
    levels = np.arange(32, dtype=np.float32) * 8 + 4
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    return np.concatenate([_distance(grid, PLACES[place].palette(below)) > APART for below in (False, True)])


def _distance(colours: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """How far each colour is from the nearest of a palette."""
    nearest = np.full(len(colours), np.inf)
    for colour in np.unique(palette, axis=0):
        nearest = np.minimum(nearest, ((colours - colour) ** 2).sum(-1))
    root: np.ndarray = np.sqrt(nearest)
    return root


# --- figures ----------------------------------------------------------------------------------------------------------


def _blobs(away: np.ndarray) -> tuple[np.ndarray, list[list[Blob]]]:
    """The connected figures of every frame: labels (t, h, w), 0 for none, and the figures that are not too small."""
    labels, side = np.zeros(away.shape, np.int32), min(away.shape[1:])
    return labels, [_connected(mask, label, side) for mask, label in zip(away, labels, strict=True)]


def _connected(mask: np.ndarray, labels: np.ndarray, side: int) -> list[Blob]:
    """Label one frame: runs of each row, joined with those that touch them in the row above."""
    edges = np.diff(np.pad(mask.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    rows, starts = np.nonzero(edges == 1)
    ends = np.nonzero(edges == -1)[1]
    parents = list(range(len(rows)))

    def root(i: int) -> int:
        while parents[i] != i:
            parents[i] = parents[parents[i]]
            i = parents[i]
        return i

    first = np.searchsorted(rows, np.arange(mask.shape[0] + 1)).tolist()
    begin, end = starts.tolist(), ends.tolist()
    for above, here, below in zip(first, first[1:], first[2:], strict=False):
        i, j = above, here
        while i < here and j < below:
            if begin[i] <= end[j] and begin[j] <= end[i]:
                parents[root(j)] = root(i)
            i, j = (i + 1, j) if end[i] < end[j] else (i, j + 1)
    groups: dict[int, list[int]] = {}
    for i in range(len(rows)):
        groups.setdefault(root(i), []).append(i)
    found: list[Blob] = []
    for group in groups.values():
        long = ends[group] - starts[group]
        area = int(long.sum())
        if area >= SMALLEST * side * side:
            for i in group:
                labels[rows[i], starts[i] : ends[i]] = len(found) + 1
            x = float((long * (starts[group] + ends[group])).sum()) / (2 * area)
            y = float((long * (rows[group] + 0.5)).sum()) / area
            found.append(Blob(len(found) + 1, area / side**2, (x / side, y / side)))
    return sorted(found, key=lambda blob: -blob.area)[:3]


def _stray(away: np.ndarray, labels: np.ndarray, blobs: Sequence[Sequence[Blob]]) -> float:
    """How much of what is no performer is not of the place either."""
    kept = [sum(blob.area for blob in frame[:2]) for frame in blobs]
    side = min(away.shape[1:])
    total = away.sum() / side**2 - sum(kept)
    return float(total / (away.size / side**2 - sum(kept)))


def _follow(blobs: Sequence[Sequence[Blob]], count: int) -> list[list[Blob | None]]:
    """Which figure each of so many performers is in every frame, from one frame to the next by the shortest ways.

    Where two have run into one, it is the nearer's (none's, if it is neither's size), and the other is not seen."""
    first = next(i for i, frame in enumerate(blobs) if len(frame) >= count)
    last: list[Blob] = list(blobs[first][:count])
    ways: list[list[Blob | None]] = [[None] * len(blobs) for _ in range(count)]
    for i in [*range(first, len(blobs))]:
        frame = blobs[i]
        if not frame:
            continue
        if len(frame) >= count:
            orders = list(permutations(frame[:count] if count == 1 else frame, count))
            best = min(orders, key=lambda order: sum(_leap(a, b) for a, b in zip(last, order, strict=True)))
            for k, blob in enumerate(best):
                ways[k][i] = last[k] = blob
        else:
            areas = [blob.area for blob in last]
            by_size = max(areas) > 2.5 * min(areas)  # what is carried is part of its bearer
            heir = int(np.argmax(areas)) if by_size else min(range(count), key=lambda k: _leap(last[k], frame[0]))
            ways[heir][i] = last[heir] = frame[0]
    return ways


def _leap(a: Blob, b: Blob) -> float:
    return math.dist(a.centre, b.centre) + 0.15 * abs(math.log(a.area / b.area))


# --- who it is --------------------------------------------------------------------------------------------------------


def _tracks(frames: np.ndarray, labels: np.ndarray, blobs: list[list[Blob]]) -> list[Track]:
    """The one or two performers of a clip; none where there is nobody, or a crowd."""
    counts = np.array([len(frame) for frame in blobs])
    crowds = [sum(blob.area > CROWD for blob in frame) > 2 for frame in blobs]
    if np.mean(counts == 0) > 0.1 or np.mean(crowds) > 0.2:
        return []
    tracks = _counted(frames, labels, blobs, 2) if np.mean(counts >= 2) > 0.3 else []
    if tracks and min(track.likeness for track in tracks) > SPECK:
        return tracks
    return _counted(frames, labels, blobs, 1)


def _counted(frames: np.ndarray, labels: np.ndarray, blobs: list[list[Blob]], count: int) -> list[Track]:
    """The tracks of so many performers."""
    seconds = [frame[1].area for frame in blobs if len(frame) > 1]
    least = 0.45 * float(np.median(seconds)) if count == 2 else 0.0  # what is smaller is a piece of somebody
    ways = _follow([[blob for blob in frame if blob.area >= least] for frame in blobs], count)
    size = PAIR if count == 2 else ALONE
    return [track for way in ways if (track := _track(frames, labels, way, size)) is not None]


def _track(frames: np.ndarray, labels: np.ndarray, way: Sequence[Blob | None], size: float) -> Track | None:
    """Who one performer is: in most of the frames, more like its templates than like any other's."""
    seen = {i: blob for i, blob in enumerate(way) if blob is not None}
    usual = float(np.quantile([blob.area for blob in seen.values()], 0.2))
    most = (1.9 if usual > FLUTTERS else 4.0) * usual
    whole = {i: blob for i, blob in seen.items() if 0.35 * usual < blob.area < most}
    clear = [i for i, blob in whole.items() if blob.area < 1.35 * usual]
    if len(clear) < max(1, len(way) // 4):
        return None
    bank = bank_of_templates()
    crops = np.stack([crop(frames[i], labels[i] == whole[i].label, whole[i].centre, size) for i in clear])
    likeness = crops @ bank.patches.T  # (n, templates)
    best = np.sort([likeness[:, group].max(1) for group in bank.groups], axis=1)  # (names, n)
    kept = best[:, len(clear) * 11 // 20 :].mean(1)  # the better frames: what is carried hides some of it
    name = int(kept.argmax())
    kind, coat = bank.names[name]
    own = likeness[:, bank.groups[name]]
    path, facing = np.full((len(way), 2), np.nan), np.zeros(len(way))
    path[list(whole)] = [blob.centre for blob in whole.values()]
    facing[clear] = bank.facing[bank.groups[name]][own.argmax(1)]
    gaits = bank.gaits[bank.groups[name]]
    like = {str(gait): float(own[:, gaits == gait].max(1).mean()) for gait in np.unique(gaits)}
    return Track(path, kind, coat, like, facing, float(kept[name]))


@dataclass(frozen=True)
class Bank:
    """Templates: patches (n, d) of unit length, what each is, the templates of each (kind, coat), and the act that each
    template of an animal or a thing shows, to the right."""

    patches: np.ndarray
    facing: np.ndarray
    gaits: np.ndarray
    names: list[tuple[str, str]]
    groups: list[np.ndarray]
    acts: list[Act]


LEAPS = ((0.0, 0.0), (0.4, 0.0), (0.75, 0.0), (1.0, 0.0), (0.2, 0.45), (0.2, -0.45), (0.85, 0.2), (0.85, -0.2))
GAITS = {  # how templates are posed: gait, cycles, heights in a leap, pitches
    "walk": [(c, 0.0, 0.0) for c in np.arange(6) / 6],
    "run": [(c, 0.0, 0.0) for c in np.arange(8) / 8],
    "jump": [(c, a, p) for c in (0.0, 0.125, 0.375) for a, p in LEAPS],
    "lie": [(0.0, 0.0, 0.0), (0.5, 0.0, 0.0)],
    "sit": [(c, 0.0, 0.0) for c in (0.0, 0.25, 0.5, 0.75)],
}  # fmt: skip
TURNS = {"ball": (0.0, 0.125, 0.25, 0.375), "butterfly": tuple(k / 12 for k in range(-3, 4))}


@cache
def bank_of_templates() -> Bank:
    """Every performer in every coat, posture and phase, facing right and left, as the world draws them."""
    acts = [
        _posed(kind, coat, gait, *pose)
        for kind in ANIMALS
        for coat in COATS
        for gait, poses in GAITS.items()
        for pose in poses
    ]
    acts += [_turned(kind, turn) for kind in THINGS for turn in TURNS.get(kind, (0.0,))]
    patches = [patch for i in range(0, len(acts), 64) for shown in shown_alone(acts[i : i + 64]) for patch in shown[:2]]
    twice = [act for act in acts for _ in (1, -1)]
    names = list(dict.fromkeys((act.kind, act.coat) for act in acts))
    groups = [np.flatnonzero([(act.kind, act.coat) == name for act in twice]) for name in names]
    facing, gaits = np.tile([1.0, -1.0], len(acts)), np.array([act.pose.gait for act in twice])
    return Bank(np.stack(patches), facing, gaits, names, groups, twice)


def shown_alone(acts: Sequence[Act]) -> list[tuple[np.ndarray, np.ndarray, tuple[float, float]]]:
    """What acts look like by themselves: the patch of each as it faces right and as it faces left, and the centre of
    what is seen of it."""
    side, ground = 96, np.array([255.0, 0.0, 255.0])
    canvas = np.zeros((len(acts), 1, side, side, 3), np.float32) + ground.astype(np.float32)
    paint_cast(Stage(canvas=canvas, corner=np.zeros(2), side=side, xp=np, device=None), [[act] for act in acts])
    found = []
    for frame in canvas[:, 0]:
        mask = _opened(np.linalg.norm(frame - ground, axis=-1) > APART, 2)
        ys, xs = np.nonzero(mask)
        centre = ((xs.mean() + 0.5) / side, (ys.mean() + 0.5) / side)
        left = crop(frame[:, ::-1], mask[:, ::-1], (1 - centre[0], centre[1]), 1.0)
        found.append((crop(frame, mask, centre, 1.0), left, centre))
    return found


def _posed(kind: str, coat: str, gait: str, cycle: float, air: float, pitch: float) -> Act:
    one, none = np.ones(1), np.zeros(1)
    lean = {"sit": 0.6, "lie": -0.06}.get(gait, 0.0) if kind == "fish" else 0.0
    pose = Pose(gait=gait, cycle=cycle * one, beat=cycle * one, air=air * one, pitch=(pitch + lean) * one, dip=none)
    return Act(kind=kind, coat=coat, scale=SCALES[kind], x=0.5 * one, height=none, facing=one, floor=0.7, pose=pose)


def _turned(kind: str, turn: float) -> Act:
    one, none = np.ones(1), np.zeros(1)
    pose = Pose(gait="", cycle=turn * one, beat=none, air=none, pitch=none, dip=none)
    return Act(kind=kind, coat="", scale=1 / PAIR, x=0.5 * one, height=none, facing=one, floor=0.5, pose=pose)


def crop(frame: np.ndarray, mask: np.ndarray, centre: tuple[float, float], size: float) -> np.ndarray:
    """A figure in cells about its centre, as a unit vector: how far each cell is covered, and with what colour."""
    height, width = mask.shape
    side = min(height, width)
    offsets = (np.arange(2 * CELLS) + 0.5) / (2 * CELLS) - 0.5
    xs = np.floor((centre[0] + offsets * WINDOW * size) * side).astype(int)
    ys = np.floor((centre[1] + offsets * WINDOW * size) * side).astype(int)
    inside = ((ys >= 0) & (ys < height))[:, None] & ((xs >= 0) & (xs < width))
    place = np.clip(ys, 0, height - 1)[:, None], np.clip(xs, 0, width - 1)
    cover = (mask[place] & inside)[..., None]
    colour = cover * (frame[place].astype(np.float32) - 128) / 128
    cells = np.concatenate([0.8 * cover, colour], axis=-1).reshape(CELLS, 2, CELLS, 2, 4).mean((1, 3))
    patch: np.ndarray = cells.astype(np.float32).reshape(-1)
    return patch / np.float32(max(float(np.linalg.norm(cells)), 1e-6))


# --- what it does -----------------------------------------------------------------------------------------------------


def _alone(track: Track) -> dict[str, str]:
    """One animal: still, on a straight way, or in leaps."""
    if track.kind not in ANIMALS or track.seen.mean() < 0.75:
        return {}
    seen = {"animal": track.kind, "coat": track.coat}
    travel, bend = _line(track.path[:, 0])
    height = _spread(track.path[:, 1])
    if abs(travel) < STEADY:
        gait = max(("lie", "sit"), key=lambda gait: track.gaits[gait])
        still = height < STEADY and track.holds(gait)
        return seen | {"action": {"lie": "sleeps", "sit": "sits"}[gait] if still else ""}
    if bend > STRAIGHT or not _faces(track, travel):
        return seen
    seen["direction"] = _side(travel)
    if height > 0.11:
        return seen | {"action": "jumps" if _hops(track.path[:, 1]) else ""}
    return seen | {"action": next((name for name, (low, high) in TRAVEL.items() if low < abs(travel) < high), "")}


def _together(one: Track, other: Track) -> dict[str, str]:
    """Two performers: who acts on whom, and how."""
    for rule in (_leaps_over, _fetches, _pursues):
        for subject, partner in ((one, other), (other, one)):
            if subject.kind in ANIMALS and (found := rule(subject, partner)):
                action, travel = found
                if partner.kind not in PARTNERS[action]:
                    continue
                seen = {"animal": subject.kind, "coat": subject.coat, "action": action, "direction": _side(travel)}
                return seen | {"partner": partner.kind, "partner coat": partner.coat}
    return {}


Found = tuple[str, float] | None  # action, and how far to the right


def _leaps_over(subject: Track, partner: Track) -> Found:
    """From one side of what stays where it is to the other, through the air."""
    if (
        max(map(_spread, partner.path.T)) > STEADY
        or subject.seen.mean() < 0.6
        or (partner.kind in ANIMALS and not partner.holds("lie"))
    ):
        return None
    travel, bend = _line(subject.path[:, 0])
    x, y = subject.path[subject.seen].T
    middle = float(np.nanmedian(partner.path[:, 0]))
    across = (x[0] - middle) * (x[-1] - middle) < 0
    rise = (y[0] + y[-1]) / 2 - y.min()
    high = 0.2 < (int(np.argmin(y)) / max(len(y) - 1, 1)) < 0.8
    fits = across and rise > 0.16 and high and bend < 2 * STRAIGHT and _faces(subject, travel)
    return ("jumps over", travel) if fits else None


def _fetches(subject: Track, partner: Track) -> Found:
    """Out to a thing that lies still, and back with it."""
    count = len(subject.path)
    early = partner.path[: int(0.4 * count)]
    if partner.kind not in PARTNERS["fetches"] or subject.seen.mean() < 0.6 or not np.isfinite(early[:, 0]).any():
        return None
    x = np.interp(np.arange(count), np.flatnonzero(subject.seen), subject.path[subject.seen, 0])
    s = times(count)
    law = np.clip(s / 0.42, 0, 1) - np.clip((s - 0.60) / 0.40, 0, 1)
    turned = (s > 0.57).astype(float)  # its middle is another when it has turned, and carries something
    design = np.stack([law, turned, np.ones(count)], axis=-1)
    solution, *_ = np.linalg.lstsq(design, x, rcond=None)
    out, error = float(solution[0]), float(np.sqrt(np.mean((x - design @ solution) ** 2)))
    rests = float(np.nanmax(np.ptp(early[np.isfinite(early[:, 0])], axis=0))) < STEADY
    home = np.nanmedian(early[:, 0])
    late = partner.path[int(0.65 * count) :, 0]
    taken = not np.isfinite(late).any() or abs(np.nanmean(late) - home) > 0.06
    toward = (home - x[0]) * out > 0
    fits = 0.16 < abs(out) < 0.4 and error < 2 * STRAIGHT and rests and taken and toward
    return ("fetches", out) if fits else None


def _pursues(subject: Track, partner: Track) -> Found:
    """Behind what goes the same way as fast: running after it or walking behind it."""
    both = subject.seen & partner.seen
    if both.mean() < 0.6:
        return None
    (ours, bend), (theirs, bow) = (_line(track.path[:, 0]) for track in (subject, partner))
    ahead = np.sign(ours) * (partner.path[both, 0] - subject.path[both, 0])
    if abs(ours - theirs) > 0.08 or max(bend, bow) > STRAIGHT or ahead.min() < 0.05:
        return None
    if not _faces(subject, ours) or (partner.kind in ANIMALS and not _faces(partner, theirs)):
        return None
    travel = abs(ours + theirs) / 2
    action = next((name for name, (low, high) in PURSUIT.items() if low < travel < high), "")
    return (action, ours) if action else None


def _line(x: np.ndarray) -> tuple[float, float]:
    """How far the straight line through a path goes in a clip, and how far (root mean square) the path is from it."""
    seen = np.isfinite(x)
    if seen.sum() < 2:
        return 0.0, math.inf
    s = times(len(x))[seen]
    slope, start = np.polyfit(s, x[seen], 1)
    return float(slope), float(np.sqrt(np.mean((x[seen] - start - slope * s) ** 2)))


def _hops(y: np.ndarray) -> bool:
    """Whether heights are those of two leaps."""
    seen = np.isfinite(y)
    s = times(len(y))
    f = np.clip(((2 * s) % 1 * (s < 1) - 0.12) / 0.76, 0, 1)
    law = (4 * f * (1 - f))[seen]
    law, rise = law - law.mean(), -(y[seen] - y[seen].mean())
    height = float(law @ rise / max(float(law @ law), 1e-6))
    return height > 0.10 and float(np.sqrt(np.mean((rise - height * law) ** 2))) < 1.5 * STRAIGHT


def _spread(x: np.ndarray) -> float:
    """How far a path reaches, but for its outermost frames."""
    seen = np.sort(x[np.isfinite(x)])
    odd = len(seen) // 8
    return float(np.ptp(seen[odd : len(seen) - odd]))


def _faces(track: Track, travel: float) -> bool:
    """Whether it looks where it goes, in most frames."""
    return float(np.mean(track.facing[track.facing != 0] * np.sign(travel) > 0)) > 0.6


def _side(travel: float) -> str:
    return "right" if travel > 0 else "left"
