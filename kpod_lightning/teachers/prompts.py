"""Prompts as files: Jinja templates with a block for each message, filled in with a problem."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import Template, TemplateError

from kpod_lightning.config import TeacherConfig
from kpod_lightning.data.problems import Problem
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.files import ASSETS
from kpod_lightning.store.json_lines import JsonLines
from kpod_lightning.store.reading import read_text
from kpod_lightning.store.records import text_of
from kpod_lightning.teachers.sandbox import PromptEnvironment

PROMPTS = ASSETS / "prompts"

Message = tuple[str, str]
"""Role (system or user) and text."""


@dataclass(frozen=True)
class Prompt:
    """A prompt file with the blocks ``system``, ``user``, ``answer_call`` and ``stop``; only ``user`` is required.

    A block sees ``question`` (with its choices), ``answer`` (the gold one), ``kind`` (number, choice or yes_no) and
    ``examples``, a list of objects with ``question``, ``rationale`` and ``answer``.
    """

    name: str
    source: str
    examples: tuple[dict[str, str], ...] = ()

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the file and its examples."""
        return hashlib.sha256(json.dumps([self.source, self.examples]).encode()).hexdigest()

    @cached_property
    def _template(self) -> Template:
        try:
            template = PromptEnvironment().from_string(self.source)
        except (
            TemplateError,
            SyntaxError,
            RecursionError,
            MemoryError,
        ) as error:  # nested too deep
            line, why = getattr(error, "lineno", "?"), " ".join(str(error).split())
            raise InputError(f"teacher.prompt={self.name}: line {line}: {why}") from error
        if "user" not in template.blocks:
            raise InputError(f"teacher.prompt={self.name} has no block user, which holds what the teacher is asked")
        return template

    def _block(self, block: str, problem: Problem) -> str | None:
        if block not in self._template.blocks:
            return None
        fields: dict[str, Any] = {
            "question": problem.text,
            "answer": problem.answer,
            "kind": problem.kind,
            # Leave out an example that is the problem itself.
            "examples": [example for example in self.examples if example["question"] != problem.text],
        }
        return self._rendered(block, fields)

    def _rendered(self, block: str, fields: dict[str, Any]) -> str:
        template = self._template
        try:
            template.environment.begin()  # type: ignore[attr-defined]
            return "".join(template.blocks[block](template.new_context(fields))).strip()
        except Exception as error:  # a template can compute anything
            line = next((line for line in _lines(error, template)), "?")
            why = " ".join(str(error).split())[:200] or type(error).__name__
            raise InputError(f"teacher.prompt={self.name}, line {line}, block {block}: {why}") from error

    def messages(self, problem: Problem) -> tuple[Message, ...]:
        """The messages that are sent for a problem.

        Raises:
            InputError: the template uses an unknown field, or its block ``user`` is empty for this problem.
        """
        rendered = [(role, self._block(role, problem)) for role in ("system", "user")]
        if not rendered[1][1]:
            raise InputError(f"teacher.prompt={self.name}, block user: is empty for problem {problem.id}")
        return tuple((role, text) for role, text in rendered if text)

    @cached_property
    def stop(self) -> tuple[str, ...]:
        """Stop texts: the reply ends before a line that begins with one. ``{% block stop %}`` has one a line."""
        text = self._rendered("stop", {}) if "stop" in self._template.blocks else ""
        return tuple("\n" + line.strip() for line in text.splitlines() if line.strip())

    def answer_call(self, problem: Problem) -> str:
        """The message that asks for the answer after the rationale.

        Raises:
            InputError: the prompt has no block ``answer_call``.
        """
        text = self._block("answer_call", problem)
        if not text:
            raise InputError(
                f"teacher.prompt={self.name} has no block answer_call, which teacher.answer_call=true asks"
            )
        return text


def _lines(error: BaseException, template: Template) -> Iterator[int]:
    """The line of the template that an error is from, if it is from one."""
    frames = error.__traceback__
    found = None
    while frames is not None:
        if "<template>" in frames.tb_frame.f_code.co_filename:
            found = template.get_corresponding_lineno(frames.tb_lineno)
        frames = frames.tb_next
    if found is not None:
        yield found


def load_prompt(teacher: TeacherConfig, kind: str) -> Prompt:
    """The configured prompt.

    Args:
        kind: of the problems' answers (number, choice or yes_no), which selects the shipped examples.

    Raises:
        InputError: the file or its examples are missing or cannot be used.
    """
    path = Path(teacher.prompt)
    if path.suffix != ".jinja":
        path = PROMPTS / f"{teacher.prompt}.jinja"
    if not path.is_file():
        shipped = ", ".join(sorted(file.stem for file in PROMPTS.glob("*.jinja")))
        raise InputError(
            f"teacher.prompt={teacher.prompt}: no such prompt; there are {shipped}, or a .jinja file of yours"
        )
    source = read_text(path)
    examples: tuple[dict[str, str], ...] = ()
    if "examples" in source:
        file = Path(teacher.examples) if teacher.examples else PROMPTS / f"examples_{kind}.jsonl"
        if not file.is_file():
            raise InputError(f"teacher.examples={file}: no such file")
        rows = JsonLines(file)
        names = ("question", "rationale", "answer")
        typed = ({name: text_of(row, name, f"{file}:{i}") for name in names} for i, row in enumerate(rows, start=1))
        examples = tuple(typed)[: teacher.num_examples]
    prompt = Prompt(teacher.prompt, source, examples)
    _ = prompt._template  # compile it now, so that a broken file stops before anything is asked
    return prompt
