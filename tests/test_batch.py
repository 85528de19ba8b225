"""Many prompts: each gets its clip, once, whatever interrupts the work."""

import json
from pathlib import Path

import pytest

from kinetograph import batch
from kinetograph.errors import CannotRead, InvalidRequest, InvalidVideo, OutputExists, UnknownName, UnsupportedFormat
from kinetograph.video import Video

PROMPTS = ["a red circle moving left", "a blue ball at rest", "a green disc rising quickly"]


def run(folder, prompts=PROMPTS, **how):
    return batch.run("render", prompts, folder, **({"seed": 5, "format": "npz"} | how))


def lines(folder):
    return [json.loads(line) for line in (folder / batch.MANIFEST).read_text().splitlines()]


def stamps(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.npz")}


def test_every_prompt_becomes_a_clip_under_its_own_seed(tmp_path):
    outcome = run(tmp_path / "new")
    assert (outcome.made, outcome.kept, outcome.failed, outcome.seed) == (3, 0, (), 5)
    clips = [Video.load(tmp_path / "new" / f"000{n}.npz") for n in range(3)]
    assert [clip.provenance.request.prompt for clip in clips] == PROMPTS
    assert [clip.provenance.request.seed for clip in clips] == [5, 6, 7]
    assert [line["file"] for line in lines(tmp_path / "new")] == ["0000.npz", "0001.npz", "0002.npz"]


def test_what_is_finished_is_not_made_again(tmp_path):
    run(tmp_path)
    before = stamps(tmp_path)
    outcome = run(tmp_path)
    assert (outcome.made, outcome.kept) == (0, 3)
    assert stamps(tmp_path) == before
    assert len(lines(tmp_path)) == 3


def test_a_batch_goes_on_after_it_was_killed(tmp_path):
    def stop(entry):
        if entry.index == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, on_entry=stop)
    (tmp_path / ".0123456789ab.part").write_bytes(b"half")  # what a kill in the middle of writing leaves
    (tmp_path / "0002.npz").write_bytes(b"written, but not yet in the manifest")
    with (tmp_path / batch.MANIFEST).open("a") as file:
        file.write('{"index": 2, "pro')
    before = stamps(tmp_path)
    outcome = run(tmp_path)
    assert (outcome.made, outcome.kept) == (1, 2)
    assert [name for name, stamp in stamps(tmp_path).items() if before[name] != stamp] == ["0002.npz"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0000.npz", "0001.npz", "0002.npz", "manifest.jsonl"]
    assert [line["index"] for line in lines(tmp_path)] == [0, 1, 2]


def test_prompts_may_be_added_at_the_end(tmp_path):
    run(tmp_path, PROMPTS[:2])
    assert run(tmp_path).made == 1


def test_a_clip_that_is_gone_is_made_again(tmp_path):
    run(tmp_path)
    (tmp_path / "0001.npz").unlink()
    outcome = run(tmp_path)
    assert (outcome.made, outcome.kept) == (1, 2)
    assert Video.load(tmp_path / "0001.npz").provenance.request.seed == 6


def test_a_prompt_that_cannot_be_made_is_recorded_and_the_rest_go_on(tmp_path):
    prompts = [PROMPTS[0], "a white circle on a white background", PROMPTS[2]]
    outcome = run(tmp_path, prompts)
    assert outcome.made == 2
    assert [entry.index for entry in outcome.failed] == [1]
    assert "no visible clip" in lines(tmp_path)[1]["error"]
    again = run(tmp_path, prompts)  # it may not fail the next time
    assert (again.made, again.kept, len(again.failed)) == (0, 2, 1)


def test_the_seed_of_a_folder_is_remembered(tmp_path):
    first = run(tmp_path, PROMPTS[:2], seed=None)
    second = run(tmp_path, seed=None)
    assert (second.seed, second.made) == (first.seed, 1)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"prompts": ["something else", *PROMPTS[1:]]}, "something else"),
        ({"prompts": PROMPTS[:2]}, "nothing"),
        ({"seed": 6}, "seed"),
        ({"settings": {"frames": 4}}, "settings"),
        ({"format": "gif"}, "gif"),
    ],
)
def test_a_folder_of_other_clips_is_left_alone(changed, said, tmp_path):
    run(tmp_path)
    before = stamps(tmp_path)
    with pytest.raises(OutputExists, match=said) as caught:
        run(tmp_path, **changed)
    assert caught.value.hint
    assert stamps(tmp_path) == before
    assert len(lines(tmp_path)) == 3


def test_a_clip_that_was_changed_is_noticed_and_kept(tmp_path):
    run(tmp_path)
    (tmp_path / "0001.npz").write_bytes(b"mine now")
    with pytest.raises(OutputExists, match="changed"):
        run(tmp_path)
    assert (tmp_path / "0001.npz").read_bytes() == b"mine now"


def test_files_of_somebody_else_are_not_replaced(tmp_path):
    (tmp_path / "0001.npz").write_bytes(b"mine")
    with pytest.raises(OutputExists, match=r"0001\.npz"):
        run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["0001.npz"]


def test_everything_is_made_anew_when_asked(tmp_path):
    run(tmp_path)
    assert run(tmp_path, seed=9, overwrite=True).made == 3
    assert [line["seed"] for line in lines(tmp_path)] == [9, 10, 11]


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ({"format": "avi"}, UnsupportedFormat),
        ({"settings": {"frames": 1}}, InvalidRequest),
        ({"settings": {"options": {"steps": 3}}}, InvalidRequest),
        ({"settings": {"width": 65, "height": 65}, "format": "mp4", "enlarge": 1}, UnsupportedFormat),
    ],
)
def test_settings_that_fit_no_prompt_are_refused_before_the_first(how, error, tmp_path):
    with pytest.raises(error):
        run(tmp_path, **how)
    assert not [*tmp_path.iterdir()]


def test_an_unknown_engine_is_refused(tmp_path):
    with pytest.raises(UnknownName):
        batch.run("rendr", PROMPTS, tmp_path, seed=1)


def test_a_file_of_prompts_is_one_a_line_without_the_blank_ones(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeffa red ball\r\n\r\n  ein grüner Kreis \n".encode())
    assert batch.read_prompts(path) == ["a red ball", "ein grüner Kreis"]


def test_a_file_without_prompts_is_refused(tmp_path):
    (tmp_path / "blank.txt").write_text("\n \n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidRequest):
        batch.read_prompts(tmp_path / "blank.txt")
    for unreadable in (tmp_path / "binary.txt", Path(tmp_path / "missing.txt"), tmp_path):
        with pytest.raises(CannotRead):
            batch.read_prompts(unreadable)


def test_a_crash_inside_a_letter_and_strange_line_ends_do_not_damage_the_manifest(tmp_path):
    prompts = ["a red ball rising, s'il vous plaît", "a blue dot\u2028moving left"]
    run(tmp_path, prompts)
    manifest = tmp_path / batch.MANIFEST
    manifest.write_bytes(manifest.read_bytes() + '{"prompt": "é'.encode()[:-1])
    assert run(tmp_path, prompts).kept == 2
    assert len(lines(tmp_path)) == 2


@pytest.mark.parametrize(("how", "said"), [({"provenance": False}, "provenance"), ({"enlarge": 2}, "enlarge")])
def test_what_else_decides_what_is_in_a_file_must_be_the_same(tmp_path, how, said):
    run(tmp_path)
    with pytest.raises(OutputExists, match=said):
        run(tmp_path, **how)


def test_what_is_made_anew_does_not_stand_beside_what_was_there(tmp_path):
    run(tmp_path)
    run(tmp_path, PROMPTS[:1], overwrite=True)
    assert set(stamps(tmp_path)) == {"0000.npz"}


def test_a_factor_of_nothing_is_refused_before_the_first(tmp_path):
    with pytest.raises(InvalidVideo, match="enlarge is 0"):
        run(tmp_path, enlarge=0)
    assert not stamps(tmp_path)
