"""What a teacher says of the answer at the end is cut off in whole sentences, and nothing else."""

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from timing import seconds

from kpod_lightning.data.steps import split_steps
from kpod_lightning.data.template import without_answer_tail

SHARED = Path(__file__).parents[2].parent / "shared" / "data"

# fmt: off
CUTS = [  # text, what is left; None: all of it
    ("2 + 3 = 5. Therefore, the answer is 5.", "2 + 3 = 5."),
    ("2 + 3 = 5. So the answer is (a) five.", "2 + 3 = 5."),
    ("2 + 3 = 5.", None),
    ("The answer is 5", None),
    ("The answer is easy.\nIt is 5.", None),
    ("3 + 2 = 5. So, the correct answer is 5.", "3 + 2 = 5."),
    ("3 + 2 = 5. So our final answer is $5.", "3 + 2 = 5."),
    ("3 + 2 = 5. Hence my answer is: 5", "3 + 2 = 5."),
    ("3 + 2 = 5. Thus, we conclude that the answer is 5.", "3 + 2 = 5."),
    ("3 + 2 = 5. Therefore, the answer to this question is 5.", "3 + 2 = 5."),
    ("3 + 2 = 5. The answer must be 5.", "3 + 2 = 5."),
    ("3 + 2 = 5. Answer: 5", "3 + 2 = 5."),
    ("3 + 2 = 5. (Answer: 5)", "3 + 2 = 5."),
    ("3 + 2 = 5.\n**Answer:** 5", "3 + 2 = 5."),
    ("3 + 2 = 5.\n**The answer is 5.**", "3 + 2 = 5."),
    ("3 + 2 = 5.\n\n**Final Answer: 5**", "3 + 2 = 5."),
    ("3 + 2 = 5.\n\n### Answer: 5 apples", "3 + 2 = 5."),
    ("3 + 2 = 5.\n\n### Final Answer\n\n5", "3 + 2 = 5."),
    ("3 + 2 = 5.\n\n## Answer\nHe has 5 apples.", "3 + 2 = 5."),
    ("3 + 2 = 5.\n\n**Answer**\n5", "3 + 2 = 5."),
    ("3 + 2 = 5.\nThe answer is:\n\n5", "3 + 2 = 5."),
    ("3 + 2 = 5.\nThe answer is:\n\n- 5 apples", "3 + 2 = 5."),
    ("3 + 2 = 5.\n\n---\n\n**Answer:** 5", "3 + 2 = 5."),
    ("3 + 2 = 5\n#### 5", "3 + 2 = 5"),
    ("3 + 2 = 5\n#### -5", "3 + 2 = 5"),
    ("3 + 2 = 5.\n\\boxed{5}", "3 + 2 = 5."),
    ("3 + 2 = 5.\n$$\\boxed{\\frac{5}{1}}$$", "3 + 2 = 5."),
    ("3 + 2 = 5.\n\\[\n\\boxed{5}\n\\]", "3 + 2 = 5."),
    ("3 + 2 = 5. The answer is \\(\\boxed{5}\\).", "3 + 2 = 5."),
    ("3 + 2 = 5. The answer is 5.\n#### 5", "3 + 2 = 5."),
    ("3 + 2 = 5.So the answer is 5.", "3 + 2 = 5."),
    ("It flies. So the answer is yes.", "It flies."),
    ("Dogs bark. The answer is: (B) dog.", "Dogs bark."),
    ("He lives in St. Louis. So the answer is St. Louis.", "He lives in St. Louis."),
    ("3 + 2 = 5. So the answer is 5 because 3 and 2 are added.", "3 + 2 = 5."),
    ("他有5个。The answer is 5.", "他有5个。"),
    ("3 + 2 = 5. The answer is\n5", "3 + 2 = 5."),
    ("3 + 2 = 5. Therefore, the answer is that he has 5 left.", "3 + 2 = 5."),
    ("We ask what the answer is if Tom doubles 3. Doubling gives 6. So he has 6.", None),
    ("We double 3. We ask what the answer is if Tom doubles 3.", None),
    ("4 * 2 = 8. Counting again gives 8, so our answer is correct.", None),
    ("4 * 2 = 8. So our answer is correct.", None),
    ("4 * 2 = 8. Thus the answer is right.", None),
    ("4 * 2 = 8. The answer is not 9.", None),
    ("4 * 2 = 8. So the answer is found by adding 4 and 4.", None),
    ("4 * 2 = 8. Is the answer 8?", None),
    ("4 * 2 = 8. Since 4 * 2 = 8, the answer is 8.", None),
    ("4 * 2 = 8 and so the answer is 8.", None),
    ("The answer is 8. This holds since 4 * 2 = 8.", None),
    ("4 * 2 = 8. He gave the answer and left.", None),
    ("4 * 2 = 8. Answers: they differ.", None),
    ("We use a box.\nSo x = \\boxed{8}.", None),
    ("4 * 2 = 8. So our answer is correct: each has 8.", None),
    ("4 * 2 = 8.\nEither way, the answer is 8 shelves.", "4 * 2 = 8."),
    ("4 * 2 = 8.\n2. The answer is 8.", "4 * 2 = 8."),
    ("4 * 2 = 8.\nStep 3: The answer is 8.", "4 * 2 = 8."),
    ("4 * 2 = 8.\nTherefore, the answer is", "4 * 2 = 8."),
    ("4 * 2 = 8.\nTherefore, the answer is _____.", "4 * 2 = 8."),
    ("4 * 2 = 8. So, in the end, the answer is 8.", "4 * 2 = 8."),
    ("4 * 2 = 8. It follows that the answer is 8.", "4 * 2 = 8."),
    ("4 * 2 = 8. Hence, the final answer is \\boxed{\\text{8 apples}}.", "4 * 2 = 8."),
    ("4 * 2 = 8.\n> **Answer: 8**", "4 * 2 = 8."),
    ("4 * 2 = 8. The answers are 8 and 6.", "4 * 2 = 8."),
    ("4 * 2 = 8. THE ANSWER IS 8", "4 * 2 = 8."),
    ("他有5个。所以答案是5。", "他有5个。"),
    ("4 * 2 = 8. The answer is in dollars.", None),
    ("4 * 2 = 8. So 8 is the answer.", None),
    ("4 * 2 = 8. Now we know what the answer is.", None),
    ("4 * 2 = 8. Whatever the answer is, we add.", None),
    ("4 * 2 = 8. My friend's answer is 9.", None),
    ("4 * 2 = 8. So the answer is 8.\n\nThis is right.", None),
    ("The answer is 5.\n#### 5", "The answer is 5."),
    ("", None),
    ("...", None),
]
# fmt: on


@pytest.mark.parametrize("text, left", CUTS)
def test_only_whole_sentences_that_state_the_answer_are_cut_off_the_end(text, left):
    assert without_answer_tail(text) == (text if left is None else left)


PIECES = st.lists(
    st.one_of(
        st.sampled_from(
            [*" .,:!?\n", "So ", "the ", "answer", " is ", "answer is 5.", "#### 7", "\\boxed{", "}", "**", "3 "]
        ),
        st.text(max_size=5),
    ),
    max_size=20,
).map("".join)


@given(PIECES)
def test_what_is_left_begins_the_text_and_ends_where_a_step_does(text):
    left = without_answer_tail(text)
    assert text.startswith(left)
    ends = [len(text[:end].rstrip()) for _, end in split_steps(text.rstrip())]
    assert len(left) in ends or left == ""
    assert without_answer_tail(left) == left
    assert bool(left) == bool(text.strip())


@pytest.mark.parametrize(
    "unit", ["The answer is 5. ", "answer is ", "So ", "#### 7\n", "-\n", "\n", "**", "\\boxed{5}\n", "{"]
)
def test_time_is_linear_in_the_length_of_a_degenerate_text(unit):
    short, long = ("So 5. " + unit * (length // len(unit)) + "The answer is 5" for length in (2_000, 32_000))
    assert seconds(without_answer_tail, long) < 80 * max(seconds(without_answer_tail, short), 0.001)  # quadratic: 256


def recorded() -> Iterator[str]:
    for path in sorted(SHARED.glob("*/rationales/*.jsonl*")):
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
            yield from (json.loads(line)["rationale"] for line in lines)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the benchmarks are not here")
def test_no_recorded_rationale_is_cut_inside_a_sentence():
    num_cut, inside = 0, []
    for text in recorded():
        left = without_answer_tail(text)
        num_cut += len(left) < len(text.rstrip())
        is_at_end = re.search(r"[.!?:;][)\"'”’*\]]*\Z", left) or text[len(left) : len(left) + 3].lstrip(" ")[:1] in (
            "",
            "\n",
        )
        if not is_at_end:
            inside.append(left[-60:])
    assert inside == []
    assert num_cut > 9_000  # most end with a statement of the answer
