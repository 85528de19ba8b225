"""The seam: requests are settled and checked, results are checked and stamped, videos are made again."""

import threading
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
from pydantic import Field

import kinetograph
from kinetograph import engine
from kinetograph.engine import (
    EngineInfo,
    Options,
    Progress,
    Sizes,
    describe,
    generate,
    reproduce,
    resolve,
    warm,
)
from kinetograph.errors import Cancelled, InvalidRequest, InvalidVideo, NoProvenance, UnknownName
from kinetograph.video import Video, fingerprint


class Settings(Options):
    steps: int = Field(default=4, ge=1, le=50)
    style: str = "plain"


INFO = EngineInfo(
    reference="fake",
    summary="a stand-in",
    licence="Apache-2.0",
    width=16,
    height=16,
    frames=3,
    fps=Fraction(10),
    sizes=Sizes(minimum=8, maximum=64, multiple=8),
    min_frames=2,
    max_frames=9,
    Options=Settings,
    weights="ab" * 32,
)


class Fake:
    """An engine without a network: its frames are noise from the seed, changed by `drift`."""

    def __init__(self, weights, device):
        self.device = "cpu" if device == "auto" else device
        self.weights_digest, self.versions = INFO.weights, {"torch": "2.13"}
        self.drift, self.crop = 0, 0

    def generate(self, request, on_progress):
        shape = (request.frames, request.height, request.width - self.crop, 3)
        frames = np.random.default_rng(request.seed).integers(0, 200, shape, dtype=np.uint8)
        for step in range(1, request.options["steps"] + 1):
            on_progress(Progress(step=step, steps=request.options["steps"], preview=frames[0]))
        frames[1] += self.drift
        return Video(frames, request.fps)


@pytest.fixture
def house(monkeypatch):
    """A house whose only engine is the fake; `loaded` lists what was loaded."""
    loaded = []

    def load(weights, device):
        loaded.append(Fake(weights, device))
        return loaded[-1]

    shelf = {"fake": SimpleNamespace(info=lambda weights: INFO, load=load)}
    monkeypatch.setattr(engine, "ENGINES", shelf)
    warm.clear()
    yield SimpleNamespace(loaded=loaded, shelf=shelf)
    warm.clear()


# --- requests -----------------------------------------------------------------------------------------------


def test_an_engine_that_cannot_go_on_from_frames_says_so():
    with pytest.raises(InvalidRequest, match="cannot go on from frames") as error:
        describe("render").request("a red ball", options={"start": "a.png"})
    assert "flow" in error.value.hint


def test_more_pixels_than_fit_into_memory_are_refused_with_how_many_frames_do():
    request = describe("render").request("a red ball", width=1024, height=1024, frames=1000)
    with pytest.raises(InvalidRequest, match="1000 frames of 1024x1024") as error:
        kinetograph.generate("render", request)
    assert error.value.hint == "nearest: 64"


def test_a_request_is_settled_completely():
    request = INFO.request("a ball")
    assert (request.width, request.height, request.frames, request.fps) == (16, 16, 3, 10)
    assert request.options == {"steps": 4, "style": "plain"}
    assert 0 <= request.seed < 2**32
    assert request.seed != INFO.request("a ball").seed


def test_what_is_said_is_not_settled_otherwise():
    request = INFO.request("a", seed=0, width=8, height=24, frames=2, fps=Fraction(1), options={"steps": "7"})
    assert (request.seed, request.width, request.height, request.frames, request.fps) == (0, 8, 24, 2, 1)
    assert request.options["steps"] == 7


@pytest.mark.parametrize(
    ("changes", "field", "hint"),
    [
        ({"width": 17}, "width", "nearest: 16x16"),
        ({"height": 4}, "height", "nearest: 16x8"),
        ({"width": 640, "height": 480}, "width", "nearest: 64x64"),
        ({"frames": 1}, "frames", "nearest: 2"),
        ({"frames": 10}, "frames", "nearest: 9"),
        ({"options": {"step": 3}}, "step", "did you mean 'steps'?"),
        ({"options": {"steps": 0}}, "steps", "greater than or equal to 1"),
        ({"options": {"steps": "many"}}, "steps", "valid integer"),
    ],
)
def test_what_an_engine_cannot_do_is_refused_with_the_nearest_it_can(changes, field, hint):
    with pytest.raises(InvalidRequest) as refusal:
        INFO.request("a ball", **changes)
    assert refusal.value.field == field
    assert hint in refusal.value.hint


@pytest.mark.parametrize(
    "rule", [Sizes(minimum=8, maximum=64), Sizes(minimum=10, maximum=70, multiple=16, square=True)]
)
def test_the_nearest_size_is_legal_and_a_legal_size_is_its_own_nearest(rule):
    for size in [(1, 1), (10, 64), (17, 40), (64, 64), (500, 3)]:
        near = rule.nearest(*size)
        assert rule.nearest(*near) == near
        assert all(rule.minimum <= side <= rule.maximum and side % rule.multiple == 0 for side in near)
        assert not rule.square or near[0] == near[1]


# --- making -------------------------------------------------------------------------------------------------


def test_a_video_says_how_it_was_made(house):
    request = INFO.request("a ball", seed=7)
    video = generate("fake", request)
    made = video.provenance
    assert (made.engine, made.request, made.device, made.weights) == ("fake", request, "cpu", INFO.weights)
    assert made.frames_sha256 == fingerprint(video.frames)
    assert len(made.frame_hashes) == 3
    assert {"kinetograph", "python", "numpy", "platform", "torch"} == set(made.versions)
    assert made.versions["kinetograph"] == kinetograph.__version__
    assert made.created.endswith("+00:00")
    assert made.seconds >= 0
    assert made.trained


def test_the_options_that_a_request_left_open_are_in_the_provenance(house):
    request = replace(INFO.request("a ball", seed=7), options={})
    assert generate("fake", request).provenance.request.options == {"steps": 4, "style": "plain"}


def test_progress_is_told_step_by_step(house):
    told = []
    generate("fake", INFO.request("a ball"), told.append)
    assert [(p.step, p.steps) for p in told] == [(i, 4) for i in (1, 2, 3, 4)]


def test_giving_a_video_up_stops_it(house):
    told = []

    def give_up(progress):
        told.append(progress.step)
        if progress.step == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        generate("fake", INFO.request("a ball"), give_up)
    assert told == [1, 2]


def test_an_engine_that_makes_something_else_is_caught(house):
    request = INFO.request("a ball")
    generate("fake", request)
    house.loaded[0].crop = 1
    with pytest.raises(InvalidVideo, match="fake made"):
        generate("fake", request)


def test_an_illegal_request_is_refused_before_anything_is_loaded(house):
    with pytest.raises(InvalidRequest):
        generate("fake", replace(INFO.request("a ball"), width=9))
    assert not house.loaded


def test_the_engine_stays_loaded_until_something_else_is_wanted(house):
    request = INFO.request("a ball")
    for device in ("auto", "auto", "cuda", "cuda", "auto"):
        generate("fake", request, device=device)
    assert len(house.loaded) == 3
    warm.clear()
    generate("fake", request)
    assert len(house.loaded) == 4


def test_new_weights_under_the_old_name_are_loaded(house):
    request = INFO.request("a ball")
    generate("fake", request)
    house.shelf["fake"].info = lambda weights: replace(INFO, weights="cd" * 32)
    generate("fake", request)
    assert len(house.loaded) == 2


def test_two_threads_load_one_engine(house):
    request = INFO.request("a ball")
    threads = [threading.Thread(target=generate, args=("fake", request)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(house.loaded) == 1


@pytest.mark.parametrize("reference", ["rendr", "", ":circle", "render:circel"])
def test_a_reference_that_names_nothing_is_refused(reference):
    with pytest.raises(UnknownName) as refusal:
        describe(reference)
    assert refusal.value.hint


def test_a_reference_is_a_name_and_its_weights():
    assert resolve("render:a/b:c")[1] == "a/b:c"
    assert resolve("render")[1] == ""


# --- making again -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".npz", ".mp4", ".gif"])
def test_a_saved_video_can_be_made_again_bit_by_bit(house, tmp_path, suffix):
    path = generate("fake", INFO.request("a ball", seed=7)).save(tmp_path / f"a{suffix}")
    again = reproduce(path)
    assert again.same
    assert again.differences == ()


def test_what_differs_is_named(house, tmp_path):
    video = generate("fake", INFO.request("a ball", seed=7))
    house.loaded[0].drift = 5
    house.loaded[0].device = "cuda:0"
    house.loaded[0].weights_digest = "cd" * 32
    house.loaded[0].versions = {"torch": "2.14"}
    again = reproduce(video.save(tmp_path / "a.npz"))
    assert not again.same
    assert again.differences == (
        "weights: abababababababab then, cdcdcdcdcdcdcdcd now",
        "device: cpu then, cuda:0 now",
        "torch: 2.13 then, 2.14 now",
        "frames: 1 of 3 differ, the first is frame 1",
        "pixels: at most 5 of 255 apart",
    )
    lossy = reproduce(video.save(tmp_path / "a.mp4")).differences
    assert lossy == again.differences[:-1]


def test_a_file_whose_frames_were_changed_is_found_out(house, tmp_path):
    video = generate("fake", INFO.request("a ball", seed=7))
    forged = Video(255 - video.frames, video.fps, video.provenance)
    again = reproduce(forged.save(tmp_path / "a.npz"))
    assert not again.same
    assert again.differences == ("file: the frames in it are not those that its provenance speaks of",)
    assert reproduce(forged.save(tmp_path / "a.mp4")).distance > 20


def test_an_honest_file_is_near_what_it_speaks_of(tmp_path):
    video = generate("render", describe("render").request("a red ball moving left", seed=7))
    assert reproduce(video.save(tmp_path / "a.npz")).distance == 0
    assert reproduce(video.save(tmp_path / "a.mp4")).distance < 3


def test_a_video_that_does_not_say_how_it_was_made_cannot_be_made_again(house, tmp_path):
    video = generate("fake", INFO.request("a ball"))
    for mute in (Video(video.frames, video.fps), video.save(tmp_path / "a.gif", provenance=False)):
        with pytest.raises(NoProvenance):
            reproduce(mute)


# --- the package's front door -------------------------------------------------------------------------------


def test_the_public_names_are_there():
    assert {name: getattr(kinetograph, name) for name in kinetograph.__all__}
    assert set(kinetograph.__all__) == set(dir(kinetograph))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = kinetograph.nonsense


def test_the_example_on_the_front_door_runs(tmp_path):
    info = kinetograph.describe("render")
    video = kinetograph.generate("render", info.request("a red ball moving left", seed=7))
    assert video.save(tmp_path / "ball.mp4").is_file()


def test_what_could_name_a_file_is_closed_to_strangers_unless_it_is_said_to_be_words():
    class Mixed(Options):
        steps: int = 1
        strength: float | None = None
        sharp: bool = False
        sampler: Literal["a", "b"] = "a"
        sizes: tuple[int, ...] = ()
        negative_prompt: str = ""
        tags: tuple[engine.Words, ...] = ()
        style: engine.Words = Field("", max_length=5)
        start: str = ""
        lora: tuple[str, ...] = ()
        maybe: str | None = None
        path: Path = Path()
        anything: Any = None
        table: dict[str, str] | None = None

    assert engine.closed(Mixed) == {"start", "lora", "maybe", "path", "anything", "table"}


@pytest.mark.parametrize(
    ("pipeline", "kind"),
    [
        ("WanPipeline", ""),
        ("WanImageToVideoPipeline", "first-picture"),
        ("StableVideoDiffusionPipeline", "first-picture"),
        ("LTXConditionPipeline", "first-frames"),
        ("SkyReelsV2DiffusionForcingVideoToVideoPipeline", "first-frames"),
        ("WanVideoToVideoPipeline", "changed-clip"),
        ("WanVACEPipeline", "changed-clip"),
    ],
)
def test_what_a_pretrained_pipeline_does_with_frames_is_said_by_its_option(pipeline, kind):
    from kinetograph.engines import pretrained

    own = pretrained._own(pretrained.knobs.read(pipeline), pretrained.families.of(pipeline))
    start = own.model_fields.get("start")
    assert (start.json_schema_extra["format"] if start else "") == kind


def test_a_start_that_says_nothing_of_itself_is_gone_on_from(patience):
    info = describe("patience")
    assert (info.begins, info.continues, info.edits) == ("start", "start", "")
