"""KPOD: keypoint-based progressive chain-of-thought distillation (Feng et al., ICML 2024, arXiv 2405.16064)."""

from importlib import import_module
from typing import Any

_PUBLIC = {
    "split_steps": "data.steps",
    "extract_answer": "data.answers",
    "answers_equal": "data.answers",
    "weighted_token_nll": "students.nll",
    "step_difficulties": "curricula.difficulties",
    "difficulty_budget": "curricula.schedule",
    "select_questions": "curricula.knapsack",
    "build_schedule": "curricula.schedule",
    "load_run": "runs.folder",
    "RationaleDataModule": "methods.datamodule",
    "DistillationModule": "methods.module",
    "KPODModule": "methods.module",
    "DataConfig": "config",
    "RationalesConfig": "config",
    "StudentConfig": "config",
    "OptimConfig": "config",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    """Public functions and classes, imported when asked for: ``kpod --help`` must not wait for torch."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
