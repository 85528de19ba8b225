"""What a pipeline of diffusers can be told, read from the text of its `__call__`: nothing of diffusers is imported."""

import ast
import re
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import Field, create_model

from kinetograph.engine import Options as Base

RENAMED = {"num_inference_steps": "steps", "guidance_scale": "guidance"}  # the user's words
LENGTH = ("num_frames", "video_length", "frames")  # what families call the number of frames
RATE = ("frame_rate", "fps", "target_fps")
# Settled by the request or by the engine, or meant for programs.
TAKEN = re.compile(
    r"prompt|prompt_\d|seed|image|video|mask|height|width|generator|output_type|return_dict|num_(videos|images)_per_prompt|callback.*"
    r"|.*(embeds?|latents?|kwargs|_mask|_image|_video|_images|_frames_mask)\d*|(original|target|negative).*_size|.*crops.*"
    r"|conditions|conditioning_frames|ip_adapter.*|timesteps|sigmas|frame_ids|cross_attention.*|image_\w+|video_\w+|guidance_scale_tensor"
)
PLAIN: dict[str, Any] = {"int": int, "float": float, "bool": bool, "str": str}


@dataclass(frozen=True)
class Knob:
    """One parameter: its name in the pipeline, its kind, its default (None: left to the pipeline)."""

    name: str
    kind: Any
    default: Any
    help: str = ""
    required: bool = False

    @property
    def said(self) -> str:
        """What users call it."""
        return RENAMED.get(self.name, self.name)


@dataclass(frozen=True)
class Call:
    """What a pipeline's class takes: all parameters with their defaults, None where there is none that is plain."""

    pipeline: str
    parameters: tuple[Knob, ...]

    def __contains__(self, name: object) -> bool:
        return any(knob.name == name for knob in self.parameters)

    def default(self, name: str) -> Any:
        """The plain default of a parameter."""
        return next((knob.default for knob in self.parameters if knob.name == name), None)

    def first(self, names: tuple[str, ...]) -> str:
        """Which of these names the pipeline knows, "" for none."""
        return next((name for name in names if name in self), "")

    @property
    def needs(self) -> str:
        """What it cannot do without, beside a prompt: "image", "video", or ""."""
        if (
            re.search("Image.?2?(To)?Video|(?<!T)I2V|StableVideo|ChronoEdit|PIA|SanaWM", self.pipeline)
            and "image" in self
        ):
            return "image"
        if re.search("VideoToVideo|Video2Video|LucyEdit", self.pipeline) and "video" in self:
            return "video"
        return next((knob.name for knob in self.parameters if knob.required and knob.name in ("image", "video")), "")

    @property
    def knobs(self) -> tuple[Knob, ...]:
        """The parameters that are left to the user."""
        settled = {*LENGTH, *RATE}
        return tuple(
            knob
            for knob in self.parameters
            if knob.kind and knob.name not in settled and not TAKEN.fullmatch(knob.name)
        )


@cache
def sources() -> dict[str, Path]:
    """The file of every pipeline's class in the diffusers that is installed."""
    spec = find_spec("diffusers")
    home = Path((spec.submodule_search_locations or [""])[0]) / "pipelines" if spec else Path("-")
    found: dict[str, Path] = {}
    for file in sorted(home.rglob("pipeline_*.py")):
        for name in re.findall(r"^class (\w+Pipeline)\b", file.read_text(encoding="utf-8"), re.M):
            found.setdefault(name, file)
    return found


@cache
def read(pipeline: str) -> Call | None:
    """What the pipeline's `__call__` takes; None for a class that diffusers does not have."""
    file = sources().get(pipeline)
    tree = ast.parse(file.read_text(encoding="utf-8")) if file else None
    for node in tree.body if tree else []:
        if isinstance(node, ast.ClassDef) and node.name == pipeline:
            calls = [item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__call__"]
            return Call(pipeline, tuple(_knobs(calls[0]))) if calls else None
    return None


@cache
def read_blocks(pipeline: str) -> Call:
    """What the blocks of a modular pipeline take. They must be asked themselves, so this imports them, and torch."""
    from kinetograph.neural.pretrained import blocks

    return Call(
        pipeline,
        tuple(
            Knob(name, _kind(kind) or _kind_of(name, default), _plain(default), said)
            for name, kind, default, said in blocks.inputs(pipeline)
        ),
    )


def _kind_of(name: str, default: Any) -> Any:
    """The kind of an input that a block does not declare, by its default."""
    return str if name == "negative_prompt" else PLAIN.get(type(default).__name__)


def _plain(default: Any) -> Any:
    """A default as options may hold it."""
    if isinstance(default, list | tuple):
        return tuple(default) if all(isinstance(item, int | float | str) for item in default) else None
    return default if isinstance(default, int | float | str | bool) else None


def _knobs(call: ast.FunctionDef) -> list[Knob]:
    said = _descriptions(ast.get_docstring(call) or "")
    arguments = [*call.args.args[1:], *call.args.kwonlyargs]
    given = [*call.args.defaults, *call.args.kw_defaults]
    defaults: list[ast.expr | None] = [*[None] * (len(arguments) - len(given)), *given]
    return [
        Knob(
            a.arg, _kind(ast.unparse(a.annotation) if a.annotation else ""), _literal(d), said.get(a.arg, ""), d is None
        )
        for a, d in zip(arguments, defaults)
    ]


def _literal(node: ast.expr | None) -> Any:
    try:
        found = ast.literal_eval(node) if node is not None else None
    except ValueError:
        return None
    return tuple(found) if isinstance(found, list) else found


def _kind(annotation: str) -> Any:
    """The plain type behind an annotation, None where it is none: text where one text or several are taken."""
    text = annotation.replace(" ", "")
    text = re.sub(r"(?:typing\.)?Optional\[(.*)\]", r"\1|None", text)
    text = re.sub(r"(?:typing\.)?Union\[(.*)\]", lambda match: match[1].replace(",", "|"), text)
    kinds = [kind for kind in text.split("|") if kind != "None"]
    for kind in kinds:
        if kind in PLAIN:
            return PLAIN[kind]
    for kind in kinds:
        if match := re.fullmatch(r"[Ll]ist(?:\[(int|float|str)\])?", kind):
            return {"int": tuple[int, ...], "str": None}.get(match[1] or "", tuple[float, ...])
    return None


def _descriptions(doc: str) -> dict[str, str]:
    """The first sentence about each parameter."""
    found = {}
    for match in re.finditer(r"^\s{2,12}(\w+)\s*\([^\n]*\):?\s*\n\s+(\S[^\n]*(?:\n\s{12,}\S[^\n]*)*)", doc, re.M):
        text = " ".join(match[2].split())
        found[match[1]] = re.split(r"(?<=\w\w[.)])\s", text)[0][:200]
    return found


def options(call: Call, own: type[Base]) -> type[Base]:
    """The options of an engine: its own, and the pipeline's knobs."""
    fields = {knob.said: _field(knob) for knob in call.knobs if knob.said not in own.model_fields}
    made: type[Base] = create_model("Options", __base__=own, **fields)
    return made


def _field(knob: Knob) -> Any:
    """One option. What the pipeline leaves open by None is left out unless it is given; of a text, "" is none."""
    default = knob.default
    if knob.kind is str and default is None:
        default = ""
    limits: dict[str, Any] = {"max_length": 4000} if knob.kind is str else {}
    if knob.name == "num_inference_steps":
        limits |= {"ge": 1, "le": 1000}
    if knob.kind is float and isinstance(default, int):
        default = float(default)
    if not _fits(default, knob.kind):
        default = None
    kind = knob.kind | None if default is None else knob.kind
    if isinstance(default, tuple) and default and all(isinstance(item, int) for item in default):
        kind = tuple[int, ...]
    return (kind, Field(default, description=knob.help, **limits))


def _fits(default: Any, kind: Any) -> bool:
    if kind in (int, float, bool, str):
        return isinstance(default, kind) and not (kind is int and isinstance(default, bool))
    return isinstance(default, tuple)
