"""Checkpoints of one file: which family they are of, and which model lends them its settings and tokenizers."""

from pathlib import Path

from kinetograph import gate, hub
from kinetograph.errors import ModelMissing, WeightsError

# What a tensor's name begins with in one kind of checkpoint only; its family; a model with the same settings.
KINDS = (
    ("conditioner.embedders.1.", "sdxl", "stabilityai/stable-diffusion-xl-base-1.0"),
    ("model.diffusion_model.joint_blocks.", "sd3", "stabilityai/stable-diffusion-3-medium-diffusers"),
    ("cond_stage_model.model.", "sd", "stabilityai/stable-diffusion-2-1"),
    ("cond_stage_model.transformer.", "sd", "stable-diffusion-v1-5/stable-diffusion-v1-5"),
)


def family(path: Path) -> str:
    """The family of a checkpoint. Raises WeightsError for a file that is none that is known."""
    return _kind(path)[0]


def settings(path: Path, config: str) -> Path:
    """The folder that lends a checkpoint its settings: `config`, or else a known model that is on this machine.

    Raises WeightsError, with what to do, where there is none.
    """
    usual = _kind(path)[1]
    try:
        return hub.locate(config or usual).path
    except ModelMissing as error:
        if config:
            raise
        fact = f"{path} is a checkpoint of one file, which holds neither settings nor a tokenizer"
        hint = f"kinetograph fetch {usual}, or say config=FOLDER, a model with the same settings"
        raise WeightsError(fact, hint=hint) from error


def _kind(path: Path) -> tuple[str, str]:
    names = gate.header(path)
    for begins, kind, usual in KINDS:
        if any(name.startswith(begins) for name in names):
            return kind, usual
    hint = f"known are those of Stable Diffusion 1, 2, XL and 3; its first tensor is {min(names, default='none')}"
    raise WeightsError(f"{path} is no checkpoint of a picture model", hint=hint)
