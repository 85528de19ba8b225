"""The pocket model of pictures: Stable Diffusion's layout at a hundredth of its size, for 128 x 128.

Its parts are diffusers' and transformers' own classes, so that whoever loads Stable Diffusion loads it: an autoencoder
that makes a cell of eight pixels square (Rombach et al. 2022), a text encoder in CLIP's manner whose tokens are whole
words of the worlds, and a UNet that attends to them. It is told of noise by Stable Diffusion's own levels, brought down
to no signal at all at the last (Lin et al. 2024), for which a network must predict velocities (Salimans & Ho 2022).
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

CELL = 8  # pixels of the side of a cell
START, END, UNKNOWN = "<|startoftext|>", "<|endoftext|>", "<|endoftext|>"

AUTOENCODERS: Mapping[str, dict[str, Any]] = {
    "tiny": {"block_out_channels": (4, 4, 8, 8), "latent_channels": 4, "norm_num_groups": 2, "sample_size": 32},
    "pocket": {
        "block_out_channels": (16, 48, 96, 128),
        "latent_channels": 8,
        "norm_num_groups": 8,
        "sample_size": 128,
    },
}


def autoencoder(preset: str) -> "AutoencoderKL":
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
