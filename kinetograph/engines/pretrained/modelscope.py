"""System A's model, ModelScope's 1.7 B text-to-video diffusion, and ZeroScope, with our own samplers.

Its recipe is the default: 256x256, 16 frames at 8 fps, 25 steps of DPM-Solver++, guidance 9, float16 on a GPU with
only the network that works on it. A clip as `start` is varied; clips of more than 16 frames are made in windows that
overlap.
"""

import warnings
from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from kinetograph import hub
from kinetograph.engine import ChangedClip, EngineInfo, OnProgress, Progress, Sizes, Words
from kinetograph.engines.pretrained import beginning
from kinetograph.engines.pretrained.added import Adding
from kinetograph.errors import InvalidRequest
from kinetograph.request import VideoRequest
from kinetograph.video import Video

if TYPE_CHECKING:
    from torch import Tensor

    from kinetograph.neural import sampling
    from kinetograph.neural.pretrained import modelscope

CLASSES = ("TextToVideoSDPipeline", "VideoToVideoSDPipeline")
NATIVE = {"cerspense/zeroscope_v2_576w": (576, 320, 24), "cerspense/zeroscope_v2_XL": (1024, 576, 24)}


class Options(Adding):
    """How to sample, and what to begin with."""

    steps: int = Field(25, ge=1, le=1000, description="Steps from noise to the clip.")
    guidance: float = Field(9.0, ge=0, le=50, description="How strongly the sentence guides; 1 is not at all.")
    negative_prompt: str = Field("", max_length=2000, description="What guidance leads away from.")
    sampler: Literal["ddpm", "ddim", "euler", "heun", "heun-edm", "dpmpp-2m", "unipc"] = Field(
        "dpmpp-2m", description="The way down."
    )
    placement: Literal["auto", "leading", "trailing", "linspace", "karras"] = Field(
        "auto", description="Where the steps lie; auto is what the checkpoint's own schedule says."
    )
    eta: float = Field(0.0, ge=0, le=1, description="Share of fresh noise, for the sampler ddim.")
    clip_skip: int = Field(0, ge=0, le=30, description="Read the sentence so many layers before the last.")
    start: ChangedClip = Field("", description="A clip to vary, of as many frames as are asked for, or a picture.")
    start_sha256: str = Field("", description="Fingerprint of the frames of `start`; refused where they differ.")
    strength: float = Field(0.6, gt=0, le=1, description="How much of the way a clip is taken back into noise.")
    window: int = Field(16, ge=2, le=128, description="How many frames are denoised together.")
    overlap: int = Field(8, ge=0, le=127, description="How many frames two windows share.")
    chunk: int = Field(4, ge=1, le=64, description="How many frames are decoded at once.")
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        "auto", description="Numbers: float32 on a CPU, float16 on a GPU."
    )
    offload: Literal["auto", "none", "model"] = Field(
        "auto", description="Keep only the network that works on the GPU; auto does where there is one."
    )
    memory_budget: Words = Field("", max_length=20, description="8GB for example: dtype and offload are chosen to fit.")
    preview: int = Field(0, ge=0, description="Show a frame every so many steps, decoded for it; 0 never.")


def info(reference: str, model: hub.Model, width: int, height: int) -> EngineInfo:
    """What such a checkpoint can make."""
    width, height, frames = NATIVE.get(model.reference, (width, height, 16))
    return EngineInfo(
        reference=reference,
        summary="ModelScope's text-to-video diffusion, pretrained" + (f"; {model.notice}" if model.notice else ""),
        licence=model.licence or "not said by its card",
        width=width,
        height=height,
        frames=frames,
        fps=Fraction(8),
        sizes=Sizes(minimum=16, maximum=2048, multiple=8),
        min_frames=1,
        max_frames=512,
        Options=Options,
        weights=hub.digest(model.path),
    )


class ModelScope:
    """A checkpoint, loaded when it is first asked for something, and again when asked for it another way."""

    def __init__(self, model: hub.Model, device: str, libraries: dict[str, str]) -> None:
        from kinetograph.neural import device as devices

        self._model = model
        self._how: tuple[Any, ...] = ()
        self._networks: modelscope.Networks | None = None
        self.device, self.weights_digest = device, hub.digest(model.path)
        self.versions: Mapping[str, str] = devices.versions(devices.choose(device)) | libraries

    def generate(self, request: VideoRequest, on_progress: OnProgress) -> Video:
        """One clip. Warns of a licence that binds. Raises InvalidRequest for a start that does not fit."""
        if self._model.notice:
            warnings.warn(self._model.notice, stacklevel=2)
        options = Options.model_validate(dict(request.options))
        if options.overlap >= options.window:
            hint = f"nearest: {options.window - 1}"
            raise InvalidRequest("windows cannot share more frames than they have", field="overlap", hint=hint)
        clip = self._clip(request, options)
        networks = self._ready(options)
        from kinetograph.neural import pixels
        from kinetograph.neural.pretrained import modelscope

        names = modelscope.Settings.__dataclass_fields__
        made = modelscope.sample(
            networks,
            request.prompt,
            options.negative_prompt,
            modelscope.Settings(**options.model_dump(include=set(names))),
            modelscope.noise_of(request.seed),
            (request.frames, request.height, request.width),
            clip=clip,
            on_step=_teller(networks, on_progress, options.preview),
        )
        return Video(pixels.to_frames(made)[0], request.fps)

    def _ready(self, options: Options) -> "modelscope.Networks":
        from kinetograph.neural import device as devices
        from kinetograph.neural.pretrained import adapters, modelscope

        dtype, offload = self._setup(options)
        how = (dtype, offload, options.lora, options.lora_scale, options.lora_sha256)
        if self._networks is None or self._how != how:
            self._networks = None  # the old ones go first
            where = devices.choose(self.device)
            networks = modelscope.Networks(self._model.path, dtype, self._model.variant, where, offload)
            named = {"unet": networks.unet, "text_encoder": networks.encoder}
            adapters.merge(named, options.lora, options.lora_scale)
            self._networks, self._how = networks, how
        return self._networks

    def _setup(self, options: Options) -> tuple[str, bool]:
        """The numbers, and whether only the network that works lies on the GPU; a budget chooses, and says what."""
        from kinetograph.neural.pretrained import memory

        gpu = self.device != "cpu"
        if not options.memory_budget:
            dtype = options.dtype if options.dtype != "auto" else "float16" if gpu else "float32"
            return dtype, gpu and options.offload != "none"
        sizes = memory.numbers(self._model.path)
        setup = memory.choose(sizes, memory.parse_budget(options.memory_budget), self.device, "float16", plainly=True)
        warnings.warn(f"for {options.memory_budget}: {setup.said()}", stacklevel=3)
        return setup.dtype, setup.offload == "model"

    def _clip(self, request: VideoRequest, options: Options) -> "Tensor | None":
        if not options.start:
            return None
        import torch

        from kinetograph.neural import pixels

        frames = beginning.read(options.start, request, options.start_sha256)
        if len(frames) == 1:
            frames = np.repeat(frames, request.frames, axis=0)
        if len(frames) != request.frames:
            raise InvalidRequest(
                f"{options.start} has {len(frames)} frames, the clip is to have {request.frames}",
                field="frames",
                hint=f"nearest: {len(frames)}",
            )
        return pixels.to_model(torch.tensor(frames[None]))


def _teller(networks: "modelscope.Networks", on_progress: OnProgress, every: int) -> "sampling.OnStep":
    from kinetograph.neural import pixels
    from kinetograph.neural.pretrained import modelscope

    def tell(index: int, count: int, x: "Tensor", clean: "Tensor") -> None:
        shown: Any = None
        if every and (index + 1) % every == 0:
            shown = pixels.to_frames(modelscope.glance(networks, clean))[0, 0]
        on_progress(Progress(step=index + 1, steps=count, preview=shown))

    return tell
