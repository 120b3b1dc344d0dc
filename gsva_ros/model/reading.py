"""The language model's forward pass on top of a KV cache, with little overhead between matrix products.

Generating a token with a small model costs more in Python overhead than in arithmetic, so this module
runs the layers of a `LlamaModel` itself, with the same weights and the same rounding. Source:
transformers' `LlamaDecoderLayer`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache

#: Rotary cosines and sines of positions, each [1, 1, T, d]; the sines carry the sign of rotate_half.
Rotary = tuple[Tensor, Tensor]


class Reader:
    """Runs a LlamaModel's layers. It looks up the weights once: they must not be replaced later."""

    def __init__(self, llama: Any) -> None:
        norm = llama.norm
        self._layers = [_Layer(number, layer) for number, layer in enumerate(llama.layers)]
        self._norm = (norm.weight, norm.variance_epsilon)
        positions = torch.arange(llama.config.max_position_embeddings, device=norm.weight.device)
        cos, sin = (part[0] for part in llama.rotary_emb(norm.weight, positions[None]))
        first, second = sin.chunk(2, -1)
        self._cos, self._sin = cos, torch.cat([-first, second], -1)

    def __call__(
        self,
        x: Tensor,
        cache: DynamicCache,
        positions: Tensor | None = None,
        bias: Tensor | None = None,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """Hidden states [T, D] of embeddings that follow the cache, to which they are appended.

        Args:
            x: embeddings [1, T, D].
            cache: of one sequence, P positions long.
            positions: int64 [T]; None: those that follow the cache.
            bias: additive float [1, 1, T, P + T], the complete attention mask; None: causal.
            wanted: int64 [K], which of the T states to return; the last layer computes only these.
                Empty: only fill the cache. None: all.
        """
        past, count = cache.get_seq_length(), x.shape[1]
        rows = slice(past, past + count) if positions is None else positions
        rotary = (self._cos[rows][None, None], self._sin[rows][None, None])
        if bias is None and past and count > 1:
            bias = torch.ones(count, past + count, dtype=torch.bool, device=x.device).tril(past)
        *layers, last = self._layers
        for layer in layers:
            x = layer(x, rotary, bias, cache)
        return _normed(*self._norm, last(x, rotary, bias, cache, wanted))[0]


class _Layer:
    """One decoder layer, with its weights looked up once."""

    def __init__(self, number: int, layer: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self._number = number
        self._before, self._between = (
            (norm.weight, norm.variance_epsilon)
            for norm in (layer.input_layernorm, layer.post_attention_layernorm)
        )
        self._q, self._k, self._v, self._o = map(
            _product, (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)
        )
        self._gate, self._up, self._down = map(
            _product, (mlp.gate_proj, mlp.up_proj, mlp.down_proj)
        )
        self._act = mlp.act_fn
        self._width, self._scaling = attention.head_dim, attention.scaling

    def __call__(
        self,
        x: Tensor,
        rotary: Rotary,
        bias: Tensor | None,
        cache: DynamicCache,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """Output [1, T, D], or [1, K, D] at the wanted positions."""
        h = _normed(*self._before, x)
        layers: Any = cache.layers
        keys, values = layers[self._number].update(
            _rotated(self._heads(self._k(h)), rotary), self._heads(self._v(h))
        )
        causal = bias is None and x.shape[1] > 1  # only with an empty cache: otherwise bias is set
        if wanted is not None:
            if not len(wanted):
                return x[:, :0]
            if causal:
                bias = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
            causal = False
            cos, sin = rotary
            x, h, rotary = x[:, wanted], h[:, wanted], (cos[:, :, wanted], sin[:, :, wanted])
            bias = None if bias is None else bias[..., wanted, :]
        query = _rotated(self._heads(self._q(h)), rotary)
        mixed = F.scaled_dot_product_attention(
            query,
            keys,
            values,
            attn_mask=bias,
            is_causal=causal,
            scale=self._scaling,
            enable_gqa=keys.shape[1] != query.shape[1],
        )
        x = x + self._o(mixed.transpose(1, 2).flatten(2))
        h = _normed(*self._between, x)
        return x + self._down(self._act(self._gate(h)) * self._up(h))

    def _heads(self, x: Tensor) -> Tensor:
        """A projection [1, T, heads d] as [1, heads, T, d]."""
        return x.view(1, x.shape[1], -1, self._width).transpose(1, 2)


def _product(linear: nn.Module) -> Callable[[Tensor], Tensor]:
    """The module's forward; for a plain nn.Linear without the overhead of nn.Module.__call__."""
    if type(linear) is not nn.Linear:
        return linear
    weight, bias = linear.weight, linear.bias
    # Positional arguments: torchao's quantised weights ignore keyword arguments.
    return lambda x: F.linear(x, weight, bias)


def _rotated(x: Tensor, rotary: Rotary) -> Tensor:
    """Apply rotary position embeddings to x [1, heads, T, d]."""
    cos, sin = rotary
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)


def _normed(weight: Tensor, epsilon: float, x: Tensor) -> Tensor:
    """`LlamaRMSNorm`: normalised in float32, scaled in the dtype of the weights."""
    if x.dtype == torch.float32:
        return F.rms_norm(x, weight.shape, weight, epsilon)
    wide = x.float()
    wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)
    return weight * wide.to(x.dtype)
