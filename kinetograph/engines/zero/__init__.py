"""The zero-shot engine: any model of pictures makes videos, without training (Text2Video-Zero, on any family).

References: `zero:FOLDER`, `zero:OWNER/NAME[@REVISION]` or a short name, `zero:sd-1.5`: a text-to-picture model in
diffusers' format; or `zero:FILE.safetensors`, a checkpoint of one file, whose settings another model lends it
(`config`). `zero` alone is the pocket model that comes with the package, `zero:pocket-edit` the one beside it that
edits by instructions. Nothing is fetched here (`kinetograph fetch` does that), and nothing of a model folder is run.
"""

from fractions import Fraction
from typing import TYPE_CHECKING, Any

from kinetograph import gate, hub
from kinetograph import weights as checkpoints
from kinetograph.engine import EngineInfo, Sizes
from kinetograph.engines.zero import single
from kinetograph.engines.zero.options import Options, PocketOptions
from kinetograph.errors import KinetographError, WeightsError

if TYPE_CHECKING:
    from kinetograph.engines.zero.making import Zero

FRAMES, FPS = 8, Fraction(4)
MOST_FRAMES = 4096
SMALLEST, LARGEST = 64, 2048  # pixels a side

# The classes that a folder may name, and the families of `neural.pictures` that read them.
FAMILIES = {
    "StableDiffusionPipeline": "sd",
    "StableDiffusionInstructPix2PixPipeline": "sd",
    "StableDiffusionXLPipeline": "sdxl",
    "StableDiffusion3Pipeline": "sd3",
    "PixArtAlphaPipeline": "pixart-alpha",
    "PixArtSigmaPipeline": "pixart-sigma",
    "SanaPipeline": "sana",
}


def references() -> list[str]:
    """References of the picture models that it can use beside that of its bare name: the package's model of edits, and
    those in the hub's cache."""
    edits, own = checkpoints.COMPANIONS["edit"], checkpoints.pictures()
    here = [edits] if {edits, checkpoints.POCKET} <= {*own} else []
    return [f"zero:{name}" for name in (*here, *filter(_usable, hub.installed()))]


def _usable(name: str) -> bool:
    try:
        return hub.locate(name).pipeline in FAMILIES
    except KinetographError:
        return False


def info(weights: str) -> EngineInfo:
    """What a picture model can make, read from its settings. Raises ModelMissing, UnsafeModel, UnknownName, or
    WeightsError for what is no picture model."""
    model = located(weights)
    kind = family(model)
    network, vae = _settings(model, "unet") or _settings(model, "transformer"), _settings(model, "vae")
    cell = 2 ** (len(vae.get("block_out_channels") or vae.get("encoder_block_out_channels") or [0] * 4) - 1)
    size = network.get("sample_size") or (64 if kind == "sd" else 128)
    height, width = (side * cell for side in (size if isinstance(size, list) else [size, size]))
    multiple = cell * (network.get("patch_size") or (2 if kind == "sd3" else 1))
    what = model.pipeline or f"a checkpoint of the family {kind}"
    return EngineInfo(
        reference=f"zero:{weights}" if weights else "zero",
        summary=f"{what if weights else f'the picture model of the package ({what})'} makes videos without training"
        + (f"; {model.notice}" if model.notice else ""),
        licence=model.licence or "not said by its card",
        width=width,
        height=height,
        frames=FRAMES,
        fps=FPS,
        sizes=Sizes(minimum=min(SMALLEST, width, height), maximum=LARGEST, multiple=multiple),
        min_frames=1,
        max_frames=MOST_FRAMES,
        Options=PocketOptions if _like_the_pocket_model(network) else Options,
        weights=hub.digest(model.path),
    )


def load(weights: str, device: str) -> "Zero":
    """An engine for the model that `weights` names; the weights are read when the first request says how."""
    from kinetograph.engines.zero.making import Zero
    from kinetograph.neural import device as devices

    model = located(weights)
    return Zero(model, family(model), devices.choose(device))


def located(weights: str) -> hub.Model:
    """The model that a reference names, on this machine; without a name, the one of the package.

    Raises WeightsError where the package has none or it was altered, and what `hub.locate` raises.
    """
    if not weights and checkpoints.POCKET not in checkpoints.pictures():
        here = ", ".join(references()) or "none is on this machine"
        hint = f"write zero:sd-1.5, or zero:FOLDER; here: {here}; this copy of the package has none of its own"
        raise WeightsError("no picture model is named", hint=hint)
    return hub.locate(checkpoints.path_of(weights or checkpoints.POCKET))


def _like_the_pocket_model(network: dict[str, Any]) -> bool:
    """Whether a model's network is of the package's own shape: what goes with that, goes with this."""
    home = checkpoints.HERE / checkpoints.POCKET / "unet" / "config.json"
    own = gate.settings(home) if home.is_file() else {}
    return bool(own) and all(
        network.get(name) == own.get(name) for name in ("block_out_channels", "cross_attention_dim")
    )


def family(model: hub.Model) -> str:
    """Which family a model is of. Raises WeightsError for one that makes no pictures, or in a way that is not known."""
    if model.path.is_file():
        return single.family(model.path)
    if model.pipeline not in FAMILIES:
        what = f"a {model.pipeline}" if model.pipeline else f"no pipeline: it has no {gate.INDEX} that names one"
        known = ", ".join(sorted(FAMILIES))
        raise WeightsError(f"{model.reference} is {what}", hint=f"known are {known}")
    return FAMILIES[model.pipeline]


def _settings(model: hub.Model, part: str) -> dict[str, Any]:
    from kinetograph.neural.pictures import sharing

    path = model.path / part / "config.json"
    lent = None if path.is_file() else sharing.lender(model.path)
    path = path if lent is None else lent[0] / part / "config.json"
    found = gate.settings(path) if path.is_file() else {}
    return found if isinstance(found, dict) else {}
