"""What several test files need: databases, an engine that takes its time, tiny picture models."""

import functools
import importlib
import os
import sys
from pathlib import Path

import pytest
from cluster import Cluster
from served import announce

from kinetograph.shelf import ENGINES

# Tests start processes, and several that each take every core slow one another many times over.
os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive")


@pytest.fixture(scope="session")
def cluster():
    """A PostgreSQL cluster of this session's own."""
    try:
        own = Cluster()
    except FileNotFoundError as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(str(missing))
        pytest.skip(str(missing))
    with own:
        yield own


@pytest.fixture
def postgresql_url(cluster):
    """The address of an empty database."""
    url = cluster.database()
    yield url
    cluster.drop(url)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request, tmp_path):
    """The address of an empty database, of either kind."""
    if request.param == "postgresql":
        return request.getfixturevalue("postgresql_url")
    return f"sqlite:///{tmp_path / 'jobs.sqlite'}"


PATIENCE = '''
"""An engine that takes its time, and does what its prompt says: fail, die, hang, swallow all memory."""

import os
import time
from fractions import Fraction

import numpy as np
from pydantic import Field

from kinetograph.engine import EngineInfo, Options as Base, Progress, Sizes, Words
from kinetograph.video import Video


class Options(Base):
    steps: int = Field(4, ge=1, le=10_000)
    pause: float = Field(0.0, ge=0, le=3600)
    guidance: float = 1.0
    sharp: bool = False
    tags: list[Words] = []
    start: str = ""
    start_sha256: str = ""
    lora: str = ""


def info(weights):
    return EngineInfo(
        reference=f"patience:{weights}" if weights else "patience", summary="waits", licence="none", trained=False,
        width=32, height=32, frames=4, fps=Fraction(8), sizes=Sizes(minimum=16, maximum=4096),
        min_frames=1, max_frames=10_000, Options=Options,
    )


def load(weights, device):
    return Patience()


class Patience:
    device, weights_digest, versions = "cpu", "", {}

    def generate(self, request, on_progress):
        frames = np.full((request.frames, request.height, request.width, 3), request.seed % 256, np.uint8)
        steps = request.options["steps"]
        for step in range(1, steps + 1):
            time.sleep(request.options["pause"])
            if "die" in request.prompt:
                os._exit(9)
            if "hang" in request.prompt:
                time.sleep(3600)
            if "memory" in request.prompt:
                raise MemoryError
            hoard = []
            while "swallow" in request.prompt:
                hoard.append(np.empty(2**20))
            if "fail" in request.prompt:
                raise RuntimeError("secret/path 0x7ffe1234")
            on_progress(Progress(step=step, steps=steps, preview=frames[-1]))
        return Video(frames, request.fps)
'''


@pytest.fixture(scope="session")
def patience_folder(tmp_path_factory):
    """Where another distribution's engine `patience` lies."""
    folder = tmp_path_factory.mktemp("stranger")
    (folder / "patience_engine.py").write_text(PATIENCE)
    announce(folder, "patience", "patience_engine")
    return folder


@pytest.fixture
def patience(patience_folder, monkeypatch):
    """Another distribution's engine `patience`, for this process and those that it starts; the folder it lies in."""
    monkeypatch.syspath_prepend(str(patience_folder))
    root = Path(__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(patience_folder), str(root)]))
    ENGINES.__dict__.pop("_strangers", None)
    yield patience_folder
    ENGINES.__dict__.pop("_strangers", None)
    sys.modules.pop("patience_engine", None)
    importlib.invalidate_caches()


# --- tiny picture models with random weights, in the formats of the large ones ---


WIDTH = 16  # of everything that is a vector of words
WIDER = 24  # of those of SDXL's second text encoder, by which a checkpoint of one file tells the two apart


@functools.cache
def _tokenizer():
    """CLIP's tokenizer without any merges: every letter is a token."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: number for number, word in enumerate(words)}, merges=[], model_max_length=77)


def _text_encoder(projected=False, width=WIDTH):
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    count = len(_tokenizer())
    config = CLIPTextConfig(
        vocab_size=count,
        hidden_size=width,
        intermediate_size=2 * width,
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

_SDXL = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": WIDTH + 6 * 8,
    "cross_attention_dim": WIDTH + WIDER,
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

    if kind.startswith("sd3"):
        return _sd3(kind)
    if kind.startswith("pixart"):
        return _pixart(kind)
    if kind == "sana":
        return _sana()
    shared = {"vae": _vae(), "tokenizer": _tokenizer()}
    said = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}
    said |= {"set_alpha_to_one": False, "steps_offset": 1}
    if kind == "sdxl":
        return diffusers.StableDiffusionXLPipeline(
            **shared,
            text_encoder=_text_encoder(),
            text_encoder_2=_text_encoder(projected=True, width=WIDER),
            tokenizer_2=_tokenizer(),
            unet=_unet(**_SDXL),
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


def _t5(width=WIDTH):
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    letters = [chr(number) for number in range(33, 127)]
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -2.0), ("\u2581", -3.0), *((letter, -4.0) for letter in letters)]
    tokenizer = T5Tokenizer(vocab=vocab, extra_ids=0, model_max_length=512)
    sizes = {"d_model": width, "d_kv": 4, "d_ff": 2 * WIDTH, "num_layers": 1, "num_heads": 2}
    return tokenizer, T5EncoderModel(T5Config(vocab_size=len(vocab), **sizes))


def _transformer(name, **more):
    import diffusers

    sizes = {"sample_size": 8, "num_layers": 3, "attention_head_dim": 4, "num_attention_heads": 2, "in_channels": 4}
    return getattr(diffusers, name)(**sizes, **more)


def _flow(shift=3.0):
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(shift=shift)


def _sd3(kind):
    import diffusers

    more = {"qk_norm": "rms_norm", "dual_attention_layers": (0,)} if kind == "sd3.5" else {}
    tokenizer, encoder = _t5(2 * WIDTH) if kind == "sd3.5" else (None, None)  # SD 3 does without it, too
    network = _transformer(
        "SD3Transformer2DModel",
        out_channels=4,
        joint_attention_dim=2 * WIDTH,
        caption_projection_dim=8,
        pooled_projection_dim=2 * WIDTH,
        patch_size=2,
        pos_embed_max_size=8,
        **more,
    )
    return diffusers.StableDiffusion3Pipeline(
        vae=_vae(),
        transformer=network,
        scheduler=_flow(),
        text_encoder=_text_encoder(projected=True),
        tokenizer=_tokenizer(),
        text_encoder_2=_text_encoder(projected=True),
        tokenizer_2=_tokenizer(),
        text_encoder_3=encoder,
        tokenizer_3=tokenizer,
    )


def _pixart(kind):
    import diffusers

    alpha = kind == "pixart-alpha"
    tokenizer, encoder = _t5()
    network = _transformer(
        "PixArtTransformer2DModel",
        out_channels=8,
        cross_attention_dim=8,
        caption_channels=WIDTH,
        patch_size=2,
        use_additional_conditions=False,
    )
    return (diffusers.PixArtAlphaPipeline if alpha else diffusers.PixArtSigmaPipeline)(
        tokenizer=tokenizer,
        text_encoder=encoder,
        vae=_vae(),
        transformer=network,
        scheduler=diffusers.DDIMScheduler(clip_sample=False, timestep_spacing="trailing"),
    )


def _sana():
    import diffusers
    from transformers import Gemma2Config, Gemma2Model, GemmaTokenizer

    letters = [chr(number) for number in range(32, 127)]
    vocab = {word: number for number, word in enumerate(["<pad>", "<eos>", "<bos>", "<unk>", "\u2581", "\n", *letters])}
    tokenizer = GemmaTokenizer(vocab=vocab, merges=[], model_max_length=512)
    sizes = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2}
    encoder = Gemma2Model(Gemma2Config(vocab_size=len(vocab), num_key_value_heads=1, head_dim=8, **sizes))
    network = _transformer(
        "SanaTransformer2DModel",
        out_channels=4,
        num_cross_attention_heads=2,
        cross_attention_head_dim=4,
        cross_attention_dim=8,
        caption_channels=WIDTH,
        patch_size=1,
    )
    vae = diffusers.AutoencoderDC(
        in_channels=3,
        latent_channels=4,
        attention_head_dim=4,
        encoder_block_types=("ResBlock",) * 2,
        decoder_block_types=("ResBlock",) * 2,
        encoder_block_out_channels=(4, 8),
        decoder_block_out_channels=(4, 8),
        encoder_qkv_multiscales=((), ()),
        decoder_qkv_multiscales=((), ()),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        scaling_factor=0.41407,
    )
    return diffusers.SanaPipeline(
        tokenizer=tokenizer, text_encoder=encoder, vae=vae, transformer=network, scheduler=_flow()
    )


def _controlnet(seed, **more):
    import torch
    from diffusers import ControlNetModel

    torch.manual_seed(seed)
    net = ControlNetModel(
        **{name: value for name, value in _UNET.items() if name != "up_block_types"},
        conditioning_embedding_out_channels=(4, 8, 8, 8),
        **{"cross_attention_dim": WIDTH, **more},
    )
    with torch.no_grad():  # its outlets begin at zero, which would make every test of it pass
        for parameter in [*net.controlnet_down_blocks.parameters(), *net.controlnet_mid_block.parameters()]:
            parameter.normal_(0, 0.3)
        net.controlnet_cond_embedding.conv_out.weight.normal_(0, 0.3)
    return net


@pytest.fixture(scope="session")
def picture_model(tmp_path_factory):
    """A function: the folder of a tiny random model of a kind (sd, sd2-v, sdxl, sd3, sd3.5, pixart-alpha,
    pixart-sigma, sana, pix2pix, controlnet, controlnet-2, controlnet-xl).

    It is made once, and shared: whoever changes it copies it first.
    """
    folder = tmp_path_factory.mktemp("picture-models")

    @functools.cache
    def made(kind):
        import torch

        torch.manual_seed(0)
        more = _SDXL if kind == "controlnet-xl" else {}
        parts = _controlnet(len(kind), **more) if kind.startswith("controlnet") else _pipeline(kind)
        parts.save_pretrained(folder / kind, safe_serialization=True)
        return folder / kind

    return made


def _as_one_file(folder, kind):
    """A tiny Stable Diffusion under the names that its authors gave, as checkpoints of one file have them."""
    from safetensors.torch import load_file

    def part(name, file="diffusion_pytorch_model.safetensors"):
        return load_file(folder / name / file)

    def words(name="text_encoder"):
        return part(name, "model.safetensors")

    unet = {f"model.diffusion_model.{_unet_name(name)}": tensor for name, tensor in part("unet").items()}
    vae = {f"first_stage_model.{_vae_name(name)}": _square(name, tensor) for name, tensor in part("vae").items()}
    if kind == "sdxl":
        text = {f"conditioner.embedders.0.transformer.{_text_name(n)}": t for n, t in words().items()}
        text |= {f"conditioner.embedders.1.model.{n}": t for n, t in _as_open_clip(words("text_encoder_2")).items()}
    elif kind == "sd":
        text = {f"cond_stage_model.transformer.{_text_name(n)}": t for n, t in words().items()}
    else:
        text = {f"cond_stage_model.model.{n}": t for n, t in _as_open_clip(words()).items()}
    return unet | vae | text


_OPEN_CLIP = {
    "embeddings.position_embedding.weight": "positional_embedding",
    "embeddings.token_embedding": "token_embedding",
    "final_layer_norm": "ln_final",
    "encoder.layers": "transformer.resblocks",
    "layer_norm": "ln_",
    "fc1": "c_fc",
    "fc2": "c_proj",
    "self_attn": "attn",
}


def _as_open_clip(tensors):
    """A text encoder under the names of open_clip, where three projections are one."""
    import re

    import torch

    found, three = {}, {}
    for name, tensor in tensors.items():
        if match := re.search(r"layers\.(\d+)\.self_attn\.([qkv])_proj\.(weight|bias)", name):
            three.setdefault((match[1], match[3]), {})[match[2]] = tensor
        elif name == "text_projection.weight":
            found["text_projection"] = tensor.T
        else:
            name = name.removeprefix("text_model.")
            for ours, theirs in _OPEN_CLIP.items():
                name = name.replace(ours, theirs)
            found[name] = tensor
    for (layer, kind), parts in three.items():
        found[f"transformer.resblocks.{layer}.attn.in_proj_{kind}"] = torch.cat([parts[which] for which in "qkv"])
    return found


def _text_name(name):
    return name if name.startswith("text_model.") else f"text_model.{name}"


_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def _unet_name(name):
    """For two levels of one layer each."""
    import re

    fixed = {
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "add_embedding.linear_1": "label_emb.0.0",
        "add_embedding.linear_2": "label_emb.0.2",
        "conv_in": "input_blocks.0.0",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
        "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op",
        "up_blocks.0.upsamplers.0.conv": "output_blocks.1.1.conv",
        "mid_block.resnets.0": "middle_block.0",
        "mid_block.attentions.0": "middle_block.1",
        "mid_block.resnets.1": "middle_block.2",
        "down_blocks.0.resnets.0": "input_blocks.1.0",
        "down_blocks.0.attentions.0": "input_blocks.1.1",
        "down_blocks.1.resnets.0": "input_blocks.3.0",
        **{f"up_blocks.0.resnets.{i}": f"output_blocks.{i}.0" for i in range(2)},
        **{f"up_blocks.1.resnets.{i}": f"output_blocks.{2 + i}.0" for i in range(2)},
        **{f"up_blocks.1.attentions.{i}": f"output_blocks.{2 + i}.1" for i in range(2)},
    }
    for ours, theirs in fixed.items():
        if name.startswith(f"{ours}."):
            rest = name.removeprefix(f"{ours}.")
            if "resnets" in ours:
                rest = re.sub(r"^\w+", lambda found: _RESNET[found[0]], rest)
            return f"{theirs}.{rest}"
    raise KeyError(name)


def _vae_name(name):
    """For four levels."""
    import re

    name = re.sub(r"(encoder|decoder)\.conv_norm_out", r"\1.norm_out", name)
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda found: f"mid.block_{int(found[1]) + 1}", name)
    name = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda found: f"up.{3 - int(found[1])}.block.{found[2]}", name)
    name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda found: f"up.{3 - int(found[1])}.upsample", name)
    name = name.replace("conv_shortcut", "nin_shortcut").replace("mid_block.attentions.0", "mid.attn_1")
    for ours, theirs in {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}.items():
        name = name.replace(f"attn_1.{ours}.", f"attn_1.{theirs}.")
    return name


def _square(name, tensor):
    """Attention of the decoder was made of convolutions."""
    return tensor[..., None, None] if "attentions" in name and tensor.ndim == 2 else tensor


@pytest.fixture(scope="session")
def single_file(picture_model, tmp_path_factory):
    """A function: a tiny model (sd, sd2-v, sdxl) as a checkpoint of one file."""
    folder = tmp_path_factory.mktemp("one-file")

    @functools.cache
    def made(kind):
        from safetensors.torch import save_file

        path = folder / f"{kind}.safetensors"
        tensors = _as_one_file(picture_model(kind), kind)
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
        return path

    return made


@pytest.fixture(scope="session")
def one_file(single_file):
    """The tiny model `sd` as a checkpoint of one file."""
    return single_file("sd")
