"""Training runs: exact resume, clean stop, shared batches, the loop's effect."""

import dataclasses
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from kinetograph import describe, generate, weights
from kinetograph.errors import Interrupted, TrainingError, UnknownName
from kinetograph.neural import device
from kinetograph.neural.models import layered, video_gan
from kinetograph.neural.training import batches, flow, gan, recipes, run
from kinetograph.neural.training.average import Average
from kinetograph.worlds import circle

TINY = recipes.get("gan-tiny")


def model(folder):
    return load_file(folder / weights.MODEL)


def test_a_batch_is_a_function_of_seed_and_step_however_many_share_it():
    whole = batches.draw(circle, 3, 5, range(4), 4, 16, torch.device("cpu"))
    halves = [batches.draw(circle, 3, 5, batches.places(4, rank, 2), 4, 16, torch.device("cpu")) for rank in range(2)]
    assert torch.equal(whole.clips, torch.cat([half.clips for half in halves]))
    assert whole.captions == [caption for half in halves for caption in half.captions]
    other = batches.draw(circle, 3, 6, range(4), 4, 16, torch.device("cpu"))
    assert whole.captions != other.captions


def test_a_near_miss_never_describes_its_clip():
    batch = batches.draw(circle, 0, 0, range(64), 4, 16, torch.device("cpu"))
    for caption, misses in zip(batch.captions, batch.near_misses, strict=True):
        assert all(circle.parse(caption) != circle.parse(miss) for miss in misses)


def test_a_run_leaves_figures_samples_and_a_checkpoint_that_an_engine_loads(tmp_path):
    seen = []
    TINY.train(tmp_path / "run", device="cpu", on_step=seen.append)
    assert [step.step for step in seen] == list(range(1, TINY.steps + 1))
    lines = [json.loads(line) for line in (tmp_path / "run" / run.METRICS).read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, TINY.steps + 1))
    assert (tmp_path / "run" / run.SAMPLES / "000012.png").exists()
    reference = f"gan:{tmp_path / 'run'}"
    video = generate(reference, describe(reference).request("a red ball moving up", seed=1))
    assert video.frames.shape == (4, 16, 16, 3)


@pytest.mark.parametrize("able", ["amx_bf16", "avx512_bf16", "bf16", ""])
def test_a_processor_without_instructions_for_bfloat16_learns_in_float32(monkeypatch, able):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, able: True})
    recipe, kind = recipes.get("layered"), torch.bfloat16 if able else torch.float32
    assert recipe.numbers(torch.device("cpu")) == kind
    with recipe.autocast(torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == kind
    assert recipe.numbers(torch.device("cuda")) == torch.bfloat16
    assert recipes.get("layered", {"bfloat16": False}).numbers(torch.device("cuda")) == torch.float32


def test_every_part_of_both_networks_moves(tmp_path):
    trainer = gan.Trainer(TINY, torch.device("cpu"), run.Processes())
    before = {name: p.clone() for name, p in trainer.generator.state_dict().items()}
    for step in range(1, TINY.head_start + 1):
        trainer.step(step)
    assert all(torch.equal(p, before[name]) for name, p in trainer.generator.state_dict().items())  # the head start
    for step in range(4, 8):
        trainer.step(step)
    still = [name for name, p in trainer.generator.state_dict().items() if torch.equal(p, before[name])]
    assert still == ["path.waves", "path.scale"]


def test_the_noise_of_a_step_holds_what_chance_decided_of_its_real_clips(monkeypatch):
    """Every chance in its place, in what the generator is given within a step."""
    trainer, given = gan.Trainer(dataclasses.replace(TINY, batch=64), torch.device("cpu"), run.Processes()), []
    trainer.generator.register_forward_hook(lambda module, inputs, made: given.append(inputs[1]))
    step = TINY.head_start + 1
    trainer.step(step)
    assert len(given) == TINY.turns
    batch = batches.draw(circle, TINY.seed, step, range(64), 4, 16, torch.device("cpu"))
    decided = [circle.chances(scene) for scene in batch.scenes]
    for noise in given:
        uniform, pairs = video_gan.chances(noise).chunk(2, dim=1)
        for place, name in enumerate(circle.CHANCES):
            for row, chances in zip(uniform, decided, strict=True):
                if name in chances:
                    assert float(row[place]) == pytest.approx(3**0.5 * (2 * chances[name] - 1), abs=2e-3), name
        ways = [
            (float(row[len(circle.CHANCES)]), chances["way"])
            for row, chances in zip(uniform, decided, strict=True)
            if "way" in chances
        ]
        assert ways
        assert all(number * way > 0 for number, way in ways)
        turns = [(row[:2], chances["phase"]) for row, chances in zip(pairs, decided, strict=True) if "phase" in chances]
        for pair, phase in turns:
            angle = torch.tensor(2 * torch.pi * phase)
            torch.testing.assert_close(pair, 2**0.5 * torch.stack([angle.cos(), angle.sin()]), atol=1e-4, rtol=0)


def test_exactness_counts_little_at_first_and_much_from_its_step_on():
    recipe = recipes.get("gan")
    assert gan.exactness(recipe, recipe.exact_after) == recipe.exactness_at_first
    assert gan.exactness(recipe, recipe.exact_after + 1) == recipe.exactness
    assert recipe.head_start < recipe.exact_after < recipe.steps


def test_exactness_alone_moves_the_generator():
    alone = {"contrast": 0.0, "obedience": 0.0, "head_start": 0, "exact_after": 0}

    def moved(exactness):
        recipe = dataclasses.replace(TINY, **alone, exactness=exactness)
        trainer = gan.Trainer(recipe, torch.device("cpu"), run.Processes())
        trainer.step(1)
        return flat(trainer.generator.state_dict())

    assert (moved(0.0) - moved(200.0)).abs().max() > 1e-5


def test_a_world_that_leaves_more_to_chance_than_there_is_noise_for_is_refused_at_once(monkeypatch):
    monkeypatch.setattr(circle, "CHANCES", tuple("abcdefgh"))
    with pytest.raises(TrainingError, match="noise") as error:
        gan.Trainer(TINY, torch.device("cpu"), run.Processes())
    assert "18" in error.value.hint


def test_clips_are_held_against_the_real_ones_only_where_the_caption_says_the_motion():
    trainer = gan.Trainer(TINY, torch.device("cpu"), run.Processes())
    batch = batches.draw(circle, 0, 5, range(64), 4, 16, torch.device("cpu"))
    said = batch.asked["motion"] != batches.UNSAID
    assert 0 < said.sum() < 64
    real = torch.zeros(64, 4, 12)
    assert trainer._astray(real, real, batch) == 0
    assert trainer._astray(real + 5.0 * ~said[:, None, None], real, batch) == 0
    assert trainer._astray(real + 5.0, real, batch) > 4


@pytest.mark.parametrize("world", ["shapes", "critters"])
def test_a_world_that_does_not_tell_its_chances_is_trained_on_by_the_game_alone(world):
    trainer = gan.Trainer(dataclasses.replace(TINY, world=world), torch.device("cpu"), run.Processes())
    figures = [trainer.step(step) for step in range(1, TINY.head_start + 2)]
    assert figures[-1]["astray"] == 0


def test_resuming_takes_the_very_steps_that_would_have_come(tmp_path):
    """Stopped between two saves, by the signal that a user sends."""
    TINY.train(tmp_path / "whole", device="cpu")

    def stop_at_six(step):
        if step.step == 6:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="stopped after step 7"):
        TINY.train(tmp_path / "halves", device="cpu", on_step=stop_at_six)
    TINY.train(tmp_path / "halves", device="cpu", resume=True)
    whole, halves = model(tmp_path / "whole"), model(tmp_path / "halves")
    assert all(torch.equal(whole[name], halves[name]) for name in whole)
    figures = [(tmp_path / name / run.METRICS).read_text().splitlines() for name in ("whole", "halves")]
    one, other = ([{**json.loads(line), "hours": 0} for line in lines] for lines in figures)
    assert one == other


def test_an_interrupted_run_has_saved_its_state_and_says_how_to_go_on(tmp_path):
    def stop(step):
        if step.step == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted) as error:
        TINY.train(tmp_path / "run", device="cpu", on_step=stop)
    assert "--resume" in error.value.hint
    assert error.value.exit_code == 130
    assert (tmp_path / "run" / run.STATE).exists()
    assert not list((tmp_path / "run").glob(".*"))


def test_a_second_interrupt_is_obeyed_at_once(tmp_path):
    with run.stopping() as stopped:
        os.kill(os.getpid(), signal.SIGINT)
        assert stopped()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_second_interrupt_waits_until_what_belongs_together_is_written():
    done = []

    def write():
        with run.undisturbed():
            signal.raise_signal(signal.SIGINT)
            done.append("weights")
            signal.raise_signal(signal.SIGINT)
            done.append("their sum")

    with run.stopping() as stopped:
        with pytest.raises(KeyboardInterrupt):
            write()
        assert stopped()
    assert done == ["weights", "their sum"]
    with run.undisturbed():
        pass


@pytest.mark.slow
@pytest.mark.parametrize("pause", [0.0, 0.3])
def test_two_interrupts_leave_a_run_that_goes_on(tmp_path, pause):
    """Whenever the second one comes: the exit code, a checkpoint that is whole, and a state to resume from."""
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "kinetograph", "train", "gan-tiny", "--device", "cpu", "--out", str(folder)]
    process = subprocess.Popen([*command, "--steps", "4000"], stderr=subprocess.PIPE, text=True)
    while not (folder / run.STATE).exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    time.sleep(pause)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert weights.verify(folder)
    step = run.load_state(folder, {})["step"]
    TINY.train(folder, device="cpu", resume=True, steps=step + 2)
    assert run.load_state(folder, {})["step"] == step + 2


def test_another_recipe_or_an_occupied_folder_is_refused(tmp_path):
    TINY.train(tmp_path / "run", device="cpu", steps=2)
    with pytest.raises(TrainingError, match="not empty"):
        TINY.train(tmp_path / "run", device="cpu")
    with pytest.raises(TrainingError) as error:
        dataclasses.replace(TINY, rate=1.0).train(tmp_path / "run", device="cpu", resume=True)
    assert "rate" in error.value.hint
    with pytest.raises(TrainingError, match="no run to resume"):
        TINY.train(tmp_path / "other", device="cpu", resume=True)


def test_figures_that_are_not_finite_end_the_run_and_keep_the_last_good_state(tmp_path, monkeypatch):
    real = gan.Trainer.step
    monkeypatch.setattr(
        gan.Trainer, "step", lambda self, step: {"critic": float("nan")} if step == 6 else real(self, step)
    )
    with pytest.raises(TrainingError, match="step 6"):
        TINY.train(tmp_path / "run", device="cpu")
    assert run.load_state(tmp_path / "run", {})["step"] == 4


def test_a_recipe_is_found_by_name_and_says_its_command():
    for name in recipes.names():
        assert f"kinetograph train {name}" in recipes.describe(name)
        assert dataclasses.is_dataclass(recipes.get(name))
    with pytest.raises(UnknownName):
        recipes.get("gam")


def test_the_slope_penalty_is_the_squared_gradient():
    x = torch.randn(2, 3, 1, 2, 2, requires_grad=True)
    slope = torch.randn(2, 3, 1, 2, 2)
    judged = (x * slope).sum(dim=(1, 2, 3, 4))
    torch.testing.assert_close(gan.squared_slope(judged, x), slope.square().sum(dim=(1, 2, 3, 4)).mean())


def test_the_reader_learns_to_name_colours(tmp_path):
    tiny = dataclasses.replace(
        recipes.get("reader"), model="tiny", steps=120, batch=32, warmup=5, bfloat16=False, rate=3e-3
    )
    losses = []
    tiny.train(tmp_path / "reader", device="cpu", on_step=lambda step: losses.append(step.figures["loss"]))
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])


@pytest.mark.slow
def test_two_processes_take_the_same_steps_as_one(tmp_path):
    # sentences are told apart, and what is said averaged over those that say it, within a process's part of the batch
    apart = dict.fromkeys(("contrast", "naming", "obedience", "exactness", "exactness_at_first"), 0.0)
    change = {"steps": 6, "head_start": 0, **apart}
    dataclasses.replace(TINY, **change).train(tmp_path / "one", device="cpu")
    script = tmp_path / "pair.py"
    script.write_text(
        "import dataclasses, pathlib, sys\n"
        "from kinetograph.neural.training import recipes\n"
        f"recipe = dataclasses.replace(recipes.get('gan-tiny'), **{change})\n"
        "recipe.train(pathlib.Path(sys.argv[1]), device='cpu')\n"
    )
    in_two_processes(script, tmp_path / "two")
    one, two = flat(model(tmp_path / "one")), flat(model(tmp_path / "two"))
    start = flat(gan.Trainer(TINY, torch.device("cpu"), run.Processes()).generator.state_dict())
    # not element by element: Adam turns the rounding of a gradient that is zero (a key's bias) into a whole step
    assert (one - two).norm() < 0.05 * (one - start).norm()
    assert len((tmp_path / "two" / run.METRICS).read_text().splitlines()) == 6


@pytest.mark.slow
@pytest.mark.parametrize(("bfloat16", "apart"), [(False, 0.1), (True, 0.3)])
def test_two_processes_that_share_the_weights_take_the_same_steps_as_one_and_resume(
    tmp_path, one_thread, monkeypatch, bfloat16, apart
):
    monkeypatch.setattr(run, "has_bfloat16", lambda device: True)  # slowly, where there are no instructions for it
    # sentences are named within a process's part: their losses are means of means, and equal; the rest is a sum
    change = {"known": 0.0, "bfloat16": bfloat16}
    recipe = dataclasses.replace(recipes.get("flow-tiny"), **change)
    # with as many threads as each of the two has: components that hardly spread are any axes, by rounding
    recipe.train(tmp_path / "one", device="cpu")
    script = tmp_path / "pair.py"
    script.write_text(
        "import dataclasses, pathlib, sys\n"
        "from kinetograph.neural.training import recipes, run\n"
        "run.has_bfloat16 = lambda device: True\n"
        f"recipe = dataclasses.replace(recipes.get('flow-tiny'), **{change}, sharded=True)\n"
        "steps = int(sys.argv[2])\n"
        "recipe.train(pathlib.Path(sys.argv[1]), device='cpu', steps=steps, resume=len(sys.argv) > 3)\n"
    )
    if bfloat16:
        in_two_processes(script, tmp_path / "two", recipe.steps)
    else:
        in_two_processes(script, tmp_path / "two", recipe.steps - 2)
        in_two_processes(script, tmp_path / "two", recipe.steps, "resume")
    one, two = flat(model(tmp_path / "one")), flat(model(tmp_path / "two"))
    start = flat(model(tmp_path / "one") | first_weights(recipe))
    assert (one - two).norm() < apart * (one - start).norm()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "engine"), [("gan-tiny", "gan"), ("layered-tiny", "flow")])
def test_the_recipe_runs_under_torchrun_from_the_command_line_and_resumes(tmp_path, name, engine):
    """Its real losses, the figures of every step once, and a run that one process began."""
    recipe, run_ = recipes.get(name), tmp_path / "run"
    recipe.train(run_, device="cpu", steps=recipe.steps - 4)
    command = ["-m", "kinetograph", "train", name, "--device", "cpu", "--out", str(run_)]
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}"]
    subprocess.run([sys.executable, *launcher, *command, "--resume"], check=True, env=surroundings(), timeout=300)
    lines = [json.loads(line) for line in (run_ / run.METRICS).read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, recipe.steps + 1))
    assert all(p.isfinite().all() for p in model(run_).values())
    reference = f"{engine}:{run_}"
    assert generate(reference, describe(reference).request("a red ball", seed=1))


def in_layers(folder, **change):
    """In two processes train a tiny model of layers in a folder, with these settings, and return it."""
    script = folder / "pair.py"
    script.write_text(
        "import dataclasses, pathlib, sys\n"
        "from kinetograph.neural.training import recipes\n"
        f"recipe = dataclasses.replace(recipes.get('layered-tiny'), **{change})\n"
        "recipe.train(pathlib.Path(sys.argv[1]), device='cpu')\n"
    )
    in_two_processes(script, folder / "run")
    return folder / "run"


@pytest.mark.slow
def test_two_processes_learn_of_layers_though_one_has_no_picture(tmp_path):
    assert changed(in_layers(tmp_path, stills=1, drawings=1)) == {"text", "completion", "painter", "matting", "courses"}


@pytest.mark.slow
def test_what_no_process_used_stays_as_it_is(tmp_path):
    """A head start of naming alone must not let the weights decay that only scenes teach."""
    assert changed(in_layers(tmp_path, head_start=6)) == {"text", "completion"}


def changed(folder):
    """Which parts of a model of layers are other than before it learnt, but for rounding."""
    found = weights.configuration(folder)
    torch.manual_seed(found["recipe"]["seed"])
    first = layered.Model(layered.Config.of(found["config"]))
    kept = load_file(folder / weights.MODEL)
    assert all(value.isfinite().all() for value in kept.values())
    others = [name for name, weight in first.named_parameters() if (weight.half() != kept[name]).any()]
    return {name.partition(".")[0] for name in others}


def test_the_average_follows_at_its_decay_and_hurries_at_first():
    """After n steps of which all saw ones it is one minus the product of the decays, whatever it began with."""
    learning, decay = torch.nn.BatchNorm1d(1), 0.9
    learning.weight.data.zero_()
    average = Average(learning, decay)
    learning.weight.data.fill_(1.0)
    learning.num_batches_tracked.fill_(7)
    left = 1.0
    for step in range(1, 400):
        average.follow(learning, step)
        left *= min(decay, step / (step + 20))
        assert float(average.model.weight.detach()) == pytest.approx(1 - left, abs=1e-6)
    assert int(average.model.num_batches_tracked) == 7  # what is counted is taken as it is
    learning.weight.data.fill_(2.0)
    average.follow(learning, 1000)
    assert float(average.model.weight.detach()) == pytest.approx(1 + (1 - decay), abs=1e-5)
    assert not average.model.weight.requires_grad


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="nothing else heeds it")
def test_a_training_on_a_cpu_keeps_the_memory_that_tensors_free():
    """Counted in pages that the system had to fill, in a process of its own."""
    script = (
        "import resource, torch\n"
        "from kinetograph.neural.device import keep_memory\n"
        "def filled():\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    for _ in range(8):\n"
        "        torch.ones(2**22).add_(1)\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "given = filled(); keep_memory(); filled(); print(given, filled())\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, env=surroundings()
    )
    given, kept = map(int, said.stdout.split())
    assert kept < given / 4


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def first_weights(recipe):
    return dict(flow.Trainer(recipe, torch.device("cpu"), run.Processes()).model.named_parameters())


def in_two_processes(*words):
    """Run it twice at once, each told what torchrun would tell it, without the time that torchrun takes."""
    together = surroundings() | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    command = [sys.executable, *map(str, words)]
    both = [
        subprocess.Popen(command, env=together | {"RANK": str(place), "LOCAL_RANK": str(place)}) for place in range(2)
    ]
    try:
        assert [one.wait(timeout=300) for one in both] == [0, 0]
    finally:
        for one in both:
            one.kill()


def surroundings():
    return os.environ | {
        "PYTHONPATH": os.pathsep.join([str(Path(weights.__file__).parents[2]), os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
    }


def flat(tensors):
    return torch.cat([tensors[name].reshape(-1).float() for name in sorted(tensors)])


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_each_process_of_a_machine_takes_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [str(device.choose("auto", place)) for place in range(3)] == ["cuda:0", "cuda:1", "cuda:0"]
