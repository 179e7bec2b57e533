"""A rationale is cut where a reader ends a sentence, exactly and in linear time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from timing import seconds

from kpod_lightning.data.steps import split_steps
from kpod_lightning.store.errors import InputError

# fmt: off
STEPS = [
    ("One apple. Two pears.", ["One apple. ", "Two pears."]),
    ("It costs 2.50 dollars. Then 3.", ["It costs 2.50 dollars. ", "Then 3."]),
    ("It costs $3. He pays.", ["It costs $3. ", "He pays."]),
    ("Mr. Lee has 3 cats. He buys 2.", ["Mr. Lee has 3 cats. ", "He buys 2."]),
    ("Use e.g. 3 of them. Done!", ["Use e.g. 3 of them. ", "Done!"]),
    ("J. Smith runs. He stops?", ["J. Smith runs. ", "He stops?"]),
    ("1. Add them. 2. Halve it.", ["1. Add them. ", "2. Halve it."]),
    ("a) Add 2\nb) Add 3", ["a) Add 2\n", "b) Add 3"]),
    ("First line\n\nSecond line", ["First line\n\n", "Second line"]),
    ("Wait... then go. End", ["Wait... then go. ", "End"]),
    ("Wait... Then go. End", ["Wait... ", "Then go. ", "End"]),
    ("Wait… then go. End", ["Wait… then go. ", "End"]),
    ("He counts 2, 4, ... 10 of them. Five.", ["He counts 2, 4, ... 10 of them. ", "Five."]),
    ("We add 1 + 2 + ... + 9. It is 45.", ["We add 1 + 2 + ... + 9. ", "It is 45."]),
    ("So on...\nThen 5.", ["So on...\n", "Then 5."]),
    ('She said "stop." He did.', ['She said "stop." ', "He did."]),
    ('"Stop!" she said. He did.', ['"Stop!" she said. ', "He did."]),
    ('He asks "how many?" and counts 3. Done.', ['He asks "how many?" and counts 3. ', "Done."]),
    ("(He adds 3.) Then 5.", ["(He adds 3.) ", "Then 5."]),
    ("He has 3.Then he buys 2.", ["He has 3.", "Then he buys 2."]),
    ("He has three.He buys 2.Now 5.", ["He has three.", "He buys 2.", "Now 5."]),
    ("Great!Now add 2.", ["Great!", "Now add 2."]),
    ("How many?It is 5.", ["How many?", "It is 5."]),
    ("That is 5.A cat eats 1.", ["That is 5.", "A cat eats 1."]),
    ("J.Smith has 3. He eats 1.", ["J.Smith has 3. ", "He eats 1."]),
    ("The U.S. Army has 3. He left.", ["The U.S. Army has 3. ", "He left."]),
    ("He lives in the U.S. He has 3.", ["He lives in the U.S. ", "He has 3."]),
    ("It opens at 5 p.m. and shuts at 9 p.m. He waits.", ["It opens at 5 p.m. and shuts at 9 p.m. ", "He waits."]),
    ("It has vitamin C. Then rest.", ["It has vitamin C. ", "Then rest."]),
    ("So it is option B. Tom is right.", ["So it is option B. ", "Tom is right."]),
    ("John F. Kennedy had 2. He sold 1.", ["John F. Kennedy had 2. ", "He sold 1."]),
    ("It is 5 ft. 3 in. tall. He grows.", ["It is 5 ft. 3 in. tall. ", "He grows."]),
    ("He let 5 in. They left.", ["He let 5 in. ", "They left."]),
    ("He walks in. 5 others follow.", ["He walks in. ", "5 others follow."]),
    ("Mix 2 tbsp. of oil, 3 oz. of salt etc. Eat it.", ["Mix 2 tbsp. of oil, 3 oz. of salt etc. ", "Eat it."]),
    ("We need nuts, oil, etc. He buys 3.", ["We need nuts, oil, etc. ", "He buys 3."]),
    ("See Fig. 3 and Eq. 2. Then add.", ["See Fig. 3 and Eq. 2. ", "Then add."]),
    ("Prof. Li, Dr. May and Mrs. Po have 3. So 9.", ["Prof. Li, Dr. May and Mrs. Po have 3. ", "So 9."]),
    ("On Jan. 5 he has 3. By Feb. he has 4.", ["On Jan. 5 he has 3. ", "By Feb. he has 4."]),
    ("It takes 10 min. He waits.", ["It takes 10 min. ", "He waits."]),
    ("Lee et al. found 3. We find 4.", ["Lee et al. found 3. ", "We find 4."]),
    ("A is 3 i.e. odd. B is even.", ["A is 3 i.e. odd. ", "B is even."]),
    ("Step 1. Add 3. Step 2. Halve.", ["Step 1. Add 3. ", "Step 2. Halve."]),
    ("**1.** Add 3.\n**2.** Halve.", ["**1.** Add 3.\n", "**2.** Halve."]),
    ("3! = 6 ways. Good.", ["3! = 6 ways. ", "Good."]),
    ("4! is 24. So 24!", ["4! is 24. ", "So 24!"]),
    ("What is left? 3 are left.", ["What is left? ", "3 are left."]),
    ("He has 3. then he has 4.", ["He has 3. ", "then he has 4."]),
    ("He has **3.** Then 4.", ["He has **3.** ", "Then 4."]),
    ("小明有3个。他又买了4个。一共7个。", ["小明有3个。", "他又买了4个。", "一共7个。"]),
    ("有3个！还有吗？有。", ["有3个！", "还有吗？", "有。"]),
    ("りんごが3.5個あります。全部で7個です。", ["りんごが3.5個あります。", "全部で7個です。"]),
    ("彼は「三つ。」と言った。正しい。", ["彼は「三つ。」と言った。", "正しい。"]),
    ("他说：“有三个。” 然后走了。", ["他说：“有三个。” ", "然后走了。"]),
    ("总数是12.他走了。", ["总数是12.", "他走了。"]),
    ("यह 3 है। वह 4 है।", ["यह 3 है। ", "वह 4 है।"]),
    ("Add 3.\n---\nSo 5.", ["Add 3.\n", "---\nSo 5."]),
    ("Add 3.\n---", ["Add 3.\n---"]),
    ("\\[\n3 + 4 = 7\n\\]\nSo 7.", ["\\[\n3 + 4 = 7\n", "\\]\nSo 7."]),
    ("No mark at all", ["No mark at all"]),
    ("", []),
    ("   ", ["   "]),
    ("...", ["..."]),
]
# fmt: on


def pieces(text: str, rule: str = "sentence") -> list[str]:
    return [text[start:end] for start, end in split_steps(text, rule)]


@pytest.mark.parametrize(("text", "steps"), STEPS)
def test_sentences_end_where_a_reader_ends_them(text, steps):
    assert pieces(text) == steps


@given(
    st.one_of(st.text(alphabet="ab1. \n!?)(Mr$,…。」-", max_size=60), st.text(max_size=60)),
    st.sampled_from(["sentence", "newline", "paragraph", ";"]),
)
def test_steps_tile_the_text(text, rule):
    spans = split_steps(text, rule)
    assert "".join(text[start:end] for start, end in spans) == text
    assert all(start < end for start, end in spans)


@given(st.text(alphabet="ab1. \n-*。", min_size=1, max_size=60))
def test_every_step_of_several_has_a_letter_or_a_digit(text):
    steps = pieces(text)
    assert len(steps) == 1 or all(any(character.isalnum() for character in step) for step in steps)


@pytest.mark.parametrize(
    "unit", ["\n", " ", ".", "e.g. ", "a.", ". ", "-\n", ".)", "!*", "1. ", "A. ", "。", "… ", "\u3000", "Mr.", "...a"]
)
def test_time_is_linear_in_the_length_of_a_degenerate_text(unit):
    short, long = ("So 5." + unit * (length // len(unit)) + "x" for length in (4_000, 40_000))
    assert seconds(split_steps, long) < 30 * max(seconds(split_steps, short), 0.001)  # quadratic: 100 times


def test_a_rule_that_is_no_regular_expression_is_refused():
    with pytest.raises(InputError, match="step_rule"):
        split_steps("a. b", "(")


def test_other_rules_split_at_lines_and_at_paragraphs():
    text = "a. b\nc\n\nd"
    assert pieces(text, "newline") == ["a. b\n", "c\n\n", "d"]
    assert pieces(text, "paragraph") == ["a. b\nc\n\n", "d"]
