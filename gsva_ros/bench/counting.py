"""The cost of a frame without timing: arithmetic, operators and bytes, counted on tensors without data.

The floor is the necessary minimum: every weight once for each position that needs it, and the products of
attention. A model of 7B's shapes is counted on the meta device in seconds, so no GPU is needed; the counts
do not tell how fast a GPU runs it. SAM's encoder is counted as it runs on a GPU, not in a CPU's pieces.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from ..model import mask_decoder
from ..model.config import GSVAConfig
from ..model.gsva import GSVA
from ..model.prefix import Branches, Prefix, empty
from ..model.projector import projector
from ..model.prompt import Prompt
from ..model.quantised import DTYPE, QUANTISED, large, stored_bytes
from ..model.reading import Reader
from ..model.refiner import SIDE


@dataclass
class Cost:
    """The cost of one stage. flops: multiplications and additions. operators: launched, without views.

    moved: bytes that operators read and write. largest: elements of the largest tensor created.
    floor: flops that the mathematics requires.
    """

    flops: int
    operators: int
    moved: int
    largest: int
    floor: int


@dataclass
class _Watch(TorchDispatchMode):
    operators: int = 0
    moved: int = 0
    largest: int = 0

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.is_view or func.namespace != "aten":
            return result
        made = [t for t in tree_leaves(result) if isinstance(t, Tensor)]
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        self.operators += 1
        self.moved += sum(t.numel() * t.element_size() for t in (*given, *made))
        self.largest = max([self.largest, *(t.numel() for t in made)])
        return result


def _attention_flops(
    query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any
) -> int:
    """Flops of attention scores and weighted sums, from shapes [..., N, D]."""
    return 2 * math.prod(query[:-1]) * key[-2] * (key[-1] + value[-1])


#: Attention counts as one operator, as on a device; otherwise its parts, which hold all pairs, would be
#: counted. The counter looks for both names.
_ATTENTION = torch.ops.aten.scaled_dot_product_attention
_FORMULAS: dict[Any, Any] = dict.fromkeys((_ATTENTION, _ATTENTION.default), _attention_flops)


def weight_bytes(config: GSVAConfig) -> dict[str, int]:
    """The memory that a configuration's weights take, bytes by dtype."""
    with torch.device("meta"):
        model = GSVA(config)
    numbers = sum(p.numel() for p in model.parameters())
    found = {"float32": 4 * numbers, "bfloat16": 2 * numbers}
    for kind in QUANTISED:
        stored = list(large(model, kind))
        small = numbers - sum(linear.weight.numel() for linear, _ in stored)
        found[kind] = DTYPE.itemsize * small + sum(stored_bytes(*layer) for layer in stored)
    return found


def count(config: GSVAConfig, prompt: Prompt, expressions: Sequence[str]) -> dict[str, Cost]:
    """The cost of a frame's stages for these expressions, at a configuration's shapes."""
    with torch.device("meta"):
        model = GSVA(config).eval()
    model = model.to("meta")  # also a backbone's weights, which are loaded
    side = {"clip": config.clip.image_size, "sam": config.sam.image_size}
    pixels = {name: torch.empty(1, 3, n, n, device="meta") for name, n in side.items()}
    before = prompt.prefix_length(config.image_tokens)
    width, slots = config.hidden_size, len(expressions)
    costs: dict[str, Cost] = {}

    def stage(name: str, floor: float, run: Any) -> Any:
        watch = _Watch()
        counter = FlopCounterMode(display=False, custom_mapping=_FORMULAS)
        with torch.inference_mode(), counter as flops, watch:
            result = run()
        total = int(flops.get_total_flops())
        costs[name] = Cost(total, watch.operators, watch.moved, watch.largest, int(floor))
        return result

    embeddings = stage("SAM", sam_floor(config), lambda: model.encode_sam(pixels["sam"]))
    stage("CLIP", clip_floor(config), lambda: model.project(model.encode_clip(pixels["clip"])))
    x = torch.empty(1, before, width, device="meta")
    cache, read = empty(model.model, x), Reader(model.model)
    nothing, each = (torch.empty(n, dtype=torch.long, device="meta") for n in (0, slots))
    stage(
        "prefix",
        llama_floor(config, before, before * (before + 1) / 2, 0),
        lambda: read(x, cache, wanted=nothing),
    )
    tree = Branches.of([prompt.slot(e) for e in expressions])
    length = len(tree.ids)
    branches = torch.empty(1, length, width, device="meta")
    bias = tree.bias(before, torch.float32, torch.device("cpu")).to("meta")
    places = torch.empty(length, dtype=torch.long, device="meta")
    pairs = length * before + float(tree.seen.sum())
    stage(
        "decide",
        llama_floor(config, length, pairs, slots) + 2 * 2 * width * slots,
        lambda: read(branches, Prefix.after(cache).cache(), places, bias, each),
    )
    hidden = torch.empty(slots, width, device="meta")
    stage(
        "masks",
        mask_floor(config, slots),
        lambda: _masks(model, embeddings, model.mask_prompts(hidden)),
    )
    if config.refiner and (refiner := model.refiner):
        windows = torch.empty(slots, 4, SIDE, SIDE, device="meta")
        stage(
            "edges",
            refiner_floor(config.refiner, slots),
            lambda: refiner(windows[:, :3], windows[:, 3]),
        )
    return costs


def _masks(model: GSVA, embeddings: Tensor, prompts: Tensor) -> Any:
    """`VisualModel.decode` without the position encoding, whose autocast the meta device lacks."""
    decoder = model.model.visual_model.mask_decoder
    learned = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    tokens = torch.cat([learned.expand(len(prompts), -1, -1), prompts[:, None]], 1)
    return mask_decoder.decode(decoder, embeddings, torch.empty_like(embeddings), tokens)


def llama_floor(config: GSVAConfig, positions: int, pairs: float, wanted: int) -> float:
    """Flops of the language model's layers for `positions` positions and `pairs` attention pairs.

    The last layer needs only keys and values, and what leads to the `wanted` states.
    """
    llm = config.llm
    width, inner, layers = llm.hidden_size, llm.intermediate_size, llm.num_hidden_layers
    shared = width * llm.key_value_heads // llm.num_attention_heads
    keys, others = 2 * width * shared, 2 * width * width + 3 * width * inner
    weights = layers * keys * positions + others * ((layers - 1) * positions + wanted)
    attended = pairs * (layers - 1 + wanted / positions)
    return float(2 * weights + 4 * width * attended)


def clip_floor(config: GSVAConfig) -> float:
    """Flops of CLIP's layers up to the selected one, and of the projector."""
    clip = config.clip
    width, inner, tokens = clip.hidden_size, clip.intermediate_size, config.image_tokens
    layers = clip.num_hidden_layers + 1 + config.select_layer
    weights = 4 * width * width + 2 * width * inner
    each = 2 * weights * (tokens + 1) + 4 * width * (tokens + 1) ** 2
    patches = 2 * 3 * clip.patch_size**2 * width * tokens
    with torch.device("meta"):
        projecting = projector(config.projector, width, config.hidden_size).parameters()
    projected = sum(2 * p.numel() * tokens for p in projecting if p.dim() == 2)
    return float(layers * each + patches + projected)


def sam_floor(config: GSVAConfig) -> float:
    """Flops of SAM's encoder: windows without padding, relative positions, the neck."""
    sam = config.sam
    width, grid = sam.embed_dim, config.sam_grid
    tokens, out = grid * grid, sam.prompt_embed_dim
    weights = (4 + 2 * sam.mlp_ratio) * width * width
    total = 2.0 * 3 * sam.patch_size**2 * width * tokens
    total += 2.0 * tokens * (width * out + 9 * out * out)
    for number in range(sam.depth):
        whole = number in sam.global_attn_indexes
        near = tokens if whole else min(sam.window_size, grid) ** 2
        line = grid if whole else min(sam.window_size, grid)
        total += 2.0 * weights * tokens + 4.0 * width * tokens * near
        total += 2.0 * 2 * tokens * line * width
    return total


def mask_floor(config: GSVAConfig, slots: int) -> float:
    """Flops of the mask decoder's products over image positions, including the prompts' projection."""
    sam = config.sam
    width, heads = sam.prompt_embed_dim, sam.decoder_heads
    places = config.sam_grid**2
    # Scores and sums over positions of four attentions with six tokens and all heads, and of the last one
    # with the tokens that are read; then both upscalings.
    attention = (8 * 6 + 2 * mask_decoder.READ) * 2 * places * heads * width
    upscaling = 2 * places * (width * width + width * width // 2) + 2 * 16 * places * width // 8
    prompts = 2 * config.hidden_size * (config.hidden_size + width)
    return float(slots * (attention + upscaling + prompts))


def refiner_floor(widths: Sequence[int], windows: int) -> float:
    """Flops of the refiner's convolutions, one window per mask."""
    fine, middle, coarse = widths
    block = 2 * 9  # two 3x3 convolutions with equal numbers of input and output channels
    # A join convolves what comes from below before it is upsampled: at a quarter of the positions.
    at_fine = (
        9 * 20 * fine + block * fine**2 + (middle / 4 + fine) * fine + block * fine**2 + 4 * fine
    )
    at_middle = 9 * (fine + middle) * middle + (coarse / 4 + middle) * middle + block * middle**2
    at_coarse = 9 * (middle + coarse) * coarse + 1.25 * coarse**2 + block * coarse**2
    around = 2 * block * coarse**2
    places = (SIDE // 2) ** 2
    each = at_fine + at_middle / 4 + at_coarse / 16 + around / 64
    return float(2 * windows * places * each)
