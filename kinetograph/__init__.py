"""Text to video on any machine: one request, any engine, a file that says how it was made.

    import kinetograph

    info = kinetograph.describe("render")
    video = kinetograph.generate("render", info.request("a red ball moving left", seed=7))
    video.save("ball.mp4")

The names below are imported when first used, so that `import kinetograph` costs nothing: neither torch nor
a codec.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kinetograph.engine import describe, generate, reproduce
    from kinetograph.errors import KinetographError
    from kinetograph.request import VideoRequest
    from kinetograph.video import Provenance, Video

__version__ = "0.1.0"

__all__ = [
    "KinetographError",
    "Provenance",
    "Video",
    "VideoRequest",
    "__version__",
    "describe",
    "generate",
    "reproduce",
]

_HOMES = {
    "describe": "engine",
    "generate": "engine",
    "reproduce": "engine",
    "KinetographError": "errors",
    "VideoRequest": "request",
    "Provenance": "video",
    "Video": "video",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'kinetograph' has no attribute {name!r}")
    return getattr(import_module(f"kinetograph.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
