"""What works for every family, found out by trying; `python tests/pretrained/table.py` writes it into the docs."""

import re
import sys
import tempfile
import warnings
from pathlib import Path
from typing import get_args

import cases

from kinetograph import engine
from kinetograph.engines.pretrained import Moving, Own
from kinetograph.errors import InvalidRequest
from kinetograph.neural.pretrained import caches, pipelines
from kinetograph.video import fingerprint

PAGE = Path(__file__).parents[2] / "docs" / "pretrained.md"
HEAD = (
    "tiny checkpoint",
    "class",
    "two prompts at once",
    "negative prompt",
    "begins with",
    "preview",
    "caches",
    "LoRA",
)
PRESETS = [preset for preset in get_args(Own.model_fields["cache"].annotation) if preset != "none"]
STEPS = 4  # of what is made with a cache; everything else is made in two


def row(family):
    """One line of the table: every cell was tried on the family's tiny checkpoint."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain, case = family.first[0], family.case
        loaded = engine.warm.get(family.reference, "cpu", plain.provenance.weights)
        request, info = family.request(), engine.describe(family.reference)
        fields = info.Options.model_fields
        classic = hasattr(loaded, "_pipeline")
        pipeline = loaded._pipeline if classic else None
        cells = (
            case.name,
            loaded._model.pipeline,
            _yes(classic and _batch(case, loaded, request)),
            _yes("negative_prompt" in fields and _differs(family)),
            _begins(case, info),
            _yes(family.given_up[0].preview is not None),
            ", ".join(_caches(family, loaded)) if classic else "-",
            _yes(hasattr(pipeline, "load_lora_weights") if classic else "lora" in fields),
        )
    return "| " + " | ".join(cells) + " |"


def _yes(value):
    return "yes" if value else "-"


def _differs(family):
    other = family.make(negative_prompt="blue sea")
    return fingerprint(other.frames) != fingerprint(family.first[0].frames)


def _begins(case, info):
    if case.start:
        return "a picture" if case.start == "image" else "a clip"
    if "start" not in info.Options.model_fields:
        return "words"
    return "words, or a picture" if issubclass(info.Options, Moving) else "words, or a picture or clip"


def _arguments(loaded, request):
    options = dict(request.options)
    return loaded._arguments(request, options, loaded._start(request, options))


def _batch(case, loaded, request):
    """Whether two prompts make two clips. What does not must fail as its case says: any other error is let through."""
    said = _arguments(loaded, request) | {"prompt": [request.prompt, "a blue cat"]}
    try:
        clips = pipelines.run(loaded._pipeline, said, [1, 2], lambda *_: None)
        assert len(clips) == 2, f"made {len(clips)} clip"
        assert clips[0].shape == clips[1].shape
    except (InvalidRequest, RuntimeError, IndexError, AssertionError) as error:
        if case.alone and case.alone in f"{error} {getattr(error, 'hint', '')}":
            return False
        raise
    assert not case.alone, f"{case.name} makes two clips, contrary to its case"
    return True


def _caches(family, loaded):
    """The presets that skipped something, and how much of it."""
    knows = "steps" in engine.describe(family.reference).Options.model_fields
    request, found = family.request(**({"steps": STEPS} if knows else {})), []
    for preset in PRESETS:
        try:
            ratios = _cached(loaded, request, preset).ratios if preset == "mag" else ()
            count = _cached(loaded, request, preset, ratios)
        except InvalidRequest:
            continue
        if count.skipped:
            found.append(f"{preset} {count.skipped / count.expected:.0%}")
    return found or ["-"]


def _cached(loaded, request, preset, ratios=()):
    guided = float(request.options.get("guidance") or 0) > 1
    with caches.caching(loaded._pipeline, preset, STEPS, guided=guided, ratios=ratios) as count:
        pipelines.run(loaded._pipeline, _arguments(loaded, request), cases.SEED, lambda *_: None)
    return count


def lines():
    """The table as it stands in the docs, by tiny checkpoint."""
    found = re.finditer(r"^\| (\w+) \| \w+Pipeline \|.*$", PAGE.read_text(encoding="utf-8"), re.M)
    return {line[1]: line[0] for line in found}


def steady(line):
    """A line without how much was skipped where a threshold decides: another processor may round to its other side."""
    return re.sub(r"(first-block|mag|sea) \d+%", r"\1", line)


def main():
    """Try everything and write the table."""
    wanted = [cases.BY_NAME[name] for name in sys.argv[1:]] or cases.CASES
    known = lines()
    with tempfile.TemporaryDirectory() as folder:
        for case in wanted:
            known[case.name] = row(cases.Family(case, Path(folder)))
            engine.warm.clear()
            print(known[case.name], flush=True)
    table = [f"| {' | '.join(HEAD)} |", "| " + " | ".join(["---"] * len(HEAD)) + " |"]
    table += [known[case.name] for case in cases.CASES if case.name in known]
    text = PAGE.read_text(encoding="utf-8")
    begin, end = text.index("<!-- table -->"), text.index("<!-- end of table -->")
    PAGE.write_text(text[:begin] + "<!-- table -->\n" + "\n".join(table) + "\n" + text[end:], encoding="utf-8")


if __name__ == "__main__":
    main()
