"""Keypoint weights on toys and on the shipped students."""

import lightning as L
import numpy as np
import pytest
import torch

from kpod_lightning.config import WeightsConfig
from kpod_lightning.data.batches import batches_by_length
from kpod_lightning.data.examples import make_example
from kpod_lightning.data.views import IGNORE
from kpod_lightning.keypoints.batches import KeypointDataModule, collate_keypoints, retokenised_answer
from kpod_lightning.keypoints.masks import budget_logits, sample_masks, score_surrogate, top_share
from kpod_lightning.keypoints.module import (
    KeypointModule,
    ProjectedEmbedding,
    held_out_masks,
    num_held_out_masks,
)
from kpod_lightning.keypoints.network import FirstBlockFeatures, WeightNetwork
from kpod_lightning.keypoints.prefixes import answer_nll, prefix_ends
from kpod_lightning.store.errors import InputError
from kpod_lightning.students.student import load_student


def examples_of(student, rationales):
    return [make_example(r, student.tokenizer, encoder_decoder=student.encoder_decoder) for r in rationales]


def module_of(name, dtype=torch.float32, **settings):
    torch.manual_seed(0)
    network = WeightNetwork(load_student(name, dtype=dtype), settings.get("features", "first_block")).to(dtype)
    config = WeightsConfig(**settings)
    return KeypointModule(load_student(name, dtype=dtype), network, config, updates_per_epoch=2).to(dtype)


def test_budget_gives_every_row_its_share_whatever_the_scores():
    torch.manual_seed(0)
    scores = 3 * torch.randn(50, 40, dtype=torch.float64)
    mask = torch.arange(40) < torch.randint(1, 41, (50, 1))
    for share in (0.05, 0.3, 0.9):
        w = torch.sigmoid(budget_logits(scores, mask, share)) * mask
        torch.testing.assert_close(w.sum(1) / mask.sum(1), torch.full((50,), share, dtype=torch.float64))


def test_budget_keeps_the_order_of_scores_and_ignores_what_is_masked():
    scores = torch.tensor([[2.0, -1.0, 0.5, 99.0]])
    mask = torch.tensor([[True, True, True, False]])
    logits = budget_logits(scores, mask, 0.3)
    other = budget_logits(torch.tensor([[2.0, -1.0, 0.5, -99.0]]), mask, 0.3)
    torch.testing.assert_close(logits[:, :3], other[:, :3])
    assert logits[0, :3].argsort().tolist() == [1, 2, 0]


def test_gradient_through_the_budget_is_that_of_finite_differences():
    torch.manual_seed(0)
    scores = torch.randn(3, 7, dtype=torch.float64, requires_grad=True)
    mask = torch.arange(7) < torch.tensor([[7], [4], [2]])
    direction = torch.randn(3, 7, dtype=torch.float64)

    def value(g):
        return (direction * torch.sigmoid(budget_logits(g, mask, 0.3)) * mask).sum()

    (gradient,) = torch.autograd.grad(value(scores), scores)
    step = 1e-5
    for i in range(3):
        for j in range(7):
            bump = torch.zeros_like(scores)
            bump[i, j] = step
            with torch.no_grad():
                slope = (value(scores + bump) - value(scores - bump)) / (2 * step)
            assert gradient[i, j].item() == pytest.approx(slope.item(), abs=1e-8)
    # A common rise of all scores changes no weight.
    torch.testing.assert_close(gradient.sum(1), torch.zeros(3, dtype=torch.float64), atol=1e-12, rtol=0)


def test_hard_masks_are_binary_with_the_asked_probability_and_the_gradient_of_the_soft_ones():
    probabilities = torch.tensor([0.1, 0.5, 0.9])
    logits = torch.logit(probabilities).repeat(20_000, 1).requires_grad_()
    torch.manual_seed(1)
    hard = sample_masks(logits, 0.7)
    torch.manual_seed(1)
    soft = sample_masks(logits, 0.7, hard=False)
    assert set(hard.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(hard.mean(0), probabilities, atol=0.015, rtol=0)
    one, other = (torch.autograd.grad(mask.sum(), logits, retain_graph=True)[0] for mask in (hard, soft))
    torch.testing.assert_close(one, other)
    assert (one >= 0).all() and one.mean() > 0.05


@pytest.mark.parametrize(("share", "count"), [(0.3, 3), (0.01, 1), (0.99, 10)])
def test_top_share_keeps_the_largest_weights_and_at_least_one(share, count):
    weights = torch.tensor([[0.1, 0.9, 0.3, 0.8, 0.2, 0.7, 0.4, 0.6, 0.5, 0.05, 5.0]])
    mask = torch.tensor([[True] * 10 + [False]])
    kept = top_share(weights, mask, share)
    assert kept.sum() == count and kept[0, 10] == 0
    assert kept[0, 1] == 1
    assert weights[kept.bool()].min() >= weights[mask & ~kept.bool()].max() if count < 10 else True


@pytest.mark.parametrize("scheme", ["stratified", "unbiased", "step_ends", "all"])
def test_prefixes_lie_within_the_rationale_and_their_shares_sum_to_one(scheme, student, rationales):
    batch = collate_keypoints(examples_of(student, rationales), student.pad_token_id)
    ends, shares = prefix_ends(batch, scheme, 6)
    assert (ends >= 0).all() and (ends <= batch.lengths[:, None]).all()
    torch.testing.assert_close(shares.sum(1), torch.ones(len(ends)))
    assert ((ends == batch.lengths[:, None]) & (shares > 0)).any(1).all()  # the whole is among them
    for i, n in enumerate(batch.lengths.tolist()):
        counted = ends[i, shares[i] > 0].tolist()
        if scheme == "all":
            assert counted == list(range(n + 1))
        if scheme == "step_ends":
            assert counted[0] == 0 and counted == sorted(set(counted))
            assert len(counted) == 1 + examples_of(student, rationales)[i].num_steps


def test_unbiased_prefixes_estimate_the_mean_over_all(student, rationales):
    batch = collate_keypoints(examples_of(student, rationales)[:1], student.pad_token_id)
    n = int(batch.lengths)
    torch.manual_seed(0)
    draws = [prefix_ends(batch, "unbiased", 4) for _ in range(4000)]
    estimate = sum(float((shares * ends.double() ** 2).sum()) for ends, shares in draws) / len(draws)
    assert estimate == pytest.approx(sum(k**2 for k in range(n + 1)) / (n + 1), rel=0.02)


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-t5"])
def test_all_prefixes_at_once_equal_one_sequence_for_each(name, rationales):
    module = module_of(name, torch.float64)
    module.eval()
    student = module.answer_model
    examples = examples_of(student, rationales)[:3]
    batch = collate_keypoints(examples, student.pad_token_id)
    torch.manual_seed(2)
    mask = (torch.rand(batch.trunk_ids.shape) < 0.5).double()
    with torch.no_grad():
        trunk = module.masked_trunk(batch, mask)
        ends, _ = prefix_ends(batch, "all", 0)
        together = answer_nll(student, batch, trunk, ends)
        embed = module.model.get_input_embeddings()
        for i, example in enumerate(examples):
            answer = torch.tensor(example.target_ids[example.num_rationale_tokens : -1])
            num_answer = len(example.target_ids) - 1 - example.answer_start
            for k in range(example.num_rationale_tokens + 1):
                shown = trunk[i : i + 1, : len(example.prompt_ids) + k]
                if student.encoder_decoder:
                    closing = embed(torch.tensor([[student.tokenizer.eos_token_id]]))
                    logits = module.model(
                        inputs_embeds=torch.cat([shown, closing], 1),
                        decoder_input_ids=module.model.prepare_decoder_input_ids_from_labels(labels=answer[None]),
                    ).logits[0, -num_answer:]
                else:
                    whole = torch.cat([shown, embed(answer[None])], 1)
                    logits = module.model(inputs_embeds=whole).logits[0, -num_answer - 1 : -1]
                alone = torch.nn.functional.cross_entropy(logits.float(), answer[-num_answer:], reduction="sum")
                assert together[i, k].item() == pytest.approx(alone.item(), abs=2e-5)


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-t5"])
def test_all_masks_of_held_out_rationales_at_once_equal_a_pass_for_each(name, rationales):
    module = module_of(name, torch.float64)
    module.eval()
    student = module.answer_model
    batch = collate_keypoints(examples_of(student, rationales)[:2], student.pad_token_id)
    inside, ends = batch.rationale_mask, batch.lengths[:, None]
    torch.manual_seed(5)
    together = module.held_out_nats(batch)
    torch.manual_seed(5)
    with torch.no_grad():
        named = held_out_masks(module.weights(batch), inside, module.config.share)
        for key, masks in named.items():
            alone = [answer_nll(student, batch, module.masked_trunk(batch, mask), ends)[:, 0] for mask in masks]
            torch.testing.assert_close(together[key], torch.stack(alone).mean(0), atol=2e-5, rtol=0)
    assert set(together) == set(named)
    assert num_held_out_masks(module.config.share) == sum(map(len, named.values()))


def test_a_masked_token_cannot_be_told_from_another_masked_token(rationales):
    module = module_of("tiny-llama")
    batch = collate_keypoints(examples_of(module.answer_model, rationales)[:2], module.answer_model.pad_token_id)
    mask = torch.zeros(batch.trunk_ids.shape)
    trunk = module.masked_trunk(batch, mask)
    inside = batch.rationale_mask
    assert (trunk[inside] == module.mask_embedding).all()
    assert torch.equal(trunk[~inside], module.model.get_input_embeddings()(batch.trunk_ids)[~inside])


def test_targets_are_the_answer_and_nothing_else(student, rationales):
    examples = examples_of(student, rationales)
    batch = collate_keypoints(examples, student.pad_token_id)
    for row, rationale in zip(batch.answer_targets, rationales, strict=True):
        assert student.tokenizer.decode(row[row != IGNORE]).strip() == rationale.problem.answer


class Toy(torch.nn.Module):
    """Scores of its own for three tokens; the loss below falls when the first is kept and rises with the last."""

    def __init__(self):
        super().__init__()
        self.scores = torch.nn.Parameter(torch.zeros(1, 3))


@pytest.mark.parametrize("hard", [True, False])
def test_gradient_of_the_prediction_reaches_the_scores_with_the_right_sign(hard):
    torch.manual_seed(0)
    toy = Toy()
    mask = torch.ones(1, 3, dtype=torch.bool)
    effect = torch.tensor([-2.0, 0.0, 1.0])  # of each token's embedding on the answer's loss
    total = torch.zeros(1, 3)
    for _ in range(200):
        kept = sample_masks(budget_logits(toy.scores, mask, 0.3), 0.7, hard=hard)
        total += torch.autograd.grad((kept * effect).sum(), toy.scores)[0]
    assert total[0, 0] < 0 < total[0, 2]  # descent keeps the first token more and the last one less


def test_the_score_estimate_is_the_gradient_of_the_expected_loss_of_a_function_with_steps():
    torch.manual_seed(0)
    logits = torch.tensor([-0.8, 0.3, 0.1], dtype=torch.float64, requires_grad=True)
    masks = torch.tensor([[i >> k & 1 for k in range(3)] for i in range(8)], dtype=torch.float64)
    losses = torch.randn(8, dtype=torch.float64)  # any function of the mask: nothing to differentiate
    w = torch.sigmoid(logits)
    chance = torch.where(masks == 1, w, 1 - w).prod(1)
    (exact,) = torch.autograd.grad((chance * losses).sum(), logits)
    drawn = torch.multinomial(chance.detach(), 200_000, replacement=True)
    rows = logits.expand(len(drawn), -1)
    inside = torch.ones(len(drawn), 3, dtype=torch.bool)
    (estimate,) = torch.autograd.grad(score_surrogate(losses[drawn], masks[drawn], rows, inside), logits)
    torch.testing.assert_close(estimate, exact, atol=0.01, rtol=0)
    assert exact.abs().max() > 0.05
    alone = score_surrogate(losses[:1], masks[:1], rows[:1], inside[:1])
    assert torch.autograd.grad(alone, logits)[0].abs().max() == 0


@pytest.mark.parametrize("features", ["embedding", "first_block"])
@pytest.mark.parametrize("name", ["tiny-llama", "tiny-t5"])
def test_answer_loss_has_a_gradient_at_every_learned_parameter_of_the_network(name, features, rationales):
    module = module_of(name, features=features)
    batch = collate_keypoints(examples_of(module.answer_model, rationales)[:4], module.answer_model.pad_token_id)
    torch.manual_seed(0)
    mask = sample_masks(module.logits(batch), 0.7)
    nll = answer_nll(module.answer_model, batch, module.masked_trunk(batch, mask), batch.lengths[:, None])
    nll.sum().backward()
    learned = {n: p for n, p in module.network.named_parameters() if p.requires_grad}
    assert learned and not any(".frozen." in n for n in learned)
    # A bias in front of the budget moves all scores of a row alike, which changes no weight.
    without = [n for n, p in learned.items() if p.grad is None or not p.grad.abs().max() > 0]
    assert set(without) <= {"mlp.2.bias", "features.attention.in_proj_bias"}
    assert module.mask_embedding.grad.abs().max() > 0
    assert next(module.model.parameters()).grad is not None  # θ_w learns too


def train(rationales, epochs=3, name="tiny-llama", **settings):
    settings = {"warmup_epochs": 1, "epochs": epochs - 1, "batch_size": 4} | settings
    module = module_of(name, **settings)
    student = module.answer_model
    examples = examples_of(student, rationales)
    data = KeypointDataModule(examples, range(8), pad_token_id=student.pad_token_id, batch_size=4, seed=3)
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        reload_dataloaders_every_n_epochs=1,
        use_distributed_sampler=False,
    )
    trainer.fit(module, datamodule=data)
    rows = [row for rows in trainer.predict(module, datamodule=data) for row in rows]
    keys = [examples[i].key for batch in data.weighed_batches() for i in batch]
    return dict(zip(keys, rows, strict=True)), examples, module


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-t5"])
def test_every_rationale_gets_weights_of_the_budget_and_the_same_ones_again(name, rationales):
    weights, examples, _ = train(rationales, name=name)
    again, _, _ = train(rationales, name=name)
    assert list(weights) != [] and set(weights) == {e.key for e in examples}
    for example in examples:
        assert len(weights[example.key]) == example.num_rationale_tokens
        assert weights[example.key].mean() == pytest.approx(0.3, abs=1e-5)
        np.testing.assert_array_equal(weights[example.key], again[example.key])


def test_warming_up_leaves_the_weight_network_alone(rationales):
    before = module_of("tiny-llama").network.learned()
    _, _, module = train(rationales, epochs=2, warmup_epochs=2)
    for name, value in module.network.learned().items():
        np.testing.assert_array_equal(value, before[name])


def test_weights_do_not_depend_on_what_they_are_batched_with(student, rationales):
    module = module_of(student.name, torch.float64)
    examples = examples_of(student, rationales)
    whole = module.weights(collate_keypoints(examples, student.pad_token_id))
    for i, example in enumerate(examples):
        alone = module.weights(collate_keypoints([example], student.pad_token_id))[0]
        torch.testing.assert_close(whole[i, : len(alone)], alone)
        assert (whole[i, len(alone) :] == 0).all()


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-t5"])
def test_kept_features_give_the_weights_and_gradients_of_computed_ones_in_any_batch(name, rationales):
    module = module_of(name)
    student = module.answer_model
    data = KeypointDataModule(
        examples_of(student, rationales), [5, 0, 2], pad_token_id=student.pad_token_id, batch_size=3, seed=0
    )
    block = module.network.features.block

    def results(positions):
        batch = data.collate(positions)
        module.zero_grad()
        weights = module.weights(batch)
        (weights**2).sum().backward()
        return weights.detach(), [p.grad.clone() for p in module.network.parameters() if p.grad is not None]

    computed = [results(positions) for positions in ([5, 1, 2], [0])]
    data.keep(lambda batch: block(batch.trunk_ids, batch.trunk_mask, batch.rationale_mask))
    for positions, expected in zip(([5, 1, 2], [0]), computed, strict=True):
        torch.testing.assert_close(results(positions), expected, atol=1e-5, rtol=1e-4)


def test_the_frozen_block_is_computed_once_a_rationale(rationales, monkeypatch):
    computed = []
    plain = FirstBlockFeatures.block
    monkeypatch.setattr(FirstBlockFeatures, "block", lambda *given: computed.append(len(given[1])) or plain(*given))
    _, examples, _ = train(rationales)
    assert sum(computed) == len(examples)
    monkeypatch.setattr("kpod_lightning.keypoints.module.MOST_KEPT", 0)
    computed.clear()
    train(rationales)  # two epochs on 8 of them, then the weights of all
    assert sum(computed) == 2 * 8 + len(examples)


def test_another_tokenizer_reads_the_same_answer_in_its_own_tokens(student, rationales, reads_whole_numbers):
    other = load_student(str(reads_whole_numbers))
    answer_tokens = retokenised_answer(student.tokenizer, other.tokenizer)
    examples = examples_of(student, rationales)
    for example, rationale in zip(examples, rationales, strict=True):
        ids, first = answer_tokens(example)
        assert other.tokenizer.decode(ids) == f" Therefore, the answer is {rationale.problem.answer}"
        assert other.tokenizer.decode(ids[first:]).strip() == rationale.problem.answer
    batch = collate_keypoints(examples, student.pad_token_id, answer_tokens)
    assert (batch.trunk_ids == collate_keypoints(examples, student.pad_token_id).trunk_ids).all()


def test_another_tokenizer_learns_through_the_projection(student, rationales, reads_whole_numbers):
    other = load_student(str(reads_whole_numbers))
    projected = ProjectedEmbedding(student, other)
    module = KeypointModule(other, WeightNetwork(student), WeightsConfig(), updates_per_epoch=1, projected=projected)
    answer_tokens = retokenised_answer(student.tokenizer, other.tokenizer)
    batch = collate_keypoints(examples_of(student, rationales), student.pad_token_id, answer_tokens)
    trunk = module.masked_trunk(batch, sample_masks(module.logits(batch), 0.7))
    answer_nll(other, batch, trunk, batch.lengths[:, None]).sum().backward()
    assert projected.projection.weight.grad.abs().max() > 0
    assert module.network.mlp[0].weight.grad.abs().max() > 0
    lengths = projected(batch.trunk_ids).detach()[batch.trunk_mask.bool()].norm(dim=-1)
    theirs = other.model.get_input_embeddings().weight.detach().norm(dim=1)
    assert lengths.mean().item() == pytest.approx(theirs.mean().item(), rel=0.5)


def test_masking_the_features_leaks_the_neighbours_and_zero_masks_are_zero(rationales):
    module = module_of("tiny-llama", features="embedding", mask_place="features", mask_with="zero")
    student = module.answer_model
    batch = collate_keypoints(examples_of(student, rationales)[:1], student.pad_token_id)
    inside = batch.rationale_mask
    assert (module.masked_trunk(batch, torch.zeros(inside.shape))[inside] == 0).all()
    one, other = inside.int().argmax().item(), inside.int().argmax().item() + 1
    changed = batch.trunk_ids.clone()
    changed[0, other] = 5
    kept = torch.nn.functional.one_hot(torch.tensor([one]), inside.shape[1]).float()
    before = module.masked_trunk(batch, kept)
    batch.trunk_ids = changed
    after = module.masked_trunk(batch, kept)
    assert not torch.equal(before[0, one], after[0, one])  # a masked neighbour is felt through the attention layer
    assert torch.equal(before[0, other], after[0, other])


def test_the_temperature_falls_from_the_first_to_the_last_step_in_which_both_learn(rationales, monkeypatch):
    module = module_of("tiny-llama", gradient="straight_through", temperature=1.0, final_temperature=0.25)
    module.num_warmup_steps, module.num_steps = 4, 11
    found = []
    for step in (0, 4, 9, 14, 20):
        monkeypatch.setattr(KeypointModule, "global_step", step)
        found.append(module.temperature())
    assert found == pytest.approx([1.0, 1.0, 0.5, 0.25, 0.25])


def test_batches_by_length_rise_in_length_and_are_of_even_size():
    batches = batches_by_length([3, 9, 1, 9, 4, 3, 8], 3)
    assert [batch.tolist() for batch in batches] == [[2, 0, 5], [4, 6], [1, 3]]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"final_temperature": 0.1}, "weights.final_temperature"),
        ({"sample": "soft"}, "weights.sample=soft"),
        ({"mask_place": "features"}, "weights.features"),
        ({"share": 1.0}, "weights.share"),
        ({"share": 0.0}, "weights.share"),
        ({"alpha": 0.5}, "weights.alpha is set but weights.form=budget"),
        ({"form": "other"}, "weights.form"),
        ({"features": "second_block"}, "weights.features"),
        ({"num_prefixes": 0}, "weights.num_prefixes"),
    ],
)
def test_settings_that_contradict_are_refused_by_name(settings, words):
    with pytest.raises(InputError, match=words):
        WeightsConfig(**settings)
