from dataclasses import replace

import pytest

from kpod_lightning.data.example_table import ExampleTable, lengths_of, num_asked, save_examples
from kpod_lightning.data.examples import first_asked, make_example, make_examples
from kpod_lightning.data.problems import Problem
from kpod_lightning.data.rationales import Rationale
from kpod_lightning.data.steps import split_steps
from kpod_lightning.data.template import answer_phrase, prompt_text
from kpod_lightning.data.texts import text_of
from kpod_lightning.data.views import IGNORE, collate, view, window_view
from kpod_lightning.evaluation.generate import prompt_ids


def example_of(rationale, student, **kwargs):
    return make_example(rationale, student.tokenizer, encoder_decoder=student.encoder_decoder, **kwargs)


def view_of(example, c, student, **kwargs):
    return view(
        example,
        c,
        encoder_decoder=student.encoder_decoder,
        eos_token_id=student.tokenizer.eos_token_id,
        **kwargs,
    )


def test_what_is_asked_is_the_text_from_step_c_on_for_every_c(student, rationales):
    decode, eos = student.tokenizer.decode, student.tokenizer.eos_token_id
    for rationale in rationales:
        example = example_of(rationale, student)
        assert example.num_steps == len(rationale.steps) >= 2
        for c in range(example.num_steps + 1):
            seen = view_of(example, c, student)
            asked = [label for label in seen.labels if label != IGNORE]
            assert asked[-1] == eos
            rest = rationale.text[rationale.steps[c][0] :] if c < example.num_steps else ""
            expected = f"{rest} {answer_phrase(rationale.problem)}".strip()
            assert " ".join(decode(asked[:-1]).split()) == " ".join(expected.split())
            shown = seen.input_ids if student.encoder_decoder else seen.input_ids[: len(seen.input_ids) - len(asked)]
            text = f"{prompt_text(rationale.problem)} {rationale.text[: len(rationale.text) - len(rest)]}"
            shown_text = decode(shown, skip_special_tokens=True)
            assert " ".join(shown_text.split()) == " ".join(text.split())


def test_weights_stay_with_their_tokens_for_every_c(student, rationales):
    for rationale in rationales:
        example = example_of(rationale, student)
        weights = [0.001 * (j + 1) for j in range(len(example.target_ids))]
        whole = view_of(example, 0, student, token_weights=weights)
        tail = [w for w, label in zip(whole.weights, whole.labels, strict=True) if label != IGNORE]
        assert tail == weights
        for c in range(example.num_steps + 1):
            seen = view_of(example, c, student, token_weights=weights)
            kept = [w for w, label in zip(seen.weights, seen.labels, strict=True) if label != IGNORE]
            assert kept == tail[len(tail) - len(kept) :]


def test_spans_are_the_characters_of_their_tokens(student, rationales):
    for rationale in rationales:
        example = example_of(rationale, student)
        for token, step, (left, right) in zip(example.target_ids, example.step_of, example.spans, strict=True):
            if step < example.num_steps:
                piece = rationale.text[left:right]
                assert student.tokenizer.decode([token]).strip() == piece.strip()
                start, end = rationale.steps[step]
                assert not piece.strip() or start <= left + len(piece) - len(piece.lstrip()) < end
            else:
                assert (left, right) == (0, 0)


def test_the_prompt_is_tokenised_alike_in_training_and_in_evaluation(student, rationales):
    for rationale in rationales:
        example = example_of(rationale, student)
        asked = prompt_ids(prompt_text(rationale.problem), student)
        assert list(example.prompt_ids) == (asked[:-1] if student.encoder_decoder else asked)


def test_a_decimal_and_an_abbreviation_do_not_move_a_step(student):
    text = "Mr. Lee pays 2.50 dollars. Then 2.50 + 1.25 = 3.75 dollars."
    problem = Problem(id="p", question="How much?", answer="3.75", kind="number", split="train")
    example = example_of(Rationale(problem=problem, text=text, steps=tuple(split_steps(text))), student)
    assert example.num_steps == 2
    second = [t for t, step in zip(example.target_ids, example.step_of, strict=True) if step == 1]
    assert student.tokenizer.decode(second).strip() == "Then 2.50 + 1.25 = 3.75 dollars."


def test_answers_only_asks_nothing_of_the_rationale(student, rationales):
    example = example_of(rationales[0], student, text=text_of(rationales[0], with_rationale=False))
    assert example.num_steps == 0
    text = student.tokenizer.decode(example.target_ids, skip_special_tokens=True)
    assert text.strip() == answer_phrase(rationales[0].problem)


def test_padding_is_never_a_target_and_eos_always_is_even_where_they_are_one_token(student, rationales):
    views = [view_of(example_of(r, student), 0, student) for r in rationales]
    eos = student.tokenizer.eos_token_id
    batch = collate(views, [r.key for r in rationales], pad_token_id=eos, divisor=1)
    for row, seen in zip(batch.labels.tolist(), views, strict=True):
        assert row.count(eos) == 1
        assert sum(label != IGNORE for label in row) == sum(label != IGNORE for label in seen.labels)
    for mask, seen in zip(batch.attention_mask.tolist(), views, strict=True):
        assert sum(mask) == len(seen.input_ids)


@pytest.mark.parametrize("c", [-1, 99])
def test_a_number_of_input_steps_that_does_not_exist_is_refused(student, rationales, c):
    with pytest.raises(ValueError, match="input steps"):
        view_of(example_of(rationales[0], student), c, student)


def test_answer_tokens_are_those_of_the_gold_answer(student, rationales):
    for rationale in rationales:
        example = example_of(rationale, student)
        written = student.tokenizer.decode(example.target_ids[example.answer_start : -1])
        assert written.strip() == rationale.problem.answer
        assert example.answer_start > example.num_rationale_tokens  # the phrase stands between them
        assert example.step_of[example.num_rationale_tokens - 1] == example.num_steps - 1


def test_a_table_on_disk_gives_every_example_back(student, rationales, tmp_path):
    made = make_examples(
        [("Straße 7 🚂", 3), *(r.key for r in rationales[1:])],
        [text_of(r) for r in rationales],
        student.tokenizer,
        encoder_decoder=student.encoder_decoder,
    )
    examples = list(made)
    assert examples[0].key == ("Straße 7 🚂", 3)
    assert save_examples([made], tmp_path / "t") == len(examples)
    table = ExampleTable(tmp_path / "t")
    assert list(table) == examples
    assert table[-1] == examples[-1] and table[2:5] == examples[2:5]
    assert table.lengths.tolist() == [len(example) for example in examples] == lengths_of(examples).tolist()
    assert table.num_targets.tolist() == [len(example.target_ids) for example in examples]
    for i, example in enumerate(examples):
        for c in range(example.num_steps + 1):
            assert (
                num_asked(table, i, c) == num_asked(examples, i, c) == len(example.target_ids) - first_asked(example, c)
            )
    with pytest.raises(IndexError):
        table[len(examples)]


def test_a_text_without_an_answer_asks_the_rationale_and_the_end(student, rationales):
    text = replace(text_of(rationales[0]), answer_phrase="", answer="", kind=1)
    example = make_example(rationales[0], student.tokenizer, encoder_decoder=student.encoder_decoder, text=text)
    whole = example_of(rationales[0], student)
    n = whole.num_rationale_tokens
    assert example.target_ids == (*whole.target_ids[:n], student.tokenizer.eos_token_id)
    assert example.answer_start == n == example.num_rationale_tokens
    assert (example.kind, whole.kind) == (1, 0)


def test_a_window_asks_its_tokens_and_shows_those_before(student, rationales):
    example = example_of(rationales[0], student)
    family = {"encoder_decoder": student.encoder_decoder, "eos_token_id": student.tokenizer.eos_token_id}
    seen = window_view(example, (3, 7), token_weights=range(len(example.target_ids)), **family)
    asked = [label for label in seen.labels if label != IGNORE]
    weights = [w for w, label in zip(seen.weights, seen.labels, strict=True) if label != IGNORE]
    assert asked == list(example.target_ids[3:7]) and weights == [3, 4, 5, 6]
    closing = [student.tokenizer.eos_token_id]
    shown = [*example.prompt_ids, *example.target_ids[:3]]
    assert seen.input_ids == shown + (closing if student.encoder_decoder else asked)
    with pytest.raises(ValueError, match="no tokens 7 to 7"):
        window_view(example, (7, 7), **family)
