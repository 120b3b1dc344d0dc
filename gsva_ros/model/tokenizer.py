"""Text to token ids, as in the official GSVA's slow LLaMA tokenizer, without its traps.

Special tokens are members of `Special` and never parsed from text: whatever a user writes, including
"[SEG]" and "</s>", stays text.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import sentencepiece

from ..errors import InputError, one_line
from ..files import check_fetched
from .weights import CheckpointError

if TYPE_CHECKING:  # the config needs the families, which are made of special tokens
    from .config import GSVAConfig

IMAGE_TOKEN_ID = -200  # LLaVA's IMAGE_TOKEN_INDEX: a placeholder for all tokens of an image
TOKENIZER_NAME = "tokenizer.model"


class Special(enum.Enum):
    """A token that only the model or a template may write."""

    BOS = "<s>"
    EOS = "</s>"
    IMAGE = "<image>"
    IM_START = "<im_start>"
    IM_END = "<im_end>"
    SEG = "[SEG]"
    REJ = "[REJ]"


Part = str | Special
#: Appended to the vocabulary by training, unlike <s> and </s>, which sentencepiece has.
ADDED = tuple(t for t in Special if t not in {Special.BOS, Special.EOS, Special.IMAGE})


def read_pieces(path: Path) -> sentencepiece.SentencePieceProcessor:
    """Read a `tokenizer.model`.

    Raises:
        FileNotFoundError: the file does not exist.
        InputError: it is not a sentencepiece model.
    """
    check_fetched(path, CheckpointError)
    try:
        return sentencepiece.SentencePieceProcessor(model_file=str(path))
    except (RuntimeError, ValueError) as error:  # ValueError: a piece is not UTF-8
        raise InputError(f"{path}: not a sentencepiece model: {one_line(error)}") from error


class Tokenizer:
    """Encodes text with sentencepiece, and special tokens with the config's ids."""

    def __init__(self, model: bytes, config: GSVAConfig) -> None:
        """Args: model: the contents of a sentencepiece `tokenizer.model`."""
        self.model = model
        self.pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.ids: dict[Special, int] = {
            Special.BOS: self.pieces.bos_id(),
            Special.EOS: self.pieces.eos_id(),
            Special.IMAGE: IMAGE_TOKEN_ID,
            **config.special_ids,
        }
        #: Ids of [SEG] and, if the family has it, [REJ].
        self.slot_ids = [self.ids[t] for t in (Special.SEG, Special.REJ) if t in self.ids]

    @classmethod
    def load(cls, path: str | Path, config: GSVAConfig) -> Tokenizer:
        """Read a `tokenizer.model`.

        Raises:
            FileNotFoundError: the file does not exist.
            InputError: it is not a sentencepiece model, or has more pieces than the config's special token
                ids allow, so that it belongs to another model.
        """
        pieces = read_pieces(Path(path))
        tokenizer = cls(pieces.serialized_model_proto(), config)
        first = min(config.special_ids.values())
        if first < pieces.vocab_size():
            raise InputError(
                f"{path} has {pieces.vocab_size()} pieces, but the special tokens of {config.source} begin "
                f"at {first}: the weights were trained with another tokenizer"
            )
        return tokenizer

    def encode(self, parts: Iterable[Part], strip: bool = False) -> list[int]:
        """Ids of a sequence of texts and special tokens.

        Adjacent texts are joined. Each text between special tokens is encoded separately, with
        sentencepiece's dummy space in front and runs of spaces kept (transformers' "legacy" behaviour,
        which GSVA's weights were trained with).

        Args:
            strip: whether whitespace next to added tokens is dropped (`Family.strips`).
        """
        ids: list[int] = []
        text, before = "", None
        for part in (*parts, None):
            if isinstance(part, str):
                text += part
                continue
            if strip:
                text = text.lstrip() if before in ADDED else text
                text = text.rstrip() if part in ADDED else text
            if text:
                ids += self.pieces.encode(text)
            if part is not None:
                ids.append(self.ids[part])
            text, before = "", part
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids for display, with special tokens in their usual spelling."""
        spelling = {i: special.value for special, i in self.ids.items()}
        # A model may have rows beyond, which nothing is spelled by.
        known = self.pieces.vocab_size()
        text, pending = "", []
        for i in (*ids, None):
            if i is not None and i not in spelling:
                pending.append(i)
                continue
            text += self.pieces.decode([each for each in pending if each < known])
            pending = []
            if i is not None:
                text += spelling[i]
        return text
