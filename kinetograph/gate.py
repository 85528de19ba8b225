"""What a model folder may hold: weights and settings. Code, pickles and paths that lead outside are refused unread.

Nothing is imported from the folder and no weight is opened: names, links and the settings (JSON) are looked at. A list
of what is allowed, not of what is known to be bad: an unfamiliar library is refused like a hostile one.
"""

import json
import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any

from kinetograph.errors import UnsafeModel, WeightsError

INDEX, MODULAR_INDEX = "model_index.json", "modular_model_index.json"
CODE = frozenset({".py", ".pyc", ".pyo", ".pyd", ".so", ".dll", ".dylib", ".sh", ".bat", ".exe", ".ps1"})
PICKLES = frozenset({".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle", ".joblib", ".h5", ".keras"})
WEIGHTS = frozenset({".safetensors", ".gguf"})
LARGEST_SETTINGS = 64 * 2**20  # bytes; a tokenizer's vocabulary is the largest honest one
METADATA = "__metadata__"  # what a file of safetensors says of itself
LARGEST_HEADER = 100_000_000  # bytes; what the safetensors library itself accepts

# Settings that name code to be run, or that switch the asking for permission off.
CODE_KEYS = frozenset({"auto_map", "custom_pipeline", "custom_pipelines", "custom_generate", "trust_remote_code"})
LIBRARIES = frozenset({None, "diffusers", "transformers", "cosmos_guardrail"})
# Settings with an underscore that the libraries write themselves; a foreign one may name something to be loaded.
OWN_KEYS = frozenset(
    {"_class_name", "_diffusers_version", "_name_or_path", "_commit_hash", "_blocks_class_name", "_from_model_config"}
    | {"_attn_implementation_autoset", "_use_default_values", "_valid_processor_keys", "_num_labels", "_library"}
)
ATTENTION = frozenset({None, "eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"})
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def check(folder: Path) -> None:
    """Raises UnsafeModel, naming the file and the fault, for a model folder (or a file of weights) that could do
    anything but be read; WeightsError for settings that are no JSON.
    """
    if folder.is_file():
        _check_kind(folder, folder.name, siblings=set())
        return
    for path in walk(folder):
        check_place(folder, path)
        _check_kind(path, _name(folder, path), {other.suffix.lower() for other in path.parent.iterdir()})
    for path in walk(folder):
        if path.suffix.lower() == ".json":
            _check_settings(folder, path)


def walk(folder: Path) -> Iterator[Path]:
    """Every file and link below a folder, hidden ones too; the folders of version control apart."""
    for path in sorted(folder.iterdir()):
        if path.name in (".git", ".cache"):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from walk(path)
        else:
            yield path


def _name(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()


def check_place(folder: Path, path: Path) -> None:
    """A link may lead within the folder or, in the hub's cache, to the blobs beside its snapshots.

    Raises UnsafeModel.
    """
    homes = [folder.resolve()]
    if folder.resolve().parent.name == "snapshots":
        homes.append(folder.resolve().parents[1] / "blobs")
    if not any(path.resolve().is_relative_to(home) for home in homes):
        raise UnsafeModel(
            f"{folder} holds a link, {_name(folder, path)}, that leads out of it",
            hint="replace the link by the file that it stands for, if you trust it",
        )


def _check_kind(path: Path, name: str, siblings: set[str]) -> None:
    kind = path.suffix.lower()
    if kind in CODE:
        raise UnsafeModel(
            f"the model holds code, {name}, and code of a model is never run",
            hint="remove the file if the model does without it; `kinetograph fetch` leaves code behind",
        )
    if kind in PICKLES and not siblings & WEIGHTS:
        raise UnsafeModel(
            f"the model holds a pickle, {name}, which may run code when it is opened",
            hint="use a repository with .safetensors, which are read where both lie in one folder; "
            "or make them, if you trust it that far: kinetograph convert PATH",
        )


def _check_settings(folder: Path, path: Path) -> None:
    name = _name(folder, path)
    said = settings(path)
    if name in (INDEX, MODULAR_INDEX) and isinstance(said, dict):
        _check_index(folder, name, said)
    if path.name.endswith(".index.json") and isinstance(said, dict):
        _check_shards(name, said)
    if path.name == "adapter_config.json":
        raise UnsafeModel(
            f"the model hides another one behind {name}", hint="give a LoRA as the option `lora`, not inside a model"
        )
    if path.name not in ("tokenizer.json", "vocab.json"):  # words, and any word may stand among them
        _check_keys(name, said)


def settings(path: Path) -> Any:
    """What a JSON file says. Raises WeightsError for one that is too large or no JSON."""
    try:
        if path.stat().st_size > LARGEST_SETTINGS:
            raise WeightsError(f"{path} is larger than any settings are", hint=f"at most {LARGEST_SETTINGS} bytes")
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path} cannot be read", hint=f"{type(error).__name__}: {error}") from error


def header(path: Path) -> dict[str, Any]:
    """What a file of safetensors says of each of its tensors, by name: no tensor is read. Raises WeightsError."""
    return {name: about for name, about in whole_header(path).items() if name != METADATA}


def whole_header(path: Path) -> dict[str, Any]:
    """The same, with what the file says of itself under METADATA. Raises WeightsError."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= min(LARGEST_HEADER, path.stat().st_size):
                raise ValueError("the header is longer than the file")
            return dict(json.loads(file.read(length)))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise WeightsError(
            f"{path} is no file of safetensors", hint=f"its header could not be read: {error}"
        ) from error


def lora_settings(file: Path) -> Path | None:
    """The settings that peft writes beside a LoRA, which say how strong it is."""
    beside = file.with_name("adapter_config.json")
    return beside if file.name == "adapter_model.safetensors" and beside.is_file() else None


def _check_keys(name: str, said: Any) -> None:
    for key, value in _pairs(said):
        if key in CODE_KEYS and value not in (None, False, {}, []):
            raise UnsafeModel(
                f"the settings {name} ask for code of the model by {key!r}",
                hint="code of a model is never run; use a model whose class comes with diffusers or transformers",
            )
        if key.startswith("_attn_implementation") or key == "attn_implementation":
            if key != "_attn_implementation_autoset" and (not isinstance(value, str | None) or value not in ATTENTION):
                raise UnsafeModel(f"the settings {name} ask for a foreign kernel by {key!r}", hint=f"it says {value!r}")
        elif key.startswith("_") and key not in OWN_KEYS and isinstance(value, str | list | dict) and _is_config(name):
            raise UnsafeModel(
                f"the settings {name} have the private entry {key!r}", hint="settings that are not known are refused"
            )


def _is_config(name: str) -> bool:
    return PurePosixPath(name).name in (INDEX, MODULAR_INDEX, "config.json", "scheduler_config.json")


def _pairs(said: Any) -> Iterator[tuple[str, Any]]:
    """Every key with its value, however deep."""
    waiting = [said]
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict):
            yield from found.items()
            waiting.extend(found.values())
        elif isinstance(found, list):
            waiting.extend(found)


def _check_index(folder: Path, name: str, said: Mapping[str, Any]) -> None:
    """A pipeline is a class of diffusers; its parts are classes of the two libraries, in folders of their own."""
    for key in ("_class_name", "_blocks_class_name"):
        if key in said and said[key] is not None and not _is_name(said[key]):
            raise UnsafeModel(
                f"{name} says that the pipeline is {said[key]!r}, which is no class of diffusers",
                hint="code of a model is never run",
            )
    for part, value in said.items():
        if not isinstance(value, list) or len(value) < 2:
            continue
        library, kind, *where = value
        if not (_is_name(part) and _is_library(library) and (kind is None or _is_name(kind))):
            raise UnsafeModel(
                f"{name} says that {part!r} is {kind!r} of {library!r}",
                hint="parts are classes of diffusers and transformers, in folders called by their names",
            )
        for spec in where if not (folder / part).is_dir() else ():  # what lies here is taken, whatever is said of it
            _check_source(name, part, spec)


def _check_source(name: str, part: str, spec: Any) -> None:
    """Where a modular pipeline's part comes from: a folder within this one, or another repository."""
    for key in ("pretrained_model_name_or_path", "repo", "subfolder", "variant", "revision"):
        value = spec.get(key) if isinstance(spec, dict) else None
        if value and not (isinstance(value, str) and is_inside(value)):
            raise UnsafeModel(f"{name} takes {part!r} from {value!r}", hint="paths lead within the folder, or to a hub")


def _check_shards(name: str, said: Mapping[str, Any]) -> None:
    shards = said.get("weight_map", {})
    for file in sorted(set(map(str, shards.values()))) if isinstance(shards, dict) else []:
        pickled = PurePosixPath(file).suffix.lower() in PICKLES and not name.endswith(".safetensors.index.json")
        if not is_inside(file) or not (pickled or PurePosixPath(file).suffix == ".safetensors"):
            raise UnsafeModel(f"{name} takes weights from {file!r}", hint="weights are .safetensors within the folder")


def is_inside(path: str) -> bool:
    """Whether a relative path stays where it begins: not absolute, no "..", no drive, no backslash, no scheme."""
    parts = PurePosixPath(path).parts
    return not (path.startswith(("/", "~")) or ".." in parts or "\\" in path or ":" in path or "\0" in path)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and NAME.fullmatch(value) is not None


def _is_library(value: Any) -> bool:
    """A library that is known, or the name of a folder of pipelines within diffusers, which old indexes use."""
    if value is None or (isinstance(value, str) and value in LIBRARIES):
        return True
    spec = find_spec("diffusers") if _is_name(value) else None  # does not import it
    homes = spec.submodule_search_locations if spec else None
    return any((Path(home) / "pipelines" / value).is_dir() for home in homes or ())
