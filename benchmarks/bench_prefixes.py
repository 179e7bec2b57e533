"""Answer losses after every prefix of a rationale in one pass, against a pass for each prefix; prints the ratio.

Forward and backward, tiny-llama, rationales of at least 40 tokens, one at a time and sixteen together.
"""

import time

import torch
from bench_training import generated_examples

from kpod_lightning.config import WeightsConfig
from kpod_lightning.data.examples import Example
from kpod_lightning.keypoints.batches import collate_keypoints
from kpod_lightning.keypoints.module import KeypointModule
from kpod_lightning.keypoints.network import WeightNetwork
from kpod_lightning.keypoints.prefixes import answer_nll, prefix_ends
from kpod_lightning.students.student import load_student


def seconds(module: KeypointModule, examples: list[Example], *, together: bool) -> tuple[float, float]:
    """Time and summed loss of all prefixes of the examples."""
    batch = collate_keypoints(examples, module.answer_model.pad_token_id)
    ends, shares = prefix_ends(batch, "all", 0)
    began, total = time.perf_counter(), 0.0
    for columns in [slice(None)] if together else [slice(k, k + 1) for k in range(ends.shape[1])]:
        trunk = module.masked_trunk(batch, torch.ones(batch.trunk_ids.shape))
        nll = answer_nll(module.answer_model, batch, trunk, ends[:, columns])
        loss = (nll * shares[:, columns]).sum()
        loss.backward()
        total += loss.item()
    return time.perf_counter() - began, total


def main() -> None:
    torch.set_num_threads(1)
    student = load_student("tiny-llama")
    module = KeypointModule(load_student("tiny-llama"), WeightNetwork(student), WeightsConfig(), updates_per_epoch=1)
    examples = [e for e in generated_examples(student, 200) if e.num_rationale_tokens >= 40][:16]
    for size in (1, len(examples)):
        one, each = [], []
        for _ in range(3):
            (time_one, loss_one), (time_each, loss_each) = (
                seconds(module, examples[:size], together=together) for together in (True, False)
            )
            assert abs(loss_one - loss_each) < 1e-3 * abs(loss_each), (loss_one, loss_each)
            one.append(time_one)
            each.append(time_each)
        longest = max(e.num_rationale_tokens for e in examples[:size])
        print(
            f"{size} rationales, up to {longest} tokens: one pass {1000 * min(one):.0f} ms, "
            f"a pass for each prefix {1000 * min(each):.0f} ms, {min(each) / min(one):.1f} times as long"
        )


if __name__ == "__main__":
    main()
