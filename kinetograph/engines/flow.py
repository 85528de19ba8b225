"""The flow engine: video diffusion trained from scratch, a clip in a few dozen steps on a CPU.

References: `flow` is the model that comes with the package; `flow:FOLDER` is one trained by `kinetograph train
layered`, which draws layers and tells where they go, or by `kinetograph train flow`, which sees pixels and makes all
frames at once. A file given as the option `start` comes first, a picture or a clip, and the model goes on from it;
requests that are longer than one look of the model are made window by window.
"""

import warnings
from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from kinetograph import media
from kinetograph import weights as checkpoints
from kinetograph.engine import EngineInfo, FirstFrames, OnProgress, Progress, Sizes
from kinetograph.engine import Options as Base
from kinetograph.errors import InvalidRequest, WeightsError
from kinetograph.media import Frames
from kinetograph.request import VideoRequest
from kinetograph.shelf import WORLDS
from kinetograph.video import Video, fingerprint

if TYPE_CHECKING:
    import torch

    from kinetograph.neural import flow, sampling
    from kinetograph.neural.seeing import OnStep, Seeing, Step

BUNDLED = "flow"
MOST_FRAMES = 512


class Options(Base):
    """How to sample, and what to begin with."""

    steps: int = Field(24, ge=1, le=1000, description="Steps from noise to the clip: more are finer and slower.")
    guidance: float = Field(3.0, ge=0, le=30, description="How strongly the sentence guides; 1 is not at all.")
    guided_above: float = Field(0.0, ge=0, lt=1, description="Level of noise below which the sentence does not guide.")
    negative_prompt: str = Field("", max_length=2000, description="What guidance leads away from.")
    sampler: Literal["ddpm", "ddim", "euler", "heun", "heun-edm", "dpmpp-2m", "unipc"] = Field(
        "dpmpp-2m", description="The way down."
    )
    shift: float = Field(8.0, gt=0, le=100, description="How far toward noise the steps lie.")
    rescale: float = Field(0.0, ge=0, le=1, description="How far guided contrast is pulled back.")
    start: FirstFrames = Field("", description="A picture or a clip that comes first, of the size asked for.")
    start_sha256: str = Field("", description="Fingerprint of the frames of `start`; refused where they differ.")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="Numbers to compute with: bfloat16 is faster where the processor has instructions for it.",
    )
    context: int = Field(4, ge=1, le=15, description="How many of the last frames the model goes on from.")


class LayeredOptions(Options):
    """The same for a model of layers: what is sampled is where they go. It learnt to go on from four frames at most."""

    steps: int = Field(16, ge=1, le=1000, description="Steps from noise to the clip: more are finer and slower.")
    guidance: float = Field(2.0, ge=0, le=30, description="How strongly the sentence guides; 1 is not at all.")
    guided_above: float = Field(0.6, ge=0, lt=1, description="Level of noise below which the sentence does not guide.")
    negative_prompt: str = Field(
        "",
        max_length=2000,
        description="What guidance leads away from, and how what the sentence leaves open is not decided: snow, white.",
    )
    shift: float = Field(2.0, gt=0, le=100, description="How far toward noise the steps lie.")
    context: int = Field(4, ge=1, le=4, description="How many of the last frames the model goes on from.")


LAYERED = "layered"
KINDS: dict[str, type[Options]] = {"flow": Options, LAYERED: LayeredOptions}


def info(weights: str) -> EngineInfo:
    """What a checkpoint can make, read from its header. Raises UnknownName or WeightsError for a reference that is
    none."""
    folder = _folder(weights)
    found = _configuration(folder)
    with checkpoints.understood(folder):
        size, worlds, layered = _size(found), found["worlds"], found["kind"] == LAYERED
        step = found["multiple"] if layered else 2 * found["config"]["side"]  # of pixels, for heights and widths
        width, height, frames = (size[name] for name in ("width", "height", "frames"))
    return EngineInfo(
        reference=f"flow:{weights}" if weights else "flow",
        summary=f"video diffusion {'of layers, ' if layered else ''}trained from scratch on the worlds "
        f"{', '.join(worlds)}",
        licence="Apache-2.0",
        width=width,
        height=height,
        frames=frames,
        fps=Fraction(WORLDS[worlds[-1]].FPS),
        sizes=Sizes(minimum=max(size["width"] // 2 // step, 1) * step, maximum=size["width"] * 2, multiple=step),
        min_frames=1,
        max_frames=MOST_FRAMES,
        Options=KINDS[found["kind"]],
        weights=checkpoints.declared(folder)[checkpoints.MODEL],
    )


def load(weights: str, device: str) -> "Flow":
    """Load a checkpoint onto a device, after checking its sum. Raises WeightsError for one that is damaged."""
    from kinetograph.neural import device as devices

    folder, where = _folder(weights), devices.choose(device)
    found = _configuration(folder)
    with checkpoints.understood(folder):
        window = _size(found)["frames"]
        seen, digest = (_layered if found["kind"] == LAYERED else _direct)(folder, found, where)
    return Flow(seen, KINDS[found["kind"]], window, where, digest)


def _direct(folder: Path, found: Mapping[str, Any], where: "torch.device") -> "tuple[Seeing, str]":
    """A model that sees pixels, and the sum of its weights."""
    from kinetograph.neural import checkpoint, seeing
    from kinetograph.neural.models import text, video_unet

    model = video_unet.Model(video_unet.Config.of(found["config"]))
    digest = checkpoint.load_model(folder, model)
    return seeing.Pixels(model.to(where).eval(), text.Vocabulary(tuple(found["words"])), where), digest


def _layered(folder: Path, found: Mapping[str, Any], where: "torch.device") -> "tuple[Seeing, str]":
    """A model of layers, and the sum of its weights."""
    from kinetograph.neural import checkpoint, device, seeing
    from kinetograph.neural.models import layered, text

    model = layered.Model(layered.Config.of(found["config"]))
    digest = checkpoint.load_model(folder, model)
    model = model.eval().requires_grad_(False).to(where)
    device.channels_last(model)
    return seeing.Layered(model, text.Vocabulary(tuple(found["words"])), where), digest


def _size(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """The frames, the height and the width of clips that a checkpoint learnt from."""
    recipe: Mapping[str, Any] = found["recipe"]
    return recipe["sizes"][0] if "sizes" in recipe else recipe


def _configuration(folder: Path) -> dict[str, Any]:
    found = checkpoints.configuration(folder)
    return found if found.get("kind") in KINDS else checkpoints.configuration(folder, "flow")


def _folder(weights: str) -> Path:
    if not weights and BUNDLED not in checkpoints.bundled():
        hint = "train some with `kinetograph train layered`, then use flow:runs/layered"
        raise WeightsError("the weights of the flow engine are not in this copy of the package", hint=hint)
    return checkpoints.locate(weights or BUNDLED)


class Flow:
    """A loaded model."""

    def __init__(
        self, seen: "Seeing", kind: type[Options], window: int, where: "torch.device", weights_digest: str
    ) -> None:
        from kinetograph.neural import device

        self._seen, self._kind = {"float32": seen}, kind
        self._window, self._where = window, where
        self.device, self.weights_digest = str(where), weights_digest
        self.versions: Mapping[str, str] = device.versions(where)

    def generate(self, request: VideoRequest, on_progress: OnProgress) -> Video:
        """One clip. Warns of words that training never saw, which are read as 'some word', and of what is too long."""
        return self._made(request, on_progress, None)

    def levels(self, request: VideoRequest) -> "sampling.Levels":
        """The levels of noise that each window goes down."""
        return _settings(self._options(request)).levels()

    def watch(self, request: VideoRequest, on_progress: OnProgress, on_step: "sampling.OnStep") -> Video:
        """Like `generate`; `on_step` hears of every step of every window what the sampler tells of it, as pixels."""
        return self._made(request, on_progress, on_step)

    def _made(self, request: VideoRequest, on_progress: OnProgress, on_step: "sampling.OnStep | None") -> Video:
        options = self._options(request)
        for prompt in (request.prompt, options.negative_prompt):
            for said in self._seen["float32"].unread(prompt):
                warnings.warn(said, stacklevel=2)
        deaf = options.guidance == 1 and not (self._seen["float32"].decides and not options.start)
        if options.negative_prompt and deaf:
            said = "a guidance of 1 leads away from nothing: the negative prompt is not heard"
            warnings.warn(f"{said} (--set guidance=1.5 hears it)", stacklevel=2)
        clip = _start(options, request)
        seen = self._rounded(options.precision)
        windows = list(_windows(len(clip), request.frames, self._window, options.context, seen.windows))
        tell = partial(_tell, on_progress, on_step, len(windows) * options.steps)
        for number, (known, frames) in enumerate(windows):
            heard = partial(tell, number * options.steps)
            made = self._sample(seen, request, options, number, clip[len(clip) - known :], frames, heard)
            clip = np.concatenate([clip, made[known:]])
        return Video(clip, request.fps)

    def _sample(
        self,
        seen: "Seeing",
        request: VideoRequest,
        options: Options,
        number: int,
        known: Frames,
        frames: int,
        tell: "OnStep",
    ) -> Frames:
        """One window: `frames` frames, of which the first are known. `tell` hears of its steps."""
        import torch

        from kinetograph.neural import device, pixels, seeing

        def noise(shape: tuple[int, ...], *path: int) -> torch.Tensor:
            return device.noise(request.seed, number, *path, shape=shape)

        ids = seen.told(request.prompt, options.negative_prompt)
        given = pixels.to_model(torch.tensor(known[None])).to(self._where) if len(known) else None
        wanted = seeing.Wanted(ids, frames, request.height, request.width, given)
        with torch.inference_mode():
            made: Frames = pixels.to_frames(seen.sample(wanted, noise, _settings(options), tell))[0]
        return made

    def _options(self, request: VideoRequest) -> Options:
        return self._kind.model_validate(dict(request.options))

    def _rounded(self, precision: str) -> "Seeing":
        """The model in numbers of this kind; what was made once is kept."""
        import torch

        if precision not in self._seen:
            self._seen[precision] = self._seen["float32"].rounded(getattr(torch, precision))
        return self._seen[precision]


def _settings(options: Options) -> "flow.Settings":
    """How to sample, by these options."""
    from kinetograph.neural import flow

    return flow.Settings(**options.model_dump(include=set(flow.Settings.__dataclass_fields__)))


def _tell(on_progress: OnProgress, on_step: "sampling.OnStep | None", steps: int, before: int, step: "Step") -> None:
    """Tell of a step, of which there are `steps` in all and were so many `before` this way down."""
    from kinetograph.neural import pixels

    if on_step:
        on_step(step.index, step.count, step.noisy(), step.clean())
    preview = pixels.to_frames(step.preview())[0, 0]
    on_progress(Progress(step=before + step.index + 1, steps=steps, preview=preview))


def _windows(done: int, frames: int, window: int, context: int, most: int) -> Iterator[tuple[int, int]]:
    """How many frames are known and how many made in each window, until there are `frames`: in the first, where it
    holds all, `most` times as many as elsewhere."""
    if done == 0 and frames <= most * window:
        yield 0, frames
        return
    while done < frames:
        known = min(done, context, window // 2)  # each window must bring something new
        made = min(window, known + frames - done)
        yield known, made
        done += made - known


def _start(options: Options, request: VideoRequest) -> Frames:
    """The frames that come first. Raises InvalidRequest where they do not fit the request, CannotRead for no file."""
    if not options.start:
        return np.empty((0, request.height, request.width, 3), np.uint8)
    frames = media.read_frames(options.start)
    height, width = frames.shape[1:3]
    if (width, height) != (request.width, request.height):
        raise InvalidRequest(
            f"{options.start} is {width}x{height}, the clip {request.width}x{request.height}",
            field="start",
            hint=f"use --size {width}x{height}, or a file of the clip's size",
        )
    if len(frames) >= request.frames:
        message = f"{options.start} has {len(frames)} frames, and the clip is to have {request.frames} in all"
        raise InvalidRequest(message, field="frames", hint=f"ask for {len(frames) + 1} or more")
    if options.start_sha256 and fingerprint(frames) != options.start_sha256:
        raise InvalidRequest(
            f"{options.start} does not show what it showed when the request was made",
            field="start",
            hint=f"its frames' sha256 is {fingerprint(frames)[:16]}, not {options.start_sha256[:16]}",
        )
    return frames
