"""Sizes and conventions of a GSVA model: `config.json` of a converted directory."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError, validated
from ..files import read_json
from . import schema

CONFIG_NAME = "config.json"
PREPROCESSOR_NAME = "preprocessor_config.json"

# segment-anything's values, for keys that a config or a set of weights leaves out.
SAM_DEFAULTS: dict[str, Any] = {
    "prompt_embed_dim": 256,
    "decoder_mlp_dim": 2048,
    "decoder_heads": 8,
    "mask_in_chans": 16,
    "mlp_ratio": 4,
}
# Defaults of transformers' CLIPImageProcessor: those of openai/clip-vit-large-patch14.
CLIP_PREPROCESSOR: dict[str, Any] = {
    "do_resize": True,
    "size": {"shortest_edge": 224},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "do_convert_rgb": True,
}


@dataclass
class GSVAConfig:
    """Everything that defines a GSVA model except its weights and its tokenizer.

    Attributes:
        llm: keyword arguments of `transformers.LlamaConfig`.
        clip: keyword arguments of `transformers.CLIPVisionConfig`, and optionally `stem`: "patch"
            (the default, one strided convolution), or a departure from GSVA: "conv" (several small
            convolutions) or "efficientnet-lite0" (those, and a frozen pre-trained backbone).
        sam: image_size, patch_size, embed_dim, depth, num_heads, global_attn_indexes, window_size,
            prompt_embed_dim, decoder_mlp_dim, decoder_heads, mask_in_chans,
            mlp_ratio, iou_head_hidden_dim, `stem`, and `squash` (a departure: the frame is stretched to
            the square instead of padded).
        family: a row of `families.FAMILIES`.
        seg_token_id, rej_token_id (None: the family has none), im_start_token_id, im_end_token_id:
            ids after the text vocabulary.
        conversation: name of a template in `prompt.CONVERSATIONS`.
        select_layer: index into the vision tower's hidden states (-2: second to last layer).
        use_im_start_end: whether <im_start> and <im_end> enclose the image tokens.
        preprocessor: the fields of CLIPImageProcessor's preprocessor_config.json; those it leaves out, as
            OpenAI's own files do, get that class's defaults.
        image_token_norm: a departure from GSVA: LayerNorm on the CLIP tokens before the projector.
        image_token_position: a departure: a learned position embedding on the image tokens.
        slot_temperature: divides the logits of [SEG] and [REJ] before the softmax that gives p_seg.
        slot_bias: added to the logit of [SEG] after that division.
        rejection_threshold: the engine decides a slot as [SEG] if p_seg is at least this.
        part_confidence: a departure: a separate part of a mask is kept if its highest logit is at least
            this fraction of the whole mask's (`mask_parts.sure_parts`); 0: all are kept.
        refiner: a departure: widths of the network that redraws masks from the frame's pixels
            (`refiner.Refiner`); None: masks are the decoder's.
        source: the file it was read from, for error messages.

    Raises:
        InputError: an impossible value; names the source and the key.
    """

    llm: dict[str, Any]
    clip: dict[str, Any]
    sam: dict[str, Any]
    seg_token_id: int
    rej_token_id: int | None
    im_start_token_id: int
    im_end_token_id: int
    conversation: str = "llava_v1"
    select_layer: int = -2
    use_im_start_end: bool = True
    preprocessor: dict[str, Any] = field(default_factory=lambda: dict(CLIP_PREPROCESSOR))
    image_token_norm: bool = False
    image_token_position: bool = False
    slot_temperature: float = 1.0
    slot_bias: float = 0.0
    rejection_threshold: float = 0.5
    part_confidence: float = 0.0
    refiner: list[int] | None = None
    family: str = "gsva"
    source: str = field(default="the model's configuration", compare=False)

    def __post_init__(self) -> None:
        self.sam = {**SAM_DEFAULTS, **self.sam}
        self.preprocessor = _completed(self.preprocessor)
        validated(schema.Config, self.to_dict(), self.source)
        place = f"{self.source}: {PREPROCESSOR_NAME}"
        fields = validated(schema.Preprocessor, self.preprocessor, place)
        side = self.clip["image_size"]
        if fields.made != [side, side]:
            made = (
                "as the frame is" if fields.made is None else f"{fields.made[0]}x{fields.made[1]}"
            )
            raise InputError(
                f"{self.source}: clip.image_size is {side}, but its preprocessor makes pictures {made}: "
                f"use the {PREPROCESSOR_NAME} that belongs to this model"
            )

    @property
    def hidden_size(self) -> int:
        """Width of the language model."""
        return int(self.llm["hidden_size"])

    @property
    def positions(self) -> int:
        """Length of the longest prompt with its answer, image tokens included."""
        return schema.Llm(**self.llm).max_position_embeddings

    @property
    def patch_grid(self) -> int:
        """CLIP's patches along each side of the image."""
        return int(self.clip["image_size"] // self.clip["patch_size"])

    @property
    def sam_grid(self) -> int:
        """SAM's patches along each side of its square input."""
        return int(self.sam["image_size"] // self.sam["patch_size"])

    @property
    def image_tokens(self) -> int:
        """Number of tokens of an image in the prompt."""
        return self.patch_grid**2

    def to_dict(self) -> dict[str, Any]:
        """The contents of config.json; the preprocessor has a file of its own."""
        data = dataclasses.asdict(self)
        del data["preprocessor"], data["source"]
        return {"model_type": "gsva", **data}

    def save(self, directory: str | Path) -> None:
        """Write config.json and preprocessor_config.json."""
        for name, data in ((CONFIG_NAME, self.to_dict()), (PREPROCESSOR_NAME, self.preprocessor)):
            (Path(directory) / name).write_text(json.dumps(data, indent=2) + "\n")

    @classmethod
    def load(cls, directory: str | Path) -> GSVAConfig:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: there is no config.json.
            InputError: config.json is not a GSVA model's, or is invalid; names file and key.
        """
        path = Path(directory) / CONFIG_NAME
        if not path.exists():
            raise FileNotFoundError(
                f"{directory} is not a model directory: it has no {CONFIG_NAME}; give one that "
                "`gsva convert` or `gsva train` wrote, or a bundled model's name"
            )
        data = read_model_json(path)
        if not isinstance(data, dict) or data.get("model_type") != "gsva":
            raise InputError(
                f"{path} is not a converted GSVA's config; for official weights pass weights= too"
            )
        if isinstance(data.get("sam"), dict):
            data["sam"] = {**SAM_DEFAULTS, **data["sam"]}
        fields = {name: value for name, value in data.items() if name != "model_type"}
        preprocessor = read_model_json(path.with_name(PREPROCESSOR_NAME))
        try:
            return cls(**fields, preprocessor=preprocessor, source=str(path))
        except TypeError:  # a key is unknown or missing: the schema says which
            validated(schema.Config, data, str(path))
            raise


def _completed(preprocessor: Any) -> Any:
    """Add defaults for fields that are missing or null; anything but an object is returned unchanged."""
    if not isinstance(preprocessor, dict):
        return preprocessor
    return CLIP_PREPROCESSOR | {k: v for k, v in preprocessor.items() if v is not None}


def model_type(directory: Path) -> str:
    """The model_type in a directory's config.json; "" if there is none."""
    path = directory / CONFIG_NAME
    data = read_model_json(path) if path.is_file() else {}
    return str(data.get("model_type", "")) if isinstance(data, dict) else ""


def read_model_json(path: Path) -> Any:
    """Parse a JSON file of a model directory.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: it cannot be read, or is not valid JSON.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file: copy the whole model directory")
    return read_json(path)


def read_object(path: Path) -> dict[str, Any]:
    """Parse a JSON file of a model directory; InputError unless it holds an object."""
    data = read_model_json(path)
    if not isinstance(data, dict):
        raise InputError(f"{path}: is not a JSON object ({{...}}): is it the wrong file?")
    return data
