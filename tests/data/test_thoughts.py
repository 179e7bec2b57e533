"""Thoughts of a reply, told from what it says."""

import pytest

from kpod_lightning.data.thoughts import thought_and_rest


@pytest.mark.parametrize(
    ("text", "thinking", "thought", "rest"),
    [
        ("<think>\n2 + 3 = 5.\n</think>\n\nShe has 5.", None, "2 + 3 = 5.", "She has 5."),
        ("  <think>2 + 3</think>She has 5.\n", None, "2 + 3", "She has 5."),
        ("2 + 3 = 5.\n</think>\nShe has 5.", None, "2 + 3 = 5.", "She has 5."),  # the template opened the tag
        ("<think></think>She has 5.", None, "", "She has 5."),
        ("<think>2 + 3 =", None, "2 + 3 =", ""),  # the limit came before the end
        ("<think>a</think>b</think>c", None, "a\n\nb", "c"),
        ("<think>a <think> b</think>c", None, "a\n\nb", "c"),
        ("<think>a</think>She has<think>b</think> 5.", None, "a\n\nb", "She has\n5."),
        ("<think>a</think>She has 5.", "", "a", "She has 5."),  # an empty field says nothing
        ("<think>a</think>She has 5.", "b", "b\n\na", "She has 5."),
        ("[THINK]a[/THINK]She has 5.", None, "a", "She has 5."),
        ("<thinking>a</thinking>She has 5.", None, "a", "She has 5."),
        ("<THINK>a</THINK>She has 5.", None, "a", "She has 5."),
        ("<reasoning>\na\n</reasoning>\nShe has 5.", None, "a", "She has 5."),
        ("<thought>a</thought>She has 5.", None, "a", "She has 5."),
        ("[THINK]a and", None, "a and", ""),
        ("a</thought>She has 5.", None, "a", "She has 5."),
        ("So 2 < 3 and [5] is more than <3>.", None, "", "So 2 < 3 and [5] is more than <3>."),
        (
            "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b<|return|>",
            None,
            "a",
            "b",
        ),
        ("a<|end|><|start|>assistant<|channel|>final<|message|>b", None, "a", "b"),
        ("<|channel|>analysis<|message|>a and", None, "a and", ""),
        ("<|channel|>final<|message|>She has 5.", None, "", "She has 5."),
        ("analysisTwo and three.assistantfinalShe has 5.", None, "Two and three.", "She has 5."),
        ("<think>2 + 3 = 5.</think>", None, "2 + 3 = 5.", ""),
        (" She has 5. ", " 2 + 3 = 5.\n", "2 + 3 = 5.", "She has 5."),
        (" She has 5. ", None, "", "She has 5."),
        ("", None, "", ""),
    ],
)
def test_what_was_thought_is_told_from_what_was_said(text, thinking, thought, rest):
    assert thought_and_rest(text, thinking) == (thought, rest)
