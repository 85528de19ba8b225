"""Keys: who may ask the server. Their secrets are not kept, only digests of them."""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

import sqlalchemy as sa

from kinetograph.errors import InvalidRequest, UnknownName
from kinetograph.jobs.database import Database
from kinetograph.jobs.tables import keys

FORM = re.compile(r"kg_([0-9a-f]{8})_([0-9a-f]{48})")


@dataclass(frozen=True, kw_only=True)
class Key:
    """A key without its secret. `owner` has its jobs; several keys may have one owner, so that they can be changed."""

    id: str
    owner: str
    digest: str
    admin: bool = False
    rate: str = ""
    most_queued: int | None = None
    most_daily: int | None = None
    created_at: float
    revoked_at: float | None = None

    def opens(self, secret: str) -> bool:
        """Whether a secret is this key's, found out in a time that says nothing about it."""
        return hmac.compare_digest(self.digest, _digest(secret)) and self.revoked_at is None


class Keys:
    """The keys in a database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def add(
        self,
        owner: str,
        *,
        admin: bool = False,
        rate: str = "",
        most_queued: int | None = None,
        most_daily: int | None = None,
    ) -> str:
        """Make a key and give back its text, which is nowhere to be read again."""
        if not re.fullmatch(r"[\w.@-]{1,64}", owner, re.ASCII):
            hint = "letters, digits and . @ - _, at most 64"
            raise InvalidRequest(f"{owner!r} is no name for an owner", field="owner", hint=hint)
        id, secret = secrets.token_hex(4), secrets.token_hex(24)
        row = {"id": id, "owner": owner, "digest": _digest(secret), "admin": admin, "rate": rate}
        row |= {"most_queued": most_queued, "most_daily": most_daily, "created_at": self.database.now()}
        self.database.run(lambda tx: tx.execute(keys.insert().values(row)))
        return f"kg_{id}_{secret}"

    def revoke(self, id: str) -> Key:
        """Make a key useless. Raises UnknownName."""
        change = keys.update().where(keys.c.id == id).values(revoked_at=self.database.now()).returning(*keys.c)
        row = self.database.run(lambda tx: tx.execute(change).one_or_none())
        if row is None:
            raise UnknownName("key", id, [key.id for key in self.all()])
        return Key(**row._mapping)

    def all(self) -> list[Key]:
        """Every key, revoked ones too, the oldest first."""
        query = sa.select(*keys.c).order_by(keys.c.created_at)
        return [Key(**row._mapping) for row in self.database.run(lambda tx: tx.execute(query).all(), reading=True)]


def parts(text: str) -> tuple[str, str] | None:
    """The id and the secret in a key's text; None for what is none."""
    match = FORM.fullmatch(text)
    return (match[1], match[2]) if match else None


def _digest(secret: str) -> str:
    # Plain sha256 will do: a secret has 192 random bits, there is nothing to guess.
    return hashlib.sha256(secret.encode()).hexdigest()
