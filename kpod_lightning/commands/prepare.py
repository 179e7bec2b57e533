"""`kpod prepare`: fetch what an experiment needs from a network, where there is one; compute nodes often have none."""

import argparse
from collections.abc import Iterator
from pathlib import Path

from kpod_lightning.commands.arguments import Verbs, add_experiment, add_run, add_settings
from kpod_lightning.config import RunConfig
from kpod_lightning.distributed.environment import check_surroundings
from kpod_lightning.store.errors import InputError

FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
"""Files of a model that are fetched: configuration, parameters, tokenizer. Those for other frameworks are not."""


def add(verbs: Verbs) -> None:
    command = verbs.add_parser("prepare", help="fetch problems and models, where there is a network")
    add_experiment(command)
    add_run(command, "make the rationales and the tokenised train set of this run, too")
    add_settings(command, "student.name=flan-t5-large")
    command.set_defaults(main=main)


def main(arguments: argparse.Namespace) -> int:
    from kpod_lightning.methods.base import load_experiment

    config = load_experiment(arguments.experiment, arguments.settings)
    for line in prepare(config):
        print(line)
    if arguments.run is not None:
        from kpod_lightning.runs.run import run_pipeline

        check_surroundings(config.launch, config.logging)
        run_pipeline(config, arguments.run, until="tokens")
    print("HF_HUB_OFFLINE=1 finds all of it on machines without a network, in the same HF_HOME")
    return 0


def fetch_model(setting: str, name: str) -> str:
    """Fetch a model unless it is there, and say which revision it is.

    Raises:
        InputError: it cannot be had.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    from kpod_lightning.students.student import load_config, pretrained

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
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
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
    from kpod_lightning.data.benchmarks import load_problems
    from kpod_lightning.data.own import understood
    from kpod_lightning.methods.base import method_of

    splits = load_problems(config)
    sizes = ", ".join(f"{len(problems)} {name}" for name, problems in splits.items())
    yield from understood(splits, config.data) or [f"data.dataset={config.data.dataset}: {sizes}"]
    for setting, name in {"student.name": config.student.name, **method_of(config).models()}.items():
        yield fetch_model(setting, name)
