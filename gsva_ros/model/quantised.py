"""Weight-only quantisation to 8 or 4 bits with torchao, for machines with too little memory for bfloat16.

The linear layers of the language model and of both encoders are quantised; products are computed in
bfloat16. What is small or not used as a linear layer only (embeddings, lm_head, projections, the mask
decoder) stays in bfloat16. Only the language model is stored in 4 bits: the encoders are a tenth of a 7B
and stay at 8.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from ..errors import InputError, extras
from .gsva import GSVA
from .host_memory import drop_pages

#: Bits of the language model's layers and of the encoders', by dtype name.
QUANTISED = {"int8": (8, 8), "int4": (4, 8)}
#: Dtype of activations and other weights: torchao's 4-bit CPU kernel is fast in it, slow in float32.
DTYPE = torch.bfloat16
#: Number of 4-bit weights that share a scale and a zero point; divides the widths of gsva-mini and Llama.
GROUP = 64


def quantise(model: GSVA, kind: str, device: torch.device) -> None:
    """Move a model's large weights to the device and quantise them, one layer at a time.

    Args:
        kind: a name in `QUANTISED`.

    Raises:
        InputError: torchao is not installed.
    """
    configs = _configs(device)
    for parameter in model.parameters():
        # Checking the weights read all of them into memory; now they are read again one by one.
        drop_pages(parameter.data)
    for linear, bits in large(model, kind):
        whole = linear.weight.data
        linear.weight.requires_grad_(False).data = whole.to(device, DTYPE)
        _torchao().quantize_(linear, configs[bits])
        drop_pages(whole)


def large(model: GSVA, kind: str) -> Iterator[tuple[nn.Linear, int]]:
    """The layers to quantise, with the bits for each."""
    language, towers = QUANTISED[kind]
    parts = model.model
    for module, bits in (
        (parts.layers, language),
        (parts.vision_tower.vision_tower.vision_model.encoder, towers),
        (parts.visual_model.image_encoder.blocks, towers),
    ):
        for linear in module.modules():
            if isinstance(linear, nn.Linear):
                yield linear, _bits(linear, bits)


def _bits(linear: nn.Linear, bits: int) -> int:
    """4 where the kernels support it (whole groups, a multiple of 16 rows); else 8."""
    return 4 if bits == 4 and not (linear.in_features % GROUP or linear.out_features % 16) else 8


def stored_bytes(linear: nn.Linear, bits: int) -> int:
    """Bytes of a quantised weight, with scales and zero points per row (8 bits) or per group (4 bits)."""
    rows, columns = linear.out_features, linear.in_features
    if bits == 8:
        return rows * columns + 5 * rows  # a float32 scale and an 8-bit zero point
    return rows * columns // 2 + rows * (columns // GROUP) * 2 * DTYPE.itemsize


def _configs(device: torch.device) -> dict[int, Any]:
    torchao = _torchao()
    if device.type == "cpu":
        # The stable 4-bit configurations have no CPU kernel (torchao 0.18); this one uses torch's own.
        from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig as Int4

        four = Int4(group_size=GROUP, set_inductor_config=False)
    else:
        four = torchao.Int4WeightOnlyConfig(
            group_size=GROUP, int4_packing_format="tile_packed_to_4d", set_inductor_config=False
        )
    return {8: torchao.Int8WeightOnlyConfig(set_inductor_config=False), 4: four}


def _torchao() -> Any:
    try:
        from torchao import quantization
    except ImportError as error:
        names = " and ".join(QUANTISED)
        raise InputError(f"{names} need torchao 0.18: {extras('small')}") from error
    return quantization


def nbytes(weight: Any) -> int:
    """Bytes of a weight, quantised or not."""
    if hasattr(weight, "tensor_data_names"):
        names = [*weight.tensor_data_names, *weight.optional_tensor_data_names]
        parts = [getattr(weight, name) for name in names]
        return sum(p.nbytes for p in parts if p is not None)
    return int(weight.nbytes)
