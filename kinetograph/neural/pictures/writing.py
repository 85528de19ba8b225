"""Picture models written as folders, part by part: a part that learnt takes the place of what was there in one step."""

import copy
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from kinetograph import files, gate
from kinetograph.neural.pictures.folder import quiet

CONFIG = "config.json"


def copy_part(source: Path, target: Path) -> None:
    """Copy a part that did not learn: its settings, its words, its safetensors; neither code nor pickles."""
    aside = target.with_name(f".{target.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    for path in source.iterdir():
        if path.suffix in (".json", ".txt", ".safetensors"):
            shutil.copyfile(path, aside / path.name)
    os.replace(aside, target)


def replace_part(source: Path, target: Path, model: Any, variant: str | None) -> None:
    """Write a part that learnt in the precision of its source."""
    write_part(target, model, _precision(source), variant)


def write_part(target: Path, model: Any, kind: torch.dtype, variant: str | None = None) -> None:
    """Write a part, rounded to numbers of this kind, under a name of its own, which then takes the place of what was
    there."""
    aside, old = target.with_name(f".{target.name}.part"), target.with_name(f".{target.name}.old")
    for path in (aside, old):
        shutil.rmtree(path, ignore_errors=True)
    stored = copy.deepcopy(model).to("cpu", kind)
    target.parent.mkdir(parents=True, exist_ok=True)
    with quiet():
        stored.save_pretrained(
            aside,
            variant=variant,
            safe_serialization=True,
            max_shard_size="1000GB",
        )
    _settle(aside / CONFIG, model.dtype)
    if target.exists():
        os.replace(target, old)
    os.replace(aside, target)
    shutil.rmtree(old, ignore_errors=True)


def _settle(path: Path, learnt_in: torch.dtype) -> None:
    """Settings without the folder of this machine that a part was read from, which ask for the precision that it learnt
    in: transformers would else compute with rounded numbers, beside parts of diffusers that do not."""
    settings = gate.settings(path)
    kept = {name: value for name, value in settings.items() if name != "_name_or_path"}
    if "dtype" in kept:
        kept["dtype"] = str(learnt_in).removeprefix("torch.")
    files.write(path, json.dumps(kept, indent=2) + "\n")


def _precision(folder: Path) -> torch.dtype:
    """In which precision a part's weights are stored."""
    path = sorted(folder.glob("*.safetensors"))[0]
    with safe_open(path, "pt") as file:
        return file.get_tensor(next(iter(file.keys()))).dtype
