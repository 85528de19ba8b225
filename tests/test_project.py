"""The house itself: its layers, its imports, its words."""

import ast
import importlib.metadata
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import kinetograph

ROOT = Path(kinetograph.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# A module may import from lines above its own, never from below and not from neighbours on the same line.
LAYERS = """
errors
files gate language drawing attributes looks edits layers
weights motions hub conversion
request media
video
shelf continuation credentials footage tracking
worlds controls
neural
engine
engines metrics archive jobs executors
trials
batch dataset evaluation conformance worker
explaining server pool
cli
"""
PLACES = {part: line for line, parts in enumerate(LAYERS.split("\n")) for part in parts.split()}
BANNED = {"utils", "util", "helpers", "helper", "common", "manager", "base", "misc"}


@cache
def tree(file):
    return ast.parse(file.read_text(encoding="utf-8"))


def part(module):
    """'kinetograph.neural.models.text' is part of neural."""
    return module.split(".")[1] if module.count(".") else ""


def imports(file):
    """The modules that a file imports anywhere, as dotted names."""
    package = ["kinetograph", *file.relative_to(ROOT).parts[:-1]]
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((f"{module}.{alias.name}" for alias in node.names) if module == "kinetograph" else [module])


def name(file):
    return str(file.relative_to(ROOT))


INNER = [file for file in FILES if file.parent != ROOT or file.name not in ("__init__.py", "__main__.py")]


@pytest.mark.parametrize("file", INNER, ids=name)
def test_every_module_has_a_place_in_the_layers(file):
    assert file.relative_to(ROOT).parts[0].removesuffix(".py") in PLACES


@pytest.mark.parametrize("file", INNER, ids=name)
def test_nothing_imports_upward_or_sideways(file):
    mine = file.relative_to(ROOT).parts[0].removesuffix(".py")
    for module in imports(file):
        theirs = part(module) if module.startswith("kinetograph.") else ""
        if theirs in PLACES and theirs != mine:  # the front door's own names, __version__, are everybody's
            assert PLACES[theirs] < PLACES[mine], f"{mine} may not import {module}"
            assert (mine, theirs) != ("neural", "request"), "the workshop does not know requests"


@pytest.mark.parametrize("shelf", ["worlds", "engines", "metrics", "trials"])
def test_things_on_a_shelf_do_not_know_each_other(shelf):
    for file in (ROOT / shelf).rglob("*.py"):
        own = f"kinetograph.{shelf}.{file.relative_to(ROOT / shelf).parts[0].removesuffix('.py')}"
        others = [module for module in imports(file) if module.startswith(f"kinetograph.{shelf}.")]
        assert not [module for module in others if module != own and not module.startswith(f"{own}.")]


@pytest.mark.parametrize("file", [file for file in FILES if "neural" not in file.relative_to(ROOT).parts], ids=name)
def test_torch_is_imported_at_the_top_only_in_the_workshop(file):
    heavy = {"torch", "safetensors", "diffusers", "transformers", "huggingface_hub"}
    heavy |= set() if "server" in file.relative_to(ROOT).parts else {"fastapi", "starlette", "uvicorn"}
    heavy |= set() if {"server", "jobs"} & {*file.relative_to(ROOT).parts} else {"sqlalchemy", "alembic"}
    top = [node for node in tree(file).body if isinstance(node, ast.Import | ast.ImportFrom)]
    found = {alias.name.split(".")[0] for node in top if isinstance(node, ast.Import) for alias in node.names}
    found |= {(node.module or "").split(".")[0] for node in top if isinstance(node, ast.ImportFrom)}
    assert not found & heavy


@pytest.mark.parametrize("file", FILES, ids=name)
def test_no_file_is_called_by_a_word_that_means_nothing(file):
    assert not {part.removesuffix(".py") for part in file.relative_to(ROOT).parts} & BANNED


@pytest.mark.parametrize("file", FILES, ids=name)
def test_everything_public_says_what_it_is_for(file):
    mute = [] if ast.get_docstring(tree(file)) else [name(file)]
    mute += [thing for thing, node in public(tree(file)) if not ast.get_docstring(node)]
    assert not mute


def public(node, inside=""):
    """Public functions, classes and methods, but not what is local to a function or only fulfils a
    protocol.
    """
    for child in node.body:
        if not isinstance(child, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef) or child.name.startswith("_"):
            continue
        stub = isinstance(child.body[-1], ast.Expr) and getattr(child.body[-1].value, "value", None) is ...
        model = inside and child.name in ("forward", "extra_repr")  # torch's words, not ours
        if not stub and not model:
            yield f"{inside}{child.name}", child
        if isinstance(child, ast.ClassDef):
            yield from public(child, f"{child.name}.")


LIGHT = """
import sys
import kinetograph
from kinetograph import shelf
for one in (shelf.WORLDS, shelf.ENGINES, shelf.METRICS, shelf.MODELS):
    one.names()
kinetograph.VideoRequest, kinetograph.Video, kinetograph.generate
kinetograph.describe("render").request("a red ball moving left")
heavy = {"torch", "torchvision", "diffusers", "transformers", "fastapi", "sqlalchemy", "safetensors"}
print(*sorted({name.split(".")[0] for name in sys.modules} & heavy))
"""


def test_a_fresh_interpreter_lists_and_describes_without_torch():
    assert run(LIGHT) == ""


SERVED = """
import sys, tempfile
from pathlib import Path
from kinetograph import server
settings = server.Settings.of(Path(tempfile.mkdtemp()))
app = server.create_app(settings)
app.state.desk.catalogue.rows()
print(*sorted({name.split(".")[0] for name in sys.modules} & {"torch", "torchvision", "diffusers", "transformers"}))
"""


def test_the_process_that_answers_requests_never_imports_torch():
    assert run(SERVED) == ""


def test_the_commands_of_the_server_are_listed_without_its_libraries():
    code = "import sys, kinetograph.cli.commands, kinetograph.server; print('fastapi' in sys.modules)"
    assert run(code) == "False"


def test_importing_the_package_imports_nothing_else():
    assert run("import sys, kinetograph; print(*sorted(m for m in sys.modules if m in ('av', 'numpy', 'PIL')))") == ""


def run(code):
    options = {"capture_output": True, "text": True, "check": True, "cwd": ROOT.parent}
    return subprocess.run([sys.executable, "-c", code], **options).stdout.strip()


def test_torchvision_is_not_installed_nor_a_cuda_wheel_beside_the_cpu_build_of_torch():
    installed = {(dist.metadata["Name"] or "").lower() for dist in importlib.metadata.distributions()}
    assert "torchvision" not in installed, "its wheels are CUDA builds: they break on the CPU build of torch"
    if importlib.metadata.version("torch").endswith("+cpu"):
        assert not {name for name in installed if name.startswith("nvidia-")}


def test_the_newest_entry_of_the_changelog_is_this_version():
    text = (ROOT.parent / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[?v?(\d+\.\d+\.\d+[^\s\]]*)", text, re.MULTILINE)
    assert versions[0] == kinetograph.__version__


def test_the_project_file_and_the_package_agree_on_the_version():
    project = (ROOT.parent / "pyproject.toml").read_text(encoding="utf-8")
    assert re.search(r'^version = "(.+)"', project, re.MULTILINE)[1] == kinetograph.__version__
