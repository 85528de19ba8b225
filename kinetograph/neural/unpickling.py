"""The process that opens a pickle: `python -m kinetograph.neural.unpickling SOURCE TARGET` writes safetensors.

torch's reader for weights makes nothing but tensors and plain containers of them. Should it ever be made to do more,
this process, once everything is imported, may start no program, open no connection and write no file of Python's. What
it says is one line of JSON; it leaves with 3 where the file asks for more than tensors, with 4 where it cannot be read.
"""

import json
import os
import sys
from collections.abc import Mapping
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors.torch import save_file

from kinetograph.conversion import MORE
from kinetograph.errors import in_a_line

# What checkpoints wrap their weights in, the one to prefer first.
WRAPPERS = ("params_ema", "state_dict", "params", "model", "module", "generator")
# Audit events, by how they begin. Files that are opened to write are told apart by how they are opened.
FORBIDDEN = (
    *("socket.", "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.startfile"),
    *("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.chown"),
    *("os.kill", "shutil.", "sqlite3.connect", "ctypes.dlopen"),
)
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
UNREADABLE = 4


def main(source: str, target: str) -> int:
    """Convert one file."""
    sys.addaudithook(_refuse)
    try:
        found, dropped = tensors(torch.load(source, map_location="cpu", weights_only=True))
    except (UnpicklingError, PermissionError) as error:
        return _say(MORE, error=_asked(str(error)))
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        return _say(UNREADABLE, error=in_a_line(error))
    if not found:
        return _say(UNREADABLE, error="there are no tensors in it")
    save_file(found, target, metadata={"format": "pt"})
    return _say(0, tensors=len(found), dropped=dropped)


def tensors(state: Any) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The weights of a checkpoint, each in memory of its own, and the names of what is left behind."""
    if not isinstance(state, Mapping):
        return {}, []
    inside = next((name for name in WRAPPERS if isinstance(state.get(name), Mapping)), None)
    if inside is not None and not any(isinstance(value, torch.Tensor) for value in state.values()):
        found, dropped = tensors(state[inside])
        return found, [*(str(name) for name in state if name != inside), *dropped]
    found = {str(name): value for name, value in state.items() if isinstance(value, torch.Tensor)}
    alone = all(name.startswith("module.") for name in found)  # what training on several GPUs puts before every name
    named = {name.removeprefix("module.") if alone else name: value for name, value in found.items()}
    return (
        {name: value.detach().clone().contiguous() for name, value in named.items()},
        [str(name) for name, value in state.items() if not isinstance(value, torch.Tensor)],
    )


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event.startswith(FORBIDDEN) or (event == "open" and _writes(*arguments[1:3])):
        raise PermissionError(f"{event} is not for weights")


def _writes(mode: Any, flags: Any) -> bool:
    """Whether a file is opened to write: `open` says how by its mode, `os.open` by its flags alone."""
    return bool(set(mode or "") & set("wax+") or (flags or 0) & WRITING)


def _asked(text: str) -> str:
    """The line of torch's long message that says what the file asked for."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((line for line in lines if "GLOBAL" in line or "global" in line), lines[0] if lines else text)[:300]


def _say(code: int, **facts: Any) -> int:
    print(json.dumps(facts), flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
