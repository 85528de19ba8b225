"""The flow engine: video diffusion trained from scratch, a clip in a few dozen steps on a CPU.

References: `flow:FOLDER` is a model trained by `kinetograph train flow`; plain `flow` will be the one that comes with
the package. A file given as the option `start` comes first, a picture or a clip, and the model goes on from it;
requests that are longer than one look of the model are made window by window.
"""

import copy
import warnings
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Literal

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
    from torch import Tensor

    from kinetograph.neural import sampling
    from kinetograph.neural.models import text, video_unet

BUNDLED = "flow"
ONE_LOOK = 2  # times as many frames as in training are made in one window; longer clips in several
MOST_FRAMES = 512


class Options(Base):
    """How to sample, and what to begin with."""

    steps: int = Field(24, ge=1, le=1000, description="Steps from noise to the clip: more are finer and slower.")
    guidance: float = Field(3.0, ge=0, le=30, description="How strongly the sentence guides; 1 is not at all.")
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


def info(weights: str) -> EngineInfo:
    """What a checkpoint can make, read from its header. Raises UnknownName or WeightsError for a reference that is
    none."""
    folder = _folder(weights)
    found = checkpoints.configuration(folder, "flow")
    with checkpoints.understood(folder):
        size, worlds = found["recipe"]["sizes"][0], found["worlds"]
        step = 2 * found["config"]["side"]  # heights and widths are multiples of so many pixels
        width, height, frames = (size[name] for name in ("width", "height", "frames"))
    return EngineInfo(
        reference=f"flow:{weights}" if weights else "flow",
        summary=f"video diffusion trained from scratch on the worlds {', '.join(worlds)}",
        licence="Apache-2.0",
        width=width,
        height=height,
        frames=frames,
        fps=Fraction(WORLDS[worlds[-1]].FPS),
        sizes=Sizes(minimum=max(size["width"] // 2 // step, 1) * step, maximum=size["width"] * 2, multiple=step),
        min_frames=1,
        max_frames=MOST_FRAMES,
        Options=Options,
        weights=checkpoints.declared(folder)[checkpoints.MODEL],
    )


def load(weights: str, device: str) -> "Flow":
    """Load a checkpoint onto a device, after checking its sum. Raises WeightsError for one that is damaged."""
    from kinetograph.neural import checkpoint
    from kinetograph.neural import device as devices
    from kinetograph.neural.models import text, video_unet

    folder = _folder(weights)
    found = checkpoints.configuration(folder, "flow")
    with checkpoints.understood(folder):
        config, vocabulary = video_unet.Config.of(found["config"]), text.Vocabulary(tuple(found["words"]))
        window = found["recipe"]["sizes"][0]["frames"]
    model = video_unet.Model(config)
    digest = checkpoint.load_model(folder, model)
    where = devices.choose(device)
    return Flow(model.to(where).eval(), vocabulary, window, where, digest)


def _folder(weights: str) -> Path:
    if not weights and BUNDLED not in checkpoints.bundled():
        hint = "train some with `kinetograph train flow`, then use flow:runs/flow"
        raise WeightsError("no weights of the flow engine come with the package yet", hint=hint)
    return checkpoints.locate(weights or BUNDLED)


class Flow:
    """A loaded model."""

    def __init__(
        self,
        model: "video_unet.Model",
        vocabulary: "text.Vocabulary",
        window: int,
        where: "torch.device",
        weights_digest: str,
    ) -> None:
        from kinetograph.neural import device

        self._models, self._config = {"float32": model}, model.config
        self._vocabulary, self._window, self._where = vocabulary, window, where
        self.device, self.weights_digest = str(where), weights_digest
        self.versions: Mapping[str, str] = device.versions(where)

    def generate(self, request: VideoRequest, on_progress: OnProgress) -> Video:
        """One clip. Warns of words that training never saw, which are read as 'some word', and of what is too long."""
        return self.watch(request, on_progress, lambda index, count, x, clean: None)

    def watch(self, request: VideoRequest, on_progress: OnProgress, on_step: "sampling.OnStep") -> Video:
        """Like `generate`; `on_step` hears of every step of every window what the sampler tells of it."""
        options = Options.model_validate(dict(request.options))
        for prompt in (request.prompt, options.negative_prompt):
            for said in self._vocabulary.unread(prompt, self._config.text.length):
                warnings.warn(said, stacklevel=2)
        clip = _start(options, request)
        windows = list(_windows(len(clip), request.frames, self._window, options.context))
        for number, (known, frames) in enumerate(windows):
            tell = _teller(on_progress, on_step, number, len(windows), options.steps)
            given = clip[len(clip) - known :]
            clip = np.concatenate([clip, self._sample(request, options, number, given, frames, tell)[known:]])
        return Video(clip, request.fps)

    def _sample(
        self,
        request: VideoRequest,
        options: Options,
        number: int,
        known: Frames,
        frames: int,
        tell: "sampling.OnStep",
    ) -> Frames:
        """One window: `frames` frames, of which the first are known."""
        import torch

        from kinetograph.neural import device, flow, pixels

        patch = self._config.frames  # the model sees so many at a time
        shape = (1, 3, -(-frames // patch) * patch, request.height, request.width)

        def noise(*path: int) -> torch.Tensor:
            return device.noise(request.seed, number, *path, shape=shape).to(self._where)

        ids = self._encode([request.prompt, options.negative_prompt])
        settings = flow.Settings(**options.model_dump(include=set(flow.Settings.__dataclass_fields__)))
        with torch.inference_mode():
            clip = flow.sample(
                self._model(options.precision),
                ids[:1],
                ids[1:],
                noise(),
                settings,
                known=pixels.to_model(torch.tensor(known[None])).to(self._where) if len(known) else None,
                noise_source=noise,
                on_step=tell,
            )
        return pixels.to_frames(clip)[0, :frames]

    def _model(self, precision: str) -> "video_unet.Model":
        """The model in numbers of this kind; what was made once is kept."""
        import torch

        if precision not in self._models:
            self._models[precision] = copy.deepcopy(self._models["float32"]).to(getattr(torch, precision))
        return self._models[precision]

    def _encode(self, prompts: list[str]) -> "Tensor":
        from kinetograph.neural.models import text

        return text.trimmed(self._vocabulary.encode(prompts, self._config.text.length)).to(self._where)


def _teller(
    on_progress: OnProgress, on_step: "sampling.OnStep", window: int, windows: int, steps: int
) -> "sampling.OnStep":
    """Tell of each step, over all windows, with the middle frame as it looks by now."""

    def tell(index: int, count: int, x: "Tensor", clean: "Tensor") -> None:
        from kinetograph.neural import pixels

        on_step(index, count, x, clean)
        middle = clean.shape[2] // 2
        preview = pixels.to_frames(clean[:1, :, middle : middle + 1])[0, 0]
        on_progress(Progress(step=window * steps + index + 1, steps=windows * steps, preview=preview))

    return tell


def _windows(done: int, frames: int, window: int, context: int) -> Iterator[tuple[int, int]]:
    """How many frames are known and how many made in each window, until there are `frames`."""
    if done == 0 and frames <= ONE_LOOK * window:
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
