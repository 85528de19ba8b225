"""How much of the /v1/videos contract a server keeps: every point with what was expected and what came.

The contract is what OpenAI's published client sends and understands; `points` lists it, `talk` speaks HTTP. Any server
can be asked.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from kinetograph.errors import MissingExtra

if TYPE_CHECKING:
    import httpx2

State = Literal["passed", "failed", "untried"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One point of the contract and what the server made of it. `came` is empty where it passed."""

    name: str
    expected: str
    state: State
    came: str = ""


@dataclass(frozen=True, kw_only=True)
class Report:
    """All findings about one server."""

    url: str
    findings: tuple[Finding, ...]

    def count(self, state: State) -> int:
        """How many points are in a state."""
        return sum(finding.state == state for finding in self.findings)

    @property
    def conforms(self) -> bool:
        """Whether no point failed."""
        return self.count("failed") == 0

    def to_dict(self) -> dict[str, Any]:
        """As JSON would have it."""
        states: tuple[State, ...] = ("passed", "failed", "untried")
        counts: dict[str, Any] = {state: self.count(state) for state in states}
        return {"url": self.url, **counts, "points": [asdict(finding) for finding in self.findings]}


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What a server is asked for, since servers differ in what they can make.

    `fields` go with every video, `slow` with one that should take a few seconds, `failing` with one that is accepted
    and then fails; points that need one which is not given are left untried. `key` is the bearer token, `patience` how
    many seconds a video may take.
    """

    prompt: str = "a red circle moving left"
    fields: Mapping[str, str] = field(default_factory=dict)
    slow: Mapping[str, str] = field(default_factory=dict)
    failing: Mapping[str, str] = field(default_factory=dict)
    key: str = ""
    patience: float = 300.0


OnFinding = Callable[[Finding], None]


def examine(
    url: str,
    wishes: Wishes | None = None,
    *,
    only: str = "",
    on_finding: OnFinding = lambda finding: None,
    transport: "httpx2.BaseTransport | None" = None,
) -> Report:
    """Try every point, or those whose name begins with `only`, on the server at `url` (without the /v1).

    The videos that are made for it are deleted again. Raises Unreachable, MissingExtra, and InvalidRequest where `only`
    names no point.
    """
    try:
        import httpx2  # noqa: F401
    except ImportError as error:
        hint = "pip install 'kinetograph[conformance]'"
        raise MissingExtra("servers are asked by httpx2, which is not installed", hint=hint) from error
    from kinetograph.conformance import points, talk

    findings = []
    with talk.Talk(url, wishes or Wishes(), transport) as server:
        for point in points.chosen(only):
            finding = point.tried(server)
            on_finding(finding)
            findings.append(finding)
    return Report(url=url, findings=tuple(findings))
