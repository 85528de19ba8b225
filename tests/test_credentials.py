"""Marks and signatures: what a file says about itself is found, and a false one is found out."""

import json
import socket
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from PIL import Image
from typer.testing import CliRunner

from kinetograph import credentials, describe, files, generate, media
from kinetograph.archive import Archive
from kinetograph.cli.commands import app
from kinetograph.errors import CannotRead, CannotWrite, InvalidRequest, MissingExtra, NoProvenance, UnsupportedFormat
from kinetograph.jobs import Draft, Store
from kinetograph.video import SOURCE_TYPES, Video
from kinetograph.worker import Limits, Worker

NOW = datetime.now(UTC)
AI = SOURCE_TYPES + "trainedAlgorithmicMedia"


def issued(name, key, by=None, by_key=None, days=30):
    """A certificate: a root's own, or one that a root vouches for."""
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, name)])
    root = by is None
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only"), False
    )
    usage |= {"digital_signature": not root, "key_cert_sign": root, "crl_sign": root, "decipher_only": False}
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if root else by.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + timedelta(days=min(days, 0) - 1))
        .not_valid_after(NOW + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=root, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key((by_key or key).public_key()), critical=False)
    )
    if not root:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
    return builder.sign(by_key or key, hashes.SHA256())


def pem(*things):
    how = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return b"".join(
        one.public_bytes(Encoding.PEM) if isinstance(one, x509.Certificate) else one.private_bytes(*how)
        for one in things
    )


@pytest.fixture(scope="module")
def office(tmp_path_factory):
    """A folder with a root, and a signer's chain and key."""
    folder = tmp_path_factory.mktemp("office")
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = issued("Root of the test", root_key)
    leaf = issued("Signer of the test", key, root, root_key)
    (folder / "roots.pem").write_bytes(pem(root))
    (folder / "signer.pem").write_bytes(pem(leaf, root, key))
    (folder / "chain.pem").write_bytes(pem(leaf, root))
    (folder / "key.pem").write_bytes(pem(key))
    old = issued("Signer of the test", key, root, root_key, days=-2)
    (folder / "old.pem").write_bytes(pem(old, root, key))
    for name, other in (
        ("ed25519", ed25519.Ed25519PrivateKey.generate()),
        ("rsa", rsa.generate_private_key(65537, 2048)),
    ):
        (folder / f"{name}.pem").write_bytes(pem(issued("Signer of the test", other, root, root_key), root, other))
    return folder


@pytest.fixture(scope="module")
def by(office):
    return credentials.certificate(office / "signer.pem")


@pytest.fixture(scope="module")
def drawn():
    return generate("render", describe("render").request("a red circle moving left", seed=1, frames=4))


@pytest.fixture(scope="module")
def learnt(drawn):
    return Video(drawn.frames, drawn.fps, replace(drawn.provenance, trained=True, engine="gan"))


@pytest.mark.parametrize("suffix", [*(suffix for suffix in media.FORMATS if suffix), ""])
def test_every_format_carries_the_mark(suffix, learnt, drawn, tmp_path):
    for video, ai in ((learnt, True), (drawn, False)):
        verdict = credentials.verify(video.save(tmp_path / f"clip{ai}{suffix}"))
        assert (verdict.mark.state, verdict.ai_generated, verdict.holds) == ("present", ai, True)
        assert verdict.mark.engine == video.provenance.engine
        assert verdict.signature.state == "not_present"


def test_the_mark_stays_when_the_provenance_is_left_out(learnt, tmp_path):
    verdict = credentials.verify(learnt.save(tmp_path / "clip.mp4", provenance=False))
    assert verdict.mark == credentials.Mark(state="present", ai_generated=True, digital_source_type=AI)


def test_a_file_without_a_mark_says_nothing(drawn, tmp_path):
    media.write(tmp_path / "mute.mp4", drawn.frames, drawn.fps, enlarge=2)
    (tmp_path / "words.txt").write_text("a text")
    for name in ("mute.mp4", "words.txt"):
        verdict = credentials.verify(tmp_path / name)
        assert (verdict.mark.state, verdict.ai_generated, verdict.holds) == ("not_present", None, False)


def test_other_pictures_under_a_true_mark_are_found_out(learnt, tmp_path):
    frames = np.array(learnt.frames)
    frames[0, 0, 0] ^= 1
    Video(frames, learnt.fps, learnt.provenance).save(tmp_path / "forged.png")
    verdict = credentials.verify(tmp_path / "forged.png")
    assert (verdict.mark.frames, verdict.holds) == ("changed", False)
    assert credentials.verify(learnt.save(tmp_path / "true.png")).mark.frames == "same"


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ({"ai_generated": "no", "digital_source_type": SOURCE_TYPES + "algorithmicMedia"}, "damaged"),
        ({"ai_generated": False, "digital_source_type": AI}, "damaged"),
        ({"ai_generated": True, "digital_source_type": 3}, "damaged"),
        ({"kinetograph_provenance": 1, "ai_generated": True, "digital_source_type": AI}, "damaged"),
        ({"something": "else"}, "not_present"),
        ([1], "not_present"),
    ],
)
def test_a_mark_that_contradicts_itself_is_no_mark(said, state, drawn, tmp_path):
    media.write(tmp_path / "a.webp", drawn.frames, drawn.fps, metadata=json.dumps(said))
    verdict = credentials.verify(tmp_path / "a.webp")
    assert (verdict.mark.state, verdict.holds) == (state, False)


def test_a_foreign_picture_with_the_mark_of_the_iptc_is_known(tmp_path):
    xmp = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a Iptc4xmpExt:DigitalSourceType="{AI}"/></x:xmpmeta>'
    Image.new("RGB", (4, 4)).save(tmp_path / "a.jpg", xmp=xmp.encode())
    assert credentials.verify(tmp_path / "a.jpg").ai_generated is True


def test_a_file_that_is_missing_or_damaged_is_named(tmp_path):
    (tmp_path / "damaged.mp4").write_bytes(b"no film")
    for name in ("missing.mp4", "damaged.mp4"):
        with pytest.raises(CannotRead, match=name):
            credentials.verify(tmp_path / name)


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp", ".png", ".apng"])
def test_a_signature_is_valid_and_with_its_root_trusted(suffix, learnt, by, office, tmp_path):
    path = tmp_path / f"clip{suffix}"
    credentials.save(learnt, path, by)
    plain, trusting = credentials.verify(path), credentials.verify(path, trust=office / "roots.pem")
    assert (plain.signature.state, trusting.signature.state) == ("valid", "trusted")
    assert (plain.signature.ai_generated, plain.holds) == (True, True)
    assert plain.signature.issuer == "Signer of the test"
    assert Video.load(path).provenance.engine == "gan"  # and the file still says how it was made
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def test_a_change_after_signing_is_found(learnt, by, tmp_path):
    path = tmp_path / "clip.mp4"
    credentials.save(learnt, path, by)
    content = bytearray(path.read_bytes())
    content[content.index(b"mdat") + 40] ^= 1
    path.write_bytes(content)
    verdict = credentials.verify(path)
    assert (verdict.signature.state, verdict.holds) == ("invalid", False)
    assert verdict.signature.why


def test_one_that_was_drawn_by_a_program_is_signed_as_such(drawn, by, tmp_path):
    credentials.save(drawn, tmp_path / "clip.gif", by)
    assert credentials.verify(tmp_path / "clip.gif").signature.digital_source_type.endswith("/algorithmicMedia")


@pytest.mark.parametrize("name", ["ed25519", "rsa"])
def test_other_kinds_of_keys_sign_too(name, learnt, office, tmp_path):
    credentials.save(learnt, tmp_path / "clip.png", credentials.certificate(office / f"{name}.pem"))
    assert credentials.verify(tmp_path / "clip.png", trust=office / "roots.pem").signature.state == "trusted"


def test_verifying_and_signing_open_no_connection(learnt, by, tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    credentials.save(learnt, tmp_path / "clip.mp4", by)
    assert credentials.verify(tmp_path / "clip.mp4").holds


def test_a_bad_certificate_is_refused_before_the_work(office, tmp_path):
    (tmp_path / "text.pem").write_text("no certificate")
    (tmp_path / "mixed.pem").write_bytes((office / "roots.pem").read_bytes() + (office / "key.pem").read_bytes())
    for path, error, said in (
        (tmp_path / "text.pem", CannotRead, "text.pem"),
        (tmp_path / "missing.pem", CannotRead, "missing.pem"),
        (tmp_path / "mixed.pem", InvalidRequest, "not that of the first"),
        (office / "old.pem", InvalidRequest, "valid from"),
    ):
        with pytest.raises(error, match=said):
            credentials.certificate(path)


def test_what_cannot_hold_a_signature_is_refused_and_stays_as_it_was(learnt, by, tmp_path):
    npz = learnt.save(tmp_path / "clip.npz")
    before = npz.read_bytes()
    with pytest.raises(UnsupportedFormat, match=r"clip\.npz"):
        credentials.sign(npz, by)
    assert npz.read_bytes() == before
    media.write(tmp_path / "mute.gif", learnt.frames, learnt.fps)
    with pytest.raises(NoProvenance):
        credentials.sign(tmp_path / "mute.gif", by)
    root = office_of(by)
    before = learnt.save(tmp_path / "clip.gif").read_bytes()
    with pytest.raises(CannotWrite, match="cannot sign"):
        credentials.sign(tmp_path / "clip.gif", root)
    assert (tmp_path / "clip.gif").read_bytes() == before
    assert len([*tmp_path.iterdir()]) == 3


def office_of(by):
    """A certificate that vouches for itself, which the standard does not accept."""
    key = ec.generate_private_key(ec.SECP256R1())
    return replace(by, chain=pem(issued("Root", key)), key=pem(key))


def kinetograph_(*arguments, code=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def test_the_command_line_signs_and_verifies(office, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = ("generate", "a red circle moving left", "--engine", "render", "--frames", 4)
    kinetograph_(*made, "--out", "a.mp4", "--c2pa-cert", office / "signer.pem")
    kinetograph_(*made, "--out", "b.gif")
    kinetograph_("sign", "b.gif", "--c2pa-cert", office / "chain.pem", "--c2pa-key", office / "key.pem")
    for name in ("a.mp4", "b.gif"):
        said = json.loads(kinetograph_("verify", name, "--trust", office / "roots.pem", "--json").stdout)
        assert (said["holds"], said["ai_generated"], said["signature"]["state"]) == (True, False, "trusted")
    assert "signature     valid" in kinetograph_("verify", "a.mp4").stdout
    (tmp_path / "c.txt").write_text("a text")
    assert "the file does not say" in kinetograph_("verify", "c.txt", code=1).stdout


def test_what_could_not_be_signed_is_refused_before_it_is_made(office, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = ("generate", "a red circle moving left", "--engine", "render")
    kinetograph_(*made, "--out", "a.webm", "--c2pa-cert", office / "signer.pem", code=2)
    kinetograph_(*made, "--out", "a.mp4", "--c2pa-cert", office / "old.pem", code=2)
    kinetograph_(*made, "--out", "a.mp4", "--c2pa-key", office / "key.pem", code=2)
    (tmp_path / "prompts.txt").write_text("a red circle moving left")
    many = ("generate", "--prompts", "prompts.txt", "--out-dir", "clips", "--engine", "render")
    kinetograph_(*many, "--c2pa-cert", office / "signer.pem", code=2)
    assert [item.name for item in tmp_path.iterdir()] == ["prompts.txt"]


def test_without_the_extra_the_mark_is_read_and_the_signature_said_to_be_unchecked(learnt, tmp_path, monkeypatch):
    path = learnt.save(tmp_path / "clip.mp4")
    monkeypatch.setitem(sys.modules, "c2pa", None)
    verdict = credentials.verify(path)
    assert (verdict.signature.state, verdict.holds) == ("not_checked", True)
    with pytest.raises(MissingExtra, match="not installed"):
        credentials.check(path)


def test_a_worker_signs_what_it_makes(by, office, tmp_path):
    store = Store.open(f"sqlite:///{tmp_path / 'jobs.sqlite'}", lease=30.0)
    request = describe("render").request("a red circle moving left", seed=1, frames=4)
    job = store.submit(Draft(engine="render", request=request))
    archive = Archive.open(tmp_path / "archive")
    assert Worker(store, archive, limits=Limits(free=0), signer=by).step()
    entry = archive.entry(store.job(job.id).token)
    store.close()
    assert credentials.verify(entry.video, trust=office / "roots.pem").signature.state == "trusted"
    assert entry.facts["sha256"] == files.sha256(entry.video)


def test_a_server_whose_certificate_is_no_good_does_not_start(office, tmp_path):
    words = ("serve", "--folder", tmp_path / "served", "--port", 0, "--c2pa-cert")
    assert "valid from" in kinetograph_(*words, office / "old.pem", code=2).stderr
