"""Every family of pretrained models, behind the same request: frames, progress, cancel, seed, reproduction."""

import cases
import pytest

from kinetograph.engine import describe, generate, reproduce
from kinetograph.errors import Cancelled, InvalidRequest
from kinetograph.video import fingerprint

EVERY = [pytest.param(case, id=case.name, marks=[] if case.quick else [pytest.mark.slow]) for case in cases.CASES]


@pytest.fixture
def make(home):
    def make(case, on_progress=lambda progress: None, seed=3, **options):
        reference = f"pretrained:{cases.folder(case, home)}"
        request = cases.asked(case, reference, home, **options)
        info = describe(reference)
        request = info.request(
            request.prompt, seed=seed, width=case.side, height=case.side, frames=case.frames, options=request.options
        )
        return generate(reference, request, on_progress, device="cpu")

    return make


@pytest.mark.filterwarnings("ignore:the card of")
@pytest.mark.parametrize("case", EVERY)
def test_a_family_makes_what_was_asked_for_tells_of_every_step_and_makes_it_again(make, case):
    told = []
    video = make(case, told.append)
    assert video.frames.shape == (case.frames, case.side, case.side, 3)
    steps = [progress.step for progress in told]
    assert steps == list(range(1, told[-1].steps + 1))
    assert len(steps) >= 1
    made = video.provenance
    assert made.trained
    assert len(made.weights) == 64
    assert {"torch", "diffusers", "transformers"} <= set(made.versions)
    assert reproduce(video, device="cpu").same


@pytest.mark.filterwarnings("ignore:the card of")
@pytest.mark.parametrize("case", EVERY)
def test_a_family_can_be_given_up_within_its_first_step(make, case):
    told = []

    def give_up(progress):
        told.append(progress)
        raise Cancelled

    with pytest.raises(Cancelled):
        make(case, give_up)
    assert [progress.step for progress in told] == [1]


@pytest.mark.filterwarnings("ignore:the card of")
@pytest.mark.parametrize("case", EVERY)
def test_another_seed_is_another_clip(make, case):
    assert fingerprint(make(case).frames) != fingerprint(make(case, seed=4).frames)


@pytest.mark.parametrize("case", EVERY)
def test_what_a_family_cannot_make_is_refused_with_the_nearest_that_it_can(home, case):
    reference = f"pretrained:{cases.folder(case, home)}"
    info = describe(reference)
    if info.frame_step > 1:
        with pytest.raises(InvalidRequest, match="frames") as error:
            info.request("a ball", frames=info.min_frames + 1, width=case.side, height=case.side)
        assert error.value.hint.startswith("nearest: ")
    with pytest.raises(InvalidRequest) as error:
        info.request("a ball", width=case.side + 1, height=case.side, frames=case.frames)
    assert "nearest" in error.value.hint
    assert info.request("a ball").frames >= info.min_frames  # its defaults are legal
