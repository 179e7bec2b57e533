import copy

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    FalconH1Config,
    Gemma2Config,
    GenerationConfig,
    GPT2Config,
    MambaConfig,
    MistralConfig,
)

from kpod_lightning.data.arithmetic import generate as make_problems
from kpod_lightning.data.template import prompt_text
from kpod_lightning.evaluation import greedy
from kpod_lightning.evaluation.generate import decoding, decoding_with, pad_prompts, prompt_ids
from kpod_lightning.evaluation.greedy import can_retire, greedily
from kpod_lightning.students.student import add_lora

PROBLEMS = [made.problem for made in make_problems("test", 8, seed=5)]


def prompts(student, number=8):
    rows = [prompt_ids(prompt_text(problem), student) for problem in PROBLEMS[:number]]
    ids, mask = pad_prompts(rows, student.pad_token_id, left=not student.encoder_decoder)
    return {"input_ids": ids, "attention_mask": mask}


def continued(student, batch, config, **loop):
    """New ids of each row, ends and padding included."""
    student.model.eval()
    with torch.no_grad(), decoding_with(student.model, config):
        ids = student.model.generate(**batch, **loop)
    return ids[:, 1 if student.encoder_decoder else batch["input_ids"].shape[1] :]


def with_ends(student, number, max_new_tokens=24, **settings):
    """Decoding that also ends at the ``number`` rarest of the tokens that the student writes: at different places."""
    config = decoding(student, max_new_tokens, **settings)
    tokens, counts = continued(student, prompts(student), config).unique(return_counts=True)
    config.eos_token_id = [*config.eos_token_id, *tokens[counts.argsort(stable=True)][:number].tolist()]
    return config


def compared(student, batch, config):
    theirs, ours = continued(student, batch, config), continued(student, batch, config, custom_generate=greedily)
    assert torch.equal(ours, theirs)
    return ours


@pytest.mark.parametrize("max_new_tokens, number", [(1, 0), (2, 8), (24, 0), (24, 4), (24, 8), (24, 1000)])
def test_the_tokens_are_those_of_the_library(student, max_new_tokens, number):
    compared(student, prompts(student), with_ends(student, number, max_new_tokens))


def test_a_prompt_alone_is_continued_as_by_the_library(student):
    compared(student, prompts(student, 1), with_ends(student, 0))


def test_a_step_computes_only_rows_that_go_on(student, monkeypatch):
    monkeypatch.setattr(greedy, "KEPT", 1.0)
    config, sizes = with_ends(student, 8), []
    hook = student.model.register_forward_hook(lambda module, args, output: sizes.append(len(output.logits)))
    try:
        new = continued(student, prompts(student), config, custom_generate=greedily)
    finally:
        hook.remove()
    ended = torch.isin(new, torch.tensor(config.eos_token_id))
    ends = torch.where(ended.any(1), ended.int().argmax(1) + 1, new.shape[1]).tolist()  # some go on to the limit
    assert len(set(ends)) > 2
    assert sizes == [sum(end >= step for end in ends) for step in range(1, max(ends) + 1)]


@pytest.mark.parametrize("kept", [0.0, 0.5, 1.0])
def test_when_rows_leave_changes_no_token(student, kept, monkeypatch):
    monkeypatch.setattr(greedy, "KEPT", kept)
    compared(student, prompts(student), with_ends(student, 8))


def test_adapters_are_decoded_as_by_the_library(student):
    adapted = add_lora(copy.deepcopy(student), 2, None, 0)
    with torch.no_grad():
        for name, parameter in adapted.model.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.3)
    assert can_retire(adapted.model)
    config = with_ends(student, 4)
    assert not torch.equal(compared(adapted, prompts(adapted), config), compared(student, prompts(student), config))


def test_penalties_are_left_to_the_library(student):
    odd = with_ends(student, 0, repetition_penalty=1.7)
    assert not torch.equal(
        compared(student, prompts(student), odd), compared(student, prompts(student), with_ends(student, 0))
    )


SMALL = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
OTHERS = {
    "window": MistralConfig(**SMALL, num_key_value_heads=1, sliding_window=8),
    "window and whole": Gemma2Config(**SMALL, num_key_value_heads=1, head_dim=8, sliding_window=8),
    "with a state": FalconH1Config(
        **SMALL, num_key_value_heads=1, mamba_d_ssm=16, mamba_n_heads=2, mamba_d_head=8, mamba_d_state=4
    ),
    "state alone": MambaConfig(vocab_size=40, hidden_size=16, state_size=4, num_hidden_layers=2),
    "absolute positions": GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_families_are_decoded_as_by_the_library(kind):
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(OTHERS[kind]).eval()
    ids, mask = pad_prompts([torch.randint(3, 40, (size,)).tolist() for size in (12, 5, 9, 3)], 0, left=True)
    config = GenerationConfig(max_new_tokens=20, eos_token_id=list(range(2, 40, 6)), pad_token_id=0)
    with torch.no_grad(), decoding_with(model, config):
        theirs, ours = (
            model.generate(input_ids=ids, attention_mask=mask, **loop) for loop in ({}, {"custom_generate": greedily})
        )
    assert torch.equal(ours, theirs)
