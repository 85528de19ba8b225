"""Pickled weights become safetensors by an explicit command, and a pickle that asks for more is not read."""

import json
import os
import pickle
import sys

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from kinetograph import conversion, gate
from kinetograph.cli.commands import app
from kinetograph.errors import CannotWrite, UnsafeModel, WeightsError
from kinetograph.neural import unpickling

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.bfloat16)}


def run_here(monkeypatch):
    """The process's work without the process, which takes seconds to import torch: one test starts a real one."""

    def run(command, **named):
        import contextlib
        import io
        import subprocess

        monkeypatch.setattr(sys, "addaudithook", lambda hook: None)  # it could not be taken away again
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            code = unpickling.main(*command[-2:])
        return subprocess.CompletedProcess(command, code, out.getvalue(), "")

    monkeypatch.setattr(conversion.subprocess, "run", run)


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.slow
def test_the_command_converts_in_a_process_of_its_own(tmp_path):
    torch.save({"params_ema": WEIGHTS, "step": 3}, tmp_path / "up.pth")
    done = CliRunner().invoke(app, ["convert", str(tmp_path / "up.pth"), "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["tensors"] == 2
    assert said["left"] == ["step"]
    found = load_file(tmp_path / "up.safetensors")
    assert {name: value.tolist() for name, value in found.items()} == {
        name: value.tolist() for name, value in WEIGHTS.items()
    }
    assert found["b"].dtype == torch.bfloat16


def test_a_pickle_that_asks_for_more_is_not_read_and_leaves_nothing(tmp_path, monkeypatch):
    run_here(monkeypatch)
    (tmp_path / "bad.pt").write_bytes(pickle.dumps({"a": Hostile(str(tmp_path / "owned"))}, protocol=2))
    with pytest.raises(UnsafeModel, match="more than tensors") as error:
        conversion.convert(tmp_path / "bad.pt")
    assert "open" in error.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["bad.pt"]


@pytest.mark.parametrize(
    "event",
    [
        ("socket.connect",),
        ("subprocess.Popen",),
        ("os.system",),
        ("os.remove", "x", -1),
        ("open", "x", "w", 0),
        ("open", "x", None, os.O_WRONLY | os.O_CREAT),  # by os.open
    ],
)
def test_what_weights_never_need_is_forbidden_while_they_are_read(event):
    with pytest.raises(PermissionError):
        unpickling._refuse(event[0], event[1:])
    unpickling._refuse("open", ("x", "rb", os.O_RDONLY))
    unpickling._refuse("open", ("x", None, os.O_RDONLY))


def test_a_damaged_file_and_an_empty_one_are_said_to_be_so(tmp_path, monkeypatch):
    run_here(monkeypatch)
    (tmp_path / "damaged.pt").write_bytes(b"PK\x03\x04 nothing")
    torch.save({"step": 1}, tmp_path / "empty.pt")
    for name in ("damaged.pt", "empty.pt"):
        with pytest.raises(WeightsError):
            conversion.convert(tmp_path / name)


def test_a_model_folder_is_copied_with_safetensors_and_without_code(tmp_path, monkeypatch):
    run_here(monkeypatch)
    folder = tmp_path / "model"
    for part in ("unet", "text_encoder"):
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text("{}")
    index = {"_class_name": "P", "unet": ["diffusers", "U"], "text_encoder": ["transformers", "T"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "unet" / "evil.py").write_text("1/0")
    torch.save(WEIGHTS, folder / "unet" / "diffusion_pytorch_model.bin")
    shards = {"a": "pytorch_model-00001-of-00002.bin", "b": "pytorch_model-00002-of-00002.bin"}
    for key, name in shards.items():
        torch.save({f"module.{key}": torch.ones(1)}, folder / "text_encoder" / name)
    said = json.dumps({"metadata": {}, "weight_map": shards})
    (folder / "text_encoder" / "pytorch_model.bin.index.json").write_text(said)
    with pytest.raises(UnsafeModel):
        gate.check(folder)
    made = conversion.convert(folder)
    gate.check(made.path)
    assert made.path == tmp_path / "model-safe"
    assert (made.tensors, made.left) == (4, ("unet/evil.py",))
    assert made.weights == (
        "text_encoder/model-00001-of-00002.safetensors",
        "text_encoder/model-00002-of-00002.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
    )
    map_ = json.loads((made.path / "text_encoder" / "model.safetensors.index.json").read_text())["weight_map"]
    assert all((made.path / "text_encoder" / name).exists() for name in map_.values())
    assert list(load_file(made.path / "text_encoder" / map_["a"])) == ["a"]
    with pytest.raises(CannotWrite):
        conversion.convert(folder)


def test_a_snapshot_of_the_hub_s_cache_is_converted_though_it_is_made_of_links(tmp_path, monkeypatch):
    run_here(monkeypatch)
    home = tmp_path / "models--some--model"
    snapshot = home / "snapshots" / "abc"
    for folder in (home / "blobs", snapshot):
        folder.mkdir(parents=True)
    torch.save(WEIGHTS, home / "blobs" / "1")
    (home / "blobs" / "2").write_text("{}")
    (snapshot / "diffusion_pytorch_model.bin").symlink_to(home / "blobs" / "1")
    (snapshot / "config.json").symlink_to(home / "blobs" / "2")
    made = conversion.convert(snapshot, tmp_path / "new")
    assert made.weights == ("diffusion_pytorch_model.safetensors",)
    assert not any(path.is_symlink() for path in made.path.iterdir())
    (tmp_path / "secret.json").write_text("{}")
    (snapshot / "more.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(UnsafeModel, match="leads out of it"):
        conversion.convert(snapshot, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_folder_without_weights_that_a_pipeline_reads_says_what_it_holds(tmp_path):
    (tmp_path / "optimizer.pt").write_bytes(b"pickle")
    with pytest.raises(WeightsError) as error:
        conversion.convert(tmp_path, tmp_path.with_name("new"))
    assert "it holds optimizer.pt" in error.value.hint


@pytest.mark.parametrize(
    ("name", "new"),
    [
        ("pytorch_model.fp16.bin", "model.fp16.safetensors"),
        ("pytorch_model.bin.index.fp16.json", "model.safetensors.index.fp16.json"),
        ("diffusion_pytorch_model.bin", "diffusion_pytorch_model.safetensors"),
        ("config.json", "config.json"),
    ],
)
def test_the_names_are_those_that_the_libraries_look_for(name, new):
    assert conversion.renamed(name) == new
