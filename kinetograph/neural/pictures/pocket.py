"""The pocket model of pictures: Stable Diffusion's layout at a hundredth of its size, for 128 x 128.

Its parts are diffusers' and transformers' own classes, so that whoever loads Stable Diffusion loads it: an autoencoder
that makes a cell of eight pixels square (Rombach et al. 2022), a text encoder in CLIP's manner whose tokens are whole
words of the worlds, and a UNet that attends to them. It is told of noise by Stable Diffusion's own levels, brought down
to no signal at all at the last (Lin et al. 2024), for which a network must predict velocities (Salimans & Ho 2022).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

CELL = 8  # pixels of the side of a cell
TOKENS = 32  # of the longest sentence, with one that begins and one that ends it
START, END, LAST = "<|startoftext|>", "<|endoftext|>", "</w>"
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,;:!?-'\"()"  # that any other word is spelt with

AUTOENCODERS: Mapping[str, dict[str, Any]] = {
    "tiny": {"block_out_channels": (4, 8, 12, 12), "latent_channels": 4, "norm_num_groups": 1, "sample_size": 32},
    "pocket": {
        "block_out_channels": (16, 48, 96, 128),
        "latent_channels": 8,
        "norm_num_groups": 1,  # of more, each forgets how bright and how coloured a flat picture is
        "sample_size": 128,
    },
}


def autoencoder(preset: str) -> Any:
    """A new autoencoder of one of AUTOENCODERS: pictures (n, 3, h, w) to latents (n, c, h / 8, w / 8) and back.

    Its middle has no attention: what a place looks like is told by its surroundings alone, whatever the size.
    """
    from diffusers import AutoencoderKL

    sizes = AUTOENCODERS[preset]
    stages = len(sizes["block_out_channels"])
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * stages,
        up_block_types=("UpDecoderBlock2D",) * stages,
        layers_per_block=1,
        mid_block_add_attention=False,
        force_upcast=False,
        **sizes,
    )


UNETS: Mapping[str, dict[str, Any]] = {
    "tiny": {"block_out_channels": (8, 8, 16), "attention_head_dim": 2, "norm_num_groups": 4},
    "pocket": {"block_out_channels": (64, 96, 128), "attention_head_dim": (1, 4, 4), "norm_num_groups": 16},
}
READERS: Mapping[str, dict[str, Any]] = {  # of sentences
    "tiny": {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
    "pocket": {"hidden_size": 160, "intermediate_size": 480, "num_hidden_layers": 4, "num_attention_heads": 4},
}


def unet(preset: str, channels: int, side: int, **more: Any) -> Any:
    """A new network of one of UNETS for latents (n, channels, side, side): it attends to itself and to the sentence
    everywhere but on its way down through all cells. `more` replaces settings."""
    from diffusers import UNet2DConditionModel

    settings: dict[str, Any] = {
        "sample_size": side,
        "in_channels": channels,
        "out_channels": channels,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D",) * 3,
        "layers_per_block": 1,
        "cross_attention_dim": READERS[preset]["hidden_size"],
    }
    return UNet2DConditionModel(**(settings | UNETS[preset] | more))


def text_encoder(preset: str, tokens: Any) -> Any:
    """A new reader of sentences of one of READERS, for the tokens of a tokenizer."""
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=len(tokens),
        max_position_embeddings=TOKENS,
        bos_token_id=tokens.bos_token_id,
        eos_token_id=tokens.eos_token_id,
        pad_token_id=tokens.pad_token_id,
        **READERS[preset],
    )
    return CLIPTextModel(config)


def plain_attention(network: Any) -> None:
    """Have a network of diffusers attend by plain matrix products: on a processor torch's fused attention takes most of
    the time of learning (torch 2.13, bfloat16: twice as long for the whole network)."""
    from diffusers.models.attention_processor import AttnProcessor

    network.set_attn_processor(AttnProcessor())


def tokenizer(words: Iterable[str]) -> Any:
    """A tokenizer in CLIP's manner for which each of these words is one token, and every other word several. The same
    words make the same tokens, which the library's own learner does not promise."""
    from transformers import CLIPTokenizer

    merges: Any = merged_pairs([[*word[:-1], word[-1] + LAST] for word in sorted(words)])
    letters = [letter + end for end in ("", LAST) for letter in LETTERS]
    tokens = [*letters, *("".join(pair) for pair in merges), START, END]
    return CLIPTokenizer(
        vocab={token: number for number, token in enumerate(tokens)}, merges=merges, model_max_length=TOKENS
    )


def merged_pairs(words: Sequence[list[str]]) -> list[tuple[str, str]]:
    """Which two neighbours to make one, again and again, until each word is one: the most frequent first, of equals the
    first in the alphabet (byte-pair encoding, Sennrich et al. 2016)."""
    found: list[tuple[str, str]] = []
    while pairs := Counter(pair for word in words for pair in pairwise(word)):
        found.append(min(pairs, key=lambda pair: (-pairs[pair], pair)))
        words = [_joined(word, found[-1]) for word in words]
    return found


def _joined(word: list[str], pair: tuple[str, str]) -> list[str]:
    parts: list[str] = []
    for part in word:
        if parts and (parts[-1], part) == pair:
            parts[-1] += part
        else:
            parts.append(part)
    return parts


def scheduler() -> Any:
    """The levels of noise that the network is trained on, and a sampler for who asks for none."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        steps_offset=1,  # no matter where steps are placed from the end, but diffusers asks for it
    )


def pipeline(vae: Any, text_encoder: Any, tokenizer: Any, unet: Any) -> Any:
    """The parts as diffusers' pipeline."""
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
