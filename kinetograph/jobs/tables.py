"""The tables of the queue. Times are seconds since 1970, as floats; documents are JSON."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData()

jobs = Table(
    "jobs",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("seq", BigInteger, nullable=False, unique=True),  # the order in which jobs came
    Column("revision", BigInteger, nullable=False, index=True),  # grows with every change of any job
    Column("owner", String(64), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("source", String(64), nullable=False),  # the video that it was made from, or ""
    Column("start", String(64), nullable=False),  # what it goes on from: a file among the archive's uploads, or ""
    Column("engine", Text, nullable=False),
    Column("prompt", Text, nullable=False),
    Column("request", JSON, nullable=False),
    Column("state", String(16), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("position", Double, nullable=False),  # among the jobs of one owner and priority
    Column("idempotency_key", String(255)),
    Column("digest", String(64), nullable=False),  # of what was asked, to know a repetition
    Column("created_at", Double, nullable=False),
    Column("available_at", Double, nullable=False),  # 0 for at once, whatever a clock says
    Column("started_at", Double),
    Column("finished_at", Double),
    Column("expires_at", Double),
    Column("attempts", Integer, nullable=False),
    Column("worker", String(128), nullable=False),
    Column("token", String(64), nullable=False),  # of the lease; afterwards the name of the archive's entry
    Column("lease_until", Double),
    Column("step", Integer, nullable=False),
    Column("steps", Integer, nullable=False),
    Column("warnings", JSON, nullable=False),
    Column("error_code", String(64), nullable=False),
    Column("error_message", Text, nullable=False),
    Column("traceback", Text, nullable=False),
    Column("media", JSON),
    UniqueConstraint("owner", "idempotency_key", name="one_job_per_key"),
    Index("jobs_by_state", "state", "available_at"),
    Index("jobs_by_owner", "owner", "seq"),
    Index("jobs_in_turn", "owner", "state", text("priority DESC"), "position"),
)

previews = Table(
    "previews",
    metadata,
    Column("job", String(64), primary_key=True),
    Column("revision", BigInteger, nullable=False, index=True),
    Column("step", Integer, nullable=False),
    Column("steps", Integer, nullable=False),
    Column("image", LargeBinary, nullable=False),  # JPEG
)

owners = Table(
    "owners",
    metadata,
    Column("owner", String(64), primary_key=True),
    Column("rank", Integer, nullable=False),  # those of a higher one go first
    Column(
        "served", BigInteger, nullable=False
    ),  # the revision at which one of its jobs was last begun, or its first came
)

keys = Table(
    "keys",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("owner", String(64), nullable=False),
    Column("digest", String(64), nullable=False),  # sha256 of the secret
    Column("admin", Boolean, nullable=False),
    Column("rate", String(32), nullable=False),  # requests, as "60/minute"; "" the server's own
    Column("most_queued", Integer),  # None the server's own
    Column("most_daily", Integer),
    Column("created_at", Double, nullable=False),
    Column("revoked_at", Double),
)

workers = Table(
    "workers",
    metadata,
    Column("id", String(128), primary_key=True),
    Column("engines", JSON, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("seen_at", Double, nullable=False),
    Column("job", String(64), nullable=False),
)

clock = Table(  # one row, which whoever changes a job changes too: so revisions come in the order of their commits
    "clock",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("paused", Boolean, nullable=False),
)
