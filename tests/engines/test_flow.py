"""The flow engine: loading, refusing, going on from frames, windows, progress."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from kinetograph import weights
from kinetograph.engine import describe, generate, reproduce, warm
from kinetograph.engines import flow
from kinetograph.errors import Cancelled, CannotRead, InvalidRequest, WeightsError
from kinetograph.neural import flow as sampled
from kinetograph.neural.device import noise
from kinetograph.neural.training import recipes
from kinetograph.video import fingerprint


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flow")
    recipes.get("flow-tiny").train(folder / "run", device="cpu", steps=2)
    yield f"flow:{folder / 'run'}"
    warm.clear()


@pytest.fixture(scope="module", params=["flow-tiny", "layered-tiny"])
def either(request, tmp_path_factory):
    """A model of pixels, and one of layers."""
    folder = tmp_path_factory.mktemp(request.param)
    recipes.get(request.param).train(folder / "run", device="cpu", steps=2)
    yield f"flow:{folder / 'run'}"
    warm.clear()


def make(reference, on_progress=lambda progress: None, prompt="a red ball", options=None, **more):
    request = describe(reference).request(prompt, seed=5, options={"steps": 2} | (options or {}), **more)
    return generate(reference, request, on_progress, device="cpu")


def test_a_checkpoint_says_what_it_can_make(reference):
    info = describe(reference)
    assert (info.width, info.height, info.frames) == (16, 16, 4)
    assert info.weights == weights.sha256(weights.locate(reference.partition(":")[2]) / weights.MODEL)


def test_a_checkpoint_of_another_kind_is_refused():
    with pytest.raises(WeightsError) as error:
        describe("flow:gan")
    assert "video_gan" in error.value.hint


def test_without_weights_it_says_how_to_get_some(monkeypatch):
    monkeypatch.setattr(weights, "bundled", lambda: ["gan"])
    with pytest.raises(WeightsError) as error:
        describe("flow")
    assert "kinetograph train layered" in error.value.hint


@pytest.mark.parametrize("frames", [1, 3, 4, 8, 11])
def test_any_number_of_frames_is_made(reference, frames):
    assert len(make(reference, frames=frames).frames) == frames


def test_other_sizes_are_made_and_odd_ones_refused(reference):
    assert make(reference, width=32, height=16).frames.shape[1:] == (16, 32, 3)
    with pytest.raises(InvalidRequest) as error:
        make(reference, width=24)
    assert "nearest: 32x16" in error.value.hint or "nearest: 16x16" in error.value.hint


def test_progress_counts_every_step_and_shows_a_frame(reference):
    told = []
    make(reference, told.append, options={"steps": 3}, frames=11)
    assert [p.step for p in told] == list(range(1, told[-1].steps + 1))
    assert all(p.preview.shape == (16, 16, 3) for p in told)


def test_giving_up_ends_at_the_next_step(either):
    told = []

    def give_up(progress):
        told.append(progress)
        raise Cancelled

    with pytest.raises(Cancelled):
        make(either, give_up, options={"steps": 50})
    assert len(told) == 1


def test_a_seed_is_a_clip_and_every_option_that_should_matter_does(reference):
    first = fingerprint(make(reference).frames)
    assert first == fingerprint(make(reference).frames)
    changes = ({"steps": 3}, {"guidance": 1.0}, {"negative_prompt": "blue"}, {"sampler": "ddpm"}, {"shift": 1.0})
    changes += ({"guided_above": 0.95},)
    others = {fingerprint(make(reference, options={"steps": 2} | change).frames) for change in changes}
    assert first not in others
    assert len(others) == len(changes)


def test_bfloat16_draws_nearly_the_same(reference):
    exact, rounded = (make(reference, options={"precision": kind}) for kind in ("float32", "bfloat16"))
    apart = np.abs(exact.frames.astype(int) - rounded.frames)
    assert 0 < apart.mean() < 2


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 0},
        {"steps": 10_000},
        {"guidance": -1},
        {"sampler": "magic"},
        {"shift": 0},
        {"rescale": 2},
        {"guided_above": 1},
        {"context": 16},
        {"negative_prompt": 2001 * "a"},
        {"size": 3},
    ],
)
def test_options_out_of_range_are_refused_by_name(either, options):
    with pytest.raises(InvalidRequest, match=next(iter(options))):
        make(either, options=options)


def test_guidance_below_one_leans_the_other_way(either):
    less, none = (make(either, options={"guidance": w, "guided_above": 0.0}).frames for w in (0.5, 1.0))
    assert not np.array_equal(less, none)


def test_a_negative_prompt_that_is_not_heard_is_told(either, tmp_path):
    """Without guidance a model of layers still decides otherwise what the sentence leaves open, where it draws."""
    info = describe(either)
    Image.new("RGB", (info.width, info.height)).save(tmp_path / "first.png")

    def told(**options):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            make(either, options={"negative_prompt": "blue", **options}, frames=4)
        return any("leads away from nothing" in str(warning.message) for warning in said)

    assert not told()
    assert told(guidance=1) != ("of layers" in info.summary)
    assert told(guidance=1, start=str(tmp_path / "first.png"))


def test_unknown_words_are_named_in_a_warning(reference):
    with pytest.warns(UserWarning, match="'quokka'"):
        make(reference, prompt="a red quokka")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(reference)


def test_a_picture_comes_first_and_the_clip_goes_on_from_it(reference, tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.bmp")
    video = make(reference, options={"start": str(tmp_path / "a.bmp")})
    assert (video.frames[0] == picture).all()
    assert len(video.frames) == 4
    assert fingerprint(video.frames[1:]) != fingerprint(make(reference).frames[1:])


def test_a_clip_is_continued_and_the_file_says_how(reference, tmp_path):
    first = make(reference)
    first.save(tmp_path / "a.npz")
    start = {"start": str(tmp_path / "a.npz"), "start_sha256": fingerprint(first.frames), "context": 2}
    longer = make(reference, options=start, frames=9)
    assert (longer.frames[:4] == first.frames).all()
    longer.save(tmp_path / "b.npz")
    assert reproduce(tmp_path / "b.npz", device="cpu").same


def test_a_start_that_does_not_fit_is_refused(reference, tmp_path):
    start = {"start": str(tmp_path / "a.npz")}
    with pytest.raises(CannotRead):
        make(reference, options=start)
    first = make(reference)
    first.save(tmp_path / "a.npz")
    with pytest.raises(InvalidRequest, match="16x16"):
        make(reference, options=start, width=32)
    with pytest.raises(InvalidRequest) as error:
        make(reference, options=start, frames=4)
    assert "5 or more" in error.value.hint
    with pytest.raises(InvalidRequest, match="does not show"):
        make(reference, options=start | {"start_sha256": "0" * 64}, frames=6)


@pytest.mark.parametrize(
    ("done", "frames", "windows"),
    [
        (0, 16, [(0, 16)]),
        (0, 32, [(0, 32)]),
        (0, 33, [(0, 16), (4, 16), (4, 9)]),
        (1, 16, [(1, 16)]),
        (16, 20, [(4, 8)]),
        (16, 28, [(4, 16)]),
        (2, 17, [(2, 16), (4, 5)]),
    ],
)
def test_windows_fill_a_clip_exactly(done, frames, windows):
    assert list(flow._windows(done, frames, 16, 4, 2)) == windows
    for known, made in windows:
        done += made - known
    assert done == frames


def test_a_model_that_sees_one_window_at_a_time_makes_no_longer_one():
    assert list(flow._windows(0, 32, 16, 4, 1)) == [(0, 16), (4, 16), (4, 8)]


def test_a_context_longer_than_a_window_still_comes_to_an_end():
    assert sum(made - known for known, made in flow._windows(7, 14, 4, 15, 2)) == 7


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_seed_means_the_same_clip_alone_in_a_batch_and_with_any_number_of_threads(reference, guidance, threads):
    """Not bit by bit: matrix products of other sizes round otherwise. Within a hundredth of a level of 255."""
    info = describe(reference)
    engine, side = warm.get(reference, "cpu", info.weights), (info.height, info.width)
    seen = engine._rounded("float32")
    prompts = ["a red ball", "a small green disc rising", "a dot", "a large blue circle moving left"]
    ids = seen.ids([*prompts, ""])
    noises = torch.stack([noise(seed, 0, shape=(3, 4, *side)) for seed in (5, 6, 7, 8)])
    settings = sampled.Settings(steps=8, guidance=guidance)
    clips = []
    for count, places in ((1, [2]), (1, range(4)), (2, [2]), (2, range(4))):
        threads(count)
        with torch.inference_mode():
            rows = sampled.sample(seen.model, ids[[*places]], ids[-1:], noises[[*places]], settings)
        clips.append(rows[[*places].index(2)])
    for other in clips[1:]:
        torch.testing.assert_close(other, clips[0], atol=0.01 / 127.5, rtol=0)
