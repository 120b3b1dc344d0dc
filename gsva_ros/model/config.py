"""Sizes and conventions of a GSVA model: `config.json` of a converted directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from ..errors import InputError, validated
from ..files import read_json
from .families import FAMILIES
from .projector import KINDS
from .schema import Clip, Fields, Finite, Id, Llm, Positive, Preprocessor, Sam, Share, Width
from .tokenizer import ADDED, Special

CONFIG_NAME = "config.json"
PREPROCESSOR_NAME = "preprocessor_config.json"
#: How the rejection rule in config.json was determined; `gsva calibrate` writes both.
CALIBRATION_NAME = "calibration.json"
#: Heads that only training needs.
AUXILIARY_NAME = "auxiliary.safetensors"


def id_key(token: Special) -> str:
    """The key of config.json under which an added token's id stands."""
    return f"{token.name.lower()}_token_id"


class Stored(Fields):
    """config.json of a converted directory: a GSVA model without its preprocessor.

    Attributes:
        seg_token_id, rej_token_id (None: the family has none), im_start_token_id, im_end_token_id:
            ids after the text vocabulary.
        conversation: name of a template in `prompt.CONVERSATIONS`.
        select_layer: index into the vision tower's hidden states (-2: second to last layer).
        use_im_start_end: whether <im_start> and <im_end> enclose the image tokens.
        projector: from CLIP's tokens to the language model's space, as LLaVA's mm_projector_type names it:
            "linear", or "mlpNx_gelu" of N layers.
        image_token_norm: a departure from GSVA: LayerNorm on the CLIP tokens before the projector.
        image_token_position: a departure: a learned position embedding on the image tokens.
        slot_temperature: divides the logits of [SEG] and [REJ] before the softmax that gives p_seg.
        slot_bias: added to the logit of [SEG] after that division.
        rejection_threshold: the engine decides a slot as [SEG] if p_seg is at least this.
        part_confidence: a departure: a separate part of a mask is kept if its highest logit is at least
            this fraction of the whole mask's (`mask_parts.sure_parts`); 0: all are kept.
        refiner: a departure: widths of the network that redraws masks from the frame's pixels
            (`refiner.Refiner`); None: masks are the decoder's.
        family: a row of `families.FAMILIES`.
    """

    llm: Llm
    clip: Clip
    sam: Sam
    seg_token_id: Id
    rej_token_id: Id | None
    im_start_token_id: Id
    im_end_token_id: Id
    conversation: str = "llava_v1"
    select_layer: int = -2
    use_im_start_end: bool = True
    projector: Annotated[str, Field(pattern=f"^({KINDS.pattern})$")] = "linear"
    image_token_norm: bool = False
    image_token_position: bool = False
    slot_temperature: Positive = 1.0
    slot_bias: Finite = 0.0
    rejection_threshold: Share = 0.5
    part_confidence: Share = 0.0
    refiner: Annotated[list[Width], Field(min_length=3, max_length=3)] | None = None
    family: str = "gsva"

    @model_validator(mode="after")
    def _of_its_family(self) -> Stored:
        if self.family not in FAMILIES:
            raise ValueError(f"family is {self.family!r}; there are {', '.join(FAMILIES)}")
        for token in ADDED:
            number, has = getattr(self, id_key(token)), token in FAMILIES[self.family].tokens
            if has != (number is not None):
                what = "has one" if has else "has none (null)"
                raise ValueError(f"{id_key(token)} is {number}: {self.family} {what}")
        return self

    @model_validator(mode="after")
    def _token_ids(self) -> Stored:
        rows = self.llm.vocab_size
        ids = {id_key(token): number for token, number in self.special_ids.items()}
        for name, value in ids.items():
            if value >= rows:
                raise ValueError(f"{name} is {value}, outside the vocabulary of {rows}")
        if len(set(ids.values())) < len(ids):
            raise ValueError(f"the special tokens share an id: {ids}; each has its own")
        return self

    @model_validator(mode="after")
    def _layer_exists(self) -> Stored:
        deepest = self.clip.num_hidden_layers
        if not -deepest - 1 <= self.select_layer <= deepest:
            raise ValueError(
                f"select_layer is {self.select_layer}, and the vision tower has {deepest} layers"
            )
        return self

    @property
    def special_ids(self) -> dict[Special, int]:
        """Ids of the family's tokens; of those around the image only if they enclose it."""
        unused = () if self.use_im_start_end else (Special.IM_START, Special.IM_END)
        tokens = [t for t in FAMILIES[self.family].tokens if t not in unused]
        return {token: getattr(self, id_key(token)) for token in tokens}

    def to_dict(self) -> dict[str, Any]:
        """The contents of config.json; peft calls it, too."""
        parts = {"llm": self.llm.to_dict(), "clip": self.clip.to_dict(), "sam": self.sam.to_dict()}
        # Not a field: peft takes a model whose config has one for transformers' own.
        kind = {"model_type": "gsva"}
        return kind | self.model_dump(include=set(Stored.model_fields)) | parts


class GSVAConfig(Stored):
    """Everything that defines a GSVA model except its weights and its tokenizer.

    Attributes:
        preprocessor: preprocessor_config.json.
        source: the file it was read from, for error messages.
    """

    preprocessor: Preprocessor = Field(default_factory=Preprocessor)
    source: str = "the model's configuration"

    @classmethod
    def of(cls, stored: dict[str, Any], preprocessor: Any, source: str) -> GSVAConfig:
        """The configuration that the contents of config.json and preprocessor_config.json describe.

        Raises:
            InputError: an impossible value; names the source and the key.
        """
        fields = {name: value for name, value in stored.items() if name != "model_type"}
        whole = validated(Stored, fields, source)
        pixels = validated(Preprocessor, preprocessor, f"{source}: {PREPROCESSOR_NAME}")
        side, made = whole.clip.image_size, pixels.made
        if made != [side, side]:
            size = "as the frame is" if made is None else f"{made[0]}x{made[1]}"
            raise InputError(
                f"{source}: clip.image_size is {side}, but its preprocessor makes pictures {size}: "
                f"use the {PREPROCESSOR_NAME} that belongs to this model"
            )
        return cls(**dict(whole), preprocessor=pixels, source=source)

    def __eq__(self, other: object) -> bool:
        """Whether it describes the same model, wherever it was read from."""
        if not isinstance(other, GSVAConfig):
            return NotImplemented
        return (self.to_dict(), self.preprocessor) == (other.to_dict(), other.preprocessor)

    @property
    def hidden_size(self) -> int:
        """Width of the language model."""
        return self.llm.hidden_size

    @property
    def positions(self) -> int:
        """Length of the longest prompt with its answer, image tokens included."""
        return self.llm.max_position_embeddings

    @property
    def patch_grid(self) -> int:
        """CLIP's patches along each side of the image."""
        return self.clip.image_size // self.clip.patch_size

    @property
    def sam_grid(self) -> int:
        """SAM's patches along each side of its square input."""
        return self.sam.image_size // self.sam.patch_size

    @property
    def image_tokens(self) -> int:
        """Number of tokens of an image in the prompt."""
        return self.patch_grid**2

    def save(self, directory: str | Path) -> None:
        """Write preprocessor_config.json and, last, config.json."""
        files = {PREPROCESSOR_NAME: self.preprocessor.model_dump(), CONFIG_NAME: self.to_dict()}
        for name, data in files.items():
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
        return cls.of(data, read_model_json(path.with_name(PREPROCESSOR_NAME)), str(path))


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
