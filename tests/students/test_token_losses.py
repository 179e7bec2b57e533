"""Token losses of the student before distillation, and their artefact."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from kpod_lightning.config import RunConfig
from kpod_lightning.data.batches import batches_by_length
from kpod_lightning.data.example_table import ExampleTable, lengths_of, save_examples
from kpod_lightning.data.examples import make_examples
from kpod_lightning.data.texts import text_of
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.keys import Keys
from kpod_lightning.students.losses_before import LOSSES, loss_arrow, losses_before
from kpod_lightning.students.token_losses import TokenLossModule, token_loss_loader


@pytest.fixture
def context(student, rationales, tmp_path):
    """What a method's arrows are given, as far as this one asks."""
    texts, keys = [text_of(rationale) for rationale in rationales], [rationale.key for rationale in rationales]
    made = make_examples(keys, texts, student.tokenizer, encoder_decoder=student.encoder_decoder)
    save_examples([made], tmp_path / "examples")
    examples = ExampleTable(tmp_path / "examples")
    return SimpleNamespace(
        config=RunConfig(seed=0), student=student, reading=lambda: student, examples=examples, folder=tmp_path
    )


def test_token_losses_are_those_of_each_rationale_alone(context, student):
    examples = context.examples
    module = TokenLossModule(student)
    with torch.no_grad():
        batches = batches_by_length(lengths_of(examples), 5)
        rows = [row for batch in token_loss_loader(examples, student, batches) for row in module.predict_step(batch, 0)]
        losses = dict(zip((examples[i].key for batch in batches for i in batch), rows, strict=True))
        for example in examples:
            prompt, target = torch.tensor([example.prompt_ids]), torch.tensor([example.target_ids])
            if student.encoder_decoder:
                prompt = torch.cat([prompt, torch.tensor([[student.tokenizer.eos_token_id]])], 1)
                logits = student.model(input_ids=prompt, labels=target).logits[0]
            else:
                logits = student.model(torch.cat([prompt, target], 1)).logits[0, prompt.shape[1] - 1 : -1]
            alone = torch.nn.functional.cross_entropy(logits, target[0], reduction="none")
            np.testing.assert_allclose(losses[example.key], alone.numpy(), rtol=1e-4, atol=1e-4)


def test_the_artefact_has_a_loss_for_every_target_token_and_the_same_bytes_each_time(context):
    arrow = loss_arrow()
    path = context.folder / LOSSES
    arrow.save(path, arrow.make(context))
    first = path.read_bytes()
    arrow.save(path, arrow.make(context))
    assert path.read_bytes() == first
    rows = losses_before(context)
    assert [len(row) for row in rows] == [len(example.target_ids) for example in context.examples]
    module = TokenLossModule(context.student)
    with torch.no_grad():
        (batch,) = token_loss_loader(context.examples, context.student, [np.array([3])])
        (alone,) = module.predict_step(batch, 0)
    np.testing.assert_allclose(rows[3], alone, rtol=1e-4, atol=1e-4)
    assert sorted(entry.name for entry in context.folder.iterdir()) == ["examples", LOSSES]


def test_losses_of_other_examples_or_a_broken_file_are_one_line(context):
    arrow = loss_arrow()
    path = context.folder / LOSSES
    keys, rows = arrow.make(context)
    arrow.save(path, (Keys.of(reversed(list(keys))), rows))
    with pytest.raises(InputError, match="is of other examples"):
        losses_before(context)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="no file of token losses"):
        losses_before(context)
