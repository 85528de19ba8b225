"""What a single picture of critters shows: who is there and where, how near, and in what posture.

A still shows no action but rest, and not who does what to whom. Postures are found by likeness: the nearest template
that the world has drawn, and from there the nearest one between templates.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from kinetograph.worlds.critters import reading
from kinetograph.worlds.critters.depths import RELIEF, ground, nearness
from kinetograph.worlds.critters.drawing import ALONE, PAIR, Act
from kinetograph.worlds.critters.reading import ALIKE, Track
from kinetograph.worlds.critters.scenes import ANIMALS, STILL
from kinetograph.worlds.critters.skeletons import Skeleton, skeleton

FLOORS = (0.82, 0.87)  # between which performers stand
RESTING = {"lie": "sleeps", "sit": "sits"}
FINE = 1 / 48  # of a cycle: the last step in the search for a posture


def glimpse(frame: np.ndarray, asked: Mapping[str, str] | None = None) -> dict[str, str]:
    """What one picture (h, w, 3) uint8 shows of the attributes; nothing of a place or of performers that are none.

    Who of two is the subject is not to be seen: it is whoever makes more of what is asked true.
    """
    place, _, _, tracks = reading.looked(frame[None])
    if not tracks or min(track.likeness for track in tracks) < ALIKE:
        return {"place": place} if place else {}
    orders = [order for order in (tracks, tracks[::-1]) if order[0].kind in ANIMALS]
    said = [{**_named(*order), "place": place} for order in orders]
    wanted = (asked or {}).items()
    return max(said, key=lambda one: len(one.items() & wanted), default={"place": place})


def _named(subject: Track, partner: Track | None = None) -> dict[str, str]:
    gait = max(RESTING, key=lambda gait: subject.gaits[gait])
    rests = partner is None and subject.holds(gait)
    found = {"animal": subject.kind, "coat": subject.coat, "action": RESTING[gait] if rests else ""}
    if partner:
        found |= {"partner": partner.kind, "partner coat": partner.coat}
    return {name: value for name, value in found.items() if value}


def shown(said: Mapping[str, str]) -> dict[str, str]:
    """Of these attributes, those that a still can show."""
    kept = {name: value for name, value in said.items() if name not in ("action", "direction")}
    return kept | ({"action": said["action"]} if said.get("action") in STILL else {})


def whereabouts(frames: np.ndarray) -> np.ndarray:
    """Where the largest figure of each frame is, (t, 2) in sides from the upper left; nan where there is none."""
    _, blobs = reading.figures(frames)
    return np.array([frame[0].centre if frame else (np.nan, np.nan) for frame in blobs]).reshape(-1, 2)


def relief(frames: np.ndarray) -> np.ndarray:
    """How much nearer than what lies behind it each pixel is, (t, h, w), as far as it is to be seen: figures stand on
    the ground below them, or as low as anybody stands."""
    labels, blobs = reading.figures(frames)
    behind, near = ground(*frames.shape[1:3]), np.zeros(labels.shape)
    side = min(frames.shape[1:3])
    top = (frames.shape[1] - side) / 2
    for t, found in enumerate(blobs):
        for blob in found[:2]:
            ys, xs = np.nonzero(labels[t] == blob.label)
            floor = np.clip((ys.max() + 1 - top) / side, *FLOORS)
            near[t, ys, xs] = float(nearness(np.array(floor))) + RELIEF / 2 - behind[ys]
    return near


def relief_of(depths: np.ndarray) -> np.ndarray:
    """The same of frames of depth (..., h, w, 3), as the world draws them."""
    height, width = depths.shape[-3:-1]
    return np.asarray(depths[..., 0] / 255 - ground(height, width)[:, None], np.float64)


# --- postures ---------------------------------------------------------------------------------------------------------


def joints_seen(frame: np.ndarray) -> list[Skeleton]:
    """The skeletons of the animals in a picture (h, w, 3), as well as their likeness tells, from left to right."""
    _, labels, blobs, tracks = reading.looked(frame[None])
    size = ALONE if len(tracks) == 1 else PAIR
    some = [track for track in tracks if track.kind in ANIMALS and track.likeness > ALIKE]
    found = []
    for track in some:
        centre = (float(track.path[0, 0]), float(track.path[0, 1]))
        label = min(blobs[0], key=lambda blob: float(np.hypot(*np.subtract(blob.centre, centre)))).label
        found.append(_posture(reading.crop(frame, labels[0] == label, centre, size), track, centre, size))
    return sorted(found, key=lambda one: float(one.points["hip"][0, 0]))


def _posture(patch: np.ndarray, track: Track, centre: tuple[float, float], size: float) -> Skeleton:
    """The skeleton of what looks like this patch."""
    bank = reading.bank_of_templates()
    group = bank.groups[bank.names.index((track.kind, track.coat))]
    best = int(group[(bank.patches[group] @ patch).argmax()])
    left = bool(bank.facing[best] < 0)
    act, at = _refined(bank.acts[best], patch, int(left))
    points = {}
    for name, path in skeleton(act).points.items():
        off = (path - at) * size  # a template is drawn at size 1
        points[name] = np.array(centre) + off * np.array([-1.0 if left else 1.0, 1.0])
    return Skeleton(track.kind, points)


def _refined(act: Act, patch: np.ndarray, side: int) -> tuple[Act, tuple[float, float]]:
    """The act between templates that is most like the patch, and the centre of what is seen of it."""
    width, best, at = 1 / 12, -1.0, (0.0, 0.0)
    while width >= FINE / 2:
        changes = [(name, step * width * reach) for name, reach in _FREE.items() for step in (-1, 1)]
        tried = [act, *(_turned(act, **{name: amount}) for name, amount in changes)]
        shown = reading.shown_alone(tried)
        likeness = [float((one[1] if side else one[0]) @ patch) for one in shown]
        place = int(np.argmax(likeness))
        if likeness[place] > best + 1e-4:
            act, best, at = tried[place], likeness[place], shown[place][2]
        else:
            width /= 2
    return act, at


_FREE = {"cycle": 1.0, "beat": 1.0, "air": 2.0, "pitch": 2.0, "dip": 2.0}  # what a posture may differ in, and how far


def _turned(act: Act, **by: float) -> Act:
    changes = {name: getattr(act.pose, name) + amount for name, amount in by.items()}
    for name in ("air", "dip"):
        if name in changes:
            changes[name] = np.clip(changes[name], 0.0, 1.0)
    return replace(act, pose=replace(act.pose, **changes))
