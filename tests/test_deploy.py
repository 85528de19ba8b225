"""The files under deploy/: read as whoever runs them would, for there is no Docker engine in the tests."""

import configparser
import re
import shlex
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from kinetograph.cli.commands import app

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
COMPOSE = sorted(DEPLOY.glob("compose*.yaml"))
UNITS = sorted(DEPLOY.glob("*.service"))
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
WHOLE = [file for file in COMPOSE if "cuda" not in file.name]


def understood(words):
    """Let the command line parse it, without running it: an option that does not exist raises."""
    command = get_command(app).commands[words[0]]
    return command.make_context(words[0], [re.sub(r"\$\{[^}]*\}", "value", word) for word in words[1:]]).params


def read(file):
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def services(*files):
    return {name: service for file in files for name, service in read(file)["services"].items()}


@pytest.mark.parametrize("file", COMPOSE, ids=lambda file: file.name)
def test_a_compose_file_is_yaml_and_knows_only_words_of_compose(file):
    known = "build image command ports volumes init restart stop_grace_period read_only tmpfs cap_drop security_opt"
    known += " environment depends_on healthcheck deploy"
    for service in services(file).values():
        assert set(service) <= set(known.split())


@pytest.mark.parametrize("file", WHOLE, ids=lambda file: file.name)
def test_what_a_compose_file_names_is_there(file):
    said = read(file)
    for name, service in said["services"].items():
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in said["volumes"], name
        for other in service.get("depends_on", {}):
            assert "healthcheck" in said["services"][other]
        if "build" in service:
            build = service["build"]
            assert (file.parent / build["context"] / build["dockerfile"]).is_file()
            assert all(f"ARG {argument}" in DOCKERFILE for argument in build["args"])


@pytest.mark.parametrize("file", WHOLE, ids=lambda file: file.name)
def test_nothing_is_published_beyond_loopback_and_ours_may_do_little(file):
    for name, service in services(file).items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        if name != "database":
            assert service["read_only"] is True
            assert service["cap_drop"] == ["ALL"]
            assert "no-new-privileges:true" in service["security_opt"]


@pytest.mark.parametrize("file", WHOLE, ids=lambda file: file.name)
def test_the_commands_of_compose_are_commands_of_ours(file):
    for service in services(file).values():
        if "command" in service:
            assert all(isinstance(word, str) for word in service["command"]), "numbers in quotes"
            assert str(understood(service["command"])["folder"]) == "/data"


def test_no_password_stands_in_a_file():
    for file in COMPOSE:
        assert not re.search(r"PASSWORD: (?!\$\{)", file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("file", [file for file in COMPOSE if "cuda" in file.name], ids=lambda file: file.name)
def test_a_file_for_the_card_speaks_of_services_of_the_file_it_stands_beside(file):
    beside = DEPLOY / ("compose.postgres.yaml" if "worker" in file.name else "compose.yaml")
    assert set(services(file)) <= set(services(beside))
    for service in services(file).values():
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])


def test_the_image_runs_our_command_without_root_and_copies_what_is_there():
    lines = re.sub(r"\\\n\s*", "", DOCKERFILE).splitlines()
    last = {line.split()[0]: line for line in lines if line and not line.startswith("#")}
    assert last["USER"] == "USER kinetograph"
    entry, command = (yaml.safe_load(last[word].partition(" ")[2]) for word in ("ENTRYPOINT", "CMD"))
    assert entry == ["kinetograph"]
    assert understood(command)["host"] == "0.0.0.0"
    extras = re.search(r'"\.\[(.+)\]"', DOCKERFILE)[1].split(",")
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert all(re.search(rf"^{extra} = \[", project, re.M) for extra in extras)
    allowed = (ROOT / ".dockerignore").read_text().splitlines()
    for line in lines:
        if line.startswith("COPY ") and "--from" not in line:
            for name in line.split()[1:-1]:
                assert (ROOT / name).exists()
                assert f"!{name}" in allowed


def test_the_image_asks_for_the_torch_that_the_package_wants():
    (wanted,) = re.findall(r'^    "(torch>[^"]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)
    assert f'"{wanted}"' in DOCKERFILE


@pytest.mark.parametrize("file", UNITS, ids=lambda file: file.name)
def test_a_unit_starts_a_command_of_ours_and_gives_it_time_to_stop(file):
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str
    unit.read_string(file.read_text(encoding="utf-8"))
    program, *words = shlex.split(unit["Service"]["ExecStart"])
    assert program == "/opt/kinetograph/bin/kinetograph"
    understood(words)
    assert int(unit["Service"]["TimeoutStopSec"]) >= 45
    assert unit["Service"]["NoNewPrivileges"] == "yes"
    assert unit["Install"]["WantedBy"] == "multi-user.target"


def test_the_documentation_names_every_file():
    page = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    for file in DEPLOY.iterdir():
        assert f"`deploy/{file.name}`" in page
