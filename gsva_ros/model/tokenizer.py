"""Text to token ids, as the official GSVA's slow LLaMA tokenizer does it, without its traps.

Special tokens are values of `Special`, never spelled in text: whatever a user writes, "[SEG]" and
"</s>" included, stays text.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from pathlib import Path

import sentencepiece

from ..errors import InputError, one_line
from .config import GSVAConfig
from .weights import check_fetched

IMAGE_TOKEN_ID = -200  # LLaVA's IMAGE_TOKEN_INDEX: stands for all of an image's tokens
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


def read_pieces(path: Path) -> sentencepiece.SentencePieceProcessor:
    """A `tokenizer.model`.

    Raises:
        FileNotFoundError: there is none.
        InputError: it is no sentencepiece model.
    """
    check_fetched(path)
    try:
        return sentencepiece.SentencePieceProcessor(model_file=str(path))
    except (RuntimeError, ValueError) as error:  # the latter of words that are no UTF-8
        raise InputError(f"{path}: not a sentencepiece model: {one_line(error)}") from error


class Tokenizer:
    """sentencepiece for text, the config's ids for special tokens."""

    def __init__(self, model: bytes, config: GSVAConfig) -> None:
        """Args: model: the content of a sentencepiece `tokenizer.model`."""
        self.model = model
        self.pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.ids: dict[Special, int] = {
            Special.BOS: self.pieces.bos_id(),
            Special.EOS: self.pieces.eos_id(),
            Special.IMAGE: IMAGE_TOKEN_ID,
            Special.IM_START: config.im_start_token_id,
            Special.IM_END: config.im_end_token_id,
            Special.SEG: config.seg_token_id,
        }
        if config.rej_token_id is not None:
            self.ids[Special.REJ] = config.rej_token_id

    @classmethod
    def load(cls, path: str | Path, config: GSVAConfig) -> Tokenizer:
        """Read a `tokenizer.model`.

        Raises:
            FileNotFoundError: there is none.
            InputError: it is no sentencepiece model, or another one than the config's ids stand behind.
        """
        pieces = read_pieces(Path(path))
        tokenizer = cls(pieces.serialized_model_proto(), config)
        used = {Special.SEG, Special.REJ}
        used |= {Special.IM_START, Special.IM_END} if config.use_im_start_end else set()
        first = min(number for token, number in tokenizer.ids.items() if token in used)
        if first < pieces.vocab_size():
            raise InputError(
                f"{path} has {pieces.vocab_size()} pieces, and the special tokens of {config.source} begin "
                f"at {first}: another tokenizer than the weights were trained with"
            )
        return tokenizer

    def encode(self, parts: Iterable[Part]) -> list[int]:
        """Ids of text and special tokens in turn.

        Neighbouring texts are one text; each text between special tokens is encoded by itself, with
        sentencepiece's dummy space in front and runs of spaces kept (transformers' "legacy"
        behaviour, which GSVA's weights were trained with).
        """
        ids: list[int] = []
        text = ""
        for part in (*parts, None):
            if isinstance(part, str):
                text += part
                continue
            if text:
                ids += self.pieces.encode(text)
                text = ""
            if part is not None:
                ids.append(self.ids[part])
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; special tokens in their usual spelling, for people to read."""
        spelling = {i: special.value for special, i in self.ids.items()}
        text, pending = "", []
        for i in (*ids, None):
            if i is not None and i not in spelling:
                pending.append(i)
                continue
            text += self.pieces.decode(pending)
            pending = []
            if i is not None:
                text += spelling[i]
        return text
