"""The places of the critters world: bands of colour, details that stand, and details that drift, fall, sway or twinkle.

Positions and lengths are in sides of the (middle) square of the picture, y down from its top.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kinetograph import drawing

Colour = tuple[int, int, int]
HORIZON = 0.62
SPECK = 0.012  # a disc under this radius is no part of a place's palette
SHADOW, DIM = (20, 16, 60), 0.2


@dataclass(frozen=True, kw_only=True)
class Detail:
    """One figure of a place: its outline, its colour, where it stands, how far it moves in a clip."""

    colour: Colour
    at: tuple[float, float]
    disc: float = 0.0  # a disc's radius, or
    box: tuple[float, float] = (0.0, 0.0)  # a rectangle's half sides, or
    ellipse: tuple[float, float] = (0.0, 0.0)  # half axes, or
    limb: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)  # a capsule's vector and its two radii, or
    corners: tuple[tuple[float, float], ...] = ()  # a polygon's
    travel: tuple[float, float] = (0.0, 0.0)  # in a clip
    sway: float = 0.0  # how far it swings to either side
    twinkle: bool = False
    fixed: bool = False  # does not lie elsewhere in every scene

    @property
    def moves(self) -> bool:
        """Whether it must be painted frame by frame."""
        return self.travel != (0.0, 0.0) or self.sway != 0.0 or self.twinkle

    @property
    def reach(self) -> np.ndarray:
        """How far it extends from where it stands, across and along."""
        thick = self.disc + max(self.limb[2:])
        spans: np.ndarray = np.max(np.abs([self.box, self.ellipse, self.limb[:2], *self.corners]), axis=0)
        return spans + thick


@dataclass(frozen=True, kw_only=True)
class Place:
    """Bands of colour as (y, colour) rows between which colours run evenly, an ink, and details."""

    bands: tuple[tuple[float, Colour], ...]
    ink: Colour  # of the letters over a sleeper
    details: tuple[Detail, ...]

    def palette(self, below: bool) -> np.ndarray:
        """Every colour above or below the horizon but for those of specks, (n, 3), shadows on the ground too."""
        bands = self._bands(below)
        ground = np.concatenate([bands, [d.colour for d in self._near(below) if d.fixed] or bands[:1]])
        shadows = ground + DIM * (np.array(SHADOW) - ground)
        details = [detail.colour for detail in self._near(below)] or bands[:1]
        return np.concatenate([bands, details, [self.ink], *([shadows] if below else [])]).astype(np.float32)

    def _bands(self, below: bool) -> np.ndarray:
        steps = [(a, b) for a, b in zip(self.bands, self.bands[1:], strict=False) if a[0] != b[0]]
        return np.concatenate([np.linspace(a, b, 6) for (y, a), (_, b) in steps if (y >= HORIZON) == below])

    def _near(self, below: bool) -> list[Detail]:
        """The details that reach above or below the horizon, without specks."""
        span = [(d, d.at[1] - d.reach[1], d.at[1] + d.reach[1]) for d in self.details if not 0 < d.disc < SPECK]
        return [d for d, top, bottom in span if (bottom > HORIZON if below else top < HORIZON)]


BEYOND = 0.2  # how far beyond either border details go


def _cloud(x: float, y: float, colour: Colour, travel: float) -> list[Detail]:
    return [
        Detail(colour=colour, at=(x - 0.05, y), limb=(0.13, 0.0, 0.035, 0.03), travel=(travel, 0)),
        Detail(colour=colour, at=(x + 0.01, y - 0.025), disc=0.042, travel=(travel, 0)),
    ]


def _flower(x: float, y: float) -> list[Detail]:
    pink, heart = (250, 150, 200), (235, 95, 150)
    return [Detail(colour=pink, at=(x, y), disc=0.018), Detail(colour=heart, at=(x, y), disc=0.008)]


def _fir(x: float, y: float, size: float) -> list[Detail]:
    green, frost = (60, 130, 120), (90, 160, 145)
    tiers = [((-0.5, 0.0), (0.5, 0.0), (0.0, -0.75)), ((-0.38, -0.4), (0.38, -0.4), (0.0, -1.1))]
    scaled = [tuple((size * cx, size * cy) for cx, cy in tier) for tier in tiers]
    return [Detail(colour=c, at=(x, y), corners=corners) for c, corners in zip((green, frost), scaled, strict=True)]


MEADOW = Place(
    bands=((0.0, (105, 180, 235)), (HORIZON, (175, 218, 240)), (HORIZON, (120, 190, 90)), (1.0, (90, 165, 70))),
    ink=(252, 240, 120),
    details=(
        Detail(colour=(140, 200, 110), at=(0.25, HORIZON + 0.12), ellipse=(0.42, 0.20)),
        Detail(colour=(120, 190, 90), at=(0.78, HORIZON + 0.12), ellipse=(0.5, 0.17)),
        *_cloud(0.2, 0.16, (190, 225, 248), 0.07),
        *_cloud(0.72, 0.26, (190, 225, 248), 0.05),
        *(flower for x, y in ((0.08, 0.72), (0.3, 0.93), (0.55, 0.71), (0.86, 0.92)) for flower in _flower(x, y)),
    ),
)
BEACH = Place(
    bands=(
        *((0.0, (120, 200, 245)), (0.44, (190, 228, 245)), (0.44, (40, 130, 200)), (HORIZON, (75, 180, 215))),
        *((HORIZON, (236, 200, 112)), (1.0, (226, 184, 96))),
    ),
    ink=(25, 70, 150),
    details=(
        Detail(colour=(255, 240, 120), at=(0.8, 0.15), disc=0.075, fixed=True),
        Detail(
            colour=(236, 92, 140), at=(0.3, 0.43), corners=((0.0, 0.0), (0.07, 0.0), (0.0, -0.13)), travel=(0.06, 0)
        ),
        Detail(colour=(40, 55, 130), at=(0.28, 0.445), limb=(0.09, 0.0, 0.016, 0.016), travel=(0.06, 0)),
        *(
            Detail(colour=(120, 205, 230), at=(x, y), limb=(0.09, 0.0, 0.007, 0.007), sway=0.03)
            for x, y in ((0.1, 0.5), (0.6, 0.52), (0.35, 0.575), (0.85, 0.57))
        ),
        *(Detail(colour=(236, 92, 140), at=(x, y), disc=0.014) for x, y in ((0.2, 0.72), (0.65, 0.94), (0.9, 0.75))),
    ),
)
SNOW = Place(
    bands=((0.0, (130, 145, 205)), (HORIZON, (178, 180, 225)), (HORIZON, (185, 212, 245)), (1.0, (165, 198, 240))),
    ink=(70, 60, 150),
    details=(
        *_fir(0.12, 0.66, 0.30),
        *_fir(0.88, 0.65, 0.24),
        *_fir(0.66, 0.63, 0.16),
        *(
            Detail(
                colour=(245, 248, 255),
                at=((0.07 + 0.618 * i) % 1, (0.05 + 0.137 * i) % 1),
                disc=0.011,
                travel=(0.02, 0.22),
            )
            for i in range(10)
        ),
    ),
)  # fmt: skip
NIGHT = Place(
    bands=((0.0, (46, 52, 130)), (HORIZON, (84, 88, 172)), (HORIZON, (58, 114, 128)), (1.0, (50, 100, 122))),
    ink=(170, 200, 250),
    details=(
        Detail(colour=(190, 208, 245), at=(0.2, 0.17), disc=0.085, fixed=True),
        Detail(colour=(54, 60, 138), at=(0.235, 0.15), disc=0.07, fixed=True),
        Detail(colour=(64, 104, 146), at=(0.7, HORIZON + 0.10), ellipse=(0.45, 0.18)),
        Detail(colour=(58, 114, 128), at=(0.2, HORIZON + 0.12), ellipse=(0.45, 0.16)),
        *(
            Detail(colour=(190, 208, 245), at=((0.1 + 0.618 * i) % 1, 0.06 + 0.09 * (i % 5)), disc=0.011, twinkle=True)
            for i in range(8)
        ),
    ),
)
ROOM = Place(
    bands=((0.0, (200, 170, 215)), (HORIZON, (190, 158, 208)), (HORIZON, (196, 100, 115)), (1.0, (182, 88, 105))),
    ink=(90, 50, 140),
    details=(
        Detail(colour=(150, 110, 180), at=(0.5, HORIZON), box=(4.0, 0.014), fixed=True),
        Detail(colour=(120, 80, 160), at=(0.24, 0.28), box=(0.15, 0.16)),
        Detail(colour=(130, 200, 240), at=(0.24, 0.28), box=(0.13, 0.14)),
        Detail(colour=(120, 80, 160), at=(0.24, 0.28), box=(0.012, 0.14)),
        Detail(colour=(120, 80, 160), at=(0.24, 0.28), box=(0.13, 0.012)),
        Detail(colour=(80, 90, 180), at=(0.5, 0.87), ellipse=(0.46, 0.10), fixed=True),
        Detail(colour=(110, 120, 205), at=(0.5, 0.87), ellipse=(0.36, 0.07), fixed=True),
        Detail(colour=(120, 80, 160), at=(0.72, 0.16), limb=(0.0, -0.3, 0.006, 0.006), sway=0.03),
        Detail(
            colour=(235, 95, 150),
            at=(0.72, 0.2),
            corners=((-0.03, -0.06), (0.03, -0.06), (0.08, 0.02), (-0.08, 0.02)),
            sway=0.03,
        ),
    ),
)  # fmt: skip
PLACES = {"meadow": MEADOW, "beach": BEACH, "snow": SNOW, "night": NIGHT, "room": ROOM}


def rows(height: int, width: int) -> np.ndarray:
    """Where the rows of pixels lie, (h,) in sides from the top of the middle square."""
    side = min(height, width)
    return np.asarray((np.arange(height) + 0.5 - (height - side) / 2) / side, np.float64)


def paint_places(
    names: Sequence[str],
    shift: np.ndarray,
    drift: np.ndarray,
    s: np.ndarray,
    height: int,
    width: int,
    xp: Any,
    device: Any,
) -> Any:
    """A canvas (b, t, h, w, 3) float32 with every clip's place at its moments s (b, t); `shift` and `drift` (b,) say
    where its details are."""
    y = rows(height, width)
    tables = {name: column(PLACES[name], y) for name in set(names)}
    columns = drawing.array(np.stack([tables[name] for name in names])[:, None, :, None, :], xp, device)
    where = {} if device is None else {"device": device}
    still = columns + xp.zeros((len(names), 1, height, width, 3), dtype=xp.float32, **where)
    groups = [(PLACES[name], np.flatnonzero([other == name for other in names])) for name in tables]
    for place, clips in groups:
        _paint(still, place, clips, shift, drift, 0 * s[:, :1], False, xp, device)
    canvas = still + xp.zeros((*s.shape, 1, 1, 1), dtype=xp.float32, **where)
    for place, clips in groups:
        _paint(canvas, place, clips, shift, drift, s, True, xp, device)
    return canvas


def column(place: Place, y: np.ndarray) -> np.ndarray:
    """The colours of the bands from top to bottom, (h, 3)."""
    edges = np.array([edge + 1e-6 * i for i, (edge, _) in enumerate(place.bands)])
    colours = np.array([colour for _, colour in place.bands], float)
    return np.stack([np.interp(y, edges, colours[:, c]) for c in range(3)], axis=-1)


def _paint(
    canvas: Any,
    place: Place,
    clips: np.ndarray,
    shift: np.ndarray,
    drift: np.ndarray,
    s: np.ndarray,
    moving: bool,
    xp: Any,
    device: Any,
) -> None:
    height, width = canvas.shape[2:4]
    side, wide = min(height, width), width / min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    for i, detail in enumerate(place.details):
        if detail.moves != moving:
            continue
        now, gone = s[clips], drift[clips, None]
        wave = np.sin(2 * np.pi * (now + gone + 0.3 * (i % 3 if detail.twinkle else 0)))  # (n, t)
        x = detail.at[0] + detail.travel[0] * (now + gone) + detail.sway * wave
        y = detail.at[1] + detail.travel[1] * (now + 4 * gone)
        if not detail.fixed:  # what leaves at one border comes in again at the other
            x = (x + shift[clips, None] * wide + BEYOND) % (wide + 2 * BEYOND) - BEYOND - (wide - 1) / 2
        if detail.travel[1]:
            y = (y + 0.05) % 1.1 - 0.05
        centres = np.stack([left + x * side, top + y * side], axis=-1)
        drawing.paint(
            canvas,
            clips,
            centres,
            np.broadcast_to(detail.reach * side, centres.shape),
            _outline(detail, side, xp),
            np.tile(detail.colour, (len(clips), 1)),
            xp=xp,
            device=device,
            opacity=0.55 + 0.45 * wave if detail.twinkle else 1.0,
        )


def _outline(detail: Detail, side: float, xp: Any) -> drawing.Distance:
    """The detail's signed distance in pixels."""
    if detail.disc:
        return lambda dx, dy: drawing.disc(dx, dy, detail.disc * side, xp)
    if detail.corners:
        corners: list[tuple[Any, Any]] = [(x * side, y * side) for x, y in detail.corners]
        return lambda dx, dy: drawing.polygon(dx, dy, corners, xp)
    a, b = (length * side for length in (detail.box if detail.box[0] else detail.ellipse))
    if a:
        figure = drawing.box if detail.box[0] else drawing.ellipse
        return lambda dx, dy: figure(dx, dy, a, b, xp)
    vx, vy, r0, r1 = (length * side for length in detail.limb)
    return lambda dx, dy: drawing.capsule(dx, dy, (0.0, 0.0), (vx, vy), (r0, r1), xp)
