"""A pipeline of diffusers: loaded from a folder that has passed the gate, run, and its output made frames."""

import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import torch
from PIL import Image

from kinetograph.errors import InvalidRequest, KinetographError, WeightsError, in_a_line
from kinetograph.neural.pretrained import stepping
from kinetograph.neural.pretrained.stepping import OnStep

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@contextmanager
def quiet() -> Iterator[None]:
    """Within, diffusers and transformers keep their advice to developers to themselves."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    before, others = diffusers_logging.get_verbosity(), transformers_logging.get_verbosity()
    diffusers_logging.set_verbosity(logging.CRITICAL)  # blocks log what they raise, and its trace at every depth
    transformers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        diffusers_logging.set_verbosity(before)
        transformers_logging.set_verbosity(others)


def load(folder: Path, pipeline: str, dtype: str, variant: str = "", **more: Any) -> Any:
    """The pipeline in a folder, on the CPU. Only safetensors are read, and nothing is fetched.

    Raises WeightsError, with what diffusers said, where the folder does not hold what its index promises.
    """
    kind = getattr(diffusers, pipeline, None)
    if kind is None:
        raise WeightsError(
            f"{folder} is a {pipeline}, which diffusers {diffusers.__version__} does not have",
            hint="another version of diffusers may: pip install --upgrade diffusers",
        )
    said = {"torch_dtype": DTYPES[dtype], "use_safetensors": True, "local_files_only": True, **more}
    if variant:
        said["variant"] = variant
    with quiet(), explained(f"{folder} could not be loaded as a {pipeline}"):
        loaded = kind.from_pretrained(str(folder), **said)
    for part in loaded.components.values():
        mend(part)
    _mend_cosmos()
    loaded.set_progress_bar_config(disable=True)
    return loaded


def mend(part: Any) -> None:
    """What pipelines of diffusers expect of parts that newer libraries changed, or that work in one way only."""
    if type(part).__name__.startswith("CLIPTextModel") and not hasattr(part, "text_model"):
        part.__dict__["text_model"] = (
            part  # transformers 5 took the layer away; not a submodule, which would be endless
        )
    if type(part).__name__ == "AutoencoderKLAllegro":
        part.enable_tiling()  # it decodes in no other way
    if type(part).__name__.startswith("Helios") and hasattr(part, "gamma"):
        # at 1/3 the noise of a block has no spread in one direction, and whether its Cholesky factor is found depends
        # on how the processor rounds (diffusers adds 1e-8 to numbers near 1 in float32)
        part.register_to_config(gamma=min(part.config.gamma, (1 - 1e-5) / 3))


def _mend_cosmos() -> None:
    """The functions of torchvision that Cosmos asks for; this project must do without it, for its wheels are CUDA's."""
    functional = SimpleNamespace(
        resize=lambda x, size, interpolation: torch.nn.functional.interpolate(x, size, mode=interpolation),
        to_tensor=lambda image: torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255,
    )
    transforms = SimpleNamespace(functional=functional, InterpolationMode=SimpleNamespace(NEAREST="nearest"))
    lent = {"transforms": transforms, "torchvision": SimpleNamespace(transforms=transforms)}
    for module, name in (
        ("diffusers.models.transformers.transformer_cosmos", "transforms"),
        ("diffusers.models.controlnets.controlnet_cosmos", "transforms"),
        ("diffusers.pipelines.cosmos.pipeline_cosmos2_5_predict", "torchvision"),
    ):
        if module in sys.modules and not hasattr(sys.modules[module], name):
            setattr(sys.modules[module], name, lent[name])


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Within, what diffusers raises of a damaged or unfit folder becomes a WeightsError with its last words."""
    try:
        yield
    except KinetographError:
        raise
    except (OSError, ValueError, TypeError, AttributeError, KeyError, ImportError, RuntimeError) as error:
        raise WeightsError(what, hint=in_a_line(error)) from error


def run(pipeline: Any, arguments: Mapping[str, Any], seed: int | list[int], on_step: OnStep) -> list[np.ndarray]:
    """Call the pipeline; give back its clips, uint8 (t, h, w, 3) each. What `on_step` raises is let through.

    The noise is drawn on the CPU, so that a seed means the same on every device. Raises InvalidRequest for what the
    pipeline refuses.
    """
    seeds = seed if isinstance(seed, list) else [seed]
    sources = [torch.Generator("cpu").manual_seed(one) for one in seeds]
    said = {**arguments, "generator": sources if isinstance(seed, list) else sources[0]}
    with quiet(), stepping.listening(pipeline, on_step), torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(seeds[0])  # some pipelines draw from the global source as well
        try:
            output = pipeline(**said)
        except (ValueError, TypeError) as error:
            if stepping.is_listeners(error):
                raise
            words = " ".join(str(error).split())[:400]
            raise InvalidRequest(f"{type(pipeline).__name__} refuses this request", hint=words) from error
    return clips(output)


def clips(output: Any) -> list[np.ndarray]:
    """The clips in what a pipeline gave back, whatever it calls and however it wraps them."""
    for name in ("frames", "videos", "video", "images"):
        if hasattr(output, name):
            output = getattr(output, name)
            break
    if isinstance(output, dict):
        output = next((output[name] for name in ("videos", "frames", "video") if name in output), output)
    if isinstance(output, tuple):
        output = output[0]
    first = output[0]
    alone = isinstance(first, Image.Image) or getattr(first, "ndim", 0) == 3  # one clip, not several
    return [_frames(clip) for clip in ([output] if alone else output)]


def _frames(clip: Any) -> np.ndarray:
    """One clip as uint8 (t, h, w, 3), rounded to the nearest."""
    if isinstance(clip, torch.Tensor):
        clip = clip.detach().float().cpu().numpy()
        clip = np.moveaxis(clip, 0 if clip.shape[0] == 3 and clip.shape[1] != 3 else 1, -1)
    if isinstance(clip, list | tuple):
        clip = np.stack(
            [np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image) for image in clip]
        )
    if clip.dtype == np.uint8:
        return np.ascontiguousarray(clip)
    clip = np.asarray(clip, np.float32)
    if lost := int((~np.isfinite(clip)).sum()):
        said = f"{lost / clip.size:.0%} of the pixels came out as no numbers, and are black"
        warnings.warn(f"{said}; a longer number format may help: dtype=bfloat16 or float32", stacklevel=2)
    return np.ascontiguousarray((np.nan_to_num(clip, nan=0.0).clip(0, 1) * 255).round().astype(np.uint8))


def picture(frame: np.ndarray) -> Image.Image:
    """A frame as pipelines want pictures."""
    return Image.fromarray(frame)


def preview(pipeline: Any, moment: stepping.Moment | None) -> np.ndarray | None:
    """The middle of the clip as it looks by now, uint8 (h, w, 3); None where the latents are packed or unknown."""
    clean = moment.clean() if moment else None
    vae = getattr(pipeline, "vae", None)
    if clean is None or vae is None or clean.ndim != 5:
        return None
    channels = vae.config.get("latent_channels") or vae.config.get("z_dim")
    if clean.shape[1] != channels:
        if clean.shape[2] != channels:
            return None
        clean = clean.transpose(1, 2)
    middle = clean.shape[2] // 2
    latent = clean[:1, :, middle : middle + 1] if clean.shape[2] > 1 else clean[:1]
    with torch.no_grad(), quiet():
        try:
            decoded = _decoded(vae, _scaled(vae, latent.to(vae.dtype)))
        except (RuntimeError, ValueError, TypeError, AttributeError):
            return None  # a decoder that needs more than one latent frame, or more than latents
    return ((decoded.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()


def _scaled(vae: Any, latent: torch.Tensor) -> torch.Tensor:
    """Latents as the decoder wants them: the opposite of what the encoder's were normalised by."""
    config = vae.config
    mean, std = config.get("latents_mean"), config.get("latents_std")
    if mean is not None and std is not None:
        shape = (1, -1, 1, 1, 1)
        return latent * torch.tensor(std).view(shape).to(latent) + torch.tensor(mean).view(shape).to(latent)
    return latent / (config.get("scaling_factor") or 1.0) + (config.get("shift_factor") or 0.0)


def _decoded(vae: Any, latent: torch.Tensor) -> torch.Tensor:
    """The first frame of a latent's picture, (3, h, w)."""
    flat = type(vae).__name__ in ("AutoencoderKL", "AutoencoderKLTemporalDecoder")
    picture = vae.decode(latent[:, :, 0] if flat else latent, return_dict=False)[0]
    return picture[0] if flat else picture[0, :, 0]
