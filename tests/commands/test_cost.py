"""Cost of runs: against a counter of operations, by hand, and summed over a study."""

import pytest
import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode

from kpod_lightning.__main__ import main
from kpod_lightning.commands.doctor.architecture import architecture_of
from kpod_lightning.commands.doctor.cost import Cost, cost_of, per_token
from kpod_lightning.methods.base import load_experiment
from kpod_lightning.students.student import load_student

PLAIN = ["seed=0", "data.dataset=arithmetic", "data.num_train=100", "optim.epochs=3", "method=plain"]


def counted(name: str, *, learns: bool) -> float:
    """Operations a token of one pass with 32 tokens, of an encoder-decoder 32 in each half, as torch counts them."""
    model = load_student(name).model
    ids = torch.zeros(1, 32, dtype=torch.long)
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(learns):
        loss = model(input_ids=ids, labels=ids).loss
        if learns:
            loss.backward()
    return counter.get_total_flops() / (64 if model.config.is_encoder_decoder else 32)


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-t5"])
def test_a_token_costs_what_the_counter_counts(name):
    planned = per_token(architecture_of(name))
    # What is left out is attention, a few hundredths of a pass over 32 tokens.
    assert counted(name, learns=False) == pytest.approx(planned, rel=0.08)
    assert counted(name, learns=True) == pytest.approx(3 * planned, rel=0.08)


def test_phases_of_a_run_by_hand():
    student = architecture_of("tiny-llama")
    a_pass = 100 * 50 * 2.0 * student.linear_parameters

    def phases(*settings: str) -> dict[str, float]:
        found = cost_of(load_experiment(None, [*PLAIN, *settings]), student, student, tokens=50)
        assert found is not None and found.rationales == 100
        return found.phases

    assert phases() == {"train": a_pass * 3 * 3}
    assert phases("student.lora_rank=4") == {"train": a_pass * 3 * 2}
    assert phases("launch.activation_checkpointing=true") == {"train": a_pass * 3 * 4}
    assert phases("method=mcc_kd") == {"train": 2 * a_pass * 3 * 3}
    assert phases("optim.steps=10", "optim.batch_size=5") == {"train": a_pass / 100 * 50 * 3}
    assert phases("optim.tokens=7500") == {"train": a_pass / 5000 * 10000 * 3}  # a quarter is the question
    kpod = phases("method=kpod", "weights.num_train=40", "weights.warmup_epochs=1", "weights.epochs=2")
    assert kpod == {"weights": 40 * 3 * 2 * a_pass / 100 * 3, "difficulties": a_pass, "train": a_pass * 3 * 3}


def test_benchmarks_have_their_published_size_and_own_data_only_what_is_set():
    student, recorded = architecture_of("tiny-llama"), ["rationales.source=recorded", "rationales.teacher=t"]
    svamp = cost_of(
        load_experiment(None, ["seed=0", "data.dataset=svamp", *recorded, "method=plain"]), student, student, tokens=10
    )
    assert svamp is not None and svamp.rationales == 700
    own = ["seed=0", "data.dataset=own", "data.dir=x.jsonl", "rationales.source=human", "method=plain"]
    assert cost_of(load_experiment(None, own), student, student, tokens=10) is None


def test_hours_are_operations_over_what_a_device_sustains():
    assert Cost(phases={"train": 3.6e18, "weights": 3.6e18}, rationales=1, tokens=1).hours(1000.0) == pytest.approx(2.0)


def test_a_study_is_summed_over_arms_and_seeds_and_what_does_not_fit_has_a_way_out(tmp_path, capsys):
    (tmp_path / "e.yaml").write_text("seed: 0\nstudent: {name: llama-7b, lora_rank: 8}\ndata: {num_train: 1000}\n")
    study = {"experiment": "e.yaml", "seeds": [0, 1], "arms": {"plain": ["method=plain"], "kpod": ["method=kpod"]}}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(study))
    assert main(["doctor", str(tmp_path / "s.yaml"), "--memory", "80", "--tflops", "200", "--tokens", "300"]) == 2
    said = capsys.readouterr().out
    assert "s: 2 arms, 2 seeds" in said and "for 4 runs" in said
    plain, kpod = (
        next(line.split() for line in said.splitlines() if line.split()[:1] == [arm]) for arm in study["arms"]
    )
    assert plain[-1] == "fits" and kpod[-2:] == ["no", "(1)"] and "(1) set weights." in said
    student = architecture_of("llama-7b")
    cost = cost_of(load_experiment(tmp_path / "e.yaml", ["method=plain"]), student, student, tokens=300)
    assert cost is not None
    assert plain[2:4] == [f"{cost.total / 1e15:,.0f}", f"{cost.hours(200.0):.2g}"]
