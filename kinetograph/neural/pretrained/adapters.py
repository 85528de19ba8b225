"""Small weights on top of large ones: LoRA, several at once; other samplers; one part from a file of its own."""

import inspect
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import diffusers
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from safetensors import safe_open
from torch import nn

from kinetograph import hub
from kinetograph.errors import InvalidRequest, KinetographError, did_you_mean, in_a_line
from kinetograph.neural.pretrained import memory, pipelines, weighing

FLOWS = (  # schedulers that walk the straight lines of flow matching
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler",
    "UniPCMultistepScheduler",
    "DPMSolverMultistepScheduler",
)


def strengths(references: Sequence[str], scales: Sequence[float]) -> list[float]:
    """A scale for every LoRA, 1 where none is given. Raises InvalidRequest where there are more scales than LoRAs."""
    if len(scales) > len(references):
        hint = f"nearest: {len(references)} of them"
        raise InvalidRequest(f"{len(scales)} scales for {len(references)} LoRAs", field="lora_scale", hint=hint)
    return [*scales, *[1.0] * (len(references) - len(scales))]


def load(pipeline: Any, references: Sequence[str], scales: Sequence[float]) -> None:
    """Put LoRAs on a pipeline, each with its scale (1 where there is none). Files pass the gate like models.

    Raises InvalidRequest where the pipeline takes none or the file does not fit, ModelMissing where it is not here.
    """
    weights = strengths(references, scales)
    if not references:
        return
    if not hasattr(pipeline, "load_lora_weights"):
        raise InvalidRequest(f"{type(pipeline).__name__} takes no LoRA", field="lora", hint="leave it out")
    names = [f"lora{number}" for number in range(len(references))]
    for name, reference in zip(names, references):
        path = _file(hub.locate(reference).path)
        try:
            with pipelines.quiet():
                pipeline.load_lora_weights(
                    str(path.parent),
                    weight_name=path.name,
                    adapter_name=name,
                    local_files_only=True,
                    use_safetensors=True,
                )
        except KinetographError:
            raise
        except (ValueError, KeyError, RuntimeError, AttributeError, OSError, IndexError, TypeError) as error:
            fact = f"{reference} is no LoRA for {type(pipeline).__name__}"
            raise InvalidRequest(fact, field="lora", hint=in_a_line(error)) from error
    pipeline.set_adapters(names, adapter_weights=weights)


DOWN, UP = (".lora_A.weight", ".lora.down.weight"), (".lora_B.weight", ".lora.up.weight")


def merge(networks: Mapping[str, nn.Module], references: Sequence[str], scales: Sequence[float]) -> None:
    """Add LoRAs to the weights of networks, each called as their files call it (`unet`, `text_encoder`).

    Raises InvalidRequest for a file that is no LoRA for them, ModelMissing where it is not here.
    """
    for reference, scale in zip(references, strengths(references, scales)):
        path = _file(hub.locate(reference).path)
        found, said = weighing.read(str(path), "lora", "cpu"), _settings(path)
        downs = {name.removesuffix(end): value for name, value in found.items() for end in DOWN if name.endswith(end)}
        ups = {name.removesuffix(end): value for name, value in found.items() for end in UP if name.endswith(end)}
        layers = {name: _layer(networks, name) for name in downs}
        lost = [name for name, layer in layers.items() if layer is None or name not in ups]
        if lost or not downs:
            hint = f"it speaks of {(lost or sorted(found))[0]}"
            raise InvalidRequest(f"{reference} is no LoRA for this model", field="lora", hint=hint)
        for name, layer in layers.items():
            down, up = downs[name], ups[name]
            alpha = float(found.get(f"{name}.alpha", _alpha(said, name, len(down))))
            strength = alpha / (len(down) ** 0.5 if said.get(f"{name.partition('.')[0]}.use_rslora") else len(down))
            try:
                change = (up.flatten(1) @ down.flatten(1)).reshape(layer.weight.shape)
            except RuntimeError as error:
                hint = f"{name} is {len(up)}x{down[0].numel()} in it, and {tuple(layer.weight.shape)} here"
                raise InvalidRequest(f"{reference} is no LoRA for this model", field="lora", hint=hint) from error
            layer.weight.data += (scale * strength * change).to(layer.weight)


def _settings(path: Path) -> dict[str, Any]:
    """What diffusers wrote into the head of a file of how it was trained, by network: `unet.lora_alpha`."""
    with safe_open(path, "pt") as file:
        text = (file.metadata() or {}).get(LORA_ADAPTER_METADATA_KEY, "{}")
    try:
        said = json.loads(text)
    except ValueError as error:
        raise InvalidRequest(f"{path} does not say how it was trained", field="lora", hint=str(error)) from error
    return said if isinstance(said, dict) else {}


def _alpha(said: Mapping[str, Any], name: str, rank: int) -> float:
    """How strong the settings call a layer, which is its rank where they say nothing."""
    network, _, inside = name.partition(".")
    patterns: dict[str, float] = said.get(f"{network}.alpha_pattern") or {}
    special = (alpha for pattern, alpha in patterns.items() if re.fullmatch(rf"(.*\.)?({pattern})", inside))
    return next(special, said.get(f"{network}.lora_alpha", rank))


def _layer(networks: Mapping[str, nn.Module], name: str) -> Any:
    """The layer that a LoRA calls so, None where there is none."""
    network, _, inside = name.partition(".")
    for path in (inside, inside.removeprefix("text_model.")):  # transformers 5 took this step of the path away
        try:
            return networks[network].get_submodule(path)
        except (KeyError, AttributeError):
            continue
    return None


def _file(path: Path) -> Path:
    """The one file of weights that a reference means."""
    found = hub.weights_at(path)
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise InvalidRequest(f"{path} holds {len(found)} files of weights", field="lora", hint=f"name one: {names}")
    return found[0]


def schedule(pipeline: Any, name: str) -> None:
    """Exchange the scheduler for another class of diffusers with the same settings. Raises InvalidRequest."""
    if not name:
        return
    if not hasattr(pipeline, "scheduler"):
        raise InvalidRequest(f"{type(pipeline).__name__} has no scheduler", field="scheduler", hint="leave it out")
    config, flows = dict(pipeline.scheduler.config), {}
    if "FlowMatch" in type(pipeline.scheduler).__name__ or config.get("use_flow_sigmas"):
        flows = {kind: getattr(diffusers, kind) for kind in FLOWS}
        shift = config.get("shift", config.get("flow_shift", 1.0))
        config |= {"shift": shift, "flow_shift": shift, "use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    known = flows or {kind.__name__: kind for kind in pipeline.scheduler.compatibles}
    if name not in known:
        raise InvalidRequest(
            f"{name!r} cannot stand in for {type(pipeline.scheduler).__name__}",
            field="scheduler",
            hint=did_you_mean(name, known),
        )
    takes = inspect.signature(known[name].__init__).parameters
    with pipelines.quiet():
        pipeline.scheduler = known[name].from_config({key: value for key, value in config.items() if key in takes})


def single_file(model: hub.Model, reference: str, dtype: str) -> dict[str, Any]:
    """The denoiser from a file of its own, with the settings of the model's: what `from_pretrained` is then given."""
    if not reference:
        return {}
    path = hub.locate(reference).path
    name, kind = next(
        ((part, kind) for part, kind in hub.parts(model.index).items() if part in ("transformer", "unet")), ("", "")
    )
    network = getattr(diffusers, kind, None)
    if network is None or not hasattr(network, "from_single_file"):
        raise InvalidRequest(
            f"{kind or model.pipeline} is not read from a single file", field="checkpoint", hint="leave it out"
        )
    quantized = _gguf(dtype) if path.suffix.lower() == ".gguf" else {}
    try:
        with pipelines.quiet():
            loaded = network.from_single_file(
                str(path),
                config=str(model.path),
                subfolder=name,
                local_files_only=True,
                torch_dtype=pipelines.DTYPES[dtype],
                **quantized,
            )
    except (ValueError, KeyError, RuntimeError, OSError, TypeError, AttributeError) as error:
        raise InvalidRequest(f"{reference} holds no {kind}", field="checkpoint", hint=in_a_line(error)) from error
    return {name: loaded}


def _gguf(dtype: str) -> dict[str, Any]:
    """What a GGUF file is read with: its numbers stay as short as they are until they are needed."""
    memory.installed("gguf", "a GGUF file", "checkpoint")
    from diffusers import GGUFQuantizationConfig

    return {"quantization_config": GGUFQuantizationConfig(compute_dtype=pipelines.DTYPES[dtype])}
