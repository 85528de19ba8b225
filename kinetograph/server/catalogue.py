"""The catalogue: the engines that this server offers, described without loading them."""

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kinetograph.engine import EngineInfo, closed, describe
from kinetograph.errors import InvalidRequest, KinetographError, did_you_mean

FRESH = 5.0  # seconds that a description is believed


@dataclass(frozen=True)
class Ability:
    """What a request may ask of an engine beside making a video, and an engine that can."""

    of: Callable[[EngineInfo], str]
    verb: str
    example: str


BEGINS = Ability(lambda info: info.begins or info.edits, "take frames", "flow")
CONTINUES = Ability(lambda info: info.continues, "go on from frames", "flow")
EDITS = Ability(lambda info: info.edits, "change a clip", "zero:sd-1.5")


class Catalogue:
    """Engines by their reference; only those that the operator allowed."""

    def __init__(self, references: tuple[str, ...], aliases: tuple[str, ...] = ()) -> None:
        self.references, self._aliases = references, aliases
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, EngineInfo | None]] = {}
        self._reported: dict[str, str] = {}

    @property
    def default(self) -> str:
        """The engine of whoever names none."""
        return self.references[0]

    def info(self, reference: str) -> EngineInfo | None:
        """What an engine is; None where it cannot be used here, which the log explains."""
        with self._lock:
            when, info = self._known.get(reference, (0.0, None))
            if time.monotonic() - when > FRESH or not when:
                info = self._described(reference)
                self._known[reference] = (time.monotonic(), info)
            return info

    def chosen(self, model: object, able: Ability | None = None) -> EngineInfo:
        """The engine that a request names, or, where it names none, the first that can do it. Raises InvalidRequest."""
        if model is None or model == "" or model in self._aliases:
            info = self.first(able) if able else self.info(self.default)
            if info is None and able:
                hint = f"the operator can offer one: --allow {able.example}"
                raise InvalidRequest(f"no engine of this server can {able.verb}", field="model", hint=hint)
            model = self.default
        elif not isinstance(model, str) or model not in self.references:
            hint = did_you_mean(str(model)[:80], self.references)
            raise InvalidRequest(f"no model is called {str(model)[:80]!r}", field="model", hint=hint)
        else:
            info = self.info(model)
        if info is None:
            raise InvalidRequest(
                f"the engine {model} cannot be used here at present", field="model", hint=self._others()
            )
        return info

    def first(self, able: Ability) -> EngineInfo | None:
        """The first engine that can do it."""
        return next((info for info in map(self.info, self.references) if info and able.of(info)), None)

    def _described(self, reference: str) -> EngineInfo | None:
        try:
            return describe(reference)
        except KinetographError as error:
            if self._reported.get(reference) != str(error):  # once is enough
                self._reported[reference] = str(error)
                print(f"kinetograph: the engine {reference} cannot be used: {error}", file=sys.stderr, flush=True)
            return None

    def _others(self) -> str:
        usable = [reference for reference in self.references if self.info(reference)]
        return f"there are: {', '.join(usable)}" if usable else "there are no others"

    def rows(self) -> list[dict[str, Any]]:
        """Every engine as JSON."""
        return [self.row(reference) for reference in self.references]

    def row(self, reference: str) -> dict[str, Any]:
        """One engine as JSON: its limits, and a JSON schema of its options."""
        said = {"id": reference, "object": "engine", "default": reference == self.default}
        info = self.info(reference)
        if info is None:
            return {**said, "available": False, "error": "it cannot be used here at present"}
        names = ["summary", "licence", "trained", "width", "height", "weights"]
        names += ["frames", "min_frames", "max_frames", "frame_step"]
        facts = {name: getattr(info, name) for name in names}
        sizes = {name: getattr(info.sizes, name) for name in ("minimum", "maximum", "multiple", "square")}
        can = {name: bool(getattr(info, name)) for name in ("begins", "continues", "edits")}
        more = {"fps": str(info.fps), "sizes": sizes, **can, "options": _schema(info)}
        return {**said, "available": True, "error": None, **facts, **more}


def _schema(info: EngineInfo) -> dict[str, Any]:
    """The options that a client may set: files of the server's machine are not among them."""
    schema = info.Options.model_json_schema()
    hidden = closed(info.Options)
    schema["properties"] = {name: said for name, said in schema.get("properties", {}).items() if name not in hidden}
    return schema
