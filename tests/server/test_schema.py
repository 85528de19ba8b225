"""Schemathesis: requests made from the API's own description, one operation after the other, and along its links."""

from collections import Counter

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    ignored_auth,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
    use_after_free,
)

from kinetograph.server.security import EVERYBODY

# Not `positive_data_acceptance`: what an engine can make is more than a description of all engines can say.
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
CHECKS += [allow_header_conformance, unsupported_method, use_after_free]
GOOD = {"prompt": "a red ball moving left", "size": "32x32", "frames": 4}
ENDLESS = r"/events$"
EVERYWHERE = {"create", "content", "remix", "delete", "recipe"}
BOUNDED = settings(
    max_examples=6,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    database=None,
)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the libraries that make the requests
def test_every_answer_is_one_that_the_description_promises(served):
    house = served(hosts=("testserver",))
    schema = schemathesis.openapi.from_asgi("/openapi.json", house.client.app).exclude(path_regex=ENDLESS)
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) > 20
    asked = [0]
    for operation in operations:
        ask(house, operation, asked)
    assert asked[0] > 80


def ask(house, operation, asked):
    """Some requests to one operation; where it wants a video, every other one is a video that is there."""
    known = house.made()["id"]

    @BOUNDED
    @given(case=operation.as_strategy())
    def send(case):
        if "video_id" in (case.path_parameters or {}) and asked[0] % 2:
            case.path_parameters["video_id"] = known
        asked[0] += 1
        case.call_and_validate(checks=CHECKS)

    send()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_what_follows_along_the_links_is_what_the_description_promises(served):
    """A video is asked for, made, remixed, cancelled, deleted ... by the ids that the answers before gave."""
    house = served(hosts=("testserver",), most_pixels=2**16)
    schema = schemathesis.openapi.from_asgi("/openapi.json", house.client.app)
    schema = schema.include(path_regex="^/v1/videos").exclude(path_regex=ENDLESS)
    seen = Counter()

    class Whole(schema.as_state_machine()):
        def setup(self):
            self.known, self.ids = house.made()["id"], set()

        def before_call(self, case):
            if "video_id" in (case.path_parameters or {}) and case.path_parameters["video_id"] not in self.ids:
                case.path_parameters["video_id"] = self.known
            wants = case.operation.definition.raw["operationId"] in ("create", "remix")
            if wants and len(repr(case.body)) % 3:
                case.body, case.media_type = (
                    dict(GOOD),
                    "application/json",
                )  # else most are refused, and nothing follows

        def validate_response(self, response, case, additional_checks=(), **kwargs):
            case.validate_response(response, checks=CHECKS, **kwargs)

        def after_call(self, response, case):
            id = case.operation.definition.raw["operationId"]
            seen[id, response.status_code] += 1
            self.ids |= {response.json().get("id")} if response.status_code == 200 and id != "content" else set()
            while response.status_code == 200 and response.request.method == "POST" and house.worker.step():
                pass  # so that the next answer depends on nothing but the calls before

    steps, found = settings(BOUNDED, max_examples=12, stateful_step_count=10), set()
    for number in range(8):  # a walk goes by chance, and one in eight leaves something out: then another one begins
        run_state_machine_as_test(seed(number)(Whole), settings=steps)
        found |= {id for id, status in seen if status in (200, 206)}
        if found >= EVERYWHERE:
            break
    assert found >= EVERYWHERE, seen


@pytest.mark.filterwarnings("ignore")
def test_a_call_that_says_that_it_wants_a_key_is_refused_without_one_and_with_a_wrong_one(served, monkeypatch):
    monkeypatch.setattr("kinetograph.server.security.FAILURES", "10000/minute")
    house = served(hosts=("testserver",))
    key = {"Authorization": house.key("a", admin=True)["authorization"]}  # the check knows the name in this spelling
    house.client.headers.update(key)
    schema = schemathesis.openapi.from_asgi("/openapi.json", house.client.app).exclude(path_regex=ENDLESS)
    operations = {one.definition.raw["operationId"]: one for one in (it.ok() for it in schema.get_all_operations())}
    assert {id for id, one in operations.items() if "security" not in one.definition.raw} == {"healthz", "readyz"}

    known = house.made()["id"]
    places = {"video_id": known, "engine_id": "render"}

    def send(id):
        """One request with a key, from the example of the description; the check repeats it without."""
        said = operations[id].definition.raw
        example = said.get("requestBody", {}).get("content", {}).get("application/json", {}).get("example")
        body = {"body": {**example, "video": {"id": known}}, "media_type": "application/json"} if example else {}
        named = [each["name"] for each in said.get("parameters", ()) if each["in"] == "path"]
        case = operations[id].Case(path_parameters={name: places[name] for name in named}, **body)
        return case.call_and_validate(checks=[ignored_auth], headers=key).status_code

    came = {id: send(id) for id in sorted(operations, key="delete".__eq__)}  # what is deleted last was there before
    heard = {id for id, status in came.items() if status == 200}
    assert heard >= {"create", "list_videos", "retrieve", "content", "remix", "edit", "delete", "engines", "metrics"}
    monkeypatch.setattr("kinetograph.server.security.Ring.caller", lambda *_: EVERYBODY)  # were the gate open,
    with pytest.raises(FailureGroup):
        send("create")  # it would be noticed
