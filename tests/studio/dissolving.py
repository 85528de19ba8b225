"""An engine for the tests of the page, brought as a stranger: noise becomes a drawn clip, step by step."""

import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from kinetograph.engine import ChangedClip, EngineInfo, Progress, Sizes
from kinetograph.engine import Options as Base
from kinetograph.engines import render
from kinetograph.media import read_frames
from kinetograph.video import Video


class Options(Base):
    """Something of every kind, for the form."""

    steps: int = Field(24, ge=1, le=1000, description="Steps from noise to the clip.")
    seconds_each: float = Field(0.1, ge=0, le=10, description="How long a step takes.")
    ease: Literal["linear", "smooth"] = Field("smooth", description="How noise fades.")
    negative_prompt: str = Field("", max_length=2000, description="What should not be there.")
    invert: bool = Field(False, description="Turn the colours round.")
    source: ChangedClip = Field("", description="A clip to change: what is drawn takes half its place.")
    source_sha256: str = ""


def info(weights):
    return EngineInfo(
        reference="dissolving",
        summary="noise that becomes a drawn clip, step by step",
        licence="Apache-2.0",
        width=64,
        height=64,
        frames=10,
        fps=Fraction(10),
        sizes=Sizes(minimum=16, maximum=256, multiple=8),
        min_frames=2,
        max_frames=200,
        Options=Options,
        trained=False,
    )


def load(weights, device):
    return Dissolving()


class Dissolving:
    device = "cpu"
    weights_digest = ""
    versions = {}  # noqa: RUF012

    def generate(self, request, on_progress):
        options = Options(**request.options)
        drawn = render.load("", "cpu").generate(replace(request, options={}), lambda progress: None).frames
        noise = np.random.default_rng(request.seed).integers(0, 256, drawn.shape).astype(np.float32)
        clip = 255 - drawn if options.invert else drawn
        clip = clip // 2 + read_frames(Path(options.source)) // 2 if options.source else clip
        for step in range(1, options.steps + 1):
            time.sleep(options.seconds_each)
            part = step / options.steps
            part = part * part * (3 - 2 * part) if options.ease == "smooth" else part
            mixed = (clip * part + noise * (1 - part)).astype(np.uint8)
            on_progress(Progress(step=step, steps=options.steps, preview=mixed[step % len(mixed)]))
        return Video(clip, request.fps)
