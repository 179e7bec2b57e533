"""Memory of a device in a training step, computed from a model's shape.

Nothing here is fitted: a tensor counts because autograd keeps it, the optimiser holds it or the strategy gathers it.
What autograd keeps was read off the models' code; the tests compare it with ``saved_tensors_hooks``. All sizes are in
bytes unless a name says otherwise.
"""

from dataclasses import dataclass, replace

from kpod_lightning.commands.doctor.architecture import ACTIVATION_TENSORS, Architecture
from kpod_lightning.students.linear_nll import CHUNK_BYTES

GIB = 2**30

MARGIN = 0.1
"""Share of a device that a plan leaves free: the context of CUDA and NCCL's buffers (about 1 GiB) and the blocks that
the caching allocator cannot use."""


# ---- What is computed, and how ----


@dataclass(frozen=True, kw_only=True)
class Numerics:
    """Precision, and what else decides the size of a number in memory. Sizes are bytes of one number."""

    precision: str = "32-true"
    lora_rank: int | None = None
    sharded: bool = False
    """FSDP over several devices: under mixed precision its gathered parameters are 16 bits wide, so activations are
    those of bf16-true."""
    on_gpu: bool = True

    @property
    def of_parameter(self) -> int:
        return 2 if self.precision == "bf16-true" else 4

    @property
    def of_compute(self) -> int:
        return 4 if self.precision == "32-true" else 2

    @property
    def of_residual(self) -> int:
        """Of the stream between blocks, which has the embeddings' type."""
        return self.of_compute if self.sharded else self.of_parameter

    @property
    def casts(self) -> bool:
        """Whether autocast copies parameters and activations to 16 bits for every linear map."""
        return self.of_residual > self.of_compute

    @property
    def learns_all(self) -> bool:
        return self.lora_rank is None


@dataclass(frozen=True, kw_only=True)
class Load:
    """Rows, lengths and mask of one forward pass on one device."""

    rows: int
    length: int
    """Tokens of a row that a decoder-only model or an encoder reads."""
    num_logits: int
    """Positions of a row that get logits."""
    decoder_length: int = 0
    mask: str = "packed"
    """packed (rows end to end, each attending to itself alone) | none (no row is padded) | padding (a boolean
    [B, 1, L, L], which every layer turns into numbers) | own (a mask of numbers that all layers share, as the weights
    phase has for its prefixes)."""
    fused: bool = True
    """The loss is ``linear_nll``'s and Adam may be fused, as in the training; the weights phase has neither."""

    @property
    def padded(self) -> bool:
        return self.mask in ("padding", "own")


# ---- Activations ----


def norm_bytes(width: int, readers: int, numerics: Numerics, *, keeps_narrow_input: bool = False) -> int:
    """Kept by an RMS norm for a token: float32 input (squared), normalised input (for the norm's weight), result.

    Args:
        readers: linear maps that keep the result; autocast makes a copy for each.
        keeps_narrow_input: T5 multiplies the input as it came, Llama its float32 copy.
    """
    kept = 4 + numerics.of_compute * (readers if numerics.casts else min(1, readers))
    if numerics.learns_all:
        kept += numerics.of_residual
    if keeps_narrow_input and numerics.of_residual < 4:
        kept += numerics.of_residual
    return kept * width


def feed_forward_bytes(arch: Architecture, numerics: Numerics) -> int:
    """Kept by a feed-forward layer for a token: the activation's tensors, gate and product.

    Norm and residual sum are counted elsewhere. Dropout keeps its result and its mask (a byte an entry on a GPU, a
    number on a CPU).
    """
    wide, num_gates = numerics.of_compute, 2 if arch.gated else 0
    kept = (ACTIVATION_TENSORS[arch.activation] + num_gates) * wide
    if arch.activation == "gelu_new" and numerics.casts and numerics.on_gpu:
        kept += 4 * (4 - wide)  # CUDA's autocast takes the cube in float32: x, tanh, 1 + tanh and the product with it
    if arch.dropout:
        kept += dropped_bytes(numerics) + (0 if arch.gated else wide)
    return kept * arch.intermediate


def dropped_bytes(numerics: Numerics) -> int:
    """Kept by dropout for one entry: its mask."""
    return 1 if numerics.on_gpu else numerics.of_compute


def llama_block_bytes(arch: Architecture, load: Load, numerics: Numerics) -> int:
    """Kept by one block of a Llama-like model.

    Attention keeps rotated queries and keys, values and its result; the rotation's factors are constants. The fused
    kernels keep a float32 log-sum a head instead of probabilities. With a mask, keys and values are repeated to the
    number of heads. Results of packed rows are copied into one.
    """
    wide = numerics.of_compute
    inner, narrow = arch.heads * arch.head_width, arch.kv_heads * arch.head_width
    repeated = inner if load.padded else narrow
    token = norm_bytes(arch.hidden, 3, numerics) + norm_bytes(arch.hidden, 2, numerics)
    joined = load.mask == "packed" and (numerics.learns_all or not numerics.casts)  # else only the adapter's copy stays
    token += wide * (2 * (inner + repeated) + inner * joined) + 4 * arch.heads
    if arch.normed_heads:
        token += (inner + narrow) * (4 + (wide if numerics.learns_all else 0))
    token += feed_forward_bytes(arch, numerics)
    token += adapter_bytes(7, inner, numerics)
    mask = 0
    if load.mask == "padding" or (load.mask == "own" and (numerics.casts or numerics.on_gpu)):
        mask = wide * load.rows * load.length**2  # the memory-efficient kernel pads a copy of any mask
    return load.rows * load.length * token + mask


def spared_bytes(arch: Architecture, load: Load, numerics: Numerics) -> int:
    """Not kept by the last block, whose feed-forward layer sees the asked positions alone; padded, it sees all."""
    if load.mask not in ("packed", "own"):
        return 0
    token = feed_forward_bytes(arch, numerics) + numerics.of_compute * arch.hidden * (2 if numerics.casts else 1)
    token += numerics.of_compute * 3 * (numerics.lora_rank or 0)
    return load.rows * (load.length - load.num_logits) * token


def adapter_bytes(num_maps: int, inner: int, numerics: Numerics) -> int:
    """Kept by LoRA for a token: A x of each map, and under autocast the copy of attention's result that A reads."""
    if numerics.lora_rank is None:
        return 0
    return numerics.of_compute * (num_maps * numerics.lora_rank + (inner if numerics.casts else 0))


def t5_attention_bytes(arch: Architecture, queries: int, keys: int, numerics: Numerics) -> int:
    """Kept by T5's attention for a row. Its position bias learns, so every layer has a mask with a gradient.

    On a GPU the memory-efficient kernel keeps that mask, one matrix a head. A CPU has no such kernel: it keeps the
    probabilities, a copy of them with fully masked rows set to 0, and dropout's factors, all in float32.
    """
    inner, pairs = arch.heads * arch.head_width, arch.heads * queries * keys
    result = numerics.of_compute * inner * queries
    if numerics.on_gpu:
        return result + numerics.of_compute * (inner * (queries + 2 * keys) + pairs) + 4 * arch.heads * queries
    return result + 4 * (inner * (queries + 2 * keys) + (3 if arch.dropout else 2) * pairs)


def t5_block_bytes(arch: Architecture, load: Load, numerics: Numerics, *, decoder: bool) -> int:
    """Kept by one block of T5's encoder or decoder."""
    length, inner = load.decoder_length if decoder else load.length, arch.heads * arch.head_width

    def norm(readers: int) -> int:
        return norm_bytes(arch.hidden, readers, numerics, keeps_narrow_input=True)

    token = norm(3) + norm(2 if arch.gated else 1) + feed_forward_bytes(arch, numerics)
    token += (norm(1) if decoder else 0) + adapter_bytes(9 if decoder else 7, inner, numerics)
    if arch.dropout:
        token += (3 if decoder else 2) * dropped_bytes(numerics) * arch.hidden
    row = length * token + t5_attention_bytes(arch, length, length, numerics)
    if decoder:
        row += t5_attention_bytes(arch, length, load.length, numerics)
        if numerics.casts:
            row += 2 * numerics.of_compute * arch.hidden * load.length  # the encoder's result, for keys and values
    return load.rows * row


def blocks(arch: Architecture, load: Load, numerics: Numerics) -> list[tuple[int, int, int]]:
    """(number, kept bytes, input bytes) of each kind of block."""
    stream = load.rows * numerics.of_residual * arch.hidden
    if not arch.encoder_decoder:
        block, inputs = llama_block_bytes(arch, load, numerics), stream * load.length
        return [(arch.layers - 1, block, inputs), (1, block - spared_bytes(arch, load, numerics), inputs)]
    encoder, decoder = (t5_block_bytes(arch, load, numerics, decoder=part) for part in (False, True))
    return [(arch.layers, encoder, stream * load.length), (arch.decoder_layers, decoder, stream * load.decoder_length)]


def ends_bytes(arch: Architecture, load: Load, numerics: Numerics) -> int:
    """Kept outside the blocks: last norms and their results, T5's dropout at both ends, a mask that layers share."""
    encoder, last = (
        norm_bytes(arch.hidden, readers, numerics, keeps_narrow_input=arch.encoder_decoder)
        + (2 * arch.hidden * (1 if numerics.on_gpu else numerics.of_residual) if arch.dropout else 0)
        for readers in (1, 0 if load.fused else 1)
    )
    if arch.encoder_decoder:
        return load.rows * (load.length * encoder + load.decoder_length * last)
    return load.rows * (load.length * last + numerics.of_residual * load.length**2 * (load.mask == "own"))


def passing_bytes(arch: Architecture, load: Load, numerics: Numerics) -> int:
    """Most gradients of activations that the backward pass of one block holds at once.

    They are those of the feed-forward layer's product, gate and activation, or, where these are larger, those of T5's
    attention: of probabilities and scores on a CPU, of the mask on a GPU; packed rows have theirs one after the other.
    """
    longest = max(load.length, load.decoder_length)
    feed_forward = 3 * numerics.of_compute * arch.intermediate * longest
    pairs = arch.heads * longest**2 if arch.encoder_decoder else 0
    attention = pairs * (numerics.of_compute if numerics.on_gpu else 2 * 4)
    return max(load.rows * feed_forward, (1 if load.mask == "packed" else load.rows) * attention)


def loss_bytes(arch: Architecture, load: Load, numerics: Numerics) -> tuple[int, int]:
    """Memory of logits and of the head's gradient when the loss is computed, and when its backward pass starts.

    ``linear_nll`` makes float32 gradients of the head and those of the hidden states in the forward pass. It holds a
    chunk of logits. Where the model computes in 16 bits it holds a chunk of these and one of the errors, float32 logits
    of the last chunk and the next, and 16-bit copies of the head's gradient.

    Otherwise these are, forward: the logits, a float32 copy and log-probabilities. Float32 logits are copied too if
    several rows are cut behind the prompt. Backward: log-probabilities, their gradient and that of the logits, all
    float32, and the head's gradient.
    """
    num_tokens, head = load.rows * load.num_logits, arch.vocabulary * arch.hidden * numerics.learns_all
    entries, narrow = num_tokens * arch.vocabulary, numerics.of_compute if numerics.of_compute < 4 else 0
    if not load.fused:
        copied = narrow or (load.rows > 1 and not arch.encoder_decoder)
        return entries * (numerics.of_compute + 4 * bool(copied) + 4), entries * 12 + head * numerics.of_parameter
    chunk = min(4 * entries, CHUNK_BYTES["cuda" if numerics.on_gpu else "cpu"])
    chunks = chunk * ((3 if chunk < 4 * entries else 2) if narrow else 1)
    gradients = head * (4 + narrow) + num_tokens * arch.hidden * numerics.of_compute
    return chunks + gradients, gradients


# ---- The plan ----


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Memory of one device at the fullest moment of a step."""

    moment: str
    parts: dict[str, float]
    """Name -> bytes; absent parts are 0."""
    host: float
    """Bytes that FSDP keeps in the host's memory, for each process."""

    @property
    def total(self) -> float:
        return sum(self.parts.values())

    def fits(self, memory: float) -> bool:
        """Whether it fits a device of ``memory`` bytes with ``MARGIN`` of it left free."""
        return self.total <= (1 - MARGIN) * memory


@dataclass(frozen=True, kw_only=True)
class Extras:
    """Parameters beside the model's own."""

    frozen: int = 0
    learned: int = 0


@dataclass(frozen=True, kw_only=True)
class Held:
    """What a device holds during the whole training."""

    shard: int
    """Devices over which FSDP spreads it; 1 without."""
    states: dict[str, float]
    gradients: float
    host: float
    trained: float
    """Parameters that learn, of this device's shard."""


def held_of(
    arch: Architecture, numerics: Numerics, num_devices: int, *, ddp: bool, cpu_offload: bool, extras: Extras
) -> Held:
    """Parameters, optimiser states and gradients of a device; see ``plan``."""
    shard, width = num_devices if numerics.sharded else 1, numerics.of_parameter
    adapters = arch.lora_ranked * (numerics.lora_rank or 0)
    learned = (arch.parameters if numerics.learns_all else adapters) + extras.learned
    trained, frozen = learned / shard, width * extras.frozen
    parameters = width * (arch.parameters + adapters + extras.learned) / shard
    if cpu_offload and shard > 1:
        states: dict[str, float] = {"parameters": frozen} if frozen else {}
        return Held(shard=shard, states=states, gradients=0, host=parameters + 3 * width * trained, trained=trained)
    states = {"parameters": parameters + frozen, "optimiser states": 2 * width * trained}
    if ddp:
        states["gradient buckets"] = width * trained
    return Held(shard=shard, states=states, gradients=width * trained, host=0, trained=trained)


MOMENTS = (
    "end of the forward pass",
    "start of the backward pass",
    "backward pass of the last block",
    "backward pass of the first block",
    "optimiser step",
)
"""Moments of a training step that can be the fullest. The backward pass goes from the last block to the first."""

AtMoments = tuple[float, float, float, float, float]
"""Bytes at each of ``MOMENTS``."""


def gradients_at(arch: Architecture, numerics: Numerics, held: Held, accumulates: bool) -> AtMoments:
    """Gradients of parameters, which the backward pass adds block by block; its start with the head is the loss's."""
    every = held.gradients
    if accumulates:
        return every, every, every, every, every
    of_head = numerics.of_parameter * arch.vocabulary * arch.hidden / held.shard
    head = of_head if numerics.learns_all and not held.host else 0
    return every, 0, head + every / arch.num_blocks, every, every


def activations_at(arch: Architecture, load: Load, numerics: Numerics, checkpointing: bool) -> AtMoments:
    """Kept activations; in the backward pass of a block also its gradients, and what checkpointing computes again."""
    kinds = blocks(arch, load, numerics)
    largest_block = max(kept for _, kept, _ in kinds)
    kept = ends_bytes(arch, load, numerics)
    kept += sum(number * (stream if checkpointing else block) for number, block, stream in kinds)
    recomputed = largest_block if checkpointing else 0
    passing = passing_bytes(arch, load, numerics)
    first_block = largest_block if checkpointing else kept / arch.num_blocks
    return kept, kept, kept + recomputed + passing, first_block + passing, 0


def temporary_at(arch: Architecture, load: Load, numerics: Numerics, held: Held) -> AtMoments:
    """The gradient of tied embeddings as input, before it is added to the head's; and Adam's denominator.

    Where it is not fused, as under autocast, Adam takes the denominator of all parameters at once on a GPU (foreach),
    and of one after the other on a CPU, where the root and the quotient are two tensors.
    """
    embedding = numerics.of_parameter * arch.vocabulary * arch.hidden if arch.tied and numerics.learns_all else 0
    largest = arch.largest_parameter if numerics.learns_all else 0
    adam = numerics.of_parameter * (held.trained if numerics.on_gpu else 2 * largest)
    fused = load.fused and not numerics.precision.endswith("-mixed")
    return 0, 0, 0, embedding, 0 if held.host or fused else adam


def autocast_copies_at(arch: Architecture, numerics: Numerics, checkpointing: bool) -> AtMoments:
    """Autocast's 16-bit copies of parameters.

    Autocast caches copies of parameters that learn until the forward pass ends; the graph keeps those that a linear
    map needs for its backward pass.
    """
    if not numerics.casts:
        return 0, 0, 0, 0, 0
    one_block = numerics.of_compute * (arch.linear_parameters / arch.num_blocks)
    forward: float = numerics.of_compute * arch.linear_parameters
    if checkpointing and not numerics.learns_all:
        forward = one_block
    backward = one_block if checkpointing else forward
    return forward, backward, backward, one_block, 0


def gathered_at(arch: Architecture, numerics: Numerics, shard: int) -> AtMoments:
    """Parameters that FSDP gathers, and gradients that are whole until they are scattered.

    Parameters outside the blocks stay gathered from their first use to their last. The next block is gathered while
    one is computed (backward_prefetch=BACKWARD_PRE).
    """
    if shard == 1:
        return 0, 0, 0, 0, 0
    outside, block = arch.parameters - arch.all_block_parameters, arch.block_parameters
    parameters = numerics.of_compute * (outside + 2 * block)
    gradients = numerics.of_compute * (outside + block) if numerics.learns_all else 0
    return parameters, parameters, parameters + gradients, parameters + gradients, 0


def plan(
    arch: Architecture,
    load: Load,
    numerics: Numerics,
    *,
    num_devices: int = 1,
    ddp: bool = False,
    checkpointing: bool = False,
    cpu_offload: bool = False,
    accumulates: bool = False,
    extras: Extras | None = None,
) -> Plan:
    """Memory of a training step with Adam, from the second step on.

    Lightning frees the gradients of a step only when the next backward pass starts, so the forward pass holds them
    beside its activations. Sizes of the states: Rajbhandari et al. 2020 (ZeRO, arXiv 1910.02054), section 3; the
    two moments of Adam have the parameters' type.

    Args:
        num_devices: over which FSDP shards (``numerics.sharded``).
        ddp: gradients are averaged through buckets, a second copy of them all.
        checkpointing: a block keeps its input alone and is computed again.
        accumulates: several micro-batches make one step, so that gradients stay through the backward pass.
        extras: frozen and learned parameters beside the model's.
    """
    held = held_of(arch, numerics, num_devices, ddp=ddp, cpu_offload=cpu_offload, extras=extras or Extras())
    sizes: dict[str, AtMoments] = {
        "gradients": gradients_at(arch, numerics, held, accumulates),
        "activations": activations_at(arch, load, numerics, checkpointing),
        "loss": (*loss_bytes(arch, load, numerics), 0, 0, 0),
        "temporary": temporary_at(arch, load, numerics, held),
        "autocast copies": autocast_copies_at(arch, numerics, checkpointing),
        "gathered blocks": gathered_at(arch, numerics, held.shard),
    }
    parts = {
        moment: held.states | {part: row[column] for part, row in sizes.items() if row[column]}
        for column, moment in enumerate(MOMENTS)
    }
    fullest = max(parts, key=lambda moment: sum(parts[moment].values()))
    return Plan(moment=fullest, parts=parts[fullest], host=held.host)


def scoring_plan(arch: Architecture, load: Load, numerics: Numerics, *, num_devices: int = 1) -> Plan:
    """Memory of a student's losses without gradients, before it is trained: nothing outlives its block.

    A block holds at most the stream, a norm's input and result, and activation, gate and product of its feed-forward
    layer, or T5's scores, mask and probabilities. The first chunk of logits takes the place of all that, if larger.
    """
    shard, wide = num_devices if numerics.sharded else 1, numerics.of_compute
    longest = max(load.length, load.decoder_length)
    token = 3 * numerics.of_residual * arch.hidden + 3 * wide * arch.intermediate
    pairs = 3 * wide * arch.heads * longest**2 if arch.encoder_decoder else wide * load.length**2
    frozen = replace(numerics, lora_rank=0)
    parts: dict[str, float] = {
        "parameters": numerics.of_parameter * arch.parameters / shard,
        "activations": load.rows * (longest * token + pairs),
        "loss": loss_bytes(arch, load, frozen)[0],
        "autocast copies": numerics.casts * wide * arch.largest_parameter,
        "gathered blocks": gathered_at(arch, numerics, shard)[0],
    }
    return Plan(moment="first loss", parts={name: size for name, size in parts.items() if size}, host=0)


def generation_plan(
    arch: Architecture,
    numerics: Numerics,
    *,
    rows: int,
    prompt: int,
    num_new: int,
    num_devices: int = 1,
    ddp: bool = False,
    cpu_offload: bool = False,
) -> Plan:
    """Memory of a validation by greedy generation during the training, whose states and last gradients stay.

    The cache holds keys and values of every layer for every position read or written, and T5's those of the prompt for
    cross-attention. Under autocast keys are float32, the type of the rotation. A layer's cache is copied when it grows.
    The prompt is read in one pass without gradients, which holds at most a norm's input and result, and a feed-forward
    layer's activation, gate and product.
    """
    wide = numerics.of_compute
    held = held_of(arch, numerics, num_devices, ddp=ddp, cpu_offload=cpu_offload, extras=Extras())
    both = (wide if arch.encoder_decoder else numerics.of_residual) + wide
    layer = arch.kv_heads * arch.head_width * both * rows * (prompt + num_new)
    cache = layer * ((arch.decoder_layers or arch.layers) + 1)
    reading = rows * prompt * (2 * numerics.of_residual * arch.hidden + 3 * wide * arch.intermediate)
    num_copied = 1 if numerics.learns_all else arch.num_blocks  # frozen parameters: one block's copies at a time
    copies = wide * arch.linear_parameters / num_copied if numerics.casts else 0
    parts: dict[str, float] = {
        "gradients": held.gradients,
        "activations": reading,
        "keys and values": cache,
        "logits": rows * arch.vocabulary * (wide + 4),
        "autocast copies": copies,
        "gathered blocks": gathered_at(arch, numerics, held.shard)[0],
    }
    present = {name: size for name, size in parts.items() if size}
    return Plan(moment="end of the longest output", parts=held.states | present, host=held.host)
