"""Media: what is written is read back, what cannot be is refused by name, and nothing half-written stays
behind.
"""

import errno
import json
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from kinetograph import media
from kinetograph.errors import (
    CannotRead,
    CannotWrite,
    InvalidVideo,
    MediaError,
    OutputExists,
    UnsupportedFormat,
)

SUFFIXES = list(media.FORMATS)
EXACT = [suffix for suffix, row in media.FORMATS.items() if row.keeps == "every pixel"]
LOSSY = [suffix for suffix, row in media.FORMATS.items() if row.lossy]
FILES = [suffix for suffix in SUFFIXES if suffix]
SECRET = "a zebra 🦓 on the ملعب"


def shapes(t=6, h=64, w=64):
    """A clip of few flat colours in which something moves."""
    frames = np.full((t, h, w, 3), (30, 60, 90), np.uint8)
    for i in range(t):
        frames[i, h // 4 : h // 2, i : i + w // 3] = (250, 30, 20)
        frames[i, h // 2 : h - h // 8, w // 2 :] = (20, 200, 40)
    return frames


def noise(t=3, h=5, w=7):
    return np.random.default_rng(0).integers(0, 256, (t, h, w, 3), dtype=np.uint8)


def psnr(a, b):
    return 10 * np.log10(255**2 / max(1e-9, np.mean((a.astype(float) - b) ** 2)))


def roundtrip(path, frames, fps=Fraction(10), **more):
    _, h, w, _ = frames.shape
    media.write(path, frames, fps, enlarge=media.enlargement(w, h, Path(path).suffix), **more)
    clip = media.read(path)
    return media.reduced(clip.frames, clip.enlarged), clip


# --- round trips --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("fps", [Fraction(10), Fraction(8), Fraction(30000, 1001), Fraction(1, 1000), Fraction(1000)])
def test_the_rate_the_count_and_the_metadata_come_back_exactly(tmp_path, suffix, fps):
    metadata = json.dumps({"prompt": SECRET, "quoted": '<a> & "b" --> \\'}, ensure_ascii=False)
    frames, clip = roundtrip(tmp_path / f"clip{suffix}", shapes(), fps, metadata=metadata)
    assert clip.fps == fps
    assert clip.metadata == metadata
    assert frames.shape == shapes().shape


@pytest.mark.parametrize("suffix", [*EXACT, ".gif"])
def test_every_pixel_of_a_clip_of_few_colours_comes_back(tmp_path, suffix):
    frames, _ = roundtrip(tmp_path / f"clip{suffix}", shapes())
    assert np.array_equal(frames, shapes())


@pytest.mark.parametrize("suffix", EXACT)
def test_every_pixel_of_noise_comes_back(tmp_path, suffix):
    frames, _ = roundtrip(tmp_path / f"clip{suffix}", noise(3, 32, 48))
    assert np.array_equal(frames, noise(3, 32, 48))


@pytest.mark.parametrize("suffix", LOSSY)
def test_a_small_clip_survives_a_lossy_format_because_it_is_enlarged(tmp_path, suffix):
    frames, clip = roundtrip(tmp_path / f"clip{suffix}", shapes())
    assert clip.enlarged == 4
    assert clip.frames.shape == (6, 256, 256, 3)
    assert psnr(frames, shapes()) > 40
    assert psnr(clip.frames, shapes().repeat(4, 1).repeat(4, 2)) > 40


@pytest.mark.parametrize("suffix", LOSSY)
def test_a_player_is_told_which_colours_were_meant(tmp_path, suffix):
    media.write(tmp_path / f"clip{suffix}", shapes(), Fraction(10))
    with av.open(str(tmp_path / f"clip{suffix}")) as file:
        context = file.streams.video[0].codec_context
        tags = (context.colorspace, context.color_primaries, context.color_trc, context.color_range)
        assert [int(tag) for tag in tags] == [1, 1, 1, 1]
        assert context.pix_fmt == "yuv420p"
        assert file.streams.video[0].average_rate == 10


def test_an_mp4_can_be_played_before_it_has_come_whole(tmp_path):
    raw = media.write(tmp_path / "clip.mp4", shapes(), Fraction(10)).read_bytes()
    assert raw.index(b"moov") < raw.index(b"mdat")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (3, 1, 2, 3), (2, 3, 3, 3), (2, 4, 4, 3), (5, 5, 7, 3), (2, 63, 2, 3)])
def test_tiny_and_odd_clips_come_back_in_shape(tmp_path, suffix, shape):
    frames, _ = roundtrip(tmp_path / f"clip{suffix}", noise(*shape[:3]))
    assert frames.shape == shape
    if suffix not in LOSSY:
        assert np.array_equal(frames, noise(*shape[:3]))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("held", [[10], [1, 3, 1], [2, 1, 4]])
def test_a_picture_that_stands_still_is_not_lost(tmp_path, suffix, held):
    stills = np.repeat(shapes(len(held), 16, 16), held, axis=0)
    frames, clip = roundtrip(tmp_path / f"clip{suffix}", stills)
    assert len(clip.frames) == sum(held)
    assert psnr(frames, stills) > 35


def test_a_gif_of_many_colours_keeps_its_count_and_looks_alike(tmp_path):
    smooth = np.indices((2, 64, 64)).transpose(1, 2, 3, 0).astype(np.uint8)[..., [1, 2, 0]] * 4
    smooth = np.stack(
        [smooth[0], smooth[0], smooth[0] // 2 * 2]
    )  # two alike, and a third alike once it has 256 colours
    frames, _ = roundtrip(tmp_path / "clip.gif", smooth)
    assert frames.shape == smooth.shape
    assert psnr(frames, smooth) > 25


def test_a_gif_plays_at_its_pace_however_the_frames_fall(tmp_path):
    media.write(tmp_path / "clip.gif", noise(30), Fraction(30))
    with Image.open(tmp_path / "clip.gif") as image:
        total = 0
        for i in range(image.n_frames):
            image.seek(i)
            total += image.info["duration"]
    assert total == 1000


def test_a_very_long_note_comes_back_from_every_format(tmp_path):
    metadata = json.dumps({"prompt": "🦓" * 20_000}, ensure_ascii=False)
    for suffix in SUFFIXES:
        assert roundtrip(tmp_path / f"clip{suffix}", shapes(2, 16, 16), metadata=metadata)[1].metadata == metadata


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_without_metadata_a_file_says_nothing_but_its_rate_and_its_count(tmp_path, suffix):
    path = media.write(tmp_path / f"clip{suffix}", shapes(), Fraction(10))
    assert media.read(path).metadata is None
    files = [path] if path.is_file() else [*path.iterdir()]
    assert not any(b"provenance" in file.read_bytes() for file in files)


def test_a_folder_of_pictures_sorts_as_it_plays(tmp_path):
    media.write(tmp_path / "frames", noise(12), Fraction(10), metadata='{"a": 1}')
    names = sorted(item.name for item in (tmp_path / "frames").iterdir())
    assert names == [*(f"frame_{i:04}.png" for i in range(12)), "provenance.json"]
    assert json.loads((tmp_path / "frames/provenance.json").read_text())["provenance"] == {"a": 1}


def test_reducing_undoes_enlarging():
    frames = noise()
    assert np.array_equal(media.reduced(np.stack([media.enlarged(f, 3) for f in frames]), 3), frames)


@pytest.mark.parametrize(
    ("size", "suffix", "times"),
    [
        ((64, 64), ".mp4", 4),
        ((128, 1), ".webm", 4),
        ((129, 64), ".mp4", 1),
        ((64, 64), ".gif", 1),
        ((8, 8), "", 1),
    ],
)
def test_small_clips_are_enlarged_where_colour_would_suffer(size, suffix, times):
    assert media.enlargement(*size, suffix) == times


# --- foreign files ------------------------------------------------------------------------------------------


def test_a_foreign_gif_is_read_by_its_durations(tmp_path):
    images = [Image.fromarray(frame) for frame in shapes(3, 16, 16)]
    images[0].save(
        tmp_path / "a.gif",
        save_all=True,
        append_images=images[1:],
        duration=[100, 300, 100],
        comment=b"hello",
    )
    clip = media.read(tmp_path / "a.gif")
    assert (len(clip.frames), clip.fps, clip.metadata) == (5, 10, None)


def test_a_foreign_picture_is_a_clip_of_one_frame(tmp_path):
    Image.fromarray(shapes(1)[0]).save(tmp_path / "a.png")
    assert np.array_equal(media.read(tmp_path / "a.png").frames, shapes(1))


def test_a_foreign_mp4_is_read_at_its_own_rate(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as file:
        file.metadata["comment"] = '{"made": "elsewhere"}'
        stream = file.add_stream("libx264", rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for frame in shapes():
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode(None))
    clip = media.read(tmp_path / "a.mp4")
    assert (len(clip.frames), clip.fps, clip.metadata, clip.enlarged) == (6, 25, None, 1)


# --- refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((2, 4, 4, 3), np.float32),
        np.zeros((4, 4, 3), np.uint8),
        np.zeros((2, 4, 4, 4), np.uint8),
        np.zeros((0, 4, 4, 3), np.uint8),
        np.zeros((1, 0, 4, 3), np.uint8),
        [[1]],
    ],
)
def test_what_is_no_clip_is_refused(tmp_path, frames):
    with pytest.raises(InvalidVideo, match="frames are"):
        media.write(tmp_path / "a.npz", frames, Fraction(10))


@pytest.mark.parametrize("fps", [0, Fraction(-1), 10.0])
def test_what_is_no_rate_is_refused(tmp_path, fps):
    with pytest.raises(InvalidVideo, match="fps"):
        media.write(tmp_path / "a.npz", shapes(), fps)


@pytest.mark.parametrize("enlarge", [0, -1, 65, 1.5, True])
def test_an_enlargement_that_makes_no_sense_is_refused(tmp_path, enlarge):
    with pytest.raises(InvalidVideo, match="enlarge"):
        media.write(tmp_path / "a.npz", shapes(), Fraction(10), enlarge=enlarge)


@pytest.mark.parametrize("suffix", LOSSY)
def test_an_odd_size_is_refused_by_name_with_the_nearest_even_ones(tmp_path, suffix):
    with pytest.raises(UnsupportedFormat, match="63x5") as refusal:
        media.write(tmp_path / f"a{suffix}", noise(1, 5, 63), Fraction(10))
    assert "62x4 or 64x6" in refusal.value.hint
    media.write(tmp_path / f"a{suffix}", noise(1, 5, 63), Fraction(10), enlarge=2)


@pytest.mark.parametrize("suffix", LOSSY)
def test_a_size_beyond_the_format_is_refused_by_name(tmp_path, suffix):
    with pytest.raises(UnsupportedFormat, match="too large"):
        media.check_target(tmp_path / f"a{suffix}", 8192, 2, enlarge=4)


@pytest.mark.parametrize("name", ["a.avi", "a.mp5", ".mp4", "a\0.mp4"])
def test_a_name_that_means_no_format_is_refused(tmp_path, name):
    for act in (lambda p: media.write(p, shapes(), Fraction(10)), media.format_of):
        with pytest.raises(UnsupportedFormat) as refusal:
            act(f"{tmp_path}/{name}")
        assert refusal.value.hint
    assert not os.listdir(tmp_path)


def test_capitals_and_a_closing_slash_mean_what_they_mean(tmp_path):
    media.write(tmp_path / "A.MP4", shapes(), Fraction(10))
    media.write(f"{tmp_path}/v1.5/", shapes(), Fraction(10))
    assert len(media.read(tmp_path / "v1.5").frames) == len(media.read(tmp_path / "A.MP4").frames) == 6


@pytest.mark.parametrize("metadata", ["{", "not json", '{"a": "\ud800"}', '{"a": "\\ud800"}', "[" * 100_000])
def test_metadata_that_is_not_json_is_refused(tmp_path, metadata):
    with pytest.raises(CannotWrite, match="not one JSON text"):
        media.write(tmp_path / "a.npz", shapes(), Fraction(10), metadata=metadata)
    assert not os.listdir(tmp_path)


# --- what is already there ----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_already_there_is_replaced_only_when_told_to(tmp_path, suffix):
    path = media.write(tmp_path / f"clip{suffix}", shapes(4), Fraction(10))
    with pytest.raises(OutputExists) as refusal:
        media.write(path, shapes(5), Fraction(10))
    assert "--force" in refusal.value.hint
    assert len(media.read(path).frames) == 4
    media.write(path, shapes(5), Fraction(10), overwrite=True)
    assert len(media.read(path).frames) == 5
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def test_a_folder_with_anything_else_in_it_is_never_replaced(tmp_path):
    precious = tmp_path / "home"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    for name in (precious, tmp_path):
        with pytest.raises(OutputExists, match="no clip"):
            media.write(name, shapes(), Fraction(10), overwrite=True)
    assert (precious / "thesis.txt").read_text() == "years of work"


def test_a_device_is_never_replaced():
    with pytest.raises(OutputExists, match="no ordinary file"):
        media.check_target("/dev/null", 64, 64, overwrite=True)


def test_a_file_is_not_replaced_by_a_folder(tmp_path):
    (tmp_path / "clip").write_text("mine")
    with pytest.raises(OutputExists):
        media.write(tmp_path / "clip", shapes(), Fraction(10), overwrite=True)
    assert (tmp_path / "clip").read_text() == "mine"


# --- failures in the middle ---------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("failure", [KeyboardInterrupt(), MemoryError(), RuntimeError("bug")])
def test_an_interrupted_write_leaves_nothing_behind_and_the_old_file_whole(tmp_path, monkeypatch, suffix, failure):
    path = media.write(tmp_path / f"clip{suffix}", shapes(4), Fraction(10))
    calls = []

    def breaking(frame, times):
        calls.append(frame)
        if len(calls) == 3:
            raise failure
        return frame

    monkeypatch.setattr(media, "enlarged", breaking)
    with pytest.raises(type(failure)):
        media.write(path, shapes(6), Fraction(10), overwrite=True, enlarge=2)
    assert [item.name for item in tmp_path.iterdir()] == [path.name]
    assert len(media.read(path).frames) == 4


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("code", "hint"),
    [(errno.ENOSPC, "disk is full"), (errno.EROFS, "read-only"), (errno.EACCES, "may not write")],
)
def test_a_disk_that_refuses_is_named(tmp_path, monkeypatch, suffix, code, hint):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(CannotWrite, match=os.strerror(code)) as refusal:
        media.write(tmp_path / f"clip{suffix}", shapes(), Fraction(10))
    assert hint in refusal.value.hint
    assert str(tmp_path) in str(refusal.value)
    assert not os.listdir(tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("suffix", FILES)
def test_a_disk_that_fills_up_under_the_encoder_is_named(tmp_path, monkeypatch, suffix):
    write = media.FORMATS[suffix].write

    def on_a_full_disk(path, frames, note):
        path.symlink_to("/dev/full")
        write(path, frames, note)

    opened = open
    monkeypatch.setattr(media, "open", lambda path, mode: opened(path, mode.replace("x", "w")), raising=False)
    row = media.Format(**{**vars(media.FORMATS[suffix]), "write": on_a_full_disk})
    monkeypatch.setitem(media.FORMATS, suffix, row)
    with pytest.raises(CannotWrite) as refusal:
        media.write(tmp_path / f"clip{suffix}", noise(20, 64, 64), Fraction(10))
    assert "No space left" in str(refusal.value)
    assert not os.listdir(tmp_path)


def test_a_folder_that_is_not_there_is_named_before_any_work(tmp_path):
    (tmp_path / "file").write_text("")
    for folder, fact in (("missing", "does not exist"), ("file", "is not a folder")):
        with pytest.raises(CannotWrite, match=fact):
            media.check_target(tmp_path / folder / "a.mp4", 64, 64)


def test_a_folder_that_this_user_may_not_write_into_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(CannotWrite, match="may not write into"):
        media.write(tmp_path / "a.mp4", shapes(), Fraction(10))


def test_a_name_that_is_too_long_is_named(tmp_path):
    with pytest.raises(CannotWrite, match="name too long") as refusal:
        media.write(tmp_path / ("x" * 300 + ".gif"), shapes(), Fraction(10))
    assert "shorter" in refusal.value.hint
    assert not os.listdir(tmp_path)


def test_a_long_legal_name_is_written(tmp_path):
    assert media.write(tmp_path / ("x" * 251 + ".gif"), shapes(), Fraction(10)).is_file()


# --- hostile files ------------------------------------------------------------------------------------------


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CannotRead, match="no such file"):
        media.read(tmp_path / "a.mp4")


@pytest.mark.parametrize("suffix", FILES)
@pytest.mark.parametrize(
    "content", [b"", b"\0", b"#EXTM3U\nfile:///etc/passwd", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"PK\3\4"]
)
def test_rubbish_is_refused_and_the_file_named(tmp_path, suffix, content):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(CannotRead, match=f"a{suffix}"):
        media.read(path)


@pytest.mark.parametrize("suffix", FILES)
def test_a_damaged_file_is_read_or_refused_and_nothing_else(tmp_path, suffix):
    rng = np.random.default_rng(0)
    raw = media.write(tmp_path / f"a{suffix}", noise(4, 16, 16), Fraction(10), metadata='{"a": 1}').read_bytes()
    broken = tmp_path / f"b{suffix}"
    for _ in range(60):
        content = np.frombuffer(raw, np.uint8).copy()
        content[rng.integers(len(raw), size=rng.choice([1, 4]))] = rng.integers(256)
        broken.write_bytes(content[: rng.choice([len(raw), rng.integers(len(raw))])].tobytes())
        try:
            assert media.read(broken).frames.ndim == 4
        except MediaError as error:
            assert str(broken) in str(error)  # noqa: PT017 -- either outcome is right


@pytest.mark.parametrize("suffix", FILES)
def test_half_a_file_is_refused(tmp_path, suffix):
    path = media.write(tmp_path / f"a{suffix}", noise(8, 32, 32), Fraction(10))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CannotRead, match=f"a{suffix}"):
        media.read(path)


def test_a_folder_that_lost_a_picture_is_refused(tmp_path):
    path = media.write(tmp_path / "frames", noise(3), Fraction(10))
    (path / "frame_0001.png").unlink()
    with pytest.raises(CannotRead, match="2 pictures are left of 3"):
        media.read(path)
    (path / "provenance.json").unlink()
    with pytest.raises(CannotRead, match=r"no provenance\.json"):
        media.read(path)


def test_pictures_larger_than_a_video_may_be_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    for suffix in SUFFIXES:
        media.write(tmp_path / f"a{suffix}", shapes(3, 16, 16), Fraction(10))
    monkeypatch.setattr(media, "MAX_PIXELS", 16 * 16 * 2)
    for suffix in SUFFIXES:
        with pytest.raises(CannotRead, match=r"safely"):
            media.read(tmp_path / f"a{suffix}")


@pytest.mark.parametrize(
    "lie",
    [
        {"fps": "1/0"},
        {"fps": "-3"},
        {"fps": "x"},
        {"frames": 7},
        {"frames": "many"},
        {"enlarged": 0},
        {"enlarged": 5},
        {"enlarged": 10**9},
        {"shown": [10**12, 1, 1]},
        {"shown": [-1, 2, 2]},
        {"shown": 3},
        {"shown": [3]},
    ],
)
def test_a_note_that_lies_is_refused(tmp_path, lie):
    path = media.write(tmp_path / "frames", noise(3, 8, 8), Fraction(10))
    note = json.loads((path / "provenance.json").read_text())
    (path / "provenance.json").write_text(json.dumps({**note, **lie}))
    with pytest.raises(CannotRead, match="frames"):
        media.read(path)


# --- contact sheets -----------------------------------------------------------------------------------------


def test_a_contact_sheet_shows_every_frame_of_every_clip(tmp_path):
    clips = [shapes(3, 16, 16), shapes(5, 16, 16)]
    path = media.write_contact_sheet(tmp_path / "sheet.png", clips, ["one", "two"], scale=2)
    with Image.open(path) as image:
        sheet = np.asarray(image.convert("RGB"))
    assert sheet.shape == (2 * (18 + 32 + 4), 5 * (32 + 4), 3)
    assert np.array_equal(sheet[18:50:2, 36:68:2], clips[0][1])


def test_a_contact_sheet_is_a_png_of_something_with_a_label_each(tmp_path):
    with pytest.raises(UnsupportedFormat):
        media.write_contact_sheet(tmp_path / "sheet.jpg", [shapes()])
    with pytest.raises(InvalidVideo, match="at least one"):
        media.write_contact_sheet(tmp_path / "sheet.png", [])
    with pytest.raises(InvalidVideo, match="labels"):
        media.write_contact_sheet(tmp_path / "sheet.png", [shapes()], ["a", "b"])
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("palette", [np.zeros((2, 5000), np.uint8), np.zeros((2, 3), np.float32)])
def test_a_palette_that_is_none_is_refused_before_it_is_looked_up(tmp_path, palette):
    arrays = {"index": np.zeros((2, 4, 4), np.uint8), "palette": palette, "fps": np.array([10, 1])}
    np.savez(tmp_path / "a.npz", **arrays, metadata=np.array("{}"))
    with pytest.raises(CannotRead, match="palette"):
        media.read(tmp_path / "a.npz")


def test_frames_that_are_no_clip_are_a_file_that_cannot_be_read(tmp_path):
    np.savez(tmp_path / "a.npz", frames=np.zeros((2, 4, 4, 3)), fps=np.array([10, 1]), metadata=np.array("{}"))
    with pytest.raises(CannotRead, match=r"a\.npz"):
        media.read(tmp_path / "a.npz")


def test_a_rate_with_an_exponent_is_not_computed(tmp_path):
    media.write(tmp_path / "clip", shapes(), Fraction(10))
    note = tmp_path / "clip" / "provenance.json"
    note.write_text(note.read_text().replace('"fps": "10"', '"fps": "1e999999999"'))
    with pytest.raises(CannotRead, match="a rate of"):
        media.read(tmp_path / "clip")


@pytest.mark.parametrize("fps", [Fraction(2**70, 3), Fraction(1, 2**70), "10", True])
def test_a_rate_that_no_container_holds_is_refused_by_name(tmp_path, fps):
    with pytest.raises(InvalidVideo, match="fps is"):
        media.write(tmp_path / "a.mp4", shapes(), fps)
