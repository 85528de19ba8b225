"""Data sets: what is written is read back, by us and by anybody's tools, and damage is noticed."""

import json
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from itertools import product
from multiprocessing import get_context

import numpy as np
import pytest
from PIL import Image

from kinetograph import dataset
from kinetograph.dataset import chance, plan, writing
from kinetograph.errors import CannotWrite, DatasetError, InvalidRequest, UnknownName
from kinetograph.neural.training import batches
from kinetograph.video import Video
from kinetograph.worlds import circle


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("circles")
    return dataset.write("circle", 25, folder, shard=10, split="all", seed=5)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_is_read_is_what_the_world_draws(written):
    sample = written[13]
    rng = chance.source(5, 13)
    scene = circle.sample(rng)
    assert sample.caption == circle.caption(scene, rng)
    assert sample.attributes == circle.attributes(scene)
    assert np.array_equal(sample.frames, circle.draw([scene], 10, 64, 64)[0])
    assert sample.fps == circle.FPS


@pytest.mark.parametrize(("frames", "width", "height"), [(1, 16, 16), (7, 80, 33), (3, 64, 100), (2, 200, 16)])
def test_frames_are_exact_at_any_size(frames, width, height, tmp_path):
    written = dataset.write("circle", 40, tmp_path, frames=frames, size=(width, height), split="all")
    scenes = [circle.sample(chance.source(0, place)) for place in range(40)]
    drawn = circle.draw(scenes, frames, height, width)
    assert all(np.array_equal(sample.frames, clip) for sample, clip in zip(written, drawn, strict=True))


def test_a_world_that_does_not_stamp_has_its_frames_stored(written, tmp_path, monkeypatch):
    monkeypatch.delattr(circle, "stamps")
    plain = dataset.write("circle", 25, tmp_path / "plain", shard=10, split="all", seed=5)
    assert all(np.array_equal(ours.frames, theirs.frames) for ours, theirs in zip(plain, written, strict=True))
    with tarfile.open(plain.folder / "circle-all-000000.tar") as file:
        file.extract("000000003.npz", tmp_path, filter="data")
    assert np.array_equal(Video.load(tmp_path / "000000003.npz").frames, written[3].frames)


def test_a_clip_taken_out_of_a_shard_is_a_video(written, tmp_path):
    with tarfile.open(written.folder / "circle-all-000000.tar") as file:
        file.extract("000000003.npz", tmp_path, filter="data")
    assert np.array_equal(Video.load(tmp_path / "000000003.npz").frames, written[3].frames)


def test_a_clip_draws_the_same_numbers_alone_and_among_others():
    together = [source.random() for source in chance.sources(5, range(3, 9))]
    assert together == [chance.source(5, place).random() for place in range(3, 9)]
    assert len({*together, *(source.random() for source in chance.sources(6, range(3, 9)))}) == 12


def test_a_source_goes_on_where_its_row_ends():
    ours, again = chance.source(5, 13), chance.source(5, 13)
    numbers = [ours.random() for _ in range(2 * chance.ROW)]
    assert numbers == [again.random() for _ in range(2 * chance.ROW)]
    assert len(set(numbers)) == 2 * chance.ROW


def test_a_source_is_a_generator_to_whoever_asks_for_more():
    rng = chance.source(5, 13)
    assert {rng.integers(3) for _ in range(40)} == {0, 1, 2}
    assert 4 <= rng.integers(4, 6) < 6
    assert 2 <= rng.uniform(2, 3) < 3
    assert rng.random(3).shape == rng.uniform(0, 1, 3).shape == rng.standard_normal(3).shape == (3,)
    assert sorted(rng.permutation(4)) == [0, 1, 2, 3]


def test_no_clip_draws_the_numbers_of_training():
    keys = [(seed, *key) for seed in (0, 1) for key in product(range(8), range(8))]
    training = {batches.source(*key).random() for key in keys}
    ours = {numbers.random() for seed in (0, 1) for numbers in chance.sources(seed, range(64))}
    beyond = {chance.source(seed, place).random(1)[0] for seed in (0, 1) for place in range(64)}
    assert len(training | ours | beyond) == 3 * 128


def test_a_data_set_is_a_sequence(written):
    assert len(written) == 25
    assert [sample.caption for sample in written[20:]] == [written[i].caption for i in range(20, 25)]
    assert written[-1].caption == written[24].caption
    with pytest.raises(IndexError):
        written[25]


def test_every_clip_says_which_split_it_belongs_to(written):
    assert sum(written.splits.values()) == 25
    heldout = written.only("heldout")
    assert len(heldout) == written.splits["heldout"] > 0
    assert {sample.split for sample in heldout} == {"heldout"}
    assert {sample.split for sample in written.only("train")} == {"train"}


def test_the_training_split_holds_nothing_that_is_held_out(tmp_path):
    assert dataset.write("circle", 60, tmp_path, split="train").splits == {"train": 60, "heldout": 0}


def test_other_tools_can_read_the_shards(written, tmp_path):
    with tarfile.open(written.folder / "circle-all-000001.tar") as file:
        names = file.getnames()
        assert names[:2] == ["000000010.npz", "000000010.json"]
        assert len(names) == 20
        file.extractall(tmp_path, filter="data")
    with zipfile.ZipFile(tmp_path / "000000010.npz") as file:
        assert file.testzip() is None
    with np.load(tmp_path / "000000010.npz") as arrays:
        assert np.array_equal(arrays["palette"][arrays["index"]], written[10].frames)
    assert json.loads((tmp_path / "000000010.json").read_text())["caption"] == written[10].caption


def test_the_same_settings_write_the_same_bytes(written, tmp_path):
    dataset.write("circle", 25, tmp_path, shard=10, split="all", seed=5)
    assert contents(tmp_path) == contents(written.folder)


def test_a_shard_can_be_made_alone(written, tmp_path):
    row = writing.write_shard(written.plan, 2, tmp_path)
    assert row == written.shards[2]


def test_processes_write_what_one_process_writes(written, tmp_path, monkeypatch):
    monkeypatch.setitem(writing.WORTH_A_POOL, "npz", 0)
    again = dataset.write("circle", 25, tmp_path, shard=10, split="all", seed=5, workers=2)
    assert again.shards == written.shards


@pytest.mark.parametrize("also", ["", "import torch; "], ids=["forked", "spawned"])
def test_processes_of_a_fresh_interpreter_write_it_too_however_they_begin(written, tmp_path, also):
    code = (
        f"{also}from kinetograph import dataset\n"
        "from kinetograph.dataset import writing\n"
        "if __name__ == '__main__':\n"
        "    writing.WORTH_A_POOL['npz'] = 0\n"
        f"    dataset.write('circle', 25, {str(tmp_path / 'set')!r}, shard=10, split='all', seed=5, workers=3)\n"
    )
    (tmp_path / "script.py").write_text(code)
    subprocess.run([sys.executable, tmp_path / "script.py"], check=True, timeout=120)
    assert dataset.load(tmp_path / "set").shards == written.shards


def test_another_seed_gives_other_clips(written, tmp_path):
    other = dataset.write("circle", 25, tmp_path, shard=10, split="all", seed=4)
    assert not {row.sha256 for row in other.shards} & {row.sha256 for row in written.shards}


def test_a_large_clip_is_drawn_alone_and_its_sheet_stays_small(tmp_path):
    written = dataset.write("circle", 2, tmp_path, frames=40, size=(1024, 1024))
    assert written.plan.block == 1
    assert written[1].frames.shape == (40, 1024, 1024, 3)
    with Image.open(tmp_path / plan.SHEET) as sheet:
        assert sheet.width < 2000


def test_an_mp4_data_set_reads_back_nearly(tmp_path):
    written = dataset.write("circle", 2, tmp_path, format="mp4", seed=5, split="all")
    exact = circle.draw([circle.sample(chance.source(5, 1))], 10, 64, 64)[0]
    assert np.abs(written[1].frames.astype(int) - exact).mean() < 3


def test_progress_is_told_by_clips(tmp_path):
    told = []
    dataset.write("circle", 5, tmp_path, shard=2, on_progress=lambda *facts: told.append(facts))
    assert told == [(0, 5), (2, 5), (4, 5), (5, 5)]


class Stop(Exception):
    """The caller has had enough."""


def interrupted(folder, **how):
    def stop(done, count):
        if done >= 10:
            raise Stop

    with pytest.raises(Stop):
        dataset.write("circle", 25, folder, shard=10, split="all", seed=5, on_progress=stop, **how)


def test_what_was_interrupted_goes_on_where_it_stopped(written, tmp_path):
    interrupted(tmp_path)
    with pytest.raises(DatasetError, match="unfinished") as caught:
        dataset.load(tmp_path)
    assert "same settings" in caught.value.hint
    first = (tmp_path / "circle-all-000000.tar").stat().st_mtime_ns
    (tmp_path / ".circle-all-000001.tar.part").write_bytes(b"half")
    dataset.write("circle", 25, tmp_path, shard=10, split="all", seed=5)
    assert (tmp_path / "circle-all-000000.tar").stat().st_mtime_ns == first
    assert contents(tmp_path) == contents(written.folder)


def test_processes_are_told_when_they_are_no_longer_wanted(tmp_path, monkeypatch):
    monkeypatch.setitem(writing.WORTH_A_POOL, "npz", 0)
    context, told = get_context("spawn"), []
    event = context.Event
    monkeypatch.setattr(context, "Event", lambda: told.append(event()) or told[-1])
    monkeypatch.setattr(writing, "_context", lambda: context)
    interrupted(tmp_path, workers=2)
    assert [stop.is_set() for stop in told] == [True]
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".part"]


def test_a_process_that_is_told_so_gives_up_and_leaves_nothing(written, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "_stop", event := threading.Event())
    assert writing._write_shard(written.plan, 2, tmp_path) == written.shards[2]
    (tmp_path / written.shards[2].file).unlink()
    event.set()
    with pytest.raises(KeyboardInterrupt):
        writing._write_shard(written.plan, 2, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_finished_data_set_is_left_as_it_is(tmp_path):
    dataset.write("circle", 4, tmp_path, shard=2)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    dataset.write("circle", 4, tmp_path, shard=2)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def altered(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)


def test_an_altered_shard_is_named_and_made_again(tmp_path):
    written = dataset.write("circle", 4, tmp_path, shard=2)
    shard = tmp_path / "circle-train-000001.tar"
    altered(shard, 3000)
    assert dataset.load(tmp_path)[0].caption == written[0].caption
    with pytest.raises(DatasetError, match=r"circle-train-000001\.tar"):
        dataset.load(tmp_path, verify=True)
    with pytest.raises(DatasetError, match=r"circle-train-000001\.tar"):
        dataset.load(tmp_path)[2]
    assert dataset.write("circle", 4, tmp_path, shard=2).shards == written.shards
    dataset.load(tmp_path, verify=True)


def test_a_shard_that_is_missing_or_cut_short_is_named(tmp_path):
    dataset.write("circle", 4, tmp_path, shard=2)
    shard = tmp_path / "circle-train-000001.tar"
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(DatasetError, match=r"circle-train-000001\.tar"):
        dataset.load(tmp_path)
    shard.unlink()
    with pytest.raises(DatasetError, match="missing"):
        dataset.load(tmp_path)


def test_a_manifest_that_makes_no_sense_is_refused(tmp_path):
    dataset.write("circle", 4, tmp_path)
    said = json.loads((tmp_path / "manifest.json").read_text())
    for broken in ("", "[]", "{}", json.dumps(said | {"shards": []}), json.dumps(said | {"kinetograph_dataset": 99})):
        (tmp_path / "manifest.json").write_text(broken)
        with pytest.raises(DatasetError, match=r"manifest\.json"):
            dataset.load(tmp_path)


def test_a_folder_with_another_data_set_is_left_alone(tmp_path):
    dataset.write("circle", 4, tmp_path)
    before = contents(tmp_path)
    with pytest.raises(DatasetError, match="count 4 there, 5 here") as caught:
        dataset.write("circle", 5, tmp_path)
    assert caught.value.hint
    assert contents(tmp_path) == before


def test_a_folder_with_anything_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(DatasetError, match=r"thesis\.tex"):
        dataset.write("circle", 4, tmp_path)
    with pytest.raises(DatasetError, match="no data set"):
        dataset.load(tmp_path)
    assert contents(tmp_path) == {"thesis.tex": b"years of work"}


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ({"format": "avi"}, UnknownName),
        ({"split": "test"}, UnknownName),
        ({"world": "cube"}, UnknownName),
        ({"count": 0}, InvalidRequest),
        ({"seed": -1}, InvalidRequest),
        ({"size": (8, 64)}, InvalidRequest),
        ({"frames": 5000}, InvalidRequest),
        ({"format": "mp4", "size": (129, 130)}, InvalidRequest),
        ({"shard": 0}, InvalidRequest),
    ],
)
def test_impossible_settings_are_refused_before_anything_is_written(how, error, tmp_path):
    with pytest.raises(error) as caught:
        dataset.write(**({"world": "circle", "count": 4, "out": tmp_path / "new"} | how))
    assert caught.value.hint
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_made_is_an_error_with_a_name(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotWrite):
        dataset.write("circle", 4, tmp_path / "file" / "inside")


def test_reading_a_data_set_needs_no_torch(written):
    read = f"from kinetograph import dataset; dataset.load({str(written.folder)!r})[0]"
    code = f"import sys; {read}; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.slow
def test_two_thousand_clips_are_written_in_seconds(tmp_path):
    start = time.perf_counter()
    dataset.write("circle", 2000, tmp_path)
    assert time.perf_counter() - start < 15  # a second on a machine with nothing else to do


@pytest.mark.parametrize("how", [{"frames": 0}, {"workers": 0}, {"workers": -4}])
def test_a_number_of_nothing_is_refused_not_taken_for_the_usual_one(tmp_path, how):
    with pytest.raises(InvalidRequest, match=f"{next(iter(how))} is"):
        dataset.write("circle", 2, tmp_path / "new", **how)


def test_a_file_of_somebody_else_is_left_alone_whatever_it_is_called(tmp_path):
    dataset.write("circle", 4, tmp_path, shard=2)
    (tmp_path / "download.part").write_bytes(b"half")
    (tmp_path / "circle-train-000001.tar").unlink()
    dataset.write("circle", 4, tmp_path, shard=2)
    assert (tmp_path / "download.part").read_bytes() == b"half"
