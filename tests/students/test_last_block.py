"""The last feed-forward part at asked positions: hidden states and gradients are those of the whole pass."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from kpod_lightning.distributed.sharding import recompute_activations
from kpod_lightning.students.last_block import feed_forward_at, last_feed_forward

LLAMA = {
    **{"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2},
    **{"num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0, "vocab_size": 40},
}
FAMILIES = {
    "llama": LLAMA,
    "qwen2": LLAMA,
    "gemma2": LLAMA,  # a norm behind the part
    "olmo2": LLAMA,
    "phi3": LLAMA,
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 40},
    "gpt_neox": {**{name: LLAMA[name] for name in LLAMA if name != "num_key_value_heads"}},  # beside the attention
}
OTHERS = {
    "mixtral": LLAMA | {"num_local_experts": 2},
    "opt": {"hidden_size": 16, "ffn_dim": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 40},
}


def model_of(family, settings):
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **settings)
    return AutoModelForCausalLM.from_config(config).double().eval()


def losses_and_gradients(model, ids, asked, positions=None):
    model.zero_grad()
    if positions is None:
        logits = model(input_ids=ids).logits
    else:
        with feed_forward_at(model, positions):
            logits = model(input_ids=ids).logits
    logits[:, asked].logsumexp(-1).sum().backward()
    return logits[:, asked].detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_gradients_are_those_of_the_whole_pass(family):
    model = model_of(family, FAMILIES[family])
    assert last_feed_forward(model) is not None
    ids = torch.randint(2, 40, (3, 9))
    asked = torch.tensor([2, 6, 7])
    whole, gradients = losses_and_gradients(model, ids, asked)
    part, others = losses_and_gradients(model, ids, asked, positions=asked)
    torch.testing.assert_close(part, whole)
    torch.testing.assert_close(others, gradients)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_the_part_sees_the_asked_positions_alone():
    model = model_of("llama", LLAMA)
    seen = []
    last_feed_forward(model).up_proj.register_forward_hook(lambda module, args, result: seen.append(result.shape[1]))
    with feed_forward_at(model, torch.tensor([4])):
        model(input_ids=torch.randint(2, 40, (2, 9)))
    model(input_ids=torch.randint(2, 40, (2, 9)))
    assert seen == [1, 9]


@pytest.mark.parametrize("family", OTHERS)
def test_a_family_whose_part_is_not_known_computes_everything(family):
    model = model_of(family, OTHERS[family]).float()  # experts are multiplied in float32 at most
    ids, asked = torch.randint(2, 40, (2, 6)), torch.tensor([3])
    assert last_feed_forward(model) is None
    torch.testing.assert_close(losses_and_gradients(model, ids, asked, asked), losses_and_gradients(model, ids, asked))


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated:FutureWarning")
def test_activations_that_are_computed_again_are_computed_whole():
    model = model_of("llama", LLAMA).train()
    recompute_activations(model)
    assert last_feed_forward(model) is None
    assert last_feed_forward(model.eval()) is not None


def test_a_block_that_runs_twice_in_a_pass_is_told():
    model = model_of("llama", LLAMA)
    model.model.layers[0] = model.model.layers[1]
    with pytest.raises(RuntimeError, match="more than once"), feed_forward_at(model, torch.tensor([1])):
        model(input_ids=torch.randint(2, 40, (1, 4)))
