"""Our samplers against diffusers' schedulers: the same network, the same noise, the same path, step by step."""

import numpy as np
import pytest
import torch
from diffusers import schedulers

from kinetograph.neural import sampling
from kinetograph.neural.sampling import CLEAN, Level, Table

# Their schedulers read torch tensors with np.array(...), which numpy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

SHAPE = (2, 3, 4, 4)
CURVES = {"linear": "linear", "scaled-linear": "scaled_linear", "cosine": "squaredcos_cap_v2", "sigmoid": "sigmoid"}
PREDICTED = {"epsilon": "epsilon", "v": "v_prediction", "clean": "sample"}


def network(x, time):
    """A fixed random tanh of x and time, any of the three predictions as well as another."""
    weights = torch.randn(3, 3, generator=torch.Generator().manual_seed(1)).to(x)
    return torch.tanh(torch.einsum("ij,bjhw->bihw", weights, x) + float(time) / 1000)


def start(level):
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(2))
    return sampling.begin(noise, level)


def curve(name, **more):
    """The settings of a diffusers scheduler for one of our noise schedules."""
    begin, end = {"scaled-linear": (0.00085, 0.012)}.get(name, (1e-4, 0.02))
    return {"beta_schedule": CURVES[name], "beta_start": begin, "beta_end": end, **more}


def table(name, zero_terminal=False):
    return Table.of(sampling.BETAS[name](), zero_terminal)


def denoiser(prediction="epsilon"):
    """Our side: the network is told the time of the level, and sees x as it is."""
    return sampling.denoiser(lambda x, level: network(x, level.time), prediction)


def our_path(levels, sampler, denoise=None, **options):
    path = []
    sampling.sample(
        denoise or denoiser(),
        start(levels[0]),
        levels,
        sampler,
        on_step=lambda index, count, x, clean: path.append(x),
        **options,
    )
    return path


def their_path(scheduler, levels, scaled=False, **options):
    """Their side: x is divided by alpha where the scheduler works in EDM's coordinates; what it returns is undone."""
    alphas = [level.alpha if scaled else 1.0 for level in levels]
    x, path = start(levels[0]) / alphas[0], []
    for time in scheduler.timesteps:
        said = network(scheduler.scale_model_input(x, time), time)
        x = scheduler.step(said, time, x, **options).prev_sample
        path.append(x)
    return [x * alpha for x, alpha in zip(path, alphas[1:])]


flow_denoiser = sampling.denoiser(lambda x, level: network(x, level.time * 1000), "velocity")


def flow_path(scheduler):
    x, path = start(sampling.flow_level(1.0)), []
    for time in scheduler.timesteps:
        x = scheduler.step(network(x, time), time, x).prev_sample
        path.append(x)
    return path


def agree(ours, theirs, tolerance=1e-4):
    assert len(ours) == len(theirs)
    for index, (mine, other) in enumerate(zip(ours, theirs)):
        torch.testing.assert_close(mine, other, rtol=tolerance, atol=tolerance, msg=lambda m, i=index: f"step {i}: {m}")


def same_times(levels, scheduler, unit=1):
    ours = torch.tensor([float(level.time * unit) for level in levels[:-1]])
    torch.testing.assert_close(ours, scheduler.timesteps.float(), rtol=1e-4, atol=1e-3)


# ---- levels


@pytest.mark.parametrize("name", CURVES)
def test_the_variances_are_theirs(name):
    theirs = schedulers.DDPMScheduler(**curve(name))
    torch.testing.assert_close(sampling.BETAS[name]().float(), theirs.betas, rtol=1e-4, atol=1e-7)
    ours = torch.tensor([table(name).at(time).alpha ** 2 for time in range(1000)])
    torch.testing.assert_close(ours, theirs.alphas_cumprod, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ["linear", "scaled-linear"])
def test_the_variances_that_end_in_pure_noise_are_theirs(name):
    theirs = schedulers.DDIMScheduler(**curve(name, rescale_betas_zero_snr=True))
    ours = torch.tensor([table(name, zero_terminal=True).at(time).alpha ** 2 for time in range(1000)])
    torch.testing.assert_close(ours, theirs.alphas_cumprod, rtol=1e-4, atol=1e-6)
    assert ours[-1] == theirs.alphas_cumprod[-1] == 0


@pytest.mark.parametrize("steps", [2, 7, 16, 25, 50, 333, 1000])
@pytest.mark.parametrize("placement", ["leading", "trailing", "linspace"])
def test_steps_are_placed_where_theirs_are(placement, steps):
    theirs = schedulers.DDPMScheduler(**curve("linear", timestep_spacing=placement))
    theirs.set_timesteps(steps)
    same_times(table("linear").levels(steps, placement), theirs)


def test_leading_steps_are_offset_as_theirs_are():
    theirs = schedulers.DDIMScheduler(**curve("linear", timestep_spacing="leading", steps_offset=1))
    theirs.set_timesteps(50)
    same_times(table("linear").levels(50, "leading", offset=1), theirs)


@pytest.mark.parametrize("name", ["linear", "scaled-linear"])
def test_karras_steps_of_a_discrete_model_are_theirs(name):
    theirs = schedulers.EulerDiscreteScheduler(**curve(name, use_karras_sigmas=True))
    theirs.set_timesteps(20)
    levels = table(name).levels(20, "karras")
    same_times(levels, theirs)
    torch.testing.assert_close(torch.tensor([level.ratio for level in levels]), theirs.sigmas, rtol=1e-4, atol=1e-6)


def test_karras_steps_without_a_table_are_theirs():
    theirs = schedulers.EDMEulerScheduler(sigma_min=0.002, sigma_max=80.0, rho=7.0)
    theirs.set_timesteps(18)
    levels = sampling.schedule("karras", 18)
    torch.testing.assert_close(torch.tensor([level.sigma for level in levels]), theirs.sigmas, rtol=1e-5, atol=1e-7)
    times = torch.tensor([level.time for level in levels[:-1]])
    torch.testing.assert_close(times, theirs.timesteps, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("steps", [2, 25, 50])
@pytest.mark.parametrize("placement", ["leading", "trailing"])
def test_ratios_between_noise_and_signal_are_theirs(placement, steps):
    theirs = schedulers.EulerDiscreteScheduler(**curve("scaled-linear", timestep_spacing=placement))
    theirs.set_timesteps(steps)
    levels = table("scaled-linear").levels(steps, placement)
    torch.testing.assert_close(torch.tensor([level.ratio for level in levels]), theirs.sigmas, rtol=1e-4, atol=1e-6)


def test_levels_between_two_training_times_are_theirs():
    theirs = schedulers.EulerDiscreteScheduler(**curve("scaled-linear", timestep_spacing="linspace"))
    theirs.set_timesteps(10)
    levels = [table("scaled-linear").at(float(time)) for time in np.linspace(999, 0, 10)]
    torch.testing.assert_close(torch.tensor([x.ratio for x in levels]), theirs.sigmas[:-1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shift", [1.0, 3.0, 12.0])
def test_flow_levels_are_theirs(shift):
    theirs = schedulers.FlowMatchEulerDiscreteScheduler(shift=shift)
    theirs.set_timesteps(sigmas=np.linspace(1, 1 / 20, 20))
    levels = sampling.schedule("flow", 20, shift=shift)
    torch.testing.assert_close(torch.tensor([level.sigma for level in levels]), theirs.sigmas, rtol=1e-5, atol=1e-6)
    same_times(levels, theirs, unit=1000)


# ---- paths


@pytest.mark.parametrize("prediction", PREDICTED)
@pytest.mark.parametrize("placement", ["leading", "trailing"])
@pytest.mark.parametrize("name", ["linear", "scaled-linear", "cosine"])  # their DDIM knows no sigmoid
def test_ddim_takes_their_path(name, placement, prediction):
    more = {"timestep_spacing": placement, "prediction_type": PREDICTED[prediction], "clip_sample": False}
    theirs = schedulers.DDIMScheduler(**curve(name, **more))
    theirs.set_timesteps(20)
    levels = table(name).levels(20, placement)
    agree(our_path(levels, "ddim", denoiser(prediction)), their_path(theirs, levels, eta=0.0))


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_ddim_with_fresh_noise_takes_their_path(eta):
    theirs = schedulers.DDIMScheduler(**curve("scaled-linear", timestep_spacing="trailing", clip_sample=False))
    theirs.set_timesteps(10)
    levels = sampling.schedule("scaled-linear", 10)
    fresh = [torch.randn(SHAPE, generator=torch.Generator().manual_seed(3 + index)) for index in range(10)]
    x, path = start(levels[0]), []
    for time, noise in zip(theirs.timesteps, fresh):
        x = theirs.step(network(x, time), time, x, eta=eta, variance_noise=noise).prev_sample
        path.append(x)
    agree(our_path(levels, "ddim", noise_source=lambda index: fresh[index], eta=eta), path)


def test_ddim_from_pure_noise_takes_their_path():
    more = {"timestep_spacing": "trailing", "prediction_type": "v_prediction", "clip_sample": False}
    theirs = schedulers.DDIMScheduler(**curve("scaled-linear", rescale_betas_zero_snr=True, **more))
    theirs.set_timesteps(20)
    levels = sampling.schedule("scaled-linear", 20, zero_terminal=True)
    agree(our_path(levels, "ddim", denoiser("v")), their_path(theirs, levels))


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize(("steps", "placement"), [(20, "leading"), (20, "trailing"), (50, "trailing")])
def test_ddpm_takes_their_path_with_their_noise(name, steps, placement):
    theirs = schedulers.DDPMScheduler(**curve(name, timestep_spacing=placement, clip_sample=False))
    theirs.set_timesteps(steps)
    levels = table(name).levels(steps, placement)
    path = their_path(theirs, levels, generator=torch.Generator().manual_seed(5))
    stream = torch.Generator().manual_seed(5)
    agree(our_path(levels, "ddpm", noise_source=lambda index: torch.randn(SHAPE, generator=stream)), path)


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
@pytest.mark.parametrize("placement", ["leading", "trailing"])
def test_euler_takes_their_path(placement, prediction):
    more = {"timestep_spacing": placement, "prediction_type": PREDICTED[prediction]}
    theirs = schedulers.EulerDiscreteScheduler(**curve("scaled-linear", **more))
    theirs.set_timesteps(25)
    levels = table("scaled-linear").levels(25, placement)
    agree(our_path(levels, "euler", denoiser(prediction)), their_path(theirs, levels, scaled=True))


def test_euler_takes_their_path_between_training_times():
    theirs = schedulers.EulerDiscreteScheduler(**curve("scaled-linear", timestep_spacing="linspace"))
    theirs.set_timesteps(12)
    levels = (*(table("scaled-linear").at(float(time)) for time in theirs.timesteps), CLEAN)
    agree(our_path(levels, "euler"), their_path(theirs, levels, scaled=True))


def test_euler_takes_their_path_over_karras_steps():
    theirs = schedulers.EulerDiscreteScheduler(**curve("scaled-linear", use_karras_sigmas=True))
    theirs.set_timesteps(12)
    levels = sampling.schedule("scaled-linear", 12, placement="karras")
    agree(our_path(levels, "euler"), their_path(theirs, levels, scaled=True))


def test_ddpm_is_their_ancestral_euler():
    theirs = schedulers.EulerAncestralDiscreteScheduler(**curve("scaled-linear", timestep_spacing="trailing"))
    theirs.set_timesteps(20)
    levels = sampling.schedule("scaled-linear", 20)
    path = their_path(theirs, levels, scaled=True, generator=torch.Generator().manual_seed(5))
    stream = torch.Generator().manual_seed(5)
    agree(our_path(levels, "ddpm", noise_source=lambda index: torch.randn(SHAPE, generator=stream)), path)


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
@pytest.mark.parametrize("steps", [2, 25])
def test_heun_takes_their_path(steps, prediction):
    more = {"timestep_spacing": "trailing", "prediction_type": PREDICTED[prediction]}
    theirs = schedulers.HeunDiscreteScheduler(**curve("scaled-linear", **more))
    theirs.set_timesteps(steps)
    levels = sampling.schedule("scaled-linear", steps)
    twice = [levels[0], *(level for level in levels[1:-1] for _ in range(2)), levels[-1]]  # they count calls, not steps
    calls = their_path(theirs, twice, scaled=True)
    agree(our_path(levels, "heun-edm", denoiser(prediction)), [*calls[1::2], calls[-1]])


def test_heun_takes_their_path_over_flow_levels():
    theirs = schedulers.FlowMatchHeunDiscreteScheduler()
    theirs.set_timesteps(10)
    levels = (*(sampling.flow_level(float(t)) for t in [theirs.sigmas[0], *theirs.sigmas[1:-1:2]]), CLEAN)
    calls = flow_path(theirs)
    agree(our_path(levels, "heun", flow_denoiser), [*calls[1::2], calls[-1]])


@pytest.mark.parametrize("prediction", PREDICTED)
@pytest.mark.parametrize("steps", [2, 10, 25])
def test_2m_takes_their_path(steps, prediction):
    more = {"timestep_spacing": "trailing", "prediction_type": PREDICTED[prediction]}
    theirs = schedulers.DPMSolverMultistepScheduler(**curve("scaled-linear", **more))
    theirs.set_timesteps(steps)
    levels = sampling.schedule("scaled-linear", steps)
    agree(our_path(levels, "dpmpp-2m", denoiser(prediction)), their_path(theirs, levels))


def test_2m_takes_their_path_where_they_place_their_own_steps():
    theirs = schedulers.DPMSolverMultistepScheduler(**curve("linear", timestep_spacing="linspace"))
    theirs.set_timesteps(20)
    levels = (*(table("linear").at(int(time)) for time in theirs.timesteps), CLEAN)
    agree(our_path(levels, "dpmpp-2m"), their_path(theirs, levels))


def test_2m_takes_their_path_over_karras_steps():
    theirs = schedulers.DPMSolverMultistepScheduler(**curve("scaled-linear", use_karras_sigmas=True))
    theirs.set_timesteps(20)
    levels = table("scaled-linear").levels(20, "karras")
    rounded = (*(Level(level.alpha, level.sigma, round(level.time)) for level in levels[:-1]), CLEAN)  # as they do
    agree(our_path(rounded, "dpmpp-2m"), their_path(theirs, rounded))


@pytest.mark.parametrize("name", ["linear", "scaled-linear"])
@pytest.mark.parametrize("steps", [2, 5, 25])
def test_unipc_takes_their_path(steps, name):
    theirs = schedulers.UniPCMultistepScheduler(**curve(name, timestep_spacing="trailing", final_sigmas_type="zero"))
    theirs.set_timesteps(steps)
    levels = table(name).levels(steps)
    agree(our_path(levels, "unipc"), their_path(theirs, levels))


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 4, 30])
def test_flow_matching_takes_their_path(steps, shift):
    theirs = schedulers.FlowMatchEulerDiscreteScheduler(shift=shift)
    theirs.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps))
    levels = sampling.schedule("flow", steps, shift=shift)
    agree(our_path(levels, "euler", flow_denoiser), flow_path(theirs))


@pytest.mark.parametrize(
    ("sampler", "scheduler"),
    [("dpmpp-2m", schedulers.DPMSolverMultistepScheduler), ("unipc", schedulers.UniPCMultistepScheduler)],
)
def test_multistep_samplers_take_their_path_over_flow_levels(sampler, scheduler):
    theirs = scheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    theirs.set_timesteps(12)
    placed = zip(theirs.sigmas[:-1].tolist(), theirs.timesteps.tolist())
    levels = (*(Level(1 - sigma, sigma, time) for sigma, time in placed), CLEAN)
    agree(our_path(levels, sampler, denoiser("velocity")), their_path(theirs, levels))
