"""SAM's image encoder equals the stock one, and never holds a tensor of all positions by all."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from gsva_ros.model import sam_encoder
from gsva_ros.model.sam_encoder import ImageEncoder
from gsva_ros.model.segment_anything import modeling

PATCH = 8


def encoders(tokens: int, window: int, everywhere: tuple[int, ...], heads: int = 2) -> list[Any]:
    """Ours and the stock one with the same random weights."""
    made = []
    for kind in (ImageEncoder, modeling.ImageEncoderViT):
        torch.manual_seed(0)
        encoder = kind(
            img_size=tokens * PATCH,
            patch_size=PATCH,
            embed_dim=16 * heads,
            depth=3,
            num_heads=heads,
            mlp_ratio=3,
            out_chans=12,
            qkv_bias=True,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=window,
            global_attn_indexes=everywhere,
        ).eval()
        for name, parameter in encoder.named_parameters():
            if "pos" in name or "bias" in name:  # zero as they are made
                nn.init.normal_(parameter, std=0.5)
        made.append(encoder)
    return made


@pytest.mark.parametrize("largest", [1, 2000, 12 << 20])
@pytest.mark.parametrize(
    ("tokens", "window", "everywhere"),
    [
        (12, 4, (1,)),  # windows fit
        (12, 5, (2,)),  # the last ones are padded
        (7, 3, (0, 2)),
        (5, 14, (1,)),  # one window, larger than the image
        (9, 0, ()),  # no windows at all
        (13, 13, ()),
        (1, 2, (1,)),
    ],
)
def test_it_equals_the_stock_encoder(
    tokens: int,
    window: int,
    everywhere: tuple[int, ...],
    largest: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever the size of pieces: one row at a time, several, or all at once."""
    monkeypatch.setitem(sam_encoder.LARGEST, "cpu", largest)
    ours, stock = encoders(tokens, window, everywhere)
    pixels = torch.randn(2, 3, tokens * PATCH, tokens * PATCH)
    with torch.inference_mode():
        assert (ours(pixels) - stock(pixels)).abs().max() < 1e-4


def test_gradients_are_those_of_the_stock_encoder() -> None:
    ours, stock = encoders(7, 3, (1,))
    pixels = torch.randn(1, 3, 7 * PATCH, 7 * PATCH)
    for encoder in (ours, stock):
        encoder(pixels).square().sum().backward()
    gradients = dict(stock.named_parameters())
    for name, parameter in ours.named_parameters():
        golden = gradients[name].grad
        assert parameter.grad is not None
        assert (parameter.grad - golden).abs().max() <= 1e-3 * golden.abs().max() + 1e-5, name


def test_weights_have_the_stock_names() -> None:
    ours, stock = encoders(6, 3, (1,))
    assert list(ours.state_dict()) == list(stock.state_dict())


class Largest(TorchDispatchMode):
    """Notes the largest tensor that any operator makes."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(one, Tensor):
                self.bytes = max(self.bytes, one.numel() * one.element_size())
        return out


@pytest.mark.parametrize("window", [0, 5])
def test_no_tensor_is_larger_than_the_pieces_or_the_tokens(
    window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All positions by all would be 24**4 * 4 bytes for a single head."""
    tokens, heads = 24, 4
    positions = tokens * tokens
    monkeypatch.setitem(sam_encoder.LARGEST, "cpu", positions * tokens * 4)
    ours, stock = encoders(tokens, window, (1,), heads)
    pixels = torch.randn(1, 3, tokens * PATCH, tokens * PATCH)
    seen = {}
    for encoder in (ours, stock):
        with torch.inference_mode(), Largest() as largest:
            encoder(pixels)
        seen[type(encoder).__name__] = largest.bytes
    qkv = positions * 3 * 16 * heads * 4
    assert seen["ImageEncoder"] <= max(qkv, positions * tokens * 4)
    assert seen["ImageEncoderViT"] >= heads * positions * positions * 4
