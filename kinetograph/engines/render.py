"""The engine without a network: a world draws exactly what the prompt says.

The upper bound for every evaluation, and the engine to try an installation with. `render:circle` names the
world.
"""

from collections.abc import Mapping
from fractions import Fraction

import numpy as np

from kinetograph.engine import EngineInfo, OnProgress, Options, Progress, Sizes
from kinetograph.errors import InvalidRequest
from kinetograph.request import VideoRequest
from kinetograph.shelf import WORLDS
from kinetograph.video import Video

DEFAULT_WORLD = "circle"
MOST_PIXELS = 2**26  # of a clip: it is drawn in one piece, in floats, a gigabyte of them


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
        """Draw one scene; what the prompt leaves open is drawn from the seed. Raises InvalidRequest for too much."""
        pixels = request.width * request.height
        if pixels * request.frames > MOST_PIXELS:
            fact = f"{request.frames} frames of {request.width}x{request.height} are more than are drawn at once"
            raise InvalidRequest(fact, field="frames", hint=f"nearest: {MOST_PIXELS // pixels}")
        wanted = self.world.parse(request.prompt)
        scene = self.world.sample(np.random.default_rng(request.seed), wanted)
        frames = self.world.draw([scene], request.frames, request.height, request.width)[0]
        on_progress(Progress(step=1, steps=1, preview=frames[-1]))
        return Video(frames, request.fps)
