"""`kinetograph fetch`: bring a pretrained model from a hub to this machine."""

from typing import Annotated

import typer

from kinetograph.cli.output import Json, progress, say

Model = Annotated[
    str,
    typer.Argument(metavar="REF", help="A hub's OWNER/NAME, with @REVISION if need be, or a short name: zero:sd-1.5."),
]
Variant = Annotated[
    str | None,
    typer.Option("--variant", help="Prefer weights of this variant, fp16 for example; '' prefers plain ones."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would come, and bring nothing.")]


def fetch(reference: Model, variant: Variant = None, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Fetch a pretrained model, without its code and its pickles; what was interrupted goes on."""
    from kinetograph import hub

    plan = hub.plan(reference, variant)
    facts = {"repository": plan.repository, "revision": plan.revision, "licence": plan.licence, "bytes": plan.size}
    lines = [f"{plan.repository} at {plan.revision[:12]}: {len(plan.files)} files, {plan.size / 1e9:.2f} GB"]
    if plan.notice:
        lines.append(plan.notice)
    if dry_run:
        say({**facts, "files": dict(plan.files)}, lines, as_json)
        return
    if not as_json:
        typer.echo("\n".join(lines), err=True)
    with progress("fetch") as advance:
        model = hub.fetch(plan, lambda done, total: advance(done, total, "bytes"))
    say({**facts, "path": str(model.path)}, [str(model.path)], as_json)
