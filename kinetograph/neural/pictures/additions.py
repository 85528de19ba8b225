"""What is added to a loaded picture model: LoRAs, and words of one's own (textual inversion). Safetensors only."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from kinetograph.errors import InvalidRequest, WeightsError, in_a_line
from kinetograph.neural import checkpoint
from kinetograph.neural.pictures import lora
from kinetograph.neural.pictures.folder import Pictures, quiet


def add_loras(pictures: Pictures, files: Sequence[Path], scales: Sequence[float]) -> None:
    """Add LoRAs, each as strong as its scale says; those of diffusers, peft and the kohya tools are read.

    Raises WeightsError for a file that is none or is another model's. After it the model may hold half of it: load it
    anew.
    """
    names = [f"lora_{place}" for place in range(len(files))]
    for name, file in zip(names, files):
        tensors = checkpoint.load(file)
        try:
            with quiet():
                taken = _taken(pictures, file, tensors, name)
        except (ValueError, RuntimeError, KeyError, TypeError, AttributeError, IndexError) as error:
            hint = in_a_line(error)
            raise WeightsError(f"{file} is no LoRA for this model", hint=hint) from error
        if not taken:
            hint = f"its first tensor is {sorted(tensors)[0] if tensors else 'none'}"
            raise WeightsError(f"{file} holds nothing for this model", hint=hint)
    with quiet():
        if _loads(pictures.pipe):
            pictures.pipe.set_adapters(names, list(scales))
        else:
            lora.scale(pictures.network, names, scales)
    for part in pictures.pipe.components.values():
        if hasattr(part, "requires_grad_"):
            part.requires_grad_(False)


def _loads(pipe: Any) -> bool:
    return hasattr(pipe, "load_lora_weights")


def _taken(pictures: Pictures, file: Path, tensors: dict[str, Tensor], name: str) -> bool:
    """Whether a LoRA found a layer to work in."""
    pipe = pictures.pipe
    if not _loads(pipe):
        lora.add(pictures.network, file, tensors, name)
        return bool(lora.layers(pictures.network, name))
    pipe.load_lora_weights(dict(tensors), adapter_name=name)
    return any(name in adapters for adapters in pipe.get_list_adapters().values())


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
            hint = in_a_line(error)
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
