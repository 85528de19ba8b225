"""Checkpoints: whole or not at all, checked at every load, described without torch."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from kinetograph import weights
from kinetograph.errors import CannotWrite, UnknownName, WeightsError
from kinetograph.neural import checkpoint


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    checkpoint.save_model(tmp_path / "w", nn.Linear(3, 2), {"kind": "line"})
    return tmp_path / "w"


def test_a_checkpoint_comes_back_with_its_configuration_and_digest(folder):
    model = nn.Linear(3, 2)
    digest = checkpoint.load_model(folder, model)
    assert torch.equal(model.weight, load_file(folder / weights.MODEL)["weight"])
    assert weights.configuration(folder) == {"kind": "line"}
    assert digest == weights.sha256(folder / weights.MODEL)


def test_one_flipped_bit_is_refused_by_name(folder):
    data = bytearray((folder / weights.MODEL).read_bytes())
    data[-1] ^= 1
    (folder / weights.MODEL).write_bytes(data)
    with pytest.raises(WeightsError, match=r"model\.safetensors was altered"):
        checkpoint.load_model(folder, nn.Linear(3, 2))


@pytest.mark.parametrize("keep", [0, 5, 40, -1])
def test_a_file_cut_short_is_refused(folder, keep):
    path = folder / weights.MODEL
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(WeightsError):
        checkpoint.load_model(folder, nn.Linear(3, 2))
    weights.seal(folder)  # even where the sum agrees
    with pytest.raises(WeightsError):
        checkpoint.load_model(folder, nn.Linear(3, 2))


def test_numbers_that_are_not_finite_are_refused(folder):
    tensors = load_file(folder / weights.MODEL)
    tensors["bias"][0] = float("nan")
    save_file(tensors, folder / weights.MODEL, metadata={"configuration": "{}"})
    weights.seal(folder)
    with pytest.raises(WeightsError, match="not finite"):
        checkpoint.load_model(folder, nn.Linear(3, 2))


def test_another_model_is_refused_with_the_first_difference(folder):
    with pytest.raises(WeightsError) as error:
        checkpoint.load_model(folder, nn.Linear(4, 2))
    assert "weight is (2, 3) in the file, (2, 4) in the model" in error.value.hint


@pytest.mark.parametrize("text", ["", "nonsense", "0" * 64 + "  other.file\n"])
def test_missing_or_damaged_sums_are_refused(folder, text):
    (folder / weights.SUMS).write_text(text)
    with pytest.raises(WeightsError):
        checkpoint.load_model(folder, nn.Linear(3, 2))


def test_a_header_that_is_none_of_ours_is_refused(folder):
    save_file({"a": torch.zeros(1)}, folder / weights.MODEL)
    with pytest.raises(WeightsError, match="not a checkpoint of this project"):
        weights.configuration(folder)
    (folder / weights.MODEL).write_bytes(b"\xff" * 64)
    with pytest.raises(WeightsError, match="not a checkpoint of this project"):
        weights.configuration(folder)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(folder, monkeypatch):
    before = (folder / weights.MODEL).read_bytes()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(CannotWrite, match="could not be written"):
        checkpoint.save(folder / weights.MODEL, {"a": torch.zeros(1)}, {})
    assert (folder / weights.MODEL).read_bytes() == before
    assert {path.name for path in folder.iterdir()} == {weights.MODEL, weights.SUMS}


def test_a_name_that_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(UnknownName):
        weights.locate("no-such-checkpoint")
    with pytest.raises(WeightsError, match="holds no checkpoint"):
        weights.locate(str(tmp_path))


RECIPES = {"flow": "layered"}  # of weights that are named after their engine


@pytest.mark.parametrize("name", weights.bundled())
def test_every_bundled_checkpoint_is_sealed_and_has_a_card(name):
    folder = weights.locate(name)
    assert weights.verify(folder)
    found = weights.configuration(folder)
    card = (folder / weights.CARD).read_text()
    assert f"kinetograph train {RECIPES.get(name, name)}" in card
    for fact in ("Hardware", "Hours", "Licence"):
        assert fact in card
    assert json.dumps(found["recipe"]["steps"]) in card.replace(",", "").replace(" ", "") or str(found["steps"]) in card


def test_bundled_weights_stay_under_sixty_megabytes():
    assert sum(path.stat().st_size for path in weights.HERE.rglob("*") if path.is_file()) < 60e6
