"""The clips of a plan, described and drawn."""

from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any, NamedTuple

from kinetograph.dataset import stamping
from kinetograph.dataset.chance import sources
from kinetograph.dataset.plan import Plan
from kinetograph.media import Frames


class Described(NamedTuple):
    """A clip before it is drawn: its number, its scene, and what is said of it."""

    place: int
    scene: Any
    caption: str
    split: str


def describe(world: ModuleType, plan: Plan, places: range) -> list[Described]:
    """What the clips of these numbers show, and the sentences that say so."""
    clips = []
    for place, rng in zip(places, sources(plan.seed, places), strict=True):
        scene = world.sample(rng, split=plan.split)
        split = "heldout" if world.heldout(scene) else "train"
        clips.append(Described(place, scene, world.caption(scene, rng), split))
    return clips


def draw(world: ModuleType, plan: Plan, clips: Sequence[Described]) -> Iterator[Frames]:
    """The frames (t, h, w, 3) of each clip."""
    scenes, size = [clip.scene for clip in clips], (plan.frames, plan.height, plan.width)
    if not hasattr(world, "stamps"):
        return iter(world.draw(scenes, *size))
    planes = stamping.index([*world.stamps(scenes, *size)], len(clips), *size)
    return (world.shades(scene)[plane] for scene, plane in zip(scenes, planes, strict=True))


def said(world: ModuleType, plan: Plan, clip: Described) -> dict[str, Any]:
    """Everything that the json beside a clip says of it."""
    attributes = world.attributes(clip.scene)
    unsaid = {name: value for name, value in vars(clip.scene).items() if name not in attributes}
    return {
        "caption": clip.caption,
        "attributes": attributes,
        "split": clip.split,
        "world": plan.world,
        "seed": [plan.seed, clip.place],
        "fps": plan.fps,
        "frames": plan.frames,
        "size": [plan.width, plan.height],
        "scene": {name: getattr(value, "__dict__", value) for name, value in unsaid.items()},
    }
