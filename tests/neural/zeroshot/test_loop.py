"""The loop: what is asked for and how often, whose history is whose, and what does not change the result."""

import pytest
import torch

from kinetograph.errors import Cancelled, InvalidRequest
from kinetograph.neural import sampling
from kinetograph.neural.pictures.words import Words
from kinetograph.neural.sampling import Table, scaled_linear_betas
from kinetograph.neural.zeroshot import noise as noises
from kinetograph.neural.zeroshot.loop import Turn, animate, chunks, evaluations, frames_denoiser, guided
from kinetograph.neural.zeroshot.motion import Codec, Motion, steady
from kinetograph.neural.zeroshot.noise import Noise

SHAPE = (2, 8, 8)
TABLE = Table.of(scaled_linear_betas())
SAMPLERS = list(sampling.SAMPLERS)
MOVING = Motion(steady(x=0.3, y=0.2))
SCHEDULES = {
    "trained": TABLE.levels(12),
    "leading": TABLE.levels(50, "leading", 1),
    "flow": sampling.schedule("flow", 12, shift=3.0),
    "karras": sampling.schedule("karras", 12, sigma_max=14.0),
    "two steps": TABLE.levels(2),
    "far below": TABLE.levels(2, "leading"),
    "flow in two steps": sampling.schedule("flow", 2),
}


def moments(frames, fps=4):
    return [frame / fps for frame in range(frames)]


class Counted:
    """A denoiser in which frames look at the first, and which says how often it was asked for a frame."""

    def __init__(self):
        self.frames, self.asked = 0, []

    def __call__(self, x, level):
        self.frames += x.shape[2]
        self.asked.append((x.shape[2], level))
        own = torch.tanh(x * (1 + level.sigma)) / (1 + level.ratio) if level.alpha else torch.tanh(x) / 20
        return own + 0.3 * torch.tanh(x[:, :, :1].roll(1, -1)) / (1 + level.sigma)


def make(denoise, frames, levels=SCHEDULES["trained"], sampler="ddim", seeds=(3,), motion=MOVING, **more):
    its = [Noise(seed, SHAPE) for seed in seeds]
    first = sampling.begin(noises.first(its, range(1)), levels[0])
    return animate(denoise, first, levels, sampler, motion=motion, moments=moments(frames), noise=its, **more)


@pytest.mark.parametrize("levels", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_first_frame_is_the_single_picture_of_its_seed(sampler, levels):
    alone = make(Counted(), 1, levels, sampler)
    plain = sampling.sample(
        Counted(), sampling.begin(Noise(3, SHAPE).first()[None, :, None], levels[0]), levels, sampler,
        noise_source=lambda index: Noise(3, SHAPE).swapped(0, index)[None, :, None],
    )  # fmt: skip
    assert torch.equal(alone, plain)
    assert torch.equal(make(Counted(), 5, levels, sampler)[:, :, :1], alone)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_longer_clip_begins_as_the_shorter_one(sampler):
    assert torch.equal(make(Counted(), 6, sampler=sampler)[:, :, :4], make(Counted(), 4, sampler=sampler))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_two_clips_in_one_call_are_each_what_it_is_alone(sampler):
    both = make(Counted(), 3, sampler=sampler, seeds=(3, 4))
    assert torch.equal(both[:1], make(Counted(), 3, sampler=sampler, seeds=(3,)))
    assert torch.equal(both[1:], make(Counted(), 3, sampler=sampler, seeds=(4,)))


def test_the_papers_setting_costs_389_frames_not_580():
    levels, asked = TABLE.levels(50, "leading", 1), Counted()
    make(asked, 8, levels)
    assert asked.frames == evaluations(levels, 8) == 5 + 48 * 8 == 389
    assert [count for count, _ in asked.asked] == [1] * 5 + [8] * 48


@pytest.mark.parametrize("steps", [2, 3, 10, 24, 50, 100])
@pytest.mark.parametrize("frames", [1, 2, 5])
def test_the_count_of_frames_is_known_beforehand(steps, frames):
    levels, asked = TABLE.levels(steps), Counted()
    assert make(asked, frames, levels).shape == (1, 2, frames, 8, 8)
    assert asked.frames == evaluations(levels, frames)


def test_the_frames_turn_at_the_papers_levels():
    placed = Turn().placed(TABLE.levels(50, "leading", 1))
    assert (placed.back.time, placed.forth.time) == (881, 941)
    assert placed.start == 2
    assert placed.scouted == 5


@pytest.mark.parametrize("levels", SCHEDULES.values(), ids=SCHEDULES)
def test_the_levels_are_the_same_noise_on_every_schedule(levels):
    placed = Turn().placed(levels)
    assert placed.back.ratio == pytest.approx(min(TABLE.at(881).ratio, levels[0].ratio), rel=1e-4)
    assert placed.forth.ratio == pytest.approx(min(TABLE.at(941).ratio, levels[0].ratio), rel=1e-4)
    kind = {round(level.alpha**2 + level.sigma**2, 4) for level in levels} == {1}
    assert (round(placed.back.alpha**2 + placed.back.sigma**2, 4) == 1) == kind


def test_without_motion_and_freedom_all_frames_are_the_first():
    clip = make(Counted(), 4, motion=Motion(), turn=Turn(941, 941))
    torch.testing.assert_close(clip, clip[:, :, :1].expand(-1, -1, 4, -1, -1), atol=1e-4, rtol=1e-4)


def test_a_picture_is_decoded_once_and_encoded_for_each_frame_and_at_the_very_top_there_is_none():
    asked = []

    def noted(what):
        return lambda seen: asked.append(what) or seen

    codec = Codec(noted("decode"), noted("encode"))
    make(Counted(), 4, codec=codec)
    assert asked == ["decode", *["encode"] * 3]
    top = Turn(999, 999)
    assert torch.equal(make(Counted(), 4, turn=top, codec=codec), make(Counted(), 4, turn=top))
    assert len(asked) == 4


def test_steps_are_told_once_each_and_hold_every_frame_from_where_all_go_on():
    told = []
    make(Counted(), 4, SCHEDULES["leading"], on_step=lambda i, n, x, c: told.append((i, n, x.shape[2], c.shape[2])))
    assert told == [(i, 50, *[1 if i < 2 else 4] * 2) for i in range(50)]


def test_what_a_step_raises_ends_the_sampling():
    def give_up(index, count, x, clean):
        raise Cancelled

    asked = Counted()
    with pytest.raises(Cancelled):
        make(asked, 4, on_step=give_up)
    assert len(asked.asked) < 6


# ---- the denoiser of clips


def words(rows, frames=1, seed=0):
    return Words({"told": torch.randn(rows, frames, 3, generator=torch.Generator().manual_seed(seed))})


def single(words, clip):
    return Words({name: tensor[clip : clip + 1] for name, tensor in words.tensors.items()})


def predict(x, level, told, frames):
    """A network whose frames are told apart by their words and their numbers."""
    numbers = torch.tensor(list(frames), dtype=x.dtype).repeat(len(x) // len(frames))
    return torch.tanh(x + told["told"].sum(1)[:, None, None, None] + numbers[:, None, None, None] / 10)


@pytest.mark.parametrize("frames", [1, 5])
def test_chunks_guidance_and_several_clips_agree_with_one_frame_at_a_time(frames):
    x = torch.randn(2, 2, 5, 8, 8, generator=torch.Generator().manual_seed(1))
    positive, negative, level = words(2, frames, 1), words(2, 1, 2), TABLE.at(500)
    for chunk in (1, 2, 5, 9):
        clean = frames_denoiser(predict, "epsilon", guided(positive, negative, 7.5), chunk=chunk)(x, level)
        for clip in range(2):
            for frame in range(5):
                one = x[clip : clip + 1, :, frame]
                right, left = (
                    predict(one, level, w.at(range(frame, frame + 1)), range(frame, frame + 1))
                    for w in (single(positive, clip), single(negative, clip))
                )
                said = left + 7.5 * (right - left)
                expected = (one - level.sigma * said) / level.alpha
                torch.testing.assert_close(clean[clip : clip + 1, :, frame], expected, atol=2e-5, rtol=1e-5)


def test_a_guidance_of_one_asks_nothing_of_the_negative():
    asked = []

    def counted(x, level, told, frames):
        asked.append(len(x))
        return predict(x, level, told, frames)

    denoise = frames_denoiser(counted, "epsilon", guided(words(1), words(1, seed=5), 1.0))
    denoise(torch.zeros(1, 2, 3, 8, 8), TABLE.at(500))
    assert asked == [3]


def test_after_each_chunk_there_is_a_tick():
    ticks = []
    denoise = frames_denoiser(
        predict, "epsilon", guided(words(1), words(1), 2.0), chunk=2, tick=lambda: ticks.append(1)
    )
    denoise(torch.zeros(1, 2, 5, 8, 8), TABLE.at(500))
    assert len(ticks) == 3


def test_no_frames_at_a_time_are_refused():
    with pytest.raises(InvalidRequest, match="chunks of 0"):
        frames_denoiser(predict, "epsilon", guided(words(1), words(1), 2.0), chunk=0)


def test_chunks_hold_every_frame_once():
    assert chunks(5, 2) == [range(2), range(2, 4), range(4, 5)]


def test_sentences_are_blended_and_their_masks_united():
    told = Words({"mask": torch.tensor([[[1, 0]], [[0, 1]]]), "vectors": torch.tensor([[[0.0]], [[4.0]]])})
    blend = told.blended(torch.tensor([[1.0, 0.0], [0.25, 0.75]]))
    assert blend.tensors["vectors"].tolist() == [[[0.0], [3.0]]]
    assert blend.tensors["mask"].tolist() == [[[1, 0], [1, 1]]]
    assert not blend.steady
    assert blend.at(range(1, 2))["vectors"].tolist() == [[3.0]]
