"""Forms: the fields of a body, whatever dress it comes in: JSON, multipart or urlencoded."""

import json
import re
from collections.abc import Iterable
from typing import Any

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import Request

from kinetograph.errors import InvalidRequest

MOST_FIELDS, MOST_FILES, DEEPEST = 200, 4, 4
BRACKETS = re.compile(r"([^\[\]]{1,64})((?:\[[^\[\]]{0,64}\])*)")
SPREAD = ("extra_body", "extra_params", "extra_json", "options")  # objects whose content counts as if it stood outside

Fields = dict[str, Any]


async def read(request: Request) -> Fields:
    """The fields of a request's body. Raises InvalidRequest for a body that is none."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        fields = _json(await request.body())
    elif kind in ("multipart/form-data", "application/x-www-form-urlencoded"):
        try:
            form = await request.form(max_files=MOST_FILES, max_fields=MOST_FIELDS)
        except MultiPartException as error:
            raise InvalidRequest("the form is damaged", field="body", hint=error.message) from error
        fields = nested(form.multi_items())
    else:
        hint = "send multipart/form-data or application/json"
        raise InvalidRequest(f"a body of the type {kind[:80]!r} is not read here", field="content-type", hint=hint)
    return _spread(fields)


def _json(body: bytes) -> Fields:
    try:
        fields = json.loads(body, object_pairs_hook=_without_repetitions, parse_constant=_refuse)
    except RecursionError as error:
        raise InvalidRequest("the JSON is nested too deeply", field="body") from error
    except ValueError as error:
        raise InvalidRequest("the body is no JSON", field="body", hint=_where(error)) from error
    if not isinstance(fields, dict):
        raise InvalidRequest("the body is no JSON object", field="body", hint='{"prompt": "a red ball moving left"}')
    return fields


def _where(error: ValueError) -> str:
    return str(error) if isinstance(error, json.JSONDecodeError) else "numbers are finite, names come once, it is UTF-8"


def _without_repetitions(pairs: list[tuple[str, Any]]) -> Fields:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a name comes twice")
    return fields


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no number of JSON")


def nested(items: Iterable[tuple[str, str | UploadFile]]) -> Fields:
    """Fields of a form: `a[b]` is b of the object a, `a[]` one more of the list a. Raises InvalidRequest."""
    fields: Fields = {}
    for name, value in items:
        match = BRACKETS.fullmatch(name)
        path = [match[1], *re.findall(r"\[([^\[\]]*)\]", match[2])] if match else []
        if not path or len(path) > DEEPEST:
            raise InvalidRequest(f"{name[:80]!r} is no name of a field", field=name[:80])
        _put(fields, path, value, name)
    return fields


def _put(inside: Fields, path: list[str], value: str | UploadFile, name: str) -> None:
    first, *rest = path
    if not rest:
        if first in inside:
            raise InvalidRequest(f"the field {name!r} comes twice", field=name)
        inside[first] = value
    elif rest == [""]:
        items = inside.setdefault(first, [])
        if not isinstance(items, list):
            raise InvalidRequest(f"the field {first!r} is a list and something else", field=first)
        items.append(value)
    else:
        deeper = inside.setdefault(first, {})
        if not isinstance(deeper, dict) or "" in rest:
            raise InvalidRequest(f"the field {name!r} is an object and something else", field=first)
        _put(deeper, rest, value, name)


def _spread(fields: Fields) -> Fields:
    """Take what stands in `extra_body` and the like out of there. A form has such objects as JSON texts."""
    for name in SPREAD:
        if name not in fields:
            continue
        inner = fields.pop(name)
        if isinstance(inner, str):
            inner = _json(inner.encode("utf-8", "surrogatepass"))
        if not isinstance(inner, dict):
            raise InvalidRequest(f"{name} is no object", field=name)
        twice = next((key for key in inner if key in fields), None)
        if twice is not None:
            raise InvalidRequest(f"{twice!r} stands in {name} and outside", field=twice)
        fields |= inner
    return fields
