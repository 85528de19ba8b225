"""Caches that skip work between steps, and what they really skipped: counted, never assumed.

Every cache replaces the `forward` of blocks or of attentions by one that may give back what an earlier step gave. What
lies inside is then not called. So one projection inside every attention is watched: with no cache each is called once
each time that the denoiser is. (A preset of diffusers can match no module at all, and skip nothing without a word.)
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import diffusers
from torch import nn

from kinetograph.errors import InvalidRequest
from kinetograph.neural.pretrained.memory import DENOISERS

PRESETS = ("none", "first-block", "pab", "taylorseer", "faster", "mag")


@dataclass
class Count:
    """How often the attentions of the denoisers were computed, and how often they would be without a cache."""

    computed: int = 0
    expected: int = 0

    @property
    def skipped(self) -> int:
        """How many calls the cache spared."""
        return max(self.expected - self.computed, 0)

    def said(self, preset: str) -> str:
        """One sentence, whatever came out."""
        if not self.skipped:
            return f"the cache {preset} skipped nothing here, so it is no speed-up: {self.computed} attentions computed"
        share = self.skipped / self.expected
        return f"the cache {preset} skipped {self.skipped} of {self.expected} attentions ({share:.0%})"


@contextmanager
def caching(pipeline: Any, preset: str, steps: int) -> Iterator[Count]:
    """Within, the pipeline works with a cache; the count is complete afterwards.

    Raises InvalidRequest for a denoiser that knows no caches, and where the preset does not suit it.
    """
    denoisers = [part for name in DENOISERS if (part := getattr(pipeline, name, None)) is not None]
    if preset != "none" and not any(hasattr(denoiser, "enable_cache") for denoiser in denoisers):
        kind = type(denoisers[0]).__name__ if denoisers else type(pipeline).__name__
        raise InvalidRequest(f"{kind} knows no caches", field="cache", hint="leave it out")
    count, handles = Count(), []
    for denoiser in denoisers:
        inner = _watched(denoiser)
        handles += [layer.register_forward_pre_hook(_adding(count, "computed", 1)) for layer in inner]
        handles.append(denoiser.register_forward_pre_hook(_adding(count, "expected", len(inner))))
    try:
        if preset != "none":
            for denoiser in denoisers:
                _enable(denoiser, preset, pipeline, steps)
        yield count
    finally:
        for handle in handles:
            handle.remove()
        for denoiser in denoisers:
            if preset != "none" and getattr(denoiser, "is_cache_enabled", False):
                denoiser.disable_cache()


def _adding(count: Count, name: str, more: int) -> Any:
    def add(*_: object) -> None:
        setattr(count, name, getattr(count, name) + more)

    return add


def attentions(denoiser: nn.Module) -> dict[str, nn.Module]:
    """The attentions of the blocks, by name: those outside of lists of blocks (of the text, say) are left out."""
    return {
        name: module
        for name, module in denoiser.named_modules()
        if re.search(r"blocks\.\d+\.", name) and hasattr(module, "to_q") and "refiner" not in name
    }


def _watched(denoiser: nn.Module) -> list[nn.Module]:
    return [module.to_q for module in attentions(denoiser).values() if isinstance(module.to_q, nn.Module)]


def _enable(denoiser: Any, preset: str, pipeline: Any, steps: int) -> None:
    try:
        denoiser.enable_cache(_config(denoiser, preset, pipeline, steps))
    except (ValueError, TypeError, AttributeError, NotImplementedError, KeyError) as error:
        words = " ".join(str(error).split())[:300]
        raise InvalidRequest(
            f"the cache {preset} does not suit {type(denoiser).__name__}",
            field="cache",
            hint=f"{type(error).__name__}: {words}",
        ) from error


def _config(denoiser: Any, preset: str, pipeline: Any, steps: int) -> Any:
    """The settings of a preset. Thresholds are diffusers' own; names of modules are those of this denoiser."""

    def time() -> Any:
        return pipeline._current_timestep if hasattr(pipeline, "_current_timestep") else pipeline.current_timestep

    match preset:
        case "first-block":
            return diffusers.FirstBlockCacheConfig(threshold=0.1)
        case "pab":
            return diffusers.PyramidAttentionBroadcastConfig(
                spatial_attention_block_skip_range=2,
                temporal_attention_block_skip_range=2,
                cross_attention_block_skip_range=4,
                spatial_attention_timestep_skip_range=(-1, 1001),
                temporal_attention_timestep_skip_range=(-1, 1001),
                cross_attention_timestep_skip_range=(-1, 1001),
                current_timestep_callback=time,
            )
        case "taylorseer":
            names = [f"^{re.escape(name)}$" for name in attentions(denoiser)]
            return diffusers.TaylorSeerCacheConfig(
                cache_interval=3,
                disable_cache_before_step=min(3, max(steps // 4, 1)),
                max_order=1,
                cache_identifiers=names,
            )
        case "faster":
            return diffusers.FasterCacheConfig(
                spatial_attention_block_skip_range=2,
                spatial_attention_timestep_skip_range=(-1, 1001),
                current_timestep_callback=time,
                is_guidance_distilled=True,  # guidance is done in calls of its own, not in one batch
                unconditional_batch_skip_range=1,
            )
        case _:
            return diffusers.MagCacheConfig(num_inference_steps=steps, mag_ratios=[1.0] * steps, threshold=0.06)
