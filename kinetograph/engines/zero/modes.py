"""Modes of the zero-shot engine: each changes a part of the plan.

An edit begins from a source or, where the model follows instructions, is told it; a picture comes first; controls bend
what the network says; the background is smoothed. They go together as far as they make sense.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kinetograph import footage, media
from kinetograph.controls import Control, drawn
from kinetograph.controls import opened as opened_control
from kinetograph.engines.zero.clips import ClipOptions
from kinetograph.errors import InvalidRequest
from kinetograph.media import Frames
from kinetograph.request import VideoRequest
from kinetograph.tracking import tracked
from kinetograph.video import fingerprint

if TYPE_CHECKING:
    from torch import Tensor

    from kinetograph.engines.zero.networks import Networks
    from kinetograph.neural.pictures.folder import Pictures
    from kinetograph.neural.zeroshot.plan import Plan
    from kinetograph.neural.zeroshot.smoothing import Smoother, Warp


@contextmanager
def applied(
    plan: "Plan", pictures: "Pictures", request: VideoRequest, options: ClipOptions, networks: "Networks"
) -> "Iterator[Plan]":
    """The plan as the clips of a request change it; networks are watched only within.

    Raises CannotRead, and InvalidRequest for clips that do not fit or modes that the model does not have.
    """
    clips = [_read(line) for line in options.control]
    followed: Frames | None = None
    for _, clip in clips:
        followed = clip.fitted(request) if followed is None else followed
    if options.source or follows_instructions(pictures):
        followed = _source(request, options)
        plan = _edited(plan, pictures, options, followed)
    elif clips:
        plan = _unmoved(plan, options)
    if options.start:
        plan = _begun_with(plan, pictures, _picture(options, request))
    if clips:
        plan = _controlled(plan, pictures, request, clips, networks)
    with ExitStack() as stack:
        yield _smoothed(plan, pictures, request, options, followed, stack) if options.smooth else plan


def finished(frames: Frames, request: VideoRequest, options: ClipOptions) -> Frames:
    """The frames with what is known as it is, not as an encoder and a decoder left it: the picture that comes first,
    and of a source what an edit hardly changed."""
    if options.source and options.keep:
        from kinetograph.neural.zeroshot import editing

        frames = editing.kept(frames, _source(request, options), options.keep)
    return np.concatenate([_picture(options, request), frames[1:]]) if options.start else frames


def follows_instructions(pictures: "Pictures") -> bool:
    """Whether a network sees a source beside its latents (InstructPix2Pix)."""
    return bool(getattr(pictures.network.config, "in_channels", 0) == 2 * pictures.channels)


# ---- sources


def _source(request: VideoRequest, options: ClipOptions) -> Frames:
    if not options.source:
        hint = 'give it a clip: kinetograph edit CLIP "make it Van Gogh"'
        raise InvalidRequest("this model edits clips, and has none to edit", field="source", hint=hint)
    clip = footage.read(options.source, "source", options.source_sha256, options.fit, options.begin)
    return clip.fitted(request)


def _edited(plan: "Plan", pictures: "Pictures", options: ClipOptions, frames: Frames) -> "Plan":
    from kinetograph.neural.zeroshot import editing

    plan = _unmoved(plan, options)
    if follows_instructions(pictures):
        latents = encoded(pictures, frames, plain=True)
        positive, negative = plan.told[-1][1], plan.told[0][1]
        guidance = plan.told[-1][0]
        return replace(plan, told=editing.instructed(positive, negative, latents, guidance, options.image_guidance))
    steps = len(plan.levels) - 1
    if not int(steps * options.strength):
        hint = f"nearest: {1 / steps:.3g}"
        raise InvalidRequest(
            f"a strength of {options.strength:g} leaves none of {steps} steps", field="strength", hint=hint
        )
    from kinetograph.neural.zeroshot import noise as noises

    noise = noises.first(plan.noise, range(len(plan.moments)))
    start, levels = editing.begun(encoded(pictures, frames), noise, plan.levels, options.strength)
    return replace(plan, start=start, levels=levels)


def _unmoved(plan: "Plan", options: ClipOptions) -> "Plan":
    """A clip says itself how things move: no motion is added, and frames may begin alike."""
    from kinetograph.neural.zeroshot.noise import Shared

    noise = [Shared(its.seed, its.shape) if options.shared_noise else its for its in plan.noise]
    return replace(plan, motion=None, noise=noise)


def encoded(pictures: "Pictures", frames: Frames, plain: bool = False, chunk: int = 4) -> "Tensor":
    """Latents (t, c, h, w) on the CPU out of frames (t, H, W, 3), a few at a time."""
    import torch

    from kinetograph.neural import pixels

    parts = [torch.tensor(frames[first : first + chunk]) for first in range(0, len(frames), chunk)]
    return torch.cat(
        [pictures.encode(pixels.to_model(part[None])[0].transpose(0, 1), plain=plain).cpu() for part in parts]
    )


# ---- a picture that comes first


def _picture(options: ClipOptions, request: VideoRequest) -> Frames:
    """The picture (1, h, w, 3) in `start`. Raises InvalidRequest where it does not fit."""
    frames = media.read_frames(options.start)
    if len(frames) != 1:
        message = f"{options.start} has {len(frames)} frames, and this engine goes on from a picture"
        raise InvalidRequest(message, field="start", hint="to make another clip of a clip, use `kinetograph edit`")
    height, width = frames.shape[1:3]
    if (width, height) != (request.width, request.height):
        raise InvalidRequest(
            f"{options.start} is {width}x{height}, the clip {request.width}x{request.height}",
            field="start",
            hint=f"use --size {width}x{height}, or a picture of the clip's size",
        )
    if options.start_sha256 and fingerprint(frames) != options.start_sha256:
        raise InvalidRequest(
            f"{options.start} does not show what it showed when the request was made",
            field="start",
            hint=f"its sha256 is {fingerprint(frames)[:16]}, not {options.start_sha256[:16]}",
        )
    return frames


def _begun_with(plan: "Plan", pictures: "Pictures", picture: Frames) -> "Plan":
    from kinetograph.neural.zeroshot import editing

    latents = encoded(pictures, picture)
    return replace(plan, around=lambda denoise: editing.anchored(plan.around(denoise), latents))


# ---- controls


def _read(line: str) -> tuple[Control, footage.Footage]:
    control = Control.parse(line)
    return control, opened_control(control)


def _controlled(
    plan: "Plan",
    pictures: "Pictures",
    request: VideoRequest,
    clips: Sequence[tuple[Control, footage.Footage]],
    networks: "Networks",
) -> "Plan":
    import torch

    from kinetograph.neural.pictures import families
    from kinetograph.neural.zeroshot import attention, controlling

    guides: list[controlling.Guide] = []
    for place, (control, clip) in enumerate(clips):
        hints = torch.tensor(drawn(control, clip.fitted(request))).movedim(3, 1)  # bytes, until a chunk is asked about
        copies = sum(other.weights == control.weights for other, _ in clips[:place])
        network = networks.get(control, pictures, copies)
        guides.append(controlling.Guide(network, hints, control.scale, control.since, control.until))

    def asked(told: Any) -> dict[str, Any]:
        return families.asked(pictures.family, told)

    predict = controlling.controlled(plan.predict, guides, plan.levels, pictures.time, asked)
    more = tuple(guide.network for guide in guides if attention.looks(guide.network)) if plan.networks else ()
    return replace(plan, predict=predict, networks=(*plan.networks, *more))


# ---- smoothing


def _smoothed(
    plan: "Plan",
    pictures: "Pictures",
    request: VideoRequest,
    options: ClipOptions,
    followed: Frames | None,
    stack: ExitStack,
) -> "Plan":
    from kinetograph.neural.zeroshot import smoothing

    source = _mask_source(pictures, options)
    words = _places(pictures, request.prompt, options.smooth_words)
    if source in ("attention", "both") and not words and pictures.family.network != "unet":
        hint = "name the words that are no background: smooth_words=cat, or use smooth_masks=flow"
        raise InvalidRequest("of this model's attention only that to known words is of use", field="smooth", hint=hint)
    height, width = plan.noise[0].shape[1:]
    smoothed = smoothing.Smoothing(
        strength=options.smooth,
        warp=_scene(plan, followed, height, width),
        source=source,
        words=words,
        since=options.smooth_since,
        until=options.smooth_until,
        cells=options.smooth_cells,
        grow=options.smooth_grow,
        given=_masks(request, options, (height, width)) if source == "clip" else None,
    )
    seen = stack.enter_context(smoothing.watching(pictures.network)) if source in ("attention", "both") else None
    smoother: Smoother = smoothing.Smoother(smoothed, plan.levels, seen)
    return replace(
        plan, predict=smoother.predict(plan.predict), around=lambda denoise: smoother.denoise(plan.around(denoise))
    )


def _places(pictures: "Pictures", prompt: str, words: str) -> list[int]:
    """Where these words stand in what the network is told."""
    from kinetograph.neural.pictures import weighting
    from kinetograph.neural.zeroshot import smoothing

    if not words:
        return []
    if not pictures.family.tokenizers:
        raise InvalidRequest("of this model the places of words are not known", field="smooth_words", hint="use flow")
    tokenizer = getattr(pictures.pipe, pictures.family.tokenizers[0])
    return smoothing.places(tokenizer, weighting.parse(prompt)[0], words)


def _mask_source(pictures: "Pictures", options: ClipOptions) -> str:
    if options.smooth_masks != "auto":
        return options.smooth_masks
    if options.smooth_mask:
        return "clip"
    return "both" if pictures.family.network == "unet" else "flow"


def _scene(plan: "Plan", followed: Frames | None, height: int, width: int) -> "Warp":
    """How the scene as a whole moves: as its motion says, or as the clip does that is followed, or not at all."""
    import torch

    from kinetograph.neural.zeroshot import smoothing

    motion = plan.motion
    if motion is not None:
        fields = [motion.field(moment) if motion.field else None for moment in plan.moments]
        return smoothing.moving([motion.path(moment) for moment in plan.moments], fields, height, width)
    if followed is None:
        return smoothing.still(len(plan.moments))
    track = tracked(followed, height, width)
    return smoothing.placed(torch.from_numpy(track.origins), torch.from_numpy(track.seen))


def _masks(request: VideoRequest, options: ClipOptions, size: tuple[int, int]) -> "Tensor":
    import torch

    from kinetograph.neural.zeroshot import smoothing

    if not options.smooth_mask:
        hint = "smooth_mask=FILE: a clip that is white where there is foreground"
        raise InvalidRequest("smooth_masks=clip names no clip", field="smooth_mask", hint=hint)
    clip = footage.read(options.smooth_mask, "smooth_mask", options.smooth_mask_sha256)
    grey = clip.fitted(request).astype(np.float32).mean(axis=3) / 255
    return smoothing.given(torch.tensor(grey)[:, None], size)
