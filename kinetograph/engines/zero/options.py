"""What can be said to the zero-shot engine."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from kinetograph.engines.zero.clips import ClipOptions

Finite = Annotated[float, Field(allow_inf_nan=False)]


def _numbers(value: Any) -> Any:
    """A list as it may be written on a command line: 0.1,0.2."""
    if isinstance(value, str):
        return [float(part) for part in value.split(",")]
    return value


class Options(ClipOptions):
    """How the model is asked, how the picture moves, and how frames look at each other."""

    steps: int = Field(30, ge=1, le=1000, description="Steps from noise to the clip: more are finer and slower.")
    guidance: float = Field(7.5, ge=0, le=30, description="How strongly the sentence guides; 1 is not at all.")
    negative_prompt: str = Field("", max_length=2000, description="What guidance leads away from.")
    sampler: Literal["ddpm", "ddim", "euler", "heun", "dpmpp-2m", "unipc"] = Field("unipc", description="The way down.")
    placement: Literal["", "leading", "trailing", "linspace", "karras"] = Field(
        "", description="Where the steps lie; by default as the model was made for."
    )
    eta: float = Field(0.0, ge=0, le=1, description="With ddim: the share of fresh noise in each step.")
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
    t_prime: float = Field(881, ge=0, le=999, description="The noise at which the picture is moved, of 999: T'.")
    t: float = Field(941, ge=0, le=999, description="The noise from where frames go on, each with some of its own: T.")
    attention: bool = Field(True, description="Whether frames look at an anchor instead of themselves.")
    anchors: str = Field(
        "first",
        pattern=r"^(first|previous|first\+previous|self|window:[1-9][0-9]{0,3})$",
        description="Whom they look at: first, previous, first+previous, or window:N for a new one every N frames.",
    )
    chunk: int = Field(8, ge=1, le=256, description="How many frames the network sees at once: memory, not results.")
    decode_chunk: int = Field(2, ge=1, le=64, description="How many frames are decoded at once.")
    tiled: bool = Field(False, description="Whether large frames are decoded in tiles.")
    merging: float = Field(
        0.0, ge=0, le=0.75, description="Faster, not exact: the share of tokens that attend as one with others (UNets)."
    )
    reuse: int = Field(
        1, ge=1, le=20, description="Faster, not exact: how many steps the deep blocks of a UNet are good for."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Numbers: float32 on a CPU, short ones on a GPU."
    )
    offload: Literal["", "model", "sequential"] = Field(
        "", description="On a GPU: keep on it only the part, or the layer, that is at work."
    )

    @field_validator("path")
    @classmethod
    def _whole(cls, value: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
        if any(not 3 <= len(key) <= 6 for key in value):
            raise ValueError("each pose is a second, x, y, and perhaps zoom, rotation and shear")
        return value
