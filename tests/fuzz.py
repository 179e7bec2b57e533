"""Fuzzes what reads texts and files of others: extractor, splitter, answer tail, readers and settings.

    python tests/fuzz.py [MINUTES [SEED]]

Texts are drawn by hypothesis from pieces that these parts look for, so that they meet each other; files are sound ones
with bytes changed. Bad input raises ``InputError`` or, for a gold answer, ``ValueError``, and nothing else; and no part
takes more than about twice the time for twice the text. A failure is printed as hypothesis shrank it.
"""

import gzip
import json
import os
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from timing import seconds

from kpod_lightning.config import DataConfig
from kpod_lightning.data import own, steps, template
from kpod_lightning.data.answers import VARIANTS, answers_equal, extract_answer, gold_answer
from kpod_lightning.data.benchmarks import read_folder
from kpod_lightning.data.outputs import marked_answer
from kpod_lightning.data.sources import RecordedRationales
from kpod_lightning.data.thoughts import thought_and_rest
from kpod_lightning.methods.base import load_experiment
from kpod_lightning.store import reading
from kpod_lightning.store.errors import InputError, one_line
from kpod_lightning.store.json_lines import JsonLines, read_rows

KINDS = ("number", "choice", "yes_no")

PIECES = (
    *"0123456789 \n\t.,:;!?'\"-+*/=×÷%$€^_()[]{}<>#&\\|~`",
    *"½¾²⁵−‐‑﹣－–—　\u00a0\u202f\u2009\u200b。！？…、「」０１２①αΩéß\ud83d\x00\ufeff",
    *(
        "the answer is ",
        "The answer is: ",
        "Answer: ",
        "So, the correct answer is ",
        "Therefore, ",
        "#### ",
        "\\boxed{",
    ),
    *(
        "\\frac",
        "\\dfrac{1}{2}",
        "\\frac12",
        "\\text{",
        "\\,",
        "\\%",
        "\\$",
        "}}",
        "{,}",
        "\\times 10^{5}",
        "e10",
        "10^",
    ),
    *(" million", " hundred", " thousand", "two", "twenty-one", " half", "negative ", "minus ", "not ", "no ", "but "),
    *(
        "yes",
        "No, ",
        "true",
        "isn't ",
        "false.",
        "(A)",
        "B because",
        "vitamin C",
        "option D",
        "A",
        "1,234",
        "10,00,000",
    ),
    *("Q: ", "A: ", "<think>", "</think>", "[THINK]", "[/THINK]", "<|channel|>analysis<|message|>", "<|end|>", "</s>"),
    *("e.g. ", "Dr. ", "...", "3.Then", "U.S. ", "- ", "\n\n", "**", "```", "1. ", "* ", "| 1 | 2 |", "<answer>"),
    *("1e999", "9" * 40, "0x1F", "1/0", "-(1/3)", "4:15", "5; 15", "1'234", "$5k", "١٢٣", "²", "1 234 567"),
)

texts = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=4)), max_size=30).map("".join)
labels = st.none() | st.lists(st.sampled_from(["A", "B", "1", "10", "α", "H", "ア", "yes", "(A)"]), max_size=5)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)


def check_texts(text: str, other: str, known: list[str] | None) -> None:
    for kind in KINDS:
        for variant in VARIANTS:
            found = extract_answer(text, kind, variant, known)
            assert found is None or found.strip() == found != ""
        answers_equal(text, other, kind)
        assert answers_equal(text, text, kind) or kind == "number" or not text.strip()
        for answer in (text, found):
            try:
                gold = gold_answer(answer, kind, None if known is None else dict.fromkeys(known, other))
            except ValueError:
                continue
            assert answers_equal(gold, gold, kind), gold
    for rule in ("sentence", "newline", "paragraph", r"\."):
        spans = steps.split_steps(text, rule)
        assert "".join(text[slice(*span)] for span in spans) == (text if spans else "")
    shorter = template.without_answer_tail(text)
    assert text.startswith(shorter) and (not text.strip() or shorter.strip())
    for part in (thought_and_rest(text), marked_answer(text) or ()):
        assert all(piece is None or isinstance(piece, str) for piece in part)


LINEAR: dict[str, Callable[[str], object]] = {
    "extract_answer": lambda text: [extract_answer(text, kind, "flexible") for kind in KINDS],
    "published": lambda text: [extract_answer(text, kind, name) for kind in KINDS for name in ("mcc_kd", "fu")],
    "split_steps": steps.split_steps,
    "without_answer_tail": template.without_answer_tail,
    "thought_and_rest": thought_and_rest,
    "marked_answer": marked_answer,
    "answers_equal": lambda text: answers_equal(text, text, "number"),
}


def check_time(piece: str, before: str, behind: str) -> None:
    """Texts of one piece over and over: four times as long may take six times the time, where it takes any."""
    if not piece:
        return
    short, long = (before + piece * (length // len(piece)) + behind for length in (4_000, 16_000))
    for name, call in LINEAR.items():
        took = seconds(call, long)
        if took < 0.15:
            continue
        ratio = took / max(1e-4, seconds(call, short))
        assert ratio < 8, f"{name}: four times the text takes {ratio:.1f} times as long"


PROBLEM = {"id": "p1", "question": "What is 1 + 2?", "answer": "3", "rationale": "1 + 2 = 3."}
ROWS = "".join(json.dumps(PROBLEM | {"id": f"p{i}"}) + "\n" for i in range(4)).encode()
FILES: dict[str, bytes] = {
    ".jsonl": ROWS,
    ".json": json.dumps([PROBLEM, PROBLEM | {"id": "p2"}]).encode(),
    ".csv": b'id,question,answer\np1,"What is 1, and 2?",3\np2,"What\nis it?",4\n',
    ".tsv": b"id\tquestion\tanswer\np1\tWhat?\t3\n",
    ".yaml": b"method: plain\noptim: {epochs: 2, lr: 1.0e-4}\ndata: {num_train: 8}\n",
}
INSERTED = (
    b"\x00",
    b"\xff",
    b"\xef\xbb\xbf",
    b'"',
    b"{",
    b"}",
    b"[",
    b"]",
    b"\n",
    b"\r\n",
    b"\\ud83d",
    b"NaN",
    b"1e999",
)
INSERTED += (
    b"null",
    b",",
    b":",
    b"\t",
    b"- ",
    b"&a ",
    b"*a",
    b"!!python/name:os",
    b"${a}",
    b"[" * 300,
    b"9" * 5000,
    b"''",
)


def mutated(content: bytes, draw: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        place = draw.randrange(len(changed) + 1)
        kind = draw.randrange(4)
        if kind == 0:
            changed[place:place] = draw.choice(INSERTED)
        elif kind == 1:
            del changed[place : place + draw.randint(1, 8)]
        elif kind == 2 and place < len(changed):
            changed[place] = draw.randrange(256)
        else:
            del changed[place:]
    return bytes(changed)


def refusing(call: Callable[[], object]) -> None:
    """Bad input is one line."""
    try:
        call()
    except InputError as error:
        line = one_line(error)
        assert line.endswith("\n") and line[:-1].isprintable() and len(line) < 400, line


def check_files(folder: Path, end: str, content: bytes) -> None:
    path = folder / f"x{end}"
    path.write_bytes(content)
    (folder / f"x{end}.gz").unlink(missing_ok=True)
    for read in (reading.read_text, reading.read_json, reading.read_yaml, reading.read_arrays, reading.read_tensors):
        refusing(lambda read=read: read(path))
    refusing(lambda: list(read_rows(path)))
    refusing(lambda: list(JsonLines(path)))
    refusing(lambda: RecordedRationales(JsonLines(path), []))
    if end == ".yaml":
        refusing(lambda: load_experiment(path, []))
        return
    for kind in KINDS:
        refusing(
            lambda kind=kind: [
                list(part) for part in own.read_own(DataConfig(dataset="own", dir=str(path), kind=kind)).values()
            ]
        )
    for dataset in ("gsm8k", "commonsenseqa"):
        place = folder / "data" / dataset
        place.mkdir(parents=True, exist_ok=True)
        for split in ("train", "validation", "test"):
            (place / f"{split}.jsonl").write_bytes(
                content if split == "train" else ROWS.replace(b'"p', f'"{split}'.encode())
            )
        refusing(lambda dataset=dataset: [list(part) for part in read_folder(folder / "data", dataset).values()])
    packed = folder / "y.jsonl.gz"
    packed.write_bytes(mutated(gzip.compress(content, mtime=0), random.Random(len(content))))
    refusing(lambda: list(JsonLines(folder / "y.jsonl")))


FIELDS = ("id", "question", "answer", "rationale", "choices", "messages", "problem_id", "sample")
KEYS = ("optim.lr", "optim.epochs", "data.num_train", "weights.floor", "method", "seed", "teacher", "schedule", "optim")
KEYS += (
    "student.name",
    "logging.group",
    "rationales.step_rule",
    "teacher.prices.input",
    "data.fields.answer",
    "nothing",
    "",
)


def check_record(folder: Path, record: object) -> None:
    try:
        content = json.dumps(record, ensure_ascii=False).encode("utf-8", "surrogatepass")
    except (ValueError, TypeError):
        return
    check_files(folder, ".jsonl", ROWS + content + b"\n")


def fuzz(minutes: float, start: int) -> int:
    """Round after round until the time is over. Returns the number of failures."""
    end, counts, failures, rounds = time.monotonic() + 60 * minutes, Counter[str](), 0, start
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        targets: dict[str, Callable[..., object]] = {
            "texts": check_texts,
            "time": check_time,
            "files": lambda end, draw: check_files(folder, end, mutated(FILES[end], draw)),
            "records": lambda record: check_record(folder, record),
            "settings": lambda pairs: refusing(
                lambda: load_experiment(None, [f"{key}={value}" for key, value in pairs])
            ),
        }
        drawn: dict[str, tuple[st.SearchStrategy, ...]] = {
            "texts": (texts, texts, labels),
            "time": (texts, st.sampled_from(("", *PIECES)), st.sampled_from(("", *PIECES))),
            "files": (st.sampled_from(sorted(FILES)), st.randoms(use_true_random=False)),
            "records": (st.dictionaries(st.sampled_from(FIELDS), values),),
            "settings": (st.lists(st.tuples(st.sampled_from(KEYS), texts), max_size=3),),
        }
        shares = {"texts": 400, "time": 12, "files": 60, "records": 60, "settings": 40}
        while rounds == start or time.monotonic() < end:
            for target, test in targets.items():
                counts[target] += shares[target]
                run = settings(
                    max_examples=shares[target],
                    deadline=None,
                    database=None,
                    phases=[Phase.generate] if target == "time" else [Phase.generate, Phase.shrink],
                    suppress_health_check=list(HealthCheck),
                )(seed(rounds)(given(*drawn[target])(test)))
                try:
                    run()
                except Exception:
                    failures += 1
                    print(f"--- {target}, seed {rounds}", traceback.format_exc(limit=-3), sep="\n", flush=True)
            rounds += 1
    print(f"{rounds - start} rounds: " + ", ".join(f"{number} {target}" for target, number in counts.items()))
    print(f"{failures} failures")
    return failures


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    minutes, start = [*map(float, sys.argv[1:]), *(1, 0)[len(sys.argv) - 1 :]]
    sys.exit(fuzz(minutes, int(start)) > 0)
