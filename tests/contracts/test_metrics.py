"""What every metric on the shelf keeps to, whoever wrote it."""

import math
import sys
from types import ModuleType

import numpy as np
import pytest

from kinetograph.errors import InvalidVideo
from kinetograph.metrics import Score
from kinetograph.shelf import METRICS, WORLDS

WORLD = WORLDS["circle"]
GROUPS, SEEDS = 8, 4


def clips(stream, prompts):
    sources = [np.random.default_rng([stream, place]) for place in range(len(prompts))]
    scenes = [WORLD.sample(rng, WORLD.parse(prompt)) for rng, prompt in zip(sources, prompts, strict=True)]
    return [*WORLD.draw(scenes, 10, 32, 32)]


def several_prompts():
    sources = [np.random.default_rng([0, group]) for group in range(GROUPS)]
    prompts = [WORLD.caption(WORLD.sample(rng), rng, {}) for rng in sources]
    return [prompt for prompt in prompts for _ in range(SEEDS)]


PROMPTS = several_prompts()
CLEAN, REFERENCES = clips(1, PROMPTS), clips(2, PROMPTS)


def blurred(videos):
    return [np.repeat(np.repeat(v[:, 4::8, 4::8], 8, axis=1), 8, axis=2) for v in videos]


def noisy(videos):
    noise = np.random.default_rng(3).normal(0, 40, videos[0].shape)
    return [np.clip(v + noise, 0, 255).astype(np.uint8) for v in videos]


def flashing(videos):
    return [np.where(np.arange(len(v))[:, None, None, None] % 2, v // 3, v) for v in videos]


def frozen(videos):
    return [np.repeat(v[:1], len(v), axis=0) for v in videos]


def copied(videos):
    return [videos[place // SEEDS * SEEDS] for place in range(len(videos))]


def exchanged(videos):
    return [*videos[SEEDS:], *videos[:SEEDS]]


DEGRADATIONS = (blurred, noisy, flashing, frozen, copied, exchanged)


@pytest.fixture(autouse=True)
def features_without_a_network(monkeypatch):
    """Where a metric asks the reader network, it gets eight simple sums: the law is the metric's, not the network's."""
    fake = ModuleType("kinetograph.neural.features")
    mix = np.random.default_rng(4).normal(size=(4 * 4 * 3 * 2, 8)) / 255

    def of(videos):
        change = [np.abs(np.diff(v.astype(float), axis=0, append=v[-1:])) for v in videos]
        both = np.concatenate([np.stack(videos).astype(float), np.stack(change)], axis=-1).mean(axis=1)
        return both.reshape(len(videos), 4, 8, 4, 8, 6).mean(axis=(2, 4)).reshape(len(videos), -1) @ mix

    fake.of = of
    monkeypatch.setitem(sys.modules, fake.__name__, fake)


@pytest.fixture(params=METRICS.names())
def metric(request):
    return METRICS[request.param]


def scored(metric, videos):
    return metric.score(videos, PROMPTS, REFERENCES, WORLD)


def everything_in(score):
    return [score, *(inner for part in score.parts.values() for inner in everything_in(part))]


def test_a_metric_says_what_it_measures_in_what_unit_and_which_way_is_better(metric):
    assert metric.__doc__.strip()
    assert metric.UNIT.strip()
    assert metric.BETTER in ("higher", "lower")


@pytest.mark.parametrize("change", [list, *DEGRADATIONS], ids=lambda change: change.__name__)
def test_a_score_is_finite_lies_in_its_interval_and_is_the_same_again(metric, change):
    videos = change(CLEAN)
    score = scored(metric, videos)
    for part in everything_in(score):
        assert all(math.isfinite(x) for x in (part.value, part.low, part.high, *part.per_video))
        assert part.low <= part.value <= part.high
        assert 0 < part.count <= len(videos)
        assert len(part.per_video) in (0, part.count)
    assert score.count == len(videos)
    assert scored(metric, videos) == score
    assert Score.from_dict(score.to_dict()) == score


def test_degraded_clips_never_beat_clean_ones_and_some_are_worse_beyond_doubt(metric):
    def badness(score):  # from best to worst end of the interval, growing
        return (score.low, score.high) if metric.BETTER == "lower" else (-score.high, -score.low)

    clean = badness(scored(metric, CLEAN))
    degraded = [badness(scored(metric, change(CLEAN))) for change in DEGRADATIONS]
    hair = 0.01 * (max(worst for _, worst in degraded) - clean[0])  # a frozen clip flickers less than any that moves
    assert all(worst >= clean[0] - hair for _, worst in degraded)
    assert any(best > clean[1] for best, _ in degraded)


def test_the_clips_are_not_changed_by_looking_at_them(metric):
    before = [video.copy() for video in CLEAN]
    scored(metric, CLEAN)
    assert all(np.array_equal(a, b) for a, b in zip(before, CLEAN, strict=True))


def test_what_cannot_be_scored_is_refused(metric):
    with pytest.raises(InvalidVideo, match="too few"):
        metric.score([], [], [], WORLD)
    with pytest.raises(InvalidVideo, match="belong together"):
        metric.score(CLEAN, PROMPTS[1:], REFERENCES, WORLD)
    with pytest.raises(InvalidVideo, match="no clip"):
        metric.score([v[:1] for v in CLEAN], PROMPTS, REFERENCES, WORLD)
    with pytest.raises(InvalidVideo, match="together"):
        metric.score([v[:, :16] for v in CLEAN], PROMPTS, REFERENCES, WORLD)
