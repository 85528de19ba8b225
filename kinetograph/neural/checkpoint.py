"""Tensors to safetensors files and back: never a pickle, never half a file."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kinetograph import weights
from kinetograph.errors import CannotWrite, WeightsError


def save(path: Path, tensors: Mapping[str, Tensor], configuration: Mapping[str, Any]) -> None:
    """Write tensors and the configuration that shaped them to one file: a temporary name first, fsync, then rename."""
    temporary = path.with_name(f".{path.name}.tmp")
    ready = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(ready, temporary, metadata={"configuration": json.dumps(dict(configuration))})
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        raise CannotWrite(f"{path} could not be written", hint=f"the system says: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def save_model(
    folder: Path, model: nn.Module, configuration: Mapping[str, Any], kind: torch.dtype = torch.float32
) -> None:
    """Write a checkpoint folder that an engine can load: the weights, rounded to numbers of this kind, then their
    sum."""
    rounded = {name: tensor.to(kind) for name, tensor in model.state_dict().items()}
    save(folder / weights.MODEL, rounded, configuration)
    weights.seal(folder)


def load(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file. Raises WeightsError for one that is missing, cut short or no such file."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} cannot be loaded", hint=f"it is damaged or no safetensors file: {error}") from error


def load_model(folder: Path, model: nn.Module) -> str:
    """Load a checkpoint folder into a model and return the sha256 of its weights.

    Refuses, with a WeightsError, weights whose sum differs, that are not finite, or whose names and shapes are not
    the model's.
    """
    digest = weights.verify(folder)
    tensors = load(folder / weights.MODEL)
    refuse_unfit(folder / weights.MODEL, tensors, model)
    model.load_state_dict(tensors)
    return digest


def refuse_unfit(path: Path, tensors: Mapping[str, Tensor], model: nn.Module) -> None:
    """Raise WeightsError where tensors are not finite or do not have the model's names and shapes."""
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise WeightsError(
                f"{path}: the tensor {name} holds numbers that are not finite", hint="such weights draw nothing"
            )
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if expected != found:
        name = sorted(set(expected.items()) ^ set(found.items()))[0][0]
        here, there = found.get(name, "missing"), expected.get(name, "unknown")
        hint = f"first difference: {name} is {here} in the file, {there} in the model"
        raise WeightsError(f"{path} does not fit the model it names", hint=hint)
