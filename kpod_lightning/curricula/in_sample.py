"""In-sample curriculum (ICL, Jia et al. 2023): the same share of every rationale's tokens is given, less by stage."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kpod_lightning.config import num_stages
from kpod_lightning.curricula.scheduled import Scheduled
from kpod_lightning.store.bounds import check, within

if TYPE_CHECKING:
    from kpod_lightning.data.stages import Pace, Stages
    from kpod_lightning.evaluation.sections import Section


@dataclass(frozen=True, kw_only=True)
class InSampleSettings:
    """The block ``in_sample:`` of an experiment; values of the authors' script for SAMSum."""

    start: float = field(default=0.6, metadata=within("[0, 1]"))
    """ρ at stage 0: share of a rationale's tokens that is input, in [0, 1]. 0 teaches whole rationales throughout."""
    stride: float = field(default=0.3, metadata=within("(0, 1]"))
    """By how much ρ falls, down to 0, in (0, 1]."""

    def __post_init__(self) -> None:
        check(self, "in_sample")


def shares(start: float, stride: float) -> list[float]:
    """ρ above 0, falling: start, start − stride, ... Rounded, since 0.6 − 0.3 − 0.3 is not 0 in binary."""
    found, share = [], start
    while share > 0:
        found.append(share)
        share = round(start - len(found) * stride, 9)
    return found


def share_by_stage(start: float, stride: float, last: int) -> list[float]:
    """[T + 1] ρ(t): each share above 0 for T / (their number) stages, as even as it gets; 0 at stage T.

    Where T is less than their number, the first ones of those that would share a stage are taken.

    Args:
        last: T, at least 1.
    """
    positive = shares(start, stride) or [0.0]
    return [positive[t * len(positive) // last] for t in range(last)] + [0.0]


class InSample(Scheduled):
    """The first ⌊ρ(t) n⌋ of a rationale's n tokens are input; the rest and the answer are asked."""

    Settings = InSampleSettings

    def reads(self, name: str) -> bool:
        return name in self.PACE

    def training_settings(self) -> tuple[str, ...]:
        return tuple(f"schedule.{name}" for name in ("progressive", *self.PACE))

    @property
    def shown(self) -> list[float]:
        """[T + 1] ρ of every stage."""
        return share_by_stage(self.settings.start, self.settings.stride, num_stages(self.config))

    def staged(self, context: Any, pace: "Pace") -> "Stages":
        from kpod_lightning.data.prefixes import TokenShares

        return TokenShares(len(context.examples), self.shown, pace=pace)

    def describe(self, folder: Path) -> "Sequence[Section]":
        from kpod_lightning.evaluation.sections import Section

        if not self.config.schedule.progressive:
            return []
        given = ", ".join(f"{share:.0%}" for share in self.shown)
        return [
            Section(
                "In-sample curriculum",
                (f"Tokens of every rationale that are input and not asked, stage by stage: {given}.",),
            )
        ]
