"""Packed rows give the losses and gradients of padded ones: both families, all stages, LoRA, other architectures."""

import random

import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from kpod_lightning.data.views import IGNORE, View, collate
from kpod_lightning.distributed.sharding import recompute_activations
from kpod_lightning.students import packing
from kpod_lightning.students.forward import packs, run, why_not_packed
from kpod_lightning.students.linear_nll import LossSums
from kpod_lightning.students.nll import logits_and_targets, losses, weighted_sums
from kpod_lightning.students.nll import token_nll as plain_nll
from kpod_lightning.students.packing import prepare_packing
from kpod_lightning.students.student import Student, add_lora, load_student

STUDENTS = ["tiny-llama", "tiny-t5"]
VOCABULARY = 96
SIZES = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


def student_of(model):
    """A random model with the tokenizer of a shipped student, of which nothing but the padding is read."""
    return Student(
        name="random", model=model.eval(), tokenizer=load_student("tiny-llama").tokenizer, encoder_decoder=False
    )


def views_of(student, number=5, seed=0):
    """Examples of several lengths with weights of any sign, one of a single target, one of all but one."""
    rng = random.Random(seed)
    vocabulary = student.model.get_input_embeddings().weight.shape[0]
    views = []
    for i in range(number):
        length = rng.randint(4, 30)
        first = [length - 1, 1][i] if i < 2 else rng.randint(1, length - 1)
        ids = [rng.randrange(vocabulary) for _ in range(length)]
        weights = [rng.uniform(-1, 2) for _ in ids]
        if student.encoder_decoder:
            views.append(View(input_ids=ids[:first], labels=ids[first:], weights=weights[first:]))
        else:
            hidden = [IGNORE] * first
            views.append(View(input_ids=ids, labels=hidden + ids[first:], weights=[0.0] * first + weights[first:]))
    return views


def batch_of(student, views, packed):
    keys = [("p", i) for i in range(len(views))]
    return collate(views, keys, pad_token_id=student.pad_token_id, divisor=1, packed=packed)


def sums_and_grads(student, batch, fused):
    """Loss, losses of all targets, and the gradient of every trained parameter."""
    student.model.zero_grad()
    if fused:
        sums, nll = losses(student, batch)
    else:
        logits, targets, weights = logits_and_targets(student, batch)
        nll = plain_nll(logits, targets)
        sums = weighted_sums(nll, weights)
    sums.weighted.backward()
    trained = [p for p in student.model.parameters() if p.requires_grad]
    return [*sums[:4], nll.detach(), *(p.grad.clone() for p in trained if p.grad is not None)]


def assert_packed_is_padded(student, views=None, **tolerance):
    views = views_of(student) if views is None else views
    slow = sums_and_grads(student, batch_of(student, views, False), fused=False)
    for packed, fused in ((False, True), (True, False), (True, True)):
        ours = sums_and_grads(student, batch_of(student, views, packed), fused)
        assert len(ours) == len(slow) > len(LossSums._fields)
        for one, other in zip(ours, slow, strict=True):
            torch.testing.assert_close(one, other, **tolerance)


def packed_student(name, dtype=torch.float32):
    """A shipped student that takes packed rows, without dropout."""
    student = load_student(name, dtype=dtype)
    student.model.eval()
    assert packs(student, must=True)
    return student


@pytest.mark.parametrize("name", STUDENTS)
def test_packed_and_fused_losses_and_gradients_are_those_of_padded_rows_and_all_logits(name):
    student = packed_student(name, torch.float64)
    assert_packed_is_padded(student, rtol=1e-5, atol=1e-5 if student.encoder_decoder else 1e-9)  # T5's norm is float32


@pytest.mark.parametrize("name", STUDENTS)
def test_in_bfloat16_packed_losses_differ_by_rounding_alone(name):
    student = packed_student(name)
    views = views_of(student)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        one, other = (sums_and_grads(student, batch_of(student, views, packed), True)[4] for packed in (False, True))
    assert one.dtype == torch.float32
    assert (one - other).abs().mean() < 2**-7 * one.abs().mean()


@pytest.mark.parametrize("name", STUDENTS)
def test_adapters_get_the_gradients_of_padded_rows(name):
    student = add_lora(load_student(name, dtype=torch.float64), 4, None, 0)
    student.model.double().eval()
    assert packs(student, must=True)
    assert_packed_is_padded(student, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", STUDENTS)
def test_recomputed_activations_change_no_packed_gradient(name):
    student = load_student(name, dtype=torch.float64)
    student.model.train()
    for module in student.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    assert packs(student, must=True)
    batch = batch_of(student, views_of(student), True)
    kept = sums_and_grads(student, batch, True)
    recompute_activations(student.model)
    torch.testing.assert_close(sums_and_grads(student, batch, True), kept)


@pytest.mark.parametrize("name", STUDENTS)
def test_no_example_sees_another(name):
    student = packed_student(name)
    views = views_of(student)
    with torch.no_grad():
        together = losses(student, batch_of(student, views, True))[1]
        alone = torch.cat([losses(student, batch_of(student, [each], True))[1] for each in views])
    assert (together - alone).abs().max() < 1e-5


@pytest.mark.parametrize("name", STUDENTS)
def test_a_student_that_was_prepared_is_packed_when_it_is_trained_again(name):
    student = load_student(name)
    assert packs(student) and packs(student)
    hooks = [len(module._forward_pre_hooks) for module in student.model.modules()]
    assert packs(student, must=True)
    assert hooks == [len(module._forward_pre_hooks) for module in student.model.modules()]


@pytest.mark.parametrize("name", STUDENTS)
def test_a_prepared_student_computes_padded_rows_as_before(name):
    student = load_student(name)
    student.model.eval()
    batch = batch_of(student, views_of(student), False)
    with torch.no_grad():
        before = run(student, batch).logits
        assert packs(student, must=True)
        assert torch.equal(run(student, batch).logits, before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the kernel for rows of many lengths needs a GPU")
def test_on_a_gpu_one_kernel_gives_what_attention_example_by_example_gives(monkeypatch):
    torch.manual_seed(0)
    config = Qwen3Config(**SIZES | {"hidden_size": 128}, intermediate_size=48, num_key_value_heads=2, head_dim=32)
    student = student_of(Qwen3ForCausalLM(config).cuda().bfloat16())
    prepare_packing(student.model)
    batch = batch_of(student, views_of(student), True).to(torch.device("cuda"))
    by_kernel = sums_and_grads(student, batch, True)
    monkeypatch.setattr(packing, "_has_kernel", lambda *_: False)
    for one, other in zip(by_kernel, sums_and_grads(student, batch, True), strict=True):
        assert (one - other).float().norm() <= 2**-5 * other.float().norm() + 1e-6  # bfloat16 has 8 bits


OTHERS = {
    "qwen3, grouped queries": lambda: Qwen3ForCausalLM(
        Qwen3Config(**SIZES, intermediate_size=48, num_key_value_heads=2, head_dim=8)
    ),
    "granite, scaled logits": lambda: GraniteForCausalLM(
        GraniteConfig(**SIZES, intermediate_size=48, num_key_value_heads=2, logits_scaling=3.0)
    ),
    "gpt-2, learned positions": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    ),
    "gpt-neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**SIZES, intermediate_size=48)),
    "opt": lambda: OPTForCausalLM(
        OPTConfig(**SIZES, ffn_dim=48, word_embed_proj_dim=32, max_position_embeddings=64, dropout=0.0)
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_architectures_are_packed_and_their_losses_are_those_of_padded_rows(name):
    torch.manual_seed(0)
    student = student_of(OTHERS[name]().double())
    assert why_not_packed(student) is None
    assert_packed_is_padded(student, rtol=1e-5, atol=1e-6)  # some norms and rotations are float32


NOT_PACKED = {
    "mamba, whose states go on": lambda: MambaForCausalLM(
        MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, state_size=4)
    ),
    "bloom, whose biases follow the mask": lambda: BloomForCausalLM(
        BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4)
    ),
    "mistral, which sees a window": lambda: MistralForCausalLM(
        MistralConfig(**SIZES, intermediate_size=48, num_key_value_heads=2, sliding_window=8)
    ),
    "gemma 2, whose scores are capped": lambda: Gemma2ForCausalLM(
        Gemma2Config(**SIZES, intermediate_size=48, num_key_value_heads=2, head_dim=8)
    ),
}


@pytest.mark.parametrize("name", NOT_PACKED)
def test_students_that_cannot_be_packed_are_padded_with_the_same_losses_as_all_logits(name, capsys):
    torch.manual_seed(0)
    student = student_of(NOT_PACKED[name]())
    attention = student.model.config._attn_implementation
    assert not packs(student)
    assert "is trained on padded batches: " in " ".join(capsys.readouterr().out.split())
    assert student.model.config._attn_implementation == attention
    batch = batch_of(student, views_of(student), False)
    slow, ours = (sums_and_grads(student, batch, fused) for fused in (False, True))
    torch.testing.assert_close(ours, slow, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", STUDENTS)
def test_every_target_knows_its_example_packed_or_padded(name):
    student = packed_student(name)
    views = views_of(student, 5)
    counts = [sum(label != IGNORE for label in each.labels) for each in views]
    expected = [i for i, count in enumerate(counts) for _ in range(count)]
    for packed in (True, False):
        assert batch_of(student, views, packed).example_of.tolist() == expected


@pytest.mark.parametrize("name", STUDENTS)
def test_a_choice_among_the_targets_weighs_them_with_and_without_their_logits(name):
    """The half of largest p |w|: fused, the logits are made twice; the sums and gradients are the same."""
    student = packed_student(name, torch.float64)
    batch = batch_of(student, views_of(student, 5), True)

    def weigh(logits, nll, targets, weights):
        return weights.abs() * torch.exp(-nll)

    def choose(nll, weights):
        return (weights >= weights.median()).to(weights.dtype)

    found = {}
    for fused in (True, False):
        student.model.zero_grad()
        student.ends_with_head = fused
        sums, _ = losses(student, batch, weigh, choose=choose)
        sums.weighted.backward()
        found[fused] = [sums.weighted, sums.mass, *(p.grad.clone() for p in student.model.parameters())]
    assert batch.num_targets // 2 <= found[True][1] <= batch.num_targets // 2 + 1
    torch.testing.assert_close(found[True], found[False], rtol=1e-5, atol=1e-6)
