"""What can be trained: one function is one recipe, and its docstring states command, hardware, hours and the score to
expect."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from kinetograph.errors import UnknownName
from kinetograph.neural.training import flow as flowing
from kinetograph.neural.training import gan as adversarial
from kinetograph.neural.training import reader as supervised


class Recipe(Protocol):
    """A complete, frozen training configuration that knows its loop."""

    def train(self, folder: Path, **how: Any) -> None:
        """Run in a folder; `how` is as for `kinetograph.neural.training.run.train`."""


def gan() -> adversarial.Recipe:
    """The text-to-video GAN that comes with the package, on the circle world at 64 x 64, 10 frames.

    kinetograph train gan

    0.85 hours on two CPU cores (x86-64, AVX-512); not yet run on a GPU. It then gets every attribute right in 98 % of
    1,000 held-out prompts; the card (kinetograph/weights/gan/README.md) has the rest.
    """
    return adversarial.Recipe(world="circle", steps=9_000, batch=32)


def gan_tiny() -> adversarial.Recipe:
    """The same loop in seconds on any CPU, on clips of 16 x 16 and 4 frames: for tests and for looking at the
    machinery. Draws nothing of use: no score.

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
        exact_after=6,
        slope_every=2,
        bfloat16=False,
        save_every=4,
        sample_every=6,
        log_every=1,
    )


def reader() -> supervised.Recipe:
    """The network whose features the Fréchet distance is measured on, for every world of the package.

    kinetograph train reader

    About seven minutes on two CPU cores; it then names most attributes of most clips, which is all that is asked
    of it. The card (kinetograph/weights/reader/README.md) states how many.
    """
    return supervised.Recipe(worlds=("circle", "shapes", "critters"), steps=1_000, batch=48)


def flow() -> flowing.Recipe:
    """A video diffusion model of every world, at 128 x 128 and 16 frames. No weights of it come with the package yet.

    kinetograph train flow

    800,000 clips. On two CPU cores about eight clips a second, 28 hours; not yet run on a GPU. No score is known yet.
    """
    return flowing.Recipe(
        worlds={"circle": 0.2, "shapes": 0.35, "critters": 0.45},
        steps=70_000,
        batch=12,
        warmup=200,
        save_every=200,
        sample_every=200,
    )


def flow_circle() -> flowing.Recipe:
    """Diffusion on the GAN's own ground, for docs/gan-or-diffusion.md: the circle world at 64 x 64 and 10 frames.

    kinetograph train flow-circle

    As many hours of two CPU cores as the GAN was given; the page has the scores of both.
    """
    return flowing.Recipe(
        worlds={"circle": 1.0},
        model="circle",
        text="small",
        sizes=(flowing.Size(1.0, 10, 64, 64),),
        signal=(-1.4, 1.8),
        known=0.0,
        steps=7_200,
        batch=16,
        warmup=200,
        save_every=200,
        sample_every=500,
    )


def flow_tiny() -> flowing.Recipe:
    """The same loop in seconds on any CPU, on small clips: for tests and for looking at the machinery. Draws nothing of
    use: no score.

    kinetograph train flow-tiny
    """
    return flowing.Recipe(
        worlds={"circle": 1.0},
        steps=6,
        batch=4,
        model="tiny",
        text="tiny",
        sizes=(flowing.Size(0.5, 4, 16, 16), flowing.Size(0.5, 2, 32, 16)),
        sentences=4,
        warmup=2,
        bfloat16=False,
        save_every=4,
        sample_every=6,
        log_every=1,
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "gan": gan,
    "gan-tiny": gan_tiny,
    "flow": flow,
    "flow-circle": flow_circle,
    "flow-tiny": flow_tiny,
    "reader": reader,
}


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
