"""What can be said to the zero-shot engine of clips and pictures: sources, controls, what is smoothed."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from kinetograph import controls
from kinetograph.engine import ChangedClip, FirstPicture, Words
from kinetograph.engine import Options as Base


class ClipOptions(Base):
    """Clips that a request leans on, each with the sum of its frames, and what is made of them."""

    control: tuple[str, ...] = Field(
        (),
        max_length=8,
        description="Clips to obey: edge=FILE,weights=FOLDER,scale=1 and so on; also depth=, pose=, plain=.",
    )
    source: ChangedClip = Field("", description="A clip to edit.")
    source_sha256: str = Field("", description="Fingerprint of the frames of `source`; refused where they differ.")
    fit: Literal["", "crop", "stretch"] = Field("", description="How a source that does not fit is resampled.")
    begin: float = Field(0.0, ge=0, le=1e6, description="With fit: the second of the source to begin at.")
    strength: float = Field(0.6, gt=0, le=1, description="How far an edit may go from its source; 1 keeps nothing.")
    image_guidance: float = Field(
        1.5, ge=0, le=30, description="How strongly the source guides a model that follows instructions."
    )
    keep: float = Field(
        0.0, ge=0, le=1, description="What an edit leaves this near its source, of the whole range, is the source."
    )
    shared_noise: bool = Field(
        True, description="With a source or a control: whether all frames begin as the same noise."
    )
    start: FirstPicture = Field("", description="A picture that comes first, of the size asked for.")
    start_sha256: str = Field("", description="Fingerprint of the picture in `start`; refused where it differs.")
    smooth: float = Field(0.0, ge=0, le=1, description="How much of the background is taken from the first frame.")
    smooth_masks: Literal["auto", "attention", "flow", "both", "clip"] = Field(
        "auto", description="What is no background: where words look, what moves on its own, both, or a mask clip."
    )
    smooth_words: Words = Field(
        "", max_length=200, description="Words of the sentence that name what is no background."
    )
    smooth_mask: str = Field("", description="With smooth_masks=clip: a clip that is white where there is foreground.")
    smooth_mask_sha256: str = Field("", description="Fingerprint of the frames of `smooth_mask`.")
    smooth_since: float = Field(0.0, ge=0, le=1, description="The part of the steps from which it is smoothed.")
    smooth_until: float = Field(0.6, ge=0, le=1, description="The part of the steps until which it is smoothed.")
    smooth_cells: float = Field(
        0.5, gt=0, le=100, description="How many cells of the latents something moves on its own to be no background."
    )
    smooth_grow: int = Field(2, ge=0, le=32, description="How many cells further than it is seen foreground reaches.")

    companions: ClassVar[Mapping[str, str]] = controls.WEIGHTS  # the ControlNets of controls that name none

    @field_validator("control")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(controls.completed(controls.Control.parse(line), cls.companions)) for line in value)
