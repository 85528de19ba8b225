"""Pretrained models: found on this machine by folder or hub id, fetched from a hub only when told to.

`locate` never touches the network. A reference is a folder, a file of weights, a hub id (`owner/name`,
`owner/name@REV`, `owner/name/FILE.safetensors`) or a short name of the table below. The cache, the token and the
endpoint are those of huggingface_hub: HF_HOME, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE.
"""

import fnmatch
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from kinetograph import files, gate
from kinetograph.errors import CannotFetch, KinetographError, ModelMissing, UnknownName

INDEX, MODULAR_INDEX = gate.INDEX, gate.MODULAR_INDEX
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
SHARD = re.compile(r"(?P<stem>[^.]+?)(\.(?P<variant>[A-Za-z0-9_]+))?(-\d{5}-of-\d{5})?\.safetensors")
SHARDS = re.compile(r"(?P<stem>[^.]+)\.safetensors\.index(\.(?P<variant>[A-Za-z0-9_]+))?\.json")
KEPT = (".json", ".txt", ".model", ".jinja", ".md", ".safetensors", ".gguf", ".spm")  # what a fetch brings
OnBytes = Callable[[int, int], None]  # (done, of how many)


# --- names ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Known:
    """A repository that has a short name or has moved: where it is now, what it was called before, and its terms.

    `gigabytes` is about what a fetch brings, 0 where that is not known; `variant` the files to prefer.
    """

    repository: str
    names: tuple[str, ...] = ()
    formerly: tuple[str, ...] = ()
    licence: str = ""
    gigabytes: float = 0
    variant: str = ""


KNOWN = (
    Known(
        repository="ali-vilab/text-to-video-ms-1.7b",
        names=("modelscope", "text-to-video-ms-1.7b"),
        formerly=("damo-vilab/text-to-video-ms-1.7b", "diffusers/text-to-video-ms-1.7b"),
        licence="cc-by-nc-4.0",
        gigabytes=3.7,
        variant="fp16",
    ),
    Known(repository="cerspense/zeroscope_v2_576w", names=("zeroscope",), licence="cc-by-nc-4.0", gigabytes=3.7),
    Known(repository="cerspense/zeroscope_v2_XL", names=("zeroscope-xl",), licence="cc-by-nc-4.0"),
    Known(
        repository="stable-diffusion-v1-5/stable-diffusion-v1-5",
        names=("sd-1.5", "stable-diffusion-v1-5"),
        formerly=("runwayml/stable-diffusion-v1-5",),
        licence="creativeml-openrail-m",
        gigabytes=2.7,
        variant="fp16",
    ),
    Known(
        repository="timbrooks/instruct-pix2pix",
        names=("instruct-pix2pix",),
    ),
    Known(repository="lllyasviel/sd-controlnet-canny", names=("controlnet-edge",)),
    Known(repository="lllyasviel/sd-controlnet-depth", names=("controlnet-depth",)),
    Known(
        repository="lllyasviel/sd-controlnet-openpose",
        names=("controlnet-pose",),
        formerly=("fusing/stable-diffusion-v1-5-controlnet-openpose",),
    ),
    Known(repository="zai-org/CogVideoX-2b", names=("cogvideox-2b",), formerly=("THUDM/CogVideoX-2b",)),
    Known(repository="zai-org/CogVideoX-5b", names=("cogvideox-5b",), formerly=("THUDM/CogVideoX-5b",)),
    Known(repository="Wan-AI/Wan2.1-T2V-1.3B-Diffusers", names=("wan", "wan-1.3b"), licence="apache-2.0"),
    Known(repository="Lightricks/LTX-Video", names=("ltx",)),
    Known(repository="genmo/mochi-1-preview", names=("mochi",), licence="apache-2.0"),
)


@dataclass(frozen=True)
class Reference:
    """What a text asks for: a path on this machine, or repositories of a hub in the order in which they are tried."""

    text: str
    path: Path | None = None
    repositories: tuple[str, ...] = ()
    revision: str = ""
    file: str = ""
    known: Known | None = None

    @property
    def name(self) -> str:
        """The canonical way to write it."""
        if self.path is not None or not self.repositories:
            return self.text
        return (
            self.repositories[0] + (f"/{self.file}" if self.file else "") + (f"@{self.revision}" * bool(self.revision))
        )


def parse(text: str) -> Reference:
    """What a reference asks for; a folder or file that is there goes before a hub's repository of the same name.

    Raises UnknownName for a short name that is none, ModelMissing for a path that leads nowhere.
    """
    path = Path(text).expanduser() if text else Path("-")
    if text and path.exists():
        return Reference(text, path)
    name, _, revision = text.partition("@")
    for known in KNOWN:
        if name in (*known.names, known.repository, *known.formerly):
            return Reference(text, None, (known.repository, *known.formerly), revision, known=known)
    owner, _, file = _split(name)
    if not (HUB_ID.fullmatch(owner) and gate.is_inside(name) and gate.is_inside(revision)):
        if text.startswith((".", "/", "~")) or "\\" in text or "/" in text:
            raise ModelMissing(f"there is no model at {text}", hint="a folder, or a hub's OWNER/NAME")
        raise UnknownName("pretrained model", text, (short for known in KNOWN for short in known.names))
    return Reference(text, None, (owner,), revision, file)


def _split(name: str) -> tuple[str, str, str]:
    """ "owner/name/some/file" is "owner/name" and "some/file"."""
    parts = name.split("/", 2)
    return "/".join(parts[:2]), "/", parts[2] if len(parts) > 2 else ""


# --- on this machine --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model that lies on this machine and has passed the gate: nothing in it can run.

    `path` is its folder or its one file, `revision` the commit of the hub that it was fetched at, "" for a folder of
    one's own; `licence` what its card says, "" where it says nothing.
    """

    reference: str
    path: Path
    revision: str = ""
    licence: str = ""

    @property
    def index(self) -> Mapping[str, Any]:
        """What model_index.json or modular_model_index.json says, empty where there is neither."""
        for name in (INDEX, MODULAR_INDEX):
            if (self.path / name).is_file():
                found = gate.settings(self.path / name)
                return found if isinstance(found, dict) else {}
        return {}

    @property
    def pipeline(self) -> str:
        """The class that its index names, "" where it has none."""
        return str(self.index.get("_class_name") or "")

    @property
    def modular(self) -> bool:
        """Whether it is made of blocks alone, without a classic pipeline."""
        return not (self.path / INDEX).is_file() and (self.path / MODULAR_INDEX).is_file()

    @property
    def variant(self) -> str:
        """The variant ("fp16") that a part has and no plain weights beside it, "" where all are plain."""
        return _variant(self.path)

    @property
    def notice(self) -> str:
        """What whoever uses it should know of its licence; "" where there is nothing to say."""
        return licence_notice(self.reference, self.licence)


def locate(reference: str, cache: Path | None = None) -> Model:
    """Find a model on this machine, check that it is whole and that it is safe. Never uses the network.

    Raises ModelMissing, with the command to fetch it, UnsafeModel, UnknownName or WeightsError.
    """
    asked = parse(reference)
    found = _local(asked, cache) if asked.path is None else _at(asked.path, asked.text)
    gate.check(found.path)
    _check_whole(found)
    return found


def _at(path: Path, text: str) -> Model:
    return Model(reference=text, path=path.absolute(), licence=_card_licence(path if path.is_dir() else path.parent))


def _local(asked: Reference, cache: Path | None) -> Model:
    for repository in asked.repositories:
        for revision, folder in _snapshots(repository, asked.revision, cache or hub_cache()):
            path = folder / asked.file
            if path.exists():
                licence = _card_licence(folder) or (asked.known.licence if asked.known else "")
                return Model(reference=asked.name, path=path, revision=revision, licence=licence)
    raise missing(asked)


def missing(asked: Reference) -> ModelMissing:
    """The error for a model that is not here: its size and licence where they are known, and how to fetch it."""
    known = asked.known
    facts = [f"about {known.gigabytes:g} GB"] if known and known.gigabytes else []
    facts += [f"licence {known.licence}"] if known and known.licence else []
    what = f"{asked.name} is not on this machine"
    return ModelMissing(
        what + (f" ({', '.join(facts)})" if facts else ""), hint=f"to fetch it: kinetograph fetch {asked.name}"
    )


def hub_cache() -> Path:
    """Where huggingface_hub keeps models: HF_HUB_CACHE, or `hub` within HF_HOME."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _snapshots(repository: str, revision: str, cache: Path) -> Iterator[tuple[str, Path]]:
    """The commit and folder of a repository in the cache: of this branch or commit, of `main` unless told."""
    home = cache / f"models--{repository.replace('/', '--')}"
    ref = home / "refs" / (revision or "main")
    commits = [ref.read_text(encoding="utf-8").strip()] if ref.is_file() else []
    if revision:
        commits += sorted(path.name for path in home.glob("snapshots/*") if path.name.startswith(revision))
    for commit in commits:
        if re.fullmatch(r"[0-9a-f]{7,64}", commit) and (home / "snapshots" / commit).is_dir():
            yield commit, home / "snapshots" / commit


def installed(cache: Path | None = None) -> list[str]:
    """Hub ids of the pipelines in the cache, whole or not."""
    homes = sorted((cache or hub_cache()).glob("models--*--*"))
    indexed = [home for home in homes if any(next(home.glob(f"snapshots/*/{i}"), None) for i in (INDEX, MODULAR_INDEX))]
    return [home.name.removeprefix("models--").replace("--", "/", 1) for home in indexed]


def parts(index: Mapping[str, Any]) -> dict[str, str]:
    """The parts of a pipeline that lie in folders of their own, and their classes."""
    pairs = {name: value for name, value in index.items() if isinstance(value, list) and len(value) >= 2}
    inside = {name: value for name, value in pairs.items() if value[1] and not _elsewhere(value)}
    return {name: str(value[1]) for name, value in inside.items()}


def _elsewhere(value: list[Any]) -> bool:
    """Whether a modular pipeline takes this part from another repository, or makes it from its settings."""
    return len(value) > 2


def weights_at(path: Path) -> list[Path]:
    """The files of safetensors that a path means: itself, or those in a folder."""
    return [path] if path.is_file() else sorted(path.glob("*.safetensors"))


def _check_whole(model: Model) -> None:
    lost = [name for name in parts(model.index) if not (model.path / name).is_dir()]
    lost += [
        f"{name}/*.safetensors" for name, kind in parts(model.index).items() if _lacks_weights(model.path, name, kind)
    ]
    lost += _lost_shards(model.path)
    if lost:
        again = f"to fetch the rest: kinetograph fetch {model.reference}" if model.revision else "copy the rest into it"
        raise ModelMissing(f"{model.reference} is not whole: {', '.join(lost[:3])} is missing", hint=again)


def _lacks_weights(folder: Path, part: str, kind: str) -> bool:
    """Whether a part that has a network's settings has no weights: a fetch was interrupted."""
    weightless = re.search("Tokenizer|Processor|Scheduler|FeatureExtractor", kind)
    home = folder / part
    return (
        not weightless
        and (home / "config.json").is_file()
        and not any(p.suffix in gate.WEIGHTS for p in home.iterdir())
    )


def _lost_shards(folder: Path) -> list[str]:
    lost = []
    for path in sorted(folder.rglob("*.safetensors.index*.json")) if folder.is_dir() else []:
        said = gate.settings(path).get("weight_map", {})
        lost += [
            f"{path.parent.name}/{name}" for name in sorted(set(said.values())) if not (path.parent / name).exists()
        ]
    return lost


def _variant(folder: Path) -> str:
    found = _by_variant(path.relative_to(folder).as_posix() for path in folder.rglob("*.safetensors"))
    only = [sorted(variants)[0] for variants in found.values() if "" not in variants]
    return only[0] if only else ""


def _by_variant(names: Iterable[str]) -> dict[str, dict[str, list[str]]]:
    """Weights by what they are (folder and stem), then by variant."""
    found: dict[str, dict[str, list[str]]] = {}
    for name in names:
        match = SHARD.fullmatch(PurePosixPath(name).name) or SHARDS.fullmatch(PurePosixPath(name).name)
        if match:
            what = f"{PurePosixPath(name).parent}/{match['stem']}"
            found.setdefault(what, {}).setdefault(match["variant"] or "", []).append(name)
    return found


# --- what a card says -------------------------------------------------------------------------------------------------


def _card_licence(folder: Path) -> str:
    """The licence in the card's front matter: its name where it is one of a kind."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    front = re.match(r"---\r?\n(.*?)\r?\n---", text, re.S)
    said = dict(re.findall(r"^(license|license_name):[ \t]*['\"]?([^\s'\"#]+)", front[1], re.M)) if front else {}
    return _licence_of(said.get("license"), said.get("license_name"))


def _licence_of(licence: str | None, name: str | None) -> str:
    return str((name if licence == "other" else None) or licence or "")


def licence_notice(reference: str, licence: str) -> str:
    """One sentence about a licence that binds: non-commercial, of its own making, or unknown."""
    words = re.split(r"[-_ ]", licence.lower())
    if "nc" in words or "noncommercial" in licence.lower().replace("-", ""):
        return f"{reference} is licensed {licence}: non-commercial use only"
    if not licence:
        return f"the card of {reference} names no licence: ask its authors before you use it"
    free = ("apache", "mit", "bsd", "cc0", "unlicense")
    return "" if words[0] in free else f"{reference} is licensed {licence}: read its terms before you use it"


# --- fingerprints -----------------------------------------------------------------------------------------------------


def digest(path: Path) -> str:
    """One sha256 for all weights and settings of a model, by their own sha256.

    In the hub's cache large files are called by theirs, which was compared when they were fetched; others are read
    once and remembered while they keep their size and time.
    """
    every = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.suffix in (*gate.WEIGHTS, ".json"))
    lines = [f"{file_digest(file)}  {file.relative_to(path) if file != path else file.name}" for file in every]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """The sha256 of one file, by the same means."""
    blob = path.resolve()
    if path.is_symlink() and blob.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", blob.name):
        return blob.name
    state = blob.stat()
    return _read_sum(str(blob), state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=4096)
def _read_sum(path: str, size: int, changed: int) -> str:
    return files.sha256(Path(path))


# --- fetching ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a fetch would bring: `files` with their sizes in bytes, of `repository` at the commit `revision`."""

    reference: str
    repository: str
    branch: str
    revision: str
    licence: str
    files: Mapping[str, int]

    @property
    def size(self) -> int:
        """Bytes in all, those included that are here already."""
        return sum(self.files.values())

    @property
    def notice(self) -> str:
        """What whoever uses it should know of its licence."""
        return licence_notice(self.reference, self.licence)


def plan(reference: str, variant: str | None = None) -> Plan:
    """Ask the hub what a model consists of, and choose what is worth bringing: no code, no pickle, one variant.

    The reference of an engine (`zero:sd-1.5`, `pretrained:OWNER/NAME`) means the model in it; no name of a hub has a
    colon. Raises CannotFetch, and UnknownName for a short name that is none.
    """
    from huggingface_hub import HfApi, hf_hub_download

    asked = _fetchable(reference.rpartition(":")[2])
    repository, api = asked.repositories[0], HfApi()
    wanted = variant if variant is not None else (asked.known.variant if asked.known else "")
    with _understood(asked):
        about = api.model_info(repository, revision=asked.revision or None)
        commit = str(about.sha)
        tree = api.list_repo_tree(repository, recursive=True, revision=commit)
        sizes = {entry.path: int(entry.size) for entry in tree if hasattr(entry, "size")}
        index: dict[str, Any] = {}
        for name in (INDEX, MODULAR_INDEX):
            if name in sizes and not index:
                index = json.loads(Path(hf_hub_download(repository, name, revision=commit)).read_text("utf-8"))
    chosen = _chosen(asked, sizes, index, wanted)
    licence = _said_licence(about) or (asked.known.licence if asked.known else "")
    return Plan(
        reference=asked.name,
        repository=repository,
        branch=asked.revision,
        revision=commit,
        licence=licence,
        files={name: sizes[name] for name in chosen},
    )


def _fetchable(reference: str) -> Reference:
    asked = parse(reference)
    if not asked.repositories:
        raise CannotFetch(f"{reference} is a path on this machine", hint="there is nothing to fetch")
    return asked


def _said_licence(about: Any) -> str:
    card = getattr(about, "card_data", None)
    return _licence_of(getattr(card, "license", None), getattr(card, "license_name", None))


def _chosen(asked: Reference, sizes: Mapping[str, int], index: Mapping[str, Any], variant: str) -> list[str]:
    """The files to bring. Raises CannotFetch where weights exist only as pickles."""
    if asked.file:
        if asked.file not in sizes or PurePosixPath(asked.file).suffix not in KEPT:
            near = [name for name in sizes if PurePosixPath(name).suffix in gate.WEIGHTS]
            raise CannotFetch(f"{asked.repositories[0]} has no weights {asked.file!r}", hint=f"it has: {near[:8]}")
        return [asked.file, *(name for name in ("README.md",) if name in sizes)]
    homes = set(parts(index)) if index else None
    kept = [name for name in sizes if _is_kept(name, homes)]
    for variants in _by_variant(kept).values():
        best = variant if variant in variants else "" if "" in variants else sorted(variants)[0]
        drop = {name for other, names in variants.items() if other != best for name in names}
        kept = [name for name in kept if name not in drop]
    pickled = [name for name in sizes if PurePosixPath(name).suffix in gate.PICKLES and _home(name) in (homes or {""})]
    for name in pickled:
        if not any(_home(other) == _home(name) and PurePosixPath(other).suffix in gate.WEIGHTS for other in kept):
            raise CannotFetch(
                f"the weights {name} of {asked.name} are a pickle, which is not fetched",
                hint="look for a repository, or a branch (@REVISION), with .safetensors",
            )
    return kept


def _home(name: str) -> str:
    return name.rpartition("/")[0].partition("/")[0]


def _is_kept(name: str, homes: set[str] | None) -> bool:
    """Settings and weights of the parts; where there is an index, weights beside it are another edition of them."""
    path = PurePosixPath(name)
    if path.suffix not in KEPT and not fnmatch.fnmatch(path.name, "LICENSE*"):
        return False
    if homes is None or _home(name) in homes:
        return True
    return _home(name) == "" and path.suffix not in gate.WEIGHTS


def fetch(plan: Plan, on_bytes: OnBytes = lambda done, total: None) -> Model:
    """Bring what a plan says into the hub's cache; what is there already, or in part, is not fetched again.

    Every large file's sha256 is compared. Raises CannotFetch, and UnsafeModel for what should not have come.
    """
    from huggingface_hub import snapshot_download

    asked = _fetchable(plan.reference)
    _check_room(plan)
    with _understood(asked):
        folder = Path(
            snapshot_download(
                plan.repository,
                revision=plan.branch or None,
                allow_patterns=[_literal(name) for name in plan.files],
                tqdm_class=_teller(on_bytes, plan.size),
            )
        )
    on_bytes(plan.size, plan.size)
    _check_sums(folder)
    return locate(plan.reference)


def _check_room(plan: Plan) -> None:
    home = hub_cache()
    while not home.exists():
        home = home.parent
    needed = sum(size for name, size in plan.files.items() if not _is_here(plan, name))
    free = shutil.disk_usage(home).free
    if needed > free:
        raise CannotFetch(
            f"{plan.reference} needs {needed / 1e9:.1f} GB, and {home} has {free / 1e9:.1f} GB left",
            hint="free some space, or let HF_HOME name a larger disk",
        )


def _is_here(plan: Plan, name: str) -> bool:
    home = hub_cache() / f"models--{plan.repository.replace('/', '--')}"
    return (home / "snapshots" / plan.revision / name).exists()


def _check_sums(folder: Path) -> None:
    """Compare large files with their names, which are their sha256 on the hub; a damaged one is removed."""
    for path in sorted(folder.rglob("*")):
        blob = path.resolve()
        if re.fullmatch(r"[0-9a-f]{64}", blob.name) and blob.parent.name == "blobs" and files.sha256(blob) != blob.name:
            path.unlink()
            blob.unlink()
            raise CannotFetch(f"{path.name} came damaged and was removed", hint="run the same command again")


def _literal(name: str) -> str:
    """A pattern that matches this name and no other."""
    return re.sub(r"([*?\[])", r"[\1]", name)


def _teller(on_bytes: OnBytes, total: int) -> type:
    """What huggingface_hub takes for a progress bar: it tells of the bytes that were written."""
    from huggingface_hub.utils.tqdm import tqdm

    class Teller(tqdm):
        """A bar that draws nothing."""

        def __init__(self, *args: Any, **named: Any) -> None:
            self._counts, self._done = named.get("name") == "huggingface_hub.snapshot_download", 0
            super().__init__(*args, **{**named, "disable": True})  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> bool | None:
            """Hear of some more bytes."""
            if self._counts:
                self._done += int(n or 0)
                on_bytes(min(self._done, total), total)
            return None

    return Teller


@contextmanager
def _understood(asked: Reference) -> Iterator[None]:
    """Within, what the hub or the network says becomes a CannotFetch with a hint."""
    import httpx2
    from huggingface_hub import errors

    name = asked.name
    try:
        yield
    except KinetographError:
        raise
    except errors.GatedRepoError as error:
        hint = "accept its terms on its page, then set HF_TOKEN to a token of yours"
        raise CannotFetch(f"{name} is given only to those who accepted its terms", hint=hint) from error
    except errors.RevisionNotFoundError as error:
        raise CannotFetch(f"{name} has no such revision", hint="leave @REVISION out for the newest") from error
    except errors.RepositoryNotFoundError as error:
        hint = "check the spelling; for a private one set HF_TOKEN"
        raise CannotFetch(f"the hub knows no {name}", hint=hint) from error
    except errors.OfflineModeIsEnabled as error:
        raise CannotFetch(f"{name} is not fetched while HF_HUB_OFFLINE is set", hint="unset it to fetch") from error
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, httpx2.HTTPError) as error:
        raise CannotFetch(f"{name} could not be fetched: {_line(error)}", hint=_GOES_ON) from error
    except OSError as error:
        raise CannotFetch(f"{name} could not be kept: {error.strerror or _line(error)}", hint=_GOES_ON) from error


_GOES_ON = "the same command goes on: files that came whole are kept"


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
