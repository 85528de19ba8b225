"""The gate before foreign model folders: whatever could run, unpickle or reach outside is refused by name."""

import json

import pytest

from kinetograph import gate
from kinetograph.errors import UnsafeModel, WeightsError


@pytest.fixture
def folder(tmp_path):
    """An honest pipeline of two parts, whose weights are never opened."""
    home = tmp_path / "model"
    index = {
        "_class_name": "WanPipeline",
        "_diffusers_version": "0.42.1",
        "transformer": ["diffusers", "WanTransformer3DModel"],
        "tokenizer": ["transformers", "T5TokenizerFast"],
        "boundary_ratio": None,
    }
    write(home / "model_index.json", index)
    write(home / "transformer" / "config.json", {"_class_name": "WanTransformer3DModel", "num_layers": 1})
    (home / "transformer" / "diffusion_pytorch_model.safetensors").write_bytes(b"weights")
    write(home / "tokenizer" / "tokenizer_config.json", {"tokenizer_class": "T5TokenizerFast"})
    return home


def write(path, said):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(said) if not isinstance(said, str) else said)


def edit(path, **more):
    write(path, json.loads(path.read_text()) | more)


def refused(folder, word):
    with pytest.raises(UnsafeModel, match=word) as error:
        gate.check(folder)
    assert error.value.hint
    return error.value


def test_an_honest_folder_passes(folder):
    gate.check(folder)


def test_a_file_of_weights_passes_and_a_pickle_does_not(folder, tmp_path):
    gate.check(folder / "transformer" / "diffusion_pytorch_model.safetensors")
    (tmp_path / "model.ckpt").write_bytes(b"")
    refused(tmp_path / "model.ckpt", r"model\.ckpt")


@pytest.mark.parametrize(
    "name", ["pipeline.py", "transformer/model.py", "deep/er/x.pyc", "tokenizer/a.so", ".hidden.py"]
)
def test_code_is_refused_wherever_it_lies(folder, name):
    write(folder / name, "raise SystemExit('ran')")
    refused(folder, name.rpartition("/")[2])


def test_pickles_are_refused_unless_safetensors_lie_beside_them(folder):
    (folder / "transformer" / "diffusion_pytorch_model.bin").write_bytes(b"")
    gate.check(folder)
    (folder / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    refused(folder, r"transformer/diffusion_pytorch_model\.bin")


@pytest.mark.parametrize("name", ["model_index.json", "transformer/config.json", "tokenizer/tokenizer_config.json"])
@pytest.mark.parametrize(
    "key", ["auto_map", "custom_pipeline", "custom_pipelines", "custom_generate", "trust_remote_code"]
)
def test_settings_that_ask_for_code_are_refused(folder, name, key):
    edit(folder / name, deep={"er": [{key: {"AutoModel": "evil--Model"}}]})
    refused(folder, key)


def test_a_private_setting_that_nobody_knows_is_refused(folder):
    edit(folder / "transformer" / "config.json", _loader="evil")
    refused(folder, "_loader")


@pytest.mark.parametrize("key", ["_attn_implementation", "_attn_implementation_internal", "attn_implementation"])
def test_a_foreign_attention_kernel_is_refused_and_a_known_one_is_not(folder, key):
    edit(folder / "transformer" / "config.json", **{key: "sdpa"})
    gate.check(folder)
    edit(folder / "transformer" / "config.json", **{key: "evil/kernel"})
    refused(folder, key)


@pytest.mark.parametrize(
    "change",
    [
        {"_class_name": ["pipeline", "Evil"]},
        {"_class_name": "../pipeline"},
        {"transformer": ["evil", "Model"]},
        {"transformer": ["os.path", "join"]},
        {"transformer": ["diffusers", "models.Evil"]},
        {"../outside": ["diffusers", "Model"]},
        {"vae": ["diffusers", "Model", {"pretrained_model_name_or_path": "/etc/model"}]},
        {"vae": ["diffusers", "Model", {"pretrained_model_name_or_path": "a/b", "subfolder": "../../x"}]},
    ],
)
def test_an_index_that_leads_elsewhere_is_refused(folder, change):
    edit(folder / "model_index.json", **change)
    refused(folder, "model_index")


def test_where_a_part_comes_from_does_not_matter_where_it_lies_in_the_folder(folder):
    """diffusers writes the path of the machine that saved the model; the part itself is taken, not the path."""
    edit(folder / "model_index.json", transformer=["diffusers", "M", {"pretrained_model_name_or_path": "/home/me/wan"}])
    gate.check(folder)


def test_a_private_number_is_no_danger(folder):
    edit(folder / "transformer" / "config.json", _sliding_window_pattern=6)
    gate.check(folder)


def test_old_indexes_that_name_a_folder_of_pipelines_pass(folder):
    edit(folder / "model_index.json", upsampler=["ltx", "LTXLatentUpsamplerModel"])
    gate.check(folder)


@pytest.mark.parametrize(
    "file", ["../../secret.safetensors", "/etc/secret.safetensors", "c:\\x.safetensors", "evil.pkl"]
)
def test_shards_outside_of_the_folder_are_refused(folder, file):
    write(folder / "transformer" / "diffusion_pytorch_model.safetensors.index.json", {"weight_map": {"a": file}})
    refused(folder, "takes weights from")


def test_a_link_that_leads_out_is_refused_and_one_to_the_cache_of_the_hub_is_not(tmp_path, folder):
    outside = tmp_path / "outside.json"
    write(outside, {})
    (folder / "extra.json").symlink_to(outside)
    refused(folder, "extra.json")
    home = tmp_path / "models--a--b"
    write(home / "blobs" / "abc", {"_class_name": "WanPipeline"})
    (home / "snapshots" / "123").mkdir(parents=True)
    (home / "snapshots" / "123" / "model_index.json").symlink_to("../../blobs/abc")
    gate.check(home / "snapshots" / "123")
    (home / "snapshots" / "123" / "evil").symlink_to("/etc", target_is_directory=True)
    refused(home / "snapshots" / "123", "evil")


def test_another_model_behind_an_adapter_is_refused(folder):
    write(folder / "text_encoder" / "adapter_config.json", {"base_model_name_or_path": "evil/model"})
    refused(folder, "adapter_config")


def test_settings_that_are_no_json_are_a_named_error(folder):
    write(folder / "transformer" / "config.json", "{" * 5)
    with pytest.raises(WeightsError, match=r"config\.json"):
        gate.check(folder)


@pytest.mark.parametrize(
    ("path", "inside"),
    [
        *[(path, True) for path in ("a/b", "a", "")],
        *[(path, False) for path in ("../a", "a/../../b", "/a", "~/a", "c:/a", "https://a/b", "a\\b", "a\0b")],
    ],
)
def test_a_path_stays_inside_or_it_does_not(path, inside):
    assert gate.is_inside(path) is inside


def test_a_header_names_the_tensors_that_it_has_and_a_damaged_one_is_refused(folder):
    file = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    with pytest.raises(WeightsError, match="no file of safetensors"):
        gate.header(file)  # the bytes of "weights" are a length beyond the file's
    about = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    said = json.dumps({"__metadata__": {"format": "pt"}, "a": about}).encode()
    file.write_bytes(len(said).to_bytes(8, "little") + said + bytes(4))
    assert gate.header(file) == {"a": about}
