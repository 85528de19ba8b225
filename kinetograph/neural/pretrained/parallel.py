"""One clip over several processes: the tokens of its denoiser are split between those that torchrun started.

Every process makes the whole clip, and sees a part of the tokens inside the denoiser; attention exchanges heads for
tokens and back (Ulysses, https://arxiv.org/abs/2309.14509). Which models can is said by diffusers, in their `_cp_plan`.
"""

import atexit
import hashlib
from typing import Any

import torch
import torch.distributed as dist

from kinetograph.errors import InvalidRequest
from kinetograph.neural.pretrained.memory import DENOISERS


def join(count: int, device: str, words: str) -> None:
    """Be one of so many processes, all of which are to make what `words` say, and no other thing.

    Raises InvalidRequest where torchrun did not start so many, or they are to make different clips.
    """
    if not dist.is_torchelastic_launched() and not dist.is_initialized():
        raise _few(count, 1)
    if not dist.is_initialized():
        dist.init_process_group("gloo" if device == "cpu" else "nccl")
        atexit.register(dist.destroy_process_group)
    if dist.get_world_size() != count:
        raise _few(count, dist.get_world_size())
    mine = hashlib.sha256(words.encode()).hexdigest()
    all_of_them: list[Any] = [None] * count
    dist.all_gather_object(all_of_them, mine)
    if len(set(all_of_them)) > 1:
        raise InvalidRequest(
            "the processes are to make different clips", field="seed", hint="give all of them one seed: --seed 7"
        )


def _few(count: int, there: int) -> InvalidRequest:
    return InvalidRequest(
        f"context_parallel={count} needs {count} processes, not {there}",
        field="context_parallel",
        hint=f"torchrun --nproc-per-node {count} -m kinetograph generate ...",
    )


def split(pipeline: Any, count: int, device: str) -> None:
    """Let the denoisers of a pipeline see a part of the tokens each. Raises InvalidRequest for those that cannot."""
    from diffusers.models._modeling_parallel import ContextParallelConfig, ParallelConfig
    from torch.distributed.device_mesh import init_device_mesh

    mesh = init_device_mesh(device.partition(":")[0], (1, count), mesh_dim_names=("ring", "ulysses"))
    for denoiser in filter(None, (getattr(pipeline, name, None) for name in DENOISERS)):
        kind, heads = type(denoiser).__name__, denoiser.config.get("num_attention_heads") or 0
        if not getattr(denoiser, "_cp_plan", None):
            raise InvalidRequest(
                f"diffusers does not know how to split {kind}", field="context_parallel", hint="leave it out"
            )
        if heads % count:
            near = max(n for n in range(1, count) if heads % n == 0)
            raise InvalidRequest(
                f"{count} processes cannot share {heads} heads", field="context_parallel", hint=f"nearest: {near}"
            )
        config = ParallelConfig(context_parallel_config=ContextParallelConfig(ulysses_degree=count, mesh=mesh))
        if device == "cpu":
            _mend(denoiser, config, mesh)
        try:
            denoiser.enable_parallelism(config=config)
        except (ValueError, RuntimeError) as error:
            words = " ".join(str(error).split())[:300]
            raise InvalidRequest(f"{kind} cannot be split here", field="context_parallel", hint=words) from error


def _mend(denoiser: Any, config: Any, mesh: Any) -> None:
    """diffusers asks for the number of accelerators, which on a CPU is 0, and divides by it."""

    def resolve(given: Any) -> Any:
        config.setup(dist.get_rank(), dist.get_world_size(), torch.device("cpu"), mesh=mesh)
        denoiser._parallel_config = config
        return config

    denoiser._resolve_parallel_config = resolve
