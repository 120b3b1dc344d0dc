"""SAM 3, an engine of its own: noun phrases in; masks of all their instances and a presence score out.

It uses transformers' classes. The presence score serves as p_seg, so that it can reject; a mask is the
union of all instances. There is no language model, so free-form text is refused.

Source: `Sam3Model` of transformers; preprocessing as configured in the directory's files.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import AutoTokenizer, Sam3Model

from .answer import Answer, Drawn, ExpressionError, Slot
from .asking import check_frame, check_listed, checked, thresholds_of
from .errors import InputError, one_line, validated
from .files import check_fetched
from .masks import trimmed
from .model import schema
from .model.checkpoint import sha256, unfit
from .model.config import PREPROCESSOR_NAME, read_model_json
from .model.images import Rgb, check_rgb, normalise, resize, upload
from .model.memory import give_back, memory_errors
from .model.weights import CheckpointError

#: Instances above this score are drawn: the default of transformers' post-processing.
INSTANCE_SCORE = 0.3

PROCESSOR_NAME = "processor_config.json"


def load(directory: Path, device: torch.device, dtype: torch.dtype) -> Sam3Engine:
    """Load a directory in transformers' layout: SAM 3 alone or with its video tracker.

    Raises:
        InputError: it is not such a directory, or its weights do not fit.
    """
    return Sam3Engine(directory, device, dtype)


# Any: a Sam3Model, whose `to` transformers types wrongly.
def _model(directory: Path, dtype: torch.dtype) -> Any:
    """The model with the directory's weights; none may be missing, unexpected or of another shape."""
    for path in directory.glob("*.safetensors"):
        check_fetched(path, CheckpointError)
    try:
        # Whatever the directory holds, nothing is downloaded and none of its code is run.
        loaded: Any = Sam3Model.from_pretrained(
            directory,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # reported below, with the others
            output_loading_info=True,
        )
    except Exception as error:  # transformers, safetensors and torch raise their own types
        raise InputError(f"{directory}: cannot be loaded as SAM 3: {one_line(error)}") from error
    model, found = loaded
    # transformers would initialise missing weights randomly.
    problems = [f"missing {name}" for name in sorted(found["missing_keys"])]
    problems += [f"unexpected {name}" for name in sorted(found["unexpected_keys"])]
    problems += [
        f"{name} is {tuple(given)}, not {tuple(wanted)}"
        for name, given, wanted in sorted(found["mismatched_keys"])
    ]
    problems += [
        f"{name} {why}" for name, value in model.state_dict().items() if (why := unfit(value))
    ]
    if problems:
        more = f"; and {len(problems) - 8} more" * (len(problems) > 8)
        raise CheckpointError(
            f"{directory} does not fit the model: {'; '.join(problems[:8])}{more}"
        )
    return model


def _preprocessor(directory: Path) -> Any:
    """The image processor's fields, from their own file or from the whole processor's."""
    own = directory / PREPROCESSOR_NAME
    if own.exists():
        return read_model_json(own)
    return read_model_json(directory / PROCESSOR_NAME)["image_processor"]


@dataclass(frozen=True, eq=False)
class Sam3Frame:
    """An encoded frame; size: (height, width). Made by `Sam3Engine.encode`."""

    engine: Sam3Engine
    size: tuple[int, int]
    vision: Any
    seconds: float


class Sam3Engine:
    """A loaded SAM 3; see `answer.Segmenter`."""

    prompt_template = "sam3"
    can_reject = True
    rejection_threshold = 0.5
    rule: Mapping[str, float] = MappingProxyType({"instance_score": INSTANCE_SCORE})

    def __init__(self, directory: Path, device: torch.device, dtype: torch.dtype) -> None:
        self.name, self.device, self.dtype = str(directory), device, dtype
        self.precision = str(dtype).removeprefix("torch.")
        self.model: Any = _model(directory, dtype)
        words: Any = self.model.config.text_config
        self._phrase_tokens, rows = words.max_position_embeddings, words.vocab_size
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
            fields = _preprocessor(directory)
        except Exception as error:  # the tokenizers library raises nothing narrower
            raise InputError(
                f"{directory}: its tokenizer or preprocessing cannot be read: {one_line(error)}"
            ) from error
        preprocessor = validated(schema.Squash, fields, f"{directory}: preprocessing")
        self._size = preprocessor.size["height"], preprocessor.size["width"]
        self._mean, self._std = (
            np.array(values, np.float32)
            for values in (preprocessor.image_mean, preprocessor.image_std)
        )
        if (tokens := len(self._tokenizer)) > rows:
            raise InputError(
                f"{directory}: its tokenizer has {tokens} tokens, but its weights have rows for {rows}: "
                "the files belong to different models"
            )
        self.model.to(device).eval()
        self.weights_hash = sha256(sorted(directory.glob("*.safetensors")))

    @torch.inference_mode()
    @memory_errors()
    def encode(self, rgb: Rgb) -> Sam3Frame:
        """Run the vision encoder on a frame, uint8 [H, W, 3] RGB, once."""
        start = time.perf_counter()
        rgb = check_rgb(rgb)
        squashed = resize(upload(rgb, self.device), *self._size, Image.Resampling.BILINEAR)
        pixels = squashed.float() / 255
        normalise(pixels, self._mean, self._std)
        vision = self.model.get_vision_features(pixels.permute(2, 0, 1)[None].to(self.dtype))
        return Sam3Frame(self, rgb.shape[:2], vision, time.perf_counter() - start)

    @torch.inference_mode()
    @memory_errors()
    def segment(
        self,
        frame: Sam3Frame,
        expressions: Sequence[str],
        *,
        joint: bool = False,
        threshold: float | Sequence[float] | None = None,
        mask_rejected: bool = False,
    ) -> Answer:
        """One slot for each noun phrase; see `Segmenter.segment`.

        Raises:
            InputError: `joint` is set: phrases are read one by one.
            ExpressionError: expressions are empty or too long; its `faults` say which.
            TypeError: `frame` is not from `encode`, `expressions` is a str, or one of them is not a str.
            ValueError: the frame is another engine's, or a threshold is not a probability.
        """
        check_frame(frame, Sam3Frame, self)
        check_listed(expressions)
        if joint:
            raise InputError(
                f"{self.name} has no joint prompt: ask for expressions one at a time, without joint"
            )
        limits = thresholds_of(threshold, len(expressions), self.rejection_threshold)
        asked = checked(expressions, self._fault)
        start = time.perf_counter()
        slots = [
            self._slot(frame, expression, self._ids(phrase), limit, mask_rejected)
            for expression, phrase, limit in zip(expressions, asked, limits, strict=True)
        ]
        return Answer(slots, "", {"encode": frame.seconds, "decide": time.perf_counter() - start})

    def ask(self, frame: Sam3Frame, text: str, *, threshold: float | None = None) -> Answer:
        """Refused: there is no language model."""
        raise ExpressionError(
            "SAM 3 reads noun phrases, not free-form text: send them as expressions, such as 'red mug'"
        )

    def release(self) -> None:
        """Release unused device memory."""
        give_back(self.device)

    def _ids(self, phrase: str) -> list[int]:
        """The phrase's token ids; special tokens in it are plain text."""
        return self._tokenizer(phrase, split_special_tokens=True)["input_ids"]

    def _fault(self, phrase: str) -> str:
        """What is wrong with a phrase's length; "" if nothing is."""
        length = len(self._ids(phrase))
        if length <= self._phrase_tokens:
            return ""
        return f"an expression takes {length} tokens of {self._phrase_tokens}; shorten it"

    def _slot(
        self,
        frame: Sam3Frame,
        expression: str,
        ids: Sequence[int],
        threshold: float,
        mask_rejected: bool,
    ) -> Slot:
        tokens = torch.tensor([ids], device=self.device)
        output = self.model(vision_embeds=frame.vision, input_ids=tokens)
        p_seg = float(output.presence_logits.float().sigmoid()[0, 0])
        rejected = not p_seg >= threshold
        if not np.isfinite(p_seg) or (rejected and not mask_rejected):
            return Slot.decided(expression, p_seg, rejected, frame.size)
        scores = output.pred_logits[0].float().sigmoid() * p_seg
        masks = output.pred_masks[0][scores > INSTANCE_SCORE].float()
        if not (scores.isfinite().all() and masks.isfinite().all()):
            return Slot.faulty(expression, p_seg, frame.size, "mask")
        union = np.zeros(frame.size, bool)
        for mask in masks[:, None].sigmoid():
            # Resized one by one, in the way of transformers' post-processing.
            instance = F.interpolate(mask[None], frame.size, mode="bilinear")[0, 0] > 0.5
            union |= instance.cpu().numpy()
        drawn = Drawn(trimmed(union), float(scores.max()))
        return Slot.decided(expression, p_seg, rejected, frame.size, drawn)
