"""Prices of a teacher's tokens, and the most that a request can cost."""

from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import Any

from kpod_lightning.config import TeacherConfig
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.files import ASSETS
from kpod_lightning.store.reading import read_yaml
from kpod_lightning.teachers.prompts import Message

TABLE = ASSETS / "prices.yaml"
MILLION = Decimal(1_000_000)
TOKENS_A_MESSAGE = 64
"""Upper bound for the tokens that a chat template puts round a message, and for those round the whole prompt."""


@cache
def table() -> dict[str, Any]:
    """The shipped price table with its source."""
    return dict(read_yaml(TABLE))


def is_providers_own(base_url: str | None) -> bool:
    """Whether a URL is that of the endpoint whose prices and terms the table has; None is."""
    return base_url is None or base_url.rstrip("/").lower() == str(table()["endpoint"]).lower()


@dataclass(frozen=True, kw_only=True)
class Prices:
    """US dollars a million tokens, and the source of these prices."""

    input: Decimal = Decimal(0)
    cached_input: Decimal = Decimal(0)
    output: Decimal = Decimal(0)
    source: str = "runs on your own machines"

    def cost(self, prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0) -> Decimal:
        """Cost in US dollars. ``cached_tokens`` are part of ``prompt_tokens``."""
        fresh = prompt_tokens - cached_tokens
        return (self.input * fresh + self.cached_input * cached_tokens + self.output * completion_tokens) / MILLION

    def at_most(self, messages: tuple[Message, ...], max_tokens: int) -> Decimal:
        """The most that a request can cost: a text has no more tokens than bytes, a reply at most ``max_tokens``."""
        prompt = sum(len(text.encode("utf-8")) + TOKENS_A_MESSAGE for _, text in messages) + TOKENS_A_MESSAGE
        return self.cost(prompt, max_tokens, prompt if self.cached_input > self.input else 0)


def prices_of(teacher: TeacherConfig) -> Prices:
    """The prices that are set, or those of the table; zero if the model runs on your machines or nothing is asked.

    Raises:
        InputError: no price is known, and the teacher may cost money or has a budget.
    """
    kind, _, model = (teacher.name or "").partition(":")
    if teacher.prices:
        own = {name: Decimal(str(price)) for name, price in teacher.prices.items()}
        return Prices(**({"cached_input": own["input"]} | own), source="teacher.prices")
    if kind in ("local", "vllm", "recorded"):
        return Prices()
    if kind not in ("openai", "batch"):
        raise InputError(
            f"no price is known for {teacher.name}, a teacher of an installed package: set teacher.prices.input=... "
            "teacher.prices.output=..., in US dollars a million tokens (0 where it costs nothing)"
        )
    if not is_providers_own(teacher.base_url):
        if teacher.budget is not None:
            raise InputError(
                f"teacher.budget={teacher.budget:g} cannot be kept without prices, and the table's are those of "
                f"{table()['endpoint']}; set teacher.prices.input=... teacher.prices.output=... (US dollars a million "
                "tokens), or drop the budget"
            )
        return Prices(source="teacher.base_url without teacher.prices: taken for free")
    found = table()["models"].get(model)
    if found is None:
        raise InputError(
            f"no price is known for {model} (there are {', '.join(table()['models'])}): set teacher.prices.input=... "
            "teacher.prices.output=..., in US dollars a million tokens"
        )
    share = Decimal(str(table()["batch"])) if kind == "batch" else Decimal(1)
    rates = {
        name: share * Decimal(str(found.get(name, found["input"]))) for name in ("input", "cached_input", "output")
    }
    return Prices(**rates, source=f"{table()['source']}, seen {found['seen']}")


def check_budget(teacher: TeacherConfig, prices: Prices) -> None:
    """Refuse a teacher that costs money and has no budget.

    Raises:
        InputError: it has prices above 0, and no budget is set.
    """
    if teacher.budget is None and (prices.input or prices.output):
        raise InputError(
            f"{teacher.name} costs money: budget=5.00 sets the US dollars that are never exceeded; --dry-run says what "
            "all would cost"
        )
