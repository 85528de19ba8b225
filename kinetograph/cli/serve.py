"""`kinetograph serve`, `worker` and `keys`: the server, what works for it, and who may ask it."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kinetograph.cli.output import DEFAULT_ENGINE, Device, Json, say, table
from kinetograph.errors import InvalidRequest

if TYPE_CHECKING:
    from kinetograph.jobs import Database
    from kinetograph.server import Settings

DAY = 86_400.0

Host = Annotated[str, typer.Option("--host", help="The address to listen on. Others than loopback need a key.")]
Port = Annotated[int, typer.Option("--port", min=0, max=65_535, help="The port; 0 for any that is free.")]
Folder = Annotated[
    Path | None, typer.Option("--folder", help="Where the queue and the archive lie; by default in your data folder.")
]
DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        "--database",
        envvar="KINETOGRAPH_DATABASE",
        metavar="URL",
        help="sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME; by default jobs.sqlite in the folder.",
    ),
]
ArchiveFolder = Annotated[
    Path | None, typer.Option("--archive", help="Where finished videos lie; by default archive in the folder.")
]
Engine = Annotated[str, typer.Option("--engine", metavar="REF", help="Who makes what names no model.")]
Allow = Annotated[
    list[str] | None,
    typer.Option("--allow", metavar="REF", help="Another engine that may be asked for; by default all on the shelf."),
]
Workers = Annotated[int, typer.Option("--workers", min=0, help="Worker processes of this server's own.")]
Names = Annotated[
    list[str] | None, typer.Option("--allow-host", metavar="NAME", help="A name under which the server is called.")
]
Retention = Annotated[
    float | None,
    typer.Option("--retention", metavar="DAYS", help="Delete videos after so many days; by default never."),
]
Rate = Annotated[str, typer.Option("--rate", help="Videos and changes that one key may ask for: 120/minute.")]
MostQueued = Annotated[int, typer.Option("--most-queued", min=1, help="Videos of one key that wait or are made.")]
MostPixels = Annotated[int, typer.Option("--most-pixels", min=1, help="Width x height x frames of one video.")]
MostBody = Annotated[int, typer.Option("--most-body", min=1000, help="Bytes of one request.")]
Limit = Annotated[float, typer.Option("--limit", min=0.1, metavar="SECONDS", help="The longest that a video may take.")]
Lease = Annotated[
    float, typer.Option("--lease", min=0.5, metavar="SECONDS", help="Without a sign of life, a job is another's.")
]
Attempts = Annotated[int, typer.Option("--attempts", min=1, help="A job that loses so many workers fails.")]
Free = Annotated[
    int, typer.Option("--free", min=0, metavar="BYTES", help="With less room on the disk, nothing begins.")
]

Cert = Annotated[
    Path | None,
    typer.Option("--c2pa-cert", metavar="PEM", help="Sign every film (C2PA): the chain of certificates, and the key."),
]
CertKey = Annotated[
    Path | None, typer.Option("--c2pa-key", metavar="PEM", help="The key, where it is in another file.")
]


def serve(
    host: Host = "127.0.0.1",
    port: Port = 8000,
    folder: Folder = None,
    database: DatabaseUrl = None,
    archive: ArchiveFolder = None,
    engine: Engine = DEFAULT_ENGINE,
    allow: Allow = None,
    workers: Workers = 1,
    allow_host: Names = None,
    retention: Retention = None,
    rate: Rate = "120/minute",
    most_queued: MostQueued = 1000,
    most_pixels: MostPixels = 2**28,
    most_body: MostBody = 32 * 2**20,
    limit: Limit = 3600.0,
    lease: Lease = 30.0,
    attempts: Attempts = 3,
    free: Free = 200_000_000,
    device: Device = "auto",
    c2pa_cert: Cert = None,
    c2pa_key: CertKey = None,
) -> None:
    """Serve the Videos API: a queue that survives, an archive, and one worker process."""
    from kinetograph import server

    settings = _settings(
        folder,
        database,
        archive,
        engine=engine,
        allow=tuple(allow or ()),
        host=host,
        port=port,
        hosts=tuple(allow_host or ()),
        workers=workers,
        keep=None if retention is None else retention * DAY,
        rate=rate,
        most_queued=most_queued,
        most_pixels=most_pixels,
        most_body=most_body,
        job_seconds=limit,
        lease=lease,
        attempts=attempts,
        free=free,
        device=device,
        c2pa_cert=c2pa_cert,
        c2pa_key=c2pa_key,
    )
    server.serve(settings)


def _settings(folder: Path | None, database: str | None, archive: Path | None, **others: object) -> "Settings":
    from kinetograph.server.settings import Settings, default_folder

    where = folder or default_folder()
    return Settings.of(where, database=database, archive=archive, **others)  # type: ignore[arg-type]


Engines = Annotated[
    list[str] | None, typer.Option("--engine", metavar="REF", help="Take only jobs for this engine; may be repeated.")
]
Parent = Annotated[int | None, typer.Option("--parent", metavar="PID", help="Stop when this process has ended.")]
Ray = Annotated[
    str | None,
    typer.Option("--ray", metavar="ADDRESS", help="Keep workers alive on a Ray cluster: auto, local, or its address."),
]
Number = Annotated[int | None, typer.Option("--count", metavar="N", help="With --ray: how many workers; 1.")]
Cpus = Annotated[float | None, typer.Option("--cpus", help="With --ray: processors that each asks for; 1.")]
Gpus = Annotated[
    float | None, typer.Option("--gpus", help="With --ray: cards that each asks for; 1 where there are some.")
]


def worker(
    folder: Folder = None,
    database: DatabaseUrl = None,
    archive: ArchiveFolder = None,
    engine: Engines = None,
    retention: Retention = None,
    limit: Limit = 3600.0,
    lease: Lease = 30.0,
    attempts: Attempts = 3,
    free: Free = 200_000_000,
    device: Device = "auto",
    c2pa_cert: Cert = None,
    c2pa_key: CertKey = None,
    parent: Parent = None,
    ray: Ray = None,
    count: Number = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
) -> None:
    """Make the videos of a queue, one after the other, until SIGTERM or Ctrl-C."""
    from kinetograph import server

    server.check()
    from kinetograph import pool
    from kinetograph import worker as workers

    settings = _settings(folder, database, archive)
    if archive is None:
        settings.folder.mkdir(parents=True, exist_ok=True)
    keep = None if retention is None else retention * DAY
    task = pool.Task(
        database=settings.database,
        archive=settings.archive,
        engines=tuple(engine or ()),
        device=device,
        lease=lease,
        attempts=attempts,
        limits=workers.Limits(seconds=limit, free=free, keep=keep),
        c2pa_cert=c2pa_cert and c2pa_cert.resolve(),
        c2pa_key=c2pa_key and c2pa_key.resolve(),
    )
    alive = (lambda: True) if parent is None else (lambda: os.getppid() == parent)
    asked = {name: value for name, value in (("count", count), ("cpus", cpus), ("gpus", gpus)) if value is not None}
    if ray is not None:
        pool.run(task, pool.Size(**asked), ray, tell=_tell, wanted=alive)  # type: ignore[arg-type]
    elif asked:
        name = next(iter(asked))
        raise InvalidRequest(f"--{name} is for a pool", field=name, hint="with --ray auto, local or an address")
    else:
        workers.run(task.worker(alive))


def _tell(said: str) -> None:
    typer.echo(f"kinetograph: {said}", err=True)


Action = Annotated[str, typer.Argument(metavar="WHAT", help="add, list or revoke.")]
Whose = Annotated[str, typer.Argument(metavar="NAME", help="With add: whose key it is. With revoke: the key's id.")]
Admin = Annotated[bool, typer.Option("--admin", help="The key may hold the whole queue.")]
KeyRate = Annotated[str, typer.Option("--rate", help="Requests that make something; by default the server's own.")]
KeyQueued = Annotated[int | None, typer.Option("--most-queued", min=1, help="Videos that wait or are made at once.")]
KeyDaily = Annotated[int | None, typer.Option("--most-daily", min=1, help="Videos within a day.")]
Rank = Annotated[int | None, typer.Option("--rank", help="With add: those of a higher rank are served first; 0.")]


def keys(
    what: Action,
    name: Whose = "",
    folder: Folder = None,
    database: DatabaseUrl = None,
    admin: Admin = False,
    rate: KeyRate = "",
    most_queued: KeyQueued = None,
    most_daily: KeyDaily = None,
    rank: Rank = None,
    as_json: Json = False,
) -> None:
    """Make keys, list them, or make one useless. With the first key, the server asks everybody for one."""
    from kinetograph import server

    server.check()
    from kinetograph.jobs import Keys

    opened = _database(folder, database)
    ring = Keys(opened)
    if what == "add":
        text = ring.add(name, admin=admin, rate=rate, most_queued=most_queued, most_daily=most_daily)
        if rank is not None:
            _rank(opened, name, rank)
        say({"owner": name, "key": text}, [text, "keep it: it cannot be shown again"], as_json)
    elif what == "list":
        rows = [
            {"id": key.id, "owner": key.owner, "admin": key.admin, "revoked": key.revoked_at is not None}
            for key in ring.all()
        ]
        lines = [(row["id"], row["owner"], "revoked" if row["revoked"] else "valid") for row in rows]
        say({"keys": rows}, table([("id", "owner", "state"), *map(_texts, lines)]), as_json)
    elif what == "revoke":
        key = ring.revoke(name)
        say({"revoked": key.id, "owner": key.owner}, [f"{key.id} of {key.owner} opens nothing any more"], as_json)
    else:
        raise InvalidRequest(f"{what!r} is nothing that is done with keys", field="what", hint="add, list or revoke")


def _texts(row: tuple[object, ...]) -> tuple[str, ...]:
    return tuple(map(str, row))


def _database(folder: Path | None, database: str | None) -> "Database":
    from kinetograph.jobs import Database

    settings = _settings(folder, database, None)
    if database is None:
        settings.folder.mkdir(parents=True, exist_ok=True)
    return Database.open(settings.database)


def _rank(database: "Database", owner: str, rank: int) -> None:
    from kinetograph.jobs import Store

    Store(database).rank(owner, rank)
