"""The pretrained engine: any text-to-video pipeline of diffusers, behind the same request.

References: `pretrained:FOLDER`, `pretrained:OWNER/NAME[@REVISION]` or a short name, `pretrained:modelscope`. Nothing is
fetched here (`kinetograph fetch` does that), and nothing of a model folder is run.
"""

import re
import time
import warnings
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from kinetograph import gate, hub
from kinetograph.engine import (
    ChangedClip,
    Engine,
    EngineInfo,
    FirstFrames,
    FirstPicture,
    OnProgress,
    Progress,
    Sizes,
    Words,
)
from kinetograph.engines.pretrained import beginning, blending, families, knobs, modelscope
from kinetograph.engines.pretrained.added import Adding
from kinetograph.engines.pretrained.families import Family
from kinetograph.engines.pretrained.knobs import Call
from kinetograph.errors import InvalidRequest, WeightsError
from kinetograph.media import Frames
from kinetograph.request import VideoRequest
from kinetograph.video import Video

if TYPE_CHECKING:
    from kinetograph.neural.pretrained import memory, upscaling
    from kinetograph.neural.pretrained.interpolation import Interpolator
    from kinetograph.neural.pretrained.stepping import Moment, OnStep

LARGEST_SIDE = 2048


class Own(Adding):
    """What can be said to every pretrained model, beside its own knobs."""

    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        "auto", description="Numbers: float32 on a CPU, the family's short ones on a GPU."
    )
    scheduler: Words = Field(
        "", max_length=80, description="Another scheduler of diffusers, by its class; '' is its own."
    )
    memory_budget: Words = Field(
        "", max_length=20, description="8GB for example: the settings of memory are chosen to fit."
    )
    offload: Literal["none", "model", "group", "sequential"] = Field(
        "none", description="What lies on a GPU: everything, the part that works, the layers that work, one at a time."
    )
    layerwise: bool = Field(False, description="Keep the denoiser's weights in eight bits.")
    quantize: Literal["", "int8", "nf4", "quanto-int8", "torchao-int8"] = Field(
        "", description="Quantise the denoiser while loading."
    )
    context_parallel: int = Field(1, ge=1, le=64, description="Split the denoiser's tokens over processes of torchrun.")
    vae_tiling: bool = Field(False, description="Decode in tiles: less memory.")
    vae_slicing: bool = Field(False, description="Decode clip by clip: less memory.")
    attention: Words = Field("", max_length=40, description="Who computes attention: native, flash, sage ...")
    compile: bool = Field(False, description="Compile the denoiser: slow to begin, faster then.")
    cache: Literal["none", "first-block", "pab", "taylorseer", "faster", "mag", "sea"] = Field(
        "none", description="Skip work between steps; what was skipped is counted and said."
    )
    mag_ratios: tuple[float, ...] = Field(
        (), max_length=1000, description="What the cache mag measured of this model in a run without them."
    )
    cache_check: bool = Field(
        False, description="Make the exact clip as well, and say how far the cached one is from it."
    )
    checkpoint: str = Field(
        "", max_length=500, description="A file (safetensors or GGUF) in place of the denoiser's weights."
    )
    checkpoint_sha256: str = Field("", description="Fingerprint of the file `checkpoint`; refused where it differs.")
    blend: int = Field(1, ge=1, le=8, description="Make every n-th frame and blend those between; 1 makes all.")
    rife: str = Field(
        "", max_length=500, description="Weights of RIFE 4.2 to 4.6 (safetensors): it makes those between, by motion."
    )
    rife_sha256: str = Field("", description="Fingerprint of the file `rife`; refused where it differs.")
    upscale: str = Field(
        "", max_length=500, description="Weights of Real-ESRGAN (safetensors): frames are made smaller, then enlarged."
    )
    upscale_sha256: str = Field("", description="Fingerprint of the file `upscale`; refused where it differs.")
    preview: int = Field(0, ge=0, description="Show a frame every so many steps, decoded for it; 0 never.")


class Moving(Own):
    """The same, for pipelines that take a picture."""

    start: FirstPicture = Field("", description="A picture to set in motion.")
    start_sha256: str = Field("", description="Fingerprint of the picture in `start`; refused where it differs.")


class Changing(Own):
    """The same, for pipelines that make a clip out of a clip."""

    start: ChangedClip = Field("", description="A clip to change.")
    start_sha256: str = Field("", description="Fingerprint of the frames of `start`; refused where they differ.")


class GoingOn(Own):
    """The same, for pipelines that go on from what they are given."""

    start: FirstFrames = Field("", description="A picture or a clip to go on from.")
    start_sha256: str = Field("", description="Fingerprint of the frames of `start`; refused where they differ.")


def _own(call: Call, family: Family) -> type[Own]:
    """What can be said to a pipeline of the file that it begins with, if of any."""
    if "video" in call:
        changes = call.needs == "video" or re.search("Inpaint|VACE|Upsample", call.pipeline)
        return Changing if changes and not family.goes_on else GoingOn
    return Moving if "image" in call else Own


def references() -> list[str]:
    """References of the models that are in the hub's cache."""
    return [f"pretrained:{name}" for name in hub.installed()]


def info(weights: str) -> EngineInfo:
    """What a pretrained model can make, read from its folder and from the text of diffusers.

    Raises ModelMissing, UnsafeModel, UnknownName, or WeightsError for what makes no videos.
    """
    model = _located(weights)
    call, family = _understood(model)
    width, height, frames = _native(model, call, family)
    if model.pipeline in modelscope.CLASSES:
        return modelscope.info(f"pretrained:{weights}", model, width, height)
    return EngineInfo(
        reference=f"pretrained:{weights}",
        summary=f"{call.pipeline} of the family {family.name}, pretrained"
        + (f"; {model.notice}" if model.notice else ""),
        licence=model.licence or "not said by its card",
        width=width,
        height=height,
        frames=frames,
        fps=Fraction(call.default(call.first(knobs.RATE)) or family.fps),
        sizes=Sizes(minimum=family.multiple, maximum=LARGEST_SIDE, multiple=family.multiple),
        min_frames=family.first,
        max_frames=family.first + (family.most - family.first) // family.step * family.step,
        frame_step=family.step,
        Options=knobs.options(call, _own(call, family)),
        weights=hub.digest(model.path),
    )


def load(weights: str, device: str) -> Engine:
    """An engine for the model that `weights` names; the weights are read when the first request says how."""
    from kinetograph.neural import device as devices

    model = _located(weights)
    if model.pipeline in modelscope.CLASSES:
        return modelscope.ModelScope(model, str(devices.choose(device)), versions(model))
    return Pretrained(model, *_understood(model), device=str(devices.choose(device)))


def _located(weights: str) -> hub.Model:
    if not weights:
        here = ", ".join(references()) or "none is on this machine"
        raise WeightsError(
            "no pretrained model is named", hint=f"write pretrained:modelscope, or pretrained:FOLDER; here: {here}"
        )
    return hub.locate(weights)


def _understood(model: hub.Model) -> tuple[Call, Family]:
    """What its pipeline takes, and its family. Raises WeightsError where diffusers has no such thing, or it makes no
    videos."""
    if not model.pipeline:
        raise WeightsError(f"{model.reference} is no pipeline", hint=f"it has no {hub.INDEX} that names a class")
    family = families.of(model.pipeline)
    call = knobs.read_blocks(model.pipeline) if model.modular and family else knobs.read(model.pipeline)
    if call is None:
        raise WeightsError(
            f"{model.reference} is a {model.pipeline}, which the installed diffusers does not have",
            hint="another version of diffusers may have it",
        )
    if family is None:
        raise WeightsError(
            f"{model.reference} is a {model.pipeline}, which makes no videos",
            hint="a model that makes pictures makes videos with the engine zero",
        )
    if _settings(model, "transformer").get("image_condition_type") == "latent_concat":
        family = replace(family, dropped=4)  # HunyuanVideo from a picture: the first latent is the picture's own
    return call, family


def _native(model: hub.Model, call: Call, family: Family) -> tuple[int, int, int]:
    """Width, height and number of frames unless told otherwise: what the call says, or the network's settings."""
    network = _settings(model, "transformer") or _settings(model, "unet")
    scale = 2 ** (len(_settings(model, "vae").get("block_out_channels") or [0] * 4) - 1)
    side = network.get("sample_size")
    sides = side if isinstance(side, list) else [side or 0] * 2
    height = call.default("height") or (network.get("sample_height") or sides[0] or 0) * scale or family.height
    width = call.default("width") or (network.get("sample_width") or sides[-1] or 0) * scale or family.width
    frames = call.default(call.first(knobs.LENGTH)) or network.get("video_length") or family.frames
    legal = Sizes(minimum=family.multiple, maximum=LARGEST_SIDE, multiple=family.multiple).nearest(width, height)
    return *legal, max(family.first, frames - (frames - family.first) % family.step)


def _settings(model: hub.Model, part: str) -> dict[str, Any]:
    path = model.path / part / "config.json"
    found = gate.settings(path) if path.is_file() else {}
    return found if isinstance(found, dict) else {}


class Pretrained:
    """A pretrained model, loaded when it is first asked for something, and again when asked for it another way."""

    def __init__(self, model: hub.Model, call: Call, family: Family, *, device: str) -> None:
        from kinetograph.neural import device as devices

        self._model, self._call, self._family = model, call, family
        self._pipeline: Any = None
        self._how: tuple[Any, ...] = ()
        self.device, self.weights_digest = device, hub.digest(model.path)
        self.versions: Mapping[str, str] = devices.versions(devices.choose(device)) | versions(model)

    def generate(self, request: VideoRequest, on_progress: OnProgress) -> Video:
        """One clip. Warns of a licence that binds."""
        if self._model.notice:
            warnings.warn(self._model.notice, stacklevel=2)
        options = dict(request.options)
        if options["context_parallel"] > 1:
            self._join(request, options["context_parallel"])
        enlarge, between = self._finishers(options)
        smaller = self._smaller(request, enlarge.scale if enlarge else 1)
        start = self._start(smaller, options)
        times = options["blend"]
        made = (
            blending.fewer(request.frames, times, self._family.first, self._family.step)
            if times > 1
            else request.frames
        )
        fewer = replace(smaller, frames=made, fps=request.fps / times)
        clip = self._clip(fewer, options, start, on_progress)
        clip = clip[:made] if self._family.goes_on else clip
        clip = between(clip, times) if between else blending.blended(clip, times)
        return Video(enlarge(clip) if enlarge else clip, request.fps)

    def _join(self, request: VideoRequest, count: int) -> None:
        from kinetograph.neural.pretrained import parallel

        parallel.join(count, self.device, f"{self.weights_digest} {sorted(request.to_dict().items())}")

    def _finishers(self, options: Mapping[str, Any]) -> "tuple[upscaling.Upscaler | None, Interpolator | None]":
        """The networks for the finished clip, read before anything is made."""
        from kinetograph.neural.pretrained import interpolation, upscaling

        if options["rife"] and options["blend"] == 1:
            raise InvalidRequest("rife is to make no frames", field="rife", hint="say how many: --set blend=2")
        if options["upscale"] and options.get("start"):
            raise InvalidRequest(
                "a clip that is enlarged cannot begin with a picture", field="upscale", hint="leave one of them out"
            )
        enlarge = upscaling.Upscaler(options["upscale"], self.device) if options["upscale"] else None
        return enlarge, interpolation.Interpolator(options["rife"], self.device) if options["rife"] else None

    def _smaller(self, request: VideoRequest, scale: int) -> VideoRequest:
        """The request for frames that are to be enlarged."""
        side = self._family.multiple * scale
        if request.width % side or request.height % side:
            near = [max(side, round(length / side) * side) for length in (request.width, request.height)]
            raise InvalidRequest(
                f"frames enlarged {scale} times cannot be {request.width}x{request.height}",
                field="width",
                hint=f"nearest: {near[0]}x{near[1]}",
            )
        return replace(request, width=request.width // scale, height=request.height // scale)

    def _clip(
        self, request: VideoRequest, options: Mapping[str, Any], start: Frames, on_progress: OnProgress
    ) -> Frames:
        """The frames, with a cache if one is asked for; what it was worth is said as a warning."""
        from kinetograph.neural.pretrained import caches, pipelines

        pipeline = self._ready(options)
        arguments, preset = self._arguments(request, options, start), options["cache"]
        tell = _teller(pipeline, on_progress, options["preview"])
        if preset == "none":
            return pipelines.run(pipeline, arguments, request.seed, tell)[0]
        begin = time.perf_counter()
        guided, ratios = float(options.get("guidance") or 0) > 1, options["mag_ratios"]
        with caches.caching(pipeline, preset, int(options.get("steps", 50)), guided=guided, ratios=ratios) as count:
            clip = pipelines.run(pipeline, arguments, request.seed, tell)[0]
        seconds = time.perf_counter() - begin
        said = count.said(preset)
        if options["cache_check"]:
            begin = time.perf_counter()
            exact = pipelines.run(pipeline, arguments, request.seed, tell)[0]
            apart = np.abs(clip.astype(np.int16) - exact).mean()
            instead = time.perf_counter() - begin
            said += f"; {seconds:.2f} s instead of {instead:.2f} s, {apart:.2g} of 255 from the exact clip"
        warnings.warn(said, stacklevel=2)
        return clip

    def _ready(self, options: Mapping[str, Any]) -> Any:
        """The pipeline, loaded as the options say, and anew where they say otherwise than last time."""
        from kinetograph.neural.pretrained import adapters, blocks, memory, parallel

        self._check_means(options)
        setup = self._setup(options)
        how = (
            setup,
            *(tuple(options[name]) for name in ("lora", "lora_scale", "lora_sha256")),
            *(options[name] for name in ("checkpoint", "checkpoint_sha256")),
            options["scheduler"],
            options["context_parallel"],
        )
        if self._pipeline is None or self._how != how:
            self._pipeline = None  # the old one goes first
            if self._model.modular:
                loaded = blocks.load(self._model, setup.dtype, self._model.variant)
            else:
                loaded = self._classic(setup, options["checkpoint"])
            adapters.schedule(loaded, options["scheduler"])
            adapters.load(loaded, options["lora"], options["lora_scale"])
            memory.place(loaded, setup, self.device)
            if options["context_parallel"] > 1:
                parallel.split(loaded, options["context_parallel"], self.device)
            self._pipeline, self._how = loaded, how
        if self._model.modular:
            blocks.guide(self._pipeline, options.get("guidance"))
        return self._pipeline

    def _check_means(self, options: Mapping[str, Any]) -> None:
        """Raises InvalidRequest for what could do nothing here."""
        kind, parts = self._model.pipeline, hub.parts(self._model.index)
        for name in ("checkpoint", "quantize"):
            if options[name] and self._model.modular:
                raise InvalidRequest(
                    f"{kind} is made of blocks, whose parts are loaded as they lie", field=name, hint="leave it out"
                )
        if options["quantize"] and "transformer" not in parts:
            raise InvalidRequest(
                f"{kind} has no transformer, and nothing else is quantised", field="quantize", hint="leave it out"
            )

    def _classic(self, setup: "memory.Setup", checkpoint: str) -> Any:
        from kinetograph.neural.pretrained import adapters, memory, pipelines

        parts = adapters.single_file(self._model, checkpoint, setup.dtype) | memory.quantization(setup.quantize)
        return pipelines.load(self._model.path, self._call.pipeline, setup.dtype, self._model.variant, **parts)

    def _setup(self, options: Mapping[str, Any]) -> "memory.Setup":
        """Where everything lies; a budget chooses, and what it chose is said as a warning."""
        from kinetograph.neural.pretrained import memory

        half, dtype = self._family.half, options["dtype"]
        if options["memory_budget"]:
            budget = memory.parse_budget(options["memory_budget"])
            setup = memory.choose(memory.numbers(self._model.path), budget, self.device, half)
            warnings.warn(f"for {options['memory_budget']}: {setup.said()}", stacklevel=2)
            return replace(setup, attention=options["attention"], compile=options["compile"])
        dtype = ("float32" if self.device == "cpu" else half) if dtype == "auto" else dtype
        names = ("offload", "layerwise", "quantize", "vae_tiling", "vae_slicing", "attention", "compile")
        return memory.Setup(dtype=dtype, **{name: options[name] for name in names})

    def _arguments(self, request: VideoRequest, options: Mapping[str, Any], start: Frames) -> dict[str, Any]:
        """The request in the pipeline's own words."""
        call = self._call
        said: dict[str, Any] = {"prompt": request.prompt, "width": request.width, "height": request.height}
        said |= {
            call.first(knobs.LENGTH): self._family.asked(request.frames, len(start)),
            call.first(knobs.RATE): _rate(request.fps),
        }
        said["output_type"] = "np"
        if self._model.modular:
            said["output"] = "videos"
        for knob in call.knobs:
            value = options.get(knob.said)
            nothing = (
                knob.kind is str and value == "" and not (self._family.says_nothing and knob.name == "negative_prompt")
            )
            guided = self._model.modular and knob.name == "guidance_scale"  # which its guider is told
            if value is not None and not nothing and not guided:
                said[knob.name] = list(value) if isinstance(value, tuple) else value
        said |= self._pictures(start)
        return {name: value for name, value in said.items() if name in call or name == "output"}

    def _pictures(self, start: Frames) -> dict[str, Any]:
        from kinetograph.neural.pretrained import pipelines

        if not len(start):
            return {}
        pictures = [pipelines.picture(frame) for frame in start]
        takes_clip = "video" in self._call and (len(start) > 1 or "image" not in self._call)
        return {"video": pictures} if takes_clip else {"image": pictures[0]}

    def _start(self, request: VideoRequest, options: Mapping[str, Any]) -> Frames:
        """The picture or clip to begin with. Raises InvalidRequest where it is missing or does not fit."""
        path, needs = options.get("start", ""), self._call.needs
        if not path:
            if needs:
                what = "a picture" if needs == "image" else "a clip"
                raise InvalidRequest(
                    f"{self._call.pipeline} needs {what} to begin with",
                    field="start",
                    hint="give one: --from-image FILE",
                )
            return np.empty((0, request.height, request.width, 3), np.uint8)
        frames = beginning.read(path, request, str(options.get("start_sha256", "")))
        if len(frames) > 1 and "video" not in self._call:
            raise InvalidRequest(f"{self._call.pipeline} takes a picture, not a clip", field="start", hint="one frame")
        if not self._call.first(knobs.LENGTH) and "video" in self._call and len(frames) != request.frames:
            raise InvalidRequest(
                f"{path} has {len(frames)} frames, and {self._call.pipeline} makes as many as it is given",
                field="frames",
                hint=f"nearest: {len(frames)}",
            )
        return frames


def _rate(fps: Fraction) -> int | float:
    return int(fps) if fps.denominator == 1 else float(fps)


def _teller(pipeline: Any, on_progress: OnProgress, every: int) -> "OnStep":
    from kinetograph.neural.pretrained import pipelines

    def tell(step: int, steps: int, moment: "Moment | None") -> None:
        shown = pipelines.preview(pipeline, moment) if every and moment is not None and step % every == 0 else None
        on_progress(Progress(step=step, steps=steps, preview=shown))

    return tell


def versions(model: hub.Model) -> dict[str, str]:
    """What the frames of a pretrained model depend on: the libraries, and the commit of the hub."""
    from importlib.metadata import version

    found = {name: version(name) for name in ("diffusers", "transformers")}
    return found | ({"revision": model.revision} if model.revision else {})
