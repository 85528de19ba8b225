"""A picture model out of a folder in diffusers' format: loaded onto its device, brought to this project's contracts."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from kinetograph import gate, hub
from kinetograph.errors import InvalidRequest, WeightsError, in_a_line
from kinetograph.neural import device, sampling
from kinetograph.neural.pictures import sharing, weighting
from kinetograph.neural.pictures.families import FAMILIES, Family, asked
from kinetograph.neural.pictures.words import Words
from kinetograph.neural.sampling import Level, Levels, Table

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
CURVES = {
    "linear": sampling.linear_betas,
    "scaled_linear": sampling.scaled_linear_betas,
    "squaredcos_cap_v2": lambda start, end: sampling.cosine_betas(),
}
PREDICTIONS = {"epsilon": "epsilon", "v_prediction": "v", "sample": "clean"}


def load(path: Path, family: str, dtype: str, where: torch.device, variant: str = "", offload: str = "") -> "Pictures":
    """Load a folder of one of the FAMILIES, offline, in its dtype, straight onto the device; no code, no pickles.

    `offload` keeps the weights in memory and brings to the device only the part ("model") or the layer ("sequential")
    that is at work.

    Raises WeightsError for one that cannot be loaded, naming what is missing.
    """
    kind = FAMILIES[family]
    _check_parts(path, kind)
    options = {"torch_dtype": DTYPES[dtype], "use_safetensors": True, "local_files_only": True}
    if variant:
        options["variant"] = variant
    options |= dict.fromkeys((*kind.without, *(part for part in kind.optional if not (path / part).is_dir())))
    with understood(path), quiet():
        lent = _lent(path, kind, options)
        pipe = _pipeline(kind).from_pretrained(path, **options, **lent, **_no_safety(kind))
    return Pictures(_placed(pipe, offload, where), kind, where, path)


def _lent(path: Path, kind: Family, options: Mapping[str, Any]) -> dict[str, Any]:
    """The parts that another model lends this one."""
    found = sharing.lender(path)
    if found is None:
        return {}
    home, parts = found
    there = {**options, "variant": hub.Model(reference="", path=home).variant or None, kind.network: None}
    pipe = _pipeline(kind).from_pretrained(home, **there, **_no_safety(kind))
    return {name: getattr(pipe, name) for name in parts}


def load_file(path: Path, family: str, dtype: str, where: torch.device, config: Path, offload: str = "") -> "Pictures":
    """Load a checkpoint of one file, with the settings and tokenizers of a folder of the same family."""
    kind = FAMILIES[family]
    options: dict[str, Any] = {"torch_dtype": DTYPES[dtype], "local_files_only": True, "config": str(config)}
    options |= dict.fromkeys(kind.without)
    with understood(path), quiet():
        pipe = _pipeline(kind).from_single_file(str(path), **options, **_no_safety(kind))
    return Pictures(_placed(pipe, offload, where), kind, where, path)


def _placed(pipe: Any, offload: str, where: torch.device) -> Any:
    """A pipeline on a device, or with parts that are there only while they work."""
    if not offload:
        return pipe.to(where)
    (pipe.enable_model_cpu_offload if offload == "model" else pipe.enable_sequential_cpu_offload)(device=where)
    return pipe


def _check_parts(path: Path, kind: Family) -> None:
    index = gate.settings(path / gate.INDEX) if (path / gate.INDEX).is_file() else {}
    lost = [name for name in hub.parts(index) if name not in kind.without and not (path / name).is_dir()]
    if lost or not index:
        hint = f"it lacks {', '.join(lost) or gate.INDEX}"
        raise WeightsError(f"{path} is no whole picture model", hint=hint)


def _pipeline(kind: Family) -> Any:
    import diffusers

    return getattr(diffusers, kind.pipeline)


def _no_safety(kind: Family) -> dict[str, Any]:
    return {"requires_safety_checker": False} if "safety_checker" in kind.without else {}


@contextmanager
def understood(path: Path) -> Iterator[None]:
    """Within, what the two libraries say of a folder they cannot read is a WeightsError."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        hint = in_a_line(error)
        raise WeightsError(f"{path} cannot be loaded as a picture model", hint=hint) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Within, no bars, and no warnings of what the two libraries think of each other."""
    from diffusers.utils import logging as theirs
    from transformers.utils import logging as others

    before = theirs.get_verbosity(), others.get_verbosity()
    bars = theirs.is_progress_bar_enabled(), others.is_progress_bar_enabled()
    for log in (theirs, others):
        log.set_verbosity_error()
        log.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, level, bar in zip((theirs, others), before, bars):
            log.set_verbosity(level)
            if bar:
                log.enable_progress_bar()


class Pictures:
    """A picture model by its parts. `network` predicts latents of `channels` channels, in cells of `cell` pixels."""

    def __init__(self, pipe: Any, family: Family, where: torch.device, path: Path) -> None:
        self.pipe, self.family, self.device, self.path = pipe, family, where, path
        self.network: Any = getattr(pipe, family.network)
        self.vae: Any = pipe.vae
        if self.network is None or self.vae is None:
            missing = family.network if self.network is None else "vae"
            raise WeightsError(f"{path} has no {missing}", hint="without it there are no pictures")
        self.dtype: torch.dtype = self.network.dtype
        if self.dtype == torch.float16 and getattr(self.vae.config, "force_upcast", False):
            self.vae.to(torch.float32)  # SDXL's decoder overflows in half precision, and says so
        for part in pipe.components.values():
            if isinstance(part, torch.nn.Module):
                part.eval().requires_grad_(False)
        self.channels: int = self.vae.config.latent_channels
        self.cell: int = pipe.vae_scale_factor
        self.flow, self.prediction = _predicted(pipe.scheduler.config, path)
        self._colours: Tensor | None = None

    @property
    def side(self) -> int:
        """The height and width in pixels that it was trained on."""
        size = self.network.config.sample_size
        return int(size if isinstance(size, int) else max(size)) * self.cell

    def convert(self, dtype: torch.dtype) -> None:
        """Compute with numbers of this kind from now on."""
        with quiet():
            self.network.to(dtype)
            self.vae.to(dtype)
        self.dtype = dtype

    # ---- levels

    def levels(self, steps: int, placement: str = "", clean: bool = True) -> Levels:
        """The levels of a schedule that the model was trained on, placed as its settings say unless told otherwise.

        `clean` is whether the last is CLEAN; else it is the least noise that a discrete model knows, which diffusers
        means by `set_alpha_to_one: false`.
        """
        config = self.pipe.scheduler.config
        if self.flow:
            if placement:
                hint = "leave the placement open"
                raise InvalidRequest("flow matching has no placements", field="placement", hint=hint)
            return sampling.flow(steps, _shift(config))
        table = _table(config)
        levels = table.levels(
            steps, placement or config.get("timestep_spacing", "leading"), int(config.get("steps_offset", 0))
        )
        return levels if clean else (*levels[:-1], table.at(0))

    # ---- words

    def words(self, prompts: list[str], width: int, height: int, negative: bool = False) -> Words:
        """What the network is told of each prompt. "(word:1.3)" is a word that counts for more; see `weighting`."""
        plain, weights = zip(*(weighting.parse(prompt) for prompt in prompts))
        with torch.no_grad(), quiet():
            told = self.family.tell(self.pipe, list(plain), width, height, negative)
        if any(weights):
            if not self.family.tokenizers:
                hint = "leave the weights out"
                raise InvalidRequest("this model cannot weigh single words", field="prompt", hint=hint)
            with torch.no_grad(), quiet():
                wordless = self.family.tell(self.pipe, [""], width, height, False)
            both = told["encoder_hidden_states"], wordless["encoder_hidden_states"]
            told["encoder_hidden_states"] = weighting.weighed(*both, self._tokenizers(), list(plain), list(weights))
        cast = {
            name: value.to(self.device, self.dtype if value.is_floating_point() else value.dtype)
            for name, value in told.items()
        }
        return Words({name: value[:, None] for name, value in cast.items()})

    def _tokenizers(self) -> list[Any]:
        return [getattr(self.pipe, name) for name in self.family.tokenizers]

    # ---- what the network says

    def time(self, level: Level, rows: int) -> Tensor:
        """What the network is told of a level, for so many rows."""
        scale = self.family.flow_times if self.flow else 1.0
        scale *= getattr(self.network.config, "timestep_scale", 1.0)
        return torch.full((rows,), level.time * scale, dtype=torch.float32, device=self.device)

    def predict(self, x: Tensor, level: Level, told: Mapping[str, Any], frames: range) -> Tensor:
        """What the network says of x (n, c, h, w): a Predict of the zero-shot loop.

        `told` may hold more of the network's arguments, and `beside`: channels that are laid beside x.
        """
        given = asked(self.family, {name: value for name, value in told.items() if name != "beside"})
        x = x.to(self.device, self.dtype)
        if "beside" in told:
            x = torch.cat([x, told["beside"].to(x)], dim=1)
        with torch.no_grad():
            (said, *_) = self.network(x, timestep=self.time(level, len(x)), return_dict=False, **given)
        return said[:, : self.channels] if said.shape[1] == 2 * self.channels else said  # some predict variances, too

    # ---- pixels

    def decode(self, latents: Tensor, chunk: int = 4, tiled: bool = False) -> Tensor:
        """(n, 3, H, W) in [-1, 1], float32 on the CPU, out of latents (n, c, h, w): so many at a time, or in tiles."""
        scale, shift = self._spread(latents)
        with self._tiled(tiled), torch.no_grad():
            parts = [
                self.vae.decode((part / scale + shift).to(self.device, self.vae.dtype), return_dict=False)[0]
                .float()
                .cpu()
                for part in latents.split(chunk)
            ]
        return torch.cat(parts)

    def encode(self, pixels: Tensor, chunk: int = 4, tiled: bool = False, plain: bool = False) -> Tensor:
        """(n, c, h, w) float32 out of pictures (n, 3, H, W) in [-1, 1]: the middle of what they may be encoded as.

        `plain` leaves them as the encoder made them, not scaled to what the network denoises.
        """
        with self._tiled(tiled), torch.no_grad():
            parts = [self._encoded(part.to(self.device, self.vae.dtype)).float() for part in pixels.split(chunk)]
        latents = torch.cat(parts)
        return latents if plain else self.scaled(latents)

    def scaled(self, latents: Tensor) -> Tensor:
        """Latents as the encoder made them, as the network denoises them."""
        scale, shift = self._spread(latents)
        return cast(Tensor, (latents - shift) * scale)

    def sketch(self, latents: Tensor) -> Tensor:
        """(n, 3, h, w) in [-1, 1], one pixel a cell: what decoding would show, roughly and at once."""
        if self._colours is None:
            self._colours = self._fitted()
        ones = torch.ones_like(latents[:, :1])
        return torch.einsum("nchw,cd->ndhw", torch.cat([latents, ones], dim=1).float().cpu(), self._colours)

    def preview(self, latents: Tensor) -> Tensor:
        """(n, 3, H, W): a sketch as large as what decoding would show."""
        return self.sketch(latents).repeat_interleave(self.cell, 2).repeat_interleave(self.cell, 3)

    def _fitted(self) -> Tensor:
        """(c + 1, 3): the straight line through what the decoder makes of a few flat latents."""
        some = device.noise(0, shape=(8 * self.channels, self.channels))
        flat = some[..., None, None].expand(-1, -1, 4, 4)
        colours = self.decode(flat, chunk=8).mean((2, 3))
        return torch.linalg.lstsq(torch.cat([some, torch.ones(len(some), 1)], dim=1), colours).solution

    def _encoded(self, pixels: Tensor) -> Tensor:
        found = self.vae.encode(pixels)
        return found.latent_dist.mode() if hasattr(found, "latent_dist") else found.latent

    def _spread(self, like: Tensor) -> tuple[Any, Any]:
        """By what latents are multiplied for the network, and what is taken from them before."""
        config = self.vae.config
        mean, std = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
        if mean and std:
            mean, std = (torch.tensor(values).to(like).view(1, -1, 1, 1) for values in (mean, std))
            return config.scaling_factor / std, mean
        return config.scaling_factor, getattr(config, "shift_factor", None) or 0.0

    @contextmanager
    def _tiled(self, tiled: bool) -> Iterator[None]:
        before = self.vae.use_tiling
        if tiled:
            self.vae.enable_tiling()
        try:
            yield
        finally:
            self.vae.use_tiling = before


def _predicted(config: Mapping[str, Any], path: Path) -> tuple[bool, str]:
    """Whether a model is one of flow matching, and what its network predicts, by the settings of its scheduler."""
    said = config.get("prediction_type")
    if "FlowMatch" in config.get("_class_name", "") or "flow" in str(said) or config.get("use_flow_sigmas"):
        return True, "velocity"
    if said not in PREDICTIONS or config.get("beta_schedule") not in CURVES:
        hint = f"its scheduler says {said!r} and {config.get('beta_schedule')!r}"
        raise WeightsError(f"{path} was trained in a way that is not known", hint=hint)
    if config.get("num_train_timesteps", 1000) != sampling.TRAINING_TIMES:
        hint = f"not {config.get('num_train_timesteps')}"
        raise WeightsError(f"{path}: only models of {sampling.TRAINING_TIMES} times are known", hint=hint)
    return False, PREDICTIONS[said]


def _shift(config: Mapping[str, Any]) -> float:
    return float(config.get("shift") or config.get("flow_shift") or 1.0)


def _table(config: Mapping[str, Any]) -> Table:
    trained = config.get("trained_betas")
    betas = (
        torch.tensor(trained, dtype=torch.float64)
        if trained is not None
        else CURVES[config["beta_schedule"]](config["beta_start"], config["beta_end"])
    )
    return Table.of(betas, bool(config.get("rescale_betas_zero_snr")))
