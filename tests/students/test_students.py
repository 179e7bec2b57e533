import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from kpod_lightning.data.examples import make_example
from kpod_lightning.data.problems import Problem
from kpod_lightning.data.rationales import Rationale
from kpod_lightning.data.steps import split_steps
from kpod_lightning.store.errors import InputError
from kpod_lightning.students.student import PRESETS, Student, contents, load_student, resolve

TEXT = "Add 2 and 3\n\nThat is 5.\nDouble it: 10"


@pytest.fixture(scope="module")
def without_newlines() -> Student:
    """A student whose tokenizer drops newlines, as the old T5 vocabulary does."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Replace("\n", " ")
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(special_tokens=["<pad>", "</s>"], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([TEXT], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>")
    return Student(name="old", model=torch.nn.Linear(1, 1), tokenizer=fast, encoder_decoder=True)


def test_a_newline_becomes_what_the_old_vocabulary_can_say_and_every_character_keeps_its_place(without_newlines):
    said = without_newlines.normalise(TEXT)
    assert said == "Add 2 and 3. That is 5. Double it: 10"
    assert len(said) == len(TEXT)


def test_steps_stay_where_the_teacher_set_them_when_newlines_cannot_be_said(without_newlines):
    problem = Problem(id="p", question="2 and 3,\ntwice?", answer="10", kind="number", split="train")
    rationale = Rationale(problem=problem, text=TEXT, steps=tuple(split_steps(TEXT)))
    tokenizer = without_newlines.tokenizer
    example = make_example(rationale, tokenizer, encoder_decoder=True, normalise=without_newlines.normalise)
    by_step = [
        tokenizer.decode([t for t, step in zip(example.target_ids, example.step_of, strict=True) if step == k]).strip()
        for k in range(example.num_steps)
    ]
    assert by_step == ["Add 2 and 3.", "That is 5.", "Double it: 10"]


def test_shipped_students_say_every_character(student):
    assert student.normalise is None


def test_a_tokenizer_without_offsets_is_refused(rationales):
    class Slow:
        name_or_path = "slow"
        is_fast = False

    with pytest.raises(InputError, match="slow gives no character offsets"):
        make_example(rationales[0], Slow(), encoder_decoder=False)


def test_the_real_small_student_names_the_command_that_fetches_it(tmp_path, monkeypatch):
    monkeypatch.setenv("KPOD_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="make student-smollm2"):
        resolve("smollm2-135m-q4")
    folder = tmp_path / "students" / "smollm2-135m-q4"
    folder.mkdir(parents=True)
    assert resolve("smollm2-135m-q4") == str(folder)


def test_presets_are_hub_ids_and_every_other_name_stands_for_itself():
    assert all(name.count("/") == 1 for name in PRESETS.values())
    assert resolve("llama-7b") == PRESETS["llama-7b"]
    assert resolve("some/model") == "some/model"


def test_contents_tell_two_students_apart_and_copies_not(tmp_path):
    student = load_student("tiny-llama")
    for name in ("one", "two"):
        student.model.save_pretrained(tmp_path / name)
    assert contents(str(tmp_path / "one")) == contents(str(tmp_path / "two")) != []
    next(student.model.parameters()).data[0, 0] += 1
    student.model.save_pretrained(tmp_path / "two")
    assert contents(str(tmp_path / "one")) != contents(str(tmp_path / "two"))
