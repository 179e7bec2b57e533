"""A teacher behind a real OpenAI-compatible server, `transformers serve`, over loopback."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm_cluster import free_ports
from teacher_server import lines

from kpod_lightning.__main__ import main
from kpod_lightning.students.student import resolve

TEMPLATE = "{% for message in messages %}{{ message.content }}\n{% endfor %}"


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[tuple[str, str]]:
    """Base URL, and the model's name there: tiny-llama with a chat template, which samples when it is asked to."""
    place = tmp_path_factory.mktemp("served")
    folder = shutil.copytree(resolve("tiny-llama"), place / "tiny-chat")
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    path = folder / "generation_config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    path.write_text(json.dumps(settings | {"do_sample": True}), encoding="utf-8")
    (place / "home" / "hub").mkdir(parents=True)
    (port,) = free_ports(1)
    words = ["serve", str(folder), "--device", "cpu", "--host", "127.0.0.1", "--port", str(port)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(place / "home"), "OMP_NUM_THREADS": "1"}
    with (place / "log").open("w") as log:
        command = [str(Path(sys.executable).with_name("transformers")), *words]
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    deadline = time.monotonic() + 120
    try:
        while True:
            assert server.poll() is None and time.monotonic() < deadline, (place / "log").read_text()
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1", str(folder)
    finally:
        server.kill()
        server.wait()


def test_a_real_server_writes_what_is_filtered_and_trained_on(served, tmp_path, capsys):
    url, model = served
    out, kept = tmp_path / "samples.jsonl", tmp_path / "kept.jsonl"
    problems = ["experiments/arithmetic.yaml", "data.num_train=12"]
    asked = [f"teacher=openai:{model}", f"teacher.base_url={url}", "samples=2", "teacher.max_tokens=60"]
    assert main(["rationales", *problems, *asked, "teacher.concurrency=2", "--out", str(out)]) == 0
    rows = lines(out)
    assert len(rows) == len({row["key"] for row in rows}) == 24
    assert all(row["usage"]["prompt_tokens"] > 10 and 0 < row["usage"]["completion_tokens"] <= 60 for row in rows)
    assert len({row["rationale"] for row in rows}) > 12, "two samples of a problem are different texts"
    assert main(["rationales", "report", "experiments/arithmetic.yaml", str(out), "data.num_train=12"]) == 0
    assert f"{sum(row['correct'] for row in rows)}, " in capsys.readouterr().out
    assert out.with_suffix(".html").is_file()
    assert main(["rationales", "filter", "experiments/arithmetic.yaml", str(out), "--out", str(kept), problems[1]]) == 0
    assert len(lines(kept)) <= sum(row["correct"] for row in rows)


def test_an_error_of_a_real_server_is_one_line(served, tmp_path, capsys):
    url, _ = served
    words = ["rationales", "experiments/arithmetic.yaml", "data.num_train=2", f"teacher.base_url={url}"]
    assert main([*words, "teacher=openai:no-such-model", "--out", str(tmp_path / "samples.jsonl")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("kpod: openai:no-such-model: ")
