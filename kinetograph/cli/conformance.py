"""`kinetograph conformance`: how much of the /v1/videos contract a server keeps."""

from typing import TYPE_CHECKING, Annotated

import typer

from kinetograph.cli.output import Json, progress, say
from kinetograph.errors import InvalidRequest

if TYPE_CHECKING:
    from kinetograph.conformance import Finding

Url = Annotated[str, typer.Argument(metavar="URL", help="Where the server is: http://127.0.0.1:8000")]
Key = Annotated[str, typer.Option("--key", envvar="KINETOGRAPH_KEY", help="The bearer token, where it wants one.")]
Prompt = Annotated[str, typer.Option("--prompt", help="What every video shows.")]
Fields = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A field of every video (model=..., size=...); may be repeated."),
]
Slow = Annotated[
    list[str] | None, typer.Option("--slow", metavar="KEY=VALUE", help="A field of a video that takes some seconds.")
]
Failing = Annotated[
    list[str] | None,
    typer.Option("--failing", metavar="KEY=VALUE", help="A field of a video that is accepted and then fails."),
]
Only = Annotated[str, typer.Option("--only", help="Points whose names begin so: create, list, content.range ...")]
Patience = Annotated[float, typer.Option("--patience", help="Seconds that a video may take.")]


def conformance(
    url: Url,
    key: Key = "",
    prompt: Prompt = "a red circle moving left",
    fields: Fields = None,
    slow: Slow = None,
    failing: Failing = None,
    only: Only = "",
    patience: Patience = 300.0,
    as_json: Json = False,
) -> None:
    """Ask a server every point of the contract; exit 1 where one fails. What is made for it is deleted again."""
    from kinetograph import conformance as suite

    wishes = suite.Wishes(
        prompt=prompt, fields=_pairs(fields), slow=_pairs(slow), failing=_pairs(failing), key=key, patience=patience
    )
    tried = 0
    with progress("points") as advance:

        def tell(finding: "Finding") -> None:
            nonlocal tried
            tried += 1
            advance(tried, 0, finding.name)

        report = suite.examine(url, wishes, only=only, on_finding=tell)
    lines = [line for finding in report.findings for line in _lines(finding)]
    counts = f"{report.count('passed')} passed, {report.count('failed')} failed, {report.count('untried')} untried"
    say(report.to_dict(), [*lines, f"{report.url}: {counts}"], as_json)
    raise typer.Exit(0 if report.conforms else 1)


def _lines(finding: "Finding") -> list[str]:
    lines = [f"{finding.state:8}{finding.name:32}{finding.expected}"]
    return lines if finding.state == "passed" else [*lines, f"{'':8}{'':32}came: {finding.came}"]


def _pairs(said: list[str] | None) -> dict[str, str]:
    """KEY=VALUE as they are: on the wire everything is text."""
    pairs = [text.partition("=") for text in said or ()]
    for key, equals, _ in pairs:
        if not (key and equals):
            raise InvalidRequest(f"{key!r} is no field", field="set", hint="write it as key=value")
    return {key: value for key, _, value in pairs}
