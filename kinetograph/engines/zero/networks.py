"""ControlNets on their device, kept while the same requests come."""

from typing import TYPE_CHECKING, Any

from kinetograph import hub, weights
from kinetograph.controls import Control
from kinetograph.errors import InvalidRequest, WeightsError

if TYPE_CHECKING:
    from kinetograph.neural.pictures.folder import Pictures

KIND = "ControlNetModel"


class Networks:
    """The ControlNets that were used last: each is loaded once, for one kind of numbers."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str, str, int], Any] = {}

    def get(self, control: Control, pictures: "Pictures", copy: int = 0) -> Any:
        """The ControlNet of a control, on the device and in the numbers of a picture model.

        Controls of one request that name the same weights each take a copy of their own: what anchors offered to one is
        nothing for another.

        Raises ModelMissing, UnsafeModel, WeightsError, and InvalidRequest for one of another family.
        """
        if not control.weights:
            hint = f"say which: {control.kind}=FILE,weights=FOLDER"
            raise InvalidRequest(f"the control {control.kind} names no ControlNet", field="control", hint=hint)
        model = hub.locate(weights.path_of(control.weights))
        digest = hub.digest(model.path)
        if control.weights_sha256 and control.weights_sha256 != digest:
            hint = f"their sha256 is {digest[:16]}, not {control.weights_sha256[:16]}"
            raise InvalidRequest(f"{control.weights} are other weights than before", field="control", hint=hint)
        key = str(model.path), digest, str(pictures.dtype), copy
        if key not in self._kept:
            self._kept[key] = _loaded(model, pictures)
        return self._kept[key]


def _loaded(model: hub.Model, pictures: "Pictures") -> Any:
    import diffusers

    from kinetograph import gate
    from kinetograph.neural.pictures import folder

    config = model.path / "config.json"
    said = gate.settings(config) if config.is_file() else {}
    if not isinstance(said, dict) or said.get("_class_name") != KIND:
        found = said.get("_class_name") if isinstance(said, dict) else None
        hint = f"it says it is {found}" if found else "a ControlNet is a folder with a config.json that says so"
        raise WeightsError(f"{model.reference} is no {KIND}", hint=hint)
    _check_family(model, said, pictures)
    kind: Any = diffusers.ControlNetModel
    options = {"torch_dtype": pictures.dtype, "use_safetensors": True, "local_files_only": True}
    with folder.understood(model.path), folder.quiet():
        network = kind.from_pretrained(model.path, variant=model.variant or None, **options)
    return network.to(pictures.device).eval().requires_grad_(False)


def _check_family(model: hub.Model, said: dict[str, Any], pictures: "Pictures") -> None:
    if pictures.family.network != "unet":
        hint = "ControlNets work with Stable Diffusion 1 and 2 and SDXL"
        raise InvalidRequest(f"{model.reference} does not fit a {pictures.family.pipeline}", field="control", hint=hint)
    own = pictures.network.config
    for name in ("cross_attention_dim", "block_out_channels", "addition_embed_type"):
        theirs, ours = said.get(name), getattr(own, name, None)
        if _plain(theirs) != _plain(ours):
            hint = f"its {name} is {theirs}, the model's {_plain(ours)}: it was made for another family"
            raise InvalidRequest(f"{model.reference} does not fit {pictures.path.name}", field="control", hint=hint)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple | list) else value
