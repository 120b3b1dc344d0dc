"""The mask decoder's own order of sums against segment-anything's module, on its weights."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from gsva_ros.model import mask_decoder
from gsva_ros.model.sam import postprocess_masks
from gsva_ros.model.segment_anything import modeling


@pytest.fixture(params=[(32, 2), (64, 8), (256, 8)], ids=lambda p: f"{p[0]} wide, {p[1]} heads")
def decoder(request):
    channels, heads = request.param
    torch.manual_seed(channels)
    made = modeling.MaskDecoder(
        transformer_dim=channels,
        transformer=modeling.TwoWayTransformer(
            depth=2, embedding_dim=channels, mlp_dim=2 * channels, num_heads=heads
        ),
        num_multimask_outputs=3,
        iou_head_depth=3,
        iou_head_hidden_dim=channels,
    )
    for parameter in made.parameters():  # biases and norms that do something
        torch.nn.init.normal_(
            parameter, std=0.3 if parameter.ndim < 2 else parameter.shape[-1] ** -0.5
        )
    return made.eval()


def tokens_of(decoder, prompts):
    learned = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    return torch.cat([learned.expand(len(prompts), -1, -1), prompts[:, None]], 1)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("size", [(8, 8), (3, 7), (1, 1)])
def test_equals_the_stock_module(decoder, count, size):
    channels = decoder.transformer_dim
    prompts, dense = torch.randn(count, channels), torch.randn(channels, 1, 1)
    images, positions = torch.randn(count, channels, *size), torch.randn(1, channels, *size)
    with torch.inference_mode():
        each = mask_decoder.decode(decoder, images + dense, positions, tokens_of(decoder, prompts))
        shared = mask_decoder.decode(
            decoder, images[:1] + dense, positions, tokens_of(decoder, prompts)
        )
        for k in range(count):
            for ours, image in ((each, images[k : k + 1]), (shared, images[:1])):
                masks, iou = decoder.predict_masks(
                    image, positions, prompts[k].view(1, 1, -1), dense.expand(1, -1, *size)
                )
                scale = masks.abs().max().clamp(min=1.0)
                assert torch.allclose(ours[0][k] / scale, masks[0, 0] / scale, atol=1e-5)
                assert torch.allclose(ours[1][k], iou[0, 0], atol=1e-4)


@torch.inference_mode()
def test_no_prompts_make_no_masks(decoder):
    """As of an answer that rejects all that was asked."""
    channels = decoder.transformer_dim
    image, positions = torch.randn(2, 1, channels, 5, 6)
    none = tokens_of(decoder, torch.randn(0, channels))
    masks, iou = mask_decoder.decode(decoder, image, positions, none)
    assert (tuple(masks.shape), tuple(iou.shape)) == ((0, 20, 24), (0,))
    assert postprocess_masks(masks, 32, (32, 20), (50, 30)).shape == (0, 50, 30)


def test_gradients_are_those_of_the_stock_module():
    torch.manual_seed(0)
    decoder = modeling.MaskDecoder(
        transformer_dim=32,
        transformer=modeling.TwoWayTransformer(depth=2, embedding_dim=32, mlp_dim=64, num_heads=4),
    )
    image, positions = torch.randn(1, 32, 4, 4), torch.randn(1, 32, 4, 4)
    prompts = torch.randn(1, 32)

    def gradients(run):
        decoder.zero_grad()
        masks, iou = run()
        (masks.sin().sum() + iou.sum()).backward()
        return {n: p.grad.clone() for n, p in decoder.named_parameters() if p.grad is not None}

    def stock():
        masks, iou = decoder.predict_masks(image, positions, prompts[None], torch.zeros_like(image))
        return masks[:, 0], iou[:, 0]

    ours = gradients(
        lambda: mask_decoder.decode(decoder, image, positions, tokens_of(decoder, prompts))
    )
    theirs = gradients(stock)
    for name, gradient in ours.items():
        assert torch.allclose(
            gradient, theirs[name], atol=1e-4 * float(theirs[name].abs().max() + 1)
        ), name


def test_takes_less_arithmetic_than_the_stock_module():
    decoder = modeling.MaskDecoder(
        transformer_dim=256,
        transformer=modeling.TwoWayTransformer(
            depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8
        ),
    ).eval()
    image, prompts = torch.randn(1, 256, 32, 32), torch.randn(8, 256)
    counts = []
    for own in (True, False):
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            if own:
                mask_decoder.decode(decoder, image, image, tokens_of(decoder, prompts))
            else:
                decoder.predict_masks(image, image, prompts[:, None], torch.zeros_like(image))
        counts.append(counter.get_total_flops())
    assert counts[0] < 0.7 * counts[1]
