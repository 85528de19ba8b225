"""What is added to a loaded picture model: LoRAs, and words of one's own (textual inversion). Safetensors only."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from kinetograph.errors import InvalidRequest, WeightsError
from kinetograph.neural import checkpoint
from kinetograph.neural.pictures.folder import Pictures, quiet


def add_loras(pictures: Pictures, files: Sequence[Path], scales: Sequence[float]) -> None:
    """Add LoRAs, each as strong as its scale says; those of diffusers, peft and the kohya tools are read.

    Raises InvalidRequest for a family that takes none, WeightsError for a file that is none or is another model's.
    After either the model may hold half of it: load it anew.
    """
    pipe = pictures.pipe
    if not hasattr(pipe, "load_lora_weights"):
        raise InvalidRequest(f"{type(pipe).__name__} takes no LoRA", field="lora", hint="leave it out")
    names = [f"lora_{place}" for place in range(len(files))]
    for name, file in zip(names, files):
        tensors = checkpoint.load(file)
        try:
            with quiet():
                pipe.load_lora_weights(dict(tensors), adapter_name=name)
        except (ValueError, RuntimeError, KeyError, TypeError, AttributeError, IndexError) as error:
            hint = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            raise WeightsError(f"{file} is no LoRA for this model", hint=hint) from error
        if not any(name in adapters for adapters in pipe.get_list_adapters().values()):
            hint = f"its first tensor is {sorted(tensors)[0] if tensors else 'none'}"
            raise WeightsError(f"{file} holds nothing for this model", hint=hint)
    with quiet():
        pipe.set_adapters(names, list(scales))
    for part in pipe.components.values():
        if hasattr(part, "requires_grad_"):
            part.requires_grad_(False)


def add_embedding(pictures: Pictures, file: Path, token: str = "") -> str:
    """Teach the text encoders one word, and say which; `token` where the file does not say it.

    Raises InvalidRequest for a family that takes none, WeightsError for a file that is none or is another model's.
    """
    pipe = pictures.pipe
    if not hasattr(pipe, "load_textual_inversion"):
        hint = "leave it out"
        raise InvalidRequest(f"{type(pipe).__name__} takes no words of one's own", field="embeddings", hint=hint)
    tensors = checkpoint.load(file)
    if not token and not {"emb_params", "clip_l", "clip_g"} & set(tensors):
        token = next(iter(tensors), "")
    token = token or file.stem
    for tensor, tokenizer, encoder in _taught(pipe, tensors, file):
        try:
            with quiet():
                pipe.load_textual_inversion(tensor, token=token, tokenizer=tokenizer, text_encoder=encoder)
        except (ValueError, RuntimeError) as error:
            hint = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            raise WeightsError(f"{file} holds no word for this model", hint=hint) from error
    return token


def _taught(pipe: Any, tensors: dict[str, Tensor], file: Path) -> list[tuple[Tensor, Any, Any]]:
    """Which tensor is for which text encoder, SDXL having two."""
    pairs = [(pipe.tokenizer, pipe.text_encoder)]
    if "clip_g" in tensors:
        pairs.append((getattr(pipe, "tokenizer_2", None), getattr(pipe, "text_encoder_2", None)))
    found = [tensors[name] for name in ("clip_l", "clip_g") if name in tensors] or list(tensors.values())[:1]
    fits = len(found) == len(pairs) and all(
        encoder is not None and vector.ndim <= 2 and vector.shape[-1] == encoder.config.hidden_size
        for vector, (_, encoder) in zip(found, pairs)
    )
    if not fits:
        hint = f"its tensors are {', '.join(f'{name} {tuple(t.shape)}' for name, t in tensors.items())[:200]}"
        raise WeightsError(f"{file} holds no word for this model", hint=hint)
    return [(vector, *pair) for vector, pair in zip(found, pairs)]
