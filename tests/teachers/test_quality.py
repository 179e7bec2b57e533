"""Samples are judged, filtered and told of as they are, in whatever order they came."""

import json
import random
from decimal import Decimal
from pathlib import Path

import pytest
from rich.console import Console

from kpod_lightning.config import TeacherConfig, load_config
from kpod_lightning.data.problems import Problem
from kpod_lightning.data.rationales import Counts, select_rationales
from kpod_lightning.data.sources import source_of
from kpod_lightning.evaluation.statistics import wilson_interval
from kpod_lightning.store.errors import InputError
from kpod_lightning.teachers.prices import Prices
from kpod_lightning.teachers.prompts import load_prompt
from kpod_lightning.teachers.requests import Reply, Wanted
from kpod_lightning.teachers.samples.figures import Statistics
from kpod_lightning.teachers.samples.file import SampleFile
from kpod_lightning.teachers.samples.filter import filter_samples
from kpod_lightning.teachers.samples.page import print_statistics, report_samples
from kpod_lightning.teachers.samples.quality import is_contradictory, stated_answers, verdicts
from kpod_lightning.teachers.writing import Work

PROBLEMS = [
    Problem(id=f"p{i}", question=f"What is <{i}> + 4?", answer=str(i + 4), kind="number", split="train")
    for i in range(4)
]


def written(path: Path, replies: dict[str, list[Reply]], cost: str = "0.01", **settings) -> list[dict]:
    """A file of samples as a teacher writes it, one reply a sample."""
    teacher = TeacherConfig(
        name="openai:model-a", samples=max(map(len, replies.values())), base_url="http://127.0.0.1", **settings
    )
    problems = [problem for problem in PROBLEMS if problem.id in replies]
    with SampleFile(path) as file:
        wanted = Wanted(problems, load_prompt(teacher, "number"), teacher, 0, file.right_of)
        work = Work(teacher, Prices(), wanted, file, "terms of <somebody>")
        while (request := work.take()) is not None:
            if request.sample < len(replies[request.problem.id]):
                attempt = request.key[:16]
                file.begin(attempt, request.key, Decimal("0.05")).result()
                work.add(request, replies[request.problem.id][request.sample], [attempt], Decimal(cost)).result()
    return rows_of(path)


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def reply(text: str, finish_reason: str = "stop", **more) -> Reply:
    sizes = {"prompt_tokens": 10, "completion_tokens": len(text.split()), "latency": 0.5, "model": "model-a-1"}
    return Reply(text=text, finish_reason=finish_reason, **(sizes | more))


def names(rows: list[dict], problem: Problem, **more) -> list[str]:
    return [verdict.name for verdict in verdicts(rows, problem, **more)]


def row(text: str, finish_reason: str = "stop", **more) -> dict:
    return {"rationale": text, "finish_reason": finish_reason, **more}


@pytest.mark.parametrize(
    ("sample", "verdict"),
    [
        (row("", "content_filter"), "refused"),
        (row("0 + 4 = 4.", "content_filter"), "refused"),
        (row("", "prompt_too_long"), "refused"),
        (row(" \n"), "refused"),
        (row("The answer is 4. The answer is 5", "length"), "truncated"),
        (row("", "length"), "truncated"),
        (row("The answer is 5. Wait, the answer is 4."), "contradictory"),
        (row("The answer is 4. Wait, the answer is 5."), "contradictory"),
        (row("So the answer is 4.", answer_call="5"), "contradictory"),
        (row("0 + 4 = 5. So the answer is 5."), "wrong"),
        (row("I do not know."), "wrong"),
        (row("0 + 4 = 4. So the answer is 4."), "kept"),
        (row("0 + 4 = 4.", answer_call="4"), "kept"),
    ],
)
def test_a_sample_gets_the_first_verdict_that_applies(sample, verdict):
    assert names([sample], PROBLEMS[0]) == [verdict]


@pytest.mark.parametrize(
    ("text", "answers"),
    [
        ("The answer is 4, so the answer is 4.0.", ["4", "4"]),
        ("The answer is 12 / 3 = 4.\n#### 4", ["4", "4"]),
        ("The answer is $\\boxed{1{,}200}$.", ["1200"]),
        ("The answer is not 5. The answer is 4.", ["4"]),
        ("<think>The answer is 7? No.</think> The answer is 4.", ["4"]),
        ("4 + 0 = 4.", []),
        ("Answer: six. The answer is 7", ["6", "7"]),
    ],
)
def test_answers_are_what_stands_behind_answer_phrases(text, answers):
    assert stated_answers(text, "number") == answers


def test_answers_that_are_equal_do_not_contradict_each_other():
    assert not is_contradictory(row("The answer is 3/4. #### 0.75", answer_call="0.75"), "number")
    assert not is_contradictory(row("The answer is (b). Answer: B"), "choice")
    assert is_contradictory(row("The answer is (b). Answer: C"), "choice")
    assert is_contradictory(row("The answer is yes. The answer is no."), "yes_no")


def test_near_duplicates_are_those_of_kept_ones_from_the_threshold_on():
    # take a b, a b c, b c d, c d e are common; d e 4 has the first alone, d e = and e = 4 the other: 4 of 7.
    first, other = "Take a b c d e 4", "Take a b c d e = 4"
    rows = [row(first), row(other)]
    assert names(rows, PROBLEMS[0], threshold=4 / 7) == ["kept", "near-duplicate"]
    assert names(rows, PROBLEMS[0], threshold=4 / 7 + 1e-9) == ["kept", "kept"]
    assert [verdict.like for verdict in verdicts([*rows, row(first)], PROBLEMS[0])] == [None, None, 0]


def test_a_text_like_one_that_was_not_kept_is_kept():
    rows = [row("0 and 4 make altogether 5"), row("0 and 4 make altogether 4")]
    assert names(rows, PROBLEMS[0], threshold=0.1) == ["wrong", "kept"]


def test_texts_of_fewer_than_three_words_are_compared_as_a_whole():
    assert names([row("4"), row("= 4"), row(" 4 ")], PROBLEMS[0]) == ["kept", "kept", "near-duplicate"]


TEXTS = {
    "p0": [
        reply("Add them. 0 + 4 = 4. The answer is 4."),
        reply("Add  them. 0 + 4 = 4. The answer is 4."),
        reply("Nothing and four make four, so the answer is 4."),
        reply("0 + 4 = 5."),
    ],
    "p1": [reply("1 + 4 = 5."), reply("First 1. Then four", "length"), reply("", "content_filter")],
    "p2": [reply("2 + 4 = 8."), reply("The answer is 6. The answer is 7.")],
}


def test_filtered_samples_load_as_recorded_rationales(tmp_path):
    written(tmp_path / "samples.jsonl", TEXTS)
    out = tmp_path / "kept.jsonl"
    statistics = filter_samples(tmp_path / "samples.jsonl", PROBLEMS, out)
    settings = ["rationales.source=recorded", f"rationales.teacher={out}"]
    config = load_config(Path(__file__).parents[2] / "experiments" / "gsm8k.yaml", settings)
    counts = Counts()
    kept = list(select_rationales(source_of(config, PROBLEMS).groups(PROBLEMS), counts, num_per_problem=9))
    assert [(r.key, r.text, r.teacher) for r in kept] == [
        (("p0", 0), "Add them. 0 + 4 = 4.", "openai:model-a"),
        (("p0", 1), "Nothing and four make four, so the answer is 4.", "openai:model-a"),
        (("p1", 0), "1 + 4 = 5.", "openai:model-a"),
    ]
    assert counts.num_read == counts.num_kept == statistics.num_kept == statistics.num_written == 3


def test_filtered_samples_say_where_they_are_from(tmp_path):
    rows = written(tmp_path / "samples.jsonl", TEXTS)
    filter_samples(tmp_path / "samples.jsonl", PROBLEMS, tmp_path / "kept.jsonl")
    assert rows_of(tmp_path / "kept.jsonl")[1] == {
        "problem_id": "p0",
        "sample": 1,
        "rationale": "Nothing and four make four, so the answer is 4.",
        "predicted_answer": "4",
        "teacher": "openai:model-a",
        "licence": "terms of <somebody>",
        "key": rows[2]["key"],
        "model": "model-a-1",
        "prompt": "zero_shot_cot",
        "finish_reason": "stop",
    }


def test_the_order_in_which_samples_came_changes_nothing(tmp_path):
    written(tmp_path / "samples.jsonl", TEXTS)
    one = filter_samples(tmp_path / "samples.jsonl", PROBLEMS, tmp_path / "one.jsonl")
    lines = (tmp_path / "samples.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    random.Random(1).shuffle(lines)
    (tmp_path / "shuffled.jsonl").write_text("".join(lines), encoding="utf-8")
    other = filter_samples(tmp_path / "shuffled.jsonl", PROBLEMS, tmp_path / "other.jsonl")
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "other.jsonl").read_bytes()
    assert one == other


def test_the_first_kept_ones_of_a_problem_are_written(tmp_path):
    written(tmp_path / "samples.jsonl", TEXTS)
    statistics = filter_samples(tmp_path / "samples.jsonl", PROBLEMS[::-1], tmp_path / "kept.jsonl", most=1)
    kept = [(row["problem_id"], row["sample"], row["rationale"][:3]) for row in rows_of(tmp_path / "kept.jsonl")]
    assert kept == [("p1", 0, "1 +"), ("p0", 0, "Add")]
    assert (statistics.num_kept, statistics.num_written) == (3, 2)


def test_figures_are_those_counted_by_hand(tmp_path):
    written(tmp_path / "samples.jsonl", TEXTS)
    found = filter_samples(tmp_path / "samples.jsonl", PROBLEMS, tmp_path / "kept.jsonl")
    assert found.verdicts == {
        "refused": 1,
        "truncated": 1,
        "contradictory": 1,
        "wrong": 2,
        "near-duplicate": 1,
        "kept": 3,
    }
    assert (found.num_rows, found.num_asked, found.num_problems, found.num_covered) == (9, 4, 3, 2)
    assert (found.num_right, found.right_share, found.coverage) == (4, 4 / 9, 0.5)
    assert found.right_interval == wilson_interval(4, 9)
    tokens = [4, 5, 5, 5, 8, 10, 11, 11]  # all but the refused one
    assert found.completion_tokens == sum(tokens) and found.prompt_tokens == 90
    assert found.tokens.mean == sum(tokens) / 8 and found.tokens.quantiles[1] == (5 + 8) / 2
    assert sum(found.tokens.counts) == 8 and found.tokens.edges[0] == 4 and found.tokens.edges[-1] > 11
    assert found.steps.mean == (3 + 3 + 1 + 1 + 1 + 2 + 1 + 2) / 8
    assert found.cost == Decimal("0.09") and found.cost_per_kept == Decimal("0.03")
    assert found.cost_per_right == Decimal("0.0225")
    assert found.latency == 0.5
    assert found.finish_reasons == {"stop": 7, "length": 1, "content_filter": 1}
    assert found.teachers == {"openai:model-a": 9} and found.models == {"model-a-1": 9}
    assert found.prompts == {"zero_shot_cot": 9} and found.licences == {"terms of <somebody>": 9}


def test_distinct_n_is_of_the_right_rationales(tmp_path):
    written(tmp_path / "samples.jsonl", {"p0": [reply("a b a b 4"), reply("a b 4"), reply("c d e 5")]})
    found = filter_samples(tmp_path / "samples.jsonl", PROBLEMS, tmp_path / "kept.jsonl")
    # Words a b a b 4, a b 4; pairs ab ba ab b4, ab b4; triples aba bab ab4, ab4.
    assert found.distinct == {1: 3 / 8, 2: 3 / 6, 3: 3 / 4}


def test_money_without_a_sample_is_the_ledgers(tmp_path):
    path = tmp_path / "samples.jsonl"
    written(path, TEXTS)
    key = rows_of(path)[0]["key"]
    with SampleFile(path) as file:
        for attempt, ends in {"1" * 16: Decimal("0.002"), "2" * 16: Decimal(0), "3" * 16: None}.items():
            file.begin(attempt, key, Decimal("0.05")).result()
            file.fail(attempt, ends, "malformed reply").result()
        file.begin("4" * 16, key, Decimal("0.05")).result()  # and then it was killed
        file.begin(key[:16], key, Decimal("0.05")).result()  # has a row
    with path.with_suffix(".ledger.jsonl").open("a") as ledger:
        ledger.write('{"attempt": "5555')  # a kill in the middle of a line
    found = filter_samples(path, PROBLEMS, tmp_path / "kept.jsonl")
    assert (found.cost_in_vain, found.cost_unknown) == (Decimal("0.002"), Decimal("0.1"))
    assert found.cost_total == Decimal("0.092")
    with SampleFile(path) as file:
        assert (file.money.spent, file.money.held) == (found.cost_total, found.cost_unknown)


def test_a_last_row_that_a_kill_cut_is_not_there_and_another_broken_one_stops(tmp_path):
    path = tmp_path / "samples.jsonl"
    written(path, TEXTS)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert filter_samples(path, PROBLEMS, tmp_path / "kept.jsonl").num_rows == 8
    path.write_bytes(whole[:-20] + b"\n")
    with pytest.raises(InputError, match=r"samples\.jsonl:9: broken JSON"):
        filter_samples(path, PROBLEMS, tmp_path / "kept.jsonl")


def test_a_sample_of_an_unknown_problem_stops_and_leaves_what_was_there(tmp_path):
    written(tmp_path / "samples.jsonl", TEXTS)
    (tmp_path / "kept.jsonl").write_text("earlier")
    with pytest.raises(InputError, match=r"samples\.jsonl:5: sample of unknown problem p1"):
        filter_samples(tmp_path / "samples.jsonl", PROBLEMS[:1], tmp_path / "kept.jsonl")
    assert (tmp_path / "kept.jsonl").read_text() == "earlier"


def test_a_crash_leaves_nothing_half_written(tmp_path):
    rows = written(tmp_path / "samples.jsonl", TEXTS)
    rows[-1]["usage"] = None
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match=r"samples\.jsonl:9: usage is an object"):
        filter_samples(tmp_path / "samples.jsonl", PROBLEMS, tmp_path / "kept.jsonl")
    assert not (tmp_path / "kept.jsonl").exists()


@pytest.mark.parametrize("name", ["samples.jsonl", "other.jsonl"])
def test_samples_that_were_paid_for_are_never_replaced(tmp_path, name):
    written(tmp_path / "samples.jsonl", TEXTS)
    written(tmp_path / "other.jsonl", TEXTS)
    with pytest.raises(InputError, match="paid for"):
        filter_samples(tmp_path / "samples.jsonl", PROBLEMS, tmp_path / name)


@pytest.mark.parametrize("more", [{"threshold": 0.0}, {"threshold": 1.1}, {"most": 0}])
def test_limits_without_sense_are_refused(tmp_path, more):
    with pytest.raises(InputError, match={"threshold": "--near", "most": "--most"}[next(iter(more))]):
        filter_samples(tmp_path / "samples.jsonl", PROBLEMS, tmp_path / "kept.jsonl", **more)


def test_rationales_of_another_kind_of_file_are_refused_by_name(tmp_path):
    (tmp_path / "samples.jsonl").write_text('{"problem_id": "p0", "rationale": "x"}\n')
    with pytest.raises(InputError, match=r":1: no field sample"):
        filter_samples(tmp_path / "samples.jsonl", PROBLEMS, tmp_path / "kept.jsonl")
    (tmp_path / "samples.jsonl").write_text("")
    with pytest.raises(InputError, match="no sample is in it yet"):
        filter_samples(tmp_path / "samples.jsonl", PROBLEMS, tmp_path / "kept.jsonl")


def test_a_page_shows_samples_of_every_verdict_and_their_text_cannot_break_it(tmp_path):
    texts = TEXTS | {"p3": [reply("<script>alert(1)</script> 3 + 4 = 7.")] * 7}
    written(tmp_path / "samples.jsonl", texts)
    found = report_samples(tmp_path / "samples.jsonl", PROBLEMS)
    html = (tmp_path / "samples.html").read_text(encoding="utf-8")
    assert html.startswith("<!doctype html>")
    assert "<script>alert(1)" not in html and "&lt;script&gt;alert(1)" in html
    assert "terms of &lt;somebody&gt;" in html and "What is &lt;0&gt; + 4?" in html
    assert len(html) < 6e6 and 'id="tokens"' in html and 'id="steps"' in html
    assert not any(tag in html for tag in ("<script src", "<link", "@import", "<img"))  # nothing is loaded
    for name, number in found.verdicts.items():
        assert f"<h3>{name}: {number}</h3>" in html
    assert html.count("resembles sample 0") == 5  # of seven


def test_the_figures_fit_a_terminal(tmp_path):
    written(tmp_path / "samples.jsonl", TEXTS)
    found = report_samples(tmp_path / "samples.jsonl", PROBLEMS, tmp_path / "page.html")
    console = Console(width=120)
    with console.capture() as capture:
        print_statistics(found, console)
    shown = capture.get()
    low, high = (100 * bound for bound in wilson_interval(4, 9))
    assert f"4, 44.4 % [{low:.1f}, {high:.1f}]" in shown and "near-duplicate 1" in shown
    assert "2 of 4, 50.0 %" in shown


def test_a_file_without_a_right_sample_has_no_cost_a_right_one(tmp_path):
    written(tmp_path / "samples.jsonl", {"p0": [reply("", "content_filter")]})
    found = report_samples(tmp_path / "samples.jsonl", PROBLEMS)
    assert isinstance(found, Statistics) and found.cost_per_right is None and found.cost_per_kept is None
    assert found.tokens is None and found.steps is None and found.distinct == {}
    assert found.right_share == 0.0
