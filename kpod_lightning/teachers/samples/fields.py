"""Typed fields of the files beside and with samples: a damaged one is a line with its place, never a wrong sum."""

import math
import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from kpod_lightning.store.errors import InputError
from kpod_lightning.store.records import optional_text, text_of, whole_number

_ATTEMPT = re.compile(r"[0-9a-fA-F]{1,16}")

TOKENS = ("prompt_tokens", "completion_tokens")


def dollars_of(row: Mapping[str, Any], name: str, place: str) -> Decimal:
    """US dollars, from 0, as a number or its text.

    Raises:
        InputError: the field is missing or no such amount.
    """
    value = row.get(name)
    try:
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise InvalidOperation
        found = Decimal(str(value))
        if not found.is_finite() or found < 0:
            raise InvalidOperation
    except InvalidOperation:
        raise InputError(f"{place}: {name} is an amount of US dollars from 0, not {str(value)[:60]}") from None
    return found


def attempt_of(name: Any, place: str) -> int:
    """The number that names an attempt, 64 bits, of its hex digits.

    Raises:
        InputError: it is no such name.
    """
    if not isinstance(name, str) or not _ATTEMPT.fullmatch(name):
        raise InputError(f"{place}: an attempt has a name of 16 hex digits, not {str(name)[:60]}")
    return int(name, 16)


def check_counted(row: Mapping[str, Any], place: str) -> None:
    """Check the fields that an order counts by: key, correct, cost, attempts.

    Raises:
        InputError: one is missing or damaged.
    """
    try:
        if not isinstance(row.get("correct"), bool):
            raise InputError(f"{place}: correct is true or false")
        dollars_of(row, "cost", place)
        text_of(row, "key", place)
        if not isinstance(row.get("attempts"), list):
            raise InputError(f"{place}: attempts is a list of names")
        for attempt in row["attempts"]:
            attempt_of(attempt, place)
    except InputError as error:
        why = str(error).removeprefix(f"{place}: ")
        raise InputError(f"{place}: no row of a file of samples ({why}); take another --out") from error


def check_judged(row: Mapping[str, Any], place: str) -> None:
    """Check the fields that samples are judged and counted by, beside those that must only be there.

    Raises:
        InputError: one is damaged.
    """
    for name in ("problem_id", "key", "finish_reason"):
        text_of(row, name, place)
    if not isinstance(row["rationale"], str):
        raise InputError(f"{place}: no field rationale: no row of a file of samples")
    for name in ("teacher", "prompt", "model", "licence", "answer_call"):
        optional_text(row, name, place)
    whole_number(row, "sample", place)
    dollars_of(row, "cost", place)
    latency = row["latency"]
    if isinstance(latency, bool) or not isinstance(latency, (int, float)) or not 0 <= latency < math.inf:
        raise InputError(f"{place}: latency is a number of seconds from 0, not {str(latency)[:60]}")
    if not isinstance(row["usage"], Mapping):
        raise InputError(f"{place}: usage is an object with {' and '.join(TOKENS)}, not {str(row['usage'])[:60]}")
    for name in TOKENS:
        whole_number(row["usage"], name, place)
    if not isinstance(row["attempts"], list):
        raise InputError(f"{place}: attempts is a list of names, not {str(row['attempts'])[:60]}")
