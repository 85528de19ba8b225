"""Pretrained models: found in folders and in the hub's cache, fetched from a hub that the test itself serves."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import pytest
from huggingface_hub import constants, hf_api
from typer.testing import CliRunner

from kinetograph import hub
from kinetograph.cli.commands import app
from kinetograph.errors import CannotFetch, ModelMissing, UnknownName, UnsafeModel, WeightsError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CARD = "---\nlicense: cc-by-nc-4.0\n---\n# A model\n"
INDEX = {"_class_name": "WanPipeline", "transformer": ["diffusers", "WanTransformer3DModel"], "extra": [None, None]}
FILES = {
    "README.md": CARD,
    "model_index.json": json.dumps(INDEX),
    "transformer/config.json": "{}",
    "transformer/diffusion_pytorch_model.safetensors": "plain" * 9000,
    "transformer/diffusion_pytorch_model.fp16.safetensors": "half" * 5000,
    "transformer/diffusion_pytorch_model.bin": "pickle",
    "whole.safetensors": "another edition",
    "pipeline.py": "raise SystemExit",
    "samples/a.json": "{}",
}


def put(folder, files=FILES):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


SAFE = {name: text for name, text in FILES.items() if not name.endswith((".py", ".bin"))}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache of the hub's, and no way out."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


def in_cache(cache, repository, commit=COMMIT, branch="main", files=SAFE):
    home = cache / f"models--{repository.replace('/', '--')}"
    put(home / "snapshots" / commit, files)
    (home / "refs").mkdir(parents=True, exist_ok=True)
    (home / "refs" / branch).write_text(commit)
    return home / "snapshots" / commit


# --- finding ---


def test_a_folder_is_found_with_its_class_and_licence(tmp_path):
    found = hub.locate(str(put(tmp_path / "mine", SAFE)))
    assert (found.pipeline, found.revision, found.licence) == ("WanPipeline", "", "cc-by-nc-4.0")
    assert "non-commercial" in found.notice
    assert found.modular is False


def test_a_repository_in_the_cache_is_found_by_its_id_with_its_commit(cache):
    folder = in_cache(cache, "some/model")
    found = hub.locate("some/model")
    assert (found.path, found.revision, found.reference) == (folder, COMMIT, "some/model")
    assert hub.locate(f"some/model@{COMMIT[:8]}").path == folder
    assert hub.installed() == ["some/model"]


def test_another_revision_than_the_one_at_hand_is_missing(cache):
    in_cache(cache, "some/model")
    with pytest.raises(ModelMissing, match="some/model@dev"):
        hub.locate("some/model@dev")


@pytest.mark.parametrize("name", ["modelscope", "damo-vilab/text-to-video-ms-1.7b", "ali-vilab/text-to-video-ms-1.7b"])
@pytest.mark.parametrize("kept", ["damo-vilab/text-to-video-ms-1.7b", "ali-vilab/text-to-video-ms-1.7b"])
def test_a_repository_that_moved_is_found_by_every_name_under_every_name(cache, name, kept):
    folder = in_cache(cache, kept)
    assert hub.locate(name).path == folder


def test_every_short_and_former_name_is_said_once():
    every = [name for known in hub.KNOWN for name in (known.repository, *known.names, *known.formerly)]
    assert len(every) == len(set(every))
    assert all(hub.HUB_ID.fullmatch(known.repository) for known in hub.KNOWN)


def test_a_missing_model_says_size_licence_and_the_command():
    with pytest.raises(ModelMissing, match=r"about 3\.7 GB, licence cc-by-nc-4\.0") as error:
        hub.locate("modelscope")
    assert "kinetograph fetch ali-vilab/text-to-video-ms-1.7b" in error.value.hint


def test_a_misspelt_short_name_is_corrected():
    with pytest.raises(UnknownName) as error:
        hub.locate("modelscpe")
    assert "modelscope" in error.value.hint


@pytest.mark.parametrize("text", ["./nothing", "/nothing/here", "~/nothing", "a/b/../../c", "", "a\\b", "a/b@../x"])
def test_a_path_that_leads_nowhere_is_no_repository(text):
    with pytest.raises((ModelMissing, UnknownName)):
        hub.locate(text)


def test_a_model_that_lost_a_part_or_a_shard_is_not_whole(cache):
    folder = in_cache(cache, "some/model")
    shards = {"weight_map": {"a": "m-00001-of-00002.safetensors"}}
    put(folder, {"transformer/m.safetensors.index.json": json.dumps(shards)})
    with pytest.raises(ModelMissing, match="m-00001-of-00002") as error:
        hub.locate("some/model")
    assert "kinetograph fetch some/model" in error.value.hint
    put(
        folder,
        {
            "transformer/m.safetensors.index.json": "{}",
            "model_index.json": json.dumps(INDEX | {"vae": ["diffusers", "X"]}),
        },
    )
    with pytest.raises(ModelMissing, match="vae"):
        hub.locate("some/model")


def test_what_is_found_has_passed_the_gate(cache, tmp_path):
    in_cache(cache, "some/model", files=FILES)
    with pytest.raises(UnsafeModel, match=r"pipeline\.py"):
        hub.locate("some/model")
    with pytest.raises(UnsafeModel):
        hub.locate(str(put(tmp_path / "mine")))


def test_one_file_of_a_repository_is_a_reference_too(cache):
    folder = in_cache(cache, "some/model")
    assert hub.locate("some/model/whole.safetensors").path == folder / "whole.safetensors"


def test_the_variant_is_that_of_the_parts_that_have_no_other(tmp_path):
    put(tmp_path / "both", SAFE)
    assert hub.locate(str(tmp_path / "both")).variant == ""
    (tmp_path / "both" / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    assert hub.locate(str(tmp_path / "both")).variant == "fp16"


def test_the_digest_changes_with_the_weights_and_the_settings_and_with_nothing_else(tmp_path):
    folder = put(tmp_path / "mine", SAFE)
    first = hub.digest(folder)
    (folder / "README.md").write_text("other words")
    assert hub.digest(folder) == first
    (folder / "transformer" / "config.json").write_text('{"a": 1}')
    second = hub.digest(folder)
    (folder / "transformer" / "diffusion_pytorch_model.safetensors").write_text("other")
    assert len({first, second, hub.digest(folder)}) == 3


@pytest.mark.parametrize(
    ("card", "licence", "word"),
    [
        ("---\nlicense: apache-2.0\n---", "apache-2.0", ""),
        ("---\nlicense: other\nlicense_name: ltx-video\n---", "ltx-video", "read its terms"),
        ("---\ntags: [a]\n---", "", "names no licence"),
        ("no front matter", "", "names no licence"),
        ("---\nlicense: 'cc-by-nc-sa-4.0'\n---", "cc-by-nc-sa-4.0", "non-commercial"),
    ],
)
def test_a_card_is_read_for_its_licence(tmp_path, card, licence, word):
    found = hub.locate(str(put(tmp_path / "mine", SAFE | {"README.md": card})))
    assert found.licence == licence
    assert word in found.notice
    assert bool(found.notice) is bool(word)


# --- fetching ---


class Hub(BaseHTTPRequestHandler):
    """As much of a hub as a fetch needs; `server.broken` is how many answers with weights are cut short."""

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = unquote(self.path.partition("?")[0])
        self.server.asked.append((self.command, path, self.headers.get("Range"), self.headers.get("Authorization")))
        if path.startswith("/api/models/some/model/revision/") or path == "/api/models/some/model":
            self.answer({"id": "some/model", "sha": COMMIT, "siblings": [], "cardData": {"license": "cc-by-nc-4.0"}})
        elif path.startswith(f"/api/models/some/model/tree/{COMMIT}"):
            self.answer([self.entry(name) for name in self.server.files])
        elif path.startswith("/some/model/resolve/") and path.split("/", 5)[5] in self.server.files:
            self.file(path.split("/", 5)[5])
        else:
            code = "GatedRepo" if "gated" in path else "RepoNotFound"
            self.reply(403 if "gated" in path else 404, b"{}", {"X-Error-Code": code})

    def entry(self, name):
        content = self.server.files[name].encode()
        said = {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
        if name.endswith(".safetensors"):
            said["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 100}
        return said

    def file(self, name):
        content = self.server.files[name].encode()
        large = name.endswith(".safetensors")
        tag = hashlib.sha256(content).hexdigest() if large else hashlib.sha1(content).hexdigest()
        head = {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if large:
            head |= {"X-Linked-Etag": f'"{tag}"', "X-Linked-Size": str(len(content))}
            content = self.server.instead.get(name, content)
        begin = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        if self.command == "GET" and large and self.server.broken:
            self.server.broken -= 1
            self.reply(200, content, head, cut=1000)
            return
        self.reply(206 if self.headers.get("Range") else 200, content[begin:], head)

    def answer(self, said):
        self.reply(200, json.dumps(said).encode(), {"Content-Type": "application/json"})

    def reply(self, code, content, head, cut=None):
        self.send_response(code)
        for name, value in {**head, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[:cut])
        if cut:
            self.wfile.flush()
            self.close_connection = True


@pytest.fixture
def served(monkeypatch):
    """A hub on loopback that has one repository."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.asked, server.broken, server.files, server.instead = [], 0, dict(FILES), {}
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(hf_api.api, "endpoint", endpoint)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_plan_leaves_code_pickles_other_variants_and_other_editions_behind(served):
    plan = hub.plan("some/model")
    weights = "transformer/diffusion_pytorch_model.safetensors"
    assert set(plan.files) == {"README.md", "model_index.json", "transformer/config.json", weights}
    assert plan.size == sum(len(FILES[name]) for name in plan.files)
    assert (plan.revision, plan.licence) == (COMMIT, "cc-by-nc-4.0")
    assert "transformer/diffusion_pytorch_model.fp16.safetensors" in hub.plan("some/model", "fp16").files


def test_what_is_fetched_is_found_without_the_network_and_its_bytes_were_counted(served, monkeypatch):
    told = []
    fetched = hub.fetch(hub.plan("some/model"), lambda done, total: told.append((done, total)))
    served.shutdown()
    assert hub.locate("some/model") == fetched
    assert fetched.revision == COMMIT
    assert told[-1][0] == told[-1][1] == sum(len(path.read_text()) for path in fetched.path.rglob("*.*"))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert not list(fetched.path.rglob("*.py"))


@pytest.mark.parametrize("engine", ["", "pretrained:", "zero:"])
def test_the_command_says_what_comes_and_fetches_it(served, engine):
    result = CliRunner().invoke(app, ["fetch", f"{engine}some/model", "--json"])
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert (said["revision"], said["licence"]) == (COMMIT, "cc-by-nc-4.0")
    assert said["path"] == str(hub.locate("some/model").path)


def test_a_dry_run_brings_no_weights(served, cache):
    result = CliRunner().invoke(app, ["fetch", "some/model", "--dry-run"])
    assert result.exit_code == 0, result.output
    assert "non-commercial" in result.stdout
    assert not list(cache.rglob("*.safetensors"))


def test_a_connection_that_breaks_is_taken_up_where_it_broke(served, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100)
    plan, served.broken = hub.plan("some/model"), 1
    hub.fetch(plan)
    ranges = [wanted for verb, path, wanted, _ in served.asked if path.endswith(".safetensors") and verb == "GET"]
    assert ranges == [None, "bytes=1000-"]


@pytest.mark.slow
def test_a_fetch_that_failed_keeps_what_came_whole_and_goes_on(served, cache):
    plan, served.broken = hub.plan("some/model"), 99
    with pytest.raises(CannotFetch) as error:
        hub.fetch(plan)
    assert "goes on" in error.value.hint
    with pytest.raises(ModelMissing, match="transformer"):
        hub.locate("some/model")
    served.broken, before = 0, len(served.asked)
    hub.fetch(plan)
    again = [path for verb, path, *_ in served.asked[before:] if verb == "GET" and "resolve" in path]
    assert [path.rpartition("/")[2] for path in again] == ["diffusion_pytorch_model.safetensors"]


def test_damaged_weights_are_removed_and_named(served, cache):
    name = "transformer/diffusion_pytorch_model.safetensors"
    served.instead[name] = FILES[name].replace("plain", "plaim").encode()
    with pytest.raises(CannotFetch, match="damaged"):
        hub.fetch(hub.plan("some/model"))
    assert not list(cache.rglob("*.safetensors"))
    served.instead.clear()
    hub.fetch(hub.plan("some/model"))


def test_weights_that_are_only_a_pickle_are_not_fetched(served):
    for name in [name for name in served.files if name.endswith(".safetensors")]:
        del served.files[name]
    with pytest.raises(CannotFetch, match=r"diffusion_pytorch_model\.bin"):
        hub.plan("some/model")


def test_what_the_hub_does_not_have_or_does_not_give_is_said(served):
    with pytest.raises(CannotFetch, match="no other/model"):
        hub.plan("other/model")
    with pytest.raises(CannotFetch, match="terms") as error:
        hub.plan("gated/model")
    assert "HF_TOKEN" in error.value.hint


def test_offline_nothing_is_fetched(served, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CannotFetch, match="HF_HUB_OFFLINE"):
        hub.plan("some/model")
    assert not served.asked


def test_a_disk_without_room_is_noticed_before_anything_comes(served, cache, monkeypatch):
    plan = hub.plan("some/model")
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 100}))
    with pytest.raises(CannotFetch, match="GB left"):
        hub.fetch(plan)


def test_a_path_cannot_be_fetched(tmp_path):
    with pytest.raises(WeightsError, match="path"):
        hub.plan(str(tmp_path))


def test_a_token_of_the_environment_is_sent(served, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    hub.plan("some/model")
    assert any(sent == "Bearer hf_test" for *_, sent in served.asked)
