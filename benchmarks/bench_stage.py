"""What a stage and a checkpoint cost a training: building the loader of 7,473 rationales, and saving tiny-llama.

Generated rationales stand for GSM8K's, whose number they have. The epoch that they are compared with is estimated from
its first steps.
"""

import logging
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from lightning.pytorch.callbacks import Callback

from benchmarks.inputs import rationales
from benchmarks.measure import Options
from kpod_lightning.config import OptimConfig, RunConfig
from kpod_lightning.data.datamodule import ExampleDataModule
from kpod_lightning.data.example_table import ExampleTable, save_examples
from kpod_lightning.data.examples import make_examples
from kpod_lightning.data.stages import InputSteps, Progress
from kpod_lightning.data.texts import text_of
from kpod_lightning.distributed.trainer import trainer_of
from kpod_lightning.methods.module import KPODModule
from kpod_lightning.students.student import load_student

NUM_EXAMPLES, BATCH_SIZE, NUM_STEPS = 7473, 16, 60
OPTIM = OptimConfig(lr=1e-3, epochs=1, batch_size=BATCH_SIZE)


class Clock(Callback):
    """Seconds a step, and seconds that a checkpoint blocks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.steps: list[float] = []
        self.saves: list[float] = []

    def on_train_batch_start(self, *_):
        self.began = time.perf_counter()

    def on_train_batch_end(self, trainer, *_):
        self.steps.append(time.perf_counter() - self.began)
        if len(self.steps) % 20 == 0:
            began = time.perf_counter()
            trainer.save_checkpoint(self.folder / "step.ckpt")
            self.saves.append(time.perf_counter() - began)


def main() -> None:
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    student = load_student("tiny-llama")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train = rationales(Options(), NUM_EXAMPLES)
        texts = [text_of(rationale) for rationale in train]
        made = make_examples([r.key for r in train], texts, student.tokenizer, encoder_decoder=False)
        save_examples([made], folder / "table")
        examples = ExampleTable(folder / "table")
        rng = np.random.default_rng(0)
        data = ExampleDataModule(
            examples,
            encoder_decoder=False,
            pad_token_id=student.pad_token_id,
            eos_token_id=student.tokenizer.eos_token_id,
            batch_size=BATCH_SIZE,
            group_by_length=True,
            stages=InputSteps([[0] * NUM_EXAMPLES]),
            token_weights=[rng.uniform(0, 2, len(e.target_ids)).tolist() for e in examples],
        )
        began = time.perf_counter()
        data.micro_batches(Progress(epoch=0))
        building = time.perf_counter() - began
        clock = Clock(folder)
        module = KPODModule(student, OPTIM, num_steps=NUM_STEPS)
        trainer = trainer_of(
            RunConfig(seed=0),
            max_steps=NUM_STEPS,
            limit_val_batches=0,
            enable_progress_bar=False,
            enable_checkpointing=False,
            logger=False,
            callbacks=[clock],
        )
        trainer.fit(module, datamodule=data)
    epoch = float(np.median(clock.steps)) * NUM_EXAMPLES / BATCH_SIZE
    print(
        f"loader of a stage: {building:.2f} s, {100 * building / epoch:.2f} % of an epoch of {epoch:.0f} s; "
        f"a checkpoint blocks {max(clock.saves):.3f} s"
    )


if __name__ == "__main__":
    main()
