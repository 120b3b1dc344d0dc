"""Schemas of config.json and preprocessor_config.json in a converted directory.

Sizes are bounded, so that a typing error is reported before anything is allocated.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

Size = Annotated[int, Field(ge=1, le=1_000_000)]
Width = Annotated[int, Field(ge=1, le=1_000)]
Layers = Annotated[int, Field(ge=1, le=1_000)]
Positive = Annotated[FiniteFloat, Field(gt=0)]
Id = Annotated[int, Field(ge=0)]
Stem = Literal["patch", "conv", "efficientnet-lite0"]
Triple = Annotated[list[FiniteFloat], Field(min_length=3, max_length=3)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class Llm(_Part):
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
        groups = self.num_key_value_heads or self.num_attention_heads
        _divides("num_key_value_heads", groups, "num_attention_heads", self.num_attention_heads)
        return self


class Clip(_Part):
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
        _at_least("image_size", self.image_size, "patch_size", self.patch_size)
        _stem(self.stem, self.patch_size, self.image_size)
        return self


class Sam(_Part):
    """Sizes of segment-anything's modules, and the stem."""

    image_size: Size
    patch_size: Size
    embed_dim: Size
    depth: Layers
    num_heads: Size
    global_attn_indexes: list[Id]
    window_size: Annotated[int, Field(ge=0, le=1_000)]
    prompt_embed_dim: Size
    decoder_mlp_dim: Size
    decoder_heads: Size
    mask_in_chans: Size
    iou_head_hidden_dim: Size | None = None
    mlp_ratio: Positive
    stem: Stem = "patch"
    squash: bool = False

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
    """The fields of CLIPImageProcessor's file that are used; others are ignored."""

    model_config = ConfigDict(strict=True, extra="allow")

    image_mean: Triple
    image_std: Annotated[list[Positive], Field(min_length=3, max_length=3)]
    do_resize: bool = True
    do_center_crop: bool = True
    do_rescale: bool = True
    do_normalize: bool = True
    resample: Annotated[int, Field(ge=0, le=5)] = 3
    rescale_factor: Positive = 1 / 255
    size: dict[str, Size] | Size
    crop_size: dict[str, Size] | Size

    @model_validator(mode="after")
    def _fits(self) -> Preprocessor:
        size = {"shortest_edge": self.size} if isinstance(self.size, int) else self.size
        least = [size["shortest_edge"]] * 2 if "shortest_edge" in size else _sides("size", size)
        if self.do_center_crop and self.do_resize:
            crop = _sides("crop_size", self.crop_size)
            if crop[0] > least[0] or crop[1] > least[1]:
                raise ValueError(f"crop_size {crop} is larger than the resized image, {least}")
        return self

    @property
    def made(self) -> list[int] | None:
        """Height and width of the output; None if they depend on the frame."""
        if self.do_center_crop:
            return _sides("crop_size", self.crop_size)
        whole = isinstance(self.size, dict) and "shortest_edge" not in self.size
        return _sides("size", self.size) if whole and self.do_resize else None


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


class Config(_Part):
    """`GSVAConfig` as stored in config.json."""

    model_type: Literal["gsva"]
    llm: Llm
    clip: Clip
    sam: Sam
    seg_token_id: Id
    rej_token_id: Id | None
    im_start_token_id: Id
    im_end_token_id: Id
    family: str = "gsva"
    conversation: str = "llava_v1"
    select_layer: int = -2
    use_im_start_end: bool = True
    image_token_norm: bool = False
    image_token_position: bool = False
    slot_temperature: Annotated[FiniteFloat, Field(gt=0)] = 1.0
    slot_bias: FiniteFloat = 0.0
    rejection_threshold: Annotated[FiniteFloat, Field(ge=0, le=1)] = 0.5
    part_confidence: Annotated[FiniteFloat, Field(ge=0, le=1)] = 0.0
    refiner: Annotated[list[Width], Field(min_length=3, max_length=3)] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Config:
        from .families import FAMILIES  # here: it imports the tokenizer, which imports the config

        if self.family not in FAMILIES:
            raise ValueError(f"family is {self.family!r}; there are {', '.join(FAMILIES)}")
        if (has := FAMILIES[self.family].rejects) != (self.rej_token_id is not None):
            what = "has one" if has else "has none (null)"
            raise ValueError(f"rej_token_id is {self.rej_token_id}: {self.family} {what}")
        rows = self.llm.vocab_size
        ids = {"seg_token_id": self.seg_token_id}
        if self.rej_token_id is not None:
            ids["rej_token_id"] = self.rej_token_id
        if self.use_im_start_end:
            ids |= {
                "im_start_token_id": self.im_start_token_id,
                "im_end_token_id": self.im_end_token_id,
            }
        for name, value in ids.items():
            if value >= rows:
                raise ValueError(f"{name} is {value}, outside the vocabulary of {rows}")
        if len(set(ids.values())) < len(ids):
            raise ValueError(f"the special tokens share an id: {ids}; each has its own")
        deepest = self.clip.num_hidden_layers
        if not -deepest - 1 <= self.select_layer <= deepest:
            raise ValueError(
                f"select_layer is {self.select_layer}, and the vision tower has {deepest} layers"
            )
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


def _at_least(name: str, value: int, least_name: str, least: int) -> None:
    if value < least:
        raise ValueError(f"{name} ({value}) is less than {least_name} ({least})")


def parameters(llm: dict[str, Any], clip: dict[str, Any], sam: dict[str, Any]) -> int:
    """Approximate number of weights of a model of these sizes: its large matrices only, no biases."""
    width, rows = llm["hidden_size"], llm["vocab_size"]
    text = 2 * rows * width + llm["num_hidden_layers"] * (
        3 * width**2 + 3 * width * llm["intermediate_size"]
    )
    eyes = clip["num_hidden_layers"] * (
        4 * clip["hidden_size"] ** 2 + 2 * clip["hidden_size"] * clip["intermediate_size"]
    )
    ratio = 4 + 2 * sam["mlp_ratio"]
    return int(text + eyes + sam["depth"] * ratio * sam["embed_dim"] ** 2)
