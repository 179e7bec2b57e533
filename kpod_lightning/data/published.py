"""The answer extractors of MCC-KD and of Fu et al. as published, flaws included."""

import re

_SIMPLE = re.compile(r"-?\d+(?:,\d{3})?(?:\.\d+)?")

_TO_TWELVE = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]


def mcc_kd(text: str) -> str | None:
    """MCC-KD's current evaluator: per line the last number after each "therefore" or "so", the last line wins."""
    result = None
    for line in text.strip().split("\n"):
        for i, word in enumerate(_TO_TWELVE, start=1):
            line = re.sub(rf"\b{word}\b", str(i), line, flags=re.IGNORECASE)
        numbers: list[str] = []
        for cue in ("[Tt]herefore", r"\b[Ss]o\b"):
            for piece in re.split(cue, line)[1:]:
                numbers += _SIMPLE.findall(piece)
        numbers = numbers or _SIMPLE.findall(line)
        if numbers:
            result = numbers[-1].replace(",", "").removesuffix(".0")
    return result


def mcc_kd_2023(text: str) -> str | None:
    """MCC-KD's evaluator of 2023: the last number of the last line."""
    numbers = _SIMPLE.findall(text.strip().split("\n")[-1])
    return numbers[-1] if numbers else None


def fu(text: str) -> str | None:
    """The last number without sign or separators, of Fu et al."""
    numbers = re.findall(r"\d+(?:\.\d+)?", text)
    return numbers[-1] if numbers else None


def mcc_kd_choice(text: str) -> str | None:
    """MCC-KD's current evaluator of choices: the last letter A to N that stands alone."""
    letters = re.findall(r"\b[A-N]\b", text)
    return letters[-1] if letters else None


def mcc_kd_2023_choice(text: str) -> str | None:
    """MCC-KD's evaluator of choices of 2023: the last capital A to G of the last line, within a word too."""
    letters = re.findall(r"[A-G]", text.strip().split("\n")[-1])
    return letters[-1] if letters else None
