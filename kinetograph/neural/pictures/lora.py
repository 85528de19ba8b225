"""LoRAs for networks whose pipeline loads none (PixArt): as peft, diffusers or the kohya tools write them."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from kinetograph import gate

BEFORE = re.compile(r"^(base_model\.model\.)?(transformer\.)?")  # what stands before a layer's name
FLAT = re.compile(r"^lora_(?:transformer|unet)_(\w+)")  # the same by the kohya tools, who write dots as lines
HALVES = {"lora_down": "lora_A", "lora_up": "lora_B", "lora.down": "lora_A", "lora.up": "lora_B"}


def add(network: nn.Module, file: Path, tensors: Mapping[str, Tensor], name: str) -> None:
    """Add a LoRA under a name, as strong as it was trained. Raises ValueError or RuntimeError for one that does not
    fit."""
    from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict

    halves, alphas = _read(network, tensors)
    ranks = {key.removesuffix(".lora_A.weight"): len(half) for key, half in halves.items() if "lora_A" in key}
    if not ranks:
        raise ValueError(f"no layer of a {type(network).__name__} is in it")
    said = _settings(file)
    config = LoraConfig(
        r=1,
        lora_alpha=1,
        target_modules=sorted(ranks),
        rank_pattern={f"^{re.escape(layer)}$": rank for layer, rank in ranks.items()},
        alpha_pattern={
            f"^{re.escape(layer)}$": alphas.get(layer, said.get("lora_alpha", rank)) for layer, rank in ranks.items()
        },
        use_rslora=bool(said.get("use_rslora", False)),
    )
    inject_adapter_in_model(config, network, adapter_name=name)
    found: Any = set_peft_model_state_dict(network, halves, adapter_name=name)
    if found.unexpected_keys:
        raise ValueError(f"what to do with {found.unexpected_keys[0]} is not known")


def scale(network: nn.Module, names: Sequence[str], scales: Sequence[float]) -> None:
    """Let these LoRAs work, each so strongly."""
    from peft.tuners.lora import LoraLayer

    for layer in network.modules():
        if isinstance(layer, LoraLayer):
            layer.set_adapter([name for name in names if name in layer.scaling])
            for name, strength in zip(names, scales):
                layer.set_scale(name, strength)


def layers(network: nn.Module, name: str) -> int:
    """In how many layers a LoRA works."""
    from peft.tuners.lora import LoraLayer

    return sum(isinstance(layer, LoraLayer) and name in layer.scaling for layer in network.modules())


def _read(network: nn.Module, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, float]]:
    """The matrices by the names that peft has for them, and what layers say of their strength."""
    dotted = {name.replace(".", "_"): name for name, _ in network.named_modules()}
    halves: dict[str, Tensor] = {}
    alphas: dict[str, float] = {}
    for key, tensor in tensors.items():
        name = BEFORE.sub("", key)
        if flat := FLAT.match(key):
            layer = str(flat[1])
            name = dotted.get(layer, layer) + key[flat.end() :]
        for theirs, ours in HALVES.items():
            name = name.replace(f".{theirs}.", f".{ours}.")
        if name.endswith(".alpha"):
            alphas[name.removesuffix(".alpha")] = float(tensor)
        else:
            halves[name] = tensor
    return halves, alphas


def _settings(file: Path) -> dict[str, Any]:
    beside = gate.lora_settings(file)
    said = gate.settings(beside) if beside else {}
    return said if isinstance(said, dict) else {}
