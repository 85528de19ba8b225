"""Files that a request adds to a model, noted by their sha256: what is made again is made of the same or refused."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from kinetograph import hub
from kinetograph.engine import Options as Base
from kinetograph.errors import InvalidRequest, ModelMissing, UnknownName

SUM = "_sha256"
START = f"start{SUM}"  # of frames, not of a file: compared where they are read


class Adding(Base):
    """Options of which some name files. Beside `NAME` stands `NAME_sha256`, which is filled in where it is empty.

    A file that is not here, or is not the only one that its name may mean, is left to whoever reads it to refuse.
    """

    lora: tuple[str, ...] = Field((), max_length=8, description="LoRAs: files of safetensors, or repositories.")
    lora_scale: tuple[float, ...] = Field((), max_length=8, description="Their scales, 1 unless given.")
    lora_sha256: tuple[str, ...] = Field(
        (), max_length=8, description="Fingerprints of the LoRAs' files; refused where they differ."
    )

    @model_validator(mode="before")
    @classmethod
    def _noted(cls, said: Any) -> Any:
        if not isinstance(said, Mapping):
            return said
        return {**said, **{f"{name}{SUM}": found for name, found in cls._found(said)}}

    @classmethod
    def _found(cls, said: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        """The options that name files, with the sums of these. Raises InvalidRequest where others are noted."""
        for name in (field.removesuffix(SUM) for field in cls.model_fields if field.endswith(SUM) and field != START):
            value, before = said.get(name), said.get(f"{name}{SUM}")
            several = isinstance(value, list | tuple)
            names: list[Any] = [*value] if isinstance(value, list | tuple) else [value]
            if not value or not all(isinstance(one, str) for one in names):
                continue
            if before is not None and not isinstance(before, list | tuple if several else str):
                continue  # no sums at all, which the option's own type refuses
            sums = [_sum(one) for one in names]
            known = [*(before or ())] if several else [before or ""]
            for one, new, old in zip(names, sums, known):
                if old and new != old:
                    hint = f"its sha256 is {new[:16]}, not {old[:16]}" if new else "it is not here"
                    raise InvalidRequest(
                        f"{one} is not the file that it was when the request was made", field=name, hint=hint
                    )
            yield name, sums if several else sums[0]


def _sum(name: str) -> str:
    """The sha256 of the one file that a name means, "" where there is none."""
    path = Path(name).expanduser()
    try:
        path = path if path.exists() else hub.locate(name).path
    except (ModelMissing, UnknownName):
        return ""
    found = hub.weights_at(path)
    return hub.file_digest(found[0]) if len(found) == 1 else ""
