"""Every setting, once: its default, unit and source. YAML overrides it, then ``key=value``; unknown keys stop."""

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, make_dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from kpod_lightning.store import plugins
from kpod_lightning.store.bounds import LARGEST, at_least, at_least_or, check, one_of, positive, within
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.files import ASSETS
from kpod_lightning.store.overrides import nested
from kpod_lightning.store.reading import kind_of, read_yaml, shown
from kpod_lightning.store.typed import fitted, known_keys

LARGEST_SEED = 2**32 - 1
"""Lightning and NumPy take seeds of 32 bits."""

WIDEST = 65_536
"""Largest width of a layer: wider than any published model's, and a slip of the pen beyond it."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which problems, and how many of them."""

    dataset: str = "arithmetic"
    """arithmetic | gsm8k | asdiv | svamp | commonsenseqa | own."""
    dir: str | None = None
    """Folder in the layout of data/README.md; without it the benchmarks come from the Hugging Face hub. dataset=own: a
    file, a folder, or OWNER/NAME[@REVISION] of a data set on the hub, see docs/own-data.md."""
    subset: str | None = None
    """dataset=own, on the hub: configuration of a data set that has several."""
    fields: dict[str, str] = field(default_factory=dict)
    """dataset=own: id, question, answer, rationale, choices -> the name of the field that holds it, for those that are
    not found by their usual names. ``row`` for id numbers the records."""
    kind: str = field(default="number", metadata=one_of("number", "choice", "yes_no"))
    """dataset=own: number | choice | yes_no."""
    thinking: str = field(default="drop", metadata=one_of("keep", "drop", "distil"))
    """dataset=own: text between <think> tags in an output: keep (with the tags) | drop | distil (it becomes the
    rationale)."""
    num_train: int | None = field(default=None, metadata=at_least(1))
    """Number of training problems, the first ones; null means all (arithmetic: 2,000)."""
    num_validation: int | None = field(default=None, metadata=at_least(1))
    """Number of validation problems, the first ones; null means all (arithmetic: 200; own: a tenth of the train set
    where there is no validation set)."""
    num_test: int | None = field(default=None, metadata=at_least(1))
    """Number of test problems, the first ones; null means all (arithmetic: 300; own: as num_validation)."""
    min_steps: int = field(default=2, metadata=at_least(1, most=100))
    """Arithmetic: fewest steps of a problem."""
    max_steps: int = field(default=5, metadata=at_least(1, most=100))
    """Arithmetic: most steps of a problem."""
    wording: str = field(default="scene", metadata=one_of("scene", "any"))
    """Arithmetic: how a rationale says a calculation: scene (in the words of its story alone) | any (also in those that
    other rationales of the problem have, its calculations perhaps in another order)."""
    seed: int = field(default=0, metadata=at_least(0, most=LARGEST_SEED))
    """Arithmetic: seed of the problems. dataset=own: of the choice of problems for validation and test where there are
    none. Not the run's seed, so that runs of several seeds share their test set."""

    def __post_init__(self) -> None:
        check(self, "data")
        _require(
            self.min_steps <= self.max_steps,
            f"data.min_steps={self.min_steps} is more than data.max_steps={self.max_steps}: swap them",
        )


@dataclass(frozen=True, kw_only=True)
class RationalesConfig:
    """Whose rationales, and which of them are kept."""

    source: str = field(default="generated", metadata=one_of("generated", "human", "recorded"))
    """generated (arithmetic) | human (the dataset's own) | recorded (a JSONL file of a teacher)."""
    teacher: str | None = None
    """recorded: file name without .jsonl in <data.dir>/<dataset>/rationales, or a path."""
    correct_only: bool = True
    """Drop a rationale that does not reach the gold answer. The paper mentions no filter."""
    verdict: str = field(default="text", metadata=one_of("text", "recorded"))
    """correct_only: text reads the answer off the rationale | recorded takes the row's ``correct``, else its
    ``predicted_answer``."""
    num_per_problem: int = field(default=1, metadata=at_least(1))
    """K: most rationales kept of one problem; 1 is chosen by seed, more are the first K distinct ones. generated: K
    wordings of the same calculations. method=scotd and method=mcc_kd take 10 where nothing is said."""
    step_rule: str = "sentence"
    """sentence | newline | paragraph | a regular expression that matches a step's end."""

    def __post_init__(self) -> None:
        check(self, "rationales")
        try:
            re.compile(self.step_rule)
        except (re.error, RecursionError, OverflowError) as error:
            raise InputError(
                f"rationales.step_rule={self.step_rule} is no regular expression ({error}); take sentence, for example"
            ) from error
        _require(
            self.source != "recorded" or self.teacher is not None,
            "rationales.source=recorded needs rationales.teacher=NAME, a file in <data.dir>/<dataset>/rationales",
        )


TEACHERS = "kpod_lightning.teachers"
"""Entry points of kinds of teachers that other packages add, see ``kpod_lightning/teachers/__init__.py``."""

SHIPPED_TEACHERS = {
    kind: f"kpod_lightning.teachers.{kind}" for kind in ("openai", "batch", "local", "vllm", "recorded")
}
"""Module by kind of teacher, loaded when a teacher is asked."""


@dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """Who writes rationales, how, and for how much: `kpod rationales EXPERIMENT teacher=... --out FILE`."""

    name: str | None = None
    """openai:MODEL (any OpenAI-compatible endpoint) | batch:MODEL (its batch API) | local:FOLDER_OR_HUB_ID | vllm:... |
    recorded:FILE | KIND:... of an installed package. On the command line: teacher=."""
    samples: int = field(default=1, metadata=at_least(1))
    """Rationales requested for each problem. On the command line: samples=."""
    budget: float | None = field(default=None, metadata=positive())
    """Most US dollars to spend, counting requests under way and those that may have been billed. On the command line:
    budget=."""
    stop_at: int | None = field(default=None, metadata=at_least(1))
    """Correct rationales of a problem after which no more are requested for it; null requests all ``samples``."""
    stop_at_total: int | None = field(default=None, metadata=at_least(1))
    """Correct rationales in total after which no more are requested; null goes through all problems."""
    prompt: str = "zero_shot_cot"
    """zero_shot_cot (the paper's) | few_shot | answer_given (SCOTT) | think | a .jinja file of the same form."""
    examples: str | None = None
    """few_shot: JSON Lines with question, rationale and answer; null takes the shipped ones of the answer's kind."""
    num_examples: int = field(default=4, metadata=at_least(1))
    """few_shot: most examples in the prompt; the first ones of the file."""
    answer_call: bool = False
    """Request the answer in a second call that ends with "Therefore, the answer is", and append it; else the answer is
    read off the rationale."""
    thinking: str = field(default="drop", metadata=one_of("keep", "drop", "distil"))
    """Text between <think> tags: keep (with the tags) | drop | distil (it becomes the rationale; set
    rationales.step_rule=paragraph)."""
    temperature: float | None = field(default=0.7, metadata=at_least(0, most=1000))
    """0 is greedy; null sends no temperature, for models that refuse one."""
    top_p: float | None = field(default=None, metadata=within("(0, 1]"))
    """Share of the probability that is sampled from, in (0, 1]; null sends none, and the endpoint has its own."""
    max_tokens: int = field(default=512, metadata=at_least(1))
    """Most tokens of a reply, hidden reasoning included."""
    stop: list[str] = field(default_factory=list)
    """Stop sequences, at most four; an empty list takes those of the prompt, e.g. few_shot stops before another Q:."""
    logprobs: bool = False
    """Keep the log-probability of every token, if the teacher offers it."""
    top_logprobs: int = field(default=0, metadata=at_least(0, most=20))
    """Keep so many of the likeliest tokens in the place of each as well, with logprobs=true; openai, batch and vllm
    offer it. specialized.match=distribution learns them; its authors took 5."""
    base_url: str | None = None
    """URL of the endpoint, without user, password and query; null is OpenAI's."""
    key_variable: str = "OPENAI_API_KEY"
    """Name of the environment variable that holds the key; the key itself is never a setting."""
    concurrency: int = field(default=64, metadata=at_least(1, most=100_000))
    """Most requests at a time; fewer while the endpoint answers with rate limits."""
    timeout: float = field(default=120.0, metadata=positive())
    """Seconds after which a request is given up."""
    max_attempts: int = field(default=8, metadata=at_least(1))
    """Attempts for one sample; after that it is left to the next start of the command."""
    limit_field: str | None = field(default=None, metadata=one_of("max_tokens", "max_completion_tokens"))
    """max_tokens | max_completion_tokens; null: the latter at OpenAI's own endpoint."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Further fields of a request, e.g. teacher.extra.reasoning_effort=low."""
    prices: dict[str, float] = field(default_factory=dict)
    """US dollars for a million tokens: input, output and, if cheaper, cached_input; empty takes assets/prices.yaml."""
    tokenizer: str | None = None
    """Hub id or folder of the tokenizer that estimates the length of prompts; null takes the teacher's (local, vllm) or
    the student's. The estimate is corrected by the tokens billed so far."""
    licence: str | None = None
    """Licence or terms of the teacher's text, written into every row; null takes those known of the teacher."""
    batch_size: int = field(default=16, metadata=at_least(1))
    """local: rationales generated at a time on a rank."""
    contrast: str | None = field(default=None, metadata=one_of("wrong", "empty"))
    """local, greedy: contrastive decoding of SCOTT. Each token is the one that the prompt with the gold answer makes
    likelier than the prompt with a wrong one, or with an empty one; null: no contrast."""
    contrast_lambda: float = field(default=0.5, metadata=at_least(0, most=1000))
    """λ of log p(token | gold) - λ log p(token | other); 0.5 in SCOTT's release, 0 is greedy decoding."""
    contrast_plausible: float | None = field(default=None, metadata=within("(0, 1]"))
    """Only tokens of at least this share of the likeliest one's probability behind the gold answer are taken, e.g. 0.1
    (Li et al., 2022); null takes any, as SCOTT's release does."""
    poll: float = field(default=60.0, metadata=positive())
    """batch: seconds between two queries of a batch's state."""

    def __post_init__(self) -> None:
        check(self, "teacher")
        _require(
            not self.top_logprobs or (self.logprobs and (self.name or "").partition(":")[0] != "local"),
            "teacher.top_logprobs needs teacher.logprobs=true and a teacher that offers it: openai, batch or vllm",
        )
        if self.name is not None:
            kinds = plugins.find(TEACHERS, SHIPPED_TEACHERS)
            kind, _, model = self.name.partition(":")
            _require(
                kind in kinds and model != "",
                f"teacher={self.name} is none of {', '.join(f'{k}:...' for k in kinds)}",
            )
        _require(
            self.stop_at is None or self.stop_at <= self.samples,
            f"teacher.stop_at={self.stop_at} correct rationales cannot come from samples={self.samples}: raise samples",
        )
        _require(len(self.stop) <= 4, f"teacher.stop has at most four texts, got {len(self.stop)}")
        _require(
            self.samples == 1 or self.temperature != 0,
            f"teacher.temperature=0 is greedy: {self.samples} samples would be identical; set a temperature",
        )
        if self.contrast is not None:
            _require(
                (self.name or "local:").startswith("local:"),
                f"teacher.contrast={self.contrast} needs the probabilities of all tokens: take teacher=local:...",
            )
            _require(self.temperature == 0, f"teacher.contrast={self.contrast} is greedy: take teacher.temperature=0")
            _require(not self.answer_call, "teacher.contrast goes with teacher.answer_call=false")
        self._check_endpoint()
        known = {"input", "output", "cached_input"}
        _require(
            not self.prices or {"input", "output"} <= set(self.prices) <= known,
            f"teacher.prices has input and output, may have cached_input, and nothing else: got {sorted(self.prices)}",
        )
        for name, price in self.prices.items():
            _require(0 <= price <= LARGEST, f"teacher.prices.{name} is from 0 to {LARGEST} US dollars, got {price}")

    def _check_endpoint(self) -> None:
        if self.base_url is not None:
            try:
                address = urlsplit(self.base_url)
                right = address.scheme in ("http", "https") and bool(address.hostname) and address.port != 0
            except ValueError:  # a port that is no number, or half a bracket
                right = False
            shown = self.base_url.rpartition("@")[2]  # before it may stand a password
            _require(right, f"teacher.base_url={shown} is no URL such as https://api.openai.com/v1")
            # Settings are kept in files and shown; the client would also put the path behind a query.
            _require(
                "@" not in address.netloc and not address.query and not address.fragment,
                f"teacher.base_url holds a user, a password or a query, which may be a secret: write {address.scheme}://"
                f"{address.netloc.rpartition('@')[2]}/... alone, and export the key in the variable that "
                "teacher.key_variable names",
            )
        _require(
            re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.key_variable) is not None,
            # The value is not shown: it may be the key itself.
            "teacher.key_variable is the NAME of an environment variable, such as OPENAI_API_KEY, not the key",
        )


@dataclass(frozen=True, kw_only=True)
class StudentConfig:
    """Which student, and which of its parameters learn."""

    name: str = "tiny-llama"
    """A preset (students/student.py), a hub id or a local folder."""
    lora_rank: int | None = field(default=None, metadata=at_least(1, most=WIDEST))
    """LoRA rank; null trains every parameter. The paper: 64 (LLaMA-7B), 128 (FlanT5-XL)."""
    lora_alpha: int | None = field(default=None, metadata=at_least(1, most=WIDEST))
    """α of LoRA; null means alpha = rank, i.e. no scaling, as in MCC-KD."""
    trust_remote_code: bool = False
    """Let code run that lies beside the student's weights (``auto_map`` in its config.json)."""
    allow_pickle: bool = False
    """Take weights that are pickled (pytorch_model.bin); only tensors are read of them."""
    max_length: int = field(default=512, metadata=at_least(1))
    """Most tokens of prompt and target together; a longer example is left out and counted, never cut."""
    warm_epochs: int = field(default=0, metadata=at_least(0))
    """Epochs of plain tuning (whole rationales, weights of 1, constant optim.lr after its warm-up) before anything is
    measured or distilled: all methods start from this student, which runs with the same settings share. Accuracies
    "before distillation" stay those of the student as it came. The paper has none."""

    def __post_init__(self) -> None:
        check(self, "student")
        _require(
            self.lora_alpha is None or self.lora_rank is not None,
            "student.lora_alpha is set but student.lora_rank is null: set the rank or drop alpha",
        )


@dataclass(frozen=True, kw_only=True)
class WeightsConfig:
    """Keypoint weights: how they are learned (Eqs. 2-7, docs/methods.md) and where they are used."""

    kind: str = "learned"
    """Which token weights: learned (KPOD's, Eqs. 2-7) | uniform (all 1) | file | numbers | oracle | random | dft |
    power | threshold | eaft | entropy_top | excess, see docs/methods.md | one of an installed package."""
    answer_weight: float = field(default=1.0, metadata=at_least(0, most=1000))
    """What the weights of answer phrase and end-of-sequence token are multiplied by, after all else."""
    start_epoch: int = field(default=0, metadata=at_least(0))
    """Until that epoch (counted from 0) all weights of the loss are 1: first plain, then weighted, as EDIT does."""
    in_loss: bool = True
    """Weigh the student's loss, Eq. (15). false is the paper's ablation "w/o sig", Eq. (14)."""
    in_difficulty: bool = True
    """Weigh a step's difficulty, Eq. (8). false is "w/o sig in difficulty"."""
    permuted: bool = False
    """Control experiment: shuffle the weights of any table (learned, numbers, ...) within each rationale, so that their
    distribution stays."""
    floor: float = field(default=0.0, metadata=within("[0, 1)"))
    """Least weight in the loss, in [0, 1): w becomes floor + (1 - floor) w. The paper has none. With weights
    near 0 a student never learns the words between the keypoints, if it cannot write them yet."""
    rescale: str = field(default="mean", metadata=one_of("mean", "none"))
    """mean: weights of the loss average 1 over the train set's rationale tokens | none: as they are, the paper's."""
    form: str = field(default="budget", metadata=one_of("budget", "penalty"))
    """budget: the mean of w is ``share`` in every rationale | penalty: α Σ m, Eq. (7), under which w collapses."""
    share: float = field(default=0.3, metadata=within("(0, 1)"))
    """ρ: share of the tokens that the budget form keeps, in (0, 1), and that the check of sufficiency keeps."""
    alpha: float | None = field(default=None, metadata=at_least(0, most=1000))
    """α of Eq. (7), form=penalty only; null means the paper's 0.5 there."""
    normalise: str = field(default="mean", metadata=one_of("mean", "sum"))
    """mean over prefixes and tokens: a rationale's length does not weigh | sum: as in Eqs. (5) and (6)."""
    features: str = field(default="first_block", metadata=one_of("first_block", "embedding"))
    """e of Eq. (2): first_block (the student's frozen first block) | embedding (one attention layer, the paper's)."""
    answer_model: str | None = None
    """Model that predicts the answer, θ_w; null means the student. The paper: FlanT5-Large. A model with another
    tokenizer than the student's reads the student's embeddings through a learned projection."""
    lora_rank: int | None = field(default=None, metadata=at_least(1, most=WIDEST))
    """LoRA rank of the answer model; null trains every parameter."""
    prefixes: str = field(default="stratified", metadata=one_of("stratified", "unbiased", "step_ends", "all"))
    """stratified (the whole rationale always among them) | unbiased (the whole weighs 1 / n) | step_ends | all."""
    num_prefixes: int = field(default=2, metadata=at_least(1))
    """stratified, unbiased: prefixes of one rationale in an update, namely the whole rationale and random ones. With
    more of them the whole rationale counts less, and the answer model learns to read it later."""
    gradient: str = field(default="score", metadata=one_of("score", "straight_through"))
    """Gradient of the masks: score (the score-function estimator, which has no bias for any answer model) |
    straight_through (through the Gumbel softmax, the paper's; noisy on a T5, docs/methods.md)."""
    sample: str = field(default="hard", metadata=one_of("hard", "soft"))
    """hard: masks of 0 and 1 | soft: the relaxed ones of the Gumbel softmax, Eq. (4)."""
    temperature: float = field(default=0.7, metadata=positive(most=1000))
    """Temperature of the Gumbel softmax."""
    final_temperature: float | None = field(default=None, metadata=positive(most=1000))
    """Temperature at the last step, reached geometrically; null keeps ``temperature``."""
    mask_place: str = field(default="embedding", metadata=one_of("embedding", "features"))
    """embedding: m multiplies a token's embedding | features: e after its attention layer, the paper's figure 1, where
    neighbours leak through (features=embedding only)."""
    mask_with: str = field(default="learned", metadata=one_of("learned", "zero"))
    """What a masked token becomes: learned (one embedding for all) | zero."""
    hidden_size: int = field(default=128, metadata=at_least(1, most=WIDEST))
    """Width of the two-layer MLP f_w, Eq. (3)."""
    num_train: int | None = field(default=None, metadata=at_least(1))
    """Rationales that the weight network learns from; null means all but those held out. It is then applied to all."""
    num_held_out: int = field(default=100, metadata=at_least(1))
    """Rationales held out from learning, on which the check decides whether keypoints were found. It reads a quarter,
    a half or all of them, as its decision needs."""
    warmup_epochs: int = field(default=4, metadata=at_least(0))
    """Epochs in which only the answer model learns, under random masks, so that it can read masked text."""
    epochs: int = field(default=8, metadata=at_least(1))
    """Epochs in which answer model and weight network both learn."""
    random_share: float = field(default=0.5, metadata=within("[0, 1)"))
    """Share of the rationales with random masks while both learn, in [0, 1). Without them the answer model forgets how
    to read tokens that the network masks, and a token masked too early never comes back."""
    batch_size: int = field(default=16, metadata=at_least(1))
    """GLOBAL batch of the learning of weights, in rationales."""
    model_lr: float = field(default=1e-3, metadata=positive(most=1000))
    """Peak learning rate of the answer model, with cosine decay."""
    network_lr: float = field(default=3e-3, metadata=positive(most=1000))
    """Peak learning rate of the weight network, with cosine decay. 1e-2 is unstable."""
    clip_norm: float = field(default=1.0, metadata=positive())
    """Largest norm of the gradient; answer model and weight network are clipped separately."""
    if_not_found: str = field(default="stop", metadata=one_of("stop", "uniform"))
    """What to do if the check finds no keypoints in held-out rationales: stop | uniform (go on with weights of 1)."""

    def __post_init__(self) -> None:
        check(self, "weights")
        _require(
            self.gradient != "score" or self.sample == "hard",
            "weights.sample=soft has no probability for weights.gradient=score: set weights.gradient=straight_through",
        )
        _require(
            self.alpha is None or self.form == "penalty",
            "weights.alpha is set but weights.form=budget has no α: set weights.form=penalty or drop alpha",
        )
        _require(
            self.mask_place == "embedding" or self.features == "embedding",
            "weights.mask_place=features masks e of Eq. (2), which weights.features=first_block does not have: "
            "set weights.features=embedding",
        )
        _require(
            self.final_temperature is None or self.gradient == "straight_through",
            "weights.final_temperature changes nothing for weights.gradient=score: drop it or set "
            "weights.gradient=straight_through",
        )


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """How fast learning difficulty grows, section 3.4 of the paper; values from appendix A."""

    progressive: bool = True
    """Teach the last steps first, and more stage by stage. false trains whole rationales in every stage: "w/o prog"."""
    num_stages: int | None = field(default=None, metadata=at_least(1))
    """T: stages until every rationale is learned whole. null: as many as last half the epochs, the paper's."""
    progress: str = field(default="epochs", metadata=one_of("epochs", "steps", "tokens"))
    """What the length of a stage counts: epochs | steps (of the optimiser) | tokens (targets, over all ranks). A stage
    of steps or tokens may begin inside an epoch."""
    stage_length: int | None = field(default=None, metadata=at_least(1))
    """Epochs, steps or tokens that a stage lasts; null: one epoch, the paper's, or the steps or tokens of an epoch of
    whole rationales."""
    growth_exponent: float = field(default=0.5, metadata=positive(most=100))
    """p in dD/dt = u t^p. Positive."""
    initial_fraction: float = field(default=0.3, metadata=within("[0, 1]"))
    """C_0 / B: share of the total difficulty that stage 0 asks, in [0, 1]."""
    diversity: float = field(default=12.0, metadata=at_least(0))
    """β of Eq. (12), in nats; 0 is "w/o div". diversity_scale=budget: a share of the budget instead."""
    diversity_scale: str = field(default="absolute", metadata=one_of("absolute", "budget"))
    """absolute (the paper's: β is ``diversity``) | budget: in each selection β is such that β Σ_k sqrt(|C_k|) of all
    questions that can move is ``diversity`` times ΔD, or times their cost where that is less."""
    num_clusters: int = field(default=5, metadata=at_least(1))
    """K of the K-means over question vectors."""
    vectors: str = "student"
    """student (mean input embedding of the question) | tfidf | glove (the paper's) | hub id or folder of an encoder."""
    glove_path: str | None = None
    """vectors=glove: a text file of words and numbers, such as glove.6B.300d.txt."""
    solver: str = field(default="greedy", metadata=one_of("greedy", "ftgp", "exact"))
    """greedy | ftgp (the paper's) | exact (small sets)."""
    step_size: int | str | None = field(default=None, metadata=at_least_or("auto", 1))
    """Δ_s: steps that a question moves in a stage, at once; null: the 95th percentile of n_i / T, rounded up. auto: a
    question moves step by step, as often as D(t) pays for, at most Δ_s steps a stage, and Δ_s is the smallest with
    which H(T-1) reaches 95 % of D(T-1) and less than 5 % of the questions drop more than Δ_s steps at stage T."""
    measure_after: int | None = field(default=None, metadata=at_least(0))
    """Epochs of plain tuning (as ``student.warm_epochs``) of a student of its own, with which difficulties and learned
    weights are measured; the training's start stays as it is. null: they are measured with that start; 0: with the
    student as it came."""
    start: str = field(default="selected", metadata=one_of("selected", "last_steps", "uniform"))
    """c_i(0): selected (rounds of the same selection fill C_0) | last_steps | uniform."""
    mix: float = field(default=0.0, metadata=within("[0, 1]"))
    """Share of the examples that are whole at a stage, drawn anew for every stage, so that a student never forgets how
    to begin a rationale; 0.2 is a fair share. The paper has none."""
    permuted: bool = False
    """Control experiment: shuffle the step difficulties among all steps of the rationales with as many steps, so that
    budgets and their spread stay, and they say nothing of which step or which question is hard."""
    uniform: bool = False
    """Control experiment: every rationale is asked the same share of its steps at a stage, in total as many nats as
    the schedule would ask."""

    def __post_init__(self) -> None:
        check(self, "schedule")
        _require(
            not (self.permuted and self.uniform),
            "schedule.permuted and schedule.uniform are two controls, and uniform takes no difficulty of a step into "
            "account: set one of them",
        )
        _require(
            self.progress == "epochs" or self.stage_length is None or self.num_stages is not None,
            f"schedule.progress={self.progress} with schedule.stage_length={self.stage_length} also needs "
            "schedule.num_stages: half the epochs is no number of such stages",
        )
        _require(
            (self.vectors == "glove") == (self.glove_path is not None),
            "schedule.vectors=glove and schedule.glove_path=FILE belong together: set both or neither",
        )
        _require(
            self.diversity_scale == "absolute" or self.diversity <= 1,
            f"schedule.diversity={self.diversity} is more than 1, and with schedule.diversity_scale=budget it is a "
            "share of the budget: set schedule.diversity=0.1, for example",
        )


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """How the student learns. Values of the paper: appendix A."""

    name: str = field(default="adamw", metadata=one_of("adamw", "adam"))
    """adamw | adam. The paper: Adam."""
    lr: float = field(default=5e-5, metadata=positive(most=1000))
    """Peak learning rate. The paper: 1e-5 (LLaMA-7B), 5e-5 (FlanT5)."""
    weight_decay: float = field(default=0.0, metadata=at_least(0, most=1000))
    """Share of a parameter, times the learning rate, that a step takes off. The paper states none."""
    schedule: str = field(default="cosine", metadata=one_of("constant", "linear", "cosine"))
    """constant | linear | cosine, after the warm-up. The paper states none."""
    decay_from: str = field(default="start", metadata=one_of("start", "whole"))
    """Where the rate begins to fall: start (behind the warm-up) | whole (where rationales begin to be taught whole, so
    that a curriculum does not leave them the smallest rates)."""
    warmup_fraction: float = field(default=0.03, metadata=within("[0, 1)"))
    """Share of all optimiser steps in which the learning rate rises, in [0, 1)."""
    clip_norm: float = field(default=1.0, metadata=at_least(0))
    """Largest norm of the gradient; 0 does not clip."""
    epochs: int = field(default=20, metadata=at_least(1))
    """Passes over the rationales. The paper: 20 or 40 (LLaMA-7B), 100 (FlanT5)."""
    steps: int | None = field(default=None, metadata=at_least(1))
    """Optimiser steps after which the training ends, whatever ``epochs`` says, which then sets the curriculum's pace
    alone; null: it ends by its epochs."""
    tokens: int | None = field(default=None, metadata=at_least(1))
    """Target tokens, over all ranks, after which the training ends, exact to one global batch; otherwise as ``steps``.
    Methods that are compared at the same number of tokens have the same value. The rate follows the tokens too."""
    loss_scale: str = field(default="tokens", metadata=one_of("tokens", "mass", "sum"))
    """Divisor of a global batch's summed loss: tokens (number of targets, as Hugging Face does) | mass (sum of their
    weights, so that an answer counts more if its rationale weighs less) | sum (1, the paper's Eq. (15))."""
    batch_size: int = field(default=4, metadata=at_least(1))
    """GLOBAL batch, in rationales. The paper: 4."""
    micro_batch_size: int | None = field(default=None, metadata=at_least(1))
    """Rationales in one forward pass of a device; null means the device's whole share of the batch. The number of
    accumulated passes follows from it."""
    checkpoint_every: int | None = field(default=None, metadata=at_least(1))
    """Optimiser steps between checkpoints inside an epoch, for clusters that preempt; null: only at its end."""
    patience: int | None = field(default=None, metadata=at_least(1))
    """Validations without a better accuracy after which training stops, counted from the stage that teaches whole
    rationales on; null never stops early."""
    select: str = field(default="best", metadata=one_of("best", "last"))
    """Which student is kept: best (validation accuracy, among those that have seen whole rationales; of equal ones the
    later) | last (of the last epoch)."""
    group_by_length: bool = False
    """Batch examples of similar length: less padding, the same examples in an epoch. The paper: random batches."""
    packing: bool | None = None
    """Rationales of a micro-batch end to end, without padding, each attending to itself alone: the same losses, sooner.
    null: where the student allows it | true: refuse a student that does not | false."""
    precision: str = field(default="32-true", metadata=one_of("32-true", "bf16-mixed", "bf16-true", "16-mixed"))
    """32-true | bf16-mixed | bf16-true | 16-mixed (not for T5, whose activations overflow)."""

    def __post_init__(self) -> None:
        check(self, "optim")
        _require(
            self.batch_size % (self.micro_batch_size or 1) == 0,
            f"optim.micro_batch_size={self.micro_batch_size} does not divide "
            f"optim.batch_size={self.batch_size}: choose a divisor",
        )
        _require(
            self.steps is None or self.tokens is None,
            f"optim.steps={self.steps} and optim.tokens={self.tokens} both say where the training ends: set one",
        )


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How outputs are generated and graded; the names of template and extractor are in every record."""

    every: int = field(default=1, metadata=at_least(1))
    """Epochs between two validations by greedy generation; the last epoch is always validated."""
    batch_size: int = field(default=32, metadata=at_least(1))
    """Outputs generated at a time; changes the speed, not the text."""
    max_new_tokens: int = field(default=256, metadata=at_least(1))
    """Longest output in tokens; an output that reaches it is flagged."""
    num_samples: int = field(default=1, metadata=at_least(1))
    """Outputs of one problem: 1 is greedy, more are sampled and vote (maj@k). Validation is always greedy."""
    temperature: float = field(default=0.7, metadata=positive(most=1000))
    """Sampling temperature, if num_samples is more than 1."""
    generation_config: str = field(default="none", metadata=one_of("none", "student"))
    """none: decoding follows these settings alone | student: the student's generation_config.json counts, too, with its
    penalties, suppressed tokens and beams. Its end-of-sequence tokens always count."""
    variant: str = field(default="flexible", metadata=one_of("strict", "flexible", "mcc_kd", "mcc_kd_2023", "fu"))
    """Extractor: strict | flexible | mcc_kd | mcc_kd_2023 | fu."""

    def __post_init__(self) -> None:
        check(self, "evaluation")


def is_project(name: str) -> bool:
    """Whether W&B takes this name for a project."""
    return 0 < len(name) <= 128 and name.isprintable() and not set(name) & set("/\\#?%:")


@dataclass(frozen=True, kw_only=True)
class LoggingConfig:
    """What goes to W&B; metrics.jsonl and the report are always written."""

    wandb: str = field(default="auto", metadata=one_of("auto", "offline", "disabled"))
    """auto (online where WANDB_API_KEY or netrc has a key, else offline; WANDB_MODE says otherwise) | offline |
    disabled."""
    project: str = "kpod_lightning"
    """W&B project of the run."""
    group: str | None = None
    """W&B group of the run, e.g. the name of a study."""
    artifacts: bool = False
    """Upload the student's folder and the predictions too."""

    def __post_init__(self) -> None:
        check(self, "logging")
        _require(
            is_project(self.project),
            f"logging.project={self.project} is no name of a W&B project: at most 128 characters, and none of /\\#?%:",
        )


@dataclass(frozen=True, kw_only=True)
class LaunchConfig:
    """Devices of a run. Nothing here changes what is learned, except for rounding."""

    strategy: str = field(default="auto", metadata=one_of("auto", "single", "ddp", "fsdp"))
    """auto (ddp where more than one device is asked for, else single) | single | ddp | fsdp (parameters, gradients and
    optimiser states sharded over the devices, block by block)."""
    accelerator: str = field(default="auto", metadata=one_of("auto", "cpu", "gpu"))
    """auto (GPUs where there are some) | cpu | gpu."""
    num_nodes: int = field(default=1, metadata=at_least(1, most=100_000))
    """Machines; with more than one, srun or torchrun starts the processes."""
    devices: int | None = field(default=None, metadata=at_least(1, most=256))
    """Processes on each machine, one for each GPU. null: as many as srun or torchrun started; else all GPUs for ddp and
    fsdp, and one for auto, so that a batch of four runs on a machine with eight GPUs as it does on a laptop."""
    activation_checkpointing: bool = False
    """Recompute the blocks' activations in the backward pass: less memory, about a third more time."""
    cpu_offload: bool = False
    """fsdp: keep parameters and optimiser states in the memory of the host."""

    def __post_init__(self) -> None:
        check(self, "launch")
        _require(
            self.strategy != "single" or (self.num_nodes == 1 and self.devices in (None, 1)),
            f"launch.strategy=single is one process, but launch.num_nodes={self.num_nodes} and "
            f"launch.devices={self.devices}: take ddp or fsdp",
        )
        _require(
            not self.cpu_offload or self.strategy == "fsdp",
            f"launch.cpu_offload=true needs launch.strategy=fsdp, not {self.strategy}",
        )


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One experiment, whole."""

    method: str = "kpod"
    """kpod | plain (chain-of-thought distillation, Eq. 1) | answers_only (the answer without a rationale) | the rivals
    krsl, mcc_kd, scotd, scott, specialized, step_by_step (docs/methods.md) | one of an installed package."""
    curriculum: str = "in_rationale"
    """method=kpod: in_rationale (KPOD's, Eqs. 8-13; settings in ``schedule``) | forward (its first steps first) |
    in_sample (a share of every rationale's tokens) | adaptive | prefix_adaptive | self_paced | none | one of an
    installed package."""
    seed: int = field(default=MISSING, metadata=at_least(0, most=LARGEST_SEED))
    """Of everything that is random in a run: order of the examples, masks, clusters, sampled outputs."""
    paper: bool = False
    """Take the paper's choices (``PAPER``) wherever the experiment file and the command line say nothing."""
    data: DataConfig = field(default_factory=DataConfig)
    rationales: RationalesConfig = field(default_factory=RationalesConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    student: StudentConfig = field(default_factory=StudentConfig)
    weights: WeightsConfig = field(default_factory=WeightsConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    launch: LaunchConfig = field(default_factory=LaunchConfig)
    num_workers: int = field(default=0, metadata=at_least(0, most=1024))
    """Processes that collate batches; changes speed, not batches."""

    def __post_init__(self) -> None:
        check(self)
        _require(
            self.evaluation.every <= self.optim.epochs,
            f"evaluation.every={self.evaluation.every} is more than optim.epochs={self.optim.epochs}: "
            "lower it, or the training would be validated only at its end",
        )
        source, dataset = self.rationales.source, self.data.dataset
        _require(
            source == "recorded" or (source == "generated") == (dataset == "arithmetic"),
            f"rationales.source={source} does not fit data.dataset={dataset}: arithmetic has generated rationales, and "
            "only arithmetic has; the rationales of a teacher (recorded) fit both",
        )


PAPER: dict[str, Any] = {
    "rationales": {"correct_only": False, "step_rule": r"\."},
    "weights": {
        "answer_model": "flan-t5-large",
        "features": "embedding",
        "form": "penalty",
        "gradient": "straight_through",
        "mask_place": "features",
        "mask_with": "zero",
        "normalise": "sum",
        "prefixes": "all",
        "random_share": 0.0,
        "rescale": "none",
        "sample": "soft",
        "warmup_epochs": 0,
    },
    "schedule": {"solver": "ftgp", "start": "last_steps", "vectors": "glove"},
    # The paper states no schedule of the rate, no warm-up and no clipping.
    "optim": {"clip_norm": 0.0, "loss_scale": "sum", "name": "adam", "schedule": "constant", "warmup_fraction": 0.0},
}
"""Where our defaults depart from the paper, and what it has. Its GloVe file is to be named: schedule.glove_path."""


def num_stages(config: RunConfig) -> int:
    """T: as set, or the stages that half of the epochs hold, at least 1."""
    in_epochs = config.schedule.progress == "epochs"
    length = config.schedule.stage_length if in_epochs and config.schedule.stage_length else 1
    return config.schedule.num_stages or max(1, config.optim.epochs // 2 // length)


def measuring_epochs(config: RunConfig) -> int:
    """Epochs of plain tuning behind the student that difficulties and learned weights are measured with."""
    after = config.schedule.measure_after
    return config.student.warm_epochs if after is None else after


SHORT = {"teacher": "teacher.name", "samples": "teacher.samples", "budget": "teacher.budget"}
"""Settings of the command line by a shorter name."""


def experiment_file(path: Path) -> Path:
    """The YAML file of an experiment: ``path``, or the one shipped under this name, e.g. ``arithmetic``.

    Raises:
        InputError: there is no such file, and no shipped experiment has this name.
    """
    if os.path.lexists(path):
        return path
    shipped = {file.stem: file for file in sorted((ASSETS / "experiments").glob("*.yaml"))}
    if str(path) not in shipped:
        raise InputError(
            f"{shown(path)}: no such experiment file; write a file's path or a name among {', '.join(shipped)}"
        )
    return shipped[str(path)]


BlocksOf: TypeAlias = Callable[[Any], Mapping[str, type]]
"""Further blocks of settings, name -> dataclass, of the methods that the settings name."""


def load_config(path: Path | None, overrides: Sequence[str], blocks_of: BlocksOf | None = None) -> RunConfig:
    """Settings of an experiment: defaults < with ``paper``, the paper's < the YAML file < ``key=value``.

    Without a file the seed is 0, so that every setting has a value. A name that is no file is looked up among the
    shipped experiments.

    Args:
        blocks_of: it is handed the settings without the further blocks; ``methods.base.load_experiment`` gives it.

    Raises:
        InputError: an unknown key, a value of the wrong type, a contradiction, a file that is no YAML.
    """
    return layered(path, overrides, blocks_of)[0]


def layered(
    path: Path | None, overrides: Sequence[str], blocks_of: BlocksOf | None = None
) -> tuple[RunConfig, dict[str, str]]:
    """As ``load_config``, and where every setting that is no default comes from: paper, the file or the command line.

    The sources are by the settings' names with dots.
    """
    path = None if path is None else experiment_file(path)
    written = {"seed": 0} if path is None else _mapping_of(path)

    def layers(block: type[RunConfig], only: Collection[str] | None = None) -> list[dict[str, Any]]:
        """What the file and the words say, the settings named ``only``; all where it is None."""
        found = []
        for place, settings in ((path, written), (None, nested(overrides, block, SHORT))):
            if only is not None:
                settings = {key: value for key, value in settings.items() if key in only}
            with _blamed_on(place):
                found.append(fitted(block, settings))
        return found

    try:
        shared = layers(RunConfig, RunConfig.__dataclass_fields__)
        named = OmegaConf.merge(_defaults(RunConfig), *shared)
        whole = with_blocks({} if blocks_of is None else blocks_of(named))
        from_file, from_words = layers(whole)
        below = PAPER if named.paper else {}
        config = OmegaConf.merge(_defaults(whole), below, from_file, from_words)  # type: ignore[arg-type]  # a class can be hashed
        with _blamed_on(path, unless=from_words, where=from_file):
            loaded = OmegaConf.to_object(config)
    except MissingMandatoryValue as error:
        raise InputError(
            f"{shown(path or Path('the settings'))}: seed is missing; write seed: 0, for example"
        ) from error
    except (OmegaConfBaseException, RecursionError) as error:
        where = getattr(error, "full_key", None) or "a setting with ${...}"
        circle = isinstance(error, RecursionError) or "Recursive interpolation" in str(error)
        reason = "it refers to itself" if circle else str(error).splitlines()[0]
        raise InputError(f"{where}: {reason}; mend what ${{...}} refers to, or write the value itself") from error
    assert isinstance(loaded, RunConfig)
    sources: dict[str, str] = {}
    for source, layer in (("paper", below), ("file", from_file if path else {}), ("command line", from_words)):
        sources |= {key: source for key in known_keys(whole) if _has(layer, key.split("."))}
    return loaded, sources


def _mapping_of(path: Path) -> dict[str, Any]:
    """The settings that a YAML file has; none where it is empty."""
    written = read_yaml(path)
    if written is None:
        return {}
    if not isinstance(written, dict):
        raise InputError(f"{shown(path)}: an experiment is a mapping of settings, not a {kind_of(written)}")
    return written


@contextmanager
def _blamed_on(
    path: Path | None, unless: Mapping[str, Any] | None = None, where: Mapping[str, Any] | None = None
) -> Iterator[None]:
    """Messages begin with the file of the setting that they begin with.

    Args:
        path: the file; None adds nothing.
        unless: settings that are not the file's.
        where: settings of the file; None: every message is on the file.
    """
    try:
        yield
    except InputError as error:
        keys = re.split(r"[^\w.]", str(error))[0].split(".")
        if path is None or _has(unless or {}, keys) or not (where is None or _has(where, keys)):
            raise
        raise InputError(f"{shown(path)}: {error}") from error


def _has(settings: Any, keys: Sequence[str]) -> bool:
    for key in keys:
        if not isinstance(settings, Mapping) or key not in settings:
            return False
        settings = settings[key]
    return True


def with_blocks(blocks: Mapping[str, type]) -> type[RunConfig]:
    """``RunConfig`` with further blocks of settings.

    Raises:
        InputError: a block has the name of a setting that there is.
    """
    taken = [name for name in blocks if name in RunConfig.__dataclass_fields__]
    if taken:
        raise InputError(f"{taken[0]}: a method's block of settings has the name of a setting; rename the entry point")
    return _with_blocks(tuple(blocks.items())) if blocks else RunConfig


# Cached, since a study reads the settings of many runs, and each of these two takes a tenth of a second.
@cache
def _with_blocks(blocks: tuple[tuple[str, type], ...]) -> type[RunConfig]:
    fields = [(name, kind, field(default_factory=kind)) for name, kind in blocks]
    return make_dataclass("RunConfig", fields, bases=(RunConfig,), frozen=True, kw_only=True)


@cache
def _defaults(block: type[RunConfig]) -> DictConfig:
    """The defaults as OmegaConf has them, to be merged with others and never changed: ``merge`` copies its first."""
    found: DictConfig = OmegaConf.structured(block)
    return found


def to_dict(config: RunConfig) -> dict[str, Any]:
    """The settings as plain containers, every default filled in."""
    return asdict(config)


def that_matter(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that can change a number of a run: all but logging, devices, workers and the teacher.

    ``teacher`` writes a file of rationales, and a run depends on the file's contents.
    """
    return {key: value for key, value in settings.items() if key not in ("logging", "launch", "num_workers", "teacher")}


def differences(one: dict[str, Any], other: dict[str, Any], prefix: str = "") -> list[str]:
    """The settings in which two runs differ, as ``key: this, was that``."""
    lines = []
    for key in sorted(one.keys() | other.keys()):
        new, old = one.get(key), other.get(key)
        if isinstance(new, dict) and isinstance(old, dict):
            lines += differences(new, old, f"{prefix}{key}.")
        elif new != old:
            new, old = ("{...}" if isinstance(value, dict) and value else value for value in (new, old))
            lines.append(f"{prefix}{key}: {new}, was {old}")
    return lines
