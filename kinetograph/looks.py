"""Colours, backgrounds and sizes: their values, their names in sentences, and a colour's name told from its pixels."""

import math
from collections.abc import Mapping

import numpy as np

RGB = tuple[int, int, int]

COLOURS: dict[str, RGB] = {
    "red": (225, 35, 35),
    "orange": (245, 130, 20),
    "yellow": (250, 215, 30),
    "green": (35, 155, 60),
    "cyan": (40, 200, 215),
    "blue": (35, 75, 215),
    "purple": (125, 45, 165),
    "pink": (250, 130, 190),
    "brown": (125, 75, 35),
    "black": (15, 15, 15),
    "white": (245, 245, 245),
    "grey": (128, 128, 128),
}
BACKGROUNDS: dict[str, RGB] = {
    "white": (245, 245, 245),
    "black": (15, 15, 15),
    "grey": (128, 128, 128),
    "navy": (15, 25, 85),
    "cream": (245, 225, 175),
    "mint": (170, 230, 190),
    "lavender": (205, 185, 245),
    "sky": (150, 205, 250),
}
VISIBLE = 80.0  # least distance in RGB between a thing and its background

COLOUR_WORDS = {
    "red": ("red", "crimson", "scarlet"),
    "orange": ("orange", "tangerine"),
    "yellow": ("yellow", "golden", "lemon"),
    "green": ("green", "emerald"),
    "cyan": ("cyan", "turquoise", "teal", "aqua"),
    "blue": ("blue", "azure", "cobalt"),
    "purple": ("purple", "violet"),
    "pink": ("pink", "rose"),
    "brown": ("brown", "chocolate"),
    "black": ("black", "ebony"),
    "white": ("white", "snow white"),
    "grey": ("grey", "gray"),
}
BACKGROUND_WORDS = {
    "white": ("white",),
    "black": ("black",),
    "grey": ("grey", "gray"),
    "navy": ("navy", "navy blue", "dark blue"),
    "cream": ("cream", "beige"),
    "mint": ("mint", "mint green", "pale green", "light green"),
    "lavender": ("lavender", "lilac", "pale purple"),
    "sky": ("sky blue", "sky", "light blue", "pale blue"),
}
SIZE_WORDS = {
    "small": ("small", "little", "tiny"),
    "medium": ("medium", "medium sized", "mid sized"),
    "large": ("large", "big", "huge"),
}


def border(frames: np.ndarray) -> np.ndarray:
    """The outermost pixels of all frames (t, h, w, 3), as float32 (n, 3)."""
    edges = (frames[:, 0], frames[:, -1], frames[:, :, 0], frames[:, :, -1])
    return np.concatenate([edge.reshape(-1, 3) for edge in edges]).astype(np.float32)


def nearest(colour: np.ndarray, names: Mapping[str, RGB], tolerance: float) -> str | None:
    """The name of a colour (3,) in 0 ... 255; None where no name lies within the tolerance, a distance in RGB."""
    name = min(names, key=lambda name: math.dist(names[name], colour))
    return name if math.dist(names[name], colour) <= tolerance else None
