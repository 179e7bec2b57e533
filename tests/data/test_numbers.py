"""Numbers are found and written alike by the fast ways and by the slow ones that they stand for."""

import random
import re

import pytest

from kpod_lightning.data import numbers

PIECES = [
    *(
        "1",
        "12",
        "007",
        "3.50",
        ".5",
        "1,450",
        "10,00,000",
        "1'450",
        "1_000",
        "4:15",
        "3/4",
        "1 1/2",
        "2e3",
        "10^6",
        "2^3",
    ),
    *("-", "- ", "$", "€ ", "₹-", "minus ", "Negative ", "k", "m", " million", "万", " and a half", " hundred"),
    *(
        "a hundred",
        "A thousand",
        "half a million",
        "two",
        "Twenty-five",
        "one third",
        "three-quarters of",
        "zero",
        "lakh",
    ),
    *(
        " ",
        ".",
        ", ",
        "=",
        "(",
        ")",
        "√",
        "x",
        "é",
        "_",
        "\n",
        "apples",
        "someone",
        "often",
        "anyone",
        "ten5",
        "٣",
        "²",
    ),
]


def test_numbers_are_found_at_every_place_where_a_search_of_all_places_finds_them():
    everywhere = re.compile(numbers._NUMBER.pattern.removeprefix(numbers._BEGINS), numbers._NUMBER.flags)
    assert everywhere.pattern != numbers._NUMBER.pattern
    rng, found = random.Random(0), 0
    for _ in range(3000):
        text = "".join(rng.choices(PIECES, k=rng.randrange(1, 9)))
        slow = [(match.span(), match.groupdict()) for match in everywhere.finditer(text)]
        assert [(match.span(), match.groupdict()) for match in numbers._NUMBER.finditer(text)] == slow
        found += len(slow)
    assert found > 3000


@pytest.mark.parametrize(
    ("digits", "value"), [("0", "0"), ("000", "0"), ("007", "7"), ("120", "120"), ("1,200", "1200"), ("0.50", "0.5")]
)
def test_digits_without_a_point_are_written_as_those_with_one(digits, value):
    assert numbers._plain(digits) == value == numbers._plain(f"{digits}{'' if '.' in digits else '.'}0")
    assert numbers._shifted(value, 0) == value == numbers._shifted(numbers._shifted(value, 2), -2)
