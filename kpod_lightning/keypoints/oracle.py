"""Oracle: the results of every calculation of the arithmetic benchmark weigh more, which its generator knows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from kpod_lightning.keypoints.marked import Marked, Span
from kpod_lightning.store.bounds import at_least, check
from kpod_lightning.store.errors import InputError


@dataclass(frozen=True, kw_only=True)
class OracleSettings:
    """The block ``oracle:``: what tokens of a rationale weigh."""

    high: float = field(default=1.0, metadata=at_least(0))
    """Weight of a token over a result: the number behind "=" of each step."""
    low: float = field(default=0.3, metadata=at_least(0))
    """Weight of every other token of the rationale, as that of ``numbers``."""

    def __post_init__(self) -> None:
        check(self, "oracle")


class Oracle(Marked):
    """A control that no data but generated have: the tokens which the answer depends on, as the generator wrote them.

    What the rationale's answer depends on are its results; an operand is redundant once its result stands there.
    """

    Settings = OracleSettings

    def check(self) -> None:
        data, rationales = self.config.data, self.config.rationales
        if data.dataset != "arithmetic" or rationales.source != "generated":
            raise InputError(
                "weights.kind=oracle knows the results of generated rationales alone: set data.dataset=arithmetic and "
                f"rationales.source=generated, not {data.dataset} and {rationales.source}; or weights.kind=numbers"
            )

    def spans(self, context: Any) -> Iterator[Sequence[Span]]:
        from kpod_lightning.data.arithmetic import problems_of

        num = self.config.rationales.num_per_problem
        made = problems_of(self.config.data, "train", len(context.problems), num)
        stories = {story.problem.id: story for story in made}
        for (name, sample), text in zip(context.examples.keys, context.texts, strict=True):
            story = stories[name]
            written, kinds = [(story.problem.rationale or "", story.kinds), *story.others][sample]
            if not written.startswith(text.rstrip()):
                raise InputError(
                    f"weights.kind=oracle: rationale {sample} of problem {name} is not the generator's: make the run "
                    "again with --redo"
                )
            yield [(start, stop) for start, stop, kind in kinds if kind == "result"]
