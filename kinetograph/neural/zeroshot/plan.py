"""A plan: everything that makes a clip out of a picture model, decided. What a mode does is to change some of it."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from kinetograph.errors import NotFinite
from kinetograph.neural import sampling
from kinetograph.neural.pictures.words import Words
from kinetograph.neural.sampling import Denoiser, Level, Levels, OnStep
from kinetograph.neural.zeroshot import attention, loop
from kinetograph.neural.zeroshot import noise as noises
from kinetograph.neural.zeroshot.attention import Anchors
from kinetograph.neural.zeroshot.loop import Predict, Turn
from kinetograph.neural.zeroshot.motion import Codec, Motion
from kinetograph.neural.zeroshot.noise import Noise
from kinetograph.neural.zeroshot.reuse import reusing


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is asked (`predict`, `prediction`), what it is told, and how it is sampled.

    `told` are the groups of guidance with their weights, `noise` is that of each clip, `moments` are the seconds of the
    frames. With a `motion` all frames come out of the first; with None each begins by itself: as its own noise or,
    where `start` (b, c, t, h, w) is given, as that, at levels[0]. In `networks` frames look at `anchors`; there may be
    none. `around` wraps the denoiser of whole clips.
    """

    predict: Predict
    prediction: str
    told: Sequence[tuple[float, Words]]
    levels: Levels
    noise: Sequence[Noise]
    moments: Sequence[float]
    sampler: str = "unipc"
    eta: float = 0.0
    fresh_above: Level = sampling.CLEAN
    motion: Motion | None = None
    turn: Turn = field(default_factory=Turn)
    codec: Codec | None = None  # by which pictures are moved, not latents
    start: Tensor | None = None
    networks: tuple[nn.Module, ...] = ()
    anchors: Anchors = attention.ANCHORS["first"]
    merging: float = 0.0  # share of tokens that attend as one with others
    reuse: int = 1  # steps for which what the deep blocks of `network` say is good
    network: nn.Module | None = None
    chunk: int = 8
    around: Callable[[Denoiser], Denoiser] = lambda denoise: denoise


def carried_out(
    plan: Plan,
    on_step: OnStep = lambda index, count, x, clean: None,
    tick: Callable[[], None] = lambda: None,
) -> Tensor:
    """Latents (b, c, t, h, w). The networks are left as they were, whatever happens.

    `tick` is called after each chunk. Raises NotFinite where the network's numbers overflow, and what the callbacks
    raise.
    """
    with ExitStack() as stack:
        state, again = None, None
        if plan.networks:
            look = attention.crossing(*plan.networks, anchors=plan.anchors, merging=plan.merging)
            state = stack.enter_context(look)
        if plan.reuse > 1:
            again = stack.enter_context(reusing(plan.network, plan.reuse))
        frames = loop.frames_denoiser(
            plan.predict, plan.prediction, plan.told, crossing=state, reuse=again, chunk=plan.chunk, tick=tick
        )
        denoise = _finite(plan.around(frames))
        if plan.motion is None:
            return sampling.sample(
                denoise, _begun(plan, len(plan.moments)), plan.levels, plan.sampler,
                noise_source=lambda step: noises.swapped(plan.noise, range(len(plan.moments)), step),
                on_step=on_step, eta=plan.eta, fresh_above=plan.fresh_above,
            )  # fmt: skip
        return loop.animate(
            denoise, _begun(plan, 1), plan.levels, plan.sampler, motion=plan.motion, moments=plan.moments,
            noise=plan.noise, turn=plan.turn, codec=plan.codec, eta=plan.eta, fresh_above=plan.fresh_above,
            on_step=on_step,
        )  # fmt: skip


def _begun(plan: Plan, frames: int) -> Tensor:
    if plan.start is not None:
        return plan.start
    return sampling.begin(noises.first(plan.noise, range(frames)), plan.levels[0])


def _finite(denoise: Denoiser) -> Denoiser:
    def checked(x: Tensor, level: Level) -> Tensor:
        clean = denoise(x, level)
        if not torch.isfinite(clean).all():
            share = (~torch.isfinite(clean)).float().mean().item()
            hint = "numbers that reach further may help: dtype=bfloat16 or dtype=float32"
            raise NotFinite(f"{share:.0%} of what the network says is no number", hint=hint)
        return clean

    return checked
