"""The engine without a network: a world draws exactly what the prompt says.

The upper bound for every evaluation, and the engine to try an installation with. `render:circle` names the
world. What the world knows beside the picture, its depth or its skeletons, is drawn where `shown` asks for it: such
clips are controls for the zero-shot engine.
"""

from collections.abc import Mapping
from fractions import Fraction
from typing import Literal

import numpy as np
from pydantic import Field

from kinetograph.engine import EngineInfo, OnProgress, Progress, Sizes
from kinetograph.engine import Options as Base
from kinetograph.errors import InvalidRequest
from kinetograph.request import VideoRequest
from kinetograph.shelf import WORLDS
from kinetograph.video import Video

DEFAULT_WORLD = "circle"
MOST_PIXELS = 2**26  # of a clip: it is drawn in one piece, in floats, a gigabyte of them
WAYS = {"picture": "draw", "depth": "depth", "pose": "pose"}  # what may be shown, and a world's function that draws it


class Options(Base):
    """What is drawn of a scene."""

    shown: Literal["picture", "depth", "pose"] = Field(
        "picture", description="The picture, its depth (near is bright) or the skeletons of its animals."
    )


def info(weights: str) -> EngineInfo:
    """What this engine can do with the world that `weights` names. Raises UnknownName."""
    world = WORLDS[weights or DEFAULT_WORLD]
    return EngineInfo(
        reference=f"render:{weights}" if weights else "render",
        summary=f"draws what the prompt says with the world '{weights or DEFAULT_WORLD}'; no neural network",
        licence="Apache-2.0",
        width=world.WIDTH,
        height=world.HEIGHT,
        frames=world.FRAMES,
        fps=Fraction(world.FPS),
        sizes=Sizes(minimum=16, maximum=1024),
        min_frames=2,
        max_frames=1000,
        Options=Options,
        trained=False,
    )


def load(weights: str, device: str) -> "Renderer":
    """An engine that draws with the world that `weights` names, always on the CPU."""
    return Renderer(weights or DEFAULT_WORLD)


class Renderer:
    """Samples a scene that has what the prompt says, and draws it."""

    device = "cpu"
    weights_digest = ""
    versions: Mapping[str, str] = {}

    def __init__(self, world: str) -> None:
        self.world = WORLDS[world]

    def generate(self, request: VideoRequest, on_progress: OnProgress) -> Video:
        """Draw one scene; what the prompt leaves open is drawn from the seed. Raises InvalidRequest for too much, and
        for what the world does not know of its pictures."""
        pixels = request.width * request.height
        if pixels * request.frames > MOST_PIXELS:
            fact = f"{request.frames} frames of {request.width}x{request.height} are more than are drawn at once"
            raise InvalidRequest(fact, field="frames", hint=f"nearest: {MOST_PIXELS // pixels}")
        shown = Options.model_validate(dict(request.options)).shown
        if not hasattr(self.world, WAYS[shown]):
            hint = f"it knows: {', '.join(name for name, way in WAYS.items() if hasattr(self.world, way))}"
            raise InvalidRequest(f"this world does not know the {shown} of its scenes", field="shown", hint=hint)
        scene = self.world.sample(np.random.default_rng(request.seed), self.world.parse(request.prompt))
        frames = getattr(self.world, WAYS[shown])([scene], request.frames, request.height, request.width)[0]
        on_progress(Progress(step=1, steps=1, preview=frames[-1]))
        return Video(frames, request.fps)
