"""A study as one archive that somebody else can check and repeat."""

import os
import shlex
import zipfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from kpod_lightning.evaluation.pages import render
from kpod_lightning.runs.folder import has_ended
from kpod_lightning.runs.study import NAMED, Study, study_file
from kpod_lightning.store.files import writing

STUDENT = "student"
"""The one artefact of a run that is large and that its records do not need; ``kpod pack --students`` packs it, too."""

NEVER = ("checkpoints", "wandb")

EXPERIMENTS = "experiments"

FIRST_DAY = (1980, 1, 1, 0, 0, 0)
"""Every file's time in the archive, so that the same study gives the same bytes."""


def packed(study: Study, file: Path, settings: list[str], tables: Path, *, students: bool) -> dict[str, Path | str]:
    """What belongs to a study: its files, its finished runs, its tables, and how to repeat them.

    Args:
        file: of the study, as on the command line.
        settings: words of the command line, which belong to every arm.
        tables: folder with the records and the table in its forms.
        students: with the distilled students.

    Returns:
        name in the archive -> file, or the text itself.
    """
    ended = [run.folder for run in study.runs if has_ended(run.folder)]
    place, experiments = sources(study, study_file(file))
    files: dict[str, Path | str] = {**experiments}
    for folder in ended:
        files |= {f"runs/{folder.name}/{name}": folder / name for name in files_of(folder, students=students)}
    files |= {f"table/{path.name}": path for path in sorted(tables.iterdir())}
    if (study.folder / NAMED).exists():
        files[f"runs/{NAMED}"] = study.folder / NAMED
    words = shlex.join(settings)
    files["requirements.txt"] = "".join(f"{line}\n" for line in installed())
    files["README.md"] = render(
        "pack.md.j2",
        study=study,
        place=place,
        words=f" {words}" if words else "",
        packed="" if students else " --packed",
        ended=len(ended),
        planned=len(study.runs),
    )
    return files


def sources(study: Study, file: Path) -> tuple[str, dict[str, Path | str]]:
    """Name of the study file in the archive, and the files that it takes: name -> path.

    They lie to each other as they did, because a study names its experiments relative to itself.
    """
    paths = sorted({arm.experiment.absolute() for arm in study.arms} | {file.absolute()})
    paths = [Path(os.path.normpath(path)) for path in paths]
    root = os.path.commonpath([path.parent for path in paths])
    names = {path: f"{EXPERIMENTS}/{path.relative_to(root).as_posix()}" for path in paths}
    return names[Path(os.path.normpath(file.absolute()))], {name: path for path, name in names.items()}


def files_of(folder: Path, *, students: bool) -> Iterator[str]:
    """Names of the files of a run that are packed, relative to its folder."""
    left = NEVER if students else (*NEVER, STUDENT)
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and parts[0] not in left and not parts[0].startswith("."):
            yield "/".join(parts)


def installed() -> Iterator[str]:
    """``name==version`` of the package and of what it needs without extras, as it is installed here."""
    needed = [Requirement(line) for line in requires("kpod_lightning") or ()]
    asked = [each.name for each in needed if each.marker is None or each.marker.evaluate({"extra": ""})]
    for name in ("kpod_lightning", *asked):
        try:
            yield f"{name}=={version(name).partition('+')[0]}"
        except PackageNotFoundError:
            continue


def write_archive(path: Path, name: str, files: dict[str, Path | str]) -> None:
    """A zip file with everything in the folder ``name``; the same content gives the same bytes.

    Raises:
        InputError: it cannot be written.
    """
    with writing(path) as aside, zipfile.ZipFile(aside, "w", zipfile.ZIP_DEFLATED) as archive:
        for inside, source in sorted(files.items()):
            info = zipfile.ZipInfo(f"{name}/{inside}", FIRST_DAY)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, source if isinstance(source, str) else source.read_bytes())
