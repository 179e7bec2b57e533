"""Rationales from a model that vLLM runs on a GPU of this machine; prompts are made as in ``local``."""

import time
from collections.abc import Sequence
from typing import Any

from kpod_lightning.config import TeacherConfig
from kpod_lightning.distributed.preemption import asked_to_stop
from kpod_lightning.store.errors import InputError
from kpod_lightning.students.student import Student, pretrained
from kpod_lightning.teachers.local import TOO_LONG, Asked, add_all, prompt_ids, taken, with_answer_calls
from kpod_lightning.teachers.replies import ending_of
from kpod_lightning.teachers.requests import Reply
from kpod_lightning.teachers.writing import Work

ROUND = 4096
"""Requests handed to vLLM at a time. Their rows are on disk before the next ones are handed over."""


class VllmTeacher:
    """The vLLM engine with its model and tokenizer.

    Raises:
        InputError: vLLM is not installed, or does not start with this model.
    """

    def __init__(self, teacher: TeacherConfig, seed: int) -> None:
        try:
            import vllm
        except ImportError as error:
            raise InputError(
                f"teacher={teacher.name} needs vLLM: pip install 'kpod_lightning[vllm]' into an environment of its "
                "own; or serve the model elsewhere (`vllm serve`) and take teacher=openai:... teacher.base_url=..."
            ) from error
        self.teacher, self._params = teacher, vllm.SamplingParams
        source, revision = pretrained((teacher.name or "").partition(":")[2])
        try:
            self.llm = vllm.LLM(model=source, revision=revision, tokenizer_revision=revision, seed=seed)
        except (OSError, ValueError, RuntimeError) as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise InputError(
                f"teacher={teacher.name}: vLLM does not start with {source} ({reason}); its own messages stand above"
            ) from error
        self.model = source if revision == "main" else f"{source}@{revision}"
        self.student = Student(name=source, model=None, tokenizer=self.llm.get_tokenizer(), encoder_decoder=False)
        self.room: int = self.llm.llm_engine.model_config.max_model_len
        if teacher.max_tokens >= self.room:
            raise InputError(
                f"teacher.max_tokens={teacher.max_tokens} leaves {teacher.name} no room for a prompt, with its "
                f"{self.room} positions: lower it"
            )

    def params(self, seed: int) -> Any:
        """Sampling settings of one request. Where ``teacher.temperature`` is null, the model's own settings apply."""
        teacher = self.teacher
        own: dict[str, Any] = {"seed": seed, "max_tokens": teacher.max_tokens}
        if teacher.temperature is None:
            own = self.llm.llm_engine.model_config.get_diff_sampling_param() | own
        else:
            own["temperature"] = teacher.temperature
        if teacher.top_p is not None:
            own["top_p"] = teacher.top_p
        if teacher.stop:
            own["stop"] = list(teacher.stop)
        if teacher.logprobs:
            own["logprobs"] = teacher.top_logprobs  # 0: of the chosen tokens alone
        return self._params(**own)

    def generate(self, asked: Sequence[Asked]) -> list[Reply]:
        """Replies to any number of calls, in the order of ``asked``."""
        prompts = [prompt_ids(messages, self.student, self.teacher) for messages, _ in asked]
        fitting = [i for i, prompt in enumerate(prompts) if len(prompt) + self.teacher.max_tokens <= self.room]
        replies = [TOO_LONG] * len(asked)
        if not fitting:
            return replies
        began = time.monotonic()
        outputs = self.llm.generate(
            [{"prompt_token_ids": prompts[i]} for i in fitting],
            [self.params(asked[i][1]) for i in fitting],
            use_tqdm=False,
        )
        latency = (time.monotonic() - began) / len(fitting)
        for i, output in zip(fitting, outputs, strict=True):
            replies[i] = self.reply_of(output, latency)
        return replies

    def reply_of(self, output: Any, latency: float) -> Reply:
        """The reply in an output of vLLM. ``latency``: seconds."""
        written = output.outputs[0]
        logprobs = tops = None
        if self.teacher.top_logprobs:
            tops = [[(one.decoded_token, one.logprob) for one in of.values()] for of in written.logprobs]
        if self.teacher.logprobs:
            chosen = [of[token] for token, of in zip(written.token_ids, written.logprobs, strict=True)]
            logprobs = [(one.decoded_token, one.logprob) for one in chosen]
        return Reply(
            text=written.text,
            finish_reason=ending_of(written.finish_reason),
            prompt_tokens=len(output.prompt_token_ids),
            cached_tokens=output.num_cached_tokens or 0,
            completion_tokens=len(written.token_ids),
            latency=latency,
            model=self.model,
            logprobs=logprobs,
            top_logprobs=tops,
        )


def write(work: Work) -> None:
    """Write all wanted samples. The rows of a round are on disk before the next round begins.

    Raises:
        InputError: vLLM is not installed or does not start; the disk is full.
    """
    teacher = VllmTeacher(work.teacher, work.seed)
    while requests := taken(work, ROUND):
        replies = with_answer_calls(requests, teacher.generate)
        keys = [request.key for request in requests]
        add_all(work, dict(zip(keys, requests, strict=True)), dict(zip(keys, replies, strict=True)))
        work.stopped = work.stopped or asked_to_stop()
