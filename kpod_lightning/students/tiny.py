"""Builds the shipped students, tiny-llama and tiny-t5: tokenizer, architecture, seeded pretraining, card.

They calculate with numbers up to 99 and write rationales in the benchmark's wording that do not follow the question:
what distillation has to teach them in minutes on a processor is to solve it. Run as
``python -m kpod_lightning.students.tiny``.
"""

import argparse
import json
import math
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from torch.nn import functional
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from kpod_lightning.store.files import ASSETS
from kpod_lightning.students.tiny_card import card_of
from kpod_lightning.students.tiny_texts import FIRST, pretraining_text

STUDENTS = ("tiny-llama", "tiny-t5")

PAD, EOS = "<pad>", "</s>"

VOCABULARY_SIZE = 1024

MAX_LENGTH = 1024

PROMPT_WEIGHT = 0.3
"""Weight of a prompt token's loss; a prompt is mostly random numbers, so it teaches less than its target."""

# English for the vocabulary only: common words, so that other benchmarks are not cut into single letters.
ENGLISH = """
the of and to in a is that it was for on are as with his they at be this from have or by one had not but
what all were when we there can an your which their said if do will each about how up out them then she many
some so these would other into has more her two like him see time could no make than first been its who now
people my made over did down only way find use may water long little very after words called just where most
know get through back much before go good new write our used me man too any day same right look think also
around another came come work three word must because does part even place well such here take why things
help put years different away again off went old number great tell men say small every found still between
name should home big give air line set own under read last never us left end along while might next sound
below saw something thought both few those always looked show large often together asked house world going
want school important until form food keep children feet land side without boy once animals life enough took
four head above kind began almost live page got earth need far hand high year mother light parts country
father let night following picture being study second eyes soon times story boys since white days ever paper
hard near sentence better best across during today others however sure means knew try told young miles sun
ways thing whole hear example heard several change answer room sea against top turned learn point city play
toward five using himself usually money seen car morning body upon family later turn move face door cut done
group true half red fish plants living black eat short run book gave order open ground cold really table
remember tree course front space inside ago sad early learned brought close nothing though idea before lived
became add become grow draw yet less wind behind cannot letter among able dog shown mean English rest
perhaps certain six feel fire ready green yes built special ran full town complete oh person hot anything
hold state list stood hundred ten fast felt kept notice strong voice probably area horse matter stand box
start that class piece surface river common stop am talk whether fine buy buys bought sell sells sold cost
costs price share shares equal equally left remaining total each every times twice more less fewer many much
total sum difference result therefore because so thus hence plus minus divided multiplied begins starts gets
gives has had holds adds takes makes leaves keeps spends Question Answer Let step Therefore First Then Next
After Finally At By In On With He She They The There How What Which dollars cents hours minutes week month
percent cakes eggs apples books pencils cards coins boxes bags packs trays
"""


@dataclass(frozen=True, kw_only=True)
class Round:
    """One round of pretraining, with an optimiser of its own."""

    num_updates: int
    learning_rate: float
    name: str = ""
    """Empty for the first round; a later one reads texts of its own, a decoder in short blocks (``causal_batches``)."""
    odds: Mapping[str, float] = field(default_factory=lambda: FIRST)
    """Of the kinds of text (``pretraining_text``)."""
    block_size: int = 192


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """Pretraining of one student: rounds, batch size and optimiser settings."""

    rounds: tuple[Round, ...]
    batch_size: int
    """Texts of an encoder-decoder, or 192 tokens each of a decoder."""
    num_warmup_updates: int = 50
    weight_decay: float = 0.05
    seed: int = 0
    num_vocabulary_texts: int = 4000


SUMS = {"sum": 12.0, "word_sum": 3.0, "reading": 1.0}

CONCLUSIONS = {"sum": 4.0, "word_sum": 4.0, "reading": 1.0, "conclusion": 6.0}

STORIES = {"story": 6.0, "sum": 2.0, "word_sum": 1.0, "reading": 1.0}

PRETRAINING = {
    "tiny-llama": Pretraining(
        rounds=(
            Round(num_updates=2500, learning_rate=3e-3),
            Round(num_updates=900, learning_rate=2e-3, name="drill", odds=SUMS, block_size=48),
            Round(num_updates=2500, learning_rate=2e-3, name="stories", odds=STORIES, block_size=256),
        ),
        batch_size=8,
    ),
    # Sums take longest to learn, and reading an answer off a text is not learned from them.
    "tiny-t5": Pretraining(
        rounds=(
            Round(num_updates=6000, learning_rate=2e-3),
            Round(num_updates=5000, learning_rate=2e-3, name="drill", odds=SUMS),
            Round(num_updates=600, learning_rate=1e-3, name="conclusions", odds=CONCLUSIONS),
            Round(num_updates=2500, learning_rate=1e-3, name="stories", odds=STORIES),
        ),
        batch_size=64,
    ),
}


def build_tokenizer(which: str, settings: Pretraining) -> PreTrainedTokenizerFast:
    """Byte-level BPE: decoding gives back any text exactly, and every digit is a token of its own."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=[PAD, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = [
        "".join(pretraining_text(i, settings.seed, odds))
        for odds in (FIRST, {"story": 1.0})
        for i in range(settings.num_vocabulary_texts)
    ]
    # The English list is short, so it is repeated to weigh about as much as the templates.
    tokenizer.train_from_iterator(texts + [ENGLISH.replace("\n", " ")] * 50, trainer)
    if which == "tiny-t5":
        eos_id = tokenizer.token_to_id(EOS)
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"$A {EOS}", pair=f"$A {EOS} $B {EOS}", special_tokens=[(EOS, eos_id)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )


def build_model(which: str, tokenizer: PreTrainedTokenizerFast, seed: int) -> Any:
    """The untrained student, about a million parameters, with greedy generation settings."""
    torch.manual_seed(seed)
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    if which == "tiny-llama":
        model: Any = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=128,
                intermediate_size=384,
                num_hidden_layers=4,
                num_attention_heads=4,
                num_key_value_heads=4,
                max_position_embeddings=MAX_LENGTH,
                tie_word_embeddings=True,
                bos_token_id=None,
                **ids,
            )
        )
    else:
        model = T5ForConditionalGeneration(
            T5Config(
                vocab_size=len(tokenizer),
                d_model=128,
                d_kv=32,
                d_ff=256,
                num_layers=3,
                num_decoder_layers=3,
                num_heads=4,
                feed_forward_proj="gated-gelu",
                dropout_rate=0.0,  # a million parameters underfit; dropout would only slow them
                **ids,
            )
        )
        ids["decoder_start_token_id"] = tokenizer.pad_token_id
        model.config.decoder_start_token_id = tokenizer.pad_token_id
    model.generation_config = GenerationConfig(do_sample=False, num_beams=1, **ids)
    return model


def seed_of(settings: Pretraining, reading: Round) -> int | str:
    return f"{settings.seed}/{reading.name}" if reading.name else settings.seed


def causal_batches(tokenizer: Any, settings: Pretraining, reading: Round) -> Iterator[dict[str, Tensor]]:
    """Texts one after another, each ended by EOS, cut into blocks; labels weigh less on prompts.

    The first round cuts one endless stream. In later rounds blocks are short and each begins with the start of a text:
    a student that has never seen a text at position 0 fails there.
    """
    apart = bool(reading.name)
    block_size = reading.block_size
    num_blocks = settings.batch_size * Round.block_size // block_size
    size = block_size * (1 if apart else num_blocks)
    ids: list[int] = []
    weights: list[float] = []
    blocks: list[tuple[list[int], list[float]]] = []
    for index in count():
        pair = pretraining_text(index, seed_of(settings, reading), reading.odds)
        prompt, target = (tokenizer(text).input_ids for text in pair)
        ids += [*prompt, *target, tokenizer.eos_token_id]
        weights += [PROMPT_WEIGHT] * len(prompt) + [1.0] * (len(target) + 1)
        if len(ids) < size:
            continue
        blocks.append((ids[:size], weights[:size]))
        ids, weights = ([], []) if apart else (ids[size:], weights[size:])
        if len(blocks) * size == num_blocks * block_size:
            shape = (num_blocks, block_size)
            yield {
                "input_ids": torch.tensor([block[0] for block in blocks]).view(shape),
                "weights": torch.tensor([block[1] for block in blocks]).view(shape),
            }
            blocks = []


def causal_loss(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Weighted mean loss of the next token, in nats."""
    logits = model(input_ids=batch["input_ids"]).logits[:, :-1]
    nll = functional.cross_entropy(logits.flatten(0, 1), batch["input_ids"][:, 1:].flatten(), reduction="none")
    weights = batch["weights"][:, 1:].flatten()
    return (nll * weights).sum() / weights.sum()


def seq2seq_batches(tokenizer: Any, settings: Pretraining, reading: Round) -> Iterator[dict[str, Tensor]]:
    """Prompts for the encoder and targets for the decoder, padded, of similar length within a batch."""
    num_pooled = 16  # batches sorted by length together, which saves most of the padding
    size = num_pooled * settings.batch_size
    generator = torch.Generator().manual_seed(settings.seed)
    generator_of_rows = random.Random(settings.seed)
    for start in count(step=3 * size):
        read = [pretraining_text(start + i, seed_of(settings, reading), reading.odds) for i in range(3 * size)]
        # A result alone is one or two tokens, too little to learn from: the decoder writes the whole sum, and
        # up to four in a row, as a rationale does.
        sums = [text for text in read if text[0].endswith("=")]
        texts = [text for text in read if not text[0].endswith("=")]
        while sums:
            row = [sums.pop() for _ in range(min(len(sums), generator_of_rows.randint(1, 4)))]
            texts.append((" ".join(prompt for prompt, _ in row), " ".join("".join(text) for text in row)))
        texts = generator_of_rows.sample(texts, size)
        texts.sort(key=lambda text: (len(text[1]), len(text[0])))
        for batch in torch.randperm(num_pooled, generator=generator).tolist():
            chosen = texts[batch * settings.batch_size : (batch + 1) * settings.batch_size]
            inputs = tokenizer([prompt for prompt, _ in chosen], padding=True, return_tensors="pt")
            labels = tokenizer([target for _, target in chosen], padding=True, return_tensors="pt")
            yield {
                "input_ids": inputs.input_ids,
                "attention_mask": inputs.attention_mask,
                "labels": labels.input_ids.masked_fill(labels.attention_mask == 0, -100),
            }


def pretrain(which: str, settings: Pretraining) -> tuple[Any, PreTrainedTokenizerFast]:
    """A student that has read; the same settings on the same versions give the same weights."""
    tokenizer = build_tokenizer(which, settings)
    model = build_model(which, tokenizer, settings.seed)
    read = causal_batches if which == "tiny-llama" else seq2seq_batches
    model.train()
    for reading in settings.rounds:
        train(which, model, read(tokenizer, settings, reading), reading, settings)
    return model.eval(), tokenizer


def train(which: str, model: Any, batches: Iterator[dict[str, Tensor]], reading: Round, settings: Pretraining) -> None:
    """AdamW with a short warm-up and a cosine to a fiftieth."""
    matrices = [weights for weights in model.parameters() if weights.ndim > 1]
    vectors = [weights for weights in model.parameters() if weights.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": settings.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=reading.learning_rate,
        betas=(0.9, 0.98),
    )

    def factor(update: int) -> float:
        warm = min(1.0, (update + 1) / settings.num_warmup_updates)
        return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * update / reading.num_updates)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    start = time.perf_counter()
    for update in range(reading.num_updates):
        batch = next(batches)
        loss = causal_loss(model, batch) if which == "tiny-llama" else model(**batch).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if update % 50 == 49 or update + 1 == reading.num_updates:
            seconds = time.perf_counter() - start
            progress = f"{update + 1}/{reading.num_updates}  {loss.item():.3f} nats  {seconds:.0f} s"
            print(f"{which}: {reading.name or 'first round'}, update {progress}", flush=True)


def build(which: str, folder: Path, settings: Pretraining) -> None:
    """Pretrain, measure and write one student with its card."""
    model, tokenizer = pretrain(which, settings)
    model.save_pretrained(folder)
    tokenizer.backend_tokenizer.no_padding()  # padded batches leave their setting behind
    tokenizer.save_pretrained(folder)
    # Its name before transformers 5, which both generations of the library load.
    path = folder / "tokenizer_config.json"
    written = json.loads(path.read_text(encoding="utf-8"))
    written["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    for path in folder.iterdir():
        path.chmod(0o644)  # weights are written readable by their owner alone
    unit = f"blocks of {Round.block_size} tokens" if which == "tiny-llama" else "texts"
    card = card_of(folder, model, tokenizer, read_of(settings, unit), settings.seed)
    (folder / "README.md").write_text(card, encoding="utf-8")
    print(card)


def read_of(settings: Pretraining, unit: str) -> str:
    """What a student has read, in words."""
    rounds = ", then ".join(
        f"{r.num_updates} updates{f' of the round {r.name!r}' if r.name else ''} (learning rate {r.learning_rate})"
        for r in settings.rounds
    )
    return f"{rounds}; AdamW with cosine decay, {settings.batch_size} {unit} an update; single thread"


def main() -> None:
    parser = argparse.ArgumentParser(description="Pretrain the shipped students.")
    parser.add_argument("--which", choices=STUDENTS, help="one student; both unless given")
    parser.add_argument("--out", type=Path, default=ASSETS, help="folder that gets a folder for each student")
    parser.add_argument("--num-updates", type=int, help="of each round, fewer for a trial")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # one thread adds in one order, so that a rerun gives the same weights
    for which in STUDENTS if arguments.which is None else (arguments.which,):
        settings = PRETRAINING[which]
        if arguments.num_updates is not None:
            rounds = tuple(replace(each, num_updates=arguments.num_updates) for each in settings.rounds)
            settings = replace(settings, rounds=rounds)
        build(which, arguments.out / which, settings)


if __name__ == "__main__":
    main()
