"""Tiny picture models with random weights, in the formats of the large ones, for whoever tests with them."""

import functools

import pytest

WIDTH = 16  # of everything that is a vector of words


@functools.cache
def _tokenizer():
    """CLIP's tokenizer without any merges: every letter is a token."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: number for number, word in enumerate(words)}, merges=[], model_max_length=77)


def _text_encoder(projected=False):
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    count = len(_tokenizer())
    config = CLIPTextConfig(
        vocab_size=count,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        bos_token_id=count - 2,
        eos_token_id=count - 1,
        pad_token_id=count - 1,
    )
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config)


def _unet(**more):
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(**{**_UNET, "cross_attention_dim": WIDTH, "sample_size": 8, **more})


_UNET = {
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 2,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}


def _vae():
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(4, 4, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=2,
        latent_channels=4,
        sample_size=64,
    )


def _pipeline(kind):
    import diffusers

    shared = {"vae": _vae(), "tokenizer": _tokenizer()}
    said = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}
    said |= {"set_alpha_to_one": False, "steps_offset": 1}
    if kind == "sdxl":
        unet = _unet(
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=WIDTH + 6 * 8,
            cross_attention_dim=2 * WIDTH,
        )
        return diffusers.StableDiffusionXLPipeline(
            **shared,
            text_encoder=_text_encoder(),
            text_encoder_2=_text_encoder(projected=True),
            tokenizer_2=_tokenizer(),
            unet=unet,
            scheduler=diffusers.DDIMScheduler(**said),
            add_watermarker=False,
        )
    if kind == "sd2-v":
        said["prediction_type"] = "v_prediction"
    one = {**shared, "text_encoder": _text_encoder(), "scheduler": diffusers.DDIMScheduler(**said)}
    one |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    if kind == "pix2pix":
        return diffusers.StableDiffusionInstructPix2PixPipeline(**one, unet=_unet(in_channels=8))
    return diffusers.StableDiffusionPipeline(**one, unet=_unet())


def _controlnet(seed):
    import torch
    from diffusers import ControlNetModel

    torch.manual_seed(seed)
    net = ControlNetModel(
        **{name: value for name, value in _UNET.items() if name != "up_block_types"},
        cross_attention_dim=WIDTH,
        conditioning_embedding_out_channels=(4, 8, 8, 8),
    )
    with torch.no_grad():  # its outlets begin at zero, which would make every test of it pass
        for parameter in [*net.controlnet_down_blocks.parameters(), *net.controlnet_mid_block.parameters()]:
            parameter.normal_(0, 0.3)
        net.controlnet_cond_embedding.conv_out.weight.normal_(0, 0.3)
    return net


@pytest.fixture(scope="session")
def picture_model(tmp_path_factory):
    """A function: the folder of a tiny random model of a kind (sd, sd2-v, sdxl, pix2pix, controlnet, controlnet-2).

    It is made once, and shared: whoever changes it copies it first.
    """
    folder = tmp_path_factory.mktemp("picture-models")

    @functools.cache
    def made(kind):
        import torch

        torch.manual_seed(0)
        parts = _controlnet(len(kind)) if kind.startswith("controlnet") else _pipeline(kind)
        parts.save_pretrained(folder / kind, safe_serialization=True)
        return folder / kind

    return made
