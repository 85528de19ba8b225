"""Caches that skip work between steps, and what they really skipped: counted, never assumed.

Every cache replaces the `forward` of blocks, of attentions or of the denoiser by one that may give back what an earlier
step gave, wholly or for half of the batch. What lies inside is then not called, or called with less. So one projection
inside every attention is watched: what passes through it in the denoiser's first call, which no cache shortens, would
pass through it in every call. (A preset of diffusers can match no module at all, and skip nothing without a word.)
"""

import inspect
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from torch import nn

from kinetograph.errors import InvalidRequest, in_a_line
from kinetograph.neural.pretrained import stepping
from kinetograph.neural.pretrained.memory import DENOISERS

TOLERANCE = 0.005  # attentions; shares of batches do not add up to the last bit


@dataclass
class Count:
    """How many attentions of the denoisers were computed, and how many would be without a cache.

    `ratios` are what MagCache measured in a run that it was not told them for.
    """

    computed: float = 0
    expected: float = 0
    ratios: tuple[float, ...] = ()

    @property
    def skipped(self) -> float:
        """How many the cache spared."""
        spared = self.expected - self.computed
        return spared if spared > TOLERANCE else 0.0

    def said(self, preset: str) -> str:
        """One sentence, whatever came out."""
        if self.ratios:
            known = ",".join(f"{ratio:.4g}" for ratio in self.ratios)
            return f"the cache {preset} measured this model and skipped nothing; now say --set 'mag_ratios=[{known}]'"
        if not self.skipped:
            words = f"the cache {preset} skipped nothing here, so it is no speed-up"
            return f"{words}: {self.computed:.0f} attentions computed"
        share = self.skipped / self.expected
        return f"the cache {preset} skipped {self.skipped:.0f} of {self.expected:.0f} attentions ({share:.0%})"


@contextmanager
def caching(
    pipeline: Any, preset: str, steps: int, *, guided: bool = False, ratios: Sequence[float] = ()
) -> Iterator[Count]:
    """Within, the pipeline works with a cache; the count is complete afterwards.

    `guided` says whether the request asks for guidance, `ratios` what MagCache measured of this model with as many
    steps: without them it measures. Raises InvalidRequest for a denoiser that knows no caches, and where the preset
    does not suit it, which some show only at work.
    """
    denoisers = [part for name in DENOISERS if (part := getattr(pipeline, name, None)) is not None]
    for part in denoisers or [pipeline]:
        if not hasattr(part, "enable_cache"):
            raise InvalidRequest(f"{type(part).__name__} knows no caches", field="cache", hint="leave it out")
    if preset == "mag" and len(denoisers) > 1:
        raise _unfit(preset, pipeline, f"it measures one denoiser, and here are {len(denoisers)}")
    watches = [Watch(denoiser) for denoiser in denoisers]
    count = Count()
    try:
        for watch in watches:
            _enable(watch, preset, pipeline, _config(watch, preset, pipeline, steps, guided, ratios))
        measured = _measuring(denoisers[0]) if preset == "mag" and not ratios else {}
        yield count
        count.ratios = _mean(measured)
    except (RuntimeError, AttributeError, IndexError, KeyError, AssertionError) as error:
        if isinstance(error, torch.OutOfMemoryError) or stepping.is_listeners(error):
            raise
        raise _unfit(preset, pipeline, in_a_line(error)) from error
    finally:
        for watch in watches:
            watch.close()
            if watch.denoiser.is_cache_enabled:
                watch.denoiser.disable_cache()
        count.computed = sum(watch.computed for watch in watches)
        count.expected = sum(watch.expected for watch in watches)


def _unfit(preset: str, part: Any, why: str) -> InvalidRequest:
    return InvalidRequest(f"the cache {preset} does not suit {type(part).__name__}", field="cache", hint=why)


class Watch:
    """Counts what passes through the attentions of one denoiser."""

    def __init__(self, denoiser: Any) -> None:
        self.denoiser, self.calls, self.computed, self.expected = denoiser, 0, 0.0, 0.0
        self._whole: dict[nn.Module, int] = {}  # rows of the first call
        self._rows = 0  # the denoiser's own in its first call
        inner = [module.to_q for module in attentions(denoiser).values() if isinstance(module.to_q, nn.Module)]
        self._handles = [layer.register_forward_pre_hook(self._passed) for layer in inner]
        self._handles.append(denoiser.register_forward_pre_hook(self._called, with_kwargs=True))

    def close(self) -> None:
        """Watch no longer."""
        for handle in self._handles:
            handle.remove()

    def _called(self, denoiser: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        rows = next(
            (_rows(value) for value in (*args, *named.values()) if isinstance(value, torch.Tensor) and value.ndim > 2),
            1,
        )
        self._rows = self._rows or rows
        self.calls += 1
        if self.calls > 1:
            self.expected += len(self._whole) * rows / self._rows

    def _passed(self, layer: nn.Module, args: tuple[Any, ...]) -> None:
        if self.calls <= 1:
            self._whole[layer] = self._whole.get(layer, 0) + _rows(args[0])
            self.computed, self.expected = float(len(self._whole)), float(len(self._whole))
        elif layer in self._whole:
            self.computed += _rows(args[0]) / self._whole[layer]


def _rows(x: torch.Tensor) -> int:
    """How many clips a tensor is about, both halves of a guided batch; packed tokens (n, d) are one."""
    return x.shape[0] if x.ndim > 2 else 1


def attentions(denoiser: nn.Module) -> dict[str, nn.Module]:
    """The attentions of the blocks, by name: those outside of lists of blocks (of the text, say) are left out."""
    return {
        name: module
        for name, module in denoiser.named_modules()
        if re.search(r"(blocks|layers)\.\d+\.", name) and hasattr(module, "to_q") and "refiner" not in name
    }


def _enable(watch: Watch, preset: str, pipeline: Any, config: Any) -> None:
    try:
        watch.denoiser.enable_cache(config)
    except (ValueError, IndexError) as error:  # blocks that diffusers does not know, or where it knows none
        watch.denoiser._cache_config = config
        watch.denoiser.disable_cache()  # some hooks may be in place already
        raise _unfit(preset, watch.denoiser, in_a_line(error)) from error


def _config(watch: Watch, preset: str, pipeline: Any, steps: int, guided: bool, ratios: Sequence[float]) -> Any:
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
            names = [f"^{re.escape(name)}$" for name in attentions(watch.denoiser)]
            return diffusers.TaylorSeerCacheConfig(
                cache_interval=3,
                disable_cache_before_step=min(3, max(steps // 4, 1)),
                max_order=1,
                cache_identifiers=names,
            )
        case "faster":
            return _faster(watch, pipeline, guided, time)
        case "sea":
            return diffusers.SeaCacheConfig()
        case _:
            known = {"mag_ratios": list(ratios), "num_inference_steps": steps}
            # one more step than there are: with as many, diffusers prints what it measured and forgets it
            return diffusers.MagCacheConfig(
                **(known if ratios else {"calibrate": True, "num_inference_steps": steps + 1})
            )


def _measuring(denoiser: nn.Module) -> dict[int, list[float]]:
    """What MagCache measures from now on, by the kind of call: diffusers forgets it when the pipeline is done."""
    from diffusers.hooks.mag_cache import _MAG_CACHE_BLOCK_HOOK

    found: dict[int, list[float]] = {}
    for module in denoiser.modules():
        registry = getattr(module, "_diffusers_hook", None)
        hook = registry.get_hook(_MAG_CACHE_BLOCK_HOOK) if registry is not None else None
        if hook is not None and hook.is_tail:
            hook._perform_calibration_step = _keeping(hook._perform_calibration_step, found)
    return found


def _keeping(measure: Any, found: dict[int, list[float]]) -> Any:
    def keep(state: Any, residual: torch.Tensor) -> None:
        measure(state, residual)
        found.setdefault(id(state), []).append(state.calibration_ratios[-1])

    return keep


def _mean(found: dict[int, list[float]]) -> tuple[float, ...]:
    """How much longer or shorter each step's change is than the last one's, on average over the kinds of calls."""
    return tuple(round(sum(ratios) / len(ratios), 4) for ratios in zip(*found.values()))


def _faster(watch: Watch, pipeline: Any, guided: bool, time: Any) -> Any:
    """FasterCache: attentions every other step, and the unguided half of a batch now and then.

    It knows two ways to work: both halves of the guidance in one batch, or no guidance beside the call. Where a
    pipeline guides in a call of its own it would give each call what the other computed, so this is refused.
    """
    text = inspect.getsource(type(pipeline))
    batched = guided and ('"cond_uncond"' in text or "torch.cat([latents] * 2)" in text)
    before: list[Any] = []

    def look(denoiser: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        now = time()
        if not batched and before and before[-1] is now:
            raise _unfit("faster", pipeline, "it guides in a call of its own; --set guidance=1 makes one call a step")
        first = next((value for value in (*args, *named.values()) if isinstance(value, torch.Tensor)), None)
        if batched and first is not None and first.ndim != 5:
            raise _unfit("faster", pipeline, "its latents are packed, and FasterCache must see frames")
        before[:] = [now]

    watch._handles.append(watch.denoiser.register_forward_pre_hook(look, with_kwargs=True))
    return diffusers.FasterCacheConfig(
        spatial_attention_block_skip_range=2,
        # until there is something to give back nothing is skipped: without this it raises at its first call
        current_timestep_callback=lambda: time() if watch.calls > 1 else float("inf"),
        spatial_attention_timestep_skip_range=(-1, 1001),
        is_guidance_distilled=not batched,
        tensor_format="BFCHW" if "CogVideoX" in type(watch.denoiser).__name__ else "BCFHW",
    )
