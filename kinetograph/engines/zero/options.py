"""What can be said to the zero-shot engine."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from kinetograph import files, gate, hub, weights
from kinetograph.engine import Words
from kinetograph.engines.zero.clips import ClipOptions
from kinetograph.errors import WeightsError

LORA = "pytorch_lora_weights.safetensors"  # what diffusers calls it in a folder

Sampler = Literal["ddpm", "ddim", "euler", "heun", "dpmpp-2m", "unipc"]
Finite = Annotated[float, Field(allow_inf_nan=False)]


def _numbers(value: Any) -> Any:
    """A list as it may be written on a command line: 0.1,0.2."""
    if isinstance(value, str):
        return [float(part) for part in value.split(",")]
    return [value] if isinstance(value, int | float) else value


def _list(value: Any) -> Any:
    """A list, or the one text that is its only entry."""
    return [value] if isinstance(value, str) and value else value or ()


class Options(ClipOptions):
    """How the model is asked, how the picture moves, and how frames look at each other."""

    steps: int = Field(30, ge=1, le=1000, description="Steps from noise to the clip: more are finer and slower.")
    guidance: float = Field(7.5, ge=0, le=30, description="How strongly the sentence guides; 1 is not at all.")
    negative_prompt: str = Field("", max_length=2000, description="What guidance leads away from.")
    sampler: Sampler = Field("unipc", description="The way down.")
    placement: Literal["", "leading", "trailing", "linspace", "karras"] = Field(
        "", description="Where the steps lie; by default as the model was made for."
    )
    eta: float = Field(0.0, ge=0, le=1, description="With ddim: the share of fresh noise in each step.")
    eta_above: float = Field(0, ge=0, le=999, description="The noise, of 999, down to which some of it is fresh.")
    prompts: tuple[tuple[Finite, str], ...] = Field(
        (), description='Sentences that follow the first: [[1, "a bud"], [3, "a rose"]], in seconds; they fade.'
    )
    dynamics: bool = Field(
        True, description="Whether frames come out of the first, moved; else each has its own noise."
    )
    motion: Annotated[tuple[Finite, Finite], BeforeValidator(_numbers)] = Field(
        (0.1, 0.1), description="How far the picture moves in a second: fractions of its width and height, right, down."
    )
    zoom: float = Field(1.0, gt=0.1, lt=10, description="By how much it grows in a second: a factor.")
    rotation: float = Field(0.0, ge=-360, le=360, description="How far it turns in a second: degrees, clockwise.")
    shear: float = Field(0.0, ge=-4, le=4, description="How far it leans in a second.")
    path: tuple[tuple[Finite, ...], ...] = Field(
        (),
        description="Instead: where it is when, [[0, 0, 0], [2, 0.2, 0, 1.5]]: second, x, y, zoom, rotation, shear.",
    )
    moved: Literal["latents", "pixels"] = Field(
        "latents", description="What is moved: latents, or the picture that they show, encoded again."
    )
    t_prime: float = Field(881, ge=0, le=999, description="The noise at which the picture is moved, of 999: T'.")
    t: float = Field(941, ge=0, le=999, description="The noise from where frames go on, each with some of its own: T.")
    attention: bool = Field(True, description="Whether frames look at an anchor instead of themselves.")
    anchors: Words = Field(
        "first",
        pattern=r"^(first|previous|first\+previous|self|window:[1-9][0-9]{0,3})$",
        description="Whom they look at: first, previous, first+previous, or window:N for a new one every N frames.",
    )
    chunk: int = Field(8, ge=1, le=256, description="How many frames the network sees at once: memory, not results.")
    decode_chunk: int = Field(2, ge=1, le=64, description="How many frames are decoded at once.")
    tiled: bool = Field(False, description="Whether large frames are decoded in tiles.")
    merging: float = Field(
        0.0, ge=0, le=0.75, description="Faster, not exact: the share of tokens that attend as one with others."
    )
    reuse: int = Field(
        1, ge=1, le=20, description="Faster, not exact: how many steps the deep blocks of the network are good for."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Numbers: float32 on a CPU, short ones on a GPU."
    )
    offload: Literal["", "model", "sequential"] = Field(
        "", description="On a GPU: keep on it only the part, or the layer, that is at work."
    )

    lora: Annotated[tuple[str, ...], BeforeValidator(_list)] = Field(
        (), description="LoRAs: files or folders of safetensors, or a hub's OWNER/NAME/FILE."
    )
    lora_scale: Annotated[tuple[Finite, ...], BeforeValidator(_numbers)] = Field(
        (), description="How strong each of them is; by default 1."
    )
    embeddings: Annotated[tuple[str, ...], BeforeValidator(_list)] = Field(
        (), description="Words of one's own (textual inversion): files, or WORD=FILE."
    )
    added_sha256: tuple[str, ...] = Field(
        (), description="Fingerprints of the files of lora and embeddings; refused where they differ."
    )
    config: str = Field(
        "", description="For a checkpoint of one file: a model in a folder whose settings are the same."
    )

    @field_validator("path")
    @classmethod
    def _whole(cls, value: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
        if any(not 3 <= len(key) <= 6 for key in value):
            raise ValueError("each pose is a second, x, y, and perhaps zoom, rotation and shear")
        return value

    @model_validator(mode="before")
    @classmethod
    def _noted(cls, said: Any) -> Any:
        """Note which files are added, so that a clip that is made again is made of the same."""
        added = [*_list(said.get("lora")), *map(_file_of, _list(said.get("embeddings")))]
        if not added or not all(isinstance(name, str) for name in added):
            return said
        found = [_fingerprint(addition(name)) for name in added]
        if said.get("added_sha256") and list(said["added_sha256"]) != found:
            raise ValueError("the files are not those that the request was made with")
        return {**said, "added_sha256": found}

    @model_validator(mode="after")
    def _scaled(self) -> "Options":
        if self.lora_scale and len(self.lora_scale) != len(self.lora):
            raise ValueError(f"{len(self.lora_scale)} scales for {len(self.lora)} LoRAs")
        return self

    @property
    def loras(self) -> list[tuple[Path, float]]:
        """Each LoRA's file and its scale."""
        scales = self.lora_scale or (1.0,) * len(self.lora)
        return [(addition(name), scale) for name, scale in zip(self.lora, scales)]

    @property
    def words(self) -> list[tuple[str, Path]]:
        """Each embedding's word, "" where its file says it, and its file."""
        return [(name.rpartition("=")[0], addition(_file_of(name))) for name in self.embeddings]


class PocketOptions(Options):
    """The same for the model of the package and what was made from it: its companions, and what suits its size."""

    companions: ClassVar[Mapping[str, str]] = weights.COMPANIONS

    steps: int = Field(16, ge=1, le=1000, description="Steps from noise to the clip: more are finer and slower.")
    sampler: Sampler = Field("ddim", description="The way down.")
    eta: float = Field(1.0, ge=0, le=1, description="With ddim: the share of fresh noise in each step.")
    eta_above: float = Field(500, ge=0, le=999, description="The noise, of 999, down to which some of it is fresh.")
    guidance: float = Field(2.0, ge=0, le=30, description="How strongly the sentence guides; 1 is not at all.")
    keep: float = Field(
        0.125, ge=0, le=1, description="What an edit leaves this near its source, of the whole range, is the source."
    )
    moved: Literal["latents", "pixels"] = Field(
        "pixels", description="What is moved: latents, or the picture that they show, encoded again."
    )
    t_prime: float = Field(200, ge=0, le=999, description="The noise at which the picture is moved, of 999: T'.")
    t: float = Field(200, ge=0, le=999, description="The noise from where frames go on, each with some of its own: T.")

    @model_validator(mode="before")
    @classmethod
    def _calm(cls, said: Any) -> Any:
        """Fresh noise goes with ddim; another sampler that is asked for draws its own, or none."""
        return said if said.get("sampler", "ddim") == "ddim" else {"eta": 0.0, **said}


def _file_of(name: Any) -> Any:
    return name.rpartition("=")[2] if isinstance(name, str) else name


def _fingerprint(file: Path) -> str:
    settings = gate.lora_settings(file)
    sums = [files.sha256(path) for path in (file, settings) if path]
    return sums[0] if len(sums) == 1 else hashlib.sha256("\n".join(sums).encode()).hexdigest()


def addition(name: str) -> Path:
    """The one file of safetensors that a name means, on this machine.

    Raises ModelMissing, UnsafeModel, UnknownName, or WeightsError where there are several or none.
    """
    path = hub.locate(name).path
    found = hub.weights_at(path)
    usual = [file for file in found if file.name == LORA]
    if len(usual or found) != 1 or (usual or found)[0].suffix != ".safetensors":
        raise WeightsError(f"{name} is no single file of safetensors", hint="name the file itself")
    return (usual or found)[0]
