"""The files of the page, without a browser."""

import re

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from kinetograph.server import studio

FILES = studio.contents()


@pytest.fixture
def client():
    return TestClient(Starlette(routes=studio.routes()))


def test_every_file_is_served_with_its_type_and_the_policy(client):
    for name, content in FILES.items():
        answer = client.get("/" if name == studio.PAGE else f"/studio/{name}")
        assert (answer.status_code, answer.content) == (200, content)
        assert answer.headers["content-security-policy"] == studio.POLICY
        assert answer.headers["content-type"].split(";")[0] in (
            "text/html",
            "text/css",
            "text/javascript",
            "image/svg+xml",
        )


def test_a_file_that_is_known_is_not_sent_again(client):
    tag = client.get("/").headers["etag"]
    again = client.get("/", headers={"if-none-match": tag})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "path", ["/studio/__init__.py", "/studio/../__init__.py", "/studio/%2e%2e/app.py", "/studio/", "/studio/x.js"]
)
def test_nothing_else_is_served(path, client):
    assert client.get(path).status_code == 404


def test_nothing_stands_inline_and_nothing_comes_from_elsewhere():
    page = FILES[studio.PAGE].decode()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)|javascript:", page)
    for name, content in FILES.items():
        addresses = set(re.findall(r"https?://[^\s\"'<>)]+", content.decode()))
        assert addresses <= {"http://www.w3.org/2000/svg"}, name


def test_no_script_makes_html_or_code_of_text():
    for name, content in FILES.items():
        if name.endswith(".js"):
            assert not re.search(
                r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", content.decode()
            ), name


def test_every_file_that_is_named_exists_and_every_module_is_announced():
    page = FILES[studio.PAGE].decode()
    named = set(re.findall(r"/studio/([\w.]+)", page))
    assert named <= set(FILES)
    modules = {name for name in FILES if name.endswith(".js")}
    assert modules <= named  # so that the browser asks for all of them at once
    assert set(FILES) - {studio.PAGE} == named
    imported = {name for content in FILES.values() for name in re.findall(r'from "\./([\w.]+)"', content.decode())}
    assert imported <= modules


def test_every_element_that_a_script_names_is_on_the_page():
    ids = set(re.findall(r'\bid="([\w-]+)"', FILES[studio.PAGE].decode()))
    for name, content in FILES.items():
        if name.endswith(".js"):
            wanted = set(re.findall(r'\$\("([\w-]+)"\)', content.decode()))
            assert wanted <= ids, name


def test_the_page_is_small():
    assert sum(map(len, FILES.values())) < 120_000
