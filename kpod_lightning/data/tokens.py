"""Token ids of text: a problem or a rationale that spells a control token (``</s>``) is text and never that token.

Control tokens are the special ones of a tokenizer, by its own flag or by their role (end, padding, start of a text,
turns of a chat). Added tokens without the flag, such as ``<think>`` of some models, are words of the vocabulary that
stand in texts on purpose: they stay tokens. All text of data becomes ids here, and nowhere else.
"""

import json
import re
import secrets
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from kpod_lightning.store.errors import InputError

Span = tuple[int, int]
"""First character, and one past the last."""

TOKENS = "plain-1"
"""Name of the rule by which text becomes tokens; what was tokenised by another rule is made anew."""


def text_ids(text: str, tokenizer: Any) -> list[int]:
    """Token ids of a text of data, without any that the tokenizer puts round it.

    Raises:
        InputError: the tokenizer has no other token than its end-of-sequence token for some character.
    """
    ids = list(tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False).input_ids)
    return ids if _control_of(tokenizer).isdisjoint(ids) else spanned_ids(text, tokenizer)[0]


def spanned_ids(text: str, tokenizer: Any) -> tuple[list[int], list[Span]]:
    """Token ids of a text of data, and the characters that each of them covers.

    Raises:
        InputError: the tokenizer has no other token than its end-of-sequence token for some character.
    """
    (encoding,) = encodings([text], tokenizer)
    return encoding.ids, encoding.offsets


def encodings(texts: Sequence[str], tokenizer: Any) -> list[Any]:
    """An encoding of each text of data, with its ``ids`` and its ``offsets``, from one call of a fast tokenizer.

    Raises:
        InputError: the tokenizer has no other token than its end-of-sequence token for some character.
    """
    found = tokenizer(
        list(texts),
        add_special_tokens=False,
        split_special_tokens=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    control = _control_of(tokenizer)
    return [
        encoding if control.isdisjoint(ids) else _without_control(text, tokenizer)
        for text, ids, encoding in zip(texts, found.input_ids, found.encodings, strict=True)
    ]


def _without_control(text: str, tokenizer: Any) -> Any:
    """The encoding of a text in which the tokenizer finds control tokens, without them.

    Vocabularies of SentencePiece list the control tokens among their pieces, and so find them in the text again.
    """
    encoding = _renamed(tokenizer).tokenizer.encode(text, add_special_tokens=False)
    if tokenizer.eos_token_id in encoding.ids:
        raise InputError(
            f"tokenizer {tokenizer.name_or_path}: it writes its end-of-sequence token for a character of "
            f"{text[:60]!r} that it does not know; choose a student with another tokenizer"
        )
    return encoding


def chat_ids(render: Callable[[list[str]], str], texts: Sequence[str], tokenizer: Any) -> list[int]:
    """Token ids of a chat: control tokens that its template writes are tokens, those within the messages are text.

    Args:
        render: the chat of the messages' texts, as the template writes it.
        texts: one a message.
    """

    def read(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False, split_special_tokens=False, verbose=False).input_ids)

    if all(_control_of(tokenizer).isdisjoint(read(text)) for text in texts):
        return read(render(list(texts)))
    renamed = _renamed(tokenizer)
    chat = render([renamed.hide(text) for text in texts])
    return list(renamed.tokenizer.encode(renamed.show(chat), add_special_tokens=False).ids)


_control: "WeakKeyDictionary[Any, tuple[int, frozenset[int]]]" = WeakKeyDictionary()


def _control_of(tokenizer: Any) -> frozenset[int]:
    """Ids of the control tokens. The token of unknown characters is none: it stands for text.

    A control token of one character is left out, too, since texts need that character (padding by ``!``).
    """
    known = _control.get(tokenizer)
    if known is None or known[0] != len(tokenizer):
        tokens = {token: i for i, token in zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True)}
        tokens |= {str(token): i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        ids = {i for token, i in tokens.items() if len(token) > 1}
        if tokenizer.unk_token_id not in (tokenizer.eos_token_id, tokenizer.bos_token_id):
            ids.discard(tokenizer.unk_token_id)
        known = _control[tokenizer] = (len(tokenizer), frozenset(ids))
    return known[1]


class _Renamed:
    """A copy of a tokenizer with the same ids, whose control tokens have names that no text has."""

    def __init__(self, tokenizer: Any) -> None:
        from tokenizers import Tokenizer  # tokenizers that write such a text are few

        secret = secrets.token_hex(8)
        control = {tokenizer.convert_ids_to_tokens(i): i for i in sorted(_control_of(tokenizer))}
        self.names = {token: f"\ue000{secret}.{i}\ue001" for token, i in control.items()}
        self.hidden = {token: f"\ue002{secret}.{i}\ue003" for token, i in control.items()}
        written = json.loads(tokenizer.backend_tokenizer.to_str())
        written["padding"] = written["truncation"] = None
        for token in written["added_tokens"]:
            token["content"] = self._name(token["content"])
        self._rename_pieces(written["model"])
        self.tokenizer = Tokenizer.from_str(json.dumps(written))
        if any(self.tokenizer.token_to_id(self.names[token]) != i for token, i in control.items()):
            raise InputError(
                f"tokenizer {tokenizer.name_or_path}: its control tokens cannot be told from text; choose a student "
                "with another tokenizer"
            )

    def _name(self, token: str) -> str:
        return self.names.get(token, token)

    def _rename_pieces(self, model: dict[str, Any]) -> None:
        """Rename the control tokens in the vocabulary, of a Unigram model a list, of the others a mapping."""
        if isinstance(model["vocab"], dict):
            model["vocab"] = {self._name(piece): i for piece, i in model["vocab"].items()}
        else:
            model["vocab"] = [[self._name(piece), score] for piece, score in model["vocab"]]
        if model.get("unk_token") is not None:
            model["unk_token"] = self._name(model["unk_token"])
        if "merges" in model:
            pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
            model["merges"] = [pair for pair in pairs if self.names.keys().isdisjoint({*pair, "".join(pair)})]

    def hide(self, text: str) -> str:
        """The text of a message, with signs for the control tokens that it spells."""
        return _replaced(text, self.hidden)

    def show(self, chat: str) -> str:
        """A chat of such texts: the template's control tokens by their names, the messages as they were."""
        return _replaced(_replaced(chat, self.names), {sign: token for token, sign in self.hidden.items()})


def _replaced(text: str, by: dict[str, str]) -> str:
    """``text`` with every key of ``by`` replaced by its value; of two that begin at one place the longer one."""
    found = "|".join(re.escape(key) for key in sorted(by, key=len, reverse=True))
    return re.sub(found, lambda match: by[match[0]], text)


_copies: "WeakKeyDictionary[Any, tuple[int, _Renamed]]" = WeakKeyDictionary()


def _renamed(tokenizer: Any) -> _Renamed:
    known = _copies.get(tokenizer)
    if known is None or known[0] != len(tokenizer):
        known = _copies[tokenizer] = (len(tokenizer), _Renamed(tokenizer))
    return known[1]
