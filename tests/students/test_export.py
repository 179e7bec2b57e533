"""A checkpoint becomes the folder that plain transformers opens."""

import copy
import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from kpod_lightning.commands.export import export_run
from kpod_lightning.config import StudentConfig
from kpod_lightning.store.errors import InputError
from kpod_lightning.students.export import export_student
from kpod_lightning.students.student import add_lora, load_student


def checkpoint_of(model, path):
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    torch.save({"state_dict": tensors, "global_step": 1}, path)
    return path


def changed(name, rank=None):
    """A student with parameters of its own, so that nothing can come from the shipped folder."""
    student = load_student(name)
    if rank is not None:
        student = add_lora(student, rank, 2 * rank, seed=0)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in student.model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return student


@pytest.mark.parametrize("least", [1, 2**30], ids=["a file a block", "one file"])
@pytest.mark.parametrize("name", ["tiny-llama", "tiny-t5"])
def test_an_exported_student_computes_what_the_checkpoint_did(tmp_path, name, least):
    student = changed(name)
    export_student(
        checkpoint_of(student.model, tmp_path / "last.ckpt"), StudentConfig(name=name), tmp_path / "s", least=least
    )
    family = AutoModelForSeq2SeqLM if student.encoder_decoder else AutoModelForCausalLM
    opened, report = family.from_pretrained(tmp_path / "s", output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    wanted, exported = student.model.state_dict(), opened.state_dict()
    assert wanted.keys() == exported.keys()
    assert all(torch.equal(wanted[key], exported[key]) for key in wanted)
    files = sorted(path.name for path in (tmp_path / "s").glob("*.safetensors*"))
    assert files == ["model.safetensors"] if least > 1 else len(files) > 4


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-t5"])
def test_adapters_are_merged_as_peft_does(tmp_path, name):
    student = changed(name, rank=4)
    checkpoint = checkpoint_of(student.model, tmp_path / "last.ckpt")
    export_student(checkpoint, StudentConfig(name=name, lora_rank=4, lora_alpha=8), tmp_path / "s")
    merged = copy.deepcopy(student.model).merge_and_unload().state_dict()
    exported = load_student(str(tmp_path / "s")).model.state_dict()
    assert merged.keys() == exported.keys()
    for key, value in merged.items():
        torch.testing.assert_close(exported[key], value, rtol=0, atol=1e-6)


def test_a_checkpoint_of_another_student_is_refused(tmp_path):
    checkpoint = checkpoint_of(load_student("tiny-llama").model, tmp_path / "last.ckpt")
    with pytest.raises(InputError, match="another student than tiny-t5"):
        export_student(checkpoint, StudentConfig(name="tiny-t5"), tmp_path / "s")


def test_a_run_without_a_checkpoint_is_refused_and_nothing_is_left(tmp_path):
    with pytest.raises(InputError, match="no run folder"):
        export_run(tmp_path)
    (tmp_path / "config.yaml").write_text(
        json.dumps({"seed": 0, "data": {}, "student": {}, "optim": {}, "evaluation": {}})
    )
    with pytest.raises(InputError, match="no checkpoint"):
        export_run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]
