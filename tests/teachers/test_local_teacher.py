"""Teachers that run here: what a sample says depends on its prompt and its seed, not on batches or ranks."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from scipy.stats import chisquare
from transformers import GenerationConfig
from transformers.generation import LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

from kpod_lightning.__main__ import main
from kpod_lightning.config import LaunchConfig, TeacherConfig, load_config
from kpod_lightning.data.arithmetic import generate as make_problems
from kpod_lightning.data.benchmarks import cut, read_problems
from kpod_lightning.data.template import prompt_text
from kpod_lightning.distributed.preemption import Preempted, listening
from kpod_lightning.evaluation import generate as evaluation
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.files import ASSETS
from kpod_lightning.students.student import load_student
from kpod_lightning.teachers import local, vllm
from kpod_lightning.teachers.local import Draw, LocalTeacher, prompt_ids, warpers_of, with_answer_calls
from kpod_lightning.teachers.order import Shuffled, work_of
from kpod_lightning.teachers.requests import Reply, Request

CPU = LaunchConfig(accelerator="cpu")
EXPERIMENT = "experiments/arithmetic.yaml"
ROOT = Path(__file__).resolve().parents[2]
PROBLEMS = [made.problem for made in make_problems("train", 8, seed=3)]
ASKED = [((("user", prompt_text(problem)),), seed) for seed, problem in enumerate(PROBLEMS)]


def config_of(name="tiny-llama", **settings) -> TeacherConfig:
    return TeacherConfig(**{"name": f"local:{name}", "max_tokens": 40, "temperature": 0.0} | settings)


def teacher_of(name="tiny-llama", **settings) -> LocalTeacher:
    return LocalTeacher(config_of(name, **settings), CPU)


def work_in(path: Path, *settings: str):
    """An order of the command, not yet begun."""
    own = ["teacher=local:tiny-llama", "teacher.max_tokens=40", "launch.accelerator=cpu", "data.num_train=20"]
    config = load_config(ROOT / EXPERIMENT, [*own, "teacher.batch_size=3", *settings])
    problems = Shuffled.of(cut(read_problems(config), config)["train"], config.seed, (1, 1))
    return work_of(config, problems, path)[0], config


def words_of(out: Path, *settings: str) -> list[str]:
    own = ["teacher=local:tiny-llama", "teacher.max_tokens=40", "launch.accelerator=cpu", "data.num_train=20"]
    return ["rationales", str(ROOT / EXPERIMENT), *own, "teacher.batch_size=3", "--out", str(out), *settings]


def started(words: list[str], **more: str) -> "subprocess.Popen[str]":
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"} | more
    command = [sys.executable, "-m", "kpod_lightning", *words]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def same_always(rows: list[dict]) -> list[dict]:
    return [{name: value for name, value in row.items() if name not in ("latency", "written")} for row in rows]


@pytest.mark.parametrize(
    "settings",
    [
        ["teacher.temperature=0", "teacher.answer_call=true"],
        pytest.param(["samples=3", "teacher.stop_at=1"], marks=pytest.mark.slow),
        pytest.param(["samples=3", "teacher.stop_at_total=6"], marks=pytest.mark.slow),
    ],
    ids=["greedy", "stop_at", "stop_at_total"],
)
def test_two_ranks_write_the_rows_of_one(tmp_path, settings):
    two = started(words_of(tmp_path / "two.jsonl", *settings, "launch.devices=2"))
    assert main(words_of(tmp_path / "one.jsonl", *settings)) == 0
    _, said = two.communicate(timeout=120)
    assert two.returncode == 0, said
    rows = rows_of(tmp_path / "one.jsonl")
    assert same_always(rows) == same_always(rows_of(tmp_path / "two.jsonl"))
    if "stop_at_total" not in settings[1]:
        assert len({row["problem_id"] for row in rows}) == 20


@pytest.mark.slow
def test_a_kill_loses_one_batch_at_most_and_no_row_is_written_twice(tmp_path):
    out = tmp_path / "s.jsonl"
    words = words_of(out, "teacher.temperature=0", "teacher.batch_size=1", "data.num_train=200")
    process, deadline = started(words), time.monotonic() + 120
    while (not out.exists() or out.read_bytes().count(b"\n") < 5) and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    num_before = out.read_bytes().count(b"\n")
    assert 5 <= num_before < 200
    assert main(words) == 0
    assert len({row["key"] for row in rows_of(out)}) == len(rows_of(out)) == 200


def test_a_signal_stops_it_between_two_batches_and_the_next_order_goes_on(tmp_path):
    work, config = work_in(tmp_path / "s.jsonl")
    work.on_change = lambda: os.kill(os.getpid(), signal.SIGTERM)
    with listening(), work.file:
        local.write(work, config)
    assert isinstance(work.stopped, Preempted)
    first = rows_of(tmp_path / "s.jsonl")
    assert len(first) == 3
    work, config = work_in(tmp_path / "s.jsonl")
    with listening(), work.file:
        local.write(work, config)
    rows = rows_of(tmp_path / "s.jsonl")
    assert work.stopped is None and rows[:3] == first
    assert len({row["problem_id"] for row in rows}) == len(rows) == 20


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-t5"])
def test_greedy_replies_are_what_the_evaluation_generates(name):
    teacher = teacher_of(name)
    found = teacher.generate(ASKED)
    outputs = evaluation.generate(PROBLEMS, load_student(name), max_new_tokens=40)
    for problem, (messages, _), reply in zip(PROBLEMS, ASKED, found, strict=True):
        (output,) = outputs[problem.id]
        assert reply.text == output.text and reply.completion_tokens == output.num_tokens
        assert reply.finish_reason == ("length" if output.at_limit else "stop")
        assert reply.prompt_tokens == len(teacher.prompt_ids(messages))


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-t5"])
def test_a_sample_is_the_same_alone_and_among_others(name):
    teacher = teacher_of(name, temperature=1.5, top_p=0.95)
    together = [reply.text for reply in teacher.generate(ASKED)]
    assert together == [teacher.generate([asked])[0].text for asked in ASKED]
    assert together == [reply.text for reply in teacher.generate(ASKED[::-1])][::-1]
    other = [reply.text for reply in teacher.generate([(messages, seed + 100) for messages, seed in ASKED])]
    assert sum(one != another for one, another in zip(together, other, strict=True)) >= 6


LOGITS = torch.tensor([2.0, -1.0, 0.5, 0.5, 1.0, -torch.inf, 0.0, 1.7])


@pytest.mark.parametrize("top_p", [1.0, 0.6])
def test_tokens_are_drawn_as_often_as_they_are_likely(top_p):
    """By rows with seeds of their own, and by one row step after step."""
    warpers = LogitsProcessorList([TemperatureLogitsWarper(0.7)])
    if top_p < 1.0:
        warpers.append(TopPLogitsWarper(top_p))
    none = torch.zeros(1, 1, dtype=torch.long)
    probabilities = warpers(none, LOGITS[None])[0].double().softmax(-1)
    assert (probabilities > 0).sum() == (7 if top_p == 1.0 else 2)  # softmax of LOGITS / 0.7: 0.45, 0.29, 0.11, ...
    seeds = [int(sha256(str(i).encode()).hexdigest()[:8], 16) >> 1 for i in range(20_000)]  # as requests have them
    rows = Draw(warpers, seeds)(none, LOGITS.expand(20_000, -1)).argmax(-1)
    one = Draw(warpers, [7])
    steps = torch.stack([one(none, LOGITS[None]).argmax() for _ in range(5_000)])
    for drawn in (rows, steps):
        counts = drawn.bincount(minlength=8)
        possible = probabilities > 0
        assert not counts[~possible].any()
        assert chisquare(counts[possible], len(drawn) * probabilities[possible]).pvalue > 0.001


def test_a_text_that_stops_is_cut_off_and_ends_the_reply():
    free = teacher_of().generate(ASKED)
    stops = ["= 4", ". The"]  # of which the second one stands across the end of a prompt and the start of some replies
    teacher = teacher_of(stop=stops)
    ended = teacher.generate(ASKED)
    cut_off = [min((whole.text + stop).index(stop) for stop in stops) for whole in free]
    assert [reply.text for reply in ended] == [whole.text[:place] for whole, place in zip(free, cut_off, strict=True)]
    early = [reply for reply, whole in zip(ended, free, strict=True) if reply.text != whole.text]
    assert len(early) >= 4 and {reply.finish_reason for reply in early} == {"stop"}
    for reply in early:  # the tokens up to the stop text, which may be cut, and those of the stop text
        tokens = len(teacher.student.tokenizer(reply.text, add_special_tokens=False).input_ids)
        assert tokens < reply.completion_tokens <= tokens + 3


def test_a_reply_that_reaches_the_limit_says_so():
    assert {(r.finish_reason, r.completion_tokens) for r in teacher_of(max_tokens=5).generate(ASKED)} == {("length", 5)}


def test_a_prompt_without_room_for_a_reply_is_too_long_and_leaves_the_others_as_they_are():
    teacher = teacher_of()
    text = "Q: " + "one two three " * 500
    tokens = teacher.student.tokenizer(text, add_special_tokens=False).input_ids
    room = 1024 - 40
    fits, too_long = (teacher.student.tokenizer.decode(tokens[:number]) for number in (room - 20, room + 20))
    assert teacher.has_room(tokens[:room]) and not teacher.has_room(tokens[: room + 1])
    found = teacher.generate([*ASKED[:2], ((("user", too_long),), 5)])
    assert [reply.finish_reason for reply in found][2] == "prompt_too_long" and found[2].text == ""
    assert [reply.text for reply in found[:2]] == [reply.text for reply in teacher.generate(ASKED[:2])]
    assert teacher.generate([((("user", fits),), 5)])[0].completion_tokens > 0
    with pytest.raises(InputError, match=r"teacher.max_tokens=1024 leaves"):
        teacher_of(max_tokens=1024)


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-t5"])
def test_log_probabilities_are_those_that_the_model_scores_the_text_with(name):
    teacher = teacher_of(name, temperature=0.7, top_p=0.8, logprobs=True)
    for (messages, _), reply in zip(ASKED, teacher.generate(ASKED), strict=True):
        tokenizer, model = teacher.student.tokenizer, teacher.student.model
        assert reply.logprobs is not None and len(reply.logprobs) == reply.completion_tokens
        assert "".join(token for token, _ in reply.logprobs).replace("</s>", "") == reply.text
        prompt = torch.tensor([teacher.prompt_ids(messages)])
        end = [tokenizer.eos_token_id] if reply.finish_reason == "stop" else []
        written = torch.tensor([[*tokenizer(reply.text, add_special_tokens=False).input_ids, *end]])
        if written.shape[1] != reply.completion_tokens:  # it was written in other tokens than the text is cut into
            continue
        with torch.no_grad():
            if name == "tiny-t5":
                logits = model(input_ids=prompt, labels=written).logits
            else:
                logits = model(torch.cat([prompt, written], 1)).logits[:, prompt.shape[1] - 1 : -1]
        scored = logits.log_softmax(-1).gather(2, written[:, :, None]).sum()
        assert sum(value for _, value in reply.logprobs) == pytest.approx(float(scored), abs=1e-3)


def test_a_temperature_leaves_no_setting_of_the_model_and_none_takes_them_all(tmp_path):
    folder = tmp_path / "opinionated"
    shutil.copytree(ASSETS / "tiny-llama", folder)
    path = folder / "generation_config.json"
    settings = {"do_sample": True, "temperature": 0.6, "top_k": 2, "top_p": 0.9, "repetition_penalty": 5.0}
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    plain = [reply.text for reply in teacher_of().generate(ASKED)]
    assert [reply.text for reply in teacher_of(str(folder)).generate(ASKED)] == plain
    assert [reply.text for reply in teacher_of(temperature=None).generate(ASKED)] == plain  # its own way is greedy
    own = teacher_of(str(folder), temperature=None)
    assert [type(warper).__name__ for warper in own.warpers] == [
        "RepetitionPenaltyLogitsProcessor",
        "TemperatureLogitsWarper",
        "TopKLogitsWarper",
        "TopPLogitsWarper",
    ]
    assert [reply.text for reply in own.generate(ASKED)] != plain
    assert warpers_of(config_of(temperature=0.0), GenerationConfig(**settings)) is None


def test_an_answer_is_asked_after_the_rationale_with_numbers_of_its_own():
    asked = []

    def generate(calls):
        asked.append(calls)
        return [Reply(text=f"<think>x</think> {seed}", completion_tokens=2, latency=1.0) for _, seed in calls]

    first = Request(problem=PROBLEMS[0], sample=0, messages=(("user", "one"),), key="0" * 32, after="And so?")
    second = replace(first, key="f" * 32, after=None)
    found = with_answer_calls([first, second], generate)
    assert asked[0] == [((("user", "one"),), 0), ((("user", "one"),), 2**31 - 1)]
    assert asked[1] == [((("user", "one"), ("assistant", "0"), ("user", "And so?")), 2**31)]
    assert [(reply.answer, reply.completion_tokens) for reply in found] == [(str(2**31), 4), (None, 2)]


def test_messages_go_through_the_chat_template_with_the_extra_settings():
    student = load_student("tiny-llama")
    student.tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}{% if not think %} <think>{% endif %}"
    )
    teacher = config_of(extra={"think": True})
    ids = prompt_ids([("user", "Add 2."), ("assistant", "4"), ("user", "So?")], student, teacher)
    assert student.tokenizer.decode(ids) == "user: Add 2.\nassistant: 4\nuser: So?\nassistant:"
    with pytest.raises(InputError, match=r"chat template refuses .*no system"):
        prompt_ids([("system", "Be brief."), ("user", "Add 2.")], student, teacher)
    student.tokenizer.chat_template = None
    with pytest.raises(InputError, match=r"teacher.extra is for the chat template"):
        prompt_ids([("user", "Add 2.")], student, teacher)
    assert student.tokenizer.decode(prompt_ids([("system", "a"), ("user", "b")], student, config_of())) == "a\n\nb"


def test_what_does_not_fit_in_the_memory_names_the_setting(monkeypatch):
    teacher = teacher_of(batch_size=8)
    monkeypatch.setattr(teacher.student.model, "generate", lambda **_: torch.empty(10**15))
    with pytest.raises(InputError, match=r"teacher.batch_size=8: replies of 40 tokens .* memory of cpu"):
        teacher.generate(ASKED)


def test_a_model_that_computes_no_numbers_is_refused():
    teacher = teacher_of()
    with torch.no_grad():
        teacher.student.model.get_input_embeddings().weight.fill_(torch.nan)
    with pytest.raises(InputError, match="computes NaN"):
        teacher.generate(ASKED)


def test_a_teacher_that_cannot_be_had_is_named_as_it_was_given(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match=r"^teacher=local:\S+none: no such folder"):
        teacher_of(str(tmp_path / "none"))


def test_an_error_of_another_rank_is_everyones(monkeypatch):
    monkeypatch.setattr(local, "gathered", lambda mine: {0: (["a"], [Reply(text="")]), 1: (["b"], InputError("full"))})
    with pytest.raises(InputError, match="full"):
        local.answered(teacher_of(), [])


# ---- vLLM ----


def test_without_vllm_its_teacher_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    work, _ = work_in(tmp_path / "s.jsonl", "teacher=vllm:tiny-llama")
    with work.file, pytest.raises(InputError, match=r"pip install 'kpod_lightning\[vllm\]'.*vllm serve"):
        vllm.write(work)


class Engine:
    """Has the documented shapes of vLLM, and writes the prompt's last token and its seed."""

    def __init__(self, **settings):
        self.settings = settings
        config = SimpleNamespace(max_model_len=1024, get_diff_sampling_param=lambda: {"top_k": 2})
        self.llm_engine = SimpleNamespace(model_config=config)

    def get_tokenizer(self):
        return load_student("tiny-llama").tokenizer

    def generate(self, prompts, sampling_params, *, use_tqdm):
        assert not use_tqdm
        for prompt, params in zip(prompts, sampling_params, strict=True):
            ids = prompt["prompt_token_ids"]
            of = [{ids[-1]: SimpleNamespace(logprob=-0.5, rank=1, decoded_token="."), 3: SimpleNamespace()}]
            written = SimpleNamespace(
                text=f"The answer is {params['seed']}.", token_ids=[ids[-1]], logprobs=of, finish_reason="stop"
            )
            yield SimpleNamespace(prompt_token_ids=ids, outputs=[written], num_cached_tokens=None)


@pytest.mark.parametrize("temperature", ["0.7", "null"])
def test_outputs_of_vllm_become_rows(tmp_path, monkeypatch, temperature):
    asked = []

    def params(**settings):
        asked.append(settings)
        return settings

    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(LLM=Engine, SamplingParams=params))
    settings = ["teacher=vllm:tiny-llama", f"teacher.temperature={temperature}", "teacher.logprobs=true"]
    work, _ = work_in(tmp_path / "s.jsonl", *settings)
    with work.file:
        vllm.write(work)
    rows = rows_of(tmp_path / "s.jsonl")
    assert len(rows) == 20 and Counter(row["finish_reason"] for row in rows) == {"stop": 20}
    for row, sampling in zip(rows, asked, strict=True):
        assert row["predicted_answer"] == str(sampling["seed"]) == str(int(row["key"][:8], 16) >> 1)
        assert row["logprobs"] == [[".", -0.5]] and row["usage"]["completion_tokens"] == 1
        own = {"temperature": 0.7} if temperature == "0.7" else {"top_k": 2}
        assert sampling == own | {"seed": sampling["seed"], "max_tokens": 40, "logprobs": 0}


# ---- Contrastive decoding ----

GIVEN = [
    tuple((("user", prompt_text(replace(p, question=f"{p.question} It is {answer}."))),) for p in PROBLEMS[:4])
    for answer in (7, "not 12 but 90")
]


@torch.no_grad()
def contrasted(student, gold, other, strength, plausible, most):
    """Contrastive decoding of one prompt, every step with two passes over all that there is so far."""
    said = []
    while len(said) < most:
        logs = []
        for prompt in (gold, other):
            if student.encoder_decoder:
                decoder = torch.tensor([[student.model.config.decoder_start_token_id, *said]])
                logits = student.model(input_ids=torch.tensor([prompt]), decoder_input_ids=decoder).logits
            else:
                logits = student.model(input_ids=torch.tensor([[*prompt, *said]])).logits
            logs.append(logits[0, -1].log_softmax(-1))
        scores = logs[0] - strength * logs[1]
        scores[logs[0].exp() < (plausible or 0.0) * logs[0].exp().max()] = -torch.inf
        likeliest = int(logs[0].argmax())
        said.append(likeliest if likeliest in student.end_token_ids else int(scores.argmax()))
        if said[-1] in student.end_token_ids:
            break
    return student.tokenizer.decode(said, skip_special_tokens=True)


@pytest.mark.parametrize("plausible", [None, 0.3])
@pytest.mark.parametrize("name", ["tiny-llama", "tiny-t5"])
def test_contrastive_replies_are_those_of_a_slow_reference_without_caches(name, plausible):
    teacher = teacher_of(name, contrast="wrong", contrast_lambda=0.7, contrast_plausible=plausible, max_tokens=12)
    asked = [(messages, 0) for messages in GIVEN[0]]
    replies = [reply.text for reply in teacher.generate(asked, GIVEN[1])]
    expected = [
        contrasted(teacher.student, teacher.prompt_ids(gold), teacher.prompt_ids(other), 0.7, plausible, 12)
        for gold, other in zip(*GIVEN, strict=True)
    ]
    assert replies == expected
    assert replies != [reply.text for reply in teacher.generate(asked)]


def test_a_contrast_of_no_weight_is_greedy_decoding():
    teacher = teacher_of(contrast="wrong", contrast_lambda=0, max_tokens=12, logprobs=True)
    asked = [(messages, 0) for messages in GIVEN[0]]
    with_contrast, greedy = teacher.generate(asked, GIVEN[1]), teacher.generate(asked)
    assert [reply.text for reply in with_contrast] == [reply.text for reply in greedy]
    for ours, theirs in zip(with_contrast, greedy, strict=True):
        (words, logprobs), (other_words, others) = (zip(*reply.logprobs, strict=True) for reply in (ours, theirs))
        assert words == other_words and logprobs == pytest.approx(others, abs=1e-4)


def test_an_order_decodes_against_wrong_answers_and_its_rows_say_so(tmp_path):
    out = tmp_path / "rows.jsonl"
    own = ["teacher.prompt=answer_given", "teacher.temperature=0", "teacher.contrast=wrong", "data.num_train=4"]
    assert main(words_of(out, *own)) == 0
    rows = rows_of(out)
    assert len(rows) == 4 and {row["sampling"]["contrast"] for row in rows} == {"wrong"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["teacher.contrast=wrong"], "take teacher.temperature=0"),
        (
            ["teacher.contrast=wrong", "teacher.temperature=0"],
            "does not show the answer; take teacher.prompt=answer_gi",
        ),
        (["teacher.contrast=wrong", "teacher.temperature=0", "teacher=openai:x"], "take teacher=local:"),
    ],
)
def test_a_contrast_that_cannot_be_made_is_one_line(settings, words, capsys, tmp_path):
    assert main(words_of(tmp_path / "rows.jsonl", *settings)) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
