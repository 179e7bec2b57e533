"""Rationales from a model that runs here, a copy of it on every rank.

Batches are formed from a whole round of requests and then dealt to the ranks, so a sample has the same neighbours in
its batch whatever the number of ranks. Each sample is drawn with its own random numbers, so its neighbours change only
the rounding of sums.
"""

import math
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from random import Random
from typing import Any

import torch
from jinja2 import TemplateError
from torch import Tensor
from transformers import GenerationConfig
from transformers.generation import (
    LogitsProcessor,
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    StoppingCriteriaList,
    StopStringCriteria,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from kpod_lightning.config import LaunchConfig, RunConfig, TeacherConfig
from kpod_lightning.data.batches import batches_by_length
from kpod_lightning.data.examples import leading_specials
from kpod_lightning.data.thoughts import thought_and_rest
from kpod_lightning.data.tokens import chat_ids, text_ids
from kpod_lightning.distributed.preemption import Preempted, stop_if_asked
from kpod_lightning.distributed.ranks import first_rank, gathered, is_first, rank, share_of
from kpod_lightning.evaluation.generate import decoding, pad_prompts
from kpod_lightning.store.errors import InputError
from kpod_lightning.students.student import Student, load_student, pretrained
from kpod_lightning.teachers.prompts import Message
from kpod_lightning.teachers.requests import Reply, Request, with_answer
from kpod_lightning.teachers.writing import Work

ROUND = 1024
"""Requests in a round, from which batches of similar length are formed."""
TOO_LONG = Reply(text="", finish_reason="prompt_too_long")

Asked = tuple[Sequence[Message], int]
"""One call: its messages and its seed."""


class Draw(LogitsProcessor):
    """Draws the next token of each row with the row's own random numbers, and masks out all other tokens.

    Inverse transform sampling: one uniform number a token selects the token whose interval of the cumulative
    distribution it falls into. The numbers are the same on every device.

    Args:
        warpers: turn logits into the logits of the distribution that is drawn from.
        seeds: of the rows' random numbers; None takes the most likely token.
        keep: keep the log-probability of every chosen token under the unwarped logits.
    """

    def __init__(self, warpers: LogitsProcessorList, seeds: Sequence[int] | None, *, keep: bool = False) -> None:
        self.warpers = warpers
        self.numbers = None if seeds is None else [Random(seed) for seed in seeds]
        self.keep = keep
        self.logprobs: list[Tensor] = []
        """[B] a step, in nats."""
        self.is_broken = torch.tensor(False)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:  # [B, V]
        self.is_broken = self.is_broken.to(scores.device) | scores.isnan().any()
        if self.numbers is None:
            chosen = scores.argmax(-1, keepdim=True)
        else:
            upto = self.warpers(input_ids, scores).double().softmax(-1).cumsum(-1)
            drawn = torch.tensor([numbers.random() for numbers in self.numbers], dtype=upto.dtype, device=upto.device)
            chosen = torch.searchsorted(upto, (drawn * upto[:, -1])[:, None], right=True).clamp_max(upto.shape[1] - 1)
        if self.keep:
            self.logprobs.append(scores.log_softmax(-1).gather(1, chosen)[:, 0])
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen, 0.0)  # type: ignore[return-value]


class StopInReply(StopStringCriteria):
    """Ends a reply behind a stop text. transformers' own also ends it where the text begins in the prompt.

    Args:
        num_before: ids of a row before its reply.
    """

    def __init__(self, tokenizer: Any, stops: Sequence[str], num_before: int) -> None:
        super().__init__(tokenizer, list(stops))
        self.num_before = num_before

    def __call__(self, input_ids: Tensor, scores: Tensor, **more: Any) -> Any:
        return super().__call__(input_ids[:, self.num_before :], scores, **more)


class Contrast(Draw):
    """Contrastive decoding: the first half of the rows have the gold answer in their prompts, the second half another.

    The next token of a row and of its partner is argmax [log p(v | gold) - λ log p(v | other)], among the plausible
    ones; or the likeliest one behind the gold answer, where that one ends the reply.

    Args:
        strength: λ.
        plausible: least share of the largest probability behind the gold answer; None takes any token.
        ends: tokens that end a reply.
        keep: keep the log-probability of every chosen token behind the gold answer.
    """

    def __init__(self, strength: float, plausible: float | None, ends: Sequence[int], *, keep: bool = False) -> None:
        super().__init__(LogitsProcessorList(), None, keep=keep)
        self.strength, self.plausible, self.ends = strength, plausible, list(ends)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:  # [2 B, V]
        self.is_broken = self.is_broken.to(scores.device) | scores.isnan().any()
        gold, other = scores.float().log_softmax(-1).chunk(2)
        contrast = gold - self.strength * other
        if self.plausible is not None:
            least = gold.amax(-1, keepdim=True) + math.log(self.plausible)
            contrast = contrast.masked_fill(gold < least, -torch.inf)
        likeliest = gold.argmax(-1, keepdim=True)
        is_end = torch.isin(likeliest, torch.tensor(self.ends, device=scores.device))
        chosen = torch.where(is_end, likeliest, contrast.argmax(-1, keepdim=True))
        if self.keep:
            self.logprobs.append(gold.gather(1, chosen)[:, 0])
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen.repeat(2, 1), 0.0)  # type: ignore[return-value]


def warpers_of(teacher: TeacherConfig, defaults: GenerationConfig) -> LogitsProcessorList | None:
    """Warpers that make the distribution to sample from; None means greedy decoding.

    Args:
        defaults: generation settings of the model; they apply only if ``teacher.temperature`` is null.
    """
    if teacher.temperature == 0 or (teacher.temperature is None and not defaults.do_sample):
        return None
    found: list[LogitsProcessor] = []
    temperature, top_p = teacher.temperature, teacher.top_p
    if temperature is None:
        temperature, top_p = defaults.temperature or 1.0, teacher.top_p or defaults.top_p
        if defaults.repetition_penalty and defaults.repetition_penalty != 1.0:
            found.append(RepetitionPenaltyLogitsProcessor(defaults.repetition_penalty))
    found.append(TemperatureLogitsWarper(float(temperature)))
    if teacher.temperature is None and defaults.top_k:
        found.append(TopKLogitsWarper(defaults.top_k))
    if top_p is not None and top_p < 1.0:
        found.append(TopPLogitsWarper(top_p))
    if teacher.temperature is None and defaults.min_p:
        found.append(MinPLogitsWarper(defaults.min_p))
    return LogitsProcessorList(found)


def prompt_ids(messages: Sequence[Message], student: Student, teacher: TeacherConfig) -> list[int]:
    """Token ids of messages: by the chat template, or joined by blank lines if the model has none.

    Args:
        student: the teacher's model with its tokenizer.

    Raises:
        InputError: the chat template refuses the messages; or ``teacher.extra`` is set, and there is no chat template.
    """
    tokenizer = student.tokenizer
    if getattr(tokenizer, "chat_template", None):

        def render(texts: list[str]) -> str:
            said = [{"role": role, "content": text} for (role, _), text in zip(messages, texts, strict=True)]
            return str(tokenizer.apply_chat_template(said, add_generation_prompt=True, tokenize=False, **teacher.extra))

        try:
            return chat_ids(render, [text for _, text in messages], tokenizer)
        except TemplateError as error:
            raise InputError(
                f"teacher={teacher.name}: its chat template refuses the messages of teacher.prompt={teacher.prompt} "
                f"({error}); take a prompt without what it names"
            ) from error
    if teacher.extra:
        raise InputError(
            f"teacher.extra is for the chat template, and {teacher.name} has none: drop {', '.join(teacher.extra)}"
        )
    text = "\n\n".join(text for _, text in messages)
    if student.normalise is not None:
        text = student.normalise(text)
    closing = [tokenizer.eos_token_id] if student.encoder_decoder else []
    return [*leading_specials(tokenizer), *text_ids(text, tokenizer), *closing]


def with_answer_calls(requests: Sequence[Request], generate: Callable[[list[Asked]], list[Reply]]) -> list[Reply]:
    """Replies to requests, with the answer of a second call for those that have an answer call."""
    replies = generate([(request.messages, request.seed) for request in requests])
    ready = [i for i, reply in enumerate(replies) if requests[i].after is not None and reply.finish_reason == "stop"]
    asked: list[Asked] = []
    for i in ready:
        said, after = thought_and_rest(replies[i].text, replies[i].thinking)[1], requests[i].after
        assert after is not None
        # Another seed: with the same random numbers the answer would depend on the first words of the rationale.
        asked.append(((*requests[i].messages, ("assistant", said), ("user", after)), requests[i].seed + 2**31))
    for i, second in zip(ready, generate(asked) if asked else [], strict=True):
        replies[i] = second if second.finish_reason == "prompt_too_long" else with_answer(replies[i], second)
    return replies


def device_of(launch: LaunchConfig) -> torch.device:
    """The device of this rank.

    Raises:
        InputError: launch.accelerator=gpu, and torch sees no GPU.
    """
    if launch.accelerator != "cpu" and torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if launch.accelerator == "gpu":
        raise InputError("launch.accelerator=gpu: torch sees no GPU here; take auto or cpu")
    return torch.device("cpu")


@contextmanager
def _told_what_does_not_fit(what: str) -> Iterator[None]:
    """Turn a lack of memory into an InputError with the message ``what``.

    Raises:
        InputError: the memory was too small.
    """
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error):
            raise InputError(what) from error
        raise


class LocalTeacher:
    """The model with its tokenizer, on this rank's device.

    Raises:
        InputError: the model cannot be loaded, does not fit in the memory, or has no room for ``teacher.max_tokens``.
    """

    def __init__(self, teacher: TeacherConfig, launch: LaunchConfig) -> None:
        self.teacher, self.device = teacher, device_of(launch)
        name = (teacher.name or "").partition(":")[2]
        try:
            student = load_student(name, dtype="auto" if self.device.type == "cuda" else torch.float32)
        except InputError as error:
            raise InputError(str(error).replace("student.name=", "teacher=local:")) from error
        with _told_what_does_not_fit(
            f"teacher={teacher.name} does not fit in the memory of {self.device}: take a smaller one, or serve it on "
            "several GPUs (`vllm serve`) and take teacher=openai:... teacher.base_url=..."
        ):
            student.model.to(self.device)
        self.student, model = student, student.model
        source, commit = pretrained(name)[0], getattr(model.config, "_commit_hash", None)
        self.model = f"{source}@{commit}" if commit else name
        text = model.config.get_text_config()
        self.room: int | None = getattr(text, "max_position_embeddings", None)
        if self.room is not None and teacher.max_tokens >= self.room:
            raise InputError(
                f"teacher.max_tokens={teacher.max_tokens} leaves {teacher.name} no room for a prompt, with its "
                f"{self.room} positions: lower it"
            )
        defaults = model.generation_config
        self.warpers = warpers_of(teacher, defaults)
        self.ends = set(student.end_token_ids)
        # generate() fills unset options from model.generation_config, so set ours there.
        model.generation_config = decoding(student, teacher.max_tokens)

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        return prompt_ids(messages, self.student, self.teacher)

    def has_room(self, prompt: Sequence[int]) -> bool:
        """Whether a reply of ``max_tokens`` fits behind the prompt. An encoder shares no positions with the reply."""
        after = 0 if self.student.encoder_decoder else self.teacher.max_tokens
        return self.room is None or len(prompt) + after <= self.room

    def generate(self, asked: Sequence[Asked], against: Sequence[Sequence[Message]] | None = None) -> list[Reply]:
        """Replies to one batch of calls.

        Args:
            against: messages with another answer, for contrastive decoding; None: no contrast.

        Raises:
            InputError: the batch does not fit in the memory; the model computes NaN.
        """
        prompts = [self.prompt_ids(messages) for messages, _ in asked]
        others = None if against is None else [self.prompt_ids(messages) for messages in against]
        fitting = [
            i
            for i, prompt in enumerate(prompts)
            if self.has_room(prompt) and (others is None or self.has_room(others[i]))
        ]
        replies = [TOO_LONG] * len(asked)
        if not fitting:
            return replies
        teacher, student = self.teacher, self.student
        draw = Draw(
            self.warpers or LogitsProcessorList(),
            None if self.warpers is None else [asked[i][1] for i in fitting],
            keep=teacher.logprobs,
        )
        shown = [prompts[i] for i in fitting]
        if others is not None:
            shown += [others[i] for i in fitting]
            draw = Contrast(
                teacher.contrast_lambda, teacher.contrast_plausible, student.end_token_ids, keep=teacher.logprobs
            )
        ids, mask = pad_prompts(shown, student.pad_token_id, left=not student.encoder_decoder)  # [B, P]
        num_before = 1 if student.encoder_decoder else ids.shape[1]
        stops = [StopInReply(student.tokenizer, teacher.stop, num_before)] if teacher.stop else []
        began = time.monotonic()
        with _told_what_does_not_fit(
            f"teacher.batch_size={teacher.batch_size}: replies of {teacher.max_tokens} tokens to prompts of "
            f"{ids.shape[1]} do not fit in the memory of {self.device}: lower it"
        ):
            output = student.model.generate(
                input_ids=ids.to(self.device),
                attention_mask=mask.to(self.device),
                logits_processor=LogitsProcessorList([draw]),
                stopping_criteria=StoppingCriteriaList(stops),
            )
        if draw.is_broken:
            raise InputError(
                f"teacher={teacher.name} computes NaN on {self.device}: its weights or their type are broken"
            )
        new = output[: len(fitting), num_before:].tolist()
        kept = torch.stack(draw.logprobs, 1).tolist() if teacher.logprobs else [None] * len(fitting)  # [B, T]
        latency = (time.monotonic() - began) / len(fitting)
        for i, row, logprobs in zip(fitting, new, kept, strict=True):
            replies[i] = self.reply_of(row, logprobs, len(prompts[i]), latency)
        return replies

    def reply_of(self, row: list[int], logprobs: list[float] | None, num_prompt: int, latency: float) -> Reply:
        """The reply in a row of generated ids, up to its end and without the stop text.

        Args:
            row: [T] token ids, padded behind the end.
            logprobs: [T] log-probability of each id, in nats.
            num_prompt: tokens of the prompt.
            latency: seconds.
        """
        tokenizer, teacher = self.student.tokenizer, self.teacher
        end = next((i for i, token in enumerate(row) if token in self.ends), None)
        tokens = row if end is None else row[:end]
        if (stop := self._stop(tokens)) is not None:
            tokens, num_tokens = tokens[:stop], stop
        elif end is not None:
            num_tokens = end + 1
        else:
            while tokens and tokens[-1] == self.student.pad_token_id:
                tokens = tokens[:-1]
            num_tokens = len(tokens)
        text = tokenizer.decode(tokens, skip_special_tokens=True)
        found = [place for one in teacher.stop if (place := text.find(one)) >= 0]
        return Reply(
            text=text[: min(found)] if found else text,
            finish_reason="length" if stop is None and end is None and num_tokens == teacher.max_tokens else "stop",
            prompt_tokens=num_prompt,
            completion_tokens=num_tokens,
            latency=latency,
            model=self.model,
            logprobs=None
            if logprobs is None
            else [(tokenizer.decode([row[i]]), logprobs[i]) for i in range(num_tokens)],
        )

    def _stop(self, tokens: Sequence[int]) -> int | None:
        """Number of tokens up to the end of the first stop text, or None. A stop text may be a special token."""

        def has_stop(number: int) -> bool:
            text = self.student.tokenizer.decode(tokens[:number], skip_special_tokens=False)
            return any(one in text for one in self.teacher.stop)

        if not self.teacher.stop or not has_stop(len(tokens)):
            return None
        return bisect_left(range(len(tokens) + 1), True, key=has_stop)


def taken(work: Work, most: int = ROUND) -> list[Request]:
    """The requests of a round: all that can be asked now, at most ``most``.

    With ``teacher.stop_at_total`` a round has no more requests than right samples are lacking, but at least one batch.
    """
    if work.teacher.stop_at_total is not None:
        lacking = work.teacher.stop_at_total - work.wanted.num_right
        most = min(most, max(lacking, work.teacher.batch_size))
    found: list[Request] = []
    while len(found) < most and (request := work.take()) is not None:
        found.append(request)
    return found


def answered(teacher: LocalTeacher, batch: Sequence[Request]) -> dict[str, Reply]:
    """Replies to the batches of all ranks, by key.

    Raises:
        InputError: on every rank, if it was raised on any.
    """
    outcome: list[Reply] | InputError
    try:
        if teacher.teacher.contrast is not None and teacher.teacher.contrast_lambda > 0:
            calls = [(request.messages, request.seed) for request in batch]
            outcome = teacher.generate(calls, [request.against or () for request in batch])
        else:
            outcome = with_answer_calls(batch, teacher.generate)
    except InputError as error:
        outcome = error
    found: dict[str, Reply] = {}
    for keys, part in gathered({rank(): ([request.key for request in batch], outcome)}).values():
        if isinstance(part, InputError):
            raise part
        found |= dict(zip(keys, part, strict=True))
    return found


def add_all(work: Work, requests: dict[str, Request], replies: dict[str, Reply]) -> None:
    """Write the rows of replies, and wait until they are on disk.

    Raises:
        InputError: the disk is full or cannot be written.
    """
    for done in [work.add(requests[key], reply, [], Decimal(0)) for key, reply in replies.items()]:
        done.result()


def write(work: Work | None, config: RunConfig) -> None:
    """Write all wanted samples; every rank calls this. The rows of a batch are on disk before the next batch begins.

    Args:
        work: on rank 0; None on the other ranks.

    Raises:
        InputError: on every rank: the model, the memory or the disk.
        Preempted: a signal came. On rank 0 ``work.stopped`` says so instead.
    """
    teacher = LocalTeacher(config.teacher, config.launch)

    def take() -> list[Request]:
        assert work is not None
        return taken(work)

    def add(replies: dict[str, Reply]) -> None:
        assert work is not None
        add_all(work, of, replies)

    try:
        while requests := first_rank(take):
            of = {request.key: request for request in requests}
            lengths = [len(teacher.prompt_ids(request.messages)) for request in requests]
            for batch in share_of(batches_by_length(lengths, config.teacher.batch_size, longest_first=True)):
                stop_if_asked()
                replies = answered(teacher, [requests[i] for i in batch])
                first_rank(lambda replies=replies: add(replies))  # type: ignore[misc]
    except (Preempted, KeyboardInterrupt) as stop:
        preempted = stop if isinstance(stop, Preempted) else Preempted(requeue=False, interrupted=True)
        if not is_first():
            raise preempted from None
        assert work is not None
        work.stopped = work.stopped or preempted
