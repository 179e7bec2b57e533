import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from kpod_lightning.store.errors import InputError
from kpod_lightning.students.export import merged
from kpod_lightning.students.lora import linear_maps, said, transposed
from kpod_lightning.students.student import Student, add_lora

LLAMA = {
    **{"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2},
    **{"num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1},
}
OURS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 2}
GATED_T5 = T5 | {"feed_forward_proj": "gated-gelu"}
BART = {
    **{"d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2},
    **{"decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_position_embeddings": 32},
}
BLOOM = {"hidden_size": 16, "n_layer": 2, "n_head": 2}
OPT = {"hidden_size": 16, "ffn_dim": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "word_embed_proj_dim": 8}
GPT_NEOX = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
QKVO = ["q_proj", "k_proj", "v_proj", "out_proj"]

FAMILIES = {
    "llama": (LLAMA, {name: 2 for name in OURS}),
    "mistral": (LLAMA, {name: 2 for name in OURS}),
    "qwen2": (LLAMA, {name: 2 for name in OURS}),
    "gemma": (LLAMA | {"head_dim": 8}, {name: 2 for name in OURS}),
    "phi3": (LLAMA, {name: 2 for name in ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")}),
    "opt": (OPT, {name: 2 for name in (*QKVO, "fc1", "fc2")}),
    "bart": (BART, {name: 6 for name in QKVO} | {"fc1": 4, "fc2": 4}),
    "t5": (T5, {name: 6 for name in "qkvo"} | {"wi": 4, "wo": 4}),
    "mt5": (GATED_T5, {name: 6 for name in "qkvo"} | {"wi_0": 4, "wi_1": 4, "wo": 4}),
    "gpt2": ({"n_embd": 16, "n_layer": 2, "n_head": 2}, {"c_attn": 2, "c_proj": 4, "c_fc": 2}),
    "bloom": (BLOOM, {name: 2 for name in ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")}),
    "falcon": (
        {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2},
        {name: 2 for name in ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")},
    ),
    "gpt_neox": (GPT_NEOX, {name: 2 for name in ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")}),
}


def tiny(kind, **settings) -> Student:
    config = AutoConfig.for_model(kind, vocab_size=40, **settings)
    family = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    torch.manual_seed(0)
    model = family.from_config(config).eval()
    return Student(name=kind, model=model, tokenizer=None, encoder_decoder=bool(config.is_encoder_decoder))


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_linear_map_of_the_blocks_is_adapted_whatever_its_name(kind):
    settings, expected = FAMILIES[kind]
    student = add_lora(tiny(kind, **settings), rank=2, alpha=None, seed=0)
    adapted: dict[str, int] = {}
    for place, module in student.model.named_modules():
        if hasattr(module, "lora_A"):
            name = place.rpartition(".")[2]
            adapted[name] = adapted.get(name, 0) + 1
    assert adapted == expected


@pytest.mark.parametrize("kind", ["gpt2", "qwen2", "bart", "phi3", "mt5"])
def test_merged_adapters_compute_what_the_adapters_did(kind):
    student = add_lora(tiny(kind, **FAMILIES[kind][0]), rank=2, alpha=6, seed=0)
    plain = tiny(kind, **FAMILIES[kind][0])
    for name, weights in student.model.named_parameters():
        if ".lora_B." in name or name.endswith(".bias"):
            torch.nn.init.normal_(weights, std=0.3)
    state = dict(merged(student.model.state_dict(), 3.0, transposed(plain.model)))
    plain.model.load_state_dict(state)
    ids = torch.arange(2, 12)[None]
    inputs = {"input_ids": ids} | ({"decoder_input_ids": ids} if student.encoder_decoder else {})
    with torch.no_grad():
        torch.testing.assert_close(plain.model(**inputs).logits, student.model.eval()(**inputs).logits)


def test_the_adapted_maps_are_said_by_name(capsys):
    student = tiny("phi3", **LLAMA)
    line = "LoRA of rank 2 adapts 8 linear maps: 2 down_proj, 2 gate_up_proj, 2 o_proj, 2 qkv_proj"
    assert said(linear_maps(student.model, "phi3"), 2) == line


def test_experts_that_are_one_tensor_are_refused_and_not_left_out():
    settings = LLAMA | {"num_local_experts": 2, "num_experts_per_tok": 1}
    with pytest.raises(InputError, match=r"experts.*student\.lora_rank=null"):
        add_lora(tiny("mixtral", **settings), rank=2, alpha=None, seed=0)


def test_a_model_without_blocks_is_refused():
    model = torch.nn.Sequential(torch.nn.Embedding(4, 4))
    with pytest.raises(InputError, match="no linear map to adapt"):
        linear_maps(model, "none")
