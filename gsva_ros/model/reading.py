"""The language model's forward pass behind a prefix, with little between its matrix products.

A written token costs a small model more in bookkeeping than in arithmetic, so this runs the layers of a
`LlamaModel` itself, on its modules and its rounding. Source: transformers' `LlamaDecoderLayer`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache


def read(
    llama: Any,
    x: Tensor,
    cache: DynamicCache,
    places: Tensor | None = None,
    bias: Tensor | None = None,
    wanted: Tensor | None = None,
) -> Tensor:
    """Hidden states [T, D] of what follows the cache, which grows by it.

    Args:
        llama: a LlamaModel.
        x: embeddings [1, T, D].
        cache: of one sequence, P positions long.
        places: position ids [1, T]; counted on from the cache where None.
        bias: additive float [1, 1, T, P + T], which says everything; None: causal.
        wanted: which of the T states are returned, int64 [K], none where only the cache is wanted; the
            last layer computes no others. None: all.
    """
    past, count = cache.get_seq_length(), x.shape[1]
    if places is None:
        places = torch.arange(past, past + count, device=x.device)[None]
    turn = tuple(part[:, None] for part in llama.rotary_emb(x, places))
    if bias is None and past and count > 1:
        bias = torch.ones(count, past + count, dtype=torch.bool, device=x.device).tril(past)
    *layers, last = llama.layers
    for number, layer in enumerate(layers):
        x = _layered(layer, x, turn, bias, (cache, number))
    x = _layered(last, x, turn, bias, (cache, len(layers)), wanted)
    return _normed(llama.norm, x)[0]


#: Cosines and sines of positions, each [1, 1, T, d].
Turn = tuple[Tensor, ...]


def _layered(
    layer: Any,
    x: Tensor,
    turn: Turn,
    bias: Tensor | None,
    at: tuple[DynamicCache, int],
    wanted: Tensor | None = None,
) -> Tensor:
    """A layer's output [1, T, D], or [1, K, D] of the wanted."""
    attention, mlp = layer.self_attn, layer.mlp
    h = _normed(layer.input_layernorm, x)
    cache, number = at
    key, value = (_of_heads(attention, p(h)) for p in (attention.k_proj, attention.v_proj))
    keys, values = cache.update(_turned(key, turn), value, number)
    causal = bias is None and x.shape[1] > 1  # without a past, or there would be a bias
    if wanted is not None:
        if not len(wanted):
            return x[:, :0]
        if causal:
            bias = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
        x, h, turn, causal = x[:, wanted], h[:, wanted], tuple(t[:, :, wanted] for t in turn), False
        bias = None if bias is None else bias[..., wanted, :]
    query = _turned(_of_heads(attention, attention.q_proj(h)), turn)
    mixed = F.scaled_dot_product_attention(
        query,
        keys,
        values,
        attn_mask=bias,
        is_causal=causal,
        scale=attention.scaling,
        enable_gqa=keys.shape[1] != query.shape[1],
    )
    x = x + attention.o_proj(mixed.transpose(1, 2).flatten(2))
    h = _normed(layer.post_attention_layernorm, x)
    return x + mlp.down_proj(F.silu(mlp.gate_proj(h)) * mlp.up_proj(h))


def _of_heads(attention: Any, x: Tensor) -> Tensor:
    """A projection [1, T, heads d] as [1, heads, T, d]."""
    return x.view(*x.shape[:2], -1, attention.head_dim).transpose(1, 2)


def _turned(x: Tensor, turn: Turn) -> Tensor:
    """Rotary positions of x [1, heads, T, d]."""
    cos, sin = turn
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


def _normed(norm: Any, x: Tensor) -> Tensor:
    """`LlamaRMSNorm`: in float32, scaled in the weights' own type."""
    wide = x.float()
    wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + norm.variance_epsilon)
    return norm.weight * wide.to(x.dtype)
