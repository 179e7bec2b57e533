"""What a step of a training takes of a device's memory, from a model's shape.

Nothing here is fitted: a tensor counts because autograd keeps it, the optimiser holds it or the strategy gathers it.
What autograd keeps was read off the models' code and is compared with ``saved_tensors_hooks`` by the tests. All sizes
are bytes unless a name says otherwise.
"""

from dataclasses import dataclass

from kpod_lightning.commands.doctor.architecture import ACTIVATION_TENSORS, Architecture

GIB = 2**30

MARGIN = 0.1
"""Share of a device that a plan leaves free: the context of CUDA and NCCL's buffers (about 1 GiB) and the blocks that
the caching allocator cannot use."""


# ---- What is computed, and how ----


@dataclass(frozen=True, kw_only=True)
class Numerics:
    """Sizes of numbers and the kernels that take them."""

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
        """The stream between blocks: the embeddings' type."""
        return self.of_compute if self.sharded else self.of_parameter

    @property
    def casts(self) -> bool:
        """Autocast copies parameters and activations to 16 bits for every linear map."""
        return self.of_residual > self.of_compute

    @property
    def learns_all(self) -> bool:
        return self.lora_rank is None


@dataclass(frozen=True, kw_only=True)
class Load:
    """What one forward pass of one device reads and asks."""

    rows: int
    length: int
    """Tokens of a row that a decoder-only model or an encoder reads."""
    num_logits: int
    """Positions of a row that get logits."""
    decoder_length: int = 0
    mask: str = "padding"
    """none (no row is padded) | padding (a boolean [B, 1, L, L], which every layer turns into numbers) | own (numbers
    that all layers share: the prefixes of the weights phase)."""


# ---- Activations ----


def norm_bytes(width: int, readers: int, numerics: Numerics, *, keeps_narrow_input: bool = False) -> int:
    """Of an RMS norm, a token: its float32 input (squared), the normalised input (for the norm's weight), the result.

    Args:
        readers: linear maps that read the result; autocast makes a copy for each.
        keeps_narrow_input: T5 multiplies the input as it came, Llama its float32 copy.
    """
    kept = 4 + numerics.of_compute * (readers if numerics.casts else 1)
    if numerics.learns_all:
        kept += numerics.of_residual
    if keeps_narrow_input and numerics.of_residual < 4:
        kept += numerics.of_residual
    return kept * width


def feed_forward_bytes(arch: Architecture, numerics: Numerics) -> int:
    """Of a feed-forward layer between its norm and its sum, a token: the activation's tensors, gate and product.

    Dropout keeps which entries it dropped (a byte each on a GPU, numbers on a CPU) and its result.
    """
    wide, num_gates = numerics.of_compute, 2 if arch.gated else 0
    kept = (ACTIVATION_TENSORS[arch.activation] + num_gates) * wide
    if arch.activation == "gelu_new" and numerics.casts and numerics.on_gpu:
        kept += 4 * (4 - wide)  # CUDA's autocast takes the cube in float32: x, tanh, 1 + tanh and the product with it
    if arch.dropout:
        kept += dropped_bytes(numerics) + (0 if arch.gated else wide)
    return kept * arch.intermediate


def dropped_bytes(numerics: Numerics) -> int:
    """What dropout keeps of an entry."""
    return 1 if numerics.on_gpu else numerics.of_compute


def llama_block_bytes(arch: Architecture, load: Load, numerics: Numerics) -> int:
    """Kept by one block of a Llama-like model.

    Attention keeps queries, keys, values and its result, all after the rotation, whose own factors are constants; the
    fused kernels keep a float32 log-sum per head instead of probabilities. With a mask keys and values are repeated
    to the number of heads.
    """
    wide = numerics.of_compute
    inner, narrow = arch.heads * arch.head_width, arch.kv_heads * arch.head_width
    repeated = narrow if load.mask == "none" else inner
    token = norm_bytes(arch.hidden, 3, numerics) + norm_bytes(arch.hidden, 2, numerics)
    token += wide * 2 * (inner + repeated) + 4 * arch.heads
    if arch.normed_heads:
        token += (inner + narrow) * (4 + (wide if numerics.learns_all else 0))
    token += feed_forward_bytes(arch, numerics)
    token += adapter_bytes(7, inner, numerics)
    mask = 0
    if load.mask == "padding" or (load.mask == "own" and (numerics.casts or numerics.on_gpu)):
        mask = wide * load.rows * load.length**2  # the memory-efficient kernel pads a copy of any mask
    return load.rows * load.length * token + mask


def adapter_bytes(num_maps: int, inner: int, numerics: Numerics) -> int:
    """LoRA's A x of each adapted map, a token; and under autocast the copy of attention's result that A reads."""
    if numerics.lora_rank is None:
        return 0
    return numerics.of_compute * (num_maps * numerics.lora_rank + (inner if numerics.casts else 0))


def t5_attention_bytes(arch: Architecture, queries: int, keys: int, numerics: Numerics) -> int:
    """Kept by T5's attention, a row. Its position bias learns, so that every layer has a mask with a gradient.

    On a GPU the memory-efficient kernel keeps that mask, one matrix a head. A CPU has no such kernel: it keeps
    probabilities, once more with fully masked rows set to 0, and with dropout its factors, all in float32.
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
        return [(arch.layers, llama_block_bytes(arch, load, numerics), stream * load.length)]
    encoder, decoder = (t5_block_bytes(arch, load, numerics, decoder=part) for part in (False, True))
    return [(arch.layers, encoder, stream * load.length), (arch.decoder_layers, decoder, stream * load.decoder_length)]


def ends_bytes(arch: Architecture, load: Load, numerics: Numerics) -> int:
    """Kept outside the blocks: last norms with their results; T5's dropout before and after; a mask of numbers."""
    norm = norm_bytes(arch.hidden, 1, numerics, keeps_narrow_input=arch.encoder_decoder)
    if arch.dropout:
        norm += 2 * arch.hidden * (1 if numerics.on_gpu else numerics.of_residual)
    shared = numerics.of_residual * load.length**2 if load.mask == "own" and not arch.encoder_decoder else 0
    return load.rows * ((load.length + load.decoder_length) * norm + shared)


def passing_bytes(arch: Architecture, load: Load, numerics: Numerics) -> int:
    """Gradients that the backward pass of one block holds at once, at most: of the feed-forward layer's product, gate
    and activation; or of T5's attention, probabilities and scores (CPU) or the mask (GPU)."""
    longest = max(load.length, load.decoder_length)
    feed_forward = 3 * numerics.of_compute * arch.intermediate * longest
    pairs = arch.heads * longest**2 if arch.encoder_decoder else 0
    return load.rows * max(feed_forward, pairs * (numerics.of_compute if numerics.on_gpu else 2 * 4))


def logits_bytes(arch: Architecture, load: Load, numerics: Numerics) -> tuple[int, int]:
    """Held of logits when the loss is taken, and when its backward pass starts.

    Forward: the logits themselves, their float32 copy (a copy too where rows are cut behind the prompt, unless there
    is one row only) and log-probabilities. Backward: log-probabilities, their gradient and that of the logits, all
    float32.
    """
    entries = load.rows * load.num_logits * arch.vocabulary
    copied = numerics.of_compute < 4 or (load.rows > 1 and not arch.encoder_decoder)
    return entries * (numerics.of_compute + 4 * copied + 4), entries * 12


# ---- The plan ----


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Bytes of one device at the moment of a step when it holds most."""

    moment: str
    parts: dict[str, float]
    """Name -> bytes; absent parts are 0."""
    host: float
    """Bytes in the memory of the host, a process: what FSDP keeps there."""

    @property
    def total(self) -> float:
        return sum(self.parts.values())

    def fits(self, memory: float) -> bool:
        """Whether a device of ``memory`` bytes has room, ``MARGIN`` left free."""
        return self.total <= (1 - MARGIN) * memory


@dataclass(frozen=True, kw_only=True)
class Extras:
    """Parameters beside the model's own."""

    frozen: int = 0
    learned: int = 0


@dataclass(frozen=True, kw_only=True)
class Held:
    """What a device holds throughout."""

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

    Lightning drops the gradients of the step before only when the new backward pass starts, so the forward pass holds
    them beside its activations. Sizes of the states: Rajbhandari et al. 2020 (ZeRO, arXiv 1910.02054), section 3; the
    two moments of Adam have the parameters' type.

    Args:
        num_devices: over which FSDP shards (``numerics.sharded``).
        ddp: gradients are averaged through buckets, a second copy of them all.
        checkpointing: a block keeps its input alone and is computed again.
        accumulates: several micro-batches make one step, so that gradients stay through the backward pass.
        extras: frozen and learned parameters beside the model's.
    """
    width, wide = numerics.of_parameter, numerics.of_compute
    held = held_of(arch, numerics, num_devices, ddp=ddp, cpu_offload=cpu_offload, extras=extras or Extras())
    shard, gradients, host = held.shard, held.gradients, held.host

    kinds = blocks(arch, load, numerics)
    num_blocks = sum(number for number, _, _ in kinds)
    largest = max(kept for _, kept, _ in kinds)
    passing = passing_bytes(arch, load, numerics)
    ends = ends_bytes(arch, load, numerics)
    activations = ends + sum(number * (stream if checkpointing else kept) for number, kept, stream in kinds)
    again = (largest if checkpointing else 0) + passing
    forward_logits, backward_logits = logits_bytes(arch, load, numerics)

    # Autocast caches its copies of learned parameters until the forward pass ends; the graph keeps those of its maps.
    block_casts = wide * (arch.linear_parameters / num_blocks) if numerics.casts else 0
    forward_casts: float = wide * arch.linear_parameters if numerics.casts else 0
    if checkpointing and not numerics.learns_all:
        forward_casts = block_casts
    backward_casts = block_casts if checkpointing else forward_casts

    # FSDP: the parameters outside the blocks stay gathered from the first use to the last; the next block is gathered
    # while one is computed (backward_prefetch=BACKWARD_PRE); its gradients are whole until they are scattered.
    outside, unit = arch.parameters - arch.all_block_parameters, arch.block_parameters
    gathered = wide * (outside + 2 * unit) if shard > 1 else 0
    whole = wide * (outside + unit) if shard > 1 and numerics.learns_all else 0

    of_head = width * arch.vocabulary * arch.hidden / shard if numerics.learns_all and not host else 0
    of_block = gradients / num_blocks
    started = gradients if accumulates else 0
    of_embedding = width * arch.vocabulary * arch.hidden if arch.tied and numerics.learns_all else 0
    # Adam's denominator: for all parameters at once on a GPU (foreach), parameter by parameter on a CPU, where the
    # root and the quotient are two tensors.
    largest_trained = arch.largest_parameter if numerics.learns_all else 0
    of_step = width * (held.trained if numerics.on_gpu else 2 * largest_trained) if not host else 0

    def moment(**parts: float) -> dict[str, float]:
        return held.states | {name.replace("_", " "): size for name, size in parts.items() if size}

    moments = {
        "end of the forward pass": moment(
            gradients=gradients,
            activations=activations,
            logits=forward_logits,
            autocast_copies=forward_casts,
            gathered_blocks=gathered,
        ),
        "start of the backward pass": moment(
            gradients=started or of_head,
            activations=activations,
            logits=backward_logits,
            autocast_copies=backward_casts,
            gathered_blocks=gathered,
        ),
        "backward pass of the last block": moment(
            gradients=started or of_head + of_block,
            activations=activations + again,
            autocast_copies=backward_casts,
            gathered_blocks=gathered + whole,
        ),
        "backward pass of the first block": moment(
            gradients=gradients,
            activations=(largest if checkpointing else activations / num_blocks) + passing,
            temporary=of_embedding,
            autocast_copies=block_casts,
            gathered_blocks=gathered + whole,
        ),
        "optimiser step": moment(gradients=gradients, temporary=of_step),
    }
    name = max(moments, key=lambda name: sum(moments[name].values()))
    return Plan(moment=name, parts=moments[name], host=host)


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
    """Memory of a validation by greedy generation amid the training, whose states and last gradients stay.

    Every position read or written leaves keys and values of every layer in the cache; under autocast keys have the
    type of the rotation, float32. A layer's cache is copied when it grows. T5 keeps those of the prompt for its
    cross-attention. The prompt is read in one pass that keeps nothing: a norm's input and result, and the
    feed-forward layer's activation, gate and product.
    """
    wide = numerics.of_compute
    held = held_of(arch, numerics, num_devices, ddp=ddp, cpu_offload=cpu_offload, extras=Extras())
    both = (wide if arch.encoder_decoder else numerics.of_residual) + wide
    layer = arch.kv_heads * arch.head_width * both * rows * (prompt + num_new)
    cache = layer * ((arch.decoder_layers or arch.layers) + 1)
    reading = rows * prompt * (2 * numerics.of_residual * arch.hidden + 3 * wide * arch.intermediate)
    num_blocks = arch.layers + arch.decoder_layers
    casts = wide * arch.linear_parameters / (1 if numerics.learns_all else num_blocks) if numerics.casts else 0
    outside = arch.parameters - arch.all_block_parameters
    parts: dict[str, float] = {
        "gradients": held.gradients,
        "activations": reading,
        "keys and values": cache,
        "logits": rows * arch.vocabulary * (wide + 4),
        "autocast copies": casts,
        "gathered blocks": wide * (outside + 2 * arch.block_parameters) if held.shard > 1 else 0,
    }
    moment = {name: size for name, size in parts.items() if size}
    return Plan(moment="end of the longest output", parts=held.states | moment, host=held.host)
