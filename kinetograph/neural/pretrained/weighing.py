"""Files of weights for what is done to finished clips: read as safetensors, understood by the names in them."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from kinetograph import gate
from kinetograph.errors import InvalidRequest, UnsafeModel, in_a_line

Weights = dict[str, Tensor]


def read(path: str, field: str, device: str) -> Weights:
    """The tensors in a file, as float32. Raises InvalidRequest where it cannot be read, UnsafeModel for a pickle."""
    file = Path(path).expanduser()
    if file.suffix.lower() in gate.PICKLES:
        raise UnsafeModel(
            f"{path} is a pickle, which may run code when it is opened", hint=f"kinetograph convert {path}"
        )
    try:
        found = load_file(file)
    except (OSError, SafetensorError) as error:
        raise InvalidRequest(f"{path} cannot be read as safetensors", field=field, hint=in_a_line(error)) from error
    return {name: value.to(device, torch.float32) for name, value in found.items()}


def unknown(path: str, field: str, wanted: str, weights: Weights) -> InvalidRequest:
    """The error for a file that holds something else."""
    some = ", ".join(sorted(weights)[:3])
    return InvalidRequest(f"{path} holds no {wanted}", field=field, hint=f"it begins with {some}")
