"""Many texts that are tokenised at once become what each of them becomes by itself, in a slow and obvious way."""

import random
from dataclasses import replace

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from kpod_lightning.data import examples
from kpod_lightning.data.example_table import ExampleTable, save_examples
from kpod_lightning.data.examples import FLAT, Example, leading_specials, make_example, make_examples
from kpod_lightning.data.problems import Problem
from kpod_lightning.data.rationales import Rationale
from kpod_lightning.data.steps import split_steps
from kpod_lightning.data.texts import Text, text_of
from kpod_lightning.data.tokens import spanned_ids, text_ids
from kpod_lightning.methods import context as contexts
from kpod_lightning.methods.context import blocks_of_texts, tokenise
from kpod_lightning.store.errors import InputError
from kpod_lightning.students.student import Student, load_student

WORDS = [
    *("He has 3.5 apples.", "So 4 + 1 = 5.", "</s>", "<|endoftext|>", "<pad>", "<unk>", "<extra_id_0>", "one\ntwo"),
    *(
        "\n\n",
        "\t",
        " ",
        "\u3000",
        "\u00a0 ",
        "🚂",
        "👩‍👩‍👧",
        "e\u0301",
        "数学。",
        "ﬁne",
        "\u200b",
        "Ω≈ç√",
        "ß",
        "\x00",
        "\x85",
    ),
]


def step_by_step(rationale, student, text, normalise) -> Example:
    """One example by loops over its tokens and characters."""
    tokenizer, prompt = student.tokenizer, text.prompt
    target = f" {text.rationale} {text.answer_phrase}" if text.rationale else f" {text.answer_phrase}"
    if normalise is not None:
        prompt, target = normalise(prompt), normalise(target)
    if student.encoder_decoder:
        prompt_ids, (target_ids, spans) = text_ids(prompt, tokenizer), spanned_ids(target, tokenizer)
    else:
        ids, offsets = spanned_ids(prompt + target, tokenizer)
        cut = next(j for j, (left, _) in enumerate(offsets) if left >= len(prompt))
        prompt_ids, target_ids = ids[:cut], ids[cut:]
        spans = [(left - len(prompt), right - len(prompt)) for left, right in offsets[cut:]]
    end = 1 + len(text.rationale)
    step_ends = [min(1 + step_end, end) for _, step_end in text.steps]
    step_of, covered, step = [], [], 0
    for left, right in spans:
        first = next((i for i in range(left, right) if not target[i].isspace()), max(left, right - 1))
        while step < len(step_ends) and first >= step_ends[step]:
            step += 1
        step_of.append(step)
        covered.append((max(left, 1) - 1, min(right, end) - 1) if step < len(step_ends) else (0, 0))
    return Example(
        key=rationale.key,
        prompt_ids=(*leading_specials(tokenizer), *prompt_ids),
        target_ids=(*target_ids, tokenizer.eos_token_id),
        step_of=(*step_of, len(step_ends)),
        spans=(*covered, (0, 0)),
        num_steps=len(step_ends),
        answer_start=next(j for j, (_, right) in enumerate(spans) if right > len(target) - len(text.answer)),
    )


def strange_rationales(number: int, seed: int = 0) -> list[Rationale]:
    """Rationales of words, control tokens, blanks and letters of many scripts; some have no text."""
    rng = random.Random(seed)

    def words(most: int) -> str:
        return "".join(rng.choice(["", " ", ". "]) + rng.choice(WORDS) for _ in range(rng.randrange(most)))

    made = []
    for i in range(number):
        problem = Problem(
            id=f"Straße {i} 🚂", question=f"How many{words(4)}?", answer=str(i), kind="number", split="train"
        )
        text = words(12)
        made.append(Rationale(problem=problem, text=text, sample=i % 3, steps=tuple(split_steps(text))))
    return made


def without_newlines() -> Student:
    """As T5, whose vocabulary has no newline."""
    tokenizer = Tokenizer(models.Unigram([("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)], unk_id=2))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("\n", " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=90, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator([*WORDS, "Q: How many? A: Let's think. Therefore, the answer is 0123456789"], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    return Student(name="old", model=None, tokenizer=fast, encoder_decoder=True)


def beginning_with_a_token() -> Student:
    """As Llama, whose tokenizer puts a token before every text."""
    student = load_student("tiny-llama")
    tokenizer = type(student.tokenizer).from_pretrained(student.tokenizer.name_or_path)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{tokenizer.eos_token} $A", special_tokens=[(tokenizer.eos_token, tokenizer.eos_token_id)]
    )
    return replace(student, tokenizer=tokenizer)


def across_words() -> Student:
    """As a tokenizer that knows no words: its tokens reach over blanks, ends of steps, and the end of the rationale."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(initial_alphabet=alphabet, show_progress=False, special_tokens=["</s>"])
    texts = [f"{word} {other} Therefore, the answer is" for word in WORDS for other in WORDS[:2]]
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")
    return Student(name="words", model=None, tokenizer=fast, encoder_decoder=False)


STUDENTS = {
    "across words": across_words,
    "tiny-llama": lambda: load_student("tiny-llama"),
    "tiny-t5": lambda: load_student("tiny-t5"),
    "no newlines": without_newlines,
    "a first token": beginning_with_a_token,
}


@pytest.fixture(scope="module", params=STUDENTS)
def any_student(request) -> Student:
    return STUDENTS[request.param]()


@pytest.fixture(scope="module")
def strange() -> list[Rationale]:
    return strange_rationales(120)


def made_of(rationales, student, *, with_rationale=True):
    texts = [text_of(rationale, with_rationale=with_rationale) for rationale in rationales]
    keys = [rationale.key for rationale in rationales]
    return make_examples(
        keys, texts, student.tokenizer, encoder_decoder=student.encoder_decoder, normalise=student.normalise
    )


@pytest.mark.parametrize("with_rationale", [True, False])
def test_many_texts_at_once_become_what_each_becomes_step_by_step(any_student, strange, with_rationale):
    made = made_of(strange, any_student, with_rationale=with_rationale)
    normalise = any_student.normalise
    assert len(made) == len(strange)
    for rationale, example in zip(strange, made, strict=True):
        text = text_of(rationale, with_rationale=with_rationale)
        assert example == step_by_step(rationale, any_student, text, normalise)


def test_the_students_of_these_tests_differ_in_what_they_are_there_for(strange):
    old, first = without_newlines(), beginning_with_a_token()
    assert old.normalise is not None
    assert leading_specials(first.tokenizer) == [first.tokenizer.eos_token_id]
    assert not leading_specials(load_student("tiny-llama").tokenizer)
    assert any(not rationale.text.strip() for rationale in strange)
    assert any("</s>" in rationale.text for rationale in strange)


def test_one_rationale_is_made_as_many_are(any_student, strange):
    made = made_of(strange[:9], any_student)
    alone = [
        make_example(
            rationale,
            any_student.tokenizer,
            encoder_decoder=any_student.encoder_decoder,
            normalise=any_student.normalise,
        )
        for rationale in strange[:9]
    ]
    assert list(made) == alone


def test_a_step_never_falls_where_the_offsets_of_a_tokenizer_do():
    rationale = Text(prompt="Q", rationale="a b", steps=((0, 2), (2, 3)), answer_phrase="so 1", answer="1")
    places = np.array([[0, 2], [3, 4], [1, 2], [4, 7], [7, 9]])  # of " a b so 1"
    tokens = examples._Tokens(np.arange(5), *places.T, np.array([0, 5]))
    step_of, spans = examples._steps([rationale], [" a b so 1"], tokens)
    assert step_of.tolist() == [0, 1, 1, 2, 2]
    assert spans.tolist() == [[0, 1], [2, 3], [0, 1], [0, 0], [0, 0]]


def files_of(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class CotTexts:
    """A method with the text of chain-of-thought distillation, and the answer alone beside it."""

    drop_alone = False
    kinds = ()

    def texts(self, rationale):
        return [text_of(rationale), text_of(rationale, with_rationale=False)]


@pytest.mark.parametrize("block", [1, 700, 2**18])
def test_the_files_of_a_table_do_not_depend_on_the_blocks(student, strange, tmp_path, monkeypatch, block):
    monkeypatch.setattr(contexts, "BLOCK", block)
    expected = [
        (source, step_by_step(rationale, student, text, None))
        for source, rationale in enumerate(strange)
        for text in CotTexts().texts(rationale)
    ]
    max_length = int(np.median([len(example) for _, example in expected[::2]]))
    too_long = {source for source, example in expected if len(example) > max_length}
    assert 0 < len(too_long) < len(strange)
    flat = {name: bytearray() for name in (*FLAT, "rows")}
    ends = np.zeros(3, np.int64)
    for source, example in expected:
        if source in too_long:
            continue
        name = example.key[0].encode("utf-8")
        for column in ("prompt_ids", "target_ids", "step_of", "spans"):
            flat[column] += np.asarray(getattr(example, column), np.int32).tobytes()
        flat["ids"] += name
        ends += (len(example.prompt_ids), len(example.target_ids), len(name))
        of_row = (*ends, example.key[1], example.num_steps, example.answer_start, source, example.kind)
        flat["rows"] += np.array(of_row).tobytes()
    tokenise(strange, student, CotTexts(), max_length, tmp_path)
    assert files_of(tmp_path) == {f"{name}.bin": bytes(values) for name, values in flat.items()}
    table = ExampleTable(tmp_path)
    assert list(table) == [example for source, example in expected if source not in too_long]
    assert table.sources.tolist() == [source for source, _ in expected if source not in too_long]


def test_a_block_ends_when_it_has_characters_enough_and_reads_no_rationale_ahead(strange, monkeypatch):
    monkeypatch.setattr(contexts, "BLOCK", 500)
    read = []

    def reading():
        for rationale in strange:
            read.append(rationale)
            yield rationale

    sizes = []
    for block in blocks_of_texts(reading(), CotTexts()):
        assert block[-1][0] == len(read) - 1
        sizes.append(sum(len(text.prompt) + len(text.rationale) for _, _, text in block))
    longest = max(sum(len(t.prompt) + len(t.rationale) for t in CotTexts().texts(rationale)) for rationale in strange)
    assert all(500 <= size < 500 + longest for size in sizes[:-1])
    assert len(read) == len(strange)


def test_a_block_of_which_nothing_is_left_leaves_no_trace(student, strange, tmp_path):
    made = made_of(strange, student)
    none = made.where(np.zeros(len(made), bool))
    assert len(none) == 0
    assert save_examples([none, made, none], tmp_path / "a") == save_examples([made], tmp_path / "b") == len(made)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


def test_a_train_set_of_which_nothing_is_short_enough_is_refused(student, strange, tmp_path):
    with pytest.raises(InputError, match="max_length=3 tokens leaves none of 120 examples"):
        tokenise(strange, student, CotTexts(), 3, tmp_path)


def test_an_answer_that_the_tokenizer_drops_is_refused_with_its_problem(rationales):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Replace("☃", "")
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(["a"], trainers.BpeTrainer(initial_alphabet=alphabet, show_progress=False))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")
    fast.add_special_tokens({"eos_token": "</s>"})
    snow = replace(rationales[0], problem=replace(rationales[0].problem, id="snow", answer="☃"))
    with pytest.raises(InputError, match=r"problem snow: tokenizer .* has no token for the answer '☃'"):
        make_example(snow, fast, encoder_decoder=False)
    assert make_example(rationales[0], fast, encoder_decoder=False).answer_start > 0
