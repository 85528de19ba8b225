"""The zero-shot engine at work: a request becomes a plan, the plan latents, the latents frames."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from kinetograph import hub
from kinetograph.engine import OnProgress, Progress
from kinetograph.engines.zero import modes, single
from kinetograph.engines.zero.networks import Networks
from kinetograph.engines.zero.options import Options
from kinetograph.errors import InvalidRequest
from kinetograph.media import Frames
from kinetograph.request import VideoRequest
from kinetograph.video import Video

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from kinetograph.neural.pictures.folder import Pictures
    from kinetograph.neural.pictures.words import Words
    from kinetograph.neural.sampling import Levels, OnStep
    from kinetograph.neural.zeroshot.motion import Codec, Motion
    from kinetograph.neural.zeroshot.plan import Plan


class Zero:
    """A picture model, loaded when it is first asked for something, and again when asked for it another way."""

    def __init__(self, model: hub.Model, family: str, where: "torch.device") -> None:
        from kinetograph.neural import device

        self.model, self.family, self.where = model, family, where
        self.device, self.weights_digest = str(where), hub.digest(model.path)
        self.versions: Mapping[str, str] = device.versions(where) | _versions()
        self._loaded: tuple[tuple[object, ...], Pictures] | None = None
        self._networks = Networks()

    def generate(self, request: VideoRequest, on_progress: OnProgress) -> Video:
        """One clip. Raises NotFinite where the network's numbers overflow."""
        return self._made(request, on_progress, None)

    def watch(self, request: VideoRequest, on_progress: OnProgress, on_step: "OnStep") -> Video:
        """Like `generate`; `on_step` hears of every step what the sampler tells of it, as pixels: of the first frame
        alone until the others come out of it."""
        return self._made(request, on_progress, on_step)

    def levels(self, request: VideoRequest) -> "Levels":
        """The levels of noise that the request's steps go down. Raises InvalidRequest for an edit, which may begin on
        its way down."""
        options = Options.model_validate(dict(request.options))
        if options.source:
            raise InvalidRequest("an edit does not begin as noise", field="source", hint="leave the source out")
        return self.pictures(options).levels(options.steps, options.placement)

    def _made(self, request: VideoRequest, on_progress: OnProgress, on_step: "OnStep | None") -> Video:
        from kinetograph.neural.zeroshot import plan as plans

        options = Options.model_validate(dict(request.options))  # settled before: no default is left
        pictures = self.pictures(options)
        plan = planned(pictures, request, options)
        with modes.applied(plan, pictures, request, options, self._networks) as plan:
            step, tick = _tellers(pictures, options, on_progress, on_step, len(plan.levels) - 1)
            latents = plans.carried_out(plan, step, tick)
        frames = modes.finished(_frames(pictures, latents[0], options), request, options)
        return Video(frames, request.fps)

    def pictures(self, options: Options) -> "Pictures":
        """The model, loaded as the options say."""
        from kinetograph.neural.pictures import additions

        key = (
            self._dtype(options),
            options.offload,
            options.lora,
            options.lora_scale,
            options.embeddings,
            options.added_sha256,
            options.config,
        )
        if self._loaded is None or self._loaded[0] != key:
            self._loaded = None  # the old one goes first: two may not fit into memory
            if options.offload and self.where.type == "cpu":
                hint = "leave offload out, or name a device"
                raise InvalidRequest("on a CPU there is nothing to offload from", field="offload", hint=hint)
            found = self._read(options)
            if options.lora:
                paths, scales = zip(*options.loras)
                additions.add_loras(found, paths, scales)
            for word, path in options.words:
                additions.add_embedding(found, path, word)
            self._loaded = key, found
        return self._loaded[1]

    def _read(self, options: Options) -> "Pictures":
        from kinetograph.neural.pictures import folder

        how = self.family, self._dtype(options), self.where
        if self.model.path.is_file():
            config = single.settings(self.model.path, options.config)
            return folder.load_file(self.model.path, *how, config, offload=options.offload)
        if options.config:
            hint = "it has settings of its own"
            raise InvalidRequest(f"{self.model.reference} is a folder", field="config", hint=hint)
        return folder.load(self.model.path, *how, self.model.variant, offload=options.offload)

    def _dtype(self, options: Options) -> str:
        if options.dtype != "auto":
            return options.dtype
        if self.where.type == "cpu":
            return "float32"
        return "float16" if self.family in ("sd", "sdxl") else "bfloat16"


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("diffusers", "transformers")}


# ---- from a request to a plan


def planned(pictures: "Pictures", request: VideoRequest, options: Options) -> "Plan":
    """Everything decided. Raises InvalidRequest for a motion or sentences that cannot be."""
    from kinetograph.neural import sampling
    from kinetograph.neural.zeroshot import attention, loop
    from kinetograph.neural.zeroshot.noise import Noise
    from kinetograph.neural.zeroshot.plan import Plan

    moments = [float(frame / request.fps) for frame in range(request.frames)]
    shape = (pictures.channels, request.height // pictures.cell, request.width // pictures.cell)
    return Plan(
        predict=pictures.predict,
        prediction=pictures.prediction,
        told=loop.guided(*_words(pictures, request, options, moments), options.guidance),
        levels=pictures.levels(options.steps, options.placement),
        noise=[Noise(request.seed, shape)],
        moments=moments,
        sampler=options.sampler,
        eta=options.eta,
        fresh_above=loop.SD.at(options.eta_above) if options.eta_above else sampling.CLEAN,
        motion=_motion(options) if options.dynamics else None,
        turn=loop.Turn(options.t_prime, options.t),
        codec=_codec(pictures, options) if options.moved == "pixels" else None,
        networks=(pictures.network,) if options.attention or options.merging else (),
        anchors=attention.anchors(options.anchors if options.attention else "self"),
        merging=options.merging,
        reuse=options.reuse,
        network=pictures.network,
        chunk=options.chunk,
    )


def _words(
    pictures: "Pictures", request: VideoRequest, options: Options, moments: list[float]
) -> "tuple[Words, Words]":
    """What all frames are told, and what guidance leads away from."""
    from kinetograph.neural.zeroshot import motion

    size = request.width, request.height
    negative = pictures.words([options.negative_prompt], *size, negative=True)
    if not options.prompts:
        return pictures.words([request.prompt], *size), negative
    first = [] if options.prompts[0][0] <= 0 else [(0.0, request.prompt)]
    seconds, prompts = zip(*first, *options.prompts)
    keys = list(zip(seconds, range(len(seconds))))
    told = pictures.words(list(prompts), *size)
    return told.blended(motion.shares(keys, moments, len(keys))), negative


def _codec(pictures: "Pictures", options: Options) -> "Codec":
    from kinetograph.neural.zeroshot.motion import Codec

    chunk, tiled = options.decode_chunk, options.tiled
    return Codec(
        lambda latents: pictures.decode(latents, chunk, tiled), lambda shown: pictures.encode(shown, chunk, tiled)
    )


def _motion(options: Options) -> "Motion":
    from kinetograph.neural.zeroshot.motion import Motion, Pose, keyed, steady

    if options.path:
        return Motion(keyed([(second, Pose(*pose)) for second, *pose in options.path]))
    return Motion(steady(*options.motion, options.zoom, options.rotation, options.shear))


# ---- from latents to frames


def _frames(pictures: "Pictures", latents: "Tensor", options: Options) -> Frames:
    """uint8 (t, h, w, 3) out of latents (c, t, h, w)."""
    from kinetograph.neural import pixels

    frames: Frames = pixels.to_frames(_decoded(pictures, latents, options))[0]
    return frames


def _decoded(pictures: "Pictures", latents: "Tensor", options: Options) -> "Tensor":
    """Pictures (1, 3, t, h, w) in [-1, 1] out of latents (c, t, h, w)."""
    decoded = pictures.decode(latents.transpose(0, 1), options.decode_chunk, options.tiled)
    return decoded.transpose(0, 1)[None]


def _tellers(
    pictures: "Pictures", options: Options, on_progress: OnProgress, on_step: "OnStep | None", steps: int
) -> "tuple[OnStep, Callable[[], None]]":
    """What tells of steps, with a sketch of the middle frame, and what asks between two chunks whether to go on."""
    from kinetograph.neural import pixels

    done = 0

    def step(index: int, count: int, x: "Tensor", clean: "Tensor") -> None:
        nonlocal done
        done = index + 1
        if on_step:
            on_step(index, count, *(_decoded(pictures, latents, options) for latents in (x[0], clean[0])))
        sketch = pictures.preview(clean[:1, :, clean.shape[2] // 2])  # (1, 3, h, w)
        on_progress(Progress(step=done, steps=steps, preview=pixels.to_frames(sketch[:, :, None])[0, 0]))

    def tick() -> None:
        on_progress(Progress(step=done, steps=steps))

    return step, tick
