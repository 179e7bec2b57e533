"""A hub on loopback: what is fetched from it is found without it."""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading

import pytest

from kpod_lightning.__main__ import main
from kpod_lightning.methods import context
from kpod_lightning.store.files import ASSETS
from kpod_lightning.students.student import pretrained

COMMIT = "0123456789abcdef0123456789abcdef01234567"
GATED = "some/gated"


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub's protocol as fetching a model takes: its list of files, and each of them."""

    folder = ASSETS / "tiny-llama"

    def log_message(self, *args):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_GET(self):
        path = self.path.split("?")[0]
        if GATED in path:
            return self.answer(403, X_Error_Code="GatedRepo", X_Error_Message="ask first")
        if path.startswith("/api/models/some/tiny/tree/"):
            names = [*(file.name for file in self.folder.iterdir()), "flax_model.msgpack"]
            body = [{"type": "file", "path": name, "size": 0, "oid": COMMIT} for name in names]
            for entry in body[:-1]:
                entry["size"] = (self.folder / entry["path"]).stat().st_size
            return self.answer(200, json.dumps(body).encode(), Content_Type="application/json")
        if path.startswith("/api/models/some/tiny"):
            files = [{"rfilename": file.name} for file in self.folder.iterdir()]
            body = {"id": "some/tiny", "sha": COMMIT, "siblings": [*files, {"rfilename": "flax_model.msgpack"}]}
            return self.answer(200, json.dumps(body).encode(), Content_Type="application/json")
        file = self.folder / path.rpartition("/")[2]
        if f"/some/tiny/resolve/{COMMIT}/" not in path or not file.is_file():
            return self.answer(404, X_Error_Code="EntryNotFound" if "/resolve/" in path else "RepoNotFound")
        body = file.read_bytes()
        return self.answer(200, body, ETag=f'"{hashlib.sha1(body).hexdigest()}"', X_Repo_Commit=COMMIT)

    do_HEAD = do_GET


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """Environment in which ``kpod`` talks to the hub of the tests, with a cache of its own."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    home = tmp_path_factory.mktemp("home")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    yield clean | {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
    }
    server.shutdown()
    thread.join()
    server.server_close()


def kpod(environment, *words):
    command = [sys.executable, "-m", "kpod_lightning", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment | {"OMP_NUM_THREADS": "1"})


def test_what_was_prepared_is_found_without_the_hub(hub, tmp_path):
    named = kpod(hub, "prepare", "experiments/arithmetic.yaml", "student.name=some/tiny")
    assert named.returncode == 0, named.stderr
    assert (
        f"student.name=some/tiny: some/tiny at revision {COMMIT}; to pin it: student.name=some/tiny@{COMMIT}"
        in named.stdout
    )
    offline = hub | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "1"}
    sizes = ["data.num_train=8", "data.num_validation=2", "data.num_test=2"]
    run = [
        f"student.name=some/tiny@{COMMIT}",
        *sizes,
        "method=plain",
        "optim.epochs=1",
        "logging.wandb=disabled",
        "evaluation.max_new_tokens=4",
    ]
    done = kpod(offline, "run", "experiments/arithmetic.yaml", "--run", tmp_path / "r", *run)
    assert done.returncode == 0, done.stderr


def test_a_model_whose_terms_are_not_accepted_says_where_to(hub):
    done = kpod(hub, "prepare", "experiments/arithmetic.yaml", f"student.name={GATED}")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and f"https://huggingface.co/{GATED}" in done.stderr


def test_a_model_that_the_hub_does_not_have_is_one_line(hub):
    done = kpod(hub, "prepare", "experiments/arithmetic.yaml", "student.name=some/nothing")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "no model some/nothing" in done.stderr


def test_the_shipped_experiment_needs_nothing_from_a_network(capsys):
    assert main(["prepare", "experiments/arithmetic.yaml"]) == 0
    said = capsys.readouterr().out
    assert "2000 train" in said and "tiny-llama" in said


def test_a_prepared_run_is_not_tokenised_again(tmp_path, monkeypatch):
    words = ["experiments/arithmetic.yaml", "--run", str(tmp_path / "r"), "data.num_train=8", "data.num_validation=2"]
    words += ["data.num_test=2", "method=plain", "optim.epochs=1", "logging.wandb=disabled"]
    assert main(["prepare", *words]) == 0
    assert {path.name for path in (tmp_path / "r").iterdir()} == {"config.yaml", "provenance.json", "rationales.jsonl"}
    monkeypatch.setattr(context, "tokenise", None)
    assert main(["train", *words]) == 0


def test_a_revision_stands_behind_the_name(tmp_path):
    assert pretrained("llama-7b@abc") == ("huggyllama/llama-7b", "abc")
    folder = tmp_path / "odd@name"
    folder.mkdir()
    assert pretrained(str(folder)) == (str(folder), "main")
