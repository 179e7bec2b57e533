"""Statements of an answer: where a text says "the answer is ...", and whether a sentence is nothing but that."""

import re
from collections.abc import Iterator

PHRASE = re.compile(
    r"answer\s+is(?:n't)?\b\s*:?|answer[*_]?\s*:|####|\\boxed\s*(?=\{)|\bboxed\s*(?=\{)|答案\s?[是为為:]+",
    re.IGNORECASE,
)

_MOST_LOOKED_AT = 8
"""Phrases from the end that are looked at: a text that repeats one without end is not searched again for each."""

_SENTENCE_END = re.compile(
    r"(?<=[.!?])(?<!\bapprox\.)(?<!\bca\.)(?<!\bRs\.)(?<!\bSt\.)(?<!\bMr\.)(?<!\bMrs\.)(?<!\bDr\.)(?<!\bNo\.)\s"
    r"|[。！？]|\n|$",
    re.IGNORECASE,
)

# "We ask what the answer is", "if the answer is 5, then ..."
_ASKS = re.compile(
    r"\b(?:what|whether|if|how|check|verify|suppose|assume|assuming)\s+(?:that\s+)?(?:the|our|my|this|an?|your)?\s*"
    r"(?:(?:final|correct|right)\s+)?$",
    re.IGNORECASE,
)

# "Our answer is correct", "the answer is if ...", "the answer is found by adding": behind "is" stands no answer.
_SPEAKS_OF = (
    r"[\s*_:,]*(?:(?:also|indeed|therefore|thus|then|clearly|actually|really|very|quite|still)\s+)?"
    r"(?:if|when|whether|what|where|why|how|not|n't|by|as follows|above|below|here|there|in the|in our|up to|unchanged"
    r"|in (?:dollars|cents|[a-z]*meters|feet|inches|hours|minutes|seconds|days|units|terms)"
    r"|correct|incorrect|right|wrong|reasonable|consistent|valid|invalid"
    r"|easy|simple|clear|unclear|obvious|known"
    r"|unknown|straightforward|trivial|plausible|possible|impossible|the same|same|complete|ready|missing|verified"
    r"|confirmed|found|obtained|given|calculated|computed|determined|derived|reached|expressed|rounded|based|measured"
    r"|stated|needed|shown|checked|positive|an? (?:integer|whole number|number|fraction|decimal)"
    r"|the (?:sum|difference|product|quotient)"
    r")\b"
)

_NO_ANSWER = re.compile(_SPEAKS_OF, re.IGNORECASE)

_NO_ANSWER_AHEAD = re.compile(rf"{_SPEAKS_OF}(?!\s*(?:=|:\s*\S))", re.IGNORECASE)

_NEXT_QUESTION = re.compile(r"(?:(?<=[^\s*#])[\s*#]+|(?<=[\d.]))(?P<short>Q|Question)[\s*]*:")


def before_next_question(text: str) -> str:
    """The text up to where a student ran on into the next "Q:" of the template.

    "Question:" counts only behind an answer phrase: before it a teacher may repeat the question.
    """
    for found in _NEXT_QUESTION.finditer(text):
        if found["short"] == "Q" or PHRASE.search(text, 0, found.start()):
            return text[: found.start()]
    return text


def _box_end(text: str, start: int) -> int:
    """Position of the brace that closes the one at ``start``; the end of the text where none does."""
    depth = 0
    for brace in re.compile(r"[{}]").finditer(text, start):
        depth += 1 if brace.group() == "{" else -1
        if depth == 0:
            return brace.start()
    return len(text)


def stated(text: str) -> Iterator[tuple[int, int]]:
    """Spans of what is stated as the answer, the last one first: to the end of the sentence, or of the box.

    A phrase that only speaks of an answer is left out: "what the answer is", "our answer is correct".
    """
    phrases = list(PHRASE.finditer(text))[-_MOST_LOOKED_AT:]
    end = len(text)
    for phrase in reversed(phrases):
        start = _start_of_value(text, phrase.end())
        if text.startswith("{", start) and "boxed" in phrase.group().lower():
            yield start + 1, _box_end(text, start)
        elif not _speaks_only(text, phrase):
            found = _SENTENCE_END.search(text, start, max(start, end))
            yield start, found.start() if found else max(start, end)
        end = phrase.start()


_MARKUP_LINES = re.compile(r"(?:[^\w\n]*\n)*\s*")


_LIST_ITEM = re.compile(r"\d{1,2}[.)][ \t]+(?=\S)")


def _start_of_value(text: str, position: int) -> int:
    """The first character from ``position`` on that is no blank, nor on a line without letters or digits."""
    found = _MARKUP_LINES.match(text, position)
    start = found.end() if found else position
    item = _LIST_ITEM.match(text, start) if "\n" in text[position:start] else None
    return item.end() if item else start


def _speaks_only(text: str, phrase: re.Match[str]) -> bool:
    if phrase.group().endswith((":", "#")):
        return False
    asks = _ASKS.search(text[max(0, phrase.start() - 40) : phrase.start()]) is not None
    return asks or (not is_denied_ahead(text, phrase.end()) and _NO_ANSWER_AHEAD.match(text, phrase.end()) is not None)


_NOT = re.compile(r"[\s,:*]*(?:not|no longer)\b", re.IGNORECASE)


def is_denied_ahead(text: str, position: int) -> bool:
    """Whether a denial stands there: "the answer is not 12, but 15" states one all the same."""
    return _NOT.match(text, position) is not None or text[max(0, position - 8) : position].rstrip().endswith("n't")


_STATEMENT = re.compile(
    r"[\s*_#>(\[{$-]*(?:(?:step\s)?\d{1,2}[.):]\s[\s*_]*)?"
    r"(?:(?:therefore|so|thus|hence|and|then|finally|lastly|in conclusion|in summary|to conclude|overall|consequently"
    r"|either way|in (?:either|any|both) cases?|again|in the end|in short|in total|as such|ultimately|altogether"
    r"|all in all|it follows(?: that)?"
    r"|accordingly|as a result|this means(?: that)?|we (?:can )?(?:conclude|find|see|know|say)(?: that)?|that)"
    r"[\s,:*_]+){0,3}(?:(?:the|our|my|your|this|its|his|her|their)\s+)?"
    r"(?:(?:final|correct|right|best|exact|required|most likely)\s+){0,3}(?:answer|answers(?=\s+are))"
    r"(?:\s+(?:to|for)\s+(?:the|this|that|our)\s+(?:\w+\s+)?(?:question|problem))?"
    r"(?P<lead>[*_]*\s*(?:(?:is|are|was|must be|should be|would be|will be|equals|comes to)\b[\s*_]*:?|[:=]|(?=$)))"
    r"[\s*_]*(?P<said>.*)",
    re.IGNORECASE | re.DOTALL,
)

_BOX_LINE = re.compile(
    r"[\s*_$>\\(\[]*(?:(?:therefore|so|thus|hence)\b[\s,:*_$\\(\[]*)?\\boxed\s*(?P<box>\{.*)", re.IGNORECASE | re.DOTALL
)

_CHINESE = re.compile(r"(?:所以|因此|综上)?[，,]?(?:最终|最后|正确)?的?答案\s?[是为為:：]\s?\S")

_MARK_LINE = re.compile(r"\s*####\s*\S")


def _is_box_line(sentence: str) -> bool:
    found = _BOX_LINE.fullmatch(sentence)
    if found is None:
        return False
    return re.fullmatch(r"[\s*_$\\)\].]*", found["box"][_box_end(found["box"], 0) + 1 :]) is not None


def is_statement(sentence: str) -> bool:
    """Whether a whole sentence or line begins with what the answer is, in words, as #### 7 or in a box."""
    if _MARK_LINE.match(sentence) or _CHINESE.match(sentence) or _is_box_line(sentence):
        return True
    found = _STATEMENT.fullmatch(sentence)
    if found is None or re.search(r"\?[\s*_)]*$", sentence):
        return False
    return re.search(r"\w", found["said"]) is not None and not _NO_ANSWER.match(found["said"])


def announces(sentence: str) -> bool:
    """Whether a line only announces the answer, which stands on the next: "The answer is:", "### Final answer"."""
    found = _STATEMENT.fullmatch(sentence)
    is_heading = re.match(r"\s*(?:#|\*\*|__)", sentence) is not None
    return found is not None and not re.search(r"\w", found["said"]) and (found["lead"].strip() != "" or is_heading)
