"""The families of picture models: which of diffusers' pipelines loads one, what it is told, and how it is asked.

A family is one row of FAMILIES. What a network is told is a table of tensors by the names of the network's own
arguments, so that modes can add more of those; `beside` alone is ours: channels that are laid beside the latents.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Told = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Family:
    """How models of one kind are loaded and told.

    `tell` makes of a pipeline, prompts, width, height and whether they are negative what its network is told, one row a
    prompt. `added` are those tensors that the network takes in one argument, `added_cond_kwargs`; `lengths` the numbers
    of tokens that follow each other in a row, each with the name of its tokenizer.
    """

    pipeline: str
    network: str
    tell: Callable[[Any, list[str], int, int, bool], Told]
    added: tuple[str, ...] = ()
    always_added: bool = False  # empty, too
    tokenizers: tuple[str, ...] = ("tokenizer",)
    without: tuple[str, ...] = ()  # parts that a picture does without
    optional: tuple[str, ...] = ()  # parts that some folders leave out
    flow_times: float = 1000  # what the network calls flow matching's t = 1


def _sd(pipe: Any, prompts: list[str], width: int, height: int, negative: bool) -> Told:
    said, _ = pipe.encode_prompt(prompts, pipe._execution_device, 1, False)
    return {"encoder_hidden_states": said}


def _sdxl(pipe: Any, prompts: list[str], width: int, height: int, negative: bool) -> Told:
    said, _, pooled, _ = pipe.encode_prompt(
        prompts, device=pipe._execution_device, num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    if negative and pipe.config.force_zeros_for_empty_prompt:
        wordless = torch.tensor([not prompt.strip() for prompt in prompts], device=said.device)
        said, pooled = said.masked_fill(wordless[:, None, None], 0), pooled.masked_fill(wordless[:, None], 0)
    ids = torch.tensor([[height, width, 0, 0, height, width]] * len(prompts)).to(pooled)
    return {"encoder_hidden_states": said, "text_embeds": pooled, "time_ids": ids}


def _sd3(pipe: Any, prompts: list[str], width: int, height: int, negative: bool) -> Told:
    said, _, pooled, _ = pipe.encode_prompt(
        prompts, prompts, prompts, device=pipe._execution_device, do_classifier_free_guidance=False
    )
    return {"encoder_hidden_states": said, "pooled_projections": pooled}


def _t5(pipe: Any, prompts: list[str], width: int, height: int, negative: bool) -> Told:
    said, mask, _, _ = pipe.encode_prompt(prompts, False, device=pipe._execution_device)
    return {"encoder_hidden_states": said, "encoder_attention_mask": mask}


def _pixart_alpha(pipe: Any, prompts: list[str], width: int, height: int, negative: bool) -> Told:
    told = _t5(pipe, prompts, width, height, negative)
    if pipe.transformer.config.sample_size == 128:  # the one that was told sizes in training
        said = told["encoder_hidden_states"]
        told["resolution"] = torch.tensor([[height, width]] * len(prompts)).to(said)
        told["aspect_ratio"] = torch.tensor([[height / width]] * len(prompts)).to(said)
    return told


def _sana(pipe: Any, prompts: list[str], width: int, height: int, negative: bool) -> Told:
    asked = None if negative else _sana_instruction(pipe)
    said, mask, _, _ = pipe.encode_prompt(
        prompts, False, device=pipe._execution_device, complex_human_instruction=asked
    )
    return {"encoder_hidden_states": said, "encoder_attention_mask": mask}


def _sana_instruction(pipe: Any) -> Any:
    """What the pipeline asks its language model to make of a prompt, unless told otherwise."""
    import inspect

    return inspect.signature(type(pipe).__call__).parameters["complex_human_instruction"].default


SIZES = ("resolution", "aspect_ratio")

FAMILIES: Mapping[str, Family] = {
    "sd": Family(
        pipeline="StableDiffusionPipeline",
        network="unet",
        tell=_sd,
        without=("safety_checker", "feature_extractor", "image_encoder"),
    ),
    "sdxl": Family(
        pipeline="StableDiffusionXLPipeline",
        network="unet",
        tell=_sdxl,
        added=("text_embeds", "time_ids"),
        tokenizers=("tokenizer_2",),
        without=("feature_extractor", "image_encoder"),
    ),
    "sd3": Family(
        pipeline="StableDiffusion3Pipeline",
        network="transformer",
        tell=_sd3,
        tokenizers=("tokenizer", "tokenizer_3"),
        optional=("text_encoder_3", "tokenizer_3"),
        without=("feature_extractor", "image_encoder"),
    ),
    "pixart-alpha": Family(
        pipeline="PixArtAlphaPipeline", network="transformer", tell=_pixart_alpha, added=SIZES, always_added=True
    ),
    "pixart-sigma": Family(
        pipeline="PixArtSigmaPipeline", network="transformer", tell=_t5, added=SIZES, always_added=True
    ),
    "sana": Family(pipeline="SanaPipeline", network="transformer", tell=_sana, tokenizers=()),
}


def asked(family: Family, told: Mapping[str, Any]) -> dict[str, Any]:
    """What a network is told, as the arguments of its call."""
    given = {name: value for name, value in told.items() if name not in family.added}
    added = {name: told.get(name) for name in family.added}
    if family.added and (family.always_added or any(value is not None for value in added.values())):
        given["added_cond_kwargs"] = added
    return given
