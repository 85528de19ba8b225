"""Where the arithmetic happens, and noise that means the same everywhere."""

import ctypes
import platform
from contextlib import suppress

import numpy as np
import torch

from kinetograph.errors import InvalidRequest

CPU = torch.device("cpu")
BFLOAT16 = ("amx_bf16", "avx512_bf16", "bf16")  # by any of these a processor has it (x86-64, ARM)


def choose(device: str, place: int = 0) -> torch.device:
    """The device of this name. "cuda" is the GPU for the process in this place of its machine; "auto" is that one where
    there is any, else the CPU.

    Raises InvalidRequest for one that is not there.
    """
    if device in ("auto", "cuda") and torch.cuda.is_available():
        return torch.device("cuda", place % torch.cuda.device_count())
    if device == "auto":
        return CPU
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        here = "cpu" + "".join(f", cuda:{i}" for i in range(torch.cuda.device_count()))
        raise InvalidRequest(
            f"the device {device!r} cannot be used", hint=f"on this machine there are: {here}"
        ) from error
    return chosen


# Of glibc's mallopt(3): give memory back from so many bytes on, ask for so many more, map so many blocks alone.
KEPT = {"M_TRIM_THRESHOLD": (-1, 2**31 - 1), "M_TOP_PAD": (-2, 2**28), "M_MMAP_MAX": (-4, 0)}


def keep_memory() -> None:
    """Have this process keep what tensors free instead of giving it back, for a training on a CPU: each step asks for
    the same again, and Linux fills every page with zeros first (`benchmarks/allocator.py`). Nothing but glibc heeds
    it; the process stays as large as it ever was."""
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        for option, value in KEPT.values():
            libc.mallopt(option, value)


def has_bfloat16(device: torch.device) -> bool:
    """Whether this device computes with bfloat16 by instructions of its own. A processor without them takes many times
    as long as for float32 (torch 2.13 with AVX2: 45 times for a product of matrices)."""
    if device.type != "cpu":
        return True
    found = torch.cpu.get_capabilities()
    return any(found.get(name, False) for name in BFLOAT16)


def versions(device: torch.device) -> dict[str, str]:
    """What the bits of a result depend on beside the weights: torch and the instruction set, or the GPU's name."""
    chip = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    return {"torch": torch.__version__, "chip": f"{platform.machine()} {chip}"}


def noise(seed: int, *path: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Standard normal noise of this shape, float32, keyed by (seed, *path).

    Drawn on the CPU by NumPy's counter-based Philox, so that a seed means the same on every device and in every batch.
    """
    source = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=path)))
    return torch.from_numpy(source.standard_normal(shape, dtype=np.float32))


def channels_last(network: torch.nn.Module) -> None:
    """Lay the weights of convolutions down in the order in which processors like them."""
    for parameter in network.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
