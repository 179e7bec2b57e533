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

    def pace(self, num_examples: int) -> "Pace":
        """How long a stage lasts."""
        from kpod_lightning.data.stages import Pace

        schedule, optim = self.config.schedule, self.config.optim
        of_an_epoch = {"epochs": 1, "steps": -(-num_examples // optim.batch_size)}[schedule.progress]
        return Pace(unit=schedule.progress, length=schedule.stage_length or of_an_epoch)

    def stages(self, context: Any) -> "Stages":
        from kpod_lightning.data.stages import Progress

        if not self.config.schedule.progressive:
            return super().stages(context)
        num_examples, epochs, last = len(context.examples), self.config.optim.epochs, num_stages(self.config)
        pace = self.pace(num_examples)
        num_steps = epochs * -(-num_examples // self.config.optim.batch_size)
        if pace.stage(Progress(epoch=epochs - 1, step=num_steps - 1)) < last:
            needed = {
                "epochs": f"optim.epochs={last * pace.length + 1} reaches it",
                "steps": f"it begins at step {last * pace.length + 1} of {num_steps}",
            }
            context.say(
                f"optim.epochs={epochs} ends before stage {last}, the first that teaches whole rationales; "
                f"{needed[pace.unit]}"
            )
        return self.staged(context, pace)

    def staged(self, context: Any, pace: "Pace") -> "Stages":
        """The stages of a progressive training.

        Args:
            context: a ``methods.context.Context``.
        """
        raise NotImplementedError
