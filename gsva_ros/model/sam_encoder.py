"""SAM's image encoder, exact, in less memory and time: segment-anything's modules, our own forward pass.

Nothing of N x N positions is ever whole: global attention goes head by head in blocks of queries, each with
its own bias of relative positions; windowed blocks go strip by strip; the wide layer of the MLP goes in
pieces. Every temporary stays small enough for the allocator to use it again, instead of asking the system
for fresh pages each time. Padding that completes the windows is not computed: of it, only keys and values
exist, which are the projection's bias.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .segment_anything import modeling

#: Bytes of the largest temporary, by kind of device. On CPUs it is below what malloc maps afresh each time
#: (32 MiB at most), and about as large as a cache.
LARGEST = {"cpu": 12 << 20, "cuda": 32 << 20}


class ImageEncoder(modeling.ImageEncoderViT):
    """The stock encoder's weights and names; see the module."""

    def forward(self, x: Tensor) -> Tensor:
        """sam_pixel_values [B, 3, S, S] to image_embeddings [B, C, h, w].

        Gradients need every temporary again, so where they are taken the stock forward pass runs, all
        images at once.
        """
        if torch.is_grad_enabled():
            stock: Tensor = super().forward(x)
            return stock
        x = self.patch_embed(x)
        if self.pos_embed is not None:
            x = x + self.pos_embed
        x = torch.stack([self._blocks(image) for image in x])
        neck: Tensor = self.neck(x.permute(0, 3, 1, 2))
        return neck

    def _blocks(self, x: Tensor) -> Tensor:
        """One image's tokens [h, w, C] through all blocks."""
        for block in self.blocks:
            attend = _windowed if block.window_size else _global
            x = x + attend(block, x)
            x = torch.cat([rows + _mlp(block, rows) for rows in x.split(_rows(x, block))])
        return x


def _mlp(block: Any, x: Tensor) -> Tensor:
    out: Tensor = block.mlp(block.norm2(x))
    return out


def _rows(x: Tensor, block: Any) -> int:
    """Rows of tokens whose MLP's wide layer is of the largest size."""
    return max(1, _largest(x) // (x.shape[1] * block.mlp.lin1.out_features * x.element_size()))


def _largest(x: Tensor) -> int:
    return LARGEST.get(x.device.type, LARGEST["cuda"])


def _global(block: Any, x: Tensor) -> Tensor:
    """Attention of all tokens [h, w, C] with all."""
    attention = block.attn
    height, width, channels = x.shape
    heads, count = attention.num_heads, height * width
    qkv = attention.qkv(block.norm1(x)).view(height, width, 3, heads, -1)
    q, k, v = qkv.permute(2, 3, 0, 1, 4).unbind(0)  # each [heads, h, w, d]
    k, v = (t.reshape(heads, 1, count, -1) for t in (k, v))
    relative = _relative(attention, height, width)
    step = max(1, _largest(x) // (width * count * x.element_size()))
    out = x.new_empty(heads, height, width, channels // heads)
    for head in range(heads):
        for top in range(0, height, step):
            rows = q[head : head + 1, top : top + step]
            bias = _bias(rows, *relative, top)
            query = rows.reshape(1, 1, -1, rows.shape[-1])
            seen = F.scaled_dot_product_attention(
                query, k[head : head + 1], v[head : head + 1], bias
            )
            out[head, top : top + step] = seen.view(rows.shape[1:])
    merged: Tensor = attention.proj(out.permute(1, 2, 0, 3).reshape(height, width, channels))
    return merged


def _windowed(block: Any, x: Tensor) -> Tensor:
    """Attention of tokens [h, w, C] inside windows, the last ones completed by padding."""
    attention, side = block.attn, block.window_size
    relative = _relative(attention, side, side)
    strips = [
        attention.proj(_strip(attention, block.norm1(rows), side, relative))
        for rows in x.split(side)
    ]
    return torch.cat(strips)


def _strip(attention: Any, rows: Tensor, side: int, relative: tuple[Tensor, Tensor]) -> Tensor:
    """One row of windows: tokens [h <= side, w, C] to what they see, of the same shape."""
    height, width, channels = rows.shape
    heads, count = attention.num_heads, -(-width // side)
    qkv = attention.qkv(rows)
    if (height, width) != (side, count * side):
        # The stock encoder pads with zeros, of which the projection leaves its bias.
        padded = attention.qkv.bias.to(qkv.dtype).expand(side, count * side, -1).clone()
        padded[:height, :width] = qkv
        qkv = padded
    qkv = qkv.view(side, count, side, 3, heads, -1)
    q, k, v = qkv.permute(3, 1, 4, 0, 2, 5).unbind(0)  # each [windows, heads, side, side, d]
    step = max(1, _largest(rows) // (heads * side**4 * rows.element_size()))
    seen = [
        _window(q[at : at + step], k[at : at + step], v[at : at + step], relative)
        for at in range(0, count, step)
    ]
    merged = torch.cat(seen).permute(2, 0, 3, 1, 4).reshape(side, count * side, channels)
    return merged[:height, :width]


def _window(q: Tensor, k: Tensor, v: Tensor, relative: tuple[Tensor, Tensor]) -> Tensor:
    """Windows [n, heads, side, side, d]."""
    n, heads, side, _, d = q.shape
    bias = _bias(q.flatten(0, 1), *relative, 0).view(n, heads, side * side, side * side)
    query, key, value = (t.reshape(n, heads, side * side, d) for t in (q, k, v))
    return F.scaled_dot_product_attention(query, key, value, bias).view(n, heads, side, side, d)


def _bias(q: Tensor, relative_h: Tensor, relative_w: Tensor, top: int) -> Tensor:
    """The bias of queries [n, h, w, d], whose first row is row `top`, to all keys, [n, 1, h * w, H * W]."""
    n, height, width, _ = q.shape
    of_rows = torch.einsum("nhwd,hkd->nhwk", q, relative_h[top : top + height]).contiguous()
    of_columns = torch.einsum("nhwd,wkd->nhwk", q, relative_w).contiguous()
    bias = of_rows[..., :, None] + of_columns[..., None, :]
    return bias.view(n, 1, height * width, -1)


def _relative(attention: Any, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Embeddings of relative positions, [h, h, d] of rows and [w, w, d] of columns."""
    return (
        modeling.image_encoder.get_rel_pos(height, height, attention.rel_pos_h),
        modeling.image_encoder.get_rel_pos(width, width, attention.rel_pos_w),
    )
