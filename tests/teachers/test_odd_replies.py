"""Replies of odd forms, all in one order: each is read, refused for its sample alone, or asked again."""

import json
from pathlib import Path
from typing import Any

import pytest
import teacher_server
from teacher_server import lines
from teachers.test_order_command import ROOT, words_of

from kpod_lightning.__main__ import main
from kpod_lightning.teachers.replies import ending_of
from kpod_lightning.teachers.samples.file import SampleFile


def said(content: Any, reason: Any = "stop", usage: Any = None, **message: Any) -> dict[str, Any]:
    usage = {"prompt_tokens": 40, "completion_tokens": 20} if usage is None else usage
    choice = {"index": 0, "message": {"role": "assistant", "content": content} | message, "finish_reason": reason}
    return {"body": {"model": "m", "choices": [choice], "usage": usage}}


def error(status: int, **fields: Any) -> dict[str, Any]:
    return {"status": status, "body": {"error": fields}}


TEXT = "Two and three. The answer is 5."
THINKING = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
RAI = {"code": "ResponsibleAIPolicyViolation"}
HTML = {"body": "<html>Bad gateway</html>", "headers": {"Content-Type": "text/html"}}
HALF = {"prompt_tokens": 40, "completion_tokens": 20, "prompt_tokens_details": {"cached_tokens": 90}}

ODD: dict[str, tuple[dict[str, Any], str, str | None]] = {
    # name: reply, then finish reason and rationale of its row; None: asked again
    "risk": (error(400, message="Content Exists Risk", code="invalid_request_error"), "content_filter", ""),
    "inspection": (error(400, message="Input data", code="data_inspection_failed"), "content_filter", ""),
    "azure": (error(400, message="filtered", code="content_filter", innererror=RAI), "content_filter", ""),
    "flagged": (error(403, message="your input was flagged", code=403), "content_filter", ""),
    "flagged in 200": (error(200, message="your input was flagged", code=403), "content_filter", ""),
    "refusal": (said(None, refusal="I cannot"), "content_filter", ""),
    "refusal part": (said([{"type": "refusal", "refusal": "no"}]), "content_filter", ""),
    "object": (said({"type": "hologram"}), "unreadable", ""),
    "truth": (said(True), "unreadable", ""),
    "none": (said(None), "stop", ""),
    "number": (said(5), "stop", "5"),
    "parts": (said([THINKING, {"type": "text", "text": TEXT}]), "stop", TEXT),
    "output parts": (said([{"type": "output_text", "text": TEXT}, None]), "stop", TEXT),
    "empty field": (said(f"<think>6?</think>{TEXT}", reasoning=""), "stop", TEXT),
    "cut": (said(TEXT, "MAX_TOKENS"), "length", TEXT),
    "odd end": (said(TEXT, "tool_calls"), "tool_calls", TEXT),
    "no end": (said(TEXT, None), "unknown", TEXT),
    "negative": (said(TEXT, usage={"prompt_tokens": -33_000_000, "completion_tokens": 20}), "stop", TEXT),
    "text as count": (said(TEXT, usage={"prompt_tokens": "many", "completion_tokens": None}), "stop", TEXT),
    "cached": (said(TEXT, usage=HALF), "stop", TEXT),
    "too few": (said(TEXT, usage={"prompt_tokens": 40, "completion_tokens": 0}), "stop", TEXT),
    "list": (said(TEXT, usage=[1, 2]), "stop", TEXT),
    "surrogate": (said(TEXT + " \ud83d", "eos"), "stop", TEXT + " \ufffd"),
    "fault": (said(TEXT, "error"), "", None),
    "abort": (said(TEXT, "abort"), "", None),
    "error in 200": (error(200, message="upstream", code=502), "", None),
    "html": (HTML, "", None),
    "empty": ({"body": ""}, "", None),
    "a list": ({"body": [1]}, "", None),
    "nan": ({"body": '{"choices": NaN}'}, "", None),
    "deep": ({"body": "[" * 100_000}, "", None),
    "choice": ({"body": {"choices": ["text"]}}, "", None),
}


def order(url: str, out: Path, *own: str) -> int:
    few = ["data.num_validation=1", "data.num_test=1", "teacher.concurrency=1", "budget=1"]
    return main(words_of(url, out, *few, *own))


def served(folder: Path, *odd: tuple[str, dict[str, Any]]) -> Path:
    folder.mkdir()
    (folder / "odd.json").write_text(json.dumps([{"name": name} | reply for name, reply in odd]))
    return folder


def test_a_reply_of_any_form_is_read_refused_for_its_sample_alone_or_asked_again(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("kpod_lightning.teachers.endpoint.Wait.__call__", lambda self, state: 0.0)
    server, out = served(tmp_path / "server", *((name, odd[0]) for name, odd in ODD.items())), tmp_path / "s.jsonl"
    with teacher_server.in_thread(server) as url:
        assert order(url, out, f"data.num_train={len(ODD)}") == 0
    names = {line["key"].split("/")[0]: line["kind"] for line in reversed(lines(server / "ledger.jsonl"))}
    rows = {names[row["key"]]: row for row in lines(out)}
    assert rows.keys() == ODD.keys()
    for name, (_, reason, rationale) in ODD.items():
        if rationale is None:  # the second attempt's
            assert rows[name]["model"] == "model-a-2026-01-01", name
        else:
            assert (rows[name]["finish_reason"], rows[name]["rationale"]) == (reason, rationale), name
    # 40 tokens in for 1, 20 out for 4 dollars a million; what cannot be right costs what was set aside: 512 out
    assert rows["parts"]["cost"] == pytest.approx(120e-6)
    for name in ("negative", "text as count", "cached", "too few", "list"):
        assert rows[name]["cost"] > 4 * 512e-6, name
    assert not rows["odd end"]["correct"] and not rows["no end"]["correct"] and not rows["cut"]["correct"]
    assert rows["parts"]["thinking"] == "hm"
    said = capsys.readouterr()
    assert said.err == ""
    assert "never count as right: tool_calls 1, unknown 1" in said.out
    assert "tokens that cannot be right" in said.out
    with SampleFile(out) as file:
        assert file.money.spent > 0


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (error(400, message="temperature is not supported", code="unsupported_value"), "mend the teacher.* setting"),
        (error(429, message="daily limit") | {"headers": {"Retry-After": "86400"}}, "asks to wait 86400 seconds"),
        ({"status": 308, "body": "", "headers": {"Location": "/v2/chat/completions"}}, "redirects"),
        (error(200, message="no credit", code=402), "no credit"),
    ],
)
def test_a_reply_that_no_repetition_mends_stops_the_order_in_one_line(tmp_path, monkeypatch, capsys, reply, said):
    monkeypatch.chdir(ROOT)
    with teacher_server.in_thread(served(tmp_path / "server", ("odd", reply))) as url:
        assert order(url, tmp_path / "s.jsonl", "data.num_train=2") == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1


@pytest.mark.parametrize("status", [200, 500])
def test_a_reply_without_an_end_is_left_after_sixteen_mebibytes_and_asked_again(tmp_path, monkeypatch, capsys, status):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("kpod_lightning.teachers.endpoint.Wait.__call__", lambda self, state: 0.0)
    server, out = served(tmp_path / "server", ("endless", {"endless": True, "status": status})), tmp_path / "s.jsonl"
    with teacher_server.in_thread(server) as url:
        assert order(url, out, "data.num_train=2") == 0
    (endless,) = [line for line in lines(server / "ledger.jsonl") if line["kind"] == "endless"]
    assert 2**24 <= endless["sent"] < 2**26  # what is under way in buffers of the system counts too
    assert len(lines(out)) == 2 and all(row["rationale"] for row in lines(out))
    assert "requests that came to nothing: reply too long to be read 1" in capsys.readouterr().out


def test_a_reply_that_comes_compressed_unasked_is_read_while_it_cannot_fill_the_memory(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("kpod_lightning.teachers.endpoint.Wait.__call__", lambda self, state: 0.0)
    packed = {"headers": {"Content-Encoding": "deflate"}}
    server = served(tmp_path / "server", ("small", said(TEXT) | packed), ("bomb", said(" " * 2**25) | packed))
    with teacher_server.in_thread(server) as url:
        assert order(url, tmp_path / "s.jsonl", "data.num_train=2") == 0
    assert TEXT in [row["rationale"] for row in lines(tmp_path / "s.jsonl")]
    assert "requests that came to nothing: reply too long to be read 1" in capsys.readouterr().out


def test_an_order_of_which_the_first_twenty_are_refused_stops_with_the_endpoints_words(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    odd = [("odd", error(400, message="Content Exists Risk"))] * 25
    with teacher_server.in_thread(served(tmp_path / "server", *odd)) as url:
        assert order(url, tmp_path / "s.jsonl", "data.num_train=25") == 2
    err = capsys.readouterr().err
    assert "the first 20 samples were all refused" in err and "Content Exists Risk" in err


def test_another_endpoint_of_the_environment_is_named_and_has_no_price_of_the_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("OPENAI_API_KEY", "key-of-the-tests")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://gate.example/v1")
    words = [
        "rationales",
        "experiments/arithmetic.yaml",
        "teacher=openai:gpt-4.1-mini",
        "--out",
        str(tmp_path / "s.jsonl"),
    ]
    assert main([*words, "budget=1"]) == 2
    said = capsys.readouterr()
    assert "endpoint: https://gate.example/v1, from OPENAI_BASE_URL" in said.out
    assert "cannot be kept without prices" in said.err


def test_words_of_an_endpoint_are_printed_and_reported_as_they_are_and_never_as_markup(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    words = ["[red]odd[/red]", "[/nope]", ":smiley:"]
    server = served(tmp_path / "server", *((word, said(TEXT, word)) for word in words))
    out = tmp_path / "[bold]s[b].jsonl"
    with teacher_server.in_thread(server) as url:
        assert order(url, out, "data.num_train=3") == 0
    printed = capsys.readouterr().out
    assert all(f"{word} 1" in printed for word in words) and "[bold]s[b].jsonl" in printed
    few = ["data.num_train=3", "data.num_validation=1", "data.num_test=1"]
    assert main(["rationales", "report", "experiments/arithmetic.yaml", str(out), *few]) == 0
    assert "[bold]s[b].html" in capsys.readouterr().out


@pytest.mark.parametrize("secret", ["https://me:hunter2@gate.example/v1", "https://gate.example/v1?key=hunter2"])
@pytest.mark.parametrize("by", ["setting", "environment", "file"])
def test_an_endpoint_with_a_secret_in_its_url_is_refused_and_stands_nowhere(tmp_path, monkeypatch, capsys, secret, by):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("OPENAI_API_KEY", "key-of-the-tests")
    experiment, own = Path("experiments/arithmetic.yaml"), []
    if by == "environment":
        monkeypatch.setenv("OPENAI_BASE_URL", secret)
    elif by == "file":
        experiment = tmp_path / "own.yaml"
        experiment.write_text(f"seed: 0\nteacher:\n  base_url: {secret}\n", encoding="utf-8")
    else:
        own = [f"teacher.base_url={secret}"]
    out = tmp_path / "order" / "s.jsonl"
    words = ["rationales", str(experiment), "teacher=openai:model-a", "--out", str(out), "budget=1", *own]
    assert main(words) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and "teacher.key_variable" in said.err, said.err
    assert "hunter2" not in said.out + said.err
    assert not out.exists()


@pytest.mark.parametrize("word", ["error", "abort", "insufficient_system_resource"])
def test_a_fault_is_no_end_of_a_reply(word):
    assert ending_of(word) == "error"


@pytest.mark.parametrize("word", ["max_tokens", "MAX_TOKENS", "model_length", "FinishReason.MAX_TOKENS"])
def test_a_limit_has_several_names(word):
    assert ending_of(word) == "length"
