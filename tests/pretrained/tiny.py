"""A tiny random checkpoint of every family of pretrained text-to-video models, built without downloads.

Each builder gives back a pipeline; `folder` saves it once. Sizes are the smallest that the networks allow.
"""

import importlib
import json
import shutil
from pathlib import Path

import diffusers as d
import torch
import transformers
from diffusers import schedulers as _schedulers  # noqa: F401
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
    UMT5Config,
    UMT5EncoderModel,
)

from kinetograph.neural.pretrained import pipelines

WORDS = tuple("a red blue ball cat runs moves left right up down over the sea of and .".split())  # noqa: SIM905
SPECIAL = ["<pad>", "</s>", "<unk>", "<bos>"]
VOCABULARY = 40


def tokenizer(length=16, **more):
    """Words to numbers; closes each text with </s> as T5 does."""
    words = {word: number for number, word in enumerate([*SPECIAL, *WORDS])}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "bos_token": "<bos>"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=length, **names, **more)


def t5(width=32):
    return T5EncoderModel(T5Config(vocab_size=VOCABULARY, d_model=width, d_kv=8, d_ff=32, num_layers=1, num_heads=4))


def umt5(width=32):
    return UMT5EncoderModel(
        UMT5Config(vocab_size=VOCABULARY, d_model=width, d_kv=8, d_ff=32, num_layers=1, num_heads=4)
    )


def clip(width=32, kind=CLIPTextModel, layers=2, **more):
    return kind(
        CLIPTextConfig(
            vocab_size=VOCABULARY,
            hidden_size=width,
            intermediate_size=37,
            num_hidden_layers=layers,
            num_attention_heads=4,
            projection_dim=width,
            bos_token_id=3,
            eos_token_id=1,
            pad_token_id=0,
            max_position_embeddings=77,
            **more,
        )
    )


def clip_tokenizer(length=77):
    words = {word: number for number, word in enumerate([*SPECIAL, *WORDS])}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="<bos> $A </s>", special_tokens=[("<bos>", 3), ("</s>", 1)]
    )
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "bos_token": "<bos>"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=length, **names)


def vision(width=32, kind=transformers.CLIPVisionModelWithProjection, size=32, patch=8):
    return kind(
        transformers.CLIPVisionConfig(
            hidden_size=width,
            projection_dim=width,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=size,
            intermediate_size=37,
            patch_size=patch,
        )
    )


def kl(channels=4, levels=2, **more):
    """An image VAE of Stable Diffusion's kind."""
    blocks = (8,) * levels
    return d.AutoencoderKL(
        block_out_channels=blocks,
        latent_channels=channels,
        norm_num_groups=4,
        layers_per_block=1,
        down_block_types=["DownEncoderBlock2D"] * levels,
        up_block_types=["UpDecoderBlock2D"] * levels,
        sample_size=32,
        **more,
    )


def wan_vae(**more):
    return d.AutoencoderKLWan(
        base_dim=4, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True], **more
    )


# --- the families -----------------------------------------------------------------------------------------------------


def modelscope():
    unet = d.UNet3DConditionModel(
        block_out_channels=(8, 8),
        layers_per_block=1,
        sample_size=8,
        in_channels=4,
        out_channels=4,
        norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        cross_attention_dim=32,
        attention_head_dim=4,
    )
    scheduler = d.DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    return d.TextToVideoSDPipeline(
        vae=kl(), text_encoder=clip(), tokenizer=clip_tokenizer(), unet=unet, scheduler=scheduler
    )


# The smallest network of Wan's kind, and what Wan adds to it.
SMALL = {
    "patch_size": (1, 2, 2),
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": 32,
    "freq_dim": 32,
    "ffn_dim": 32,
}
WAN = SMALL | {
    "num_layers": 2,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "rope_max_seq_len": 32,
}


def wan():
    transformer = wan_transformer()
    scheduler = d.FlowMatchEulerDiscreteScheduler(shift=3.0)
    return d.WanPipeline(
        tokenizer=tokenizer(), text_encoder=umt5(), vae=wan_vae(), scheduler=scheduler, transformer=transformer
    )


def ltx_parts():
    transformer = d.LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        patch_size=1,
        patch_size_t=1,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        num_layers=1,
        caption_channels=32,
    )
    vae = d.AutoencoderKLLTXVideo(
        in_channels=3,
        out_channels=3,
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, False, False),
        decoder_spatio_temporal_scaling=(True, True, False, False),
        decoder_inject_noise=(False,) * 5,
        upsample_residual=(False,) * 4,
        upsample_factor=(1,) * 4,
        timestep_conditioning=False,
        patch_size=1,
        patch_size_t=1,
        encoder_causal=True,
        decoder_causal=False,
    )
    scheduler = d.FlowMatchEulerDiscreteScheduler()
    return {
        "transformer": transformer,
        "vae": vae,
        "scheduler": scheduler,
        "text_encoder": t5(),
        "tokenizer": tokenizer(),
    }


def ltx():
    return d.LTXPipeline(**ltx_parts())


def cogvideox_parts(channels=4):
    transformer = d.CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=channels,
        out_channels=4,
        time_embed_dim=2,
        text_embed_dim=32,
        num_layers=1,
        sample_width=2,
        sample_height=2,
        sample_frames=9,
        patch_size=2,
        temporal_compression_ratio=4,
        max_text_seq_length=16,
        use_rotary_positional_embeddings=True,
    )
    vae = d.AutoencoderKLCogVideoX(
        in_channels=3,
        out_channels=3,
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        temporal_compression_ratio=4,
    )
    return {
        "tokenizer": tokenizer(),
        "text_encoder": t5(),
        "vae": vae,
        "transformer": transformer,
        "scheduler": d.CogVideoXDDIMScheduler(),
    }


def cogvideox():
    return d.CogVideoXPipeline(**cogvideox_parts())


def mochi():
    transformer = d.MochiTransformer3DModel(
        patch_size=2,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        pooled_projection_dim=16,
        in_channels=12,
        out_channels=None,
        qk_norm="rms_norm",
        text_embed_dim=32,
        time_embed_dim=4,
        activation_fn="swiglu",
        max_sequence_length=16,
    )
    vae = d.AutoencoderKLMochi(
        latent_channels=12,
        out_channels=3,
        encoder_block_out_channels=(32, 32, 32, 32),
        decoder_block_out_channels=(32, 32, 32, 32),
        layers_per_block=(1, 1, 1, 1, 1),
    )
    return d.MochiPipeline(
        transformer=transformer,
        vae=vae,
        scheduler=d.FlowMatchEulerDiscreteScheduler(),
        text_encoder=t5(),
        tokenizer=tokenizer(),
    )


def allegro():
    transformer = d.AllegroTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        cross_attention_dim=24,
        sample_width=8,
        sample_height=8,
        sample_frames=8,
        caption_channels=32,
    )
    vae = d.AutoencoderKLAllegro(
        in_channels=3,
        out_channels=3,
        down_block_types=("AllegroDownBlock3D",) * 4,
        up_block_types=("AllegroUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        temporal_compression_ratio=4,
        sample_size=128,
    )
    return d.AllegroPipeline(
        tokenizer=tokenizer(),
        text_encoder=t5(),
        vae=vae,
        transformer=transformer,
        scheduler=d.EulerAncestralDiscreteScheduler(),
    )


def latte():
    transformer = d.LatteTransformer3DModel(
        sample_size=8,
        num_layers=1,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=3,
        caption_channels=32,
        in_channels=4,
        cross_attention_dim=24,
        out_channels=8,
        attention_bias=True,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        video_length=4,
    )
    return d.LattePipeline(
        tokenizer=tokenizer(), text_encoder=t5(), vae=kl(), transformer=transformer, scheduler=d.DDIMScheduler()
    )


def motion_unet():
    unet = d.UNet2DConditionModel(
        block_out_channels=(8, 8),
        layers_per_block=1,
        sample_size=8,
        in_channels=4,
        out_channels=4,
        norm_num_groups=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=4,
    )
    adapter = d.MotionAdapter(
        block_out_channels=(8, 8), motion_layers_per_block=1, motion_norm_num_groups=2, motion_num_attention_heads=4
    )
    return unet, adapter


def animatediff():
    unet, adapter = motion_unet()
    scheduler = d.DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="linear", clip_sample=False)
    return d.AnimateDiffPipeline(
        vae=kl(),
        text_encoder=clip(),
        tokenizer=clip_tokenizer(),
        unet=unet,
        motion_adapter=adapter,
        scheduler=scheduler,
    )


def qwen25vl(width=32):
    vision_config = {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 2,
        "out_hidden_size": width,
        "patch_size": 14,
        "fullatt_block_indexes": [0],
    }
    text = {
        "vocab_size": VOCABULARY,
        "hidden_size": width,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0},
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": 3,
    }
    return transformers.Qwen2_5_VLForConditionalGeneration(
        transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision_config)
    )


CHAT = (
    "{% for m in messages %}{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for c in m['content'] %}{{ c.get('text', '') }} {% endfor %}{% endif %}{% endfor %}"
)


def llama(width=16):
    return transformers.LlamaModel(
        transformers.LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=width,
            intermediate_size=32,
            num_hidden_layers=3,
            num_attention_heads=2,
            max_position_embeddings=1024,
            pad_token_id=0,
            bos_token_id=3,
            eos_token_id=1,
        )
    )


def hunyuan_vae():
    return d.AutoencoderKLHunyuanVideo(
        latent_channels=4,
        down_block_types=("HunyuanVideoDownBlock3D",) * 4,
        up_block_types=("HunyuanVideoUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
    )


def hunyuan_parts(kind=None, **more):
    settings = {
        "in_channels": 4,
        "out_channels": 4,
        "num_attention_heads": 2,
        "attention_head_dim": 10,
        "num_layers": 1,
        "num_single_layers": 1,
        "num_refiner_layers": 1,
        "patch_size": 2,
        "patch_size_t": 1,
        "guidance_embeds": True,
        "text_embed_dim": 16,
        "pooled_projection_dim": 8,
        "rope_axes_dim": (2, 4, 4),
    } | more
    return {
        "transformer": (kind or d.HunyuanVideoTransformer3DModel)(**settings),
        "vae": hunyuan_vae(),
        "scheduler": d.FlowMatchEulerDiscreteScheduler(shift=7.0),
        "text_encoder": llama(),
        "text_encoder_2": clip(8),
        "tokenizer": tokenizer(512),
        "tokenizer_2": clip_tokenizer(),
    }


def hunyuan():
    return d.HunyuanVideoPipeline(**hunyuan_parts())


def siglip(width=16):
    return transformers.SiglipVisionModel(
        transformers.SiglipVisionConfig(
            hidden_size=width,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=32,
            patch_size=8,
        )
    )


def siglip_processor():
    return transformers.SiglipImageProcessor(size={"height": 32, "width": 32})


def i2v_hunyuan_framepack():
    parts = hunyuan_parts(
        d.HunyuanVideoFramepackTransformer3DModel, has_image_proj=True, image_proj_dim=16, has_clean_x_embedder=True
    )
    return d.HunyuanVideoFramepackPipeline(**parts, image_encoder=siglip(), feature_extractor=siglip_processor())


def i2v_hunyuan_skyreels():
    return d.HunyuanSkyreelsImageToVideoPipeline(**hunyuan_parts(in_channels=8))


def hunyuan15_parts():
    transformer = d.HunyuanVideo15Transformer3DModel(
        in_channels=9,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=1,
        num_refiner_layers=1,
        patch_size=1,
        text_embed_dim=32,
        text_embed_2_dim=32,
        image_embed_dim=16,
        rope_axes_dim=(2, 2, 4),
        target_size=64,
        task_type="t2v",
    )
    vae = d.AutoencoderKLHunyuanVideo15(
        latent_channels=4,
        block_out_channels=(16, 16, 16, 16, 16),
        layers_per_block=1,
        spatial_compression_ratio=16,
        temporal_compression_ratio=4,
    )
    return {
        "transformer": transformer,
        "vae": vae,
        "scheduler": d.FlowMatchEulerDiscreteScheduler(shift=7.0),
        "text_encoder": qwen25vl().model.language_model,
        "tokenizer": tokenizer(2048, chat_template=CHAT),
        "text_encoder_2": t5(),
        "tokenizer_2": transformers.ByT5Tokenizer(),
        "guider": d.ClassifierFreeGuidance(guidance_scale=6.0),
    }


def hunyuan15():
    parts = hunyuan15_parts()
    parts["text_encoder_2"] = T5EncoderModel(
        T5Config(vocab_size=384, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=4)
    )
    return d.HunyuanVideo15Pipeline(**parts)


def i2v_hunyuan15():
    parts = hunyuan15_parts()
    parts["text_encoder_2"] = T5EncoderModel(
        T5Config(vocab_size=384, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=4)
    )
    return d.HunyuanVideo15ImageToVideoPipeline(**parts, image_encoder=siglip(), feature_extractor=siglip_processor())


def cosmos_transformer(**more):
    settings = {
        "in_channels": 4,
        "out_channels": 4,
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "num_layers": 1,
        "mlp_ratio": 2,
        "text_embed_dim": 32,
        "adaln_lora_dim": 4,
        "max_size": (4, 32, 32),
        "patch_size": (1, 2, 2),
        "rope_scale": (2.0, 1.0, 1.0),
        "concat_padding_mask": True,
        "extra_pos_embed_type": "learnable",
    } | more
    return d.CosmosTransformer3DModel(**settings)


def cosmos_vae():
    return d.AutoencoderKLCosmos(
        latent_channels=4,
        encoder_block_out_channels=(8, 8, 8, 8),
        decode_block_out_channels=(8, 8, 8, 8),
        attention_resolutions=(8,),
        resolution=64,
        num_layers=1,
        patch_size=4,
        patch_type="haar",
        scaling_factor=1.0,
        spatial_compression_ratio=4,
        temporal_compression_ratio=4,
        latents_mean=None,
        latents_std=None,
    )


def skyreels_parts(**more):
    return {
        "tokenizer": tokenizer(),
        "text_encoder": umt5(),
        "transformer": d.SkyReelsV2Transformer3DModel(**WAN | more),
        "vae": wan_vae(),
        "scheduler": d.UniPCMultistepScheduler(flow_shift=8.0, use_flow_sigmas=True, prediction_type="flow_prediction"),
    }


def skyreels():
    return d.SkyReelsV2Pipeline(**skyreels_parts())


def skyreels_forcing():
    return d.SkyReelsV2DiffusionForcingPipeline(**skyreels_parts())


def i2v_skyreels_forcing():
    return d.SkyReelsV2DiffusionForcingImageToVideoPipeline(**skyreels_parts())


def v2v_skyreels_forcing():
    return d.SkyReelsV2DiffusionForcingVideoToVideoPipeline(**skyreels_parts())


def i2v_skyreels():
    parts = skyreels_parts(in_channels=36, image_dim=32)
    return d.SkyReelsV2ImageToVideoPipeline(
        **parts, image_encoder=vision(), image_processor=transformers.CLIPImageProcessor(crop_size=32, size=32)
    )


def kandinsky5_parts(**more):
    settings = {
        "in_visual_dim": 4,
        "in_text_dim": 32,
        "in_text_dim2": 16,
        "time_dim": 16,
        "out_visual_dim": 4,
        "patch_size": (1, 2, 2),
        "model_dim": 16,
        "ff_dim": 32,
        "num_text_blocks": 1,
        "num_visual_blocks": 1,
        "axes_dims": (2, 2, 4),
        "visual_cond": False,
    } | more
    return {
        "transformer": d.Kandinsky5Transformer3DModel(**settings),
        "vae": hunyuan_vae(),
        "text_encoder": qwen25vl(),
        "tokenizer": tokenizer(2048, chat_template=CHAT),
        "text_encoder_2": clip(16),
        "tokenizer_2": clip_tokenizer(),
        "scheduler": d.FlowMatchEulerDiscreteScheduler(shift=5.0),
    }


def kandinsky5():
    return d.Kandinsky5T2VPipeline(**kandinsky5_parts())


def i2v_kandinsky5():
    return d.Kandinsky5I2VPipeline(**kandinsky5_parts(visual_cond=True))


def gemma2(width=32):
    return transformers.Gemma2Model(
        transformers.Gemma2Config(
            vocab_size=VOCABULARY,
            hidden_size=width,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=16,
            max_position_embeddings=2048,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=3,
        )
    )


def sana_parts():
    transformer = d.SanaVideoTransformer3DModel(
        in_channels=16,
        out_channels=16,
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=1,
        num_cross_attention_heads=2,
        cross_attention_head_dim=12,
        cross_attention_dim=24,
        caption_channels=32,
        mlp_ratio=2.5,
        sample_size=8,
        patch_size=(1, 2, 2),
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=32,
    )
    return {"tokenizer": tokenizer(512), "text_encoder": gemma2(), "vae": wan_vae(), "transformer": transformer}


def sana():
    return d.SanaVideoPipeline(
        **sana_parts(), scheduler=d.DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction")
    )


def i2v_sana():
    return d.SanaImageToVideoPipeline(**sana_parts(), scheduler=d.FlowMatchEulerDiscreteScheduler())


def anyflow():
    transformer = d.AnyFlowTransformer3DModel(**SMALL, num_layers=1, rope_max_seq_len=32)
    return d.AnyFlowPipeline(
        tokenizer=tokenizer(),
        text_encoder=umt5(),
        transformer=transformer,
        vae=wan_vae(),
        scheduler=d.FlowMapEulerDiscreteScheduler(),
    )


def helios_parts(**stages):
    return {
        "tokenizer": tokenizer(),
        "text_encoder": umt5(),
        "vae": wan_vae(),
        "scheduler": d.HeliosScheduler(**stages),
        "transformer": d.HeliosTransformer3DModel(**SMALL, num_layers=1, rope_dim=(4, 4, 4)),
    }


def helios():
    return d.HeliosPipeline(**helios_parts(stage_range=[0, 1], stages=1))


def helios_pyramid():
    return d.HeliosPyramidPipeline(**helios_parts())


# --- from pictures and clips ------------------------------------------------------------------------------------------


def wan_transformer(**more):
    return d.WanTransformer3DModel(**WAN | more)


def wan_parts(**more):
    return {
        "tokenizer": tokenizer(),
        "text_encoder": umt5(),
        "vae": wan_vae(),
        "scheduler": d.FlowMatchEulerDiscreteScheduler(shift=3.0),
        "transformer": wan_transformer(**more),
    }


def i2v_wan():
    parts = wan_parts(in_channels=36, image_dim=32)
    image_encoder = vision(kind=transformers.CLIPVisionModel)
    return d.WanImageToVideoPipeline(
        **parts, image_encoder=image_encoder, image_processor=transformers.CLIPImageProcessor(crop_size=32, size=32)
    )


def v2v_wan():
    parts = wan_parts()
    parts["scheduler"] = d.UniPCMultistepScheduler(
        flow_shift=3.0, use_flow_sigmas=True, prediction_type="flow_prediction"
    )
    return d.WanVideoToVideoPipeline(**parts)


def wan_vace():
    parts = wan_parts()
    parts["transformer"] = d.WanVACETransformer3DModel(**WAN, vace_layers=[0], vace_in_channels=96)
    return d.WanVACEPipeline(**parts)


def i2v_chronoedit():
    parts = wan_parts()
    parts["transformer"] = d.ChronoEditTransformer3DModel(**WAN | {"in_channels": 36, "image_dim": 32})
    image_encoder = vision(kind=transformers.CLIPVisionModel)
    return d.ChronoEditPipeline(
        **parts, image_encoder=image_encoder, image_processor=transformers.CLIPImageProcessor(crop_size=32, size=32)
    )


def v2v_lucy():
    return d.LucyEditPipeline(**wan_parts(in_channels=32))


def i2v_ltx():
    return d.LTXImageToVideoPipeline(**ltx_parts())


def ltx_condition():
    return d.LTXConditionPipeline(**ltx_parts())


def i2v_cogvideox():
    return d.CogVideoXImageToVideoPipeline(**cogvideox_parts(8))


def v2v_cogvideox():
    return d.CogVideoXVideoToVideoPipeline(**cogvideox_parts())


def animatediff_parts():
    unet, adapter = motion_unet()
    scheduler = d.DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="linear", clip_sample=False)
    return {
        "vae": kl(),
        "text_encoder": clip(),
        "tokenizer": clip_tokenizer(),
        "unet": unet,
        "motion_adapter": adapter,
        "scheduler": scheduler,
    }


def v2v_animatediff():
    return d.AnimateDiffVideoToVideoPipeline(**animatediff_parts())


def animatediff_pag():
    return d.AnimateDiffPAGPipeline(**animatediff_parts(), pag_applied_layers=["mid"])


def animatediff_sdxl():
    unet = d.UNet2DConditionModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        sample_size=8,
        in_channels=4,
        out_channels=4,
        norm_num_groups=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=64,
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 1),
        projection_class_embeddings_input_dim=80,
    )
    adapter = d.MotionAdapter(
        block_out_channels=(8, 16),
        motion_layers_per_block=1,
        motion_norm_num_groups=2,
        motion_num_attention_heads=4,
        use_motion_mid_block=False,
    )
    scheduler = d.DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="linear", clip_sample=False)
    return d.AnimateDiffSDXLPipeline(
        vae=kl(),
        text_encoder=clip(),
        text_encoder_2=clip(32, CLIPTextModelWithProjection),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        unet=unet,
        motion_adapter=adapter,
        scheduler=scheduler,
    )


def i2v_pia():
    parts = animatediff_parts()
    parts["motion_adapter"] = d.MotionAdapter(
        block_out_channels=(8, 8),
        motion_layers_per_block=1,
        motion_norm_num_groups=2,
        motion_num_attention_heads=4,
        conv_in_channels=9,
    )
    return d.PIAPipeline(**parts)


def i2vgen():
    unet = d.I2VGenXLUNet(
        block_out_channels=(8, 8),
        layers_per_block=1,
        sample_size=8,
        in_channels=4,
        out_channels=4,
        norm_num_groups=2,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        cross_attention_dim=32,
        attention_head_dim=4,
        num_attention_heads=None,
    )
    scheduler = d.DDIMScheduler(clip_sample=False, set_alpha_to_one=False)
    return d.I2VGenXLPipeline(
        vae=kl(),
        text_encoder=clip(),
        tokenizer=clip_tokenizer(),
        image_encoder=vision(),
        unet=unet,
        scheduler=scheduler,
        feature_extractor=transformers.CLIPImageProcessor(crop_size=32, size=32),
    )


def svd():
    unet = d.UNetSpatioTemporalConditionModel(
        block_out_channels=(32, 32),
        layers_per_block=1,
        sample_size=8,
        in_channels=8,
        out_channels=4,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        cross_attention_dim=32,
        num_attention_heads=8,
        projection_class_embeddings_input_dim=96,
        addition_time_embed_dim=32,
    )
    vae = d.AutoencoderKLTemporalDecoder(
        block_out_channels=(32,) * 4,
        latent_channels=4,
        layers_per_block=1,
        down_block_types=["DownEncoderBlock2D"] * 4,
    )
    scheduler = d.EulerDiscreteScheduler(
        interpolation_type="linear", prediction_type="v_prediction", use_karras_sigmas=True
    )
    return d.StableVideoDiffusionPipeline(
        vae=vae,
        image_encoder=vision(size=224, patch=56),
        unet=unet,
        scheduler=scheduler,
        feature_extractor=transformers.CLIPImageProcessor(crop_size=224, size=224),
    )


def motif_transformer(**more):
    return d.MotifVideoTransformer3DModel(
        in_channels=33,
        out_channels=16,
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=1,
        num_single_layers=1,
        num_decoder_layers=1,
        mlp_ratio=2.0,
        patch_size=2,
        text_embed_dim=32,
        rope_axes_dim=(4, 4, 4),
        **more,
    )


def motif():
    transformer = motif_transformer()  # the first to be drawn
    return d.MotifVideoPipeline(
        scheduler=d.FlowMatchEulerDiscreteScheduler(),
        vae=wan_vae(),
        text_encoder=t5(),
        tokenizer=tokenizer(512),
        transformer=transformer,
        guider=d.ClassifierFreeGuidance(guidance_scale=6.0),
    )


def easyanimate():
    text = transformers.Qwen2VLForConditionalGeneration(
        transformers.Qwen2VLConfig(
            text_config={
                "vocab_size": VOCABULARY,
                "hidden_size": 16,
                "intermediate_size": 16,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "max_position_embeddings": 2048,
                "pad_token_id": 0,
                "eos_token_id": 1,
                "bos_token_id": 3,
                "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0},
            },
            vision_config={"depth": 1, "embed_dim": 16, "hidden_size": 16, "num_heads": 2},
        )
    )
    transformer = d.EasyAnimateTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        time_embed_dim=2,
        text_embed_dim=16,
        num_layers=1,
        mmdit_layers=1,
        sample_width=16,
        sample_height=16,
        patch_size=2,
    )
    vae = d.AutoencoderKLMagvit(
        in_channels=3,
        out_channels=3,
        down_block_types=("SpatialDownBlock3D",) + ("SpatialTemporalDownBlock3D",) * 3,
        up_block_types=("SpatialUpBlock3D",) + ("SpatialTemporalUpBlock3D",) * 3,
        block_out_channels=(8, 8, 8, 8),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        spatial_group_norm=False,
    )
    return d.EasyAnimatePipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=tokenizer(512, chat_template=CHAT),
        transformer=transformer,
        scheduler=d.FlowMatchEulerDiscreteScheduler(),
    )


def cosmos_scheduler():
    return d.EDMEulerScheduler(
        sigma_min=0.002,
        sigma_max=80,
        sigma_data=0.5,
        sigma_schedule="karras",
        prediction_type="epsilon",
        rho=7.0,
        final_sigmas_type="sigma_min",
    )


def cosmos1():
    return d.CosmosTextToWorldPipeline(
        text_encoder=t5(),
        tokenizer=tokenizer(),
        transformer=cosmos_transformer(),
        vae=cosmos_vae(),
        scheduler=cosmos_scheduler(),
    )


def i2v_cosmos1():
    return d.CosmosVideoToWorldPipeline(
        text_encoder=t5(),
        tokenizer=tokenizer(),
        transformer=cosmos_transformer(in_channels=5),
        vae=cosmos_vae(),
        scheduler=cosmos_scheduler(),
    )


def i2v_cosmos2():
    return d.Cosmos2VideoToWorldPipeline(
        text_encoder=t5(),
        tokenizer=tokenizer(),
        transformer=cosmos_transformer(in_channels=17, out_channels=16),
        vae=wan_vae(),
        scheduler=d.FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True),
    )


def cosmos25():
    return d.Cosmos2_5_PredictBasePipeline(
        text_encoder=qwen25vl(),
        tokenizer=tokenizer(2048, chat_template=CHAT),
        vae=wan_vae(latents_mean=[0.0] * 16, latents_std=[1.0] * 16),
        transformer=cosmos_transformer(
            in_channels=17,
            out_channels=16,
            use_crossattn_projection=True,
            crossattn_proj_in_channels=64,
            encoder_hidden_states_channels=32,
        ),
        scheduler=d.UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction"),
    )


def cosmos3_parts():
    transformer = d.Cosmos3OmniTransformer(
        head_dim=8,
        hidden_size=16,
        intermediate_size=16,
        latent_channel=16,
        num_attention_heads=2,
        num_hidden_layers=1,
        num_key_value_heads=1,
        patch_latent_dim=64,
        vocab_size=VOCABULARY,
        rope_scaling={"mrope_section": [2, 1, 1]},
        dtype="float32",
    )
    words = tokenizer(2048, chat_template=CHAT)
    words.add_special_tokens({"additional_special_tokens": ["<|vision_start|>"]})
    scheduler = d.UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction")
    return {"transformer": transformer, "text_tokenizer": words, "vae": wan_vae(), "scheduler": scheduler}


def cosmos3():
    return d.Cosmos3OmniPipeline(**cosmos3_parts(), enable_safety_checker=False)


def gemma3(width=16):
    text = {
        "vocab_size": VOCABULARY,
        "hidden_size": width,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "max_position_embeddings": 2048,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": 3,
    }
    sight = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    }
    return transformers.Gemma3ForConditionalGeneration(
        transformers.Gemma3Config(
            text_config=text,
            vision_config=sight,
            mm_tokens_per_image=4,
            image_token_index=30,
            boi_token_index=31,
            eoi_token_index=32,
        )
    )


def ltx2_parts():
    transformer = d.LTX2VideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        audio_in_channels=4,
        audio_out_channels=4,
        audio_num_attention_heads=2,
        audio_attention_head_dim=4,
        audio_cross_attention_dim=8,
        num_layers=1,
        qk_norm="rms_norm_across_heads",
        caption_channels=16,
        rope_double_precision=False,
    )
    connectors = d.pipelines.ltx2.LTX2TextConnectors(
        caption_channels=16,
        text_proj_in_factor=3,
        video_connector_num_attention_heads=4,
        video_connector_attention_head_dim=4,
        video_connector_num_layers=1,
        video_connector_num_learnable_registers=None,
        audio_connector_num_attention_heads=4,
        audio_connector_attention_head_dim=4,
        audio_connector_num_layers=1,
        audio_connector_num_learnable_registers=None,
        connector_rope_base_seq_len=32,
        rope_double_precision=False,
    )
    vae = d.AutoencoderKLLTX2Video(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(8,) * 4,
        decoder_block_out_channels=(8,) * 3,
        layers_per_block=(1,) * 5,
        decoder_layers_per_block=(1,) * 4,
        spatio_temporal_scaling=(True,) * 4,
        decoder_spatio_temporal_scaling=(True,) * 3,
        decoder_inject_noise=(False,) * 4,
        downsample_type=("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
        upsample_residual=(False,) * 3,
        upsample_factor=(1,) * 3,
        timestep_conditioning=False,
        patch_size=4,
        patch_size_t=1,
        encoder_causal=True,
        decoder_causal=False,
        spatial_compression_ratio=32,
        temporal_compression_ratio=8,
    )
    audio = d.AutoencoderKLLTX2Audio(
        base_channels=4, ch_mult=(1,), num_res_blocks=1, resolution=32, latent_channels=2, mel_bins=8
    )
    vocoder = d.pipelines.ltx2.LTX2Vocoder(
        in_channels=16,
        hidden_channels=32,
        out_channels=2,
        upsample_kernel_sizes=[4, 4],
        upsample_factors=[2, 2],
        resnet_kernel_sizes=[3],
        resnet_dilations=[[1, 3, 5]],
        output_sampling_rate=16000,
    )
    return {
        "scheduler": d.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=False),
        "vae": vae,
        "audio_vae": audio,
        "text_encoder": gemma3(),
        "tokenizer": tokenizer(1024),
        "connectors": connectors,
        "transformer": transformer,
        "vocoder": vocoder,
    }


def ltx2():
    return d.LTX2Pipeline(**ltx2_parts())


def i2v_ltx2():
    return d.LTX2ImageToVideoPipeline(**ltx2_parts())


def ltx2_condition():
    return d.LTX2ConditionPipeline(**ltx2_parts())


def anyflow_far():
    transformer = d.AnyFlowFARTransformer3DModel(**SMALL, num_layers=1, rope_max_seq_len=32, chunk_partition=(1, 1))
    return d.AnyFlowFARPipeline(
        tokenizer=tokenizer(),
        text_encoder=umt5(),
        transformer=transformer,
        vae=wan_vae(),
        scheduler=d.FlowMapEulerDiscreteScheduler(),
    )


def t5gemma2(width=32):
    """An encoder of words that can see."""
    text = {
        "vocab_size": VOCABULARY,
        "hidden_size": width,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "max_position_embeddings": 1024,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": 3,
        "dropout_rate": 0.0,
    }
    sight = siglip().config.to_dict()
    tokens = {"image_token_index": 37, "boi_token_index": 38, "eoi_token_index": 39}
    kinds = transformers.models.t5gemma2
    settings = kinds.configuration_t5gemma2.T5Gemma2EncoderConfig(text_config=text, vision_config=sight, **tokens)
    return kinds.modeling_t5gemma2.T5Gemma2Encoder(settings, eoi_token_index=39)


def i2v_motif():
    parts = dict(motif().components)
    transformer = motif_transformer(image_embed_dim=16)
    parts |= {"transformer": transformer, "text_encoder": t5gemma2(), "feature_extractor": siglip_processor()}
    return d.MotifVideoImage2VideoPipeline(**parts)


HEADERS = ["<image>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "\n\n"]


def i2v_hunyuan():
    """The pipeline counts tokens: the picture is the sixth, after <bos>, a header of three and an empty line."""
    words = clip_tokenizer(512)
    words.add_special_tokens({"additional_special_tokens": HEADERS})
    image = words.convert_tokens_to_ids("<image>")
    text = transformers.LlavaForConditionalGeneration(
        transformers.LlavaConfig(
            text_config={
                "model_type": "llama",
                "vocab_size": VOCABULARY,
                "hidden_size": 16,
                "intermediate_size": 16,
                "num_hidden_layers": 3,
                "num_attention_heads": 2,
                "max_position_embeddings": 2048,
                "pad_token_id": 0,
            },
            vision_config={
                "model_type": "clip_vision_model",
                "hidden_size": 8,
                "intermediate_size": 8,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": 336,
                "patch_size": 14,
                "projection_dim": 8,
            },
            image_token_index=image,
            pad_token_id=0,
        )
    )
    parts = hunyuan_parts(in_channels=9, image_condition_type="latent_concat")
    parts |= {"text_encoder": text, "tokenizer": words}
    return d.HunyuanVideoImageToVideoPipeline(
        **parts, image_processor=transformers.CLIPImageProcessor(crop_size=336, size=336)
    )


def i2v_sana_wm():
    transformer = d.SanaWMTransformer3DModel(
        in_channels=4,
        num_layers=1,
        hidden_size=32,
        num_attention_heads=2,
        linear_head_dim=16,
        caption_channels=32,
        image_size=64,
        chunk_plucker_post_attn_blocks=1,
    )
    vae = ltx2_parts()["vae"]
    return d.SanaWMPipeline(
        tokenizer=tokenizer(512),
        text_encoder=gemma2(),
        vae=vae,
        transformer=transformer,
        scheduler=d.FlowMatchEulerDiscreteScheduler(),
    )


def kandinsky6():
    transformer = d.Kandinsky6Transformer3DModel(
        in_visual_dim=4,
        out_visual_dim=4,
        in_text_dim=32,
        in_text_dim2=16,
        time_dim=16,
        model_dim=16,
        ff_dim=32,
        num_text_blocks=1,
        num_visual_blocks=1,
        axes_dims=(2, 2, 4),
        visual_cond=False,
    )
    return d.Kandinsky6TI2VAPipeline(
        transformer=transformer,
        vae=hunyuan_vae(),
        text_encoder=qwen25vl(),
        tokenizer=tokenizer(2048, chat_template=CHAT),
        text_encoder_2=clip(16),
        tokenizer_2=clip_tokenizer(),
        scheduler=d.FlowMatchEulerDiscreteScheduler(),
    )


# --- made of blocks ---------------------------------------------------------------------------------------------------


def of_blocks(kind, **parts):
    pipeline = kind()
    pipeline.update_components(**parts)
    return pipeline


def modular_wan():
    return of_blocks(d.WanModularPipeline, **wan_parts())


def modular_wan22():
    return of_blocks(d.Wan22ModularPipeline, **wan_parts(), transformer_2=wan_transformer())


def i2v_modular_wan():
    parts = wan_parts(in_channels=36, image_dim=32)
    processor = transformers.CLIPImageProcessor(crop_size=32, size=32)
    encoder = vision(kind=transformers.CLIPVisionModel)
    return of_blocks(d.WanImage2VideoModularPipeline, **parts, image_encoder=encoder, image_processor=processor)


def i2v_modular_wan22():
    parts = wan_parts(in_channels=36)
    return of_blocks(d.Wan22Image2VideoModularPipeline, **parts, transformer_2=wan_transformer(in_channels=36))


def modular_ltx2():
    return of_blocks(d.LTX2ModularPipeline, **ltx2_parts())


def modular_echo():
    parts = ltx2_parts()
    del parts["scheduler"]  # Echo has none: its blocks are told the levels of noise
    return of_blocks(d.EchoModularPipeline, **parts)


class Seeing:
    """A pipeline of blocks with a Qwen3-VL processor, which cannot be made without torchvision: it is saved part by
    part. Its index promises a second denoiser for references, as MiniMax-H3's does, which nobody may ask for here."""

    def __init__(self, kind, words, pictures, **parts):
        self.pipeline, self.words, self.pictures = of_blocks(kind, **parts, tokenizer=words), words, pictures

    def save_pretrained(self, folder):
        self.pipeline.save_pretrained(folder)
        for part in (self.words, self.pictures):
            part.save_pretrained(f"{folder}/processor")
        path = Path(folder) / "modular_model_index.json"
        index = json.loads(path.read_text())
        for name, home in (("processor", folder), ("transformer_ref", "MiniMaxAI/MiniMax-H3")):
            index[name][:2] = index[name][2]["type_hint"]
            index[name][2] |= {"pretrained_model_name_or_path": home, "subfolder": name}
        path.write_text(json.dumps(index))


VISION = ["<|vision_start|>", "<|image_pad|>", "<|video_pad|>", "<|vision_end|>"]


def qwen3vl(words, width=16, layers=51):
    """MiniMax-H3 reads what the fiftieth layer says, so there must be one more."""
    start, image, video, end = words.convert_tokens_to_ids(VISION)
    text = {
        "vocab_size": VOCABULARY,
        "hidden_size": width,
        "intermediate_size": 16,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "max_position_embeddings": 1024,
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 10000.0},
        "pad_token_id": 0,
    }
    sight = {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 2,
        "out_hidden_size": width,
        "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0],
    }
    tokens = {"image_token_id": image, "video_token_id": video, "vision_start_token_id": start}
    return transformers.Qwen3VLForConditionalGeneration(
        transformers.Qwen3VLConfig(text_config=text, vision_config=sight, vision_end_token_id=end, **tokens)
    )


def modular_minimax_h3():
    words = tokenizer(1024)
    words.add_special_tokens({"additional_special_tokens": VISION})
    transformer = d.MiniMaxH3Transformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        hidden_size=16,
        num_layers=2,
        num_refiner_layers=1,
        ffn_dim=16,
        in_channels=4,
        audio_in_channels=4,
        text_dim=16,
        freq_dim=16,
        time_embed_hidden_dim=16,
        time_embed_dim=8,
        rope_freq_dim=2,
    )
    vae = d.AutoencoderKLMiniMaxH3(
        latent_channels=4,
        block_out_channels=(8,) * 4,
        layers_per_block=1,
        spatial_downsample_factors=(2,) * 4,
        temporal_downsample_factors=(1, 2, 2, 1),
        norm_num_groups=4,
        decoder_num_layers=1,
        decoder_num_attention_heads=2,
        decoder_attention_head_dim=16,
        latents_mean=(0.0,) * 4,
        latents_std=(1.0,) * 4,
    )
    audio = d.AutoencoderKLMiniMaxH3Audio(
        encoder_dim=4,
        encoder_rates=(2, 2),
        latent_dim=8,
        latent_channels=4,
        num_attention_heads=2,
        decoder_dim=8,
        decoder_rates=(2, 2),
        decoder_kernel_sizes=(4, 4),
        resblock_kernel_sizes=(3,),
        resblock_dilation_sizes=((1,),),
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )
    pictures = transformers.Qwen2VLImageProcessorPil(
        patch_size=16, merge_size=2, size={"shortest_edge": 32 * 32, "longest_edge": 64 * 64}
    )
    return Seeing(
        d.MiniMaxH3ModularPipeline,
        words,
        pictures,
        transformer=transformer,
        vae=vae,
        audio_vae=audio,
        text_encoder=qwen3vl(words),
        scheduler=d.MiniMaxH3Scheduler(shift=12.0),
        audio_scheduler=d.MiniMaxH3Scheduler(shift=3.0),
    )


def modular_cosmos3():
    return of_blocks(d.Cosmos3OmniModularPipeline, **cosmos3_parts())


def modular_ltx():
    return of_blocks(d.LTXModularPipeline, **ltx_parts())


def modular_hunyuan15():
    parts = hunyuan15_parts()
    del parts["guider"]
    parts["text_encoder_2"] = T5EncoderModel(
        T5Config(vocab_size=384, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=4)
    )
    return of_blocks(d.HunyuanVideo15ModularPipeline, **parts)


def modular_helios():
    return of_blocks(d.HeliosModularPipeline, **helios_parts(stage_range=[0, 1], stages=1))


def modular_helios_pyramid():
    return of_blocks(d.HeliosPyramidModularPipeline, **helios_parts())


class Checker(d.ModelMixin, d.ConfigMixin):
    """Stands in for Cosmos's guardrail, which is another package and gigabytes of models."""

    def __init__(self):
        super().__init__()
        self.register_buffer("nothing", torch.zeros(1))
        self.register_to_config()

    def check_text_safety(self, prompt):
        return True

    def check_video_safety(self, frames):
        return frames


def guarded():
    """Let the pipelines of Cosmos find a guardrail."""
    for name in ("text2world", "video2world"):
        importlib.import_module(f"diffusers.pipelines.cosmos.pipeline_cosmos_{name}").CosmosSafetyChecker = Checker
    importlib.import_module("diffusers.modular_pipelines.cosmos.modular_pipeline").CosmosSafetyChecker = Checker
    for name in ("2_video2world", "2_5_predict"):
        importlib.import_module(f"diffusers.pipelines.cosmos.pipeline_cosmos{name}").CosmosSafetyChecker = Checker


def save(name, folder):
    """Build a family's pipeline and save it; what stands in for a guardrail is not saved."""
    torch.manual_seed(0)
    guarded()
    with pipelines.quiet():
        globals()[name]().save_pretrained(str(folder))
    if not (folder / "model_index.json").exists():
        return folder
    index = json.loads((folder / "model_index.json").read_text())
    if "Checker" in str(index.get("safety_checker")):
        shutil.rmtree(folder / "safety_checker", ignore_errors=True)
        (folder / "model_index.json").write_text(json.dumps(index | {"safety_checker": [None, None]}))
    return folder
