"""The zero-shot engine with clips: edits, controls, pictures that come first, smoothing; and what is refused."""

import json
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from kinetograph import batch, continuation, controls, footage
from kinetograph.cli.commands import app
from kinetograph.controls import Control
from kinetograph.engine import describe, generate, reproduce, warm
from kinetograph.errors import CannotRead, InvalidRequest, NotFinite, UnsafeModel, WeightsError
from kinetograph.video import Video, fingerprint

SIDE, FRAMES = 64, 3


@pytest.fixture(autouse=True)
def _cold():
    yield
    warm.clear()


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A file with a bright square that moves over a gradient."""
    frames = np.tile(np.linspace(0, 200, SIDE, dtype=np.uint8)[None, None, :, None], (FRAMES, SIDE, 1, 3)).copy()
    for k in range(FRAMES):
        frames[k, 16:40, 8 + 6 * k : 32 + 6 * k] = (250, 60, 20)
    return Video(frames, Fraction(8)).save(tmp_path_factory.mktemp("clips") / "clip.npz")


def make(reference, settings=None, prompt="a cat", **options):
    settings = dict(settings or {})
    said = {"steps": 2, "chunk": 2, **settings.pop("options", {}), **options}
    small = {"width": SIDE, "height": SIDE, "frames": FRAMES, "fps": Fraction(8)}
    request = describe(reference).request(prompt, seed=3, options=said, **small | settings)
    return generate(reference, request, device="cpu")


def differ(one, other):
    return fingerprint(one.frames) != fingerprint(other.frames)


@pytest.fixture
def sd(picture_model):
    return f"zero:{picture_model('sd')}"


@pytest.fixture
def pix2pix(picture_model):
    return f"zero:{picture_model('pix2pix')}"


@pytest.fixture
def edges(picture_model, clip, monkeypatch):
    monkeypatch.chdir(picture_model("controlnet").parent)
    return controls.settings([Control.parse(f"edge={clip},weights=./controlnet,low=20,high=60")])


# --- editing ----------------------------------------------------------------------------------------------------------


def test_a_clip_is_edited_by_an_instruction_and_the_file_says_how(pix2pix, clip, tmp_path):
    video = make(pix2pix, footage.from_source(clip), "make it Van Gogh", image_guidance=1.2)
    assert video.frames.shape == (FRAMES, SIDE, SIDE, 3)
    video.save(tmp_path / "a.npz")
    assert reproduce(tmp_path / "a.npz", device="cpu").same
    changes = ({"image_guidance": 3.0}, {"guidance": 2.0}, {"shared_noise": False}, {"attention": False})
    made = {fingerprint(make(pix2pix, footage.from_source(clip), **change).frames) for change in ({}, *changes)}
    assert len(made) == len(changes) + 1


def test_what_an_edit_hardly_changed_is_as_it_was(pix2pix, clip):
    source = Video.load(clip).frames.astype(int)
    plain, some, much = (
        make(pix2pix, footage.from_source(clip), keep=keep).frames.astype(int) for keep in (0.0, 0.5, 1.0)
    )
    alike = [float((frames == source).all(-1).mean()) for frames in (plain, some, much)]
    assert alike[0] < alike[1] < alike[2]
    at = np.abs(plain - source).max(-1)
    assert (some == source)[at < 20].mean() > 0.9
    assert (some == plain)[at > 235].mean() > 0.9


def test_without_guidance_one_group_is_asked_and_it_runs(pix2pix, clip):
    assert make(pix2pix, footage.from_source(clip), guidance=1.0, image_guidance=1.0).frames.shape[0] == FRAMES


def test_a_model_of_instructions_without_a_clip_says_what_it_needs(pix2pix):
    with pytest.raises(InvalidRequest, match="has none to edit") as error:
        make(pix2pix)
    assert "kinetograph edit" in error.value.hint


def test_video_to_video_goes_as_far_as_its_strength(sd, clip):
    nearest, near, far = (
        make(sd, footage.from_source(clip), steps=10, strength=strength).frames.astype(float)
        for strength in (0.1, 0.3, 1.0)
    )
    assert np.abs(near - nearest).mean() < np.abs(far - nearest).mean()
    with pytest.raises(InvalidRequest, match="leaves none of 2 steps") as error:
        make(sd, footage.from_source(clip), strength=0.3)
    assert "nearest: 0.5" in error.value.hint


@pytest.mark.parametrize("kind", ["sdxl", "sd3", "pixart", "sana"])
def test_every_family_edits_and_begins_with_a_picture(picture_model, kind, clip, tmp_path):
    info = describe(f"zero:{picture_model(kind)}")
    size = {"width": info.width, "height": info.height}
    edited = make(info.reference, footage.from_source(clip, "crop", **size, frames=2, fps=Fraction(8)), strength=0.5)
    assert edited.frames.shape == (2, info.height, info.width, 3)
    Image.new("RGB", (info.width, info.height), (250, 30, 30)).save(tmp_path / "a.png")
    begun = make(info.reference, size, start=str(tmp_path / "a.png"))
    assert (begun.frames[0] == (250, 30, 30)).all()
    assert differ(begun, make(info.reference, size))


def test_a_source_that_does_not_fit_is_refused_or_resampled_on_wish(sd, clip):
    for changes, remedy in (
        ({"width": 128}, "--size 64x64"),
        ({"frames": 2}, "--frames 3"),
        ({"fps": Fraction(4)}, "--fps 8"),
    ):
        with pytest.raises(InvalidRequest) as error:
            make(sd, footage.from_source(clip, **changes))
        assert remedy in error.value.hint
    wished = footage.from_source(clip, "crop", width=128, height=64, frames=2, fps=Fraction(4))
    assert make(sd, wished).frames.shape == (2, 64, 128, 3)


def test_broken_videos_are_refused_by_name(sd, clip, tmp_path, picture_model):
    (tmp_path / "bad.mp4").write_bytes(b"not a video")
    for options in (
        {"source": str(tmp_path / "bad.mp4")},
        {"control": [f"edge={tmp_path / 'bad.mp4'},weights={picture_model('controlnet')}"]},
        {"start": str(tmp_path / "bad.mp4")},
        {"smooth": 0.5, "smooth_mask": str(tmp_path / "bad.mp4")},
    ):
        with pytest.raises(CannotRead, match=r"bad\.mp4"):
            make(sd, **options)


def test_the_command_edits(pix2pix, clip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = [
        "edit",
        str(clip),
        "make it red",
        "--engine",
        pix2pix,
        "--out",
        "a.npz",
        "--seed",
        "1",
        "--device",
        "cpu",
    ]
    result = CliRunner().invoke(app, [*command, "--set", "steps=2", "--json"])
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert (said["frames"], said["width"], said["fps"]) == (FRAMES, SIDE, "8")
    assert said["options"]["source"] == str(clip)


def test_many_instructions_make_many_clips_of_one(pix2pix, clip, tmp_path):
    how = {"format": "npz", "settings": footage.from_source(clip, options={"steps": 1}), "device": "cpu"}
    prompts = ["make it red", "make it blue"]
    outcome = batch.run(pix2pix, prompts, tmp_path / "out", seed=1, **how)
    assert (outcome.made, outcome.failed) == (2, ())
    assert batch.run(pix2pix, prompts, tmp_path / "out", **how).kept == 2


# --- controls ---------------------------------------------------------------------------------------------------------


def test_a_control_is_obeyed_and_the_file_says_how(sd, edges, clip, tmp_path):
    video = make(sd, edges)
    assert differ(video, make(sd))
    video.save(tmp_path / "a.npz")
    assert reproduce(tmp_path / "a.npz", device="cpu").same
    noted = Control.parse(video.provenance.request.options["control"][0])
    assert noted.sha256 == fingerprint(Video.load(clip).frames)
    assert noted.weights_sha256
    assert Path(noted.weights).is_absolute()


def test_what_a_control_says_matters(sd, picture_model, clip):
    weights = f"weights={picture_model('controlnet')}"
    lines = [f"edge={clip},{weights},low=20,high=60", f"depth={clip},{weights}", f"pose={clip},{weights}"]
    lines += [f"plain={clip},{weights},scale=0.4", f"plain={clip},{weights},until=0.5"]
    lines += [f"plain={clip},weights={picture_model('controlnet-2')}"]
    made = [make(sd, control=[line]) for line in lines]
    assert len({fingerprint(video.frames) for video in made}) == len(lines)


def test_controls_go_together_and_with_an_edit(sd, picture_model, clip):
    one = f"edge={clip},weights={picture_model('controlnet')},low=20,high=60"
    two = f"depth={clip},weights={picture_model('controlnet-2')},scale=0.5"
    both = make(sd, control=[one, two])
    assert differ(both, make(sd, control=[one]))
    edited = make(sd, footage.from_source(clip), control=[one], strength=1.0)
    assert differ(edited, make(sd, footage.from_source(clip), strength=1.0))


def test_a_controlled_clip_does_not_depend_on_the_chunks(sd, edges):
    one, two = make(sd, edges, chunk=1), make(sd, edges, chunk=8)
    assert np.abs(one.frames.astype(int) - two.frames).max() <= 1


def test_controls_that_share_their_weights_do_not_share_what_anchors_offered(sd, picture_model, clip):
    weights = f"weights={picture_model('controlnet')}"
    lines = [f"edge={clip},{weights},low=20,high=60", f"plain={clip},{weights}"]
    one, two = (make(sd, control=lines, chunk=chunk) for chunk in (1, 8))
    assert np.abs(one.frames.astype(int) - two.frames).max() <= 1


def test_a_control_works_with_a_specialised_model(edges, sd, picture_model, tmp_path):
    """What DreamBooth wrote is a model like any other."""
    from kinetograph.neural.training import dreambooth

    rex = tmp_path / "rex"
    rex.mkdir()
    Image.new("RGB", (64, 64), (200, 90, 10)).save(rex / "a.png")
    few = {"steps": 1, "batch": 1, "rate": 1e-3, "size": 64, "bfloat16": False}
    said = {"model": str(picture_model("sd")), "images": str(rex), "prompt": "a photo of sks dog", **few}
    dreambooth.Recipe(**said).train(tmp_path / "run", device="cpu")
    assert differ(make(f"zero:{tmp_path / 'run'}", edges), make(sd, edges))
    dreambooth.Recipe(**said | {"rank": 2, "rate": 0.1, "steps": 2}).train(tmp_path / "low", device="cpu")
    low = make(sd, edges, lora=str(tmp_path / "low"), smooth=0.5, smooth_masks="attention", smooth_words="cat")
    assert differ(low, make(sd, edges, smooth=0.5, smooth_masks="attention", smooth_words="cat"))


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [({"width": 128}, "--size 64x64"), ({"frames": 8}, "--frames 3"), ({"fps": Fraction(4)}, "--fps 8")],
)
def test_a_control_that_does_not_fit_is_refused_with_what_would(sd, edges, changes, remedy):
    with pytest.raises(InvalidRequest) as error:
        make(sd, edges | changes)
    assert remedy in error.value.hint
    assert error.value.field == "control"


def test_controls_that_are_none_are_refused(sd, picture_model, clip, tmp_path):
    for line, kind, said in (
        (f"plain={clip}", InvalidRequest, "weights=FOLDER"),
        (f"edge={clip},weights={picture_model('sd')}", WeightsError, "ControlNet"),
        (f"edge={clip},weights={picture_model('sd') / 'unet'}", WeightsError, "UNet2DConditionModel"),
        (f"edges={clip}", Exception, "edge"),
    ):
        with pytest.raises(kind) as error:
            make(sd, control=[line])
        assert said in f"{error.value} {error.value.hint}"
    hostile = shutil.copytree(picture_model("controlnet"), tmp_path / "hostile")
    (hostile / "run.py").write_text("raise SystemExit")
    with pytest.raises(UnsafeModel):
        make(sd, control=[f"edge={clip},weights={hostile}"])


def test_a_controlnet_of_another_family_is_refused(picture_model, clip):
    with pytest.raises(InvalidRequest, match="does not fit") as error:
        make(f"zero:{picture_model('sdxl')}", control=[f"edge={clip},weights={picture_model('controlnet')}"])
    assert "another family" in error.value.hint


def test_other_weights_than_before_are_refused(sd, clip, picture_model, tmp_path):
    folder = shutil.copytree(picture_model("controlnet"), tmp_path / "net")
    settings = controls.settings([Control.parse(f"edge={clip},weights={folder}")])
    tensors = load_file(folder / "diffusion_pytorch_model.safetensors")
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, folder / "diffusion_pytorch_model.safetensors")
    with pytest.raises(InvalidRequest, match="other weights than before"):
        make(sd, settings)


def test_numbers_that_overflow_are_named_and_the_model_is_left_as_it_was(sd, clip, picture_model, tmp_path):
    folder = shutil.copytree(picture_model("controlnet"), tmp_path / "net")
    tensors = load_file(folder / "diffusion_pytorch_model.safetensors")
    save_file(
        {name: torch.full_like(tensor, torch.inf) for name, tensor in tensors.items()},
        folder / "diffusion_pytorch_model.safetensors",
    )
    before = make(sd)
    with pytest.raises(NotFinite) as error:
        make(sd, control=[f"edge={clip},weights={folder}"])
    assert "dtype" in error.value.hint
    assert not differ(before, make(sd))


# --- a picture that comes first ---------------------------------------------------------------------------------------


def test_a_picture_comes_first_and_the_rest_looks_at_it(sd, tmp_path):
    made = []
    for colour in ((250, 30, 30), (30, 30, 250)):
        Image.new("RGB", (SIDE, SIDE), colour).save(tmp_path / "a.png")
        start = continuation.from_picture(tmp_path / "a.png").settings(frames=FRAMES, fps=Fraction(8))
        made.append(make(sd, start))
        assert (made[-1].frames[0] == colour).all()
    assert fingerprint(made[0].frames[1:]) != fingerprint(made[1].frames[1:])


def test_a_start_that_does_not_fit_is_refused(sd, clip, tmp_path):
    Image.new("RGB", (128, SIDE)).save(tmp_path / "a.png")
    with pytest.raises(InvalidRequest, match="is 128x64"):
        make(sd, start=str(tmp_path / "a.png"))
    with pytest.raises(InvalidRequest, match="3 frames") as error:
        make(sd, start=str(clip))
    assert "kinetograph edit" in error.value.hint


# --- smoothing --------------------------------------------------------------------------------------------------------


MASKED = {"smooth": 0.9, "smooth_words": "cat", "smooth_cells": 50.0, "smooth_grow": 0, "smooth_until": 1.0}


def test_the_background_is_smoothed_in_every_mode(sd, pix2pix, edges, clip):
    edited = footage.from_source(clip)
    for reference, settings in ((sd, {}), (sd, edges), (sd, edited), (pix2pix, edited)):
        assert differ(make(reference, settings, steps=4, **MASKED), make(reference, settings, steps=4))


def test_masks_come_from_where_they_are_said_to(sd):
    made = [make(sd, steps=4, smooth_masks=masks, **MASKED) for masks in ("attention", "flow", "both", "auto")]
    assert len({fingerprint(video.frames) for video in made[:2]}) == 2
    assert not differ(made[2], made[3])


@pytest.mark.parametrize("fast", [{"reuse": 2}, {"merging": 0.5}, {"chunk": 1}])
def test_modes_go_with_what_makes_them_faster(sd, edges, fast):
    said = {"smooth_masks": "attention", "sampler": "heun"}
    assert differ(make(sd, edges, steps=4, **MASKED, **said, **fast), make(sd, edges, steps=4, **fast))


def test_a_mask_clip_says_what_is_foreground(sd, clip, tmp_path):
    mask = np.zeros((FRAMES, SIDE, SIDE, 3), np.uint8)
    mask[:, 16:48, 16:48] = 255
    path = Video(mask, Fraction(8)).save(tmp_path / "mask.npz")
    still = {"dynamics": False, "smooth_until": 1.0, "smooth_grow": 0}
    frames = make(sd, smooth=1.0, smooth_mask=str(path), **still).frames.astype(int)
    assert np.abs(frames - frames[:1])[:, :8].mean() < np.abs(frames - frames[:1])[1:, 24:40, 24:40].mean()
    Video(0 * mask, Fraction(8)).save(path, overwrite=True)
    with pytest.raises(InvalidRequest, match="no foreground"):
        make(sd, smooth=1.0, smooth_mask=str(path))
    with pytest.raises(InvalidRequest, match="names no clip"):
        make(sd, smooth=1.0, smooth_masks="clip")


def test_words_that_the_sentence_does_not_say_are_refused(sd):
    with pytest.raises(InvalidRequest, match="'dog'") as error:
        make(sd, smooth=0.5, smooth_masks="attention", smooth_words="dog")
    assert "a cat" in error.value.hint


def test_a_transformer_smooths_by_flow(picture_model):
    reference = f"zero:{picture_model('pixart')}"
    assert differ(make(reference, smooth=0.9, smooth_until=1.0, smooth_cells=50.0), make(reference))
    with pytest.raises(InvalidRequest, match="known words"):
        make(reference, smooth=0.9, smooth_masks="attention")
