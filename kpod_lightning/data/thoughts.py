"""What a reply thinks, told from what it says: models and servers mark thoughts in several ways."""

import re

_NAMES = r"(?:think|thinking|thought|thoughts|reasoning)"
_MARK = re.compile(
    rf"(?P<opens><(?:\w+:)?{_NAMES}(?:\s[^<>]*)?>|\[THINK\]|◁think▷|<\|begin_of_thought\|>)"
    rf"|(?P<closes></(?:\w+:)?{_NAMES}\s*>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>)",
    re.IGNORECASE,
)
_SOLUTION = re.compile(r"<\|(?:begin|end)_of_solution\|>")
_CHANNEL = re.compile(
    r"(?:<\|start\|>\s*assistant\s*)?<\|channel\|>\s*(?P<name>\w*)[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>"
)
_MESSAGE_END = re.compile(r"<\|(?:end|return|call|start)\|>")
_BARE_CHANNELS = re.compile(r"\s*analysis(?P<thought>.*)assistantfinal(?P<rest>.*)", re.DOTALL)
"""Channels after a server has left out their special tokens."""


def thought_and_rest(text: str, thinking: str | None = None) -> tuple[str, str]:
    """The thoughts of a reply, and the text outside them.

    A thought stands between tags (<think>, <thinking>, <thought>, <reasoning>, [THINK] ..., of any case), or in another
    channel than ``final``. There may be several. The chat template may have opened the tag, so that the text starts
    inside a thought; the limit of tokens may cut the text before the tag closes.

    Args:
        text: of the reply.
        thinking: the endpoint's own field for thoughts, if it has one; an empty one says nothing.
    """
    thoughts, said = _by_channel(text) if "<|channel|>" in text else _by_tag(text)
    thoughts = [thought for thought in (thinking or "", *thoughts) if thought.strip()]
    return "\n\n".join(map(str.strip, thoughts)), "\n".join(part.strip() for part in said if part.strip())


def _by_tag(text: str) -> tuple[list[str], list[str]]:
    if bare := _BARE_CHANNELS.fullmatch(text):
        return [bare["thought"]], [bare["rest"]]
    thoughts: list[str] = []
    said: list[str] = []
    start, is_inside = 0, False
    for mark in _MARK.finditer(text):
        part = text[start : mark.start()]
        if mark["closes"]:  # also without an opening tag: the text before it was a thought
            thoughts.append(part)
            is_inside = False
        elif is_inside:  # a tag that a thought mentions
            thoughts.append(part)
        else:
            said.append(part)
            is_inside = True
        start = mark.end()
    (thoughts if is_inside else said).append(text[start:])
    return thoughts, [_SOLUTION.sub("", part) for part in said]


def _by_channel(text: str) -> tuple[list[str], list[str]]:
    """By the channels of the harmony format: what is not in ``final`` is a thought."""
    thoughts: list[str] = []
    said: list[str] = []
    name, start = "", 0
    for mark in [*_CHANNEL.finditer(text), None]:
        part = _MESSAGE_END.split(text[start : mark.start() if mark else len(text)], maxsplit=1)[0]
        (said if name == "final" else thoughts).append(part)
        if mark:
            name, start = mark["name"].lower(), mark.end()
    return thoughts, said
