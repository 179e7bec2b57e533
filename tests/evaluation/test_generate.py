import json
import shutil

import numpy as np
import pytest
from transformers import GenerationConfig

from kpod_lightning.data.arithmetic import generate as make_problems
from kpod_lightning.evaluation.generate import decoding, generate
from kpod_lightning.methods.context import cut_in_evaluation
from kpod_lightning.store.files import ASSETS
from kpod_lightning.students.student import add_lora, load_student

PROBLEMS = [made.problem for made in make_problems("test", 4, seed=3)]

ODD = {
    "repetition_penalty": {"repetition_penalty": 1.5},
    "suppressed": {"suppress_tokens": list(range(20, 60)), "begin_suppress_tokens": list(range(60, 300))},
    "beams": {"num_beams": 3, "num_return_sequences": 2, "length_penalty": 3.0, "early_stopping": True},
    "sampling": {"do_sample": True, "temperature": 3.0, "top_p": 0.5, "top_k": 3, "min_p": 0.1, "typical_p": 0.4},
    "lengths": {"max_length": 5, "min_new_tokens": 30, "max_new_tokens": 3, "max_time": 0.0001},
    "forced": {"forced_bos_token_id": 30, "forced_eos_token_id": 31},
    "repeats": {"no_repeat_ngram_size": 2, "bad_words_ids": [[30], [31, 32]], "encoder_no_repeat_ngram_size": 2},
    "bias": {"sequence_bias": [[[33], 50.0]], "guidance_scale": 2.0, "exponential_decay_length_penalty": [2, 3.0]},
    "dictionary": {"return_dict_in_generate": True, "output_scores": True},
}
ODD["all"] = {name: value for odd in ODD.values() for name, value in odd.items() if "forced" not in name}


def with_generation_config(name, folder, settings):
    """A student whose ``generation_config.json`` has further settings."""
    shutil.copytree(ASSETS / name, folder)
    path = folder / "generation_config.json"
    path.chmod(0o644)
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return load_student(str(folder))


@pytest.mark.parametrize("odd", ODD)
def test_greedy_outputs_are_those_of_a_student_without_settings_of_its_own(student, odd, tmp_path):
    other = with_generation_config(student.name, tmp_path / "odd", ODD[odd])
    assert generate(PROBLEMS, other, max_new_tokens=16) == generate(PROBLEMS, student, max_new_tokens=16)


def test_the_students_own_settings_count_where_they_are_asked_for(student, tmp_path):
    other = with_generation_config(student.name, tmp_path / "odd", ODD["repetition_penalty"] | {"do_sample": True})
    own = generate(PROBLEMS, other, max_new_tokens=16, own_decoding=True)
    assert own == generate(PROBLEMS, other, max_new_tokens=16, own_decoding=True)
    assert own != generate(PROBLEMS, student, max_new_tokens=16)


def test_adapters_do_not_bring_the_students_own_settings_back(student, tmp_path):
    other = with_generation_config(student.name, tmp_path / "odd", ODD["repetition_penalty"])
    adapted = add_lora(other, 2, None, 0)  # the second matrix is 0 at first: the same outputs
    own = adapted.model.generation_config
    assert generate(PROBLEMS, adapted, max_new_tokens=16) == generate(PROBLEMS, student, max_new_tokens=16)
    assert adapted.model.generation_config is own


def test_every_end_that_the_student_names_ends_an_output(student, tmp_path):
    (whole,) = generate(PROBLEMS[:1], student, max_new_tokens=24).values()
    ids = student.tokenizer(whole[0].text, add_special_tokens=False).input_ids
    end = ids[5]
    other = with_generation_config(
        student.name, tmp_path / "s", {"eos_token_id": [student.tokenizer.eos_token_id, end]}
    )
    (cut,) = generate(PROBLEMS[:1], other, max_new_tokens=24).values()
    assert cut[0].num_tokens == ids.index(end) + 1 and not cut[0].at_limit
    assert whole[0].text.startswith(cut[0].text)
    assert end not in other.tokenizer(cut[0].text, add_special_tokens=False).input_ids


def test_the_students_settings_are_as_before_when_the_outputs_are_there(student):
    before, own = student.model.generation_config.to_dict(), student.model.generation_config
    generate(PROBLEMS[:1], student, max_new_tokens=2)
    assert student.model.generation_config is own and own.to_dict() == before


def test_an_encoder_decoder_starts_with_its_own_token(student):
    config = decoding(student, 8)
    assert config.decoder_start_token_id == (0 if student.encoder_decoder else None)
    assert config.eos_token_id == [student.tokenizer.eos_token_id] and config.pad_token_id == student.pad_token_id
    assert isinstance(config, GenerationConfig) and config.max_new_tokens == 8


def test_targets_that_evaluation_would_cut_off_are_told_with_the_setting_that_fits():
    lengths = np.array([10, 16, 17, 40])
    line = cut_in_evaluation(lengths, 16)
    assert line.startswith("50.0% of the targets") and "the longest has 40 tokens" in line
    assert line.endswith("evaluation.max_new_tokens=50")
    assert cut_in_evaluation(lengths, 40) is None
