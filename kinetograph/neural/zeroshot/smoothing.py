"""Background smoothing: what is no moving thing of its own is drawn alike in every frame.

Text2Video-Zero (Khachatryan et al. 2023, eq. 9) blends the latents of the background with the first frame's, moved as
the whole scene moves:

    x^k <- M^k x^k + (1 - M^k) (alpha W_k(x^1) + (1 - alpha) x^k)

Here the x are *clean estimates*, not noisy latents: to average noises is to lose variance, and with it detail. So it
can be done at any step of any sampler, needs no pass of its own, and strength 0 changes nothing. M, the foreground,
comes from the words' attention, from motion that is not the scene's, from both, or from a mask clip.

Masks are (f, 1, h, w) on the grid of the latents, 1 where something stands out; frames are (f, c, h, w).
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kinetograph.errors import InvalidRequest
from kinetograph.neural.sampling import Denoiser, Level, Levels
from kinetograph.neural.zeroshot.controlling import step_of
from kinetograph.neural.zeroshot.loop import Predict
from kinetograph.neural.zeroshot.motion import Pose

# What the first frame shows (1, c, h, w) -> what each frame would, if nothing moved but the scene (f, c, h, w): 0 where
# the first frame does not say.
Warp = Callable[[Tensor], Tensor]


def smooth(clean: Tensor, foreground: Tensor, warp: Warp, strength: float) -> Tensor:
    """Clean estimates (f, c, h, w) with `strength` of the background taken from the first frame: 0 none, 1 all of it.

    The first frame stays as it is, and so does what it does not show.
    """
    share = strength * background(foreground, warp).to(clean.dtype)
    share[:1] = 0
    return clean + share * (warp(clean[:1]) - clean)


def background(foreground: Tensor, warp: Warp) -> Tensor:
    """Where (f, 1, h, w) neither a frame nor the first one, moved with the scene, has foreground."""
    shown = warp(torch.ones_like(foreground[:1]))
    return (shown > 0.999).to(foreground.dtype) * (1 - torch.maximum(foreground, warp(foreground[:1])))


def grown(mask: Tensor, cells: int) -> Tensor:
    """A mask that reaches `cells` further on every side."""
    return F.max_pool2d(mask, 2 * cells + 1, stride=1, padding=cells) if cells else mask


# ---- how the scene moves


def placed(origins: Tensor, seen: Tensor) -> Warp:
    """The warp that takes each place of each frame from where it was in the first one: `origins` (f, h, w, 2) are x and
    y in fractions of the frame, `seen` (f, h, w) whether it was there."""

    def warp(x: Tensor) -> Tensor:
        grid = (origins.to(x) * 2 - 1).expand(-1, *x.shape[2:], 2)
        taken = F.grid_sample(x.expand(len(grid), -1, -1, -1), grid, mode="bilinear", align_corners=False)
        return taken * seen.to(x)[:, None]

    return warp


def still(frames: int) -> Warp:
    """The warp of a scene that does not move."""
    return lambda x: x.expand(frames, -1, -1, -1)


def moving(poses: Sequence[Pose], fields: Sequence[Tensor | None], height: int, width: int) -> Warp:
    """The warp of a scene that is moved to these poses and, on top of that, by these fields (2, h, w)."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    here = torch.stack([x / width, y / height], dim=-1)
    origins = [_origins(here, pose, field, width / height) for pose, field in zip(poses, fields, strict=True)]
    return placed(torch.stack(origins), torch.ones(len(origins), height, width))


def _origins(here: Tensor, pose: Pose, field: Tensor | None, aspect: float) -> Tensor:
    """Where (h, w, 2) what is seen at places came from; with a field, which is known where things come from, by a few
    rounds of looking there."""
    back = pose.matrix(aspect).inverse().T
    origins = (here - 0.5 - torch.tensor([pose.x, pose.y])) @ back + 0.5
    for _ in range(8):
        if field is None:
            break
        grid = (origins * 2 - 1)[None]
        carried = F.grid_sample(field.cpu().float()[None], grid, padding_mode="border", align_corners=False)
        origins = (here - carried[0].movedim(0, -1) - 0.5 - torch.tensor([pose.x, pose.y])) @ back + 0.5
    return origins


# ---- where the foreground is


def from_attention(maps: Tensor, words: Sequence[int] = ()) -> Tensor:
    """How much (f, 1, h, w), in [0, 1], the words at these places draw attention, of maps (f, l, h, w).

    Without words it is what the first place, the start of every sentence, does not get: in CLIP's sentences that one
    draws what no word is about. Maps that are the same everywhere say nothing, and give 0.
    """
    count = maps.shape[1]
    if any(not 0 <= word < count for word in words):
        raise InvalidRequest(f"a sentence of {count} places has none of {list(words)}", field="smooth_words")
    said = maps[:, list(words)].mean(dim=1, keepdim=True) if words else 1 - maps[:, :1]
    low, high = said.min(), said.max()
    return (said - low) / (high - low) if high - low > 1e-6 else torch.zeros_like(said)


def threshold(saliency: Tensor, bins: int = 64) -> float:
    """What divides values in [0, 1] best into two kinds (Otsu 1979): above all of them where they are all alike."""
    counts = torch.histc(saliency.float(), bins, 0.0, 1.0).double()
    centres = (torch.arange(bins, device=counts.device) + 0.5).double() / bins
    below, above = counts.cumsum(0), counts.sum() - counts.cumsum(0)
    mean_below = (counts * centres).cumsum(0) / below.clamp(min=1)
    mean_above = ((counts * centres).sum() - (counts * centres).cumsum(0)) / above.clamp(min=1)
    between = below * above * (mean_below - mean_above).square()
    return float((between.argmax() + 1) / bins) if between.max() > 0 else math.inf


def from_flow(clean: Tensor, warp: Warp, reach: int = 2, scales: int = 2) -> Tensor:
    """How far (f, 1, h, w), in cells, things moved that did not move with the scene.

    Lucas and Kanade (1981), between each clean estimate and the first one as the scene would have moved it, at several
    scales, of which the largest answer counts. It is motion that is measured, not difference: a background that
    flickers differs most, and is what smoothing is for. What the first frame does not show has not moved.
    """
    first, shown = warp(clean[:1]).float(), warp(torch.ones_like(clean[:1, :1])).float()
    still, now = first, clean.float() * shown  # (f, c, h, w)
    moved = torch.zeros_like(clean[:, :1], dtype=torch.float32)
    for scale in range(scales):
        if min(still.shape[2:]) < 2 * reach + 1:
            break
        found = 2**scale * _lucas_kanade(still, now, reach).norm(dim=1, keepdim=True)
        moved = torch.maximum(moved, F.interpolate(found, moved.shape[2:], mode="bilinear"))
        still, now = (F.avg_pool2d(x, 2, ceil_mode=True) for x in (still, now))
    return moved * (shown > 0.999)


def _lucas_kanade(still: Tensor, now: Tensor, reach: int) -> Tensor:
    """The shift (f, 2, h, w), x and y in cells, that best explains `now` by `still` (f, c, h, w) around each cell."""
    padded = F.pad(still, (1, 1, 1, 1), mode="replicate")
    x = (padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]) / 2
    y = (padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]) / 2

    def near(product: Tensor) -> Tensor:
        return F.avg_pool2d(product.sum(dim=1, keepdim=True), 2 * reach + 1, 1, reach, count_include_pad=False)

    xx, xy, yy, xt, yt = (near(a * b) for a, b in ((x, x), (x, y), (y, y), (x, now - still), (y, now - still)))
    doubt = 0.05 * (xx + yy).mean() + 1e-8  # where there is no structure there is no motion to be seen
    xx, yy = xx + doubt, yy + doubt
    return torch.cat([xy * yt - yy * xt, xy * xt - xx * yt], dim=1) / (xx * yy - xy * xy)


def foreground(
    source: str,
    clean: Tensor,
    warp: Warp,
    maps: Tensor | None = None,
    words: Sequence[int] = (),
    *,
    cells: float = 0.5,
    grow: int = 2,
) -> Tensor:
    """The mask (f, 1, h, w) of a source: "attention" to words, "flow" above so many cells, or what "both" agree on or
    either sees alone.

    Attention that sees nothing says nothing: then everything is foreground, so that nothing is smoothed away. Flow that
    sees nothing says that nothing moves on its own, and everything is background.
    """
    found = torch.zeros_like(clean[:, :1], dtype=torch.float32)
    if source not in SOURCES:
        raise InvalidRequest(f"no source of masks is called {source!r}", field="smooth_masks", hint=", ".join(SOURCES))
    if source in ("attention", "both"):
        if maps is None:
            hint = "this network has no attention from the picture to the words; use flow"
            raise InvalidRequest("there are no attention maps", field="smooth_masks", hint=hint)
        salient = from_attention(maps.float(), words)
        seen = (salient > threshold(salient)).float()
        found = seen if seen.any() or source == "both" else torch.ones_like(seen)
    if source in ("flow", "both"):
        found = torch.maximum(found, (from_flow(clean, warp) > cells).float())
    return grown(found, grow)


SOURCES = ("attention", "flow", "both", "clip")


def given(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks of a user (f, 1, H, W) in [0, 1] on the grid of the latents: a cell is foreground where any of its pixels
    is. Refuses masks that are all background or not finite."""
    if not torch.isfinite(masks).all() or masks.min() < 0 or masks.max() > 1:
        raise InvalidRequest("a mask holds numbers that are not in 0 ... 1", field="smooth_mask")
    small = F.adaptive_max_pool2d(masks.float(), size)
    empty = [k for k, frame in enumerate(small) if not (frame > 0.5).any()]
    if empty:
        more = f", nor do {len(empty) - 1} others" if len(empty) > 1 else ""
        raise InvalidRequest(
            f"frame {empty[0]} of the mask clip shows no foreground{more}",
            field="smooth_mask",
            hint="white is foreground; without any, the whole frame would become the first one: leave the mask out, "
            "or use smooth_masks=flow",
        )
    return (small > 0.5).float()


# ---- in a clip's loop


@dataclass(frozen=True, kw_only=True)
class Smoothing:
    """How a clip is smoothed: how much, from which to which part of the steps, by masks from where.

    `words` are places in the sentence; `given` are masks (f, 1, h, w) of the user's, for the source "clip".
    """

    strength: float
    warp: Warp
    source: str = "both"
    words: Sequence[int] = ()
    since: float = 0.0
    until: float = 0.6
    cells: float = 0.5
    grow: int = 2
    given: Tensor | None = None


class Smoother:
    """Smooths the clean estimates of a loop. `predict` is to be asked in place of the network, `denoise` around it."""

    def __init__(self, plan: Smoothing, levels: Levels, seen: "Attention | None") -> None:
        self.plan, self.levels, self.seen = plan, levels, seen
        self.masks: Tensor | None = None  # those of the last step, (f, 1, h, w) of each clip
        self._chunks: list[Tensor] = []
        self._total: Tensor | None = None  # the sum of all steps' maps: where something is does not change much

    def predict(self, predict: Predict) -> Predict:
        """The network, watched: where it looks for each word is noted, of the last group of guidance."""

        def said(x: Tensor, level: Level, told: Mapping[str, Any], frames: range) -> Tensor:
            found = predict(x, level, told, frames)
            maps = self.seen.take((x.shape[2], x.shape[3])) if self.seen else None
            if maps is not None:
                self._chunks.append(maps[-len(frames) :].cpu())
            return found

        return said

    def denoise(self, denoise: Denoiser) -> Denoiser:
        """The loop's denoiser of one clip (1, c, t, h, w), its clean estimates smoothed."""

        def clean(x: Tensor, level: Level) -> Tensor:
            found = denoise(x, level)
            maps = torch.cat(self._chunks) if self._chunks else None
            self._chunks.clear()
            step, steps = step_of(level, self.levels), len(self.levels) - 1
            if found.shape[2] == 1 or not self.plan.since <= step / steps < self.plan.until:
                return found
            if maps is not None:  # a step that asks no deep layers sees none
                self._total = maps if self._total is None else self._total + maps
            frames = found[0].transpose(0, 1)
            self.masks = self._foreground(frames, None if self._total is None else self._total.to(found.device))
            return smooth(frames, self.masks, self.plan.warp, self.plan.strength).transpose(0, 1)[None]

        return clean

    def _foreground(self, frames: Tensor, maps: Tensor | None) -> Tensor:
        plan = self.plan
        if plan.given is not None:
            return grown(plan.given.to(frames.device), plan.grow)
        return foreground(plan.source, frames, plan.warp, maps, plan.words, cells=plan.cells, grow=plan.grow)


# ---- attention to words


def places(tokenizer: Any, prompt: str, words: str) -> list[int]:
    """Where in what a network is told of a prompt some of its words stand. Raises InvalidRequest where they do not."""

    def tokens(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False).input_ids)

    whole, found = list(tokenizer(prompt).input_ids), []
    for word in words.replace(",", " ").split():
        own = tokens(word)
        at = [i for i in range(len(whole) - len(own) + 1) if whole[i : i + len(own)] == own]
        if not own or not at:
            hint = f"words of the sentence, which is {prompt!r}"
            raise InvalidRequest(f"the sentence does not say {word!r}", field="smooth_words", hint=hint)
        found += [i + k for i in at for k in range(len(own))]
    return sorted(set(found))


class Attention:
    """Collects where a network looks for each word while it is asked; see `watching`."""

    def __init__(self) -> None:
        self._sums: dict[int, Tensor] = {}  # over the layers with so many places
        self._layers = 0

    def take(self, size: tuple[int, int]) -> Tensor | None:
        """The mean over layers and heads (b, l, h, w) since the last time, on a grid of this size, and forget it."""
        if not self._sums:
            return None
        whole = torch.stack([_as_grid(total, size) for total in self._sums.values()]).sum(dim=0) / self._layers
        self._sums, self._layers = {}, 0
        return whole

    def add(self, module: Any, hidden: Tensor, words: Tensor, most: int = 1024) -> None:
        """Note one layer's attention from places (b, n, d) to words (b, l, d), unless it has more places than `most`:
        the finest layers see textures, not things."""
        if hidden.ndim == 4:
            hidden = hidden.flatten(2).transpose(1, 2)
        if hidden.shape[1] > most:
            return
        q, k = (t.unflatten(2, (module.heads, -1)).transpose(1, 2) for t in (module.to_q(hidden), module.to_k(words)))
        scores = q.float() @ k.float().transpose(2, 3) / math.sqrt(q.shape[-1])  # (b, heads, n, l)
        found = scores.softmax(dim=3).mean(dim=1)
        self._sums[found.shape[1]] = self._sums.get(found.shape[1], 0) + found
        self._layers += 1


def _as_grid(attention: Tensor, size: tuple[int, int]) -> Tensor:
    """Attention (b, n, l) of a layer as maps (b, l, h, w): its grid is the latents', halved a few times."""
    height, width = size
    while height * width > attention.shape[1]:
        height, width = -(-height // 2), -(-width // 2)
    if height * width != attention.shape[1]:
        raise InvalidRequest(f"{attention.shape[1]} places are no grid like {size[1]}x{size[0]}", field="smooth_masks")
    maps = attention.transpose(1, 2).unflatten(2, (height, width))
    return F.interpolate(maps, size, mode="bilinear") if (height, width) != size else maps


@contextmanager
def watching(model: nn.Module) -> Iterator[Attention]:
    """Within, what the model's layers of attention to words see is collected. Afterwards the model is as it was."""
    seen = Attention()

    def note(module: nn.Module, arguments: tuple, named: dict) -> None:
        hidden = arguments[0] if arguments else named["hidden_states"]
        words = arguments[1] if len(arguments) > 1 else named.get("encoder_hidden_states")
        if words is not None:
            with torch.no_grad():
                seen.add(module, hidden, words)

    layers = [m for m in model.modules() if getattr(m, "is_cross_attention", False) and hasattr(m, "to_k")]
    handles = [layer.register_forward_pre_hook(note, with_kwargs=True) for layer in layers]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
