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
            mlp_ratio=4,
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


SIZES = pytest.mark.parametrize(
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


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU, what other devices do."""
    monkeypatch.setattr(sam_encoder, "in_pieces", sam_encoder.at_once)


@pytest.mark.parametrize("largest", [1, 2000, 12 << 20])
@SIZES
def test_it_equals_the_stock_encoder(
    tokens: int,
    window: int,
    everywhere: tuple[int, ...],
    largest: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever the size of pieces: one row at a time, several, or all at once."""
    monkeypatch.setattr(sam_encoder, "LARGEST", largest)
    ours, stock = encoders(tokens, window, everywhere)
    pixels = torch.randn(2, 3, tokens * PATCH, tokens * PATCH)
    with torch.inference_mode():
        assert (ours(pixels) - stock(pixels)).abs().max() < 1e-4


@pytest.mark.usefixtures("elsewhere")
@SIZES
def test_it_equals_the_stock_encoder_elsewhere_than_on_a_cpu(
    tokens: int, window: int, everywhere: tuple[int, ...]
) -> None:
    ours, stock = encoders(tokens, window, everywhere)
    pixels = torch.randn(2, 3, tokens * PATCH, tokens * PATCH)
    with torch.inference_mode():
        x = stock.patch_embed(pixels) + stock.pos_embed
        together = sam_encoder.at_once(ours.blocks, x)  # two images
        assert (ours.neck(together.permute(0, 3, 1, 2)) - stock(pixels)).abs().max() < 1e-4
        assert (ours(pixels) - stock(pixels)).abs().max() < 1e-4  # one after the other


@pytest.mark.parametrize("kind", ["in_pieces", "at_once"])
def test_bfloat16_is_computed_as_such(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention takes queries, keys and biases of one dtype."""
    monkeypatch.setattr(sam_encoder, "in_pieces", getattr(sam_encoder, kind))
    ours, stock = encoders(12, 5, (1,))
    pixels = torch.randn(1, 3, 12 * PATCH, 12 * PATCH)
    with torch.inference_mode():
        golden = stock(pixels)
        found = ours.bfloat16()(pixels.bfloat16())
    assert found.dtype == torch.bfloat16
    assert (found - golden).norm() < 0.02 * golden.norm()


@pytest.mark.parametrize(("height", "width"), [(6, 9), (8, 5)])
def test_an_image_need_not_be_square(height: int, width: int) -> None:
    """Its rows and columns are told apart, in windows and in global attention."""
    ours, stock = encoders(12, 4, (1,))
    table = stock.blocks[1].attn
    for encoder in (ours, stock):
        attention = encoder.blocks[1].attn
        attention.rel_pos_h = nn.Parameter(table.rel_pos_h[: 2 * height - 1].detach().clone())
        attention.rel_pos_w = nn.Parameter(table.rel_pos_w[: 2 * width - 1].detach().clone())
    x = torch.randn(2, height, width, 32)
    with torch.inference_mode():
        golden = x
        for block in stock.blocks:
            golden = block(golden)
        pieces = [sam_encoder.in_pieces(ours.blocks, image) for image in x.split(1)]
        for found in (sam_encoder.at_once(ours.blocks, x), torch.cat(pieces)):
            assert (found - golden).abs().max() < 1e-4


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
    """Notes the largest tensor that any operator makes, and what attention is given."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0
        self.attended: list[tuple[tuple[int, ...], ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.scaled_dot_product_attention.default:
            self.attended.append(tuple(tuple(t.shape) for t in args if isinstance(t, Tensor)))
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
    monkeypatch.setattr(sam_encoder, "LARGEST", positions * tokens * 4)
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


def test_torch_compile_makes_one_graph_of_it() -> None:
    """Of windows whose biases are not contiguous, and of global attention."""
    ours, _ = encoders(6, 3, (1,))
    whole = torch.compile(ours, backend="eager", fullgraph=True, dynamic=False)
    pixels = torch.randn(1, 3, 6 * PATCH, 6 * PATCH)
    with torch.inference_mode():
        assert torch.equal(whole(pixels), ours(pixels))


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("window", [0, 5])
def test_no_tensor_is_of_all_pairs_elsewhere_than_on_a_cpu(window: int) -> None:
    tokens, heads = 24, 4
    ours, _ = encoders(tokens, window, (1,), heads)
    with torch.inference_mode(), Largest() as largest:
        ours(torch.randn(1, 3, tokens * PATCH, tokens * PATCH))
    assert largest.bytes <= heads * tokens**2 * (16 + 2 * tokens) * 4
    # All heads at once, in a shape that flash kernels take: no bias, equal widths.
    whole = [shapes for shapes in largest.attended if shapes[0][2] == tokens**2]
    assert whole == [((1, heads, tokens**2, 64),) * 3] * (1 if window else 3)


@pytest.mark.usefixtures("elsewhere")
def test_what_attention_is_given_is_aligned_for_a_gpu() -> None:
    """Widths that are no multiple of 8 are filled up; rows of a bias begin at multiples."""
    given: list[Tensor] = []

    class Given(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if func is torch.ops.aten.scaled_dot_product_attention.default:
                given.extend(args)
            return func(*args, **(kwargs or {}))

    ours, _ = encoders(7, 3, (1,))
    with torch.inference_mode(), Given():
        ours(torch.randn(1, 3, 7 * PATCH, 7 * PATCH))
    assert {t.shape[-1] for t in given} == {16, 9, 32}  # windows' heads and biases; 16 + 7 + 7
    for t in given:
        assert t.stride(-1) == 1
        assert all(step % sam_encoder.ALIGNED == 0 for step in t.stride()[:-1])
