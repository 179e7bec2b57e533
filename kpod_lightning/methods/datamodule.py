"""RationaleDataModule: from settings to batches, for a Trainer of one's own."""

from pathlib import Path

from kpod_lightning.config import DataConfig, OptimConfig, RationalesConfig, StudentConfig
from kpod_lightning.data.benchmarks import cut, read_problems
from kpod_lightning.data.datamodule import StagedDataModule
from kpod_lightning.data.sources import others_of, source_of
from kpod_lightning.distributed.ranks import by_itself
from kpod_lightning.methods.base import load_experiment, method_of, run_settings, with_usual
from kpod_lightning.methods.context import Context, input_fingerprints, train_set_arrows
from kpod_lightning.methods.warm import arrows_before_training
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.files import writing
from kpod_lightning.store.provenance import read_provenance, refuse_damaged


class RationaleDataModule(StagedDataModule):
    """Teacher rationales as batches of a student's tokens, stage by stage.

    ``prepare_data`` reads the problems, selects rationales and tokenises them into a cache, once for all who ask for
    the same. ``setup`` opens the tables. The loaders follow the trainer's epochs, with any Trainer: it need not rebuild
    them, and ranks get their shares.

    Args:
        data: which problems.
        rationales: whose rationales.
        student: whose tokens.
        method: name of a method. One that makes artefacts before the student learns (kpod: weights, difficulties, a
            schedule) needs ``run``.
        batch_size: examples of a global batch, over all ranks and accumulated micro-batches.
        run: a run folder in which ``kpod schedule EXPERIMENT --run FOLDER`` has made the method's artefacts; its
            settings then take the place of data, rationales, student and method.
        cache: folder of what is selected and tokenised.
        others: seed, num_workers, group_by_length, loss_scale of ``StagedDataModule``.
    """

    def __init__(
        self,
        data: DataConfig | None = None,
        rationales: RationalesConfig | None = None,
        student: StudentConfig | None = None,
        method: str = "plain",
        batch_size: int = 4,
        *,
        run: str | None = None,
        cache: str = "runs/.cache",
        seed: int = 0,
        num_workers: int = 0,
        group_by_length: bool = False,
        loss_scale: str = "tokens",
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            seed=seed,
            num_workers=num_workers,
            group_by_length=group_by_length,
            loss_scale=loss_scale,
        )
        self.run = None if run is None else Path(run)
        self.cache = Path(cache)
        if self.run is None:
            config = run_settings(method)(
                seed=seed,
                method=method,
                data=data or DataConfig(),
                rationales=rationales or RationalesConfig(),
                student=student or StudentConfig(),
                optim=OptimConfig(batch_size=batch_size),
            )
            self.config = with_usual(config, {}, () if rationales is None else ("rationales",))
        else:
            self.config = load_experiment(self.run / "config.yaml", [])
        self.method = method_of(self.config)
        self.context: Context | None = None

    def prepare_data(self) -> None:
        """Select and tokenise what the cache does not have; Lightning calls it in one process of a machine.

        Raises:
            InputError: problems or rationales cannot be had, or the method's artefacts are not there.
        """
        with by_itself():  # Lightning lets the other ranks wait elsewhere
            self._refuse_damaged()
            assert len(self._opened().examples)

    def _refuse_damaged(self) -> None:
        """Refuse a run folder in which something is not what the run wrote (InputError)."""
        provenance = None if self.run is None else read_provenance(self.run)
        if self.run is not None and provenance is not None:
            for name in ("config.yaml", *provenance["artefacts"]):
                refuse_damaged(self.run, provenance, name)

    def setup(self, stage: str) -> None:
        """Open the tables.

        Args:
            stage: Lightning's: fit, validate, test or predict.
        """
        if self.context is not None:
            return
        self.context = self._opened()
        self.method.begin(self.context)
        self.draw, self.apart = self.method.draw, self.method.apart
        student = self.context.student
        self.hold(
            self.context.examples,
            self.method.stages,
            encoder_decoder=student.encoder_decoder,
            pad_token_id=student.pad_token_id,
            eos_token_id=student.tokenizer.eos_token_id,
            token_weights=self.method.token_weights,
            views=self.method.views,
        )

    def _opened(self) -> Context:
        """The train set, whose rationales are selected and whose artefacts are there."""
        whole = read_problems(self.config)
        splits = cut(whole, self.config)
        self.validation = splits["validation"]
        arrows = train_set_arrows(
            splits["train"], source_of(self.config, whole["train"], others_of(whole)), self.method
        )
        fingerprints = input_fingerprints(self.config, splits)
        for arrow in arrows:
            fingerprints[arrow.artefact or arrow.verb] = arrow.fingerprint(self.config, fingerprints)
        folder = self.run or self.cache / fingerprints["tokens"] / "train-set"
        context = Context(
            self.config, folder, self.cache.joinpath, self.method, splits["train"], fingerprints, count=lambda _: None
        )
        made = arrows_before_training(self.config, self.method)
        needed = [arrow.artefact for arrow in made if arrow.trains]
        missing = [artefact for artefact in needed if not (folder / str(artefact)).exists()]
        if missing:
            raise InputError(
                f"method={self.config.method} makes {', '.join(map(str, missing))} before the student learns: make "
                f"them by `kpod run EXPERIMENT --until {missing[-1]} --run FOLDER`, and give run=FOLDER"
            )
        for arrow in arrows:
            if arrow.artefact is not None and not (folder / arrow.artefact).is_file():
                with writing(folder / arrow.artefact, among_others=True) as aside:
                    arrow.save(aside, arrow.make(context))
        return context
