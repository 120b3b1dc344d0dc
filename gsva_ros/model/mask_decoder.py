"""segment-anything's mask decoder for many prompts of one image: same weights, different order of sums.

A prompt has six tokens, an image thousands of positions. The stock module projects every position for every
prompt; but q(t) . k(x) = (k^T q(t)) . x, so it suffices to project the few tokens, and likewise after the
softmax. The transposed convolutions of stride 2 do not overlap, so they are matrix products over channels.
Equal to the stock module up to rounding. Source of the modules: `TwoWayTransformer`, `MaskDecoder`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

#: Number of output tokens that are used: the IoU token and the first mask token.
READ = 2


def decode(decoder: Any, image: Tensor, positions: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """`MaskDecoder.predict_masks`, for the first mask only.

    Args:
        decoder: a segment-anything MaskDecoder.
        image: [1 or K, C, h, w], with the dense prompt added: one for all prompts, or one for each.
        positions: its positional encoding, [1, C, h, w].
        tokens: IoU token, mask tokens and prompts [K, T, C].

    Returns:
        low_res_masks [K, 4h, 4w] (logits) and predicted_iou [K].
    """
    height, width = image.shape[2:]
    tokens, places = transform(decoder.transformer, image, positions, tokens)
    # Token 0 predicts the IoU, token 1 is the mask that single-mask output selects.
    kernel = decoder.output_hypernetworks_mlps[0](tokens[:, 1])
    masks = _masks(decoder.output_upscaling, places, kernel, height, width)
    return masks, decoder.iou_prediction_head(tokens[:, 0])[:, 0]


def transform(
    transformer: Any, image: Tensor, positions: Tensor, tokens: Tensor
) -> tuple[Tensor, Tensor]:
    """`TwoWayTransformer.forward`: the first READ tokens [K, READ, C] and image positions [K, h w, C]."""
    places, where = (x.flatten(2).transpose(1, 2) for x in (image, positions))
    queries = tokens
    for layer in transformer.layers:
        # The first layer's queries are the tokens themselves, without positional encoding or residual.
        added = queries if layer.skip_first_layer_pe else queries + tokens
        attended = layer.self_attn(q=added, k=added, v=queries)
        queries = layer.norm1(attended if layer.skip_first_layer_pe else queries + attended)
        placed = places + where
        seen = _to_image(layer.cross_attn_token_to_image, queries + tokens, placed, places)
        queries = layer.norm2(queries + seen)
        queries = layer.norm3(queries + layer.mlp(queries))
        attention = layer.cross_attn_image_to_token
        places = layer.norm4(places + _to_tokens(attention, placed, queries + tokens, queries))
    read = queries[:, :READ]
    attention = transformer.final_attn_token_to_image
    seen = _to_image(attention, read + tokens[:, :READ], places + where, places)
    return transformer.norm_final_attn(read + seen), places


def _to_image(attention: Any, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Tokens [K, T, C] attend to image positions [1 or K, N, C], which are not projected."""
    count, length, channels = queries.shape
    heads = attention.num_heads
    query = attention.q_proj(queries).unflatten(-1, (heads, -1))
    query = query * query.shape[-1] ** -0.5
    # The bias of k adds the same value to all scores of a query, which does not change the softmax.
    folded = torch.einsum("kthd,hdc->khtc", query, _of_heads(attention.k_proj.weight, heads))
    scores = folded.flatten(1, 2) @ keys.transpose(1, 2)
    mixed = scores.softmax(-1) @ values
    mixed = mixed.view(count, heads, length, channels)
    value = torch.einsum("khtc,hdc->kthd", mixed, _of_heads(attention.v_proj.weight, heads))
    return attention.out_proj(value.flatten(2) + attention.v_proj.bias)


def _to_tokens(attention: Any, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Image positions [1 or K, N, C], which are not projected, attend to tokens [K, T, C]: [K, N, C]."""
    channels, heads = keys.shape[2], attention.num_heads
    key = attention.k_proj(keys).unflatten(-1, (heads, -1))
    key = key * key.shape[-1] ** -0.5
    folded = torch.einsum("kthd,hdc->khtc", key, _of_heads(attention.q_proj.weight, heads))
    bias = torch.einsum("kthd,hd->kht", key, attention.q_proj.bias.view(heads, -1))
    scores = folded.flatten(1, 2) @ queries.transpose(1, 2)
    shares = (scores.unflatten(1, (heads, -1)) + bias[..., None]).softmax(2)
    value = attention.v_proj(values).unflatten(-1, (heads, -1))
    outward = attention.out_proj.weight.view(channels, heads, -1)
    folded = torch.einsum("kthd,chd->khtc", value, outward)
    # Each head's attention weights sum to 1, so the output bias can be added to the values.
    folded = (folded + attention.out_proj.bias / heads).flatten(1, 2)
    return shares.flatten(1, 2).transpose(1, 2) @ folded


def _of_heads(weight: Tensor, heads: int) -> Tensor:
    """A projection's weight [H d, C] per head, [H, d, C]."""
    return weight.view(heads, -1, weight.shape[-1])


def _masks(upscaling: Any, places: Tensor, kernel: Tensor, height: int, width: int) -> Tensor:
    """`output_upscaling` of positions [K, h w, C], times `kernel` [K, C / 8]: masks [K, 4h, 4w]."""
    first, norm, gelu, second, last = upscaling
    x = gelu(
        F.layer_norm(_upscaled(first, places), norm.weight.shape, norm.weight, norm.bias, norm.eps)
    )
    x = last(_upscaled(second, x))
    masks = (x.flatten(1, -2) @ kernel[..., None]).view(-1, height, width, 2, 2, 2, 2)
    # A position's row, then its rows in both upscalings; columns likewise.
    return masks.permute(0, 1, 3, 5, 2, 4, 6).reshape(-1, 4 * height, 4 * width)


def _upscaled(convolution: Any, x: Tensor) -> Tensor:
    """A transposed convolution with kernel and stride 2 on [..., Cin]: [..., 2, 2, Cout]."""
    weight = convolution.weight.permute(2, 3, 1, 0)
    flat = F.linear(x, weight.flatten(0, 2), convolution.bias.repeat(4))
    return flat.unflatten(-1, weight.shape[:3])
