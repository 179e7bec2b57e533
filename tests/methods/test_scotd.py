"""SCoTD: one of K rationales a question and epoch; with K = 1 it is plain distillation."""

from collections import Counter

import pytest
from small_runs import EXPERIMENT, SMALL, run, student_of

from kpod_lightning.__main__ import main
from kpod_lightning.methods.base import load_experiment, load_with_sources, method_of
from kpod_lightning.runs.folder import load_run
from kpod_lightning.store.json_lines import load_jsonl

SCOTD = [*SMALL, "method=scotd", "rationales.num_per_problem=3"]


class Given:
    """What ``begin`` reads of a context: examples of three questions with 3, 1 and 2 rationales."""

    def __init__(self, keys=(("a", 0), ("a", 1), ("a", 4), ("b", 0), ("c", 2), ("c", 3))):
        self.said = []
        self.say = self.said.append
        self.examples = type("Examples", (list,), {"keys": keys})(keys)


def begun(*settings):
    method = method_of(load_experiment(None, ["method=scotd", *settings]))
    method.begin(Given())
    return method


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def scotd(runs):
    return run(runs / "scotd", *SCOTD)


def test_balanced_takes_one_rationale_of_each_question_and_in_time_all():
    method = begun()
    epochs = [method.draw(6, epoch) for epoch in range(30)]
    assert all([{0, 1, 2}, {3}, {4, 5}][i].issuperset(group) for groups in epochs for i, group in enumerate(groups))
    assert {len(groups) for groups in epochs} == {3}
    assert Counter(group for groups in epochs for group in groups).keys() == {(i,) for i in range(6)}


def test_one_is_the_same_in_every_epoch_and_another_seed_is_another_draw():
    method = begun("scotd.draw=one")
    assert method.draw(6, 0) == method.draw(6, 7) == begun().draw(6, 0)
    assert len({tuple(begun("scotd.draw=one", f"seed={seed}").draw(6, 0)) for seed in range(9)}) > 1


def test_all_draws_nothing():
    assert begun("scotd.draw=all").draw(6, 0) is None


@pytest.mark.parametrize(
    ("keys", "num_per_problem", "warned"),
    [([("a", 0), ("b", 0)], 4, True), ([("a", 0), ("b", 0)], 1, False), ([("a", 0), ("a", 1)], 4, False)],
)
def test_where_several_rationales_were_asked_for_and_none_has_two_there_is_a_warning(keys, num_per_problem, warned):
    method = method_of(load_experiment(None, ["method=scotd", f"rationales.num_per_problem={num_per_problem}"]))
    context = Given(keys)
    method.begin(context)
    assert [line.startswith("warning: 2 questions have one rationale each") for line in context.said] == [True] * warned


def test_another_draw_is_one_line(capsys):
    assert main(["run", EXPERIMENT, *SMALL, "method=scotd", "scotd.draw=some"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "scotd.draw=some is none of balanced, all, one" in error


def test_ten_rationales_are_taken_where_nothing_is_said():
    config, sources = load_with_sources(None, ["method=scotd"])
    assert (config.rationales.num_per_problem, sources["rationales.num_per_problem"]) == (10, "method=scotd")
    said = load_experiment(None, ["method=scotd", "rationales.num_per_problem=1"])
    assert said.rationales.num_per_problem == load_experiment(None, ["method=plain"]).rationales.num_per_problem == 1


@pytest.mark.parametrize("student", ["tiny-llama", pytest.param("tiny-t5", marks=pytest.mark.slow)])
def test_with_one_rationale_a_question_it_is_plain_distillation_and_so_is_mcc_kd(student, tmp_path):
    settings = [*SMALL, f"student.name={student}", "optim.epochs=1", "rationales.num_per_problem=1"]
    plain, scotd, mcc_kd = (
        student_of(run(tmp_path / method, *settings, f"method={method}")) for method in ("plain", "scotd", "mcc_kd")
    )
    assert scotd == plain == mcc_kd


def test_a_run_selects_several_rationales_and_trains_on_one_of_each_an_epoch(scotd, runs):
    rows = load_jsonl(scotd / "rationales.jsonl")
    assert Counter(Counter(row["problem_id"] for row in rows).values()) == {3: 24}
    assert len({row["rationale"] for row in rows}) == 72
    first, second = [row["train/tokens_seen"] for row in load_run(scotd).metrics if "train/tokens_seen" in row]
    every = run(runs / "all", *SCOTD, "scotd.draw=all", "optim.epochs=1")
    (all_tokens,) = [row["train/tokens_seen"] for row in load_run(every).metrics if "train/tokens_seen" in row]
    assert all_tokens / 3.5 < first < all_tokens / 2.5
    assert second != 2 * first  # others were drawn
    assert "24 questions have 72 rationales, 3.0 each." in (scotd / "report.html").read_text()
