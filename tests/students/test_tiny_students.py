"""The shipped students: small files, lossless tokenizers with offsets, plain transformers."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from kpod_lightning.store.files import ASSETS
from kpod_lightning.students.tiny import STUDENTS, Pretraining, Round, pretrain
from kpod_lightning.students.tiny_card import benchmark_accuracy, complete, nats_by_kind, sums_accuracy
from kpod_lightning.students.tiny_texts import pretraining_text

TEXTS = (
    "12 + 7 = 19",
    "one\ntwo\r\n\n\tthree ",
    "  two blanks , don't . n't",
    "an emoji 😀 with é, ß and 数学",
    "$2.50 at 9.30 a.m., No. 4",
    "",
)


@pytest.fixture(scope="module", params=STUDENTS)
def folder(request):
    return ASSETS / request.param


@pytest.fixture(scope="module")
def tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


def load_model(folder):
    encoder_decoder = AutoConfig.from_pretrained(folder).is_encoder_decoder
    return (AutoModelForSeq2SeqLM if encoder_decoder else AutoModelForCausalLM).from_pretrained(folder)


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_comes_back(tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


def test_a_digit_is_a_token(tokenizer):
    tokens = tokenizer.tokenize("1234 99 2.50")
    assert [token for token in tokens if any(map(str.isdigit, token))] == list("123499250")


def test_offsets_tile_the_text(tokenizer):
    text = "Mia has 12 apples.\nShe buys 7."
    encoded = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
    assert "".join(text[start:end] for start, end in encoded.offset_mapping) == text


def test_only_t5_appends_eos(folder, tokenizer):
    appended = tokenizer("a").input_ids[-1] == tokenizer.eos_token_id
    assert appended == (folder.name == "tiny-t5")
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)


def test_files_are_small(folder):
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 6e6
    assert (folder / "README.md").is_file()


def test_loads_in_plain_transformers(folder, tokenizer):
    model = load_model(folder)
    assert next(model.parameters()).dtype == torch.float32
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id


def test_tiny_llama_does_sums():
    tokenizer = AutoTokenizer.from_pretrained(ASSETS / "tiny-llama")
    model = load_model(ASSETS / "tiny-llama")
    assert sums_accuracy(model, tokenizer, 100) >= 0.8
    assert sums_accuracy(model, tokenizer, 100, in_words=True) >= 0.9


def test_it_writes_rationales_and_does_not_solve(folder, tokenizer):
    model = load_model(folder)
    nats = nats_by_kind(model, tokenizer, 40)
    assert nats["filler"] <= 0.5 and nats["result"] <= 0.5
    assert benchmark_accuracy(model, tokenizer, 60) <= 0.05


def test_a_generation_ends(folder, tokenizer):
    prompt, target = next(pair for pair in map(pretraining_text, range(10**6, 10**6 + 50)) if pair[0][0] == "Q")
    text = complete(load_model(folder), tokenizer, [prompt], 150)[0]
    assert "Therefore, the answer is" in text
    assert len(text) < 3 * len(target)


@pytest.mark.parametrize("which", STUDENTS)
def test_pretraining_is_seeded(which):
    settings = Pretraining(
        rounds=(Round(num_updates=2, learning_rate=1e-3), Round(num_updates=1, learning_rate=1e-3, name="more")),
        batch_size=1,
        num_vocabulary_texts=20,
    )
    first, second = (pretrain(which, settings)[0].state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
