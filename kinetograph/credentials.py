"""Whether a file says that it was made by a machine: the plain mark that anybody can strip, and a C2PA signature that
nobody can forge.

The plain mark is part of every file that this package writes. A signature needs a certificate and the extra `c2pa`; it
is put on last, for whatever rewrites a file afterwards breaks it.
"""

import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kinetograph import __version__, files, media
from kinetograph.errors import CannotRead, CannotWrite, InvalidRequest, MissingExtra, NoProvenance, UnsupportedFormat
from kinetograph.video import SOURCE_TYPES, Provenance, Video, fingerprint

if TYPE_CHECKING:
    import c2pa
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

SIGNABLE = {
    ".mp4": "video/mp4",
    ".mov": "video/quicktime",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".png": "image/png",
    ".apng": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
}  # by suffix, what the standard can embed a manifest in
AI_TERMS = ("trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia")
MOST = 2**28  # bytes of a foreign file that are searched for a mark
XMP_MARK = re.compile(rb'DigitalSourceType(?:="|>)\s*(' + re.escape(SOURCE_TYPES).encode() + rb"[A-Za-z]{1,64})")

MarkState = Literal["present", "damaged", "not_present"]
SignatureState = Literal["trusted", "valid", "invalid", "not_present", "not_checked"]
FramesState = Literal["same", "changed", "not_checked"]


@dataclass(frozen=True, kw_only=True)
class Mark:
    """The plain mark. `frames` is whether the pictures are those that the mark was made for, which only a file that
    keeps every pixel can tell.
    """

    state: MarkState
    ai_generated: bool | None = None
    digital_source_type: str = ""
    engine: str = ""
    weights: str = ""
    created: str = ""
    frames: FramesState = "not_checked"


@dataclass(frozen=True, kw_only=True)
class Signature:
    """The C2PA signature. `trusted` means that its certificate leads to one of the roots that were given, `valid` that
    nothing was changed since, whoever the signer may be; `why` says what is wrong, or why nothing was checked.
    """

    state: SignatureState
    ai_generated: bool | None = None
    digital_source_type: str = ""
    issuer: str = ""
    generator: str = ""
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a file says about how it came about, and whether that can be believed."""

    path: str
    mark: Mark
    signature: Signature

    @property
    def ai_generated(self) -> bool | None:
        """What the file says; a signature that holds goes before the mark, None where neither says anything."""
        signed = self.signature.ai_generated if self.signature.state in ("trusted", "valid") else None
        return self.mark.ai_generated if signed is None else signed

    @property
    def holds(self) -> bool:
        """Whether the file says how it came about, and nothing in it contradicts that."""
        broken = self.mark.state == "damaged" or self.mark.frames == "changed" or self.signature.state == "invalid"
        return self.ai_generated is not None and not broken

    def to_dict(self) -> dict[str, Any]:
        """As JSON would have it."""
        return {"ai_generated": self.ai_generated, "holds": self.holds, **asdict(self)}


def verify(path: str | os.PathLike[str], *, trust: Path | None = None) -> Verdict:
    """Read the mark and check the signature of a file, ours or foreign; `trust` is a PEM file of root certificates.

    Nothing is fetched from anywhere. Raises CannotRead.
    """
    source = Path(path)
    if not source.exists():
        raise CannotRead(f"cannot read {source}: there is no such file")
    return Verdict(path=os.fspath(path), mark=_mark(source), signature=_signature(source, trust))


# --- the plain mark ---------------------------------------------------------------------------------------------------


def _mark(source: Path) -> Mark:
    ours = source.is_dir() or source.suffix.lower() in media.FORMATS
    clip = media.read(source) if ours else None
    if clip is not None and clip.metadata is not None:
        return _understood(source, clip, clip.metadata)
    return _foreign(source) if source.is_file() else Mark(state="not_present")


def _understood(source: Path, clip: media.Clip, metadata: str) -> Mark:
    try:
        said = json.loads(metadata)
        ai, kind = said["ai_generated"], said["digital_source_type"]
    except (ValueError, RecursionError, LookupError, TypeError):
        return Mark(state="not_present")
    if not isinstance(ai, bool) or not isinstance(kind, str) or ai != _is_ai(kind):
        return Mark(state="damaged")
    if "kinetograph_provenance" not in said:
        return Mark(state="present", ai_generated=ai, digital_source_type=kind)
    try:
        made = Provenance.from_json(metadata)
    except NoProvenance:
        return Mark(state="damaged", ai_generated=ai, digital_source_type=kind)
    return Mark(
        state="present",
        ai_generated=ai,
        digital_source_type=kind,
        engine=made.engine,
        weights=made.weights,
        created=made.created,
        frames=_compared(source, clip, made),
    )


def _compared(source: Path, clip: media.Clip, made: Provenance) -> FramesState:
    if media.format_of(source).keeps != "every pixel":
        return "not_checked"
    same = fingerprint(media.reduced(clip.frames, clip.enlarged)) == made.frames_sha256
    return "same" if same else "changed"


def _foreign(source: Path) -> Mark:
    """The IPTC's property in an XMP packet, which is plain text in whatever container."""
    try:
        with source.open("rb") as file:
            found = XMP_MARK.search(file.read(MOST))
    except OSError as error:
        raise CannotRead(f"cannot read {source}: {error.strerror}") from error
    if found is None:
        return Mark(state="not_present")
    kind = found[1].decode()
    return Mark(state="present", ai_generated=_is_ai(kind), digital_source_type=kind)


def _is_ai(kind: str) -> bool:
    return kind.removeprefix(SOURCE_TYPES) in AI_TERMS


# --- the signature ----------------------------------------------------------------------------------------------------


def _signature(source: Path, trust: Path | None) -> Signature:
    kind = SIGNABLE.get(source.suffix.lower())
    if source.is_dir() or kind is None:
        return Signature(state="not_present", why=f"{source.suffix or 'a folder'} holds no signature")
    try:
        import c2pa
    except ImportError:
        return Signature(state="not_checked", why="pip install 'kinetograph[c2pa]' to check signatures")
    settings: dict[str, Any] = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_trust": True}}
    if trust is not None:
        settings["trust"] = {"trust_anchors": _pem(trust).decode("ascii", "replace")}
    try:
        with c2pa.Context.from_dict(settings) as context, source.open("rb") as file:
            reader = c2pa.Reader.try_create(kind, file, context=context)
            return Signature(state="not_present") if reader is None else _read(reader)
    except c2pa.C2paError as error:
        return Signature(state="invalid", why=str(error))


def _read(reader: "c2pa.Reader") -> Signature:
    state = str(reader.get_validation_state() or "Invalid").lower()
    manifest: Mapping[str, Any] = reader.get_active_manifest() or {}
    kind = _source_type(manifest)
    tools = manifest.get("claim_generator_info") or [{}]
    signer = manifest.get("signature_info") or {}
    return Signature(
        state="trusted" if state == "trusted" else "valid" if state == "valid" else "invalid",
        ai_generated=None if not kind else _is_ai(kind),
        digital_source_type=kind,
        issuer=", ".join(str(signer[key]) for key in ("common_name", "issuer") if signer.get(key)),
        generator=" ".join(str(tools[0][key]) for key in ("name", "version") if tools[0].get(key)),
        why="" if state in ("trusted", "valid") else _failures(reader),
    )


def _source_type(manifest: Mapping[str, Any]) -> str:
    """The source type of the first action that names one."""
    for assertion in manifest.get("assertions") or ():
        if str(assertion.get("label", "")).startswith("c2pa.actions"):
            for action in (assertion.get("data") or {}).get("actions") or ():
                if action.get("digitalSourceType"):
                    return str(action["digitalSourceType"])
    return ""


def _failures(reader: "c2pa.Reader") -> str:
    results = (reader.get_validation_results() or {}).get("activeManifest") or {}
    said = [str(failure.get("explanation") or failure.get("code")) for failure in results.get("failure") or ()]
    return "; ".join(said) or "it does not fit the file"


@dataclass(frozen=True)
class Certificate:
    """A chain of certificates and the key of the first, both PEM, and the algorithm that suits the key."""

    chain: bytes
    key: bytes
    algorithm: str


def certificate(chain: Path, key: Path | None = None, *, now: datetime | None = None) -> Certificate:
    """Read a certificate, the signer's first and then who vouches for it, and its key, from the same file or another.

    Raises CannotRead for what is no certificate, InvalidRequest for one that is out of date or whose key is another's.
    """
    check()
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    pem, secret = _pem(chain), _pem(key or chain)
    try:
        found = x509.load_pem_x509_certificates(pem)
        private = load_pem_private_key(_key_in(secret), password=None)
    except (ValueError, TypeError) as error:
        hint = "two PEM texts: the chain, the signer's first, and an unencrypted private key"
        raise CannotRead(f"cannot read the certificate {chain}: {error}", hint=hint) from error
    how = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if found[0].public_key().public_bytes(*how) != private.public_key().public_bytes(*how):
        message = f"the key in {key or chain} is not that of the first certificate in {chain}"
        raise InvalidRequest(message, field="c2pa-cert", hint="put the signer's certificate first")
    moment = now or datetime.now(UTC)
    if not found[0].not_valid_before_utc <= moment <= found[0].not_valid_after_utc:
        until = f"{found[0].not_valid_before_utc:%Y-%m-%d} to {found[0].not_valid_after_utc:%Y-%m-%d}"
        raise InvalidRequest(f"the certificate {chain} is valid from {until}", field="c2pa-cert", hint="renew it")
    ordered = b"".join(one.public_bytes(Encoding.PEM) for one in found)
    return Certificate(ordered, _key_in(secret), _algorithm(private))


def _algorithm(private: "PrivateKeyTypes") -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(private, ec.EllipticCurvePrivateKey) and private.curve.name in _CURVES:
        return _CURVES[private.curve.name]
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return "Ed25519"
    if isinstance(private, rsa.RSAPrivateKey):
        return "PS256"
    hint = "an elliptic curve key (P-256, P-384, P-521), Ed25519 or RSA"
    raise InvalidRequest(f"nobody signs with a {type(private).__name__}", field="c2pa-cert", hint=hint)


_CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}


def _key_in(pem: bytes) -> bytes:
    found = re.search(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----\n?", pem, re.S)
    return found[0] if found else pem


def _pem(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CannotRead(f"cannot read {path}: {error.strerror}") from error


def check(path: Path | None = None) -> None:
    """Refuse before the work what could not be signed after it. Raises MissingExtra, UnsupportedFormat."""
    try:
        import c2pa  # noqa: F401
    except ImportError as error:
        hint = "pip install 'kinetograph[c2pa]'"
        raise MissingExtra("signatures are made by c2pa-python, which is not installed", hint=hint) from error
    if path is not None and (path.is_dir() or path.suffix.lower() not in SIGNABLE):
        ours = " ".join(sorted(suffix for suffix in SIGNABLE if suffix in media.FORMATS))
        raise UnsupportedFormat(f"{path.name} cannot hold a signature", hint=f"there are {ours}")


def sign(path: Path, by: Certificate, *, trained: bool | None = None) -> None:
    """Sign a file in place, as AI-generated or not: what its mark says, unless told. It is replaced in one step; where
    that fails it stays as it was. Raises CannotWrite, UnsupportedFormat, and NoProvenance for a file without a mark.
    """
    check(path)
    import c2pa

    made = _mark(path).ai_generated if trained is None else trained
    if made is None:
        raise NoProvenance(f"{path} does not say how it came about", hint="only what says so is signed")
    kind, manifest = SIGNABLE[path.suffix.lower()], _manifest(path.name, made)

    def write(temporary: Path) -> None:
        info = c2pa.C2paSignerInfo(by.algorithm.encode(), by.chain, by.key, None)  # no time stamp: nothing is fetched
        with (
            c2pa.Signer.from_info(info) as signer,
            c2pa.Builder(manifest) as builder,
            path.open("rb") as original,
            temporary.open("w+b") as signed,
        ):
            builder.sign(signer, kind, original, signed)

    try:
        files.fill(path, write)
    except c2pa.C2paError as error:
        hint = "a signer's certificate is for digitalSignature and for e-mail or documents, and is not its own root"
        raise CannotWrite(f"cannot sign {path}: {error}", hint=hint) from error


def _manifest(title: str, trained: bool) -> dict[str, Any]:
    source_type = SOURCE_TYPES + ("trainedAlgorithmicMedia" if trained else "algorithmicMedia")
    actions = {"actions": [{"action": "c2pa.created", "digitalSourceType": source_type}]}
    return {
        "claim_generator_info": [{"name": "kinetograph", "version": __version__}],
        "title": title,
        "assertions": [{"label": "c2pa.actions.v2", "data": actions}],
    }


def save(
    video: Video,
    path: Path,
    by: Certificate,
    *,
    provenance: bool = True,
    enlarge: int | None = None,
    overwrite: bool = False,
) -> None:
    """`Video.save`, signed: the file stands under its name only with its signature."""
    scale = media.enlargement(video.width, video.height, path.suffix) if enlarge is None else enlarge
    media.check_target(path, video.width, video.height, enlarge=scale, overwrite=overwrite)
    with tempfile.TemporaryDirectory(prefix=".", dir=path.parent) as folder:
        unsigned = video.save(Path(folder) / path.name, provenance=provenance, enlarge=enlarge)
        sign(unsigned, by, trained=video.provenance.trained if video.provenance else None)
        os.replace(unsigned, path)
