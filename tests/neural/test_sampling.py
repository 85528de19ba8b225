"""Sampling, held against exact denoisers: mixtures of Gaussians, for which everything is known in closed form."""

import math
from functools import cache, partial
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kinetograph.errors import Cancelled, InvalidRequest, UnknownName
from kinetograph.neural import sampling
from kinetograph.neural.sampling import CLEAN, Level, Table, begin, flow_level, guide, keep, noised, sample, schedule

SAMPLERS = list(sampling.SAMPLERS)
SCHEDULES = list(sampling.SCHEDULES)
PREDICTIONS = list(sampling.PREDICTIONS)
DRAWING = ["ddpm"]
CALLS = {"heun": 2, "heun-edm": 2}  # of the denoiser in a step, but the last


# ---- exact denoisers


WEIGHTS = torch.tensor([0.3, 0.7], dtype=torch.float64)
SPREAD = 0.3
APART = math.sqrt((1 - SPREAD**2) / 0.21)
MEANS = torch.tensor([0.7 * APART, -0.3 * APART], dtype=torch.float64)  # of all together: mean 0, variance 1
BETWEEN = 0.6  # above it, the first mode


def mixture(x, level):
    """E[clean | x] of the mixture above: each mode's own answer, weighted by how likely it is to have made x."""
    variance = level.alpha**2 * SPREAD**2 + level.sigma**2
    off = x[..., None] - level.alpha * MEANS
    likely = (WEIGHTS.log() - off**2 / (2 * variance)).softmax(-1)
    return (likely * (MEANS + level.alpha * SPREAD**2 / variance * off)).sum(-1)


def share_below(x):
    """The mixture's distribution function."""
    return (WEIGHTS * 0.5 * (1 + torch.erf((x[..., None] - MEANS) / SPREAD / math.sqrt(2)))).sum(-1)


def even_noise(count):
    """The quantiles of the normal distribution: noise without chance, which exact flow maps to the data's quantiles."""
    shares = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return math.sqrt(2) * torch.erfinv(2 * shares - 1)


def random_noise(index, shape, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(index), dtype=dtype)


def source(shape, dtype=torch.float64):
    return lambda index: random_noise(index + 1, shape, dtype)


def gaussian(x, level, mean=1.0, spread=0.5):
    return mean + level.alpha * spread**2 / variance(level, spread) * (x - level.alpha * mean)


def variance(level, spread=0.5):
    return level.alpha**2 * spread**2 + level.sigma**2


def gaussian_flow(x, now, to, mean=1.0):
    """Where the probability flow takes x for a single Gaussian: the same number of deviations from the mean."""
    return to.alpha * mean + (x - now.alpha * mean) * math.sqrt(variance(to) / variance(now))


def run(denoise, noise, levels, sampler, **options):
    if sampler in DRAWING:
        options.setdefault("noise_source", source(noise.shape, noise.dtype))
    return sample(denoise, begin(noise, levels[0]), levels, sampler, **options)


def constant(x, level):
    return torch.full_like(x, 0.25)


# ---- every sampler over every schedule makes the right distribution


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("sampler", [sampler for sampler in SAMPLERS if sampler not in DRAWING])
def test_samples_have_the_moments_and_modes_of_the_data(sampler, name):
    steps = 400 if sampler == "heun-edm" else 200  # see the module: it overshoots when steps are few
    x = run(mixture, even_noise(801), schedule(name, steps), sampler)
    assert x.mean().item() == pytest.approx(0, abs=0.015)
    assert x.var(correction=0).item() == pytest.approx(1, abs=0.025)
    assert (x > BETWEEN).double().mean().item() == pytest.approx(0.3, abs=0.005)


@pytest.mark.parametrize("eta", [0.5, 1.0])
@pytest.mark.parametrize("name", SCHEDULES)
def test_samples_with_fresh_noise_have_the_moments_and_modes_of_the_data(name, eta):
    noise = random_noise(0, (10_000,))
    x = run(mixture, noise, schedule(name, 200), "ddim", eta=eta, noise_source=source(noise.shape))
    assert x.mean().item() == pytest.approx(0, abs=0.03)  # three deviations of a mean of 10,000
    assert x.var().item() == pytest.approx(1, abs=0.05)
    assert (x > BETWEEN).double().mean().item() == pytest.approx(0.3, abs=0.015)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("sampler", ["dpmpp-2m", "unipc", "heun"])
def test_samples_are_the_very_quantiles_of_the_data(sampler, name):
    noise = even_noise(201)
    x = run(mixture, noise, schedule(name, 250), sampler)
    shares = (torch.arange(201, dtype=torch.float64) + 0.5) / 201
    assert (share_below(x) - shares).abs().max() < 0.012


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_in_two_dimensions_the_covariance_is_right_too(sampler):
    # three modes, with one full covariance between the axes
    means = torch.tensor([[1.0, 0.5], [-1.0, 0.5], [0.0, -1.0]], dtype=torch.float64)
    own = torch.tensor([[0.10, 0.06], [0.06, 0.08]], dtype=torch.float64)

    def modes(x, level):
        """How likely each mode is to have made x (b, modes), and what it would have made it from (b, modes, 2)."""
        inverse = torch.linalg.inv(level.alpha**2 * own + level.sigma**2 * torch.eye(2, dtype=torch.float64))
        off = x[:, None] - level.alpha * means
        likely = (-0.5 * torch.einsum("bki,ij,bkj->bk", off, inverse, off)).softmax(-1)
        return likely, means + level.alpha * off @ inverse @ own

    def denoise(x, level):
        return torch.einsum("bk,bki->bi", *modes(x, level))

    x = run(denoise, random_noise(99, (4000, 2)), schedule("flow", 40), sampler)
    torch.testing.assert_close(x.mean(0), means.mean(0), atol=0.04, rtol=0)
    torch.testing.assert_close(x.T.cov(), means.T.cov(correction=0) + own, atol=0.05, rtol=0)
    torch.testing.assert_close(modes(x, CLEAN)[0].mean(0), torch.full((3,), 1 / 3).double(), atol=0.025, rtol=0)


# ---- orders


def curve(name, steps):
    """Levels evenly between a noisy one and one that is not yet clean, so that only the order of a method shows."""
    parts = [index / steps for index in range(steps + 1)]
    if name == "flow":
        return [flow_level(0.95 - 0.9 * part) for part in parts]
    ratios = [math.exp(2 - 4 * part) for part in parts]
    scale = [1.0 if name == "exploding" else 1 / math.hypot(1, ratio) for ratio in ratios]
    return [Level(alpha, alpha * ratio) for alpha, ratio in zip(scale, ratios)]


@pytest.mark.parametrize("name", ["flow", "exploding", "preserving"])
@pytest.mark.parametrize(
    ("sampler", "order"),
    [("euler", 1), ("ddim", 1), ("heun", 2), ("heun-edm", 2), ("dpmpp-2m", 2), ("unipc", 3)],
)
def test_the_error_falls_with_the_order_of_the_method(sampler, order, name):
    x = torch.tensor([-1.5, 0.3, 1.2], dtype=torch.float64)

    def error(steps):
        levels = curve(name, steps)
        return (sample(gaussian, x, levels, sampler) - gaussian_flow(x, levels[0], levels[-1])).abs().max().item()

    assert math.log2(error(128) / error(256)) == pytest.approx(order, abs=0.15)


@cache
def exact(name):
    """Where even noise ends up, found by many steps of Heun's method."""
    return run(mixture, even_noise(101), schedule(name, 1000), "heun")


def distance(sampler, name, calls):
    """Mean distance from where the samples should be, for a number of calls of the denoiser."""
    steps = (calls + 1) // CALLS.get(sampler, 1)
    return (run(mixture, even_noise(101), schedule(name, steps), sampler) - exact(name)).abs().mean().item()


@pytest.mark.parametrize(("sampler", "order"), [("euler", 1), ("heun", 2), ("dpmpp-2m", 2), ("unipc", 3)])
def test_the_order_holds_out_of_pure_noise_too(sampler, order):
    x = torch.tensor([-1.5, 0.3, 1.2], dtype=torch.float64)

    def error(steps):
        levels = [flow_level(1 - 0.95 * index / steps) for index in range(steps + 1)]
        return (sample(gaussian, x, levels, sampler) - gaussian_flow(x, levels[0], levels[-1])).abs().max().item()

    assert math.log2(error(128) / error(256)) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("name", ["flow", "karras", "cosine"])
@pytest.mark.parametrize("sampler", ["heun", "dpmpp-2m", "unipc"])
def test_second_order_is_better_than_first_for_the_same_calls(sampler, name):
    assert distance(sampler, name, 35) < 0.7 * distance("euler", name, 35)


@pytest.mark.parametrize("name", ["flow", "cosine", "sigmoid"])
def test_unipc_is_the_best_of_them_when_calls_are_few(name):
    assert distance("unipc", name, 9) < min(distance(other, name, 9) for other in ("euler", "heun", "dpmpp-2m"))


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("sampler", [sampler for sampler in SAMPLERS if sampler != "heun-edm"])
@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_few_steps_are_rough_but_never_wild(steps, sampler, name):
    assert run(mixture, even_noise(51), schedule(name, steps), sampler).abs().max() < 6


# ---- laws of all samplers


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_result_is_the_last_clean_estimate_itself(sampler, name, steps):
    seen = []
    noise = random_noise(0, (5,), torch.float32)
    x = run(
        lambda x, level: torch.tanh(x + level.time),
        noise,
        schedule(name, steps),
        sampler,
        on_step=lambda index, count, x, clean: seen.append(clean),
    )
    assert len(seen) == steps
    assert torch.equal(x, seen[-1])


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_the_denoiser_is_sure_of_is_what_comes_out(sampler, name):
    noise = random_noise(0, (5,), torch.float32)
    assert torch.equal(run(constant, noise, schedule(name, 4), sampler), torch.full((5,), 0.25))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_step_is_one_call_and_two_with_heun(sampler):
    calls = []

    def denoise(x, level):
        calls.append(level)
        return x / 2

    levels = schedule("flow", 6)
    run(denoise, random_noise(0, (2,)), levels, sampler)
    if CALLS.get(sampler, 1) == 1:
        assert calls == list(levels[:-1])
    else:
        steps = 11 if sampler == "heun" else 10  # in EDM's coordinates, none but Euler's step leaves pure noise
        assert len(calls) == steps


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_batch_of_two_is_two_batches_of_one(sampler):
    levels = schedule("scaled-linear", 6)
    noise = random_noise(0, (2, 3, 4))
    fresh = [random_noise(1 + index, (2, 3, 4)) for index in range(6)]

    def clips(some):
        options = {"noise_source": lambda index: fresh[index][some]} if sampler in DRAWING else {}
        return run(lambda x, level: torch.tanh(x), noise[some], levels, sampler, **options)

    assert torch.equal(clips(slice(0, 2)), torch.cat([clips(slice(0, 1)), clips(slice(1, 2))]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(), (2,), (2, 3), (1, 3, 4, 5, 6)])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_shape_and_type_stay(sampler, shape, dtype):
    noise = torch.zeros(shape, dtype=dtype)
    drawn = {"noise_source": lambda index: random_noise(index, shape, torch.float32)} if sampler in DRAWING else {}
    x = run(lambda x, level: x / 2, noise, schedule("scaled-linear", 3, zero_terminal=True), sampler, **drawn)
    assert (x.shape, x.dtype) == (torch.Size(shape), dtype)
    assert x.isfinite().all()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_all_work_is_done_where_the_sample_is(sampler):
    noise = torch.zeros(2, 3, device="meta")  # a device without data: touching the CPU's numbers there would fail
    denoise = keep(guide(constant, constant, 2.0, rescale=0.5), torch.zeros(2, 3), torch.ones(2, 3).bool())
    drawn = {"noise_source": lambda index: torch.zeros(2, 3)} if sampler in DRAWING else {}
    assert run(denoise, noise, schedule("flow", 3), sampler, **drawn).device.type == "meta"


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_float32_is_as_good_as_float64(sampler):
    levels = schedule("scaled-linear", 1000, zero_terminal=True)
    noise = even_noise(21)
    fine = run(gaussian, noise, levels, sampler)
    coarse = run(gaussian, noise.float(), levels, sampler, noise_source=source(noise.shape))
    torch.testing.assert_close(coarse.double(), fine, atol=2e-5, rtol=0)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_gradients_are_kept(sampler):
    weight = torch.tensor(0.5, requires_grad=True)
    assert not run(lambda x, level: weight * x, torch.ones(2), schedule("flow", 3), sampler).requires_grad


@pytest.mark.parametrize("sampler", ["euler", "heun", "heun-edm", "dpmpp-2m", "unipc", "ddpm"])
def test_whoever_listens_hears_of_each_step_and_can_end_it(sampler):
    heard, calls = [], []

    def denoise(x, level):
        calls.append(level)
        return constant(x, level)

    def on_step(index, count, x, clean):
        heard.append((index, count))
        assert torch.equal(clean, constant(x, CLEAN))
        if index == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        run(denoise, torch.ones(2), schedule("scaled-linear", 5), sampler, on_step=on_step)
    assert heard == [(0, 5), (1, 5), (2, 5)]
    assert len(calls) == 3 * CALLS.get(sampler, 1)


@pytest.mark.parametrize("sampler", ["euler", "heun", "ddpm"])
def test_a_run_may_be_cut_in_two(sampler):
    levels = schedule("scaled-linear", 8)
    whole = run(mixture, even_noise(5), levels, sampler)
    half = run(mixture, even_noise(5), levels[:4], sampler)
    drawn = {"noise_source": lambda index: source(half.shape)(index + 3)}
    rest = sample(mixture, half, levels[3:], sampler, **(drawn if sampler == "ddpm" else {}))
    assert torch.equal(rest, whole)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_curve_through_the_plane_does_not_matter(sampler):
    # levels of one ratio are one problem, whatever alpha is
    preserving = schedule("scaled-linear", 12)
    exploding = [Level(1.0, level.ratio) for level in preserving]
    straight = [flow_level(level.ratio / (1 + level.ratio)) for level in preserving]
    fresh = source((7,))
    ends = []
    for levels in (preserving, exploding, straight):
        x = even_noise(7) * levels[0].sigma
        ends.append(sample(mixture, x, levels, sampler, noise_source=fresh))
    torch.testing.assert_close(ends[0], ends[1], atol=1e-10, rtol=0)
    torch.testing.assert_close(ends[0], ends[2], atol=1e-10, rtol=0)


@pytest.mark.parametrize("name", SCHEDULES)
def test_ddim_without_fresh_noise_is_euler_and_with_all_of_it_ddpm(name):
    levels, noise = schedule(name, 9), even_noise(9)
    fresh = source(noise.shape)
    assert torch.equal(run(mixture, noise, levels, "ddim"), run(mixture, noise, levels, "euler"))
    all_of_it = run(mixture, noise, levels, "ddim", eta=1.0, noise_source=fresh)
    assert torch.equal(all_of_it, run(mixture, noise, levels, "ddpm", noise_source=fresh))
    assert not torch.equal(all_of_it, run(mixture, noise, levels, "ddim", eta=0.5, noise_source=fresh))


@pytest.mark.parametrize("name", SCHEDULES)
def test_below_its_level_no_noise_is_fresh(name):
    levels, noise = schedule(name, 9), even_noise(9)
    fresh = source(noise.shape)
    all_of_it = run(mixture, noise, levels, "ddim", eta=1.0, noise_source=fresh, fresh_above=levels[4])
    restless = sample(mixture, begin(noise, levels[0]), levels[:5], "ddpm", noise_source=fresh)
    assert torch.equal(all_of_it, sample(mixture, restless, levels[4:], "ddim"))


def test_one_step_of_ddpm_is_the_posterior():
    now, to = flow_level(0.8), flow_level(0.5)
    x, clean, noise = (torch.tensor([value], dtype=torch.float64) for value in (0.7, -0.4, 1.3))
    ratio = now.alpha / to.alpha
    added = now.sigma**2 - (ratio * to.sigma) ** 2  # variance of the forward step
    mean = ratio * to.sigma**2 / now.sigma**2 * x + to.alpha * added / now.sigma**2 * clean  # Ho et al. 2020, eq. 7
    deviation = math.sqrt(added) * to.sigma / now.sigma
    after = sample(lambda x, level: clean, x, [now, to, CLEAN][:2], "ddpm", noise_source=lambda index: noise)
    torch.testing.assert_close(after, mean + deviation * noise)


def test_noise_is_asked_for_by_step_and_not_for_the_last():
    asked = []

    def noise_source(index):
        asked.append(index)
        return torch.zeros(2)

    run(constant, torch.ones(2), schedule("flow", 4), "ddpm", noise_source=noise_source)
    assert asked == [0, 1, 2]


# ---- levels


@pytest.mark.parametrize("name", SCHEDULES)
@settings(max_examples=30, deadline=None)
@given(steps=st.integers(1, 1000))
def test_levels_fall_from_the_most_noise_to_none(name, steps):
    levels = schedule(name, steps)
    ratios = [level.ratio for level in levels]
    assert len(levels) == steps + 1
    assert levels[-1] == CLEAN
    assert all(now > to for now, to in pairwise(ratios))
    assert ratios[0] == max(schedule(name, 1)[0].ratio, schedule(name, 1000)[0].ratio)


@settings(max_examples=30, deadline=None)
@given(
    steps=st.integers(1, 200),
    name=st.sampled_from(list(sampling.BETAS)),
    placement=st.sampled_from([*sampling.PLACEMENTS, "karras"]),
)
def test_discrete_levels_preserve_variance_and_know_their_times(steps, name, placement):
    table = Table.of(sampling.BETAS[name]())
    levels = table.levels(steps, placement)
    for level in levels:
        assert level.alpha**2 + level.sigma**2 == pytest.approx(1)
    for level in levels[:-1]:
        assert table.at(math.floor(level.time)).ratio <= level.ratio * 1.0000001
        assert table.at(math.ceil(level.time)).ratio >= level.ratio * 0.9999999
        if placement != "karras":
            assert level == table.at(int(level.time))


@pytest.mark.parametrize("name", list(sampling.BETAS))
def test_the_time_of_a_level_and_the_level_of_a_time_are_inverse(name):
    table = Table.of(sampling.BETAS[name]())
    for time in (0, 1, 17, 500, 998, 999):
        assert table.time(table.at(time).ratio) == pytest.approx(time, abs=1e-6)
    assert table.time(1e9) == 999
    assert table.time(1e-9) == 0
    assert Table.of(sampling.BETAS[name](), zero_terminal=True).time(math.inf) == 999


def test_a_table_holds_the_variances_it_was_made_of():
    betas = sampling.scaled_linear_betas()
    signal = 1.0
    for time, level in enumerate(map(Table.of(betas).at, range(1000))):
        signal *= 1 - betas[time].item()
        assert level.alpha**2 == pytest.approx(signal)
    assert signal == pytest.approx(0.00466, abs=1e-5)  # Stable Diffusion's known remnant of signal at its end


@pytest.mark.parametrize("name", list(sampling.BETAS))
def test_zero_terminal_ends_in_pure_noise_and_begins_as_before(name):
    plain, zero = Table.of(sampling.BETAS[name]()), Table.of(sampling.BETAS[name](), zero_terminal=True)
    assert zero.at(999) == Level(0.0, 1.0, 999)
    assert zero.at(999).ratio == math.inf
    assert zero.at(999).lam == -math.inf
    assert zero.at(0).ratio == pytest.approx(plain.at(0).ratio)
    assert all(a.ratio <= b.ratio * 1.0000001 for a, b in zip(map(plain.at, range(1000)), map(zero.at, range(1000))))


@settings(max_examples=50, deadline=None)
@given(steps=st.integers(1, 1000), shift=st.floats(0.01, 100))
def test_flow_begins_at_pure_noise_and_shifts_as_esser_has_it(steps, shift):
    levels = schedule("flow", steps, shift=shift)
    assert (levels[0].alpha, levels[0].sigma, levels[0].time) == (0.0, 1.0, 1.0)
    for index, level in enumerate(levels[:-1]):
        t = 1 - index / steps
        assert level.sigma == level.time == pytest.approx(shift * t / (1 + (shift - 1) * t))
        assert level.alpha + level.sigma == pytest.approx(1)


def test_a_shift_stays_longer_in_the_noise():
    assert [level.sigma for level in schedule("flow", 4)] == [1, 0.75, 0.5, 0.25, 0]
    assert schedule("flow", 4, shift=3.0)[2].sigma == pytest.approx(0.75)


def test_karras_spans_its_range_and_tells_edm_its_time():
    levels = schedule("karras", 18)
    assert (levels[0].sigma, levels[-2].sigma) == (pytest.approx(80), pytest.approx(0.002))
    assert levels[0].time == pytest.approx(math.log(80) / 4)
    assert {level.alpha for level in levels} == {1.0}


def test_places_for_steps():
    assert sampling.leading(4, 1000) == [750, 500, 250, 0]
    assert sampling.trailing(4, 1000) == [999, 749, 499, 249]
    assert sampling.linspace(4, 1000) == [999, 666, 333, 0]
    assert [sampling.PLACEMENTS[name](1, 1000) for name in ("leading", "trailing", "linspace")] == [[0], [999], [999]]


def test_only_leading_steps_are_offset():
    table = Table.of(sampling.linear_betas())
    assert [level.time for level in table.levels(2, "leading", offset=1)[:2]] == [501, 1]
    assert [level.time for level in table.levels(2, "trailing", offset=1)[:2]] == [999, 499]


# ---- what is refused


@pytest.mark.parametrize(("steps", "nearest"), [(0, "1"), (-3, "1"), (1001, "1000"), (10_000, "1000")])
@pytest.mark.parametrize("name", SCHEDULES)
def test_steps_that_cannot_be_are_refused(name, steps, nearest):
    with pytest.raises(InvalidRequest, match=f"{steps} steps") as caught:
        schedule(name, steps)
    assert caught.value.field == "steps"
    assert caught.value.hint == f"the nearest is {nearest}"


@pytest.mark.parametrize("steps", [0, 10_000])
def test_karras_steps_of_a_table_are_counted_too(steps):
    with pytest.raises(InvalidRequest, match=f"{steps} steps"):
        schedule("linear", steps, placement="karras")


def test_unknown_names_are_answered_with_known_ones():
    for ask in (
        partial(schedule, "flaw", 4),
        partial(schedule, "linear", 4, placement="trialing"),
        partial(sample, constant, torch.ones(1), schedule("flow", 2), "eular"),
        partial(sampling.denoiser, constant, "epsilom"),
    ):
        with pytest.raises(UnknownName) as caught:
            ask()
        assert "did you mean" in caught.value.hint


@pytest.mark.parametrize(
    ("field", "refused"),
    [
        ("shift", partial(schedule, "flow", 4, shift=0.0)),
        ("shift", partial(schedule, "flow", 4, shift=math.inf)),
        ("sigma_max", partial(schedule, "karras", 4, sigma_min=1.0, sigma_max=0.5)),
        ("sigma_max", partial(schedule, "linear", 4, placement="karras", zero_terminal=True)),
        ("time", partial(Table.of(sampling.linear_betas()).at, 1000)),
        ("time", partial(schedule, "linear", 1000, placement="leading", offset=1)),
        ("weight", partial(guide, constant, constant, -0.1)),
        ("weight", partial(guide, constant, constant, math.nan)),
        ("rescale", partial(guide, constant, constant, 2.0, rescale=1.5)),
        ("interval", partial(guide, constant, constant, 2.0, interval=(3.0, 3.0))),
        ("eta", partial(sample, constant, torch.ones(1), schedule("flow", 2), "ddim", eta=1.5)),
        ("eta", partial(sample, constant, torch.ones(1), schedule("flow", 2), "heun", eta=0.5)),
        ("noise_source", partial(sample, constant, torch.ones(1), schedule("flow", 2), "ddpm")),
        ("noise_source", partial(run, constant, torch.ones(2), schedule("flow", 2), "ddpm", noise_source=torch.ones)),
        ("levels", partial(sample, constant, torch.ones(1), schedule("flow", 2)[::-1])),
        ("levels", partial(sample, constant, torch.ones(1), [CLEAN, CLEAN])),
        ("steps", partial(sample, constant, torch.ones(1), [CLEAN])),
        ("steps", partial(sample, constant, torch.ones(1), [])),
        ("level", partial(noised, torch.ones(1), torch.ones(1), flow_level(0.3), now=flow_level(0.5))),
        ("level", partial(noised, torch.ones(1), torch.ones(1), flow_level(1.0), now=flow_level(1.0))),
        ("level", partial(sampling.convert, torch.ones(1), torch.ones(1), CLEAN, "clean", "epsilon")),
    ],
)
def test_bad_values_are_named_and_answered_with_a_hint(field, refused):
    with pytest.raises(InvalidRequest) as caught:
        refused()
    assert caught.value.field == field
    assert caught.value.hint


def test_noise_that_is_missing_is_missed_before_any_work():
    def denoise(x, level):
        pytest.fail("the denoiser was called")

    with pytest.raises(InvalidRequest, match="noise"):
        sample(denoise, torch.ones(1), schedule("flow", 2), "ddpm")


# ---- predictions


LEVELS = [flow_level(0.3), Level(0.6, 0.8), Level(1.0, 7.0), Level(0.5, 2.0)]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", PREDICTIONS)
def test_the_clean_sample_is_in_every_target(kind, level):
    clean, noise = random_noise(0, (3, 2)), random_noise(1, (3, 2))
    x = noised(clean, noise, level)
    said = sampling.PREDICTIONS[kind].target(clean, noise, level)
    torch.testing.assert_close(sampling.denoiser(lambda x, level: said, kind)(x, level), clean)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("source", PREDICTIONS)
@pytest.mark.parametrize("to", PREDICTIONS)
def test_predictions_say_the_same_in_other_words(to, source, level):
    said, x = random_noise(0, (3, 2)), random_noise(1, (3, 2))
    other = sampling.convert(said, x, level, source, to)
    torch.testing.assert_close(sampling.convert(other, x, level, to, source), said)
    if to == source:
        torch.testing.assert_close(other, said)


def test_what_networks_say_is_what_the_papers_say():
    clean, noise = torch.tensor([2.0]), torch.tensor([5.0])
    level = Level(0.6, 0.8)
    said = {kind: row.target(clean, noise, level).item() for kind, row in sampling.PREDICTIONS.items()}
    assert said == pytest.approx({"clean": 2.0, "epsilon": 5.0, "v": 0.6 * 5 - 0.8 * 2, "velocity": 3.0})


def test_v_and_velocity_begin_at_pure_noise_where_epsilon_cannot():
    x, pure = torch.tensor([3.0]), Level(0.0, 1.0)
    assert sampling.denoiser(lambda x, level: torch.tensor([-2.0]), "v")(x, pure).item() == 2.0
    assert sampling.denoiser(lambda x, level: torch.tensor([1.0]), "velocity")(x, pure).item() == 2.0
    with pytest.raises(InvalidRequest, match="pure noise") as caught:
        sampling.denoiser(lambda x, level: x, "epsilon")(x, pure)
    assert "zero_terminal" in caught.value.hint


# ---- forward


@settings(max_examples=50, deadline=None)
@given(low=st.floats(0.05, 0.5), high=st.floats(0.51, 1.0))
def test_noise_added_twice_is_noise_added_once(low, high):
    between, end = flow_level(low), flow_level(high)
    clean, first, second = (torch.tensor([value], dtype=torch.float64) for value in (1.0, 1.0, 0.0))
    kept = noised(noised(clean, 0 * first, between), 0 * second, end, now=between)
    torch.testing.assert_close(kept, torch.tensor([end.alpha], dtype=torch.float64))
    old = noised(noised(0 * clean, first, between), second, end, now=between).item()
    new = noised(0 * clean, torch.tensor([1.0], dtype=torch.float64), end, now=between).item()
    assert old**2 + new**2 == pytest.approx(end.sigma**2)  # independent noises: their variances add


def test_a_sample_at_its_level_already_stays_as_it_is():
    level = Table.of(sampling.linear_betas()).at(700)
    torch.testing.assert_close(noised(torch.ones(2), torch.ones(2), level, now=level), torch.ones(2))


def test_the_start_has_the_spread_of_noised_data():
    assert begin(torch.tensor(1.0), Level(0.6, 0.8)).item() == pytest.approx(1)
    assert begin(torch.tensor(1.0), flow_level(1.0)).item() == 1
    assert begin(torch.tensor(1.0), Level(1.0, 80.0)).item() == pytest.approx(math.sqrt(6401))


def test_a_clip_noised_part_of_the_way_comes_back():
    levels = schedule("flow", 40)
    clean = MEANS[:1].repeat(50) + SPREAD * even_noise(50)  # all from the first mode
    x = sample(mixture, noised(clean, even_noise(50).flip(0), levels[32]), levels[32:])
    assert (x - clean).abs().max() < 0.7
    assert (x > BETWEEN).all()


# ---- guidance


def counted(denoise):
    def counting(x, level):
        counting.calls += 1
        return denoise(x, level)

    counting.calls = 0
    return counting


def number(value):
    return counted(lambda x, level: torch.full_like(x, value))


def test_a_weight_of_one_costs_one_call_and_changes_nothing():
    wanted, other = counted(mixture), number(9.0)
    levels, noise = schedule("flow", 5), even_noise(5)
    guided = run(guide(wanted, other, 1.0, rescale=0.7), noise, levels, "euler")
    assert torch.equal(guided, run(mixture, noise, levels, "euler"))
    assert (wanted.calls, other.calls) == (5, 0)


@settings(deadline=None)
@given(weight=st.floats(0, 30))
def test_guidance_goes_from_the_other_through_the_wanted_and_on(weight):
    guided = guide(number(3.0), number(1.0), weight)(torch.zeros(2, dtype=torch.float64), flow_level(0.5))
    assert guided[0].item() == pytest.approx(1 + 2 * weight)


def test_a_weight_of_nought_is_the_other():
    assert guide(number(3.0), number(1.0), 0.0)(torch.zeros(1), flow_level(0.5)).item() == 1.0


def test_guidance_acts_within_its_interval_only_and_costs_nothing_outside():
    other = number(1.0)
    denoise = guide(number(3.0), other, 2.0, interval=(0.5, 2.0))
    found = [denoise(torch.zeros(1), Level(1.0, ratio)).item() for ratio in (0.25, 0.5, 0.51, 2.0, 2.1)]
    assert found == [3, 3, 5, 5, 3]
    assert other.calls == 2


def test_guidance_acts_at_pure_noise_unless_told_otherwise():
    assert guide(number(3.0), number(1.0), 2.0)(torch.zeros(1), flow_level(1.0)).item() == 5
    assert guide(number(3.0), number(1.0), 2.0, interval=(0, 99.0))(torch.zeros(1), flow_level(1.0)).item() == 3


def test_rescale_brings_the_spread_of_each_clip_back():
    wanted, other = random_noise(0, (2, 3, 4)), random_noise(1, (2, 3, 4))
    wanted[1] *= 10
    level = flow_level(0.5)

    def guided(share):
        return guide(lambda x, level: wanted, lambda x, level: other, 7.0, rescale=share)(wanted, level)

    plain, full, half = guided(0.0), guided(1.0), guided(0.5)
    spread = partial(torch.std, dim=(1, 2))
    assert (spread(plain) > 2 * spread(wanted)).all()
    torch.testing.assert_close(spread(full), spread(wanted))
    torch.testing.assert_close(half, (plain + full) / 2)


def test_rescale_leaves_flat_clips_alone():
    guided = guide(number(3.0), number(1.0), 2.0, rescale=1.0)
    assert torch.equal(guided(torch.zeros(2, 3), flow_level(0.5)), torch.full((2, 3), 5.0))
    assert torch.equal(guided(torch.zeros(2), flow_level(0.5)), torch.full((2,), 5.0))


def test_guidance_to_a_mode_reaches_it():
    first = partial(gaussian, mean=MEANS[0].item(), spread=SPREAD)
    x = run(guide(first, mixture, 1.5), even_noise(101), schedule("flow", 40), "unipc")
    assert (x > BETWEEN).all()


# ---- known parts


@pytest.mark.parametrize("name", ["flow", "scaled-linear"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_known_frames_come_out_as_they_are_and_others_as_they_would(sampler, name):
    known = random_noise(5, (2, 1, 4, 3, 3), torch.float32)  # (b, c, t, h, w)
    mask = torch.zeros(1, 1, 4, 1, 1, dtype=torch.bool)
    mask[:, :, 0] = True
    noise = random_noise(0, known.shape, torch.float32)
    free = run(lambda x, level: torch.tanh(x), noise, schedule(name, 6), sampler)
    x = run(keep(lambda x, level: torch.tanh(x), known, mask), noise, schedule(name, 6), sampler)
    assert torch.equal(x[:, :, 0], known[:, :, 0])
    assert torch.equal(x[:, :, 1:], free[:, :, 1:])


def test_known_parts_stay_at_the_level_of_the_rest_all_the_way():
    known, noise = torch.tensor([0.7]), torch.tensor([-1.2])
    levels = schedule("flow", 5)
    denoise = keep(lambda x, level: torch.tanh(x), known, torch.tensor([True]))
    path = []
    sample(denoise, noise, levels, "unipc", on_step=lambda index, count, x, clean: path.append(x))
    for x, level in zip(path, levels[1:]):
        torch.testing.assert_close(x, noised(known, noise, level))
