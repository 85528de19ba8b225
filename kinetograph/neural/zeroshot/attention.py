"""Cross-frame attention: self-attention in which the frames of a clip look at an anchor instead of themselves.

    softmax(Q_k [K_a]^T / sqrt(d)) [V_a]        for frame k, whose anchors are the frames a

Only anchors' keys and values are projected, and all frames that look at the same anchors are one long row of queries: a
single call of scaled dot-product attention, without a matrix of scores in memory and without copies. What a batch is
made of is told by `Crossing.look` before each call of the network: rows of a batch are ((groups * clips) frames), and
how many groups and clips there are follows from its length.

A clip may come in chunks, from its first frame to its last. What an anchor offers is kept until the last frame that
looks at it has been seen, and no longer than one step: so results do not depend on the chunks, and nothing is computed
twice.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kinetograph.errors import InvalidRequest, UnknownName
from kinetograph.neural.zeroshot import merging

Anchors = Callable[[int], tuple[int, ...]]  # of a frame: the frames it looks at, none of them later than itself
WINDOW = "window:"  # before the number of frames after which the anchor is a new one


def anchors(name: str) -> Anchors:
    """Anchors by their name: "first", "previous", "first+previous", "self" or "window:N".

    In windows of N frames each looks at the first of its window, and that one at itself and the one before it, so that
    windows hold together. Raises UnknownName and InvalidRequest.
    """
    if name.startswith(WINDOW):
        count = name.removeprefix(WINDOW)
        if not count.isdecimal() or int(count) < 1:
            raise InvalidRequest(f"{count!r} is no number of frames", field="anchors", hint="for example window:8")
        return lambda frame: _in_windows(frame, int(count))
    if name not in ANCHORS:
        raise UnknownName("kind of anchors", name, [*ANCHORS, f"{WINDOW}8"])
    return ANCHORS[name]


def _in_windows(frame: int, count: int) -> tuple[int, ...]:
    first = frame - frame % count
    return (first - count, first) if frame == first and first else (first,)


ANCHORS: dict[str, Anchors] = {
    "first": lambda frame: (0,),
    "previous": lambda frame: (max(frame - 1, 0),),
    "first+previous": lambda frame: (0, frame - 1) if frame > 1 else (0,),
    "self": lambda frame: (frame,),
}


@dataclass(frozen=True)
class View:
    """What one batch shows of a clip: its frames, and who looks at whom."""

    frames: range
    sources: tuple[int, ...]  # those of them that they or later ones look at
    needed: frozenset[int]  # those of all that later ones look at
    looks: tuple[tuple[tuple[int, ...], range], ...]  # (anchors, the frames that look at them)

    @classmethod
    def of(cls, frames: range, total: int, anchors: Anchors) -> "View":
        """These frames, of a clip of so many."""
        looks = [anchors(frame) for frame in range(total)]
        later = frozenset(anchor for seen in looks[frames.stop :] for anchor in seen)
        here = later.union(*(looks[frame] for frame in frames))
        runs = [(seen, list(some)) for seen, some in groupby(frames, key=looks.__getitem__)]
        return cls(
            frames,
            tuple(frame for frame in frames if frame in here),
            later,
            tuple((seen, range(some[0], some[-1] + 1)) for seen, some in runs),
        )


@dataclass
class Crossing:
    """What the attention layers are told before each call of the network."""

    anchors: Anchors
    view: View = View(range(1), (0,), frozenset(), (((0,), range(1)),))
    told: Any = None  # the words of all frames, where those are the same for all; what layers make of them is kept
    projections: int = 0  # of the keys and values of a frame in a layer, so far
    merging: float = 0.0  # what share of the tokens is merged where there are as many as the network begins with
    patch: int = 1  # cells along each side of the square that is one token
    cells: tuple[int, int] = (0, 0)  # rows and columns of latents
    _views: dict[tuple[range, int], View] = field(default_factory=dict)

    def look(self, frames: range, total: int, told: Any = None, cells: tuple[int, int] = (0, 0)) -> None:
        """The next batch holds these frames, of a clip of so many. Clips begin at 0, and chunks follow each other.

        `told` is any object that stays the same as long as all frames are told the same words; `cells` are the rows
        and columns of the latents.
        """
        self.cells = cells
        if (frames, total) not in self._views:
            self._views[frames, total] = View.of(frames, total, self.anchors)
        self.view, self.told = self._views[frames, total], told

    def groups(self, batch: int) -> int:
        """How many groups and clips a batch holds. Raises InvalidRequest for one that is not whole."""
        frames = len(self.view.frames)
        if batch % frames:
            hint = "call look() with the frames that the batch holds"
            raise InvalidRequest(f"a batch of {batch} is not made of {frames} frames", field="frames", hint=hint)
        return batch // frames

    def merged(self, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Tokens (b, n, d), fewer where they are those of the highest resolution, and what gives back their places."""
        rows, columns = (count // self.patch for count in self.cells)
        if self.merging and x.shape[1] == rows * columns:
            return merging.merged(x, columns, self.merging)
        return x, lambda y: y


def looks(network: nn.Module) -> bool:
    """Whether a network has self-attention that can look at anchors; small ControlNets have none."""
    return any(issubclass(kind, _Kept) for _, kind in _places(network))


@contextmanager
def crossing(*networks: nn.Module, anchors: Anchors = ANCHORS["first"], merging: float = 0.0) -> Iterator[Crossing]:
    """Within, the self-attention of these networks looks at anchors. Whatever happens, they are left as they were.

    Networks are diffusers': UNets, ControlNets, and the transformers of SD 3, PixArt and Sana. `merging` is the share
    of tokens that attend as one with others, from 0 to 0.75: at the highest resolution of UNets, in all layers of
    transformers. Raises InvalidRequest for a network without self-attention, and for merging where attention is linear.
    """
    state = Crossing(anchors, merging=merging, patch=max(map(_patch, networks), default=1))
    before = []
    try:
        for network in networks:
            places = list(_places(network))
            if not looks(network):
                fact = f"{type(network).__name__} has no self-attention that is known"
                raise InvalidRequest(fact, field="attention", hint="switch cross-frame attention off")
            if merging and any(kind is Linear for _, kind in places):
                fact = f"the attention of a {type(network).__name__} is linear: merging tokens would cost what it saves"
                raise InvalidRequest(fact, field="merging", hint="merging=0; reuse=2 saves work in this model")
            for layer, kind in places:
                before.append((layer, layer.processor))
                layer.processor = kind(state)
        yield state
    finally:
        for layer, processor in reversed(before):
            layer.processor = processor


def _patch(network: nn.Module) -> int:
    return getattr(getattr(network, "config", None), "patch_size", None) or 1


def _places(network: nn.Module) -> Iterator[tuple[Any, type[Any]]]:
    """The attention layers that are to change, and what is to work in them."""
    from diffusers.models import attention_processor as theirs

    for name, layer in network.named_modules():
        if not isinstance(layer, theirs.Attention):
            continue
        now = type(layer.processor).__name__
        if "Joint" in now:
            yield layer, Joint
        elif "Linear" in now:
            yield layer, Linear
        elif not layer.is_cross_attention:
            yield layer, Own
        elif now in ("AttnProcessor2_0", "AttnProcessor") and name.endswith("attn2"):
            yield layer, Told


class _Kept:
    """What anchors offer to one layer: two tensors each, by frame."""

    def __init__(self, state: Crossing) -> None:
        self.state = state
        self.kept: dict[int, tuple[Tensor, Tensor]] = {}

    def across(
        self,
        x: Tensor,
        project: Callable[[Tensor], tuple[Tensor, Tensor]],
        attend: Callable[[slice, tuple[int, ...]], Tensor],
    ) -> Tensor:
        """(g * f, ...): what frames x (g * f, n, d) make of their anchors; `project` says what an anchor offers.

        `attend` is asked for some of the frames, and all of their anchors are `kept` by then.
        """
        view = self.state.view
        groups = self.state.groups(len(x))
        if view.frames.start == 0:
            self.kept.clear()
        self._offer(x.unflatten(0, (groups, -1)), project)
        parts = []
        for anchors, some in view.looks:
            parts.append(attend(slice(some.start - view.frames.start, some.stop - view.frames.start), anchors))
        self.kept = {frame: pair for frame, pair in self.kept.items() if frame in view.needed}
        return (parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)).flatten(0, 1)

    def _offer(self, x: Tensor, project: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
        sources, frames = self.state.view.sources, self.state.view.frames
        if not sources:
            return
        some = x if len(sources) == len(frames) else x[:, [frame - frames.start for frame in sources]]
        one, two = (part.unflatten(0, (len(x), -1)) for part in project(some.flatten(0, 1)))
        self.kept |= {frame: (one[:, place], two[:, place]) for place, frame in enumerate(sources)}
        self.state.projections += len(sources)

    def seen(self, anchors: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """The keys and values (g, heads, n, d) of some anchors, one after the other."""
        if len(anchors) == 1:
            return self.kept[anchors[0]]
        keys, values = zip(*(self.kept[anchor] for anchor in anchors))
        return torch.cat(keys, dim=2), torch.cat(values, dim=2)


class Own(_Kept):
    """Self-attention of UNets, ControlNets and PixArt."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *_: Any,
        **__: Any,
    ) -> Tensor:
        if encoder_hidden_states is not None or attention_mask is not None or hidden_states.ndim != 3:
            hint = "switch cross-frame attention off"
            raise InvalidRequest("the self-attention of this model has a mask or is not of tokens", hint=hint)
        x, restored = self.state.merged(hidden_states)
        query = _normed(attn.norm_q, _heads(attn, attn.to_q(x)))
        query = query.unflatten(0, (self.state.groups(len(query)), -1))  # (g, f, heads, n, d)
        out = self.across(
            x,
            lambda some: _keys_and_values(attn, some),
            lambda some, anchors: _folded(query[:, some], *self.seen(anchors)),
        )
        return _finished(attn, restored(_joined(out)), hidden_states)


class Linear(_Kept):
    """The linear attention of Sana: relu(q) (relu(k)^T v), over its sum."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        query = _heads(attn, _normed(attn.norm_q, attn.to_q(hidden_states))).relu().float()
        query = query.unflatten(0, (self.state.groups(len(query)), -1))

        def read(some: slice, anchors: tuple[int, ...]) -> Tensor:
            kept = zip(*(self.kept[anchor] for anchor in anchors))
            products, sums = (torch.stack(parts).sum(0)[:, None] for parts in kept)
            return (query[:, some] @ products) / (query[:, some] @ sums + 1e-15)

        out = self.across(hidden_states, lambda some: _products(attn, some), read)
        out = _finished(attn, _joined(out.to(hidden_states.dtype)), hidden_states)
        return out.clip(-65504, 65504) if out.dtype == torch.float16 else out


def _products(attn: Any, some: Tensor) -> tuple[Tensor, Tensor]:
    """(f, heads, d, d) and (f, heads, d, 1): all that linear attention has to know of a frame."""
    key = _heads(attn, _normed(attn.norm_k, attn.to_k(some))).relu().float()
    value = _heads(attn, attn.to_v(some)).float()
    return key.transpose(2, 3) @ value, key.sum(2)[..., None]


class Joint(_Kept):
    """The joint attention of SD 3: pictures and words look at the anchors' pictures and at the frame's own words."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *_: Any,
        **__: Any,
    ) -> tuple[Tensor, Tensor] | Tensor:
        x, restored = self.state.merged(hidden_states)
        query = _normed(attn.norm_q, _heads(attn, attn.to_q(x)))
        groups = self.state.groups(len(query))
        words = None if encoder_hidden_states is None else _words(attn, encoder_hidden_states)
        if words is not None:
            query = torch.cat([query, words[0]], dim=2)
        query = query.unflatten(0, (groups, -1))
        beside = [part.unflatten(0, (groups, -1)) for part in words[1:]] if words else []

        def attend(some: slice, anchors: tuple[int, ...]) -> Tensor:
            if not beside:
                return _folded(query[:, some], *self.seen(anchors))
            here = query[:, some]
            key, value = (
                torch.cat([kept[:, None].expand(-1, here.shape[1], -1, -1, -1), own[:, some]], dim=3).flatten(0, 1)
                for kept, own in zip(self.seen(anchors), beside)
            )  # frames have words of their own: here each is a row, with the anchors' keys laid beside them
            return F.scaled_dot_product_attention(here.flatten(0, 1), key, value).unflatten(0, here.shape[:2])

        out = _joined(self.across(x, lambda some: _keys_and_values(attn, some), attend))
        shown = _finished(attn, restored(out[:, : x.shape[1]]), hidden_states)
        if encoder_hidden_states is None:
            return shown
        told = out[:, x.shape[1] :]
        return shown, told if attn.context_pre_only else attn.to_add_out(told)


def _words(attn: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    query, key, value = (_heads(attn, layer(x)) for layer in (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj))
    return _normed(attn.norm_added_q, query), _normed(attn.norm_added_k, key), value


class Told:
    """Attention to words. Where all frames are told the same, they are one row of queries, and the keys are kept."""

    def __init__(self, state: Crossing) -> None:
        self.state = state
        self.kept: tuple[Any, int, tuple[Tensor, Tensor]] | None = None

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        *_: Any,
        **__: Any,
    ) -> Tensor:
        groups, steady = self.state.groups(len(hidden_states)), self.state.told is not None
        frames = len(self.state.view.frames) if steady else 1
        mask = attention_mask
        if mask is not None:  # (g * f, 1, l), a number to be added
            mask = mask.unflatten(0, (-1, frames))[:, :1]
        query = _normed(attn.norm_q, _heads(attn, attn.to_q(hidden_states)))
        words = encoder_hidden_states.unflatten(0, (-1, frames))[:, 0]
        key, value = self._known(attn, words, groups) if steady else _keys_and_values(attn, _crossed(attn, words))
        out = _folded(query.unflatten(0, (-1, frames)), key, value, mask)
        return _finished(attn, _joined(out.flatten(0, 1)), hidden_states)

    def _known(self, attn: Any, words: Tensor, groups: int) -> tuple[Tensor, Tensor]:
        known = self.kept is not None and self.kept[0] is self.state.told and self.kept[1] == groups
        if self.kept is None or not known:
            self.kept = self.state.told, groups, _keys_and_values(attn, _crossed(attn, words))
        return self.kept[2]


def _crossed(attn: Any, words: Tensor) -> Tensor:
    return attn.norm_encoder_hidden_states(words) if attn.norm_cross else words


# ---- what layers have in common


def _keys_and_values(attn: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    return _normed(attn.norm_k, _heads(attn, attn.to_k(x))), _heads(attn, attn.to_v(x))


def _heads(attn: Any, x: Tensor) -> Tensor:
    return x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)  # (b, heads, n, d)


def _normed(norm: Any, x: Tensor) -> Tensor:
    return x if norm is None else norm(x)


def _folded(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention of queries (g, f, heads, n, d) to keys and values (g, heads, m, d), the frames folded into one row."""
    frames = query.shape[1]
    row = query.transpose(1, 2).flatten(2, 3)  # (g, heads, f * n, d)
    out = F.scaled_dot_product_attention(row, key, value, attn_mask=mask)
    return out.unflatten(2, (frames, -1)).transpose(1, 2)


def _joined(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)  # (b, n, heads * d)


def _finished(attn: Any, out: Tensor, before: Tensor) -> Tensor:
    x = attn.to_out[1](attn.to_out[0](out))  # (b, n, heads * d)
    return (x + before if attn.residual_connection else x) / attn.rescale_output_factor
