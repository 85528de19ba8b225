"""The zero-shot engine beside diffusers' port and the original's schedule: time, memory, and what fast options cost.

    python benchmarks/zero.py --steps 10 --frames 8 --side 16 --rounds 2 --compile

All in one run, on the same random weights of the real architecture of Stable Diffusion 1.5 (860 million parameters),
the same noise and the same words, on latents of `--side` cells so that a processor can do it; decoding is left out.
What is timed is from noise to latents.

    port       diffusers' TextToVideoZeroPipeline at the same settings: DDIM, T' and T at the same steps, guidance 7.5
    original   the evaluations of the published code, with its attention, which lays the scores in memory: each chunk
               begins anew with a whole first pass, and computes the anchor again
    ours       the same result: what is exact says how far it is from the port
    fast       ours with fewer steps, reuse, merging, bfloat16, compilation, alone and together, each with its distance
               from ours exact

The picture stands still and the port is given our noise (its own is keyed otherwise), so that results can be compared
number by number. The distance is the root mean square of the difference over that of the exact latents. Random weights
tell what an option costs and gains as arithmetic; they do not tell how a picture looks. Seconds are of the wall and, in
brackets, of the processor, the least of `--rounds` rounds through all cases, for a machine may be slow for a while.
Memory is the highest resident size above that before the run, each case in a process of its own, at `--memory-side`
cells and two steps.
"""

import argparse
import copy
import json
import math
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kinetograph.neural import sampling
from kinetograph.neural.pictures.words import Words
from kinetograph.neural.sampling import Level
from kinetograph.neural.zeroshot import loop, motion
from kinetograph.neural.zeroshot.loop import Turn
from kinetograph.neural.zeroshot.noise import Noise
from kinetograph.neural.zeroshot.plan import Plan, carried_out

TABLE = sampling.Table.of(sampling.scaled_linear_betas())
TOKENS, WIDTH = 77, 768
GUIDANCE, SEED = 7.5, 5
warnings.filterwarnings("ignore")  # the port's, of its own deprecation


@dataclass(frozen=True)
class Setting:
    """What all have in common."""

    steps: int
    frames: int
    side: int

    @property
    def times(self) -> list[int]:
        """The steps' times, the noisiest first: Stable Diffusion's own."""
        return [round(level.time) for level in self.levels[:-1]]

    @property
    def levels(self) -> sampling.Levels:
        """The same as levels; the last is the least noise that the model knows, as in the port."""
        return (*TABLE.levels(self.steps, "leading", 1)[:-1], TABLE.at(0))

    @property
    def turns(self) -> tuple[int, int]:
        """The port's t0 and t1, places from the end: 44 and 47 of 50 steps."""
        t1 = min(max(round(self.steps * 47 / 50), 1), self.steps - 1)
        return max(min(round(self.steps * 44 / 50), t1 - 1), 0), t1

    @property
    def turn(self) -> Turn:
        """The same as levels."""
        t0, t1 = self.turns
        return Turn(self.times[-t0 - 1], self.times[-t1 - 1])

    @property
    def noise(self) -> Noise:
        """The noise of the clip."""
        return Noise(SEED, (4, self.side, self.side))


def network() -> Any:
    """The UNet of Stable Diffusion 1.5 with random weights."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=WIDTH, attention_head_dim=8)
    unet = unet.to_empty(device="cpu")
    for name, tensor in unet.named_parameters():  # as torch begins, but without the slow rule for each layer
        fan = math.prod(tensor.shape[1:]) if tensor.ndim > 1 else 1
        spread = 1 / math.sqrt(3 * fan)
        with torch.no_grad():
            if tensor.ndim > 1:
                tensor.normal_(0, spread)
            else:
                tensor.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
    return unet.eval().requires_grad_(False)


def words() -> tuple[Tensor, Tensor]:
    """What the network is told: a prompt and no prompt, (1, 77, 768) each."""
    draw = torch.Generator().manual_seed(1)
    positive, negative = (torch.randn(1, TOKENS, WIDTH, generator=draw) for _ in range(2))
    return positive, negative


# ---- ours


def plan(unet: Any, setting: Setting, **more: Any) -> Plan:
    """A plan for the same clip."""
    positive, negative = words()
    dtype = unet.dtype

    def predict(x: Tensor, level: Level, told: Any, frames: range) -> Tensor:
        with torch.no_grad():
            return unet(x.to(dtype), torch.full((len(x),), level.time), return_dict=False, **told)[0]

    told = [Words({"encoder_hidden_states": text[:, None].to(dtype)}) for text in (positive, negative)]
    return Plan(
        **{
            "predict": predict, "prediction": "epsilon", "told": loop.guided(*told, GUIDANCE),
            "levels": setting.levels, "noise": [setting.noise], "moments": [k / 4 for k in range(setting.frames)],
            "sampler": "ddim", "motion": motion.Motion(motion.steady()), "turn": setting.turn,
            "networks": (unet,), "network": unet, "chunk": setting.frames, **more,
        }
    )  # fmt: skip


def ours(unet: Any, setting: Setting, **more: Any) -> Tensor:
    """Latents (c, t, h, w)."""
    return carried_out(plan(unet, setting, **more))[0]


# ---- the port, and the original's schedule


def port(unet: Any, setting: Setting) -> Any:
    """The port's pipeline, given our words and our noise."""
    from diffusers import DDIMScheduler, TextToVideoZeroPipeline

    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1,
    )  # fmt: skip
    pipe = TextToVideoZeroPipeline(_vae(), None, None, unet, scheduler, None, None, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    pipe.encode_prompt = lambda *args, **kwargs: words()

    def forward(x_t0: Tensor, t0: int, t1: int, generator: Any) -> Tensor:
        kept = scheduler.alphas_cumprod[t1] / scheduler.alphas_cumprod[t0]
        fresh = torch.stack([setting.noise.fresh(frame) for frame in range(1, setting.frames)])
        return kept.sqrt() * x_t0 + (1 - kept).sqrt() * fresh

    pipe.forward_loop = forward
    return pipe


def _vae() -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(4, 4, 4, 4), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, norm_num_groups=2,
    )  # fmt: skip


def theirs(unet: Any, setting: Setting) -> Tensor:
    """Latents (c, t, h, w) of the port."""
    t0, t1 = setting.turns
    made = port(unet, setting)(
        "x", latents=setting.noise.first()[None], guidance_scale=GUIDANCE, video_length=setting.frames,
        num_inference_steps=setting.steps, t0=t0, t1=t1, motion_field_strength_x=0, motion_field_strength_y=0,
        output_type="latent",
    )  # fmt: skip
    return made.images.transpose(0, 1)


def original(unet: Any, setting: Setting, chunk: int) -> int:
    """Do what the published code does, chunk for chunk, and say how many frames were evaluated.

    Each chunk holds the anchor and chunk - 1 frames, the first one the anchor twice.
    """
    from diffusers.pipelines.deprecated.text_to_video_synthesis.pipeline_text_to_video_zero import (
        CrossFrameAttnProcessor,
    )

    t1 = setting.turns[1]
    before = dict(unet.attn_processors)
    unet.set_attn_processor(CrossFrameAttnProcessor(batch_size=2))
    both = torch.cat(words()[::-1])
    evaluated = 0

    def walk(x: Tensor, times: list[int]) -> None:
        nonlocal evaluated
        told = both.repeat_interleave(len(x), 0)
        for time_ in times:
            with torch.no_grad():
                unet(torch.cat([x] * 2), torch.full((2 * len(x),), float(time_)), told)
            evaluated += len(x)

    try:
        step = chunk - 1
        for start in range(0, setting.frames, step):
            walk(setting.noise.first()[None], setting.times)  # the whole first pass
            held = 1 + len(range(start, min(start + step, setting.frames)))
            walk(setting.noise.first()[None].repeat(held, 1, 1, 1), setting.times[-t1 - 1 :])
    finally:
        unet.set_attn_processor(before)
    return evaluated


# ---- measuring


@dataclass(frozen=True)
class Time:
    """Seconds, of the wall and of the processor."""

    wall: float
    processor: float

    def __str__(self) -> str:
        return f"{self.wall:8.1f} s ({self.processor:.1f})"


def timed(work: Callable[[], Any]) -> tuple[Any, Time]:
    """What comes of it, and how long it took."""
    wall, processor = time.perf_counter(), time.process_time()
    made = work()
    return made, Time(time.perf_counter() - wall, time.process_time() - processor)


def apart(found: Tensor, exact: Tensor) -> float:
    """Root mean square of the difference, over that of the exact."""
    return ((found.float() - exact).square().mean() / exact.square().mean()).sqrt().item()


class Table:
    """The least time of each case in all rounds, and what is noted of it."""

    def __init__(self) -> None:
        self.best: dict[str, Time] = {}
        self.notes: dict[str, str] = {}

    def add(self, name: str, took: Time, note: str = "") -> None:
        """A case was timed once more."""
        before = self.best.get(name, took)
        self.best[name] = Time(min(before.wall, took.wall), min(before.processor, took.processor))
        self.notes[name] = note
        print(f"  {name}: {took}  {note}", file=sys.stderr, flush=True)

    def faster(self, name: str, than: str) -> str:
        """How many times as fast one case is as another."""
        one, other = self.best[name], self.best[than]
        return f"{other.wall / one.wall:6.2f}x ({other.processor / one.processor:.2f}x)"

    def show(self) -> None:
        """Print it."""
        for name, took in self.best.items():
            print(f"{name:<44} {took!s:>24} {self.faster(name, PORT)}  {self.notes[name]}")
        for chunk, mine in ((8, OURS), (2, TWO)):
            print(f"ours is {self.faster(mine, ORIGINAL.format(chunk))} as fast as the original in chunks of {chunk}")


PORT, OURS, TWO, ORIGINAL = (
    "diffusers' port",
    "ours, exact",
    "ours, exact, chunk 2",
    "the original's schedule, chunk {}",
)


def exact(unet: Any, setting: Setting, table: Table) -> Tensor:
    """Ours beside the port and the original; returns ours."""
    timed(lambda: unet(torch.zeros(2, 4, setting.side, setting.side), 1, torch.cat(words())))  # the first call is slow
    their, took = timed(lambda: theirs(unet, setting))
    table.add(PORT, took)
    mine, took = timed(lambda: ours(unet, setting))
    note = f"{loop.evaluations(setting.levels, setting.frames, setting.turn)} frames, distance {apart(mine, their):.1e}"
    table.add(OURS, took, note)
    two, took = timed(lambda: ours(unet, setting, chunk=2))
    table.add(TWO, took, f"distance {apart(two, mine):.1e} from unchunked")
    for chunk in (8, 2):
        count, took = timed(lambda chunk=chunk: original(unet, setting, chunk))
        table.add(ORIGINAL.format(chunk), took, f"{count} frames")
    return mine


def fast(unet: Any, setting: Setting, mine: Tensor, table: Table, compiled: bool) -> None:
    """Each fast option beside ours exact."""

    def each(cases: Sequence[Case], network: Any, before: str = "") -> None:
        for name, steps, more in cases:
            begin = setting.levels[:-1][:: round(1 / steps)]  # from the same noise on
            levels = (*begin, setting.levels[-1])
            found, took = timed(lambda m=more, ls=levels: ours(network, setting, **m, levels=ls))
            table.add(f"{before}{name}, {len(begin)} steps", took, f"distance {apart(found, mine):.3f}")

    each(CASES, unet)
    if compiled:
        with _compiled(unet) as quick:
            _, first = timed(lambda: ours(quick, replace(setting, steps=2)))
            found, took = timed(lambda: ours(quick, setting))
        table.add("compiled blocks", took, f"distance {apart(found, mine):.1e}; compiling took {first.wall:.0f} s")
    each(TOGETHER, copy.deepcopy(unet).to(torch.bfloat16), "bfloat16, ")


Case = tuple[str, float, dict[str, Any]]
CASES: list[Case] = [
    ("unipc", 0.5, {"sampler": "unipc"}),
    ("unipc", 0.25, {"sampler": "unipc"}),
    ("reuse 2", 1.0, {"reuse": 2}),
    ("reuse 3", 1.0, {"reuse": 3}),
    ("reuse 5", 1.0, {"reuse": 5}),
    ("merging 0.5", 1.0, {"merging": 0.5}),
    ("unipc, reuse 2", 0.5, {"sampler": "unipc", "reuse": 2}),
    ("unipc, reuse 3", 1 / 3, {"sampler": "unipc", "reuse": 3}),
]
TOGETHER: list[Case] = [
    ("ddim", 1.0, {}),
    ("reuse 2", 1.0, {"reuse": 2}),
    ("unipc, reuse 3", 1 / 3, {"sampler": "unipc", "reuse": 3}),
    ("unipc, reuse 3", 0.25, {"sampler": "unipc", "reuse": 3}),
]


@contextmanager
def _compiled(unet: Any) -> Iterator[Any]:
    """The network with its convolutional blocks compiled; attention is left as it is."""
    blocks = [module for module in unet.modules() if type(module).__name__ == "ResnetBlock2D"]
    for block in blocks:
        block.__dict__["forward"] = torch.compile(block.forward, dynamic=True)
    try:
        yield unet
    finally:
        for block in blocks:
            del block.__dict__["forward"]


# ---- memory


def highest() -> int:
    """The highest resident size since the last reset, in bytes. Linux."""
    said = Path("/proc/self/status").read_text()
    return int(next(line for line in said.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024


def measured(case: str, frames: int, side: int) -> int:
    """What one case needs above the weights, in bytes; in this process."""
    setting = Setting(2, frames, side)
    unet = network()
    timed(lambda: unet(torch.zeros(2, 4, 8, 8), 1, torch.cat(words())))
    Path("/proc/self/clear_refs").write_text("5")
    before = highest()
    with nullcontext() if case != "port" else torch.no_grad():
        theirs(unet, setting) if case == "port" else ours(unet, setting, chunk=int(case))
    return highest() - before


def memory(frames: int, side: int) -> None:
    """The port unchunked beside ours, each in a process of its own."""
    found = {}
    for case in ("port", str(frames), "8", "2"):
        command = [sys.executable, __file__, "--measure", case, "--frames", str(frames), "--memory-side", str(side)]
        made = subprocess.run(command, capture_output=True, text=True, check=True)
        found[case] = json.loads(made.stdout.splitlines()[-1])
        name = "diffusers' port, unchunked" if case == "port" else f"ours, chunk {case}"
        ratio = found[case] / found["port"]
        print(f"{name:<44} {found[case] / 2**20:8.0f} MiB  {ratio:.2f} of the port's", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--side", type=int, default=16, help="cells of latents")
    parser.add_argument("--rounds", type=int, default=1, help="of all cases; the least time of each counts")
    parser.add_argument("--memory-frames", type=int, default=16)
    parser.add_argument("--memory-side", type=int, default=32)
    parser.add_argument("--only", choices=["exact", "fast", "memory"], help="exact is part of fast")
    parser.add_argument("--compile", action="store_true", help="needs a compiler")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        print(json.dumps(measured(asked.measure, asked.frames, asked.memory_side)))
        return
    setting = Setting(asked.steps, asked.frames, asked.side)
    print(f"{setting}, {torch.get_num_threads()} threads, torch {torch.__version__}", flush=True)
    if asked.only != "memory":
        unet = network()
        table = Table()
        for _ in range(asked.rounds):
            mine = exact(unet, setting, table)
            if asked.only != "exact":
                fast(unet, setting, mine, table, asked.compile)
        table.show()
        del unet
    if asked.only in (None, "memory"):
        print(f"memory above the weights, {asked.memory_frames} frames of {asked.memory_side} cells", flush=True)
        memory(asked.memory_frames, asked.memory_side)


if __name__ == "__main__":
    main()
