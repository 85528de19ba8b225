"""Fitting a pipeline into memory: one vocabulary for the means that diffusers has, and a budget that chooses.

From plenty to little: everything on the device; only the part that works (`model`); the same with the denoiser's
weights kept in eight bits (`layerwise`); only the layers that work (`group`). Each is slower than the one before it.
"""

from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import torch

from kinetograph import gate
from kinetograph.errors import InvalidRequest
from kinetograph.neural.pretrained import pipelines

WORKING = 0.25  # the share of a budget that is left for everything that is no weight
DENOISERS = ("transformer", "transformer_2", "unet")


@dataclass(frozen=True, kw_only=True)
class Setup:
    """How a pipeline is loaded and where its parts lie."""

    dtype: str
    offload: str = "none"
    layerwise: bool = False
    vae_tiling: bool = False
    vae_slicing: bool = False
    quantize: str = ""
    attention: str = ""
    compile: bool = False

    def said(self) -> str:
        """In a few words."""
        words = [self.dtype, *([] if self.offload == "none" else [f"offload={self.offload}"])]
        flags = [name for name in ("layerwise", "vae_tiling", "vae_slicing") if getattr(self, name)]
        return ", ".join([*words, *flags, *([self.quantize] if self.quantize else [])])


def numbers(folder: Path) -> dict[str, int]:
    """How many weights each part has, from the headers of its files: nothing is loaded."""
    found: dict[str, int] = {}
    for home in sorted(path for path in folder.iterdir() if path.is_dir()):
        files = [path for path in sorted(home.glob("*.safetensors")) if path.name.count(".") == 1] or sorted(
            home.glob("*.safetensors")
        )
        if files:
            found[home.name] = sum(_count(path) for path in files)
    return found


def _count(path: Path) -> int:
    return sum(prod(said["shape"]) for said in gate.header(path).values())


def parse_budget(text: str) -> int:
    """Bytes from "8GB", "500MB" or a plain number of gigabytes. Raises InvalidRequest."""
    words = text.strip().upper().removesuffix("B").removesuffix("I")
    unit = {"G": 10**9, "M": 10**6}.get(words[-1:], 0)
    try:
        size = float(words[:-1] if unit else words) * (unit or 10**9)
    except ValueError:
        size = -1
    if not 0 < size < float("inf"):
        raise InvalidRequest(f"memory_budget is {text!r}", field="memory_budget", hint="write it as 8GB or 500MB")
    return int(size)


def choose(parts: dict[str, int], budget: int, device: str, half: str, *, plainly: bool = False) -> Setup:
    """The fastest setup whose weights leave a quarter of the budget free. Raises InvalidRequest where none does.

    `plainly` without what only pipelines of diffusers can: eight bits, and layers that come and go alone.
    """
    room = budget * (1 - WORKING)
    full, denoisers = sum(parts.values()), {name: n for name, n in parts.items() if name in DENOISERS}
    others = max((n for name, n in parts.items() if name not in DENOISERS), default=0)
    largest, heaviest = max(parts.values(), default=0), max(denoisers.values(), default=0)
    plain = Setup(dtype=half)
    saving = replace(plain, vae_tiling=True, vae_slicing=True)
    ladder = [(2 * full, plain)]
    if device == "cpu":
        ladder = [(4 * full, Setup(dtype="float32")), (2 * full, replace(saving, dtype="bfloat16"))]
        cast = 2 * (full - sum(denoisers.values())) + sum(denoisers.values())
        ladder.append((cast, replace(saving, dtype="bfloat16", layerwise=True)))
    else:
        ladder += [
            (2 * largest, replace(saving, offload="model")),
            (max(2 * others, heaviest), replace(saving, offload="model", layerwise=True)),
            (2 * largest // 20, replace(saving, offload="group")),  # a layer or two of dozens
        ]
    if plainly:
        ladder = [
            (needed, replace(setup, vae_tiling=False, vae_slicing=False))
            for needed, setup in ladder
            if not setup.layerwise and setup.offload != "group"
        ]
    for needed, setup in ladder:
        if needed <= room:
            return setup
    least = min(needed for needed, _ in ladder) / (1 - WORKING)
    raise InvalidRequest(
        f"the weights do not fit into {budget / 1e9:g} GB, whatever is done",
        field="memory_budget",
        hint=f"the least is about {least / 1e9:.2g} GB",
    )


def quantization(name: str) -> dict[str, Any]:
    """What `from_pretrained` is told to quantise the denoiser. Raises InvalidRequest where the library is missing."""
    if not name:
        return {}
    from diffusers.quantizers.pipe_quant_config import PipelineQuantizationConfig

    parts = [part for part in DENOISERS if part != "unet"]
    if name == "torchao-int8":
        return {"quantization_config": PipelineQuantizationConfig(quant_mapping=dict.fromkeys(parts, _torchao()))}
    known: dict[str, tuple[str, dict[str, Any], str]] = {
        "int8": ("bitsandbytes_8bit", {"load_in_8bit": True}, "bitsandbytes"),
        "nf4": ("bitsandbytes_4bit", {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "bitsandbytes"),
        "quanto-int8": ("quanto", {"weights_dtype": "int8"}, "optimum.quanto"),
    }
    backend, settings, package = known[name]
    installed(package, name, "quantize")
    return {
        "quantization_config": PipelineQuantizationConfig(
            quant_backend=backend, quant_kwargs=settings, components_to_quantize=parts
        )
    }


def installed(package: str, wish: str, field: str) -> None:
    """Raises InvalidRequest, with the command to install it, where a package that a wish needs is missing."""
    from importlib.util import find_spec

    if find_spec(package.partition(".")[0]) is None:
        raise InvalidRequest(
            f"{wish} needs {package}, which is not installed",
            field=field,
            hint=f"pip install {package.replace('.', '-')}",
        )


def _torchao() -> Any:
    installed("torchao", "torchao-int8", "quantize")
    from diffusers import TorchAoConfig
    from torchao.quantization import Int8WeightOnlyConfig

    return TorchAoConfig(Int8WeightOnlyConfig())


def place(pipeline: Any, setup: Setup, device: str) -> None:
    """Put a loaded pipeline where the setup says. Raises InvalidRequest for what it, or the machine, cannot do."""
    denoisers = [getattr(pipeline, name, None) for name in DENOISERS]
    for denoiser in filter(None, denoisers):
        if setup.layerwise:
            _need(denoiser, "enable_layerwise_casting", "layerwise")
            denoiser.enable_layerwise_casting(
                storage_dtype=torch.float8_e4m3fn, compute_dtype=pipelines.DTYPES[setup.dtype]
            )
        if setup.attention:
            _attend(denoiser, setup.attention)
    vae = getattr(pipeline, "vae", None)
    for wanted, method, field in (
        (setup.vae_tiling, "enable_tiling", "vae_tiling"),
        (setup.vae_slicing, "enable_slicing", "vae_slicing"),
    ):
        if wanted and vae is not None:
            _need(vae, method, field)
            getattr(vae, method)()
    _offload(pipeline, setup.offload, device)
    if setup.compile:
        for denoiser in filter(None, denoisers):
            denoiser.compile(dynamic=True)


def _need(part: Any, method: str, field: str) -> None:
    if not hasattr(part, method):
        raise InvalidRequest(f"{type(part).__name__} does not know {field}", field=field, hint="leave it out")


def _attend(denoiser: Any, name: str) -> None:
    from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry

    known = sorted(one.value for one in AttentionBackendName)
    everyone, _ = _AttentionBackendRegistry.get_active_backend()
    try:
        denoiser.set_attention_backend(name)
    except (ValueError, RuntimeError, ImportError, AttributeError) as error:
        words = " ".join(str(error).split())[:200]
        hint = f"{words}; there are: {', '.join(known)}"
        raise InvalidRequest(f"the attention {name!r} cannot be used here", field="attention", hint=hint) from error
    finally:
        _AttentionBackendRegistry.set_active_backend(everyone)  # diffusers sets it for every model of the process


def _offload(pipeline: Any, how: str, device: str) -> None:
    if how == "none":
        pipeline.to(device)
        return
    _need(pipeline, {"group": "enable_group_offload", "model": "enable_model_cpu_offload"}.get(how, "to"), "offload")
    if how == "group":
        pipeline.enable_group_offload(
            onload_device=torch.device(device), offload_device=torch.device("cpu"), offload_type="leaf_level"
        )
    elif device == "cpu":
        raise InvalidRequest(f"offload={how} moves parts to a GPU, and there is none", field="offload", hint="none")
    elif how == "model":
        pipeline.enable_model_cpu_offload(device=device)
    else:
        pipeline.enable_sequential_cpu_offload(device=device)
