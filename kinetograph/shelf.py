"""A folder of modules seen as a registry: one file is one thing, the file's name is its name."""

import importlib
import pkgutil
from collections.abc import Iterator
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from types import ModuleType

from kinetograph.errors import PluginError, UnknownName


class Shelf:
    """The modules of one package, and the strangers that other distributions add to it by entry point.

    `kind` is what an error calls one of them; `package` is the folder's dotted name. A stranger declares
    an entry point in the group `kinetograph.<folder>` (`[project.entry-points."kinetograph.worlds"]`).
    Listing imports none of them; `shelf[name]` imports one. On a clash of names the file in the folder
    wins. Works from a zip file too.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind, self.package = kind, package

    def names(self) -> tuple[str, ...]:
        """Every name on the shelf, sorted. Names that begin with an underscore are private and not listed."""
        return tuple(sorted({*self._own, *self._strangers}))

    def __getitem__(self, name: str) -> ModuleType:
        """Import one. Raises UnknownName, with the nearest spelling, where there is none of that name, and PluginError
        for a stranger that cannot be loaded."""
        if name in self._own:
            return importlib.import_module(f"{self.package}.{name}")
        if name in self._strangers:
            return self._load(self._strangers[name])
        raise UnknownName(self.kind, name, self.names())

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in self._strangers

    def __len__(self) -> int:
        return len(self.names())

    def _load(self, point: EntryPoint) -> ModuleType:
        whose = point.dist.name if point.dist else "another distribution"
        hint = f"its entry point is {point.name} = {point.value}; update or remove {whose}"
        try:
            module = point.load()
        except Exception as error:  # whatever a stranger's code may raise
            what = f"cannot be loaded: {type(error).__name__}: {error}"
            raise PluginError(f"the {self.kind} {point.name!r} of {whose} {what}", hint=hint) from error
        if not isinstance(module, ModuleType):
            raise PluginError(f"the {self.kind} {point.name!r} of {whose} is {module!r}, not a module", hint=hint)
        return module

    @cached_property
    def _own(self) -> frozenset[str]:
        spec = find_spec(self.package)
        folders = spec.submodule_search_locations if spec else None
        return frozenset(m.name for m in pkgutil.iter_modules(folders or ()) if not m.name.startswith("_"))

    @cached_property
    def _strangers(self) -> dict[str, EntryPoint]:
        group = f"kinetograph.{self.package.rpartition('.')[2]}"
        return {point.name: point for point in entry_points(group=group)}


WORLDS = Shelf("world", "kinetograph.worlds")
ENGINES = Shelf("engine", "kinetograph.engines")
METRICS = Shelf("metric", "kinetograph.metrics")
MODELS = Shelf("model", "kinetograph.neural.models")
TRIALS = Shelf("trial", "kinetograph.trials")
