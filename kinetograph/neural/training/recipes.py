"""What can be trained: one function is one recipe, and its docstring states command, hardware, hours and the score to
expect."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, cast

from kinetograph.errors import InvalidRequest, UnknownName, did_you_mean
from kinetograph.neural.training import autoencoder as coding
from kinetograph.neural.training import clips, companions
from kinetograph.neural.training import dreambooth as personal
from kinetograph.neural.training import flow as flowing
from kinetograph.neural.training import gan as adversarial
from kinetograph.neural.training import layered as animating
from kinetograph.neural.training import pocket as picturing
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
    """A video diffusion model of every world in pixels, without a model of stills, at 128 x 128 and 16 frames.

    kinetograph train flow

    840,000 clips. One CPU core with AMX takes six to eight a second, so about 35 hours; not yet run on a GPU. After
    19,000 clips (LOG.md) figures were smears; no score is known.
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
    """Diffusion on the GAN's own ground: the circle world at 64 x 64 and 10 frames, so that the two can be compared.

    kinetograph train flow-circle

    115,000 clips; about 1.7 hours of one CPU core by the time of its first steps, as much as the GAN was given. Run for
    1,388 steps, half an hour: splotches, of 200 clips none was right (docs/gan-or-diffusion.md).
    """
    return flowing.Recipe(
        worlds={"circle": 1.0},
        model="circle",
        text="small",
        sizes=(clips.Size(1.0, 10, 64, 64),),
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
        sizes=(clips.Size(0.5, 4, 16, 16), clips.Size(0.5, 2, 32, 16)),
        sentences=4,
        looks=8,
        **_TINY,
    )


def layered() -> animating.Recipe:
    """A model of clips in layers, of every world at 128 x 128.

    kinetograph train layered

    The bundled weights had 326,000 sentences and 136,000 drawings in 6.4 minutes of an H200 (`--set helpers=15 --set
    drawings=80 --set cooldown=0.5 --set head_start=0 --set bfloat16=false`), after 4.5 hours of a CPU,
    nearly all with two cores (weights/flow/README.md, with scores); this itself, from nothing, has not been run.
    """
    return animating.Recipe(
        worlds={"circle": 0.2, "shapes": 0.4, "critters": 0.4},
        steps=3_000,
        batch=192,
        warmup=100,
        cooldown=0.4,
        head_start=400,
        save_every=100,
        sample_every=500,
    )


def layered_large() -> animating.Recipe:
    """The same with about four times the weights, for half an hour of a GPU beside which fifteen processes draw.

    kinetograph train layered-large

    Not yet run: no score. The steps are as many as an H200 would take in half an hour if each took it a third longer
    than those of `layered`.
    """
    return animating.Recipe(
        worlds={"circle": 0.15, "shapes": 0.4, "critters": 0.45},
        model="large",
        steps=6_000,
        batch=192,
        drawings=80,
        helpers=15,
        warmup=200,
        cooldown=0.5,
        head_start=400,
        save_every=200,
        sample_every=1_000,
    )


def layered_tiny() -> animating.Recipe:
    """The same loop in seconds on any CPU, with small stills: for tests and for looking at the machinery. No score.

    kinetograph train layered-tiny
    """
    return animating.Recipe(
        worlds={"circle": 0.5, "critters": 0.5},
        model="tiny",
        steps=6,
        batch=4,
        drawings=3,
        stills=2,
        looks=40,
        frames=4,
        height=32,
        width=64,
        **_TINY,
    )


def pocket_autoencoder() -> coding.Recipe:
    """The autoencoder of the pocket model of pictures, on stills of every world at 128 x 128.

    kinetograph train pocket-autoencoder

    Three runs made the one that there is, each but the first with the weights before (`--set start=`): 3,865 steps with
    `--set detail=0`, 3,200 with `detail`, both with latents of any kind, and 2,200 of this recipe; 1.6 hours of one CPU
    core (x86-64, AMX). Then its decoder took 3,600 alone, in 0.87 hours (docs/pocket.md has the command). It draws
    unseen scenes nearly whole (docs/pocket.md); no score.
    """
    return coding.Recipe(
        worlds={"circle": 0.1, "shapes": 0.3, "critters": 0.6}, steps=3_000, batch=4, save_every=100, sample_every=200
    )


def pocket_autoencoder_tiny() -> coding.Recipe:
    """The same loop in seconds on any CPU, on pictures of 32 x 32: for tests and for looking at the machinery. No
    score.

    kinetograph train pocket-autoencoder-tiny
    """
    return coding.Recipe(
        worlds={"circle": 1.0},
        steps=6,
        batch=2,
        model="tiny",
        size=32,
        **_TINY,
    )


def pocket_image() -> picturing.Recipe:
    """The pocket model of pictures: stills of every world at 128 x 128 from a sentence, in Stable Diffusion's layout.

    kinetograph train pocket-image --set autoencoder=runs/pocket-autoencoder

    With `--set compiled=true` two CPU cores with AMX take 104 noised pictures a second (three of each; two processes
    under torchrun, `--set batch=32`), an H200 4,096 (`--set batch=128 --set noises=4 --set helpers=15`). `--set
    start=pocket-image --set naming=0` goes on from the weights of the package.
    """
    return picturing.Recipe(
        worlds={"circle": 0.1, "shapes": 0.25, "critters": 0.65},
        steps=10_000,
        batch=16,
        noises=3,
        spread=1.0,
        middle=0.7,
        figures=16.0,
        sentences=16,
        warmup=200,
        save_every=250,
        sample_every=500,
    )


def pocket_image_tiny() -> picturing.Recipe:
    """The same loop in seconds on any CPU, on pictures of 32 x 32: for tests and for looking at the machinery. No
    score.

    kinetograph train pocket-image-tiny --set autoencoder=runs/pocket-autoencoder-tiny
    """
    return picturing.Recipe(
        worlds={"circle": 1.0},
        steps=6,
        batch=2,
        noises=2,
        model="tiny",
        size=32,
        sentences=4,
        **_TINY,
    )


def dreambooth() -> personal.Recipe:
    """A model of pictures learns one thing from a handful of them: the whole network (DreamBooth).

    kinetograph train dreambooth --set model=DIR --set images=DIR --set "prompt=a photo of sks dog" \\
        --set "prior_prompt=a photo of a dog"

    800 pictures of the thing, in 800 steps. For Stable Diffusion 1.5 a GPU with 24 GB; not yet run on one. No score:
    it depends on the pictures.
    """
    return personal.Recipe(steps=800, batch=1, rate=2e-6, warmup=20, cooldown=0.1, save_every=200, sample_every=200)


def dreambooth_lora() -> personal.Recipe:
    """The same with matrices of low rank beside the network's attention (LoRA): a file of a few MB, which any model of
    that family can load.

    kinetograph train dreambooth-lora --set model=DIR --set images=DIR --set "prompt=a photo of sks dog" \\
        --set "prior_prompt=a photo of a dog"

    For Stable Diffusion 1.5 a GPU with 8 GB; not yet run on one. No score: it depends on the pictures.
    """
    return personal.Recipe(
        steps=800, batch=1, rank=8, rate=1e-4, warmup=20, cooldown=0.1, save_every=200, sample_every=200
    )


def pocket_edge() -> companions.Recipe:
    """The pocket image model obeys edges: a ControlNet without attention beside it, at 128 x 128.

    kinetograph train pocket-edge

    The weights of the package had 1,100 steps of 64 stills in three minutes of an H200 that four companions shared;
    their card has the scores. 500 steps of 32 take 17 minutes of two CPU cores (x86-64, AMX, two processes under
    torchrun, `--set compiled=true`). `--set model=DIR` takes another model of Stable Diffusion's family.
    """
    return companions.Recipe(kind="edge", worlds={"critters": 0.7, "shapes": 0.3}, **_POCKET)


def pocket_depth() -> companions.Recipe:
    """The pocket image model obeys depth, as the worlds draw it.

    kinetograph train pocket-depth

    As `pocket-edge`.
    """
    return companions.Recipe(kind="depth", worlds={"critters": 0.7, "shapes": 0.3}, **_POCKET)


def pocket_pose() -> companions.Recipe:
    """The pocket image model obeys the skeletons of critters.

    kinetograph train pocket-pose

    As `pocket-edge`.
    """
    return companions.Recipe(kind="pose", worlds={"critters": 1.0}, **_POCKET)


def pocket_edit() -> companions.Recipe:
    """A pocket model that edits by instructions: "make it night", "turn the dog into a rabbit".

    kinetograph train pocket-edit

    As `pocket-edge`, 986 steps of 96 stills in five minutes of an H200 (`--set figures=0`), then 2,100 of 16 in 1.65
    hours of one CPU core (docs/pocket.md has that command). The folder holds the UNet and names the model whose other
    parts it shares; `--set whole=true` writes them too, for any program that reads diffusers' folders.
    """
    worlds = {"critters": 0.7, "shapes": 0.3}
    return companions.Recipe(kind="edit", worlds=worlds, figures=8.0, **{**_POCKET, "steps": 4_000})


_TINY: dict[str, Any] = {"warmup": 2, "bfloat16": False, "save_every": 4, "sample_every": 6, "log_every": 1}
_POCKET: dict[str, Any] = {
    "steps": 2_000,
    "batch": 32,
    "noises": 3,
    "spread": 1.1,
    "middle": 0.2,
    "warmup": 200,
    "save_every": 250,
    "sample_every": 500,
    "log_every": 10,
}


RECIPES: dict[str, Callable[[], Recipe]] = {
    "dreambooth": dreambooth,
    "dreambooth-lora": dreambooth_lora,
    "gan": gan,
    "gan-tiny": gan_tiny,
    "flow": flow,
    "flow-circle": flow_circle,
    "flow-tiny": flow_tiny,
    "layered": layered,
    "layered-large": layered_large,
    "layered-tiny": layered_tiny,
    "pocket-autoencoder": pocket_autoencoder,
    "pocket-autoencoder-tiny": pocket_autoencoder_tiny,
    "pocket-image": pocket_image,
    "pocket-image-tiny": pocket_image_tiny,
    "pocket-depth": pocket_depth,
    "pocket-edge": pocket_edge,
    "pocket-edit": pocket_edit,
    "pocket-pose": pocket_pose,
    "reader": reader,
}


def names() -> list[str]:
    """The names of all recipes."""
    return sorted(RECIPES)


def describe(name: str) -> str:
    """What a recipe says of itself."""
    return inspect.getdoc(_named(name)) or ""


def get(name: str, settings: Mapping[str, Any] = MappingProxyType({})) -> Recipe:
    """The recipe of this name, with some of its settings replaced. Raises UnknownName with the nearest spelling, and
    InvalidRequest for a setting that it does not have or cannot have."""
    recipe: Any = _named(name)()
    return cast(Recipe, _replaced(name, recipe, settings) if settings else recipe)


def _replaced(name: str, recipe: Any, settings: Mapping[str, Any]) -> Any:
    from pydantic import TypeAdapter, ValidationError  # late: training itself does without it

    said = {f.name: getattr(recipe, f.name) for f in fields(recipe)}
    for setting in settings:
        if setting not in said:
            hint = did_you_mean(setting, said)
            raise InvalidRequest(f"the recipe {name} has no setting {setting!r}", field=setting, hint=hint)
    try:
        return TypeAdapter(type(recipe)).validate_python({**said, **settings})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        message = f"the setting {where} of {name} is {first['input']!r}"
        raise InvalidRequest(message, field=where, hint=first["msg"]) from error


def _named(name: str) -> Callable[[], Recipe]:
    if name not in RECIPES:
        raise UnknownName("recipe", name, RECIPES)
    return RECIPES[name]
