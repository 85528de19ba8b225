"""Nine shapes that move, spin, grow and fade, alone or two together in a relation: one chases, orbits or hides another.

The world plays in the unit square (x to the right, y down; a picture that is not square shows the square in its
middle), from time 0 to time 1. A scene is either one thing with a motion and a speed, or two things with a relation:
the subject does something to its partner. Relations are directed: a red square that chases a blue star is not a blue
star that chases a red square; "right of", "below" and the passive voice are the same relations said from the other end.
Two laws hold and are tested: `parse` undoes `caption`, and `read` undoes `draw`.
"""

from kinetograph.looks import BACKGROUNDS
from kinetograph.motions import SPEEDS
from kinetograph.worlds.shapes.drawing import depth, draw
from kinetograph.worlds.shapes.edits import edit, requested
from kinetograph.worlds.shapes.layers import behind, courses, mattes, reaches, unsaid
from kinetograph.worlds.shapes.reading import glimpse, read, relief, relief_of, shown, whereabouts
from kinetograph.worlds.shapes.scenes import (
    ATTRIBUTES,
    COLOURS,
    MOTIONS,
    RELATIONS,
    SIZES,
    Scene,
    attributes,
    default_background,
    heldout,
    heldout_combinations,
    near_misses,
    sample,
    visible,
)
from kinetograph.worlds.shapes.words import LEFT_OUT, caption, paraphrase, parse, still_caption, words

WIDTH, HEIGHT, FRAMES, FPS = 128, 128, 16, 8

__all__ = [
    "ATTRIBUTES",
    "BACKGROUNDS",
    "COLOURS",
    "FPS",
    "FRAMES",
    "HEIGHT",
    "LEFT_OUT",
    "MOTIONS",
    "RELATIONS",
    "SIZES",
    "SPEEDS",
    "WIDTH",
    "Scene",
    "attributes",
    "behind",
    "caption",
    "courses",
    "default_background",
    "depth",
    "draw",
    "edit",
    "glimpse",
    "heldout",
    "heldout_combinations",
    "mattes",
    "near_misses",
    "paraphrase",
    "parse",
    "reaches",
    "read",
    "relief",
    "relief_of",
    "requested",
    "sample",
    "shown",
    "still_caption",
    "unsaid",
    "visible",
    "whereabouts",
    "words",
]
