"""Videos: frames that nobody can change, and files that remember how they were made."""

import copy
import json
import pickle
from dataclasses import replace
from fractions import Fraction
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from kinetograph import media
from kinetograph.errors import InvalidVideo, NoProvenance
from kinetograph.request import VideoRequest
from kinetograph.video import Provenance, Video, fingerprint, frame_fingerprints

PROMPT = "a zebra 🦓 crossing in Zürich"


def frames(t=3, h=16, w=20):
    return np.random.default_rng(0).integers(0, 256, (t, h, w, 3), dtype=np.uint8)


def flat():
    """A clip of flat colours, in which something moves."""
    clip = np.full((4, 64, 64, 3), (30, 60, 90), np.uint8)
    for i in range(4):
        clip[i, 10:30, i : i + 20] = (250, 30, 20)
    return clip


def made(clip):
    t, h, w, _ = clip.shape
    return Provenance(
        engine="render:circle",
        request=VideoRequest(
            prompt=PROMPT,
            seed=2**62,
            width=w,
            height=h,
            frames=t,
            fps=Fraction(30000, 1001),
            options={"a": [1, 2]},
        ),
        seconds=0.5,
        device="cpu",
        weights="ab" * 32,
        versions={"python": "3.11", "numpy": "2.4"},
        created="2026-11-21T20:00:00+00:00",
        frames_sha256=fingerprint(clip),
        frame_hashes=frame_fingerprints(clip),
    )


def video(clip=None):
    clip = flat() if clip is None else clip
    return Video(clip, Fraction(30000, 1001), made(clip))


@pytest.mark.parametrize("suffix", media.FORMATS)
def test_a_saved_video_remembers_how_it_was_made(tmp_path, suffix):
    original = video()
    loaded = Video.load(original.save(tmp_path / f"clip{suffix}"))
    assert loaded.fps == original.fps
    assert loaded.frames.shape == original.frames.shape
    assert loaded.provenance == replace(original.provenance, enlarged=media.enlargement(64, 64, suffix))


@pytest.mark.parametrize("suffix", [s for s, row in media.FORMATS.items() if row.keeps == "every pixel"])
@pytest.mark.parametrize("enlarge", [None, 3])
def test_a_lossless_file_gives_back_the_frames_that_were_fingerprinted(tmp_path, suffix, enlarge):
    original = video(frames())
    loaded = Video.load(original.save(tmp_path / f"clip{suffix}", enlarge=enlarge))
    assert fingerprint(loaded.frames) == original.provenance.frames_sha256


@pytest.mark.parametrize("suffix", media.FORMATS)
def test_without_provenance_nothing_about_the_prompt_is_in_the_file(tmp_path, suffix):
    path = video().save(tmp_path / f"clip{suffix}", provenance=False)
    secrets = ["zebra", "Zürich", "🦓", "render", str(2**62), "abab"]
    secrets = [form for text in secrets for form in (text.encode(), text.encode("utf-16-le"), text.encode("utf-32-le"))]
    secrets += [json.dumps(PROMPT)[10:20].encode()]
    for file in [path] if path.is_file() else path.iterdir():
        raw = file.read_bytes()
        assert not [secret for secret in secrets if secret in raw]
    loaded = Video.load(path)
    assert loaded.provenance is None
    assert (loaded.fps, loaded.frames.shape) == (Fraction(30000, 1001), (4, 64, 64, 3))
    said = json.loads(media.read(path).metadata)  # what stays is the mark of AI-generated media
    assert said == {"ai_generated": True, "digital_source_type": video().provenance.digital_source_type}


@pytest.mark.parametrize("suffix", [".webp", ".png", ""])
@pytest.mark.parametrize("provenance", [True, False])
def test_where_there_is_room_for_xmp_the_mark_is_the_one_that_others_read(tmp_path, suffix, provenance):
    path = video().save(tmp_path / f"clip{suffix}", provenance=provenance)
    with Image.open(path if path.is_file() else min(path.glob("*.png"))) as image:
        text = image.info["xmp"]
    root = ElementTree.fromstring(text)
    (described,) = root.iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description")
    name = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"
    assert described.get(name).endswith("/trainedAlgorithmicMedia")


def test_nobody_can_change_the_frames():
    mine = frames()
    clip = Video(mine, Fraction(10))
    before = clip.frames.copy()
    mine[:] = 0
    for same in (clip, pickle.loads(pickle.dumps(clip)), copy.deepcopy(clip)):
        assert np.array_equal(same.frames, before)
        with pytest.raises(ValueError, match="read-only"):
            same.frames[0, 0, 0] = 1
    with pytest.raises(AttributeError):
        clip.fps = 3


def test_a_read_only_view_of_something_writable_is_copied():
    mine = frames()
    view = mine.view()
    view.flags.writeable = False
    clip = Video(view, Fraction(10))
    mine[:] = 0
    assert clip.frames.any()


@pytest.mark.parametrize("array", [frames().astype(float), frames()[0], frames()[..., :2], frames()[:0]])
def test_what_is_no_clip_is_refused_and_its_shape_named(array):
    with pytest.raises(InvalidVideo) as refusal:
        Video(array, Fraction(10))
    assert str(array.shape) in str(refusal.value)
    assert "(time, height, width, 3)" in refusal.value.hint


def test_a_video_knows_its_size_and_its_length_exactly():
    clip = Video(frames(3, 16, 20), Fraction(30000, 1001))
    assert (clip.width, clip.height, clip.duration) == (20, 16, Fraction(3003, 30000))


def test_provenance_survives_json():
    origin = made(frames())
    assert Provenance.from_json(origin.to_json()) == origin
    assert hash(origin) == hash(pickle.loads(pickle.dumps(origin)))


@pytest.mark.parametrize(("trained", "word"), [(True, "trainedAlgorithmicMedia"), (False, "algorithmicMedia")])
def test_the_mark_of_generated_media_is_true_and_machine_readable(trained, word):
    said = json.loads(replace(made(frames()), trained=trained).to_json())
    assert said["ai_generated"] is trained
    assert said["digital_source_type"] == f"http://cv.iptc.org/newscodes/digitalsourcetype/{word}"


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"prompt": "by somebody else"}', "[" * 100_000])
def test_foreign_metadata_are_no_provenance(text):
    with pytest.raises(NoProvenance):
        Provenance.from_json(text)


def test_a_later_schema_asks_for_an_update():
    later = {**made(frames()).to_dict(), "kinetograph_provenance": 99}
    with pytest.raises(NoProvenance, match="99") as refusal:
        Provenance.from_json(json.dumps(later))
    assert "update" in refusal.value.hint


@pytest.mark.parametrize("field", sorted(made(frames()).to_dict().keys() - {"digital_source_type"}))
def test_damaged_provenance_is_refused(field):
    damaged = made(frames()).to_dict()
    with pytest.raises(NoProvenance):
        Provenance.from_json(json.dumps({**damaged, field: None}))


def test_a_file_with_damaged_provenance_is_named(tmp_path):
    media.write(tmp_path / "a.npz", frames(), Fraction(10), metadata='{"kinetograph_provenance": 1}')
    with pytest.raises(NoProvenance, match=r"a\.npz"):
        Video.load(tmp_path / "a.npz")


def test_the_fingerprint_sees_one_pixel_and_the_shape():
    clip = frames()
    changed = clip.copy()
    changed[2, 0, 0, 0] ^= 1
    assert fingerprint(clip) != fingerprint(changed)
    assert fingerprint(clip) != fingerprint(clip.reshape(3, 20, 16, 3))
    assert [a == b for a, b in zip(frame_fingerprints(clip), frame_fingerprints(changed))] == [
        True,
        True,
        False,
    ]
    assert {len(digest) for digest in frame_fingerprints(clip)} == {16}
