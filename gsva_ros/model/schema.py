"""The parts of a GSVA model's configuration, and what their files may hold.

Sizes are bounded, so that a typing error is reported before anything is allocated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, WrapValidator, model_validator


def _as_written(number: Any, check: Callable[[Any], float]) -> Any:
    """A number of a file, where 3 stays 3 and is not saved as 3.0."""
    check(number)
    return number


Size = Annotated[int, Field(ge=1, le=1_000_000)]
Width = Annotated[int, Field(ge=1, le=1_000)]
Layers = Annotated[int, Field(ge=1, le=1_000)]
Finite = Annotated[FiniteFloat, WrapValidator(_as_written)]
Positive = Annotated[FiniteFloat, Field(gt=0), WrapValidator(_as_written)]
Share = Annotated[FiniteFloat, Field(ge=0, le=1), WrapValidator(_as_written)]
Id = Annotated[int, Field(ge=0)]
#: "patch": one strided convolution. Departures from GSVA: "conv": several small convolutions;
#: "efficientnet-lite0": those, and a frozen pre-trained backbone.
Stem = Literal["patch", "conv", "efficientnet-lite0"]
Triple = Annotated[list[Finite], Field(min_length=3, max_length=3)]


class Fields(BaseModel):
    """Fields of config.json."""

    model_config = ConfigDict(strict=True, extra="forbid")

    def to_dict(self) -> dict[str, Any]:
        """The fields as they are saved: those that it was made with."""
        return self.model_dump(exclude_unset=True)


class Llm(Fields):
    """Arguments of `transformers.LlamaConfig`."""

    vocab_size: Size
    hidden_size: Size
    intermediate_size: Size
    num_hidden_layers: Layers
    num_attention_heads: Size
    num_key_value_heads: Size | None = None
    max_position_embeddings: Size = 2048
    rms_norm_eps: Positive = 1e-6
    rope_theta: Positive = 10000.0
    hidden_act: str = "silu"
    tie_word_embeddings: bool = False
    initializer_range: Positive = 0.02

    @model_validator(mode="after")
    def _heads(self) -> Llm:
        _divides("num_attention_heads", self.num_attention_heads, "hidden_size", self.hidden_size)
        groups = self.key_value_heads
        _divides("num_key_value_heads", groups, "num_attention_heads", self.num_attention_heads)
        return self

    @property
    def key_value_heads(self) -> int:
        """Heads of keys and values: unless they are fewer, one for each of the queries."""
        return self.num_key_value_heads or self.num_attention_heads


class Clip(Fields):
    """Arguments of `transformers.CLIPVisionConfig`, and the stem."""

    image_size: Size
    patch_size: Size
    hidden_size: Size
    intermediate_size: Size
    num_hidden_layers: Layers
    num_attention_heads: Size
    hidden_act: str = "quick_gelu"
    layer_norm_eps: Positive = 1e-5
    stem: Stem = "patch"

    @model_validator(mode="after")
    def _fits(self) -> Clip:
        _divides("num_attention_heads", self.num_attention_heads, "hidden_size", self.hidden_size)
        if self.image_size < self.patch_size:
            raise ValueError(
                f"image_size ({self.image_size}) is less than patch_size ({self.patch_size})"
            )
        _stem(self.stem, self.patch_size, self.image_size)
        return self


class Sam(Fields):
    """Sizes of segment-anything's modules, with its own values as defaults, and the stem.

    squash: a departure: the frame is stretched to the square instead of padded.
    """

    prompt_embed_dim: Size = 256
    decoder_mlp_dim: Size = 2048
    decoder_heads: Size = 8
    mask_in_chans: Size = 16
    mlp_ratio: Positive = 4
    image_size: Size
    squash: bool = False
    patch_size: Size
    embed_dim: Size
    depth: Layers
    num_heads: Size
    global_attn_indexes: list[Id]
    window_size: Annotated[int, Field(ge=0, le=1_000)]
    iou_head_hidden_dim: Size | None = None
    stem: Stem = "patch"

    def to_dict(self) -> dict[str, Any]:
        """As `Fields.to_dict`, with all of segment-anything's own sizes."""
        more = {"squash", "iou_head_hidden_dim", "stem"}
        return self.model_dump(exclude=more - self.model_fields_set)

    @model_validator(mode="after")
    def _fits(self) -> Sam:
        _divides("num_heads", self.num_heads, "embed_dim", self.embed_dim)
        _divides("decoder_heads", self.decoder_heads, "prompt_embed_dim", self.prompt_embed_dim)
        _divides("patch_size", self.patch_size, "image_size", self.image_size)
        _stem(self.stem, self.patch_size, self.image_size)
        if any(index >= self.depth for index in self.global_attn_indexes):
            raise ValueError(f"global_attn_indexes must be below depth ({self.depth})")
        return self


class Preprocessor(BaseModel):
    """The fields of CLIPImageProcessor's file; others are kept, and not used.

    Defaults are that class's: those of openai/clip-vit-large-patch14.
    """

    model_config = ConfigDict(strict=True, extra="allow")

    do_resize: bool = True
    size: dict[str, Size] | Size = {"shortest_edge": 224}
    resample: Annotated[int, Field(ge=0, le=5)] = 3
    do_center_crop: bool = True
    crop_size: dict[str, Size] | Size = {"height": 224, "width": 224}
    do_rescale: bool = True
    rescale_factor: Positive = 1 / 255
    do_normalize: bool = True
    image_mean: Triple = [0.48145466, 0.4578275, 0.40821073]
    image_std: Annotated[list[Positive], Field(min_length=3, max_length=3)] = [
        0.26862954,
        0.26130258,
        0.27577711,
    ]
    do_convert_rgb: Any = True  # not used: frames are RGB

    @model_validator(mode="before")
    @classmethod
    def _given(cls, data: Any) -> Any:
        """Without nulls, which stand for defaults as missing fields do."""
        return {k: v for k, v in data.items() if v is not None} if isinstance(data, dict) else data

    @model_validator(mode="after")
    def _fits(self) -> Preprocessor:
        edge = self._shortest_edge
        least = [edge, edge] if edge else _sides("size", self.size)
        crops = self.do_center_crop and self.do_resize
        if crops and any(c > r for c, r in zip(self.crop, least, strict=True)):
            raise ValueError(f"crop_size {self.crop} is larger than the resized image, {least}")
        return self

    @property
    def _shortest_edge(self) -> int | None:
        """What the frame's shorter side is resized to; None if both sides are given."""
        return self.size if isinstance(self.size, int) else self.size.get("shortest_edge")

    @property
    def crop(self) -> list[int]:
        """Height and width of the centre crop."""
        return _sides("crop_size", self.crop_size)

    @property
    def made(self) -> list[int] | None:
        """Height and width of the output; None if they depend on the frame."""
        if self.do_center_crop:
            return self.crop
        whole = self.do_resize and not self._shortest_edge
        return _sides("size", self.size) if whole else None

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of a resized frame, before the crop."""
        edge = self._shortest_edge
        if edge is None:
            high, wide = _sides("size", self.size)
            return high, wide
        if height <= width:
            return edge, int(edge * width / height)
        return int(edge * height / width), edge


class Squash(BaseModel):
    """The fields of SAM 3's image processor that are used; it resizes every image to one size."""

    model_config = ConfigDict(strict=True, extra="ignore")

    image_mean: Triple
    image_std: Annotated[list[Positive], Field(min_length=3, max_length=3)]
    size: dict[str, Size]

    @model_validator(mode="after")
    def _fits(self) -> Squash:
        _sides("size", self.size)
        return self


def _sides(name: str, size: dict[str, int] | int) -> list[int]:
    if isinstance(size, int):
        return [size, size]
    if not {"height", "width"} <= size.keys():
        raise ValueError(f"{name} has no height and width: {size}")
    return [size["height"], size["width"]]


def _divides(name: str, divisor: int, whole_name: str, whole: int) -> None:
    if whole % divisor:
        raise ValueError(f"{name} ({divisor}) does not divide {whole_name} ({whole})")


def _stem(stem: str, patch_size: int, image_size: int) -> None:
    if stem == "efficientnet-lite0" and (image_size % 32 or patch_size < 8):
        raise ValueError(
            f"stem {stem} needs an image_size that is a multiple of 32 and a patch_size of 8 or more, "
            f"not {image_size} and {patch_size}"
        )
    if stem != "patch" and patch_size & (patch_size - 1):
        raise ValueError(
            f"a convolutional stem needs a patch_size that is a power of two, not {patch_size}"
        )


def parameters(llm: Llm, clip: Clip, sam: Sam) -> int:
    """Approximate number of weights of a model of these sizes: its large matrices only, no biases."""
    width = llm.hidden_size
    text = 2 * llm.vocab_size * width + llm.num_hidden_layers * (
        3 * width**2 + 3 * width * llm.intermediate_size
    )
    eyes = clip.num_hidden_layers * (
        4 * clip.hidden_size**2 + 2 * clip.hidden_size * clip.intermediate_size
    )
    ratio = 4 + 2 * sam.mlp_ratio
    return int(text + eyes + sam.depth * ratio * sam.embed_dim**2)
