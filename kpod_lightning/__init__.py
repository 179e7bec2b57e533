"""KPOD: keypoint-based progressive chain-of-thought distillation (Feng et al., ICML 2024, arXiv 2405.16064)."""

from importlib import import_module
from typing import Any

_PUBLIC = {
    "split_steps": "rationales",
    "extract_answer": "answers",
    "answers_equal": "answers",
    "weighted_token_nll": "distill",
    "step_difficulties": "difficulties",
    "difficulty_budget": "schedule",
    "select_questions": "selection",
    "build_schedule": "schedule",
    "load_run": "run",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    """Public functions, imported when asked for: ``kpod --help`` must not wait for torch."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
