"""An engine that only sleeps: what is measured is everything around it. `served.stranger` puts it on the shelf."""

import time
from fractions import Fraction

import numpy as np
from pydantic import Field

from kinetograph.engine import EngineInfo, Progress, Sizes
from kinetograph.engine import Options as Base
from kinetograph.video import Video

STEP = 0.1  # seconds


class Options(Base):
    """For how many seconds it sleeps."""

    sleep: float = Field(0.5, ge=0, le=600)


def info(weights):
    """A small video, of which nothing is to be seen."""
    return EngineInfo(
        reference="sleeping",
        summary="sleeps",
        licence="none",
        trained=False,
        width=16,
        height=16,
        frames=2,
        fps=Fraction(8),
        sizes=Sizes(minimum=16, maximum=64),
        min_frames=1,
        max_frames=100,
        Options=Options,
    )


def load(weights, device):
    """It is there at once."""
    return Sleeping()


class Sleeping:
    """The engine."""

    device, weights_digest, versions = "cpu", "", {}

    def generate(self, request, on_progress):
        """Sleep, step by step."""
        steps = max(1, round(request.options["sleep"] / STEP))
        for step in range(1, steps + 1):
            time.sleep(request.options["sleep"] / steps)
            on_progress(Progress(step=step, steps=steps))
        frames = np.full((request.frames, request.height, request.width, 3), request.seed % 256, np.uint8)
        return Video(frames, request.fps)
