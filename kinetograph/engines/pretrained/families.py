"""Families of pretrained pipelines: what their checkpoints do not say of sizes, frame counts and rates.

One row each. Everything else, which knobs there are and what they are by default, is read from diffusers itself.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Family:
    """Pipelines whose class matches `classes`: sides are multiples of `multiple`, frames number `first` + k * `step`.

    `width`, `height` and `frames` are what is made where the pipeline itself names no default; `half` is the short
    number format that its authors use; `window` the frames to ask for each `step` of a pipeline that counts in windows;
    `says_nothing` whether it must be told that there is no negative prompt; `goes_on` whether it gives back the clip
    that it was given and as many frames after it as it was asked for; `dropped` how many frames of those it was asked
    for it throws away.
    """

    name: str
    classes: str
    fps: int
    multiple: int = 16
    first: int = 1
    step: int = 4
    width: int = 832
    height: int = 480
    frames: int = 81
    most: int = 1000
    half: str = "bfloat16"
    window: int = 0
    says_nothing: bool = False
    goes_on: bool = False
    dropped: int = 0

    def asked(self, frames: int, given: int = 0) -> int:
        """What to ask the pipeline for, to get so many frames or a few more, where it was given some."""
        if self.goes_on:
            return self.first - (self.first - max(frames - given, self.first)) // self.step * self.step
        return self.window * ((frames - self.first) // self.step + 1) if self.window else frames + self.dropped


FAMILIES = (
    Family(
        name="ModelScope", classes="(TextToVideo|VideoToVideo)SD", fps=8, multiple=8, step=1, width=256, height=256,
        frames=16, half="float16",
    ),
    Family(
        name="AnimateDiff", classes="AnimateDiff(?!SDXL)|PIA", fps=8, multiple=8, step=1, width=512, height=512,
        frames=16, most=32, half="float16",
    ),
    Family(
        name="AnimateDiff SDXL", classes="AnimateDiffSDXL", fps=8, multiple=8, step=1, width=1024,
        height=1024, frames=16, most=32, half="float16",
    ),
    Family(
        name="I2VGen-XL", classes="I2VGenXL", fps=16, multiple=8, step=1, width=1280, height=704, frames=16,
        half="float16",
    ),
    Family(
        name="Stable Video Diffusion", classes="StableVideoDiffusion", fps=7, multiple=64, step=1, width=1024,
        height=576, frames=14, half="float16",
    ),
    Family(name="Allegro", classes="Allegro", fps=15, first=4, width=1280, height=720, frames=88),
    Family(name="AnyFlow", classes="AnyFlow", fps=16),
    Family(name="ChronoEdit", classes="ChronoEdit", fps=16),
    Family(name="CogVideoX", classes="CogVideoX|ConsisID", fps=8, step=8, width=720, height=480, frames=49),
    Family(name="Cosmos 1", classes="Cosmos(Text|Video)ToWorld", fps=30, step=8, width=1280, height=704, frames=121),
    Family(name="Cosmos 2", classes="Cosmos2", fps=16, width=1280, height=704, frames=93),
    Family(name="Cosmos 3", classes="Cosmos3", fps=24, width=1280, height=720, frames=189),
    Family(name="EasyAnimate", classes="EasyAnimate", fps=8, says_nothing=True, width=512, height=512, frames=49),
    Family(name="Helios", classes="Helios", fps=24, first=33, step=32, window=33, width=640, height=384, frames=129),
    Family(
        name="FramePack", classes="HunyuanVideoFramepack", fps=30, first=37, step=36, window=33, width=1280, height=720,
        frames=109,
    ),
    Family(name="HunyuanVideo 1.5", classes="HunyuanVideo15", fps=24, width=832, height=480, frames=121),
    Family(name="HunyuanVideo", classes="Hunyuan(Video|Skyreels)", fps=24, width=1280, height=720, frames=129),
    Family(
        name="Kandinsky 5 from pictures", classes="Kandinsky5I2V", fps=24, first=17, width=768, height=512, frames=121,
    ),
    Family(name="Kandinsky 5", classes="Kandinsky5", fps=24, width=768, height=512, frames=121),
    Family(name="Kandinsky 6", classes="Kandinsky6", fps=24, width=768, height=512, frames=121),
    Family(name="Latte", classes="Latte", fps=8, step=1, width=512, height=512, frames=16, half="float16"),
    Family(name="LTX-2", classes="LTX2", fps=24, multiple=32, step=8, width=768, height=512, frames=121),
    Family(name="Echo", classes="Echo", fps=25, multiple=32, step=8, width=704, height=512, frames=241),
    Family(name="LTX", classes="LTX", fps=25, multiple=32, step=8, width=704, height=512, frames=161),
    Family(name="Lucy Edit", classes="LucyEdit", fps=24),
    Family(
        name="MiniMax-H3", classes="MiniMaxH3", fps=24, multiple=32, first=124, step=17, width=1344, height=768,
        frames=124, most=345,
    ),
    Family(name="Mochi", classes="Mochi", fps=30, step=6, width=848, height=480, frames=19),
    Family(name="Motif-Video", classes="MotifVideo", fps=24, width=1280, height=736, frames=121),
    Family(name="SANA-Video", classes="Sana(Video|ImageToVideo)", fps=16, multiple=32),
    Family(name="SANA-WM", classes="SanaWM", fps=16, multiple=32, step=8, width=1280, height=704, frames=161),
    Family(
        name="SkyReels V2 clip to clip", classes="SkyReelsV2DiffusionForcingVideoToVideo", fps=24, width=960,
        height=544, frames=97, goes_on=True,
    ),
    Family(name="SkyReels V2", classes="SkyReelsV2", fps=24, width=960, height=544, frames=97),
    Family(name="Wan", classes="Wan", fps=16),
)  # fmt: skip


def of(pipeline: str) -> Family | None:
    """The family of a pipeline's class, None for one that makes no videos or is not known."""
    return next((family for family in FAMILIES if re.match(family.classes, pipeline)), None)
