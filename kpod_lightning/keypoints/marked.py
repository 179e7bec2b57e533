"""Marked: the seam of weightings in which the tokens over some characters of a rationale weigh more."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from kpod_lightning.keypoints.base import OF_TABLES, Weighting

if TYPE_CHECKING:
    import numpy as np

    from kpod_lightning.data.examples import Example
    from kpod_lightning.store.ragged import Ragged

Span = tuple[int, int]
"""First character, and one past the last."""


class Marked(Weighting):
    """Tokens that cover a marked character weigh ``high``, the others of the rationale ``low``; the answer weighs 1."""

    reads = OF_TABLES

    def spans(self, context: Any) -> Iterator[Sequence[Span]]:
        """Marked characters of the rationale of each example.

        Args:
            context: a ``methods.context.Context``.
        """
        raise NotImplementedError

    def table(self, context: Any) -> "Ragged":
        import numpy as np

        from kpod_lightning.keypoints.in_loss import with_ones

        high, low = self.settings.high, self.settings.low
        pairs = zip(context.examples, self.spans(context), strict=True)
        rows = (np.where(covers(example, spans), high, low) for example, spans in pairs)
        return with_ones(rows, context.examples)


def covers(example: "Example", marked: Sequence[Span]) -> "np.ndarray":
    """[num_rationale_tokens] whether a token covers a character of ``marked``; one without characters covers none."""
    import numpy as np

    spans = np.reshape(example.spans[: example.num_rationale_tokens], (-1, 2)).astype(np.int64)
    is_marked = np.zeros(max(spans.max(initial=0), *(stop for _, stop in marked), 0) + 1, bool)
    for start, stop in marked:
        is_marked[start:stop] = True
    num_before = np.concatenate([[0], np.cumsum(is_marked)])
    return num_before[spans[:, 1]] > num_before[spans[:, 0]]
