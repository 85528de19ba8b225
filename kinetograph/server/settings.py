"""Settings: everything that whoever starts a server decides."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from kinetograph.engine import DEFAULT_ENGINE
from kinetograph.errors import InvalidRequest
from kinetograph.shelf import ENGINES

LOOPBACK = ("localhost", "127.0.0.1", "::1", "[::1]")


def default_folder() -> Path:
    """Where a server keeps its things unless it is told otherwise."""
    return Path(platformdirs.user_data_dir("kinetograph")) / "server"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a server is to do. Sizes in bytes, times in seconds.

    `engines` are the engines that may be asked for, the first one by whoever names none; `aliases` are names of models
    elsewhere that stand for it. `hosts` are names under which the server may be called, beside loopback. `rate` is how
    many requests that make something one key may send, `reads` how many of the others.
    """

    folder: Path
    database: str
    archive: Path
    engines: tuple[str, ...]
    host: str = "127.0.0.1"
    port: int = 8000
    hosts: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ("sora-2", "sora-2-pro")
    workers: int = 1
    device: str = "auto"
    keep: float | None = None
    rate: str = "120/minute"
    reads: str = "6000/minute"
    most_queued: int = 1000
    most_pixels: int = 2**28
    most_body: int = 32 * 2**20
    slowest_body: float = 60.0
    job_seconds: float = 3600.0
    lease: float = 30.0
    attempts: int = 3
    free: int = 200_000_000
    c2pa_cert: Path | None = None
    c2pa_key: Path | None = None

    @classmethod
    def of(
        cls,
        folder: Path,
        *,
        database: str | None = None,
        archive: Path | None = None,
        engine: str = DEFAULT_ENGINE,
        allow: tuple[str, ...] = (),
        **others: object,
    ) -> "Settings":
        """Settings with everything that was left open settled. Raises InvalidRequest.

        Where no engine is allowed by name, everything on the shelf is, without weights of somebody's choice: a client
        must not make the server open folders.
        """
        engines = dict.fromkeys((engine, *(allow or ENGINES.names())))
        return cls(
            folder=folder,
            database=database or f"sqlite:///{folder.resolve() / 'jobs.sqlite'}",
            archive=archive or folder / "archive",
            engines=tuple(engines),
            **others,  # type: ignore[arg-type]
        )

    @property
    def names(self) -> frozenset[str]:
        """The host names under which requests are answered."""
        return frozenset({*LOOPBACK, *(name.lower() for name in self.hosts)})

    def check_open(self) -> None:
        """Raise InvalidRequest for a server that others can reach and that asks for no key."""
        if not is_loopback(self.host):
            message = f"{self.host} can be reached from elsewhere, and there is no key yet"
            raise InvalidRequest(message, field="host", hint="make one first: kinetograph keys add NAME")


def is_loopback(host: str) -> bool:
    """Whether nobody else can reach an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"
