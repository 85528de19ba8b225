"""The desk: what every route needs, made once for an application."""

import re
from dataclasses import dataclass
from typing import cast

from fastapi import Request

from kinetograph.archive import Archive
from kinetograph.errors import UnknownJob
from kinetograph.jobs import Job, Store
from kinetograph.server.catalogue import Catalogue
from kinetograph.server.events import Broadcast
from kinetograph.server.gauges import Gauges
from kinetograph.server.outlook import Outlook
from kinetograph.server.security import Caller
from kinetograph.server.settings import Settings

ID = re.compile(r"video_[0-9a-f]{32}")


@dataclass(frozen=True)
class Desk:
    """Where a route finds the queue, the archive, and what is known of the engines."""

    settings: Settings
    store: Store
    archive: Archive
    catalogue: Catalogue
    outlook: Outlook
    broadcast: Broadcast
    gauges: Gauges

    def job(self, id: str, caller: Caller) -> Job:
        """A caller's job. Raises UnknownJob, for another one's just as for an id that is none."""
        return self.store.job(checked(id), caller.owner)


def checked(id: str) -> str:
    """An id that may be one. Raises UnknownJob."""
    if not ID.fullmatch(id):
        raise UnknownJob("no video has this id")
    return id


def of(request: Request) -> tuple[Desk, Caller]:
    """The desk of an application, and who asks."""
    return cast(Desk, request.app.state.desk), cast(Caller, request.scope["caller"])
