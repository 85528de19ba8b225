"""A server in this process, its queue and archive, and a worker that works when the test says so."""

import dataclasses

import pytest
from starlette.testclient import TestClient

from kinetograph.jobs import Keys
from kinetograph.server import Settings, create_app
from kinetograph.worker import Limits, Worker


class House:
    """A client without a key, and everything behind it."""

    def __init__(self, client, settings):
        self.client, self.settings = client, settings
        desk = client.app.state.desk
        self.desk, self.store, self.archive = desk, desk.store, desk.archive
        self.worker = Worker(desk.store, desk.archive, limits=Limits(free=0))

    def ask(self, **fields):
        """Ask for a video as JSON; the answer must be a video."""
        answer = self.client.post("/v1/videos", json={"prompt": "a red ball moving left", **fields})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def made(self, **fields):
        """Ask for a video and make it."""
        id = self.ask(**fields)["id"]
        self.worker.step()
        return self.get(id)

    def get(self, id):
        """A video as it is now."""
        return self.client.get(f"/v1/videos/{id}").json()

    def refused(self, answer, status, code=None, param=None):
        """An answer must be an error in the shape of the contract; its message."""
        assert answer.status_code == status, answer.text
        said = answer.json()
        assert said.keys() == {"error"}
        assert said["error"].keys() == {"message", "type", "param", "code"}
        assert said["error"]["message"]
        assert code is None or said["error"]["code"] == code
        assert param is None or said["error"]["param"] == param
        assert answer.headers["x-request-id"].startswith("req_")
        return said["error"]["message"]

    def key(self, owner, **settings):
        """Make a key; from then on one is needed. The headers that carry it."""
        text = Keys(self.store.database).add(owner, **settings)
        return {"authorization": f"Bearer {text}"}


@pytest.fixture
def settings(tmp_path):
    return Settings.of(tmp_path, engine="render", allow=("gan", "patience"), free=0)


@pytest.fixture
def served(settings, patience):
    """Start a house, with other settings than the usual ones where they are given."""
    clients = []

    def start(**others):
        given = dataclasses.replace(settings, **others)
        client = TestClient(create_app(given), base_url="http://127.0.0.1", raise_server_exceptions=False)
        clients.append(client.__enter__())
        return House(client, given)

    yield start
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def house(served):
    return served()
