"""Modular pipelines of diffusers, which are made of blocks: what their blocks take, and loading them from a folder.

An index of blocks says of every part where it comes from, and that may be another repository, or a folder of the
machine that wrote it. Here a part comes from its own folder within the model, or else through the hub's cache and the
gate.
"""

from pathlib import Path
from typing import Any

import diffusers
from diffusers import ModularPipeline

from kinetograph import hub
from kinetograph.errors import WeightsError
from kinetograph.neural.pretrained import pipelines, seeing

SAID = {"prompt", "image", "video"}  # what a request can say to a workflow of blocks


def inputs(pipeline: str) -> list[tuple[str, str, Any, str]]:
    """Name, type, default and description of everything that the blocks of a pipeline's class take."""
    kind = getattr(diffusers, pipeline, None)
    if kind is None:
        raise WeightsError(f"diffusers {diffusers.__version__} has no {pipeline}", hint="another version may have it")
    with pipelines.quiet():
        blocks = kind().blocks
    found = [(one.name, _type(one.type_hint), one.default, one.description or "") for one in blocks.inputs if one.name]
    if any(spec.name == "guider" for spec in blocks.expected_components):
        found.append(("guidance_scale", "float", 5.0, "How strongly the sentence guides; 1 is not at all."))
    return found


def _type(hint: Any) -> str:
    return getattr(hint, "__name__", None) if isinstance(hint, type) else str(hint).replace("typing.", "")  # type: ignore[return-value]


def load(model: hub.Model, dtype: str, variant: str = "") -> Any:
    """The pipeline in a folder, every part of it from where this module says. Raises WeightsError and ModelMissing."""
    with pipelines.quiet(), pipelines.explained(f"{model.path} could not be loaded as a {model.pipeline}"):
        loaded = ModularPipeline.from_pretrained(str(model.path), local_files_only=True)
        wanted: list[str] = []
        seers: dict[str, Path] = {}
        needed = _needed(loaded.blocks)
        for name, spec in loaded._component_specs.items():
            if name not in needed:
                continue
            if spec.default_creation_method == "from_pretrained" and spec.pretrained_model_name_or_path:
                home = _home(model, name, spec)
                if getattr(spec.type_hint, "__name__", "") == "Qwen3VLProcessor":
                    seers[name] = home
                    continue
                spec.pretrained_model_name_or_path, spec.subfolder = str(home.parent), home.name
                wanted.append(name)
        said = {"torch_dtype": pipelines.DTYPES[dtype], "use_safetensors": True, "local_files_only": True}
        loaded.load_components(names=wanted, **said | ({"variant": variant} if variant else {}))
        if getattr(loaded, "requires_safety_checker", False):
            loaded.enable_safety_checker()  # Cosmos 3 loads its guardrail only when it is told to
        loaded.update_components(**{name: seeing.Processor(home) for name, home in seers.items()})
    lost = [name for name in wanted if getattr(loaded, name, None) is None]
    if lost:
        raise WeightsError(
            f"{', '.join(lost)} of {model.reference} could not be loaded", hint=f"look into {model.path}"
        )
    pipelines.mend(getattr(loaded, "scheduler", None))
    loaded.set_progress_bar_config(disable=True)
    return loaded


def _needed(blocks: Any) -> set[str]:
    """The parts that some workflow needs that a request can ask for: MiniMax-H3 has a second denoiser for references,
    as large as the first."""
    flows = getattr(blocks, "_workflow_map", None) or {}
    can = [name for name, ways in flows.items() if any(set(way) <= SAID for way in _ways(ways))]
    each = [blocks.get_workflow(name) for name in can] or [blocks]
    return {spec.name for one in each for spec in one.expected_components}


def _ways(ways: Any) -> tuple[dict[str, Any], ...]:
    return ways if isinstance(ways, tuple) else (ways,)


def _home(model: hub.Model, name: str, spec: Any) -> Path:
    """The folder of a part: the model's own, or one within another model of the hub's cache."""
    own = model.path / name
    if own.is_dir():
        return own
    other = hub.locate(spec.pretrained_model_name_or_path)
    return other.path / (spec.subfolder or "")


def guide(pipeline: Any, scale: float | None) -> None:
    """Set how strongly every guider of a pipeline guides."""
    for name, part in pipeline.components.items():
        if name.startswith("guider") and scale is not None and hasattr(part, "guidance_scale"):
            part.guidance_scale = scale
