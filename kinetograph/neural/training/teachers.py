"""The picture model that a run learns beside: found, and checked, before anything is written."""

from kinetograph import hub, weights
from kinetograph.errors import WeightsError
from kinetograph.neural.pictures.families import FAMILIES


def stable_diffusion(name: str, what: str) -> hub.Model:
    """The model of Stable Diffusion's family of this name: a folder, a hub id, or a name of the package; `what` is made
    for such models alone. Raises UnknownName and WeightsError."""
    found = hub.locate(weights.path_of(name))
    if found.pipeline != FAMILIES["sd"].pipeline:
        hint = f"{what} for models of Stable Diffusion's family"
        raise WeightsError(f"{found.path} is {found.pipeline or 'no text-to-image model'}", hint=hint)
    return found
