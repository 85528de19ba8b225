"""ModelScope's text-to-video diffusion (Wang et al. 2023), and ZeroScope: the networks, our own samplers around them.

The network predicts the noise in latents (b, 4, t, h / 8, w / 8) of a variance-preserving schedule; here it is a
denoiser like any other. Clips longer than one window are made of windows that overlap: at every step each window is
denoised alone and the overlapping estimates are averaged, from noise that comes back, shuffled, in every window
(FreeNoise, Qiu et al. 2023), so that far frames belong to one scene.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kinetograph.neural import device as devices
from kinetograph.neural import sampling
from kinetograph.neural.pretrained import pipelines, prompts
from kinetograph.neural.sampling import Denoiser, Level, Levels

SOLVERS = ("dpmpp-2m", "unipc")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to sample; `strength` is how much of the way is gone again where a clip is given, `window` how many frames
    are denoised together, `overlap` how many of them two windows share, `chunk` how many frames are decoded at once."""

    steps: int = 25
    sampler: str = "dpmpp-2m"
    placement: str = "auto"
    guidance: float = 9.0
    eta: float = 0.0
    strength: float = 0.6
    clip_skip: int = 0
    window: int = 16
    overlap: int = 8
    chunk: int = 4


class Networks:
    """The three networks and the schedule of one checkpoint, on the device that works with them.

    With `offload` each is on the device only while it works.
    """

    def __init__(self, folder: Path, dtype: str, variant: str, where: torch.device, offload: bool = False) -> None:
        from diffusers import AutoencoderKL, UNet3DConditionModel
        from transformers import AutoTokenizer, CLIPTextModel

        said: dict[str, Any] = {"dtype": pipelines.DTYPES[dtype], "use_safetensors": True, "local_files_only": True}
        if variant:
            said["variant"] = variant
        other = {("torch_dtype" if name == "dtype" else name): value for name, value in said.items()}
        with pipelines.quiet(), pipelines.explained(f"{folder} could not be loaded as a text-to-video model"):
            self.unet = UNet3DConditionModel.from_pretrained(folder / "unet", **other).eval()
            self.vae = AutoencoderKL.from_pretrained(folder / "vae", **other).eval()
            self.encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", **said).eval()
            self.tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
        pipelines.mend(self.encoder)
        self.schedule = json.loads((folder / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
        self.where, self.offload = where, offload
        if not offload:
            for network in (self.unet, self.vae, self.encoder):
                network.to(where)

    @contextmanager
    def at_work(self, network: Any) -> Iterator[Any]:
        """Within, the network is on the device."""
        if self.offload:
            network.to(self.where)
        try:
            yield network
        finally:
            if self.offload:
                network.to("cpu")
                if self.where.type == "cuda":
                    torch.cuda.empty_cache()

    @property
    def scale(self) -> int:
        """Pixels to a latent, along a side."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))


def sample(
    networks: Networks,
    prompt: str,
    negative_prompt: str,
    settings: Settings,
    noise: Callable[..., Tensor],
    shape: tuple[int, int, int],
    *,
    clip: Tensor | None = None,
    on_step: sampling.OnStep = lambda index, count, x, clean: None,
) -> Tensor:
    """A clip (1, 3, t, h, w) in [-1, 1] of the shape (t, h, w); `clip`, of that shape too, is what is varied.

    `noise(*path, shape=...)` gives standard normal noise; what `on_step` raises ends it.
    """
    frames, height, width = shape
    latent = (1, networks.unet.config.in_channels, frames, height // networks.scale, width // networks.scale)
    with torch.inference_mode(), pipelines.quiet():
        with networks.at_work(networks.encoder):
            told = prompts.encode([negative_prompt, prompt], networks.tokenizer, networks.encoder, settings.clip_skip)
        levels = levels_of(networks.schedule, settings)
        x = windowed_noise(noise, latent, settings.window, settings.window - settings.overlap).to(networks.where)
        if clip is None:
            x = sampling.begin(x, levels[0])
        else:
            levels = part_of(levels, settings.strength)
            x = sampling.noised(encode(networks, clip, settings.chunk, noise), x, levels[0])
        with networks.at_work(networks.unet):
            x = sampling.sample(
                windowed(denoiser(networks, told, settings.guidance), settings.window, settings.overlap),
                x,
                levels,
                settings.sampler,
                noise_source=lambda index: noise(1, index, shape=latent).to(networks.where),
                on_step=on_step,
                eta=settings.eta,
            )
        return decode(networks, x, settings.chunk)


def levels_of(config: dict[str, Any], settings: Settings) -> Levels:
    """The levels of a checkpoint's own schedule. DDIM ends where the checkpoint's scheduler does, which may be short of
    clean."""
    betas = {"scaled_linear": sampling.scaled_linear_betas, "linear": sampling.linear_betas}.get(
        config["beta_schedule"]
    )
    if betas is None or config.get("num_train_timesteps", 1000) != sampling.TRAINING_TIMES:
        table = sampling.Table.of(_betas(config))
    else:
        table = sampling.Table.of(betas(config["beta_start"], config["beta_end"]))
    usual = "leading" if settings.sampler == "ddim" else "linspace"  # what diffusers does by default
    placement = settings.placement if settings.placement != "auto" else config.get("timestep_spacing", usual)
    offset = config.get("steps_offset", 0)
    if settings.sampler in SOLVERS and placement in ("linspace", "leading"):
        times = _solver_times(settings.steps, len(table.ratios), placement, offset)
        return (*(table.at(time) for time in times), sampling.CLEAN)
    levels = table.levels(settings.steps, placement, offset)
    if settings.sampler == "ddim" and not config.get("set_alpha_to_one", True) and levels[-2].ratio > table.ratios[0]:
        return (*levels[:-1], table.at(0))
    return levels


def _solver_times(steps: int, count: int, placement: str, offset: int) -> list[int]:
    """Where diffusers places the steps of its multistep solvers: as if there were one more, which is clean."""
    if placement == "linspace":
        return [round((count - 1) * index / steps) for index in range(steps, 0, -1)]
    return [index * (count // (steps + 1)) + offset for index in range(steps, 0, -1)]


def _betas(config: dict[str, Any]) -> Tensor:
    from diffusers import DDIMScheduler

    return DDIMScheduler.from_config(config).betas


def part_of(levels: Levels, strength: float) -> Levels:
    """The last part of the way: `strength` of its steps, at least one."""
    steps = len(levels) - 1
    return levels[steps - max(min(int(steps * strength), steps), 1) :]


def denoiser(networks: Networks, told: Tensor, guidance: float) -> Denoiser:
    """The network as a denoiser, guided from the first row of `told` to the second, both in one call."""
    unet = networks.unet
    prediction = {"epsilon": "epsilon", "v_prediction": "v", "sample": "clean"}[
        networks.schedule.get("prediction_type", "epsilon")
    ]

    def network(x: Tensor, level: Level) -> Tensor:
        rows = torch.cat([x, x]) if guidance != 1 else x
        words = told if guidance != 1 else told[1:]
        said = unet(rows.to(unet.dtype), level.time, encoder_hidden_states=words, return_dict=False)[0].float()
        if guidance == 1:
            return said
        other, wanted = said.chunk(2)
        return other + guidance * (wanted - other)  # Ho & Salimans 2022

    return sampling.denoiser(network, prediction)


# ---- longer than a window


def windows(frames: int, window: int, overlap: int) -> list[tuple[int, int]]:
    """Where windows begin and end; the last one ends with the clip, and no frame is left out."""
    if frames <= window:
        return [(0, frames)]
    begins = [*range(0, frames - window, max(window - overlap, 1)), frames - window]
    return [(begin, begin + window) for begin in begins]


def windowed(denoise: Denoiser, window: int, overlap: int) -> Denoiser:
    """A denoiser of clips of any length from one of clips of `window` frames: the mean of the windows that see a frame,
    each heavier in its middle."""

    def whole(x: Tensor, level: Level) -> Tensor:
        places = windows(x.shape[2], window, overlap)
        if len(places) == 1:
            return denoise(x, level)
        total, weight = torch.zeros_like(x), x.new_zeros(x.shape[2])
        for begin, end in places:
            ramp = torch.arange(1, end - begin + 1, device=x.device, dtype=x.dtype)
            heavy = torch.minimum(ramp, ramp.flip(0))
            total[:, :, begin:end] += denoise(x[:, :, begin:end], level) * heavy[:, None, None]
            weight[begin:end] += heavy
        return total / weight[:, None, None]

    return whole


def windowed_noise(noise: Callable[..., Tensor], shape: tuple[int, ...], window: int, stride: int) -> Tensor:
    """Noise for a clip: fresh for one window, then the frames of that window again, stride by stride, shuffled."""
    frames = shape[2]
    if frames <= window:
        return noise(0, shape=shape)
    first = noise(0, shape=(*shape[:2], window, *shape[3:]))
    order = list(range(window))
    while len(order) < frames:
        block = order[len(order) - window : len(order) - window + max(stride, 1)]
        keys = noise(2, len(order), shape=(len(block),))
        order += [block[int(place)] for place in keys.argsort()]
    return first[:, :, order[:frames]]


# ---- latents and pixels, a few frames at a time


def encode(networks: Networks, clip: Tensor, chunk: int, noise: Callable[..., Tensor]) -> Tensor:
    """Pixels (1, 3, t, h, w) -> latents (1, 4, t, h / 8, w / 8)."""
    vae, found = networks.vae, []
    with networks.at_work(vae):
        pictures = clip.transpose(1, 2).flatten(0, 1).to(networks.where, vae.dtype)  # (b t, c, h, w)
        for part in pictures.split(chunk):
            found.append(vae.encode(part).latent_dist)
        mean, spread = torch.cat([one.mean for one in found]), torch.cat([one.std for one in found])
        drawn = mean + spread * noise(3, shape=tuple(mean.shape)).to(mean)
    return (drawn.float() * vae.config.scaling_factor).unflatten(0, (len(clip), -1)).transpose(1, 2)


def decode(networks: Networks, x: Tensor, chunk: int) -> Tensor:
    """Latents (1, 4, t, h / 8, w / 8) -> pixels (1, 3, t, h, w)."""
    vae = networks.vae
    with networks.at_work(vae):
        flat = (x / vae.config.scaling_factor).transpose(1, 2).flatten(0, 1).to(vae.dtype)  # (b t, c, h, w)
        pictures = torch.cat([vae.decode(part).sample.float() for part in flat.split(chunk)])
    return pictures.unflatten(0, (len(x), -1)).transpose(1, 2)


def glance(networks: Networks, clean: Tensor) -> Tensor:
    """The middle frame of a clean estimate in latents, as pixels (1, 3, 1, h, w)."""
    middle = clean.shape[2] // 2
    return decode(networks, clean[:1, :, middle : middle + 1], 1)


def noise_of(seed: int) -> Callable[..., Tensor]:
    """The noise of a seed, keyed by its place."""
    return lambda *path, shape: devices.noise(seed, *path, shape=shape)
