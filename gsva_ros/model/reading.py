"""The language model's forward pass behind a prefix, with little between its matrix products.

A written token costs a small model more in bookkeeping than in arithmetic, so this runs the layers of a
`LlamaModel` itself, on its modules and its rounding. Source: transformers' `LlamaDecoderLayer`.
"""

from __future__ import annotations

from collections.abc import Iterator
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
) -> Tensor:
    """Hidden states [T, D] of what follows the cache, which grows by it.

    Args:
        llama: a LlamaModel.
        x: embeddings [1, T, D].
        cache: of one sequence, P positions long.
        places: position ids [1, T]; counted on from the cache where None.
        bias: additive float [1, 1, T, P + T], which says everything; None: causal.
    """
    past, count = cache.get_seq_length(), x.shape[1]
    if places is None:
        places = torch.arange(past, past + count, device=x.device)[None]
    cos, sin = (part[:, None] for part in llama.rotary_emb(x, places))
    if bias is None and count > 1:
        bias = torch.ones(count, past + count, dtype=torch.bool, device=x.device).tril(past)
    for number, layer in enumerate(llama.layers):
        x = x + _attended(
            layer.self_attn, _normed(layer.input_layernorm, x), cos, sin, bias, (cache, number)
        )
        x = x + _fed_forward(layer, x)
    return _normed(llama.norm, x)[0]


def read_packed(
    llama: Any, x: Tensor, places: Tensor, prefix: int, bias: Tensor
) -> tuple[Tensor, ...]:
    """Every layer's states [B, P + L, D] of a prefix and the branches packed behind it, for training.

    The prefix reads itself and the branches read what `bias` allows, each in one attention: nothing is
    computed for the half of all pairs that no position may see.

    Args:
        x: embeddings [B, P + L, D].
        places: position ids [B, P + L].
        prefix: P.
        bias: additive float [B, 1, L, P + L] of the branches' positions.

    Returns:
        The embeddings, each layer's output, and the last one normalised.
    """
    cos, sin = (part[:, None] for part in llama.rotary_emb(x, places))
    states = [x]
    for layer in llama.layers:
        attention = layer.self_attn
        h = _normed(layer.input_layernorm, x)
        query, key, value = _projected(attention, h)
        query, key = _turned(query, cos, sin), _turned(key, cos, sin)
        grouped = {"scale": attention.scaling, "enable_gqa": key.shape[1] != query.shape[1]}
        first = (t[:, :, :prefix] for t in (query, key, value))
        mixed = torch.cat(
            [
                F.scaled_dot_product_attention(*first, is_causal=True, **grouped),
                F.scaled_dot_product_attention(query[:, :, prefix:], key, value, bias, **grouped),
            ],
            2,
        )
        x = x + attention.o_proj(mixed.transpose(1, 2).flatten(2))
        x = x + _fed_forward(layer, x)
        states.append(x)
    return (*states, _normed(llama.norm, x))


def _fed_forward(layer: Any, x: Tensor) -> Tensor:
    h, mlp = _normed(layer.post_attention_layernorm, x), layer.mlp
    out: Tensor = mlp.down_proj(F.silu(mlp.gate_proj(h)) * mlp.up_proj(h))
    return out


def _projected(attention: Any, h: Tensor) -> Iterator[Tensor]:
    """Queries, keys and values [B, heads, T, d]."""
    shape = (*h.shape[:2], -1, attention.head_dim)
    for project in (attention.q_proj, attention.k_proj, attention.v_proj):
        yield project(h).view(shape).transpose(1, 2)


def _attended(
    attention: Any,
    h: Tensor,
    cos: Tensor,
    sin: Tensor,
    bias: Tensor | None,
    at: tuple[DynamicCache, int],
) -> Tensor:
    query, key, value = _projected(attention, h)
    cache, number = at
    keys, values = cache.update(_turned(key, cos, sin), value, number)
    mixed = F.scaled_dot_product_attention(
        _turned(query, cos, sin),
        keys,
        values,
        attn_mask=bias,
        scale=attention.scaling,
        enable_gqa=keys.shape[1] != query.shape[1],
    )
    return attention.o_proj(mixed.transpose(1, 2).flatten(2))


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions: x [1, heads, T, d], cos and sin [1, 1, T, d]."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


def _normed(norm: Any, x: Tensor) -> Tensor:
    """`LlamaRMSNorm`: in float32, scaled in the weights' own type."""
    wide = x.float()
    wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + norm.variance_epsilon)
    return norm.weight * wide.to(x.dtype)
