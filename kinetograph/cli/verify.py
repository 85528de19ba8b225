"""`kinetograph verify` and `sign`: whether a file says that it is AI-generated, and whether that can be believed."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kinetograph.cli.output import Json, say
from kinetograph.cli.output import table as aligned

if TYPE_CHECKING:
    from kinetograph.credentials import Verdict

File = Annotated[Path, typer.Argument(metavar="FILE", help="A video or a picture, ours or not.")]
Trust = Annotated[
    Path | None, typer.Option("--trust", help="A PEM file of root certificates: whose signatures are trusted.")
]

Files = Annotated[list[Path], typer.Argument(metavar="FILES", help="Files that say how they were made.")]
Cert = Annotated[
    Path, typer.Option("--c2pa-cert", metavar="PEM", help="The chain of certificates, the signer's first, and the key.")
]
Key = Annotated[Path | None, typer.Option("--c2pa-key", metavar="PEM", help="The key, where it is in another file.")]


def verify(file: File, trust: Trust = None, as_json: Json = False) -> None:
    """Read the mark of AI-generated media and check the C2PA signature; exit 1 where neither holds."""
    from kinetograph import credentials

    verdict = credentials.verify(file, trust=trust)
    say(verdict.to_dict(), _lines(verdict), as_json)
    raise typer.Exit(0 if verdict.holds else 1)


def sign(paths: Files, c2pa_cert: Cert, c2pa_key: Key = None, as_json: Json = False) -> None:
    """Put a C2PA signature on files in place: it says that they are AI-generated, or drawn by a program."""
    from kinetograph import credentials

    by = credentials.certificate(c2pa_cert, c2pa_key)
    for path in paths:
        credentials.check(path)
    for path in paths:
        credentials.sign(path, by)
    names = [str(path) for path in paths]
    say({"signed": names}, [f"signed {name}" for name in names], as_json)


def _lines(verdict: "Verdict") -> list[str]:
    mark, signature = verdict.mark, verdict.signature
    rows = [
        ("AI-generated", _WORDS[verdict.ai_generated]),
        ("mark", " ".join(filter(None, [mark.state.replace("_", " "), mark.digital_source_type]))),
        ("made by", " ".join(filter(None, [mark.engine, mark.created]))),
        ("frames", _FRAMES[mark.frames]),
        ("signature", ", ".join(filter(None, [signature.state.replace("_", " "), signature.why]))),
        ("signed by", " with ".join(filter(None, [signature.issuer, signature.generator]))),
    ]
    return [verdict.path, *aligned([row for row in rows if row[1]])]


_WORDS = {True: "yes", False: "no: drawn by a program", None: "the file does not say"}
_FRAMES = {"same": "as they were made", "changed": "not those that the mark was made for", "not_checked": ""}
