"""Animals that walk, run, jump, sleep, chase, fetch and follow: small, friendly, and exact enough to be read back."""

from kinetograph.worlds.critters.captions import LEFT_OUT, STILL_WORDS, caption, paraphrase, parse, still_caption, words
from kinetograph.worlds.critters.depths import depth
from kinetograph.worlds.critters.drawing import draw
from kinetograph.worlds.critters.edits import edit, requested
from kinetograph.worlds.critters.glimpses import glimpse, joints_seen, relief, relief_of, shown, whereabouts
from kinetograph.worlds.critters.layers import behind, courses, mattes, reaches, unsaid
from kinetograph.worlds.critters.reading import read
from kinetograph.worlds.critters.scenes import ATTRIBUTES, Scene, attributes, heldout, near_misses, sample
from kinetograph.worlds.critters.skeletons import joints, pose

WIDTH, HEIGHT, FRAMES, FPS = 128, 128, 16, 8

__all__ = [
    "ATTRIBUTES",
    "FPS",
    "FRAMES",
    "HEIGHT",
    "LEFT_OUT",
    "STILL_WORDS",
    "WIDTH",
    "Scene",
    "attributes",
    "behind",
    "caption",
    "courses",
    "depth",
    "draw",
    "edit",
    "glimpse",
    "heldout",
    "joints",
    "joints_seen",
    "mattes",
    "near_misses",
    "paraphrase",
    "parse",
    "pose",
    "reaches",
    "read",
    "relief",
    "relief_of",
    "requested",
    "sample",
    "shown",
    "still_caption",
    "unsaid",
    "whereabouts",
    "words",
]
