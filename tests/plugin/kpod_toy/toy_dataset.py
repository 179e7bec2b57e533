"""A data set of legs of cows and hens, with a test split of larger numbers."""

from kpod_lightning.config import DataConfig
from kpod_lightning.data.problems import Problem


def problem(split: str, cows: int, hens: int) -> Problem:
    legs = 4 * cows + 2 * hens
    return Problem(
        id=f"legs-{split}-{cows}-{hens}",
        question=f"A farm has {cows} cows and {hens} hens. How many legs do they have?",
        answer=str(legs),
        kind="number",
        split=split,
        rationale=f"The cows have {4 * cows} legs. The hens have {2 * hens} legs. Together they have {legs} legs.",
    )


def read(data: DataConfig) -> dict[str, list[Problem]]:
    """All problems, the same every time; the caller takes as many as ``data.num_*`` asks for."""
    numbers = {"train": (2, 8), "validation": (8, 10), "test": (10, 12), "large": (20, 22)}
    return {
        split: [problem(split, cows, hens) for cows in range(*ends) for hens in range(*ends)]
        for split, ends in numbers.items()
    }
