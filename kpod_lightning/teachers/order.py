"""An order to a teacher: samples of every training problem, written to a file, within a budget."""

import math
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    track,
)
from yaml import YAMLError

from kpod_lightning.config import SHIPPED_TEACHERS, TEACHERS, RunConfig, TeacherConfig
from kpod_lightning.data.benchmarks import cut, read_problems
from kpod_lightning.data.problems import Problem
from kpod_lightning.data.tokens import text_ids
from kpod_lightning.distributed.console import console
from kpod_lightning.distributed.preemption import ending_together
from kpod_lightning.distributed.ranks import first_rank, is_first, joined, world_size
from kpod_lightning.evaluation.statistics import wilson_interval
from kpod_lightning.store import plugins
from kpod_lightning.store.errors import InputError
from kpod_lightning.teachers.address import shown_url
from kpod_lightning.teachers.estimates import Seen, estimate
from kpod_lightning.teachers.prices import TOKENS_A_MESSAGE, Prices, check_budget, is_providers_own, prices_of, table
from kpod_lightning.teachers.prompts import Prompt, load_prompt
from kpod_lightning.teachers.requests import Wanted, sampling_of
from kpod_lightning.teachers.samples.file import SampleFile, check_name
from kpod_lightning.teachers.writing import PILOT, Work

NUM_COUNTED = 2000
"""Most prompts whose tokens are counted for an estimate. Problems are shuffled, so the first ones are a sample."""

SECONDS_A_LINE = 60.0
"""Seconds between two lines of progress where the output is no terminal and a bar would fill a log."""


def licence_of(teacher: TeacherConfig) -> str:
    """Licence or terms of the teacher's text: ``teacher.licence``, else the provider's terms, else the model card's.

    Raises:
        InputError: the model card cannot be read.
    """
    kind, _, model = (teacher.name or "").partition(":")
    if teacher.licence is not None:
        return teacher.licence
    if kind in ("openai", "batch") and is_providers_own(teacher.base_url):
        return str(table()["terms"])
    card = Path(model) / "README.md"
    if kind in ("local", "vllm") and card.is_file():
        from huggingface_hub import ModelCard  # slow import, needed by few

        try:
            stated = ModelCard.load(card).data.to_dict()
        except (ValueError, YAMLError) as error:
            raise InputError(
                f"{card}: no model card ({' '.join(str(error).split())[:200]}); mend it, or set teacher.licence"
            ) from error
        if stated.get("license"):
            return str(stated.get("license_name") or stated["license"])
    return "not stated"


def with_endpoint(teacher: TeacherConfig) -> TeacherConfig:
    """The teacher with the URL that the environment names, where ``teacher.base_url`` names none; says which it is.

    Raises:
        InputError: OPENAI_BASE_URL is no URL.
    """
    if (teacher.name or "").partition(":")[0] not in ("openai", "batch"):
        return teacher
    named, where = teacher.base_url, ""
    if named is None and (found := os.environ.get("OPENAI_BASE_URL", "").strip()):
        named, where = found, ", from OPENAI_BASE_URL"
        try:
            teacher = replace(teacher, base_url=found)
        except (InputError, ValueError) as error:
            why = str(error).removeprefix("teacher.base_url").removeprefix("=")
            raise InputError(f"OPENAI_BASE_URL: {why.strip()}") from error
    console.print(f"endpoint: {shown_url(named or table()['endpoint'])}{where}", soft_wrap=True, markup=False)
    return teacher


def part_of(out: Path, shard: tuple[int, int]) -> Path:
    """The file of one part of an order: FILE-2-of-4.jsonl for shard (2, 4); FILE.jsonl where there is one part.

    Args:
        shard: part, from 1, and number of parts.
    """
    part, num_parts = shard
    return out if num_parts == 1 else out.with_name(f"{out.stem}-{part}-of-{num_parts}{out.suffix}")


def parse_shard(text: str) -> tuple[int, int]:
    """The part and the number of parts: (2, 4) of ``2/4``.

    Raises:
        InputError: the text is no such pair.
    """
    part, _, num_parts = text.partition("/")
    if not (part.isdecimal() and num_parts.isdecimal() and 1 <= int(part) <= int(num_parts)):
        raise InputError(f"--shard {text}: PART/PARTS from 1/PARTS to PARTS/PARTS, e.g. 2/4")
    return int(part), int(num_parts)


class Shuffled:
    """Problems in random order, so that those which are asked before the budget ends are a random sample of all.

    Args:
        positions: [N] indices into ``problems``, in the order in which they are asked.
    """

    def __init__(self, problems: Sequence[Problem], positions: np.ndarray) -> None:
        self.problems, self.positions = problems, positions

    @classmethod
    def of(cls, problems: Sequence[Problem], seed: int, shard: tuple[int, int]) -> "Shuffled":
        """Every num_parts-th problem of one random order, which depends on the seed and not on the number of parts."""
        part, num_parts = shard
        return cls(problems, np.random.default_rng(seed).permutation(len(problems))[part - 1 :: num_parts])

    def __len__(self) -> int:
        return len(self.positions)

    def __iter__(self) -> Iterator[Problem]:
        return (self.problems[int(i)] for i in self.positions)


def settings_of_part(config: RunConfig, num_parts: int) -> RunConfig:
    """The settings of one of several parts: ``teacher.budget`` and ``teacher.stop_at_total`` are split evenly."""
    teacher = config.teacher
    total = None if teacher.stop_at_total is None else math.ceil(teacher.stop_at_total / num_parts)
    budget = None if teacher.budget is None else teacher.budget / num_parts
    return replace(config, teacher=replace(teacher, budget=budget, stop_at_total=total))


def asked_alike(teacher: TeacherConfig, prompt: Prompt, seed: int) -> Any:
    """A function that tells whether a row was asked with this teacher, prompt and sampling."""
    sampling = sampling_of(teacher, seed)

    def same(row: dict[str, Any]) -> bool:
        return bool(
            row["teacher"] == teacher.name and row["prompt_sha256"] == prompt.sha256 and row["sampling"] == sampling
        )

    return same


def teacher_and_prompt(config: RunConfig, problems: Iterable[Problem]) -> tuple[TeacherConfig, Prompt]:
    """The teacher and its prompt. Where ``teacher.stop`` is empty, the teacher gets the stop texts of the prompt.

    Args:
        problems: of one data set, so that all have the same kind of answer.

    Raises:
        InputError: the prompt cannot be used, or ``teacher.contrast`` is set and it does not show the answer.
    """
    first, contrast = next(iter(problems)), config.teacher.contrast
    prompt = load_prompt(config.teacher, first.kind)
    if contrast is not None and prompt.messages(first) == prompt.messages(replace(first, answer="")):
        raise InputError(
            f"teacher.contrast={contrast}: teacher.prompt={config.teacher.prompt} does not show the answer; take "
            "teacher.prompt=answer_given"
        )
    return replace(config.teacher, stop=config.teacher.stop or list(prompt.stop)), prompt


def work_of(config: RunConfig, problems: Shuffled, out: Path) -> tuple[Work, int]:
    """The open file with the requests that have no row yet, and the number of these samples.

    Raises:
        InputError: the prices are not known; the prompt or the file cannot be used.
    """
    prices, licence = prices_of(config.teacher), licence_of(config.teacher)
    teacher, prompt = teacher_and_prompt(config, problems)
    limit = None if teacher.budget is None else Decimal(str(teacher.budget))
    file = SampleFile(out, limit, asked_alike(teacher, prompt, config.seed))
    wanted = Wanted(problems, prompt, teacher, config.seed, file.right_of, num_right=file.seen.num_right)
    wanted.problems, missing = missing_samples(problems, wanted, file)
    return Work(teacher, prices, wanted, file, licence, config.seed), missing


def missing_samples(problems: Shuffled, wanted: Wanted, file: SampleFile) -> tuple[Shuffled, int]:
    """The problems that lack the row of some sample, and how many rows are lacking in all."""
    samples = range(wanted.teacher.samples)
    looked_at = tracked(problems, "looking for what is missing")
    had = file.had(wanted.key(problem, sample) for problem in looked_at for sample in samples)
    lacking = ~had.reshape(-1, len(samples)).all(axis=1)
    return Shuffled(problems.problems, problems.positions[lacking]), int((~had).sum())


def tracked(problems: Shuffled | list[Problem], what: str) -> Iterable[Problem]:
    return track(problems, what, console=console, transient=True, disable=not console.is_terminal)


def load_teacher(kind: str) -> Any:
    """The module or object that writes what a teacher of this kind is asked.

    Raises:
        InputError: no such kind; the package that adds it does not import, or has no function ``write``.
    """
    teacher = plugins.load(TEACHERS, kind, SHIPPED_TEACHERS, setting="teacher")
    if not callable(getattr(teacher, "write", None)):
        raise InputError(f"teacher={kind}:...: its entry point names no object with a function write(work); mend it")
    return teacher


def order(config: RunConfig, out: Path | None, *, shard: tuple[int, int] = (1, 1), dry_run: bool = False) -> None:
    """Ask for the samples that the file lacks, until it has all or ``stop_at_total`` right ones, or the budget ends.

    Args:
        out: file of samples, .jsonl; may be None with ``dry_run``.
        shard: part, from 1, and number of parts; each part has its own file, ledger and share of the budget.
        dry_run: print what the order would cost, and ask for nothing.

    Raises:
        InputError: the settings, the endpoint or the budget. Rows written before that stay; the same command goes on.
        Preempted: a signal stopped the order.
    """
    config = replace(config, teacher=with_endpoint(config.teacher))
    config = settings_of_part(config, shard[1])
    kind = (config.teacher.name or "").partition(":")[0]
    if kind != "local" and world_size() > 1:
        raise InputError(
            f"teacher={config.teacher.name} is asked by one process: share the work with --shard PART/PARTS"
        )
    problems = Shuffled.of(cut(read_problems(config), config)["train"], config.seed, shard)
    if not len(problems):
        raise InputError(f"--shard {shard[0]}/{shard[1]} has no problems: take fewer parts")
    path = None if out is None else part_of(out, shard)
    if dry_run:
        print_cost(config, problems, path)
        return
    assert path is not None
    check_budget(config.teacher, prices_of(config.teacher))
    module = load_teacher(kind)
    if kind != "local":
        work, missing = work_of(config, problems, path)
        with work.file, showing_progress(work, missing):
            module.write(work)
        print_outcome(work, missing)
        return
    with joined(config.launch), ending_together():
        held: list[tuple[Work, int]] = []
        first_rank(lambda: held.append(work_of(config, problems, path)), "the file of samples")
        if not is_first():
            module.write(None, config)
            return
        work, missing = held[0]
        with work.file, showing_progress(work, missing):
            module.write(work, config)
        print_outcome(work, missing)


def print_outcome(work: Work, missing: int) -> None:
    """Print the outcome of an order.

    Raises:
        InputError: some samples got no reply, or the work stopped early for this reason.
        Preempted: a signal stopped the work early.
    """
    console.print(summary(work), soft_wrap=True)
    if work.failures:
        kinds = ", ".join(f"{why} {number}" for why, number in work.failures.most_common())
        console.print(f"requests that came to nothing: {kinds}", soft_wrap=True)
    if work.unnatural:
        kinds = ", ".join(f"{word} {number}" for word, number in work.unnatural.most_common())
        console.print(
            f"replies without a natural end, which never count as right: {kinds}", soft_wrap=True, markup=False
        )
    if work.refused and work.refused.total() == work.file.num_rows:
        console.print("all samples were refused; no text came", soft_wrap=True)
    if work.stopped is not None:
        raise work.stopped
    if work.given_up and (work.teacher.name or "").startswith("recorded:"):
        console.print(f"{work.given_up} of {missing} samples are not in {work.teacher.name}", soft_wrap=True)
    elif work.given_up:
        raise InputError(
            f"{work.given_up} of {missing} samples came to nothing {work.teacher.max_attempts} times each and stay "
            "missing; the same command asks for them again"
        )


def summary(work: Work) -> str:
    """The numbers of samples and of right ones, what they cost, and the cost of a right one."""
    seen, money = work.file.seen, work.file.money
    if not seen.num_rows:
        return f"{work.file.path}: no samples yet, {money.spent:.4f} US dollars spent"
    low, high = wilson_interval(seen.num_right, seen.num_rows)
    share = f"{100 * seen.num_right / seen.num_rows:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
    parts = [f"{work.file.path}: {seen.num_rows} samples, {seen.num_right} right ({share})"]
    if money.spent or money.held:
        held = f", and {money.held:.4f} more may have been billed" if money.held else ""
        parts.append(f"{money.spent:.4f} US dollars spent{held}")
        if seen.num_right:
            # Rows that were asked in another way have their share of the money, so count only the cost of ours.
            spent = float(money.spent) if seen.num_rows == work.file.num_rows else seen.cost
            parts.append(f"{spent / seen.num_right:.5f} a right one")
    return "; ".join(parts)


@contextmanager
def showing_progress(work: Work, missing: int) -> Iterator[None]:
    """Show progress while the teacher writes: a bar, or a line a minute; after ``PILOT`` samples, an estimated cost."""
    file, began, quiet = work.file, time.monotonic(), not console.is_terminal
    if file.num_rows:
        console.print(f"{file.path}: {file.num_rows} samples are there; {missing} are asked for", soft_wrap=True)
    if file.seen.num_rows >= PILOT and missing and file.seen.cost:
        console.print(f"estimate: {estimate(file.seen, missing)}")
    has_estimated = file.seen.num_rows >= PILOT
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=quiet) as progress:
        task = progress.add_task("samples", total=missing)
        num_before, last = file.num_rows, began

        def change() -> None:
            nonlocal has_estimated, last
            num_done = file.num_rows - num_before
            seen = file.seen
            right = f"{100 * seen.num_right / seen.num_rows:.0f} % right" if seen.num_rows else ""
            spent = f" · {file.money.spent:.4f} US dollars" if file.money.spent else ""
            progress.update(task, completed=num_done, description=f"samples, {right}{spent}")
            if not has_estimated and work.pilot_is_done:
                has_estimated = True
                print_estimate(work, missing)
            if quiet and time.monotonic() - last > SECONDS_A_LINE:
                last = time.monotonic()
                console.print(f"{num_done} of {missing} samples, {right}{spent}", soft_wrap=True)

        work.on_change = change
        work.say = lambda line: console.print(line, soft_wrap=True)
        yield


def print_estimate(work: Work, missing: int) -> None:
    """Print what all samples will cost, estimated from the pilot."""
    pilot, seen = work.pilot, work.file.seen
    if not pilot.num_rows or not pilot.cost:
        return
    wasted = seen.num_wasted * pilot.num_rows / seen.num_rows
    found = estimate(replace(pilot, num_wasted=wasted), missing)
    budget = work.teacher.budget
    beyond = f"; the budget of {budget:g} will not reach for all" if budget is not None and found.value > budget else ""
    at_most = "at most " if work.teacher.stop_at or work.teacher.stop_at_total else ""
    console.print(f"estimate after {PILOT} samples: {at_most}{found}{beyond}", soft_wrap=True)


def prompt_tokens(config: RunConfig, prompt: Prompt, problems: Shuffled) -> tuple[float, str]:
    """Mean number of tokens of a prompt, and the name of the tokenizer that counted them.

    Raises:
        InputError: the tokenizer cannot be loaded.
    """
    from transformers import AutoTokenizer  # slow import, needed for an estimate alone

    from kpod_lightning.students.student import pretrained

    kind, _, model = (config.teacher.name or "").partition(":")
    name = config.teacher.tokenizer or (model if kind in ("local", "vllm") else config.student.name)
    source, revision = pretrained(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
    except (OSError, ValueError) as error:
        raise InputError(
            f"the tokenizer of {name}, which estimates the length of prompts, cannot be had "
            f"({str(error).strip().splitlines()[0]}); set teacher.tokenizer=FOLDER_OR_HUB_ID"
        ) from error
    total = number = 0
    for problem in tracked(list(islice(problems, NUM_COUNTED)), "counting tokens"):
        messages = prompt.messages(problem)
        total += sum(len(text_ids(text, tokenizer)) for _, text in messages)
        number += 1
    return total / number, name


def print_cost(config: RunConfig, problems: Shuffled, path: Path | None) -> None:
    """Print what an order would cost. Nothing is asked, and no file is made.

    Raises:
        InputError: the prices are not known; the prompt, the file or the tokenizer cannot be used.
    """
    teacher = config.teacher
    prices, seen, missing = prices_of(teacher), Seen(), len(problems) * teacher.samples
    prompt = teacher_and_prompt(config, problems)[1]
    if path is not None and path.is_file():
        work, missing = work_of(config, problems, path)
        seen = work.file.seen
        console.print(f"{path}: {work.file.num_rows} samples, {work.file.money.spent:.4f} US dollars spent")
        work.file.close()
    console.print(f"samples to be asked: {missing}{' at most' if teacher.stop_at or teacher.stop_at_total else ''}")
    console.print(price_line(prices), soft_wrap=True)
    tokens, name = prompt_tokens(config, prompt, problems)
    seconds = " and asked a second time with the reply" if teacher.answer_call else ""
    console.print(f"prompt: {tokens:.0f} tokens on average, as {name} counts them{seconds}", soft_wrap=True)
    longest = math.ceil(tokens) + 2 * TOKENS_A_MESSAGE
    at_most = missing * prices.cost(longest, teacher.max_tokens)
    if teacher.answer_call:
        at_most += missing * prices.cost(longest + teacher.max_tokens, teacher.max_tokens)
    console.print(f"with every reply as long as teacher.max_tokens={teacher.max_tokens}: {at_most:.4f} US dollars")
    if seen.num_rows:
        console.print(f"with replies as long as the {seen.num_rows} seen so far: {estimate(seen, missing)}")
    else:
        console.print(f"how long replies are shows after {PILOT} samples; the command then says what all will cost")


def price_line(prices: Prices) -> str:
    if not prices.input and not prices.output:
        return f"price: none ({prices.source})"
    return f"price: {prices.input} US dollars a million tokens in, {prices.output} out ({prices.source})"


def check_order(config: RunConfig, out: Path | None, dry_run: bool) -> None:
    """Check that an order has a teacher and a file.

    Raises:
        InputError: one of them is missing.
    """
    if config.teacher.name is None:
        raise InputError(
            "--out FILE is for rationales that a teacher writes: name it, e.g. teacher=openai:gpt-4.1-mini"
        )
    if out is None and not dry_run:
        raise InputError(f"teacher={config.teacher.name} needs --out FILE.jsonl, or --dry-run")
    if out is not None:
        check_name(out)
