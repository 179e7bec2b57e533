"""What an experiment needs from a network, fetched once where there is one: compute nodes have often none."""

from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

from kpod_lightning.config import RunConfig
from kpod_lightning.data.benchmarks import load_problems
from kpod_lightning.store.errors import InputError
from kpod_lightning.students.student import load_config, pretrained

FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
"""Of a model: configuration, parameters, tokenizer. What the same repository has for other frameworks stays there."""


def fetch_model(setting: str, name: str) -> str:
    """Fetch a model unless it is there, and say which revision it is.

    Raises:
        InputError: it cannot be had.
    """
    source, revision = pretrained(name)
    if not Path(source).exists():
        try:
            folder = snapshot_download(source, revision=revision, allow_patterns=FILES)
        except GatedRepoError as error:
            raise InputError(
                f"{setting}={name}: {source} asks you to accept its terms at https://huggingface.co/{source}, "
                "then `hf auth login` (or HF_TOKEN) on this machine"
            ) from error
        except RepositoryNotFoundError as error:
            raise InputError(f"{setting}={name}: the hub has no model {source}, or hides it from you") from error
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"{setting}={name}: {source} cannot be fetched ({reason})") from error
        pin = f"; to pin it: {setting}={name.partition('@')[0]}@{Path(folder).name}"
        return f"{setting}={name}: {source} at revision {Path(folder).name}{pin}"
    if setting == "student.name":
        load_config(name)
    return f"{setting}={name}: {source}"


def prepare(config: RunConfig) -> Iterator[str]:
    """Fetch problems and models of an experiment; yields a line for each that is there now.

    Raises:
        InputError: something cannot be had.
    """
    splits = load_problems(config)
    sizes = ", ".join(f"{len(problems)} {name}" for name, problems in splits.items())
    yield f"data.dataset={config.data.dataset}: {sizes}"
    models = {"student.name": config.student.name}
    if config.method == "kpod":
        if config.weights.answer_model is not None:
            models["weights.answer_model"] = config.weights.answer_model
        if config.schedule.vectors not in ("student", "tfidf", "glove"):
            models["schedule.vectors"] = config.schedule.vectors
    for setting, name in models.items():
        yield fetch_model(setting, name)
