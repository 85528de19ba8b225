"""Reuse of features: the deep blocks of a network change little from step to step, and work only every few of them.

In UNets it is DeepCache (Ma et al. 2024): between, only the outermost blocks, at full resolution, see the new latents.
A transformer has one resolution: there all blocks but the first and the last are deep, and what is kept is what they
add to what comes to them (Delta-DiT, Chen et al. 2024). Both keep it for each chunk of frames. Faster and no longer
exact: measure what it costs.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from kinetograph.errors import InvalidRequest


class Reuse:
    """What the deep blocks said last, by chunk, and how many steps ago."""

    def __init__(self, every: int) -> None:
        self.every = every
        self.skipped, self.asked = 0, 0  # calls of the network
        self.fresh = True
        self._place: tuple[range, int] = range(1), 1
        self._ages: dict[tuple[range, int], int] = {}
        self._said: dict[tuple[range, int], Any] = {}

    def look(self, frames: range, total: int) -> None:
        """The next call of the network is for these frames, of a clip of so many."""
        if total != self._place[1]:
            self._ages, self._said = {}, {}
        self._place = frames, total
        age = self._ages.get(self._place, self.every)
        self.fresh = age >= self.every
        self._ages[self._place] = 1 if self.fresh else age + 1
        self.asked, self.skipped = self.asked + 1, self.skipped + (not self.fresh)

    def keep(self, said: Any) -> Any:
        """Remember what was just said."""
        self._said[self._place] = said
        return said

    def again(self) -> Any:
        """What was said of these frames last."""
        return self._said[self._place]


@contextmanager
def reusing(network: Any, every: int) -> Iterator[Reuse]:
    """Within, a network of diffusers computes its deep blocks in every so many steps. Whatever happens, it is restored.

    Raises InvalidRequest for a network that has none: a UNet of one level, a transformer of two blocks.
    """
    state = Reuse(every)
    wrapped = _of_transformer(network, state) if hasattr(network, "transformer_blocks") else _of_unet(network, state)
    if not wrapped:
        hint = "reuse=1; it is made for UNets of several levels and transformers of three blocks and more"
        raise InvalidRequest(f"{type(network).__name__} has no deep blocks to skip", field="reuse", hint=hint)
    before = [block.__dict__.get("forward") for block, _ in wrapped]
    try:
        for block, forward in wrapped:
            block.__dict__["forward"] = forward
        yield state
    finally:
        for (block, _), own in zip(wrapped, before):
            del block.__dict__["forward"]
            if own is not None:  # offloading hooks put one there, too
                block.__dict__["forward"] = own


Wrapped = list[tuple[nn.Module, Callable[..., Any]]]


# ---- UNets


def _of_unet(unet: Any, state: Reuse) -> Wrapped:
    if len(getattr(unet, "down_blocks", ())) < 2:
        return []
    shapes: dict[int, list[Any]] = {}
    last = len(unet.up_blocks) - 2
    wrapped: Wrapped = []
    wrapped += [(block, _down(block.forward, shapes, place, state)) for place, block in enumerate(unet.down_blocks[1:])]
    wrapped += [(unet.mid_block, _through(unet.mid_block.forward, state))] if unet.mid_block is not None else []
    wrapped += [(block, _through(block.forward, state)) for block in unet.up_blocks[:last]]
    return [*wrapped, (unet.up_blocks[last], _last(unet.up_blocks[last].forward, state))]


def _down(forward: Callable[..., Any], shapes: dict[int, list[Any]], place: int, state: Reuse) -> Callable[..., Any]:
    def down(hidden_states: Tensor, *args: Any, **more: Any) -> Any:
        if state.fresh:
            out, kept = forward(hidden_states, *args, **more)
            shapes[place] = [part.shape[1:] for part in kept]
            return out, kept
        nothing = hidden_states.new_zeros(())
        kept = tuple(nothing.expand(len(hidden_states), *shape) for shape in shapes[place])
        return kept[-1], kept

    return down


def _through(forward: Callable[..., Any], state: Reuse) -> Callable[..., Any]:
    def through(hidden_states: Tensor, *args: Any, **more: Any) -> Any:
        return forward(hidden_states, *args, **more) if state.fresh else hidden_states

    return through


def _last(forward: Callable[..., Any], state: Reuse) -> Callable[..., Any]:
    def last(hidden_states: Tensor, *args: Any, **more: Any) -> Any:
        return state.keep(forward(hidden_states, *args, **more)) if state.fresh else state.again()

    return last


# ---- transformers


def _of_transformer(transformer: Any, state: Reuse) -> Wrapped:
    deep = list(transformer.transformer_blocks)[1:-1]
    if not deep:
        return []
    done = _done(state)
    return [(deep[0], _all([block.forward for block in deep], state)), *((block, done) for block in deep[1:])]


def _all(forwards: list[Callable[..., Any]], state: Reuse) -> Callable[..., Any]:
    """All deep blocks at the place of their first one. Those of SD 3 give back words, too, before the picture."""

    def work(hidden_states: Tensor, *args: Any, **more: Any) -> Any:
        words = more.get("encoder_hidden_states")
        if not state.fresh:
            *told, added = state.again()
            x = hidden_states + added
            return (words + told[0], x) if told else x
        x, told = hidden_states, []
        for forward in forwards:
            said = forward(x, *args, **more)
            if isinstance(said, tuple):
                more["encoder_hidden_states"], x = said
                told = [said[0] - words]
            else:
                x = said
        state.keep((*told, x - hidden_states))
        return said

    return work


def _done(state: Reuse) -> Callable[..., Any]:
    def done(hidden_states: Tensor, *args: Any, **more: Any) -> Any:
        joint = len(state.again()) > 1
        return (more["encoder_hidden_states"], hidden_states) if joint else hidden_states

    return done
