"""The picture or clip that a request begins with, read and checked against it."""

from kinetograph import media
from kinetograph.errors import InvalidRequest
from kinetograph.media import Frames
from kinetograph.request import VideoRequest
from kinetograph.video import fingerprint


def read(path: str, request: VideoRequest, digest: str = "") -> Frames:
    """The frames in a file. Raises CannotRead, and InvalidRequest where their size, or their fingerprint where one is
    given, is not what the request says."""
    frames = media.read_frames(path)
    height, width = frames.shape[1:3]
    if (width, height) != (request.width, request.height):
        raise InvalidRequest(
            f"{path} is {width}x{height}, the clip {request.width}x{request.height}",
            field="start",
            hint=f"use --size {width}x{height}, or a file of the clip's size",
        )
    if digest and fingerprint(frames) != digest:
        raise InvalidRequest(
            f"{path} does not show what it showed when the request was made",
            field="start",
            hint=f"its frames' sha256 is {fingerprint(frames)[:16]}, not {digest[:16]}",
        )
    return frames
