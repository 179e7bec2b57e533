"""The memory plan: parameters exact, kept activations as autograd has them, sizes of LLaMA-7B by hand."""

import contextlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, LlamaConfig, Qwen3Config, T5Config

from kpod_lightning.commands.doctor.architecture import SHAPES, architecture, known_architecture
from kpod_lightning.commands.doctor.memory import (
    GIB,
    Load,
    Numerics,
    blocks,
    ends_bytes,
    generation_plan,
    llama_block_bytes,
    loss_bytes,
    plan,
)
from kpod_lightning.commands.doctor.planner import Planner, changes, phases, train_load, with_settings
from kpod_lightning.config import RunConfig
from kpod_lightning.data.views import IGNORE, View, collate
from kpod_lightning.store.errors import InputError
from kpod_lightning.students.forward import packs
from kpod_lightning.students.linear_nll import CHUNK_BYTES
from kpod_lightning.students.nll import losses
from kpod_lightning.students.student import Student, add_lora, load_student

PUBLISHED = {
    "llama-7b": 6_738_415_616,
    "llama-3.2-1b": 1_235_814_400,
    "qwen3-0.6b": 596_049_920,
    "smollm2-135m": 134_515_008,
    "smollm2-360m": 361_821_120,
    "flan-t5-base": 247_577_856,
    "flan-t5-large": 783_150_080,
    "flan-t5-xl": 2_849_757_184,
}
"""Parameters of the checkpoints on the Hugging Face hub."""

HEADS = {"num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 4}
SIZES = {"vocab_size": 101, "hidden_size": 64, "intermediate_size": 176, "tie_word_embeddings": False}
SMALL = {
    "llama": LlamaConfig(head_dim=16, **SIZES, **HEADS),
    "qwen3": Qwen3Config(head_dim=16, **SIZES, **HEADS),
    "t5": T5Config(
        vocab_size=101,
        d_model=64,
        d_ff=176,
        num_layers=4,
        num_decoder_layers=3,
        num_heads=4,
        d_kv=16,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.1,
        decoder_start_token_id=0,
    ),
}


def kept_bytes(student, batch, precision) -> int:
    """What autograd keeps of the loss but parameters and 16-bit copies of them."""
    storages = {}

    def pack(tensor):
        if not isinstance(tensor, torch.nn.Parameter):
            storages[tensor.untyped_storage().data_ptr()] = tensor  # kept alive, so that no address is used twice
        return tensor

    mixed = torch.autocast("cpu", torch.bfloat16) if precision == "bf16-mixed" else contextlib.nullcontext()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), mixed:
        sums, _ = losses(student, batch)
    assert sums.weighted.requires_grad
    shapes = {parameter.shape for parameter in student.model.parameters()}
    shapes |= {shape[::-1] for shape in shapes}
    own = {parameter.untyped_storage().data_ptr() for parameter in student.model.parameters()}
    return sum(
        tensor.untyped_storage().nbytes()
        for address, tensor in storages.items()
        if address not in own and tensor.shape not in shapes
    )


def student_of(family, lora_rank=None) -> Student:
    config = SMALL[family]
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model = kind.from_config(config, attn_implementation="sdpa")
    student = Student(family, model, SimpleNamespace(pad_token_id=0, eos_token_id=1), config.is_encoder_decoder)
    return add_lora(student, lora_rank, None, 0) if lora_rank else student


def batch_of(student, rows, length, asked, mask):
    """``asked`` targets behind ``length - asked`` shown tokens, or behind ``length`` of an encoder."""

    def view(length, asked):
        shown = [] if student.encoder_decoder else [IGNORE] * (length - asked)
        labels = shown + torch.randint(0, 90, (asked,)).tolist()
        return View(input_ids=torch.randint(0, 90, (length,)).tolist(), labels=labels, weights=[1.0] * len(labels))

    short = 10 if mask == "padding" else 0
    views = [view(length - short, asked - short), *(view(length, asked) for _ in range(rows - 1))]
    return collate(views, [("", 0)] * rows, pad_token_id=0, divisor=1, packed=mask == "packed")


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_have_the_published_number_of_parameters(name):
    assert known_architecture(name).parameters == PUBLISHED[name]
    assert set(SHAPES) == set(PUBLISHED)


def test_parameters_of_a_shipped_student_are_counted_exactly(student):
    arch = architecture(student.model.config)
    assert arch.parameters == student.model.num_parameters()
    assert arch.tied == (student.model.lm_head.weight is student.model.get_input_embeddings().weight)


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-t5"])
def test_lora_parameters_are_counted_exactly(name):
    student = load_student(name)
    arch = architecture(student.model.config)
    adapted: Student = add_lora(student, 6, None, seed=0)
    assert 6 * arch.lora_ranked == sum(p.numel() for p in adapted.model.parameters() if p.requires_grad)


CASES = [("llama", "packed"), ("llama", "none"), ("llama", "padding"), ("qwen3", "packed"), ("qwen3", "padding")]


@pytest.mark.parametrize("precision", ["32-true", "bf16-true", "bf16-mixed"])
@pytest.mark.parametrize("lora_rank", [None, 8])
@pytest.mark.parametrize(("family", "mask"), [*CASES, ("t5", "packed"), ("t5", "padding")])
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_kept_activations_of_the_loss_are_those_of_autograd(family, mask, lora_rank, precision):
    rows, length, asked = 3, 40, 24
    student = student_of(family, lora_rank)
    student.model.train()
    if mask == "packed":
        assert packs(student, must=True)
    if precision == "bf16-true":
        student.model.to(torch.bfloat16)
    kept = kept_bytes(student, batch_of(student, rows, length, asked, mask), precision)

    numerics = Numerics(precision=precision, lora_rank=lora_rank, on_gpu=False)
    decoder_length = asked if student.encoder_decoder else 0
    load = Load(rows=rows, length=length, decoder_length=decoder_length, num_logits=asked, mask=mask)
    arch = architecture(SMALL[family])
    planned = ends_bytes(arch, load, numerics)
    planned += sum(number * block for number, block, _ in blocks(arch, load, numerics))
    # Left out of the plan: position factors, masks shared by all layers, ids; and with LoRA the first block's input,
    # which has no gradient, is not kept.
    assert kept == pytest.approx(planned, rel=0.04)


# ---- LLaMA-7B by hand: 6.74e9 parameters, 32 blocks, hidden 4096, intermediate 11008, 32 heads ----

LLAMA_7B = Load(rows=4, length=512, num_logits=512)


@pytest.fixture(scope="module")
def llama_7b():
    return known_architecture("llama-7b")


def test_states_of_llama_7b_are_16_bytes_a_parameter(llama_7b):
    planned = plan(llama_7b, LLAMA_7B, Numerics())
    assert planned.parts["parameters"] / GIB == pytest.approx(25.1, abs=0.01)
    assert planned.parts["optimiser states"] / GIB == pytest.approx(50.2, abs=0.01)
    assert planned.parts["gradients"] / GIB == pytest.approx(25.1, abs=0.01)


def test_a_block_of_llama_7b_keeps_what_is_counted_by_hand(llama_7b):
    # Float32, a token: norms 6 x 4096, queries, keys, values and result 4 x 4096, feed-forward 4 x 11008 numbers, and
    # a log-sum for each of 32 heads; rows of equal length have no mask.
    load = Load(rows=2, length=300, num_logits=1, mask="none")
    assert llama_block_bytes(llama_7b, load, Numerics()) == 600 * 4 * (10 * 4096 + 4 * 11008 + 32)


def test_lora_of_llama_7b_at_rank_64(llama_7b):
    # Four maps of 4096 x 4096 and three of 4096 x 11008 in each block.
    assert 64 * llama_7b.lora_ranked == 32 * 64 * (4 * 8192 + 3 * 15104)


def test_fsdp_shards_the_states_and_gathers_two_blocks(llama_7b):
    planned = plan(llama_7b, LLAMA_7B, Numerics(sharded=True), num_devices=8)
    assert planned.parts["parameters"] / GIB == pytest.approx(25.1 / 8, abs=0.01)
    outside, block = 2 * 32000 * 4096 + 4096, 4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096
    in_forward = 4 * (outside + 2 * block)
    in_backward = in_forward + 4 * (outside + block)
    assert planned.parts["gathered blocks"] in (in_forward, in_backward)


def test_offloading_leaves_no_states_on_the_device(llama_7b):
    planned = plan(llama_7b, LLAMA_7B, Numerics(sharded=True), num_devices=4, cpu_offload=True)
    assert not {"parameters", "optimiser states", "gradients"} & planned.parts.keys()
    assert planned.host == 16 * llama_7b.parameters / 4


def test_generation_of_llama_7b_caches_a_mebibyte_a_token(llama_7b):
    planned = generation_plan(llama_7b, Numerics(), rows=32, prompt=128, num_new=256)
    assert (
        planned.parts["keys and values"] == 32 * 384 * 2 * 33 * 4096 * 4
    )  # keys and values, layers (one is copied), width, float32


# ---- Comparisons ----


def total(arch, load=LLAMA_7B, *, numerics=None, **settings) -> float:
    return plan(arch, load, numerics or Numerics(), **settings).total


def test_more_work_takes_more(llama_7b):
    base = total(llama_7b)
    for more in ({"rows": 8}, {"length": 1024}, {"num_logits": 5120, "rows": 16}):
        assert total(llama_7b, replace(LLAMA_7B, **more)) > base
    assert total(llama_7b, numerics=Numerics(lora_rank=128)) > total(llama_7b, numerics=Numerics(lora_rank=64))
    assert total(llama_7b, num_devices=2, ddp=True) > base
    assert total(llama_7b, checkpointing=True, accumulates=True) >= total(llama_7b, checkpointing=True)


def test_what_is_said_to_save_memory_does(llama_7b):
    base, long = total(llama_7b), replace(LLAMA_7B, rows=16)
    assert total(llama_7b, long, checkpointing=True) < total(llama_7b, long)
    assert total(llama_7b, numerics=Numerics(lora_rank=64)) < base
    assert total(llama_7b, numerics=Numerics(precision="bf16-true")) < base
    sharded = Numerics(sharded=True)
    by_devices = [total(llama_7b, numerics=sharded, num_devices=num) for num in (2, 4, 8, 16)]
    assert base > by_devices[0] and by_devices == sorted(by_devices, reverse=True)
    assert total(llama_7b, numerics=sharded, num_devices=4, cpu_offload=True) < by_devices[1]


# ---- The loss, by hand: Llama 7B's head has 32,000 x 4,096 numbers ----


def loss_of(arch, load, **numerics) -> tuple[float, float]:
    return loss_bytes(arch, load, Numerics(**numerics))


def test_a_fused_loss_holds_a_chunk_of_logits_and_the_gradients_of_head_and_hidden_states(llama_7b):
    gradients = 4 * 32000 * 4096 + 4 * 2048 * 4096
    assert loss_of(llama_7b, LLAMA_7B, on_gpu=False) == (CHUNK_BYTES["cpu"] + gradients, gradients)
    few = replace(LLAMA_7B, rows=1, num_logits=10)
    assert loss_of(llama_7b, few)[0] == 10 * 4 * (32000 + 4096) + 4 * 32000 * 4096


def test_a_fused_loss_of_lora_has_no_gradient_of_the_head(llama_7b):
    gradient = 2048 * 4096 * 4
    found = loss_of(llama_7b, LLAMA_7B, lora_rank=64, on_gpu=False)
    assert found == (CHUNK_BYTES["cpu"] + gradient, gradient)


def test_a_fused_loss_in_16_bits_has_narrow_copies_of_chunks_and_gradient(llama_7b):
    gradients = (4 + 2) * 32000 * 4096 + 2 * 2048 * 4096
    for precision in ("bf16-true", "bf16-mixed"):
        found = loss_of(llama_7b, LLAMA_7B, precision=precision, on_gpu=False)
        assert found == (3 * CHUNK_BYTES["cpu"] + gradients, gradients)


def test_the_last_block_keeps_the_feed_forward_layer_of_asked_positions_alone(llama_7b):
    packed, padded = (replace(LLAMA_7B, num_logits=500, mask=mask) for mask in ("packed", "padding"))
    assert len({kept for _, kept, _ in blocks(llama_7b, padded, Numerics())}) == 1
    (_, block, _), (number, last, _) = blocks(llama_7b, packed, Numerics())
    # A token's norm result and four tensors of the feed-forward layer, float32, of 12 shown tokens in each of 4 rows.
    assert (number, block - last) == (1, 4 * 12 * 4 * (4096 + 4 * 11008))


def test_the_loss_of_the_weights_phase_holds_all_logits(llama_7b):
    whole = replace(LLAMA_7B, fused=False)
    entries = 4 * 512 * 32000
    assert loss_of(llama_7b, whole) == (12 * entries, 12 * entries + 4 * 32000 * 4096)


# ---- From the settings ----


@pytest.fixture
def config() -> RunConfig:
    return RunConfig(seed=0)


def test_plain_distillation_has_no_weights_phase(config, llama_7b):
    assert set(phases(config, llama_7b, llama_7b)) == {"weights", "difficulties", "train", "validation"}
    plain = replace(config, method="plain")
    assert set(phases(plain, llama_7b, llama_7b)) == {"train", "validation"}


def test_difficulties_take_the_parameters_and_one_block(config, llama_7b):
    found = phases(config, llama_7b, llama_7b)["difficulties"]
    assert not {"gradients", "optimiser states"} & found.parts.keys()
    rows, length = 16, config.student.max_length
    # Float32, a token: stream, norm's input and result, three tensors of the feed-forward layer; and a row's mask.
    assert found.parts["activations"] == rows * length * 4 * (3 * 4096 + 3 * 11008 + length)
    assert found.total < 1.2 * 4 * llama_7b.parameters


def test_a_training_that_is_not_packed_has_masks(config, llama_7b):
    def mask_of(rows, packing, arch=llama_7b):
        return train_load(with_settings(config, {"optim.batch_size": rows, "optim.packing": packing}), arch, 1)[0].mask

    assert (mask_of(4, None), mask_of(4, False), mask_of(1, False)) == ("packed", "padding", "none")
    narrow = LlamaConfig(head_dim=16, **SIZES, **HEADS)
    narrow.sliding_window = 8
    assert mask_of(4, None, architecture(narrow)) == "padding"


@pytest.mark.parametrize(("method", "rows"), [("plain", 3), ("scotd", 3), ("mcc_kd", 6), ("step_by_step", 6)])
def test_a_method_that_puts_two_examples_together_has_rows_for_both(config, llama_7b, method, rows):
    asked = with_settings(config, {"optim.batch_size": 12, "optim.micro_batch_size": 3})
    load, accumulates = train_load(replace(asked, method=method), llama_7b, 2)
    assert (load.rows, accumulates) == (rows, True)
    assert not train_load(replace(asked, method=method), llama_7b, 4)[1]


def test_a_device_takes_its_share_of_the_global_batch(config, llama_7b):
    asked = with_settings(config, {"optim.batch_size": 32, "optim.precision": "bf16-mixed"})
    assert (
        phases(asked, llama_7b, llama_7b, num_devices=8)["train"].parts.get("activations", 0)
        <= phases(asked, llama_7b, llama_7b, num_devices=1)["train"].parts["activations"] / 7
    )


def test_all_prefixes_take_more_than_two(config, llama_7b):
    few = phases(config, llama_7b, llama_7b)["weights"]
    many = phases(with_settings(config, {"weights.prefixes": "all"}), llama_7b, llama_7b)["weights"]
    assert many.total > 2 * few.total


def test_the_proposed_change_fits(config, llama_7b):
    planner = Planner(student=llama_7b, answer_model=llama_7b, memory=80 * GIB, on_gpu=True)
    assert not planner.fits(config, 8)
    changed = planner.change(config, 8)
    assert changed == {"launch.strategy": "fsdp"}
    sharded = with_settings(config, changed)
    assert planner.fits(sharded, 8)
    fewest = planner.fewest_devices(sharded)
    assert fewest is not None and planner.fits(sharded, fewest) and not planner.fits(sharded, fewest // 2)


def test_nothing_fits_a_device_of_a_gibibyte(config, llama_7b):
    planner = Planner(student=llama_7b, answer_model=llama_7b, memory=GIB, on_gpu=True)
    assert planner.change(config, 1) is None and planner.fewest_devices(config) is None


def test_changes_are_settings_that_exist(config):
    proposed = list(changes(config, 4))
    assert proposed
    for tried in proposed:
        changed = with_settings(config, tried)  # an unknown name is a TypeError
        for key, value in tried.items():
            part, name = key.split(".")
            assert getattr(getattr(changed, part), name) == value != getattr(getattr(config, part), name)


def test_a_family_that_is_not_planned_is_named():
    from transformers import GPT2Config

    with pytest.raises(InputError, match="gpt2"):
        architecture(GPT2Config())


@pytest.mark.slow
def test_plan_is_within_a_fifth_of_a_real_training():
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, str(root / "benchmarks" / "bench_doctor.py"), "llama-50m"]
    environment = os.environ | {"PYTHONPATH": str(root), "CUDA_VISIBLE_DEVICES": ""}
    ran = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    ratio = float(ran.stdout.splitlines()[-1].split("GiB")[-1].split()[0])
    assert 0.8 < ratio < 1.25, ran.stdout
