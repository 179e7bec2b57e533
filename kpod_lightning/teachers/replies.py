"""Reads what an endpoint replies, whatever its form: text, thoughts, how it ended, and how many tokens it was."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kpod_lightning.store.errors import InputError
from kpod_lightning.store.records import whole_number
from kpod_lightning.teachers.requests import Reply

ENDINGS = {
    "stop": "stop eos eos_token end_turn stop_sequence complete completed",
    "length": "length max_tokens max_output_tokens max_length max_new_tokens model_length "
    "model_context_window_exceeded context_length_exceeded",
    "content_filter": "content_filter content_filtered content_policy safety refusal recitation blocklist "
    "prohibited_content spii sensitive guardrail_intervened error_toxic moderation image_safety",
    "error": "error abort aborted insufficient_system_resource cancelled canceled failed timeout network_error "
    "internal_error server_error",
}
"""Names that endpoints have for how a reply ended, by ours. ``error`` is a fault: the sample is asked again."""

_ENDING = {name: ours for ours, names in ENDINGS.items() for name in names.split()}

MOST_BYTES_A_TOKEN = 32
"""Usage that counts fewer tokens than a text of this many bytes a token is wrong: a token of a text has about four."""

_SILENT = (
    "tool_use",
    "tool_call",
    "function_call",
    "reference",
    "citation",
    "image_url",
    "redacted_thinking",
    "signature",
)
"""Parts of a content without any text for a rationale."""


def ending_of(said: Any) -> str:
    """Our name for how a reply ended; the endpoint's own word where it is unknown, which is no natural end."""
    if not isinstance(said, str) or not said.strip():
        return "unknown"
    word = said.strip()[:40]
    if word in ("prompt_too_long", "unreadable"):  # our own, in a file that is read again
        return word
    return _ENDING.get(word.rpartition(".")[2].lower().replace("-", "_"), word)


class Unreadable(Exception):
    """The content of a message has a form that is not known."""


def content_of(content: Any) -> tuple[str, str, bool]:
    """The text of a message's content, its thoughts, and whether it has a refusal.

    Args:
        content: a text, a number, none, or a list of texts and typed parts.

    Raises:
        Unreadable: it is none of these.
    """
    if content is None:
        return "", "", False
    if isinstance(content, str):
        return content, "", False
    if isinstance(content, (int, float)) and not isinstance(content, bool):
        return str(content), "", False
    if isinstance(content, Mapping):
        content = [content]
    if not isinstance(content, list):
        raise Unreadable(type(content).__name__)
    text, thoughts, refused = "", list[str](), False
    for part in content:
        kind = part.get("type", "text") if isinstance(part, Mapping) else "text"
        if kind in ("text", "output_text"):
            text += _text_of(part)
        elif kind in ("thinking", "reasoning", "reasoning_text", "reasoning_content", "thought", "summary_text"):
            thoughts.append(_text_of(part))
        elif kind == "refusal":
            refused = True
        elif part is not None and kind not in _SILENT:
            raise Unreadable(str(kind))
    return text, "\n\n".join(filter(None, thoughts)), refused


def _text_of(part: Any) -> str:
    """The text in a part, in the lists and objects that it may be wrapped in."""
    if isinstance(part, str):
        return part
    if isinstance(part, list):
        return "".join(map(_text_of, part))
    if isinstance(part, Mapping):
        for name in ("text", "thinking", "reasoning", "content", "value", "summary"):
            if name in part:
                return _text_of(part[name])
        raise Unreadable(str(part.get("type")))
    if part is None:
        return ""
    raise Unreadable(type(part).__name__)


def thinking_of(message: Mapping[str, Any]) -> str | None:
    """The endpoint's own field for thoughts, or None where it is missing, empty or of an unknown form."""
    for name in ("reasoning_content", "reasoning", "thinking"):
        try:
            if thought := _text_of(message.get(name)):
                return thought
        except Unreadable:  # the text can be read without it
            continue
    return None


@dataclass(frozen=True)
class Usage:
    """Tokens of a reply. ``odd``: why they cannot be right; then the request counts as the most it can cost."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    odd: str | None = None


def usage_of(completion: Mapping[str, Any], num_prompt_bytes: int) -> Usage | None:
    """The tokens that a reply counts, or None where it does not.

    Args:
        num_prompt_bytes: bytes of the texts that were sent.
    """
    said = completion.get("usage")
    if said is None or said == {}:
        return None
    try:
        if not isinstance(said, Mapping):
            raise InputError("no object")
        details = said.get("prompt_tokens_details")
        details = details if isinstance(details, Mapping) else {}
        known = {name: value for name, value in details.items() if value is not None}
        found = Usage(
            whole_number(said, "prompt_tokens", "usage"),
            whole_number(known, "cached_tokens", "usage", default=0),
            whole_number(said, "completion_tokens", "usage"),
        )
        if found.cached_tokens > found.prompt_tokens:
            raise InputError(f"{found.cached_tokens} of {found.prompt_tokens} prompt tokens are cached")
    except InputError as error:
        return Usage(odd=str(error))
    message = (first_choice(completion) or {"message": {}})["message"]
    written = sum(_num_bytes(message.get(name)) for name in ("content", "reasoning_content"))
    for what, tokens, size in (
        ("prompt", found.prompt_tokens, num_prompt_bytes),
        ("completion", found.completion_tokens, written),
    ):
        if tokens * MOST_BYTES_A_TOKEN < size:
            return Usage(odd=f"{tokens} {what} tokens for {size} bytes")
    return found


def _num_bytes(text: Any) -> int:
    return len(text.encode("utf-8", "replace")) if isinstance(text, str) else 0


def first_choice(completion: Any) -> Mapping[str, Any] | None:
    """The first choice of a reply, if it has one with a message."""
    choices = completion.get("choices") if isinstance(completion, Mapping) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, Mapping) and isinstance(first.get("message"), Mapping) else None


def error_of(completion: Any) -> Mapping[str, Any] | None:
    """The error that a reply with status 200 holds instead of a text, or None."""
    found = completion.get("error") if isinstance(completion, Mapping) else None
    if not found and (choice := first_choice(completion)):
        found = choice.get("error")
    if isinstance(found, str) and found:
        return {"message": found}
    return found if isinstance(found, Mapping) and found else None


def reply_of(choice: Mapping[str, Any], usage: Usage, latency: float, stop: Sequence[str], model: Any) -> Reply:
    """The reply in a choice, cut before the first stop text: some servers leave it in or ignore ``stop``.

    Args:
        latency: seconds.
        model: the endpoint's name of it.
    """
    message = choice["message"]
    reason = ending_of(choice.get("finish_reason"))
    thinking = thinking_of(message)
    try:
        text, thought, refused = content_of(message.get("content"))
    except Unreadable:
        text, thought, refused, reason = "", "", False, "unreadable"
    places = [place for one in stop if (place := text.find(one)) >= 0]
    if refused or message.get("refusal"):
        reason = "content_filter"
    elif places and reason not in ("content_filter", "unreadable"):
        reason = "stop"  # it had said all before that
    tokens = _tokens_of(choice.get("logprobs"))
    return Reply(
        text=text[: min(places)] if places else text,
        finish_reason=reason,
        thinking=thought or thinking,
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens,
        completion_tokens=usage.completion_tokens,
        latency=latency,
        model=model if isinstance(model, str) else None,
        logprobs=_pairs_of(tokens),
        top_logprobs=_tops_of(tokens),
    )


def _tokens_of(said: Any) -> list[Mapping[str, Any]]:
    """What an endpoint says of each token."""
    return _mappings(said.get("content") if isinstance(said, Mapping) else None)


def _mappings(said: Any) -> list[Mapping[str, Any]]:
    return [one for one in said if isinstance(one, Mapping)] if isinstance(said, list) else []


def _pairs_of(tokens: Sequence[Mapping[str, Any]]) -> list[tuple[str, float]] | None:
    """Tokens with their log-probabilities; None where there are none, or one is of another form."""
    pairs = [(token.get("token"), token.get("logprob")) for token in tokens]
    if any(not isinstance(name, str) or not isinstance(value, int | float) for name, value in pairs):
        return None
    return pairs or None  # type: ignore[return-value]


def _tops_of(tokens: Sequence[Mapping[str, Any]]) -> list[list[tuple[str, float]]] | None:
    """The likeliest tokens in the place of each; None where none were said."""
    tops = [_pairs_of(_mappings(token.get("top_logprobs"))) or [] for token in tokens]
    return tops if any(tops) else None
