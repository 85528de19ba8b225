"""One row for every family: the smallest clip that it makes, what must be said for it, and what it made first."""

import hashlib
import os
import shutil
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import numpy as np
import tiny

from kinetograph.engine import describe, generate
from kinetograph.errors import Cancelled
from kinetograph.video import Video

SEED = 3


@dataclass(frozen=True)
class Case:
    """`start` is what it begins with: "" nothing, "image" or "video". `quick` ones run always, the others are slow.

    `given` is how many frames the clip has that it begins with, 0 as many as it makes. `alone` are words of the error
    with which it fails at two prompts at once; "" where it makes two clips of them.
    """

    name: str
    side: int = 32
    frames: int = 5
    start: str = ""
    options: dict = field(default_factory=dict)
    quick: bool = False
    steps: int = 2
    alone: str = ""
    given: int = 0


ONE_PICTURE = "index 1 is out of bounds"  # a picture, or a clip, for each prompt would be needed

CASES = (
    Case("modelscope", 16, 4, quick=True),
    Case("animatediff", 16, 4, quick=True),
    Case("animatediff_pag", 16, 4),
    Case("animatediff_sdxl", 16, 4),
    Case("v2v_animatediff", 16, 4, "video", alone=ONE_PICTURE),
    Case("i2v_pia", 16, 4, "image", alone="cannot reshape tensor of 0 elements"),
    Case("i2vgen", 16, 4, "image", alone="must match except in dimension 1"),
    Case("svd", 64, 4, "image", alone="unexpected keyword argument 'prompt'"),
    Case("latte", 32, 4, quick=True),
    Case("allegro", 128, 24, alone="must be greater or equal to the number of dimensions"),
    Case("wan", quick=True),
    Case("i2v_wan", start="image", quick=True),
    Case("v2v_wan", start="video", quick=True),
    Case("wan_vace", alone="a list of prompts is not yet supported"),
    Case("i2v_chronoedit", start="image"),
    Case("v2v_lucy", start="video", alone="does not match expected shape"),
    Case("skyreels", quick=True),
    Case("skyreels_forcing"),
    Case("i2v_skyreels", start="image"),
    Case("i2v_skyreels_forcing", start="image"),
    Case(
        "v2v_skyreels_forcing",
        frames=13,
        start="video",
        given=5,
        options={"overlap_history": 1},
        alone="must match except in dimension 2",
    ),
    Case("anyflow"),
    Case("anyflow_far"),
    Case("helios", frames=33),
    Case("helios_pyramid", 64, 33, options={"pyramid_num_inference_steps_list": [1, 1, 1]}),
    Case("ltx", 64, 9, quick=True),
    Case("i2v_ltx", 64, 9, "image", alone=ONE_PICTURE),
    Case("ltx_condition", 64, 9),
    Case("ltx2", 64, 9),
    Case("i2v_ltx2", 64, 9, "image", alone=ONE_PICTURE),
    Case("ltx2_condition", 64, 9),
    Case("cogvideox", frames=9, quick=True),
    Case("i2v_cogvideox", frames=9, start="image", alone=ONE_PICTURE),
    Case("v2v_cogvideox", frames=9, start="video", alone=ONE_PICTURE),
    Case("hunyuan", quick=True),
    Case("i2v_hunyuan", start="image", alone=ONE_PICTURE),
    Case("i2v_hunyuan_skyreels", start="image", alone=ONE_PICTURE),
    Case("i2v_hunyuan_framepack", frames=37, start="image", alone="must match except in dimension 2"),
    Case("hunyuan15", quick=True, alone="doesn't match the broadcast shape"),
    Case("i2v_hunyuan15", 64, start="image", alone="doesn't match the broadcast shape"),
    Case("mochi", frames=7, quick=True),
    Case("easyanimate", alone="must match except in dimension 0"),
    Case("kandinsky5"),
    Case("i2v_kandinsky5", frames=17, start="image"),
    Case("kandinsky6", options={"sample_audio": False}),
    Case("sana", 64, options={"use_resolution_binning": False}),
    Case("i2v_sana", 64, start="image", options={"use_resolution_binning": False}),
    Case(
        "i2v_sana_wm",
        64,
        9,
        "image",
        options={"action": "w-8", "intrinsics": [64.0, 64.0, 32.0, 32.0]},
        alone="can only concatenate str",
    ),
    Case("motif"),
    Case("i2v_motif", start="image", alone="must match except in dimension 1"),
    Case("cosmos1", frames=9),
    Case("i2v_cosmos1", frames=9, start="image", alone=ONE_PICTURE),
    Case("i2v_cosmos2", start="image", alone=ONE_PICTURE),
    Case("cosmos25"),
    Case("cosmos3", alone="made 1 clip"),
    Case("modular_wan"),
    Case("modular_wan22"),
    Case("i2v_modular_wan", start="image", alone="not same as number of images"),
    Case("i2v_modular_wan22", start="image", alone="not same as number of images"),
    Case("modular_ltx", 64, 9),
    Case("modular_ltx2", 64, 9),
    Case("modular_cosmos3", alone="batched prompts are not supported"),
    Case("modular_echo", 64, 9),
    Case("modular_minimax_h3", 32, 124, steps=3, alone="must be a single string"),
    Case("modular_hunyuan15", alone="doesn't match the broadcast shape"),
    Case("modular_helios", frames=33),
    Case("modular_helios_pyramid", 64, 33, options={"pyramid_num_inference_steps_list": [1, 1, 1]}),
)
BY_NAME = {case.name: case for case in CASES}


def folder(case, home):
    """The family's tiny checkpoint, built when it is first asked for under these versions."""
    made = home / case.name
    if not made.exists():
        part = home / f".{case.name}.{os.getpid()}"
        tiny.save(case.name, part)
        if not made.exists():  # another process may have been faster
            part.rename(made)
        shutil.rmtree(part, ignore_errors=True)
    return made


def key():
    """What the checkpoints depend on."""
    text = Path(tiny.__file__).read_text() + version("diffusers") + version("transformers") + version("torch")
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def asked(case, reference, home, seed=SEED, **more):
    """A request for the smallest clip of a family."""
    tiny.guarded()
    info = describe(reference)
    options = dict(case.options) | more
    if "steps" in info.Options.model_fields:
        options.setdefault("steps", case.steps)
    if case.start:
        options["start"] = str(beginning(case, home))
    size = {"width": case.side, "height": case.side, "frames": case.frames}
    return info.request("a red ball moves left", seed=seed, options=options, **size)


def beginning(case, home):
    """A picture, or a clip of the right length, of noise."""
    frames = (case.given or case.frames) if case.start == "video" else 1
    path = home / f"{case.start}-{case.side}-{frames}.npz"
    if not path.exists():
        noise = np.random.default_rng(0).integers(0, 255, (frames, case.side, case.side, 3), np.uint8)
        Video(noise, Fraction(8)).save(path)
    return path


class Family:
    """A family's tiny checkpoint, and what it made: each thing once, for every test that asks for it."""

    def __init__(self, case, home):
        self.case, self.home = case, home
        self.reference = f"pretrained:{folder(case, home)}"

    def request(self, seed=SEED, **options):
        """The smallest request."""
        return asked(self.case, self.reference, self.home, seed, **options)

    def make(self, on_progress=lambda progress: None, seed=SEED, **options):
        """A clip."""
        return generate(self.reference, self.request(seed, **options), on_progress, device="cpu")

    @cached_property
    def first(self):
        """Its smallest clip, and what it told of it."""
        told = []
        return self.make(told.append), told

    @cached_property
    def given_up(self):
        """What it told, with previews, of a clip that was given up at once."""
        told = []

        def give_up(progress):
            told.append(progress)
            raise Cancelled

        try:
            self.make(give_up, preview=1)
        except Cancelled:
            return told
        raise AssertionError(f"{self.case.name} was not to be stopped")
