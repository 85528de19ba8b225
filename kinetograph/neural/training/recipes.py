"""What can be trained: one function is one recipe, and its docstring states command, hardware, hours and the score to
expect."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from kinetograph.errors import UnknownName
from kinetograph.neural.training import gan as adversarial
from kinetograph.neural.training import reader as supervised


class Recipe(Protocol):
    """A complete, frozen training configuration that knows its loop."""

    def train(self, folder: Path, **how: Any) -> None:
        """Run in a folder; see the loop of its kind, for example `kinetograph.neural.training.gan.train`."""


def gan() -> adversarial.Recipe:
    """The text-to-video GAN that comes with the package, on the circle world at 64 x 64, 10 frames.

    kinetograph train gan

    About half an hour on two CPU cores. The card (kinetograph/weights/gan/README.md) states its score.
    """
    return adversarial.Recipe(world="circle", steps=4_000, batch=32)


def gan_tiny() -> adversarial.Recipe:
    """The same loop in seconds, on clips of 16 x 16 and 4 frames: for tests and for looking at the machinery. Draws
    nothing of use.

    kinetograph train gan-tiny
    """
    return adversarial.Recipe(
        world="circle",
        steps=12,
        batch=4,
        model="tiny",
        text="tiny",
        warmup=2,
        head_start=3,
        slope_every=2,
        bfloat16=False,
        save_every=4,
        sample_every=6,
        log_every=1,
    )


def reader() -> supervised.Recipe:
    """The network whose features the Fréchet distance is measured on.

    kinetograph train reader

    About two minutes on two CPU cores; it then names most attributes of most clips, which is all that is asked of it.
    """
    return supervised.Recipe(world="circle", steps=500, batch=32)


RECIPES: dict[str, Callable[[], Recipe]] = {"gan": gan, "gan-tiny": gan_tiny, "reader": reader}


def names() -> list[str]:
    """The names of all recipes."""
    return sorted(RECIPES)


def describe(name: str) -> str:
    """What a recipe says of itself."""
    return inspect.getdoc(_named(name)) or ""


def get(name: str) -> Recipe:
    """The recipe of this name. Raises UnknownName with the nearest spelling."""
    return _named(name)()


def _named(name: str) -> Callable[[], Recipe]:
    if name not in RECIPES:
        raise UnknownName("recipe", name, RECIPES)
    return RECIPES[name]
