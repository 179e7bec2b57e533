"""Scheduled: the base of curricula that go through stages 0 to T, and teach whole rationales from stage T on."""

from typing import TYPE_CHECKING, Any

from kpod_lightning.config import num_stages
from kpod_lightning.curricula.base import Curriculum
from kpod_lightning.store.errors import InputError

if TYPE_CHECKING:
    from kpod_lightning.data.stages import Pace, Stages


class Scheduled(Curriculum):
    """T stages of one length; a subclass says in ``staged`` what each of them shows and asks."""

    PACE = ("num_stages", "progress", "stage_length")
    """Settings of ``schedule`` that say when a stage begins."""

    def check(self) -> None:
        schedule, epochs = self.config.schedule, self.config.optim.epochs
        if not schedule.progressive or schedule.num_stages is None or schedule.progress != "epochs":
            return
        length = schedule.stage_length or 1
        if schedule.num_stages * length > epochs:
            lasts = "a stage is an epoch" if length == 1 else f"a stage is {length} epochs"
            raise InputError(
                f"schedule.num_stages={schedule.num_stages} is more than optim.epochs={epochs}: "
                f"{lasts}, so raise the epochs or lower the stages"
            )

    def uses(self, key: str) -> bool:
        name = key.removeprefix("schedule.")
        return name == "progressive" or (self.config.schedule.progressive and self.reads(name))

    def reads(self, name: str) -> bool:
        """Whether it reads a setting of ``schedule`` where it is progressive; where not, it reads that one alone."""
        return True

    def pace(self, num_examples: int, num_tokens: int) -> "Pace":
        """How long a stage lasts.

        Args:
            num_examples: of an epoch.
            num_tokens: targets of an epoch of whole rationales.
        """
        from kpod_lightning.data.stages import Pace

        schedule, optim = self.config.schedule, self.config.optim
        of_an_epoch = {"epochs": 1, "steps": -(-num_examples // optim.batch_size), "tokens": num_tokens}
        return Pace(unit=schedule.progress, length=schedule.stage_length or of_an_epoch[schedule.progress])

    def stages(self, context: Any) -> "Stages":
        if not self.config.schedule.progressive:
            return super().stages(context)
        num_examples, num_tokens = len(context.examples), int(context.examples.num_targets.sum())
        pace, optim, last = self.pace(num_examples, num_tokens), self.config.optim, num_stages(self.config)
        trained = {
            "epochs": optim.epochs,
            "steps": optim.steps or optim.epochs * -(-num_examples // optim.batch_size),
            "tokens": optim.tokens or optim.epochs * num_tokens,
        }
        is_told = (optim.steps is None and optim.tokens is None) or pace.unit != "epochs"
        if is_told and trained[pace.unit] <= last * pace.length:
            context.say(
                f"optim.epochs={optim.epochs} ends before stage {last}, the first that teaches whole rationales; "
                f"it begins behind {last * pace.length} {pace.unit}, and the training has {trained[pace.unit]}"
            )
        return self.staged(context, pace)

    def staged(self, context: Any, pace: "Pace") -> "Stages":
        """The stages of a progressive training.

        Args:
            context: a ``methods.context.Context``.
        """
        raise NotImplementedError
