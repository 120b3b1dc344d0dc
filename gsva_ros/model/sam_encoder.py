"""SAM's image encoder, exact but with less memory and time: segment-anything's modules, a new forward pass.

No N x N attention bias is ever stored whole. On a CPU, memory traffic dominates: global attention runs per
head in blocks of queries, each with its own relative-position bias; windowed attention runs per row of
windows if they do not all fit; the MLP's wide layer runs in pieces. Every temporary is small enough for the
allocator to reuse it, instead of asking the system for fresh pages each time. The padding that completes
windows is not projected: its queries, keys and values are the projection's bias.

On other devices, kernel launches dominate: all images, windows and heads go through one operator together,
and the bias of global attention is folded into its queries and keys.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .segment_anything import modeling

#: Bytes of the largest temporary on a CPU: below the size that malloc maps anew each time (32 MiB at most),
#: and about the size of a cache.
LARGEST = 12 << 20
#: Attention kernels of GPUs need rows that start at multiples of so many elements.
ALIGNED = 8


class ImageEncoder(modeling.ImageEncoderViT):
    """segment-anything's encoder, with the same weights and names; see the module's docstring."""

    def forward(self, x: Tensor) -> Tensor:
        """sam_pixel_values [B, 3, S, S] to image_embeddings [B, C, h, w].

        With gradients enabled the stock forward pass runs: backward needs all temporaries anyway.
        """
        if torch.is_grad_enabled():
            return super().forward(x)
        x = self.patch_embed(x)
        if self.pos_embed is not None:
            x = x + self.pos_embed
        if x.device.type == "cpu":
            x = torch.cat([in_pieces(self.blocks, image) for image in x.split(1)])
        else:
            x = at_once(self.blocks, x)
        return self.neck(x.permute(0, 3, 1, 2))


def at_once(blocks: Any, x: Tensor) -> Tensor:
    """Run tokens [B, h, w, C] through all blocks with few operators."""
    for block in blocks:
        attend = _windows if block.window_size else _global
        x = x + attend(block, x)
        x = x + _mlp(block, x)
    return x


def in_pieces(blocks: Any, x: Tensor) -> Tensor:
    """Run one image's tokens [1, h, w, C] through all blocks with small temporaries."""
    for block in blocks:
        if not block.window_size:
            attend = _global_in_pieces
        elif _fits(block, x):
            attend = _windows
        else:
            attend = _windows_in_pieces
        x = x + attend(block, x)
        for rows in x.split(_rows(block, x), 1):
            rows += _mlp(block, rows)
    return x


def _mlp(block: Any, x: Tensor) -> Tensor:
    return block.mlp(block.norm2(x))


def _rows(block: Any, x: Tensor) -> int:
    """Rows of tokens per piece, so that the MLP's wide layer takes at most LARGEST bytes."""
    return max(1, LARGEST // (x.shape[2] * block.mlp.lin1.out_features * x.element_size()))


def _fits(block: Any, x: Tensor) -> bool:
    """Whether windows need no padding and all their biases take at most LARGEST bytes."""
    _, height, width, _ = x.shape
    side, heads = block.window_size, block.attn.num_heads
    bias = heads * height * width * side * side * x.element_size()
    return height % side == width % side == 0 and bias <= LARGEST


def _global(block: Any, x: Tensor) -> Tensor:
    """Global attention of tokens [B, h, w, C], without an N x N bias.

    The bias is the sum of a term for the key's row and a term for its column. So each query is extended by
    its terms for all rows and columns, and each key by one-hot vectors of its row and column.
    """
    attention = block.attn
    q, k, v = _heads(attention, block.norm1(x))
    *lead, height, width, d = q.shape
    rows = torch.eye(height, dtype=q.dtype, device=q.device)[:, None].expand(*lead, -1, width, -1)
    columns = torch.eye(width, dtype=q.dtype, device=q.device).expand(*lead, height, -1, -1)
    # Flash attention takes no bias, heads of at most 256 channels, and values as wide as keys: hence the
    # zeros after the values. The memory-efficient kernel needs no such padding but is slower; it runs
    # above 256.
    size = -(-(d + height + width) // ALIGNED) * ALIGNED
    query = _filled(size, q * attention.scale, *_terms(q, *_relative(attention, height, width)))
    key, value = _filled(size, k, rows, columns), _filled(size, v)
    seen = F.scaled_dot_product_attention(query, key, value, scale=1.0)[..., :d]
    return attention.proj(_merged(seen.unflatten(2, (height, width))))


def _filled(size: int, *parts: Tensor) -> Tensor:
    """Concatenate parts [B, heads, h, w, n] and pad them with zeros to [B, heads, h * w, size]."""
    missing = size - sum(part.shape[-1] for part in parts)
    zeros = parts[0].new_zeros(1).expand(*parts[0].shape[:-1], missing)
    return torch.cat([*parts, zeros], -1).flatten(2, 3)


def _windows(block: Any, x: Tensor) -> Tensor:
    """Attention of tokens [B, h, w, C] inside windows; the last windows are padded.

    Here a bias needs less memory traffic than extended queries, keys and values (`_global`): per query in a
    14 x 14 window it has 224 numbers, besides the existing 3 x 80; extended ones would be 3 x 112 new ones.
    """
    attention, side = block.attn, block.window_size
    parts, padded = modeling.image_encoder.window_partition(block.norm1(x), side)
    relative_h, relative_w = _relative(attention, side, side)
    # Extra rows of keys align the bias; otherwise it would be copied into aligned memory.
    relative_h = F.pad(relative_h, (0, -side % (ALIGNED // math.gcd(side, ALIGNED))))
    seen = _window(*_heads(attention, parts), (relative_h, relative_w))
    return attention.proj(
        modeling.image_encoder.window_unpartition(_merged(seen), side, padded, x.shape[1:3])
    )


def _window(q: Tensor, k: Tensor, v: Tensor, relative: tuple[Tensor, Tensor]) -> Tensor:
    """Attention of queries, keys and values [n, heads, h, w, d] of n windows; the output has their shape.

    `relative` may have more rows of keys than there are; the excess is dropped.
    """
    query, key, value = (t.flatten(2, 3) for t in (q, k, v))
    bias = _bias(q, *relative)[..., : key.shape[2]]
    return F.scaled_dot_product_attention(query, key, value, bias).view(q.shape)


def _global_in_pieces(block: Any, x: Tensor) -> Tensor:
    """Global attention of tokens [1, h, w, C], per head in blocks of query rows."""
    attention = block.attn
    q, k, v = _heads(attention, block.norm1(x))
    _, heads, height, width, d = q.shape
    count = height * width
    k, v = (t.reshape(heads, 1, 1, count, d) for t in (k, v))
    relative_h, relative_w = _relative(attention, height, width)
    step = max(1, LARGEST // (width * count * x.element_size()))
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    # One buffer for all biases: fresh pages take time.
    space = q.new_empty(1, 1, min(step, height), width, height, width)
    for head in range(heads):
        for top in range(0, height, step):
            rows = q[:, head : head + 1, top : top + step]
            own = space[:, :, : rows.shape[2]]
            bias = _bias(rows, relative_h[top : top + step], relative_w, out=own)
            seen = F.scaled_dot_product_attention(rows.flatten(2, 3), k[head], v[head], bias)
            out[:, head : head + 1, top : top + step] = seen.view(rows.shape)
    return attention.proj(_merged(out))


def _windows_in_pieces(block: Any, x: Tensor) -> Tensor:
    """`_windows`, one row of windows at a time."""
    attention, side = block.attn, block.window_size
    relative = _relative(attention, side, side)
    strips = [
        attention.proj(_strip(attention, block.norm1(rows), side, relative))
        for rows in x[0].split(side)
    ]
    return torch.cat(strips)[None]


def _strip(attention: Any, rows: Tensor, side: int, relative: tuple[Tensor, Tensor]) -> Tensor:
    """Attention in one row of windows: tokens [h <= side, w, C] to an output of the same shape."""
    height, width, channels = rows.shape
    heads, count = attention.num_heads, -(-width // side)
    qkv = attention.qkv(rows)
    if (height, width) != (side, count * side):
        # The stock encoder pads with zeros, whose projection is its bias.
        padded = attention.qkv.bias.to(qkv.dtype).expand(side, count * side, -1).clone()
        padded[:height, :width] = qkv
        qkv = padded
    qkv = qkv.view(side, count, side, 3, heads, -1)
    q, k, v = qkv.permute(3, 1, 4, 0, 2, 5).unbind(0)  # each [windows, heads, side, side, d]
    step = max(1, LARGEST // (heads * side**4 * rows.element_size()))
    seen = [
        _window(q[at : at + step], k[at : at + step], v[at : at + step], relative)
        for at in range(0, count, step)
    ]
    merged = torch.cat(seen).permute(2, 0, 3, 1, 4).reshape(side, count * side, channels)
    return merged[:height, :width]


def _heads(attention: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of tokens [n, h, w, C], each [n, heads, h, w, d]."""
    qkv = attention.qkv(x).unflatten(-1, (3, attention.num_heads, -1))
    q, k, v = qkv.permute(3, 0, 4, 1, 2, 5).unbind(0)
    return q, k, v


def _merged(seen: Tensor) -> Tensor:
    """[n, heads, h, w, d] to [n, h, w, C]."""
    return seen.permute(0, 2, 3, 1, 4).flatten(3)


def _bias(q: Tensor, relative_h: Tensor, relative_w: Tensor, out: Tensor | None = None) -> Tensor:
    """Relative-position bias of queries [n, heads, h, w, d], [n, heads, h * w, H * W]; see `_terms`.

    Computed in `out` [n, heads, h, w, H, W] if given.
    """
    of_rows, of_columns = (term.contiguous() for term in _terms(q, relative_h, relative_w))
    bias = torch.add(of_rows[..., :, None], of_columns[..., None, :], out=out)
    return bias.flatten(-2).flatten(2, 3)


def _terms(q: Tensor, relative_h: Tensor, relative_w: Tensor) -> tuple[Tensor, Tensor]:
    """Bias terms of queries [n, heads, h, w, d] for the key's row and for its column.

    Returns [n, heads, h, w, H] and [n, heads, h, w, W]. relative_h [h, d, H] belongs to the queries' rows.
    """
    return (
        torch.einsum("nmhwd,hdk->nmhwk", q, relative_h),
        torch.einsum("nmhwd,wdk->nmhwk", q, relative_w),
    )


def _relative(attention: Any, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Relative-position embeddings, [h, d, h] for rows and [w, d, w] for columns.

    Like `get_rel_pos`, which would copy index tensors from the CPU to the GPU for every block.
    """
    tables = ((attention.rel_pos_h, height), (attention.rel_pos_w, width))
    rows, columns = (table.unfold(0, size, 1).flip(-1) for table, size in tables)
    return rows, columns
