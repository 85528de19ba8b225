"""Schemathesis: requests made from the API's own description, one operation after the other."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
ENDLESS = r"/events$"
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
    assert asked[0] > 100


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
