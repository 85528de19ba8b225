"""Flow matching: what a step teaches, known frames, levels, and sampling with a trained model."""

import dataclasses
import os
import signal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from kinetograph import weights
from kinetograph.errors import Interrupted, WeightsError
from kinetograph.neural import flow, sampling
from kinetograph.neural.training import clips, recipes, run
from kinetograph.neural.training import flow as training
from kinetograph.shelf import WORLDS

TINY = recipes.get("flow-tiny")
CPU = torch.device("cpu")
SHOWN = {"circle": WORLDS["circle"]}


def trainer(**changes):
    return training.Trainer(dataclasses.replace(TINY, **changes), CPU, run.Processes())


def test_every_parameter_learns():
    learner = trainer()
    before = {name: p.detach().clone() for name, p in learner.model.named_parameters()}
    for step in range(1, 5):
        figures = learner.step(step)
    assert set(figures) == {"loss", "error", "naming"}
    still = [name for name, p in learner.model.named_parameters() if torch.equal(p, before[name])]
    assert still == []


def test_a_batch_that_comes_again_and_again_is_learnt():
    noisy = {
        "signal": (-3.0, 0.3),
        "wordless": 0.0,
        "known": 0.0,
    }  # where a linear filter, which it is first, knows little
    learner = trainer(rate=6e-3, steps=1000, sizes=(clips.Size(1.0, 2, 16, 16),), batch=8, **noisy)
    errors = [learner.step(1)["error"] for _ in range(100)]
    assert errors[-1] < 0.3 * errors[0]


def test_levels_lie_far_toward_noise_and_some_clips_have_known_first_frames():
    rng = np.random.default_rng(0)
    levels = np.stack([clips.level(rng, 8, TINY.signal, 0.3) for _ in range(2000)])
    assert 0.85 < np.median(levels[:, -1]) < 0.91  # 1 - sigmoid(-2) is 0.88
    assert 0.4 < (levels[:, -1] > 0.9).mean() < 0.52
    known = (levels == 0).sum(1)
    assert (levels[:, -1] > 0).all()
    assert known.max() == 4
    assert 0.25 < (known > 0).mean() < 0.35
    assert all((row[:k] == 0).all() and np.ptp(row[k:]) == 0 for row, k in zip(levels, known, strict=True))


def test_a_batch_is_a_function_of_seed_and_step_however_many_share_it():
    whole, *halves = (clips.draw(TINY, SHOWN, 3, places, CPU) for places in (range(4), range(2), range(2, 4)))
    torch.testing.assert_close(whole.clips, torch.cat([half.clips for half in halves]))
    torch.testing.assert_close(whole.level, torch.cat([half.level for half in halves]))
    one, *parts = (clips.noise_for(TINY, 3, places, (2, 3), CPU) for places in (range(4), range(2), range(2, 4)))
    assert torch.equal(one, torch.cat(parts))
    assert whole.captions == [caption for half in halves for caption in half.captions]


def test_some_sentences_are_withheld():
    captions = clips.draw(dataclasses.replace(TINY, wordless=0.25), SHOWN, 1, range(200), CPU).captions
    assert 0.15 < captions.count("") / 200 < 0.35


def test_the_text_encoder_learns_to_name_what_sentences_say():
    learner = trainer(sentences=64, naming=1.0, rate=3e-3, steps=1000)
    naming = [learner.step(step)["naming"] for step in range(1, 61)]
    assert np.mean(naming[-5:]) < 0.8 * np.mean(naming[:5])


def test_resuming_takes_the_very_steps_that_would_have_come(tmp_path):
    def stop(step):
        if step.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    TINY.train(tmp_path / "whole", device="cpu")
    with pytest.raises(Interrupted, match="stopped after step 4"):
        TINY.train(tmp_path / "halves", device="cpu", on_step=stop)
    TINY.train(tmp_path / "halves", device="cpu", resume=True)
    one, two = (load_file(tmp_path / name / weights.MODEL) for name in ("whole", "halves"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_computing_in_bfloat16_takes_nearly_the_same_steps(monkeypatch):
    monkeypatch.setattr(run, "has_bfloat16", lambda device: True)
    exact, rounded = trainer(), trainer(bfloat16=True)
    one, two = exact.step(1), rounded.step(1)
    assert all(p.dtype == torch.float32 for p in rounded.model.parameters())
    assert two["loss"] == pytest.approx(one["loss"], rel=0.02)
    assert two["loss"] != one["loss"]


def test_a_run_may_begin_with_the_weights_of_another(tmp_path):
    TINY.train(tmp_path / "first", device="cpu")
    second = dataclasses.replace(TINY, start=str(tmp_path / "first"), steps=2, bfloat16=True)
    learner = training.Trainer(second, CPU, run.Processes())
    kept = load_file(tmp_path / "first" / weights.MODEL)
    for model in (learner.model, learner.average.model):
        assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
    second.train(tmp_path / "second", device="cpu")
    told = weights.configuration(tmp_path / "second")["before"]
    assert told["weights"] == weights.sha256(tmp_path / "first" / weights.MODEL)
    assert (told["steps"], told["batch"]) == (TINY.steps, TINY.batch)
    third = dataclasses.replace(second, start=str(tmp_path / "second"))
    assert training.Trainer(third, CPU, run.Processes()).before["before"]["before"] == told
    assert {value.dtype for value in load_file(tmp_path / "second" / weights.MODEL).values()} == {torch.float16}


def test_weights_that_know_other_words_are_no_beginning(tmp_path):
    TINY.train(tmp_path / "first", device="cpu", steps=1)
    with pytest.raises(WeightsError, match="knows other words"):
        trainer(worlds={"shapes": 1.0}, start=str(tmp_path / "first"))


def test_a_batch_without_a_sentence_of_some_world_teaches_the_others():
    learner = trainer(worlds={"circle": 1.0, "shapes": 1e-9}, sentences=2)
    figures = learner.step(1)
    assert np.isfinite(figures["naming"])
    assert figures["naming"] > 0


class Exact(torch.nn.Module):
    """A model that knows the clip, and remembers what it was asked."""

    def __init__(self, clip):
        super().__init__()
        self.clip, self.asked = clip, []

    def forward(self, x, level, ids):
        self.asked.append((x.clone(), level.clone(), ids))
        return self.clip.expand_as(x)


@pytest.fixture
def exact():
    return Exact(torch.rand(1, 3, 4, 16, 16))


WORDS, NOTHING = torch.tensor([[2, 5]]), torch.tensor([[2, 0]])


def test_sampling_ends_at_the_clean_clip(exact):
    out = flow.sample(exact, WORDS, NOTHING, torch.randn(2, 3, 4, 16, 16), flow.Settings(steps=3))
    torch.testing.assert_close(out, exact.clip.expand_as(out))


def test_guidance_of_one_asks_once_a_step(exact):
    noise = torch.randn(1, 3, 4, 16, 16)
    flow.sample(exact, WORDS, NOTHING, noise, flow.Settings(steps=3, guidance=1.0))
    assert len(exact.asked) == 3
    assert all(torch.equal(ids, WORDS) for _, _, ids in exact.asked)


def test_below_a_level_of_noise_the_sentence_does_not_guide(exact):
    noise = torch.randn(1, 3, 4, 16, 16)
    flow.sample(exact, WORDS, NOTHING, noise, flow.Settings(steps=4, shift=1.0, guided_above=0.5))
    assert [level.max().item() for _, level, _ in exact.asked] == pytest.approx([1.0, 1.0, 0.75, 0.75, 0.5, 0.25])
    assert [torch.equal(ids, WORDS) for *_, ids in exact.asked] == [True, False, True, False, True, True]


def test_known_frames_are_shown_clean_and_kept(exact):
    known = torch.rand(1, 3, 2, 16, 16)
    noise = torch.randn(1, 3, 4, 16, 16)
    out = flow.sample(exact, WORDS, NOTHING, noise, flow.Settings(steps=3), known=known)
    torch.testing.assert_close(out[:, :, :2], known)
    torch.testing.assert_close(out[:, :, 2:], exact.clip[:, :, 2:])
    for x, level, _ in exact.asked:
        torch.testing.assert_close(x[:, :, :2], known)
        assert (level[:, :2] == 0).all()
        assert (level[:, 2:] > 0).all()


def test_the_sampler_starts_at_pure_noise(exact):
    noise = torch.randn(1, 3, 4, 16, 16)
    flow.sample(exact, WORDS, NOTHING, noise, flow.Settings(steps=4))
    x, level, _ = exact.asked[0]
    torch.testing.assert_close(x, noise)
    assert (level == 1).all()


def test_every_sampler_serves(exact):
    noise = torch.randn(1, 3, 4, 16, 16)
    for name in sampling.SAMPLERS:
        settings = flow.Settings(steps=3, sampler=name)
        out = flow.sample(exact, WORDS, NOTHING, noise, settings, noise_source=lambda step: torch.randn_like(noise))
        torch.testing.assert_close(out, exact.clip)
