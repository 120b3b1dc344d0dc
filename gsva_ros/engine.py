"""The engine: encode a frame once, answer any number of expressions on it.

Pixels become features (once per frame), features become slots, and accepted slots become masks. It knows
neither cameras nor messages, and remembers nothing of earlier frames and requests.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from .answer import Answer, ExpressionError, Slot
from .asking import check_frame, check_listed, checked, normalised, text_fault, thresholds_of
from .errors import InputError
from .masking import Masker
from .model.backbone import same_pixels
from .model.checkpoint import Checkpoint
from .model.clip import ClipPreprocessor
from .model.compiled import Compiled
from .model.continuation import Continuation, PlainContinuation
from .model.host_memory import drop_pages
from .model.images import Rgb, check_rgb, upload
from .model.memory import give_back, memory_errors
from .model.prefix import Branches, Prefix
from .model.quantised import DTYPE, QUANTISED, quantise
from .model.reading import Reader
from .model.sam import SamPreprocessor
from .model.static import Static
from .model.streams import Side
from .model.tokenizer import Special
from .model.writing import Writer, expected_answer

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
#: Dtype of activations by precision: a dtype's name, or a way of quantising large weights.
PRECISIONS = DTYPES | dict.fromkeys(QUANTISED, DTYPE)
# Maximum expressions per pass, and token ids in a pass of several: they bound its memory and its masks'.
BATCH, IDS = 16, 4096
# Words of an answer that are not part of an expression.
LEAD_IN = re.compile(r"^(sure\b|and\b|the masks? of\b|[\s,.:;])+", re.IGNORECASE)
LEAD_OUT = re.compile(r"([\s,.:;]|\b(is|are))+$", re.IGNORECASE)
PRONOUNS = {"", "it", "they", "this", "that"}


@dataclass(frozen=True, eq=False)
class EncodedFrame:
    """An encoded frame, shared by any number of expressions. Made by `Engine.encode`.

    size: (height, width) in pixels. resized: its size inside SAM's padded input. image_embeddings:
    [1, C, h, w]. prefix: keys and values of the prompt up to and including the image. seconds: time
    that encoding took. rgb: a copy of the image, if the model has a refiner, which needs it.
    """

    engine: Engine
    size: tuple[int, int]
    resized: tuple[int, int]
    image_embeddings: Tensor
    prefix: Prefix
    seconds: float
    rgb: Rgb | None

    @property
    def prefix_length(self) -> int:
        """Length of the prefix in positions."""
        return self.prefix.length


@dataclass
class _Unmasked:
    """A decided slot without its mask; `hidden` [D], the state that decided it, prompts the mask.

    p_seg is NaN if the model's logits are not numbers: such a slot is at fault.
    """

    expression: str
    p_seg: float
    rejected: bool
    hidden: Tensor


class Engine:
    """A loaded model. It holds no state between calls: any thread may call it, one at a time.

    With several processes, load it in each, started with spawn; in a process made by fork, call
    `torch.set_num_threads(1)` before it uses an engine: torch's threads do not survive the fork.

    Attributes:
        name, weights_hash, precision, device, prompt_template: identify the model in records.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        name: str,
        device: torch.device,
        precision: str,
        static: bool = False,
        compiled: bool = False,
    ) -> None:
        """Load a checkpoint's weights onto a device.

        Args:
            precision: a name in `PRECISIONS`.
            static: run with fixed shapes, on a GPU as CUDA graphs (`model/static.py`).
            compiled: run SAM's encoder through torch.compile, where that works.
        """
        dtype = PRECISIONS[precision]
        if precision in QUANTISED:
            quantise(checkpoint.model, precision, device)
        # Parameters only: rotary frequencies and SAM's position matrix are buffers and stay float32,
        # whose precision they need.
        for parameter in checkpoint.model.parameters():
            if (parameter.dtype, parameter.device) != (dtype, device):
                whole = parameter.data
                parameter.data = whole.to(device, dtype)
                drop_pages(whole)
        self.model = checkpoint.model.to(device).eval()
        self._read, self._side = Reader(self.model.model), Side(device)
        self._static = Static(self.model, self._read) if static else None
        self._masker = Masker(self.model, self._static or self.model)
        self._compiled = Compiled(self.model.encode_sam, "SAM's encoder") if compiled else None
        self.prompt = checkpoint.prompt
        self.config = checkpoint.model.config
        self.name, self.weights_hash = name, checkpoint.weights_hash
        self.device, self.dtype, self.precision = device, dtype, precision
        self.prompt_template = self.config.conversation
        self._clip = ClipPreprocessor(self.config.preprocessor)
        self._sam = SamPreprocessor.of(self.config.sam)
        # On a GPU each tower has a stream of its own, and shares nothing with the other.
        self._alike = device.type == "cpu" and _alike(self._sam, self._clip)
        ids = self.prompt.tokenizer.ids
        self._seg, self._rej, self._eos = ids[Special.SEG], ids.get(Special.REJ), ids[Special.EOS]
        self._slot_ids = self.prompt.tokenizer.slot_ids

    @property
    def can_reject(self) -> bool:
        """Whether the model can decide that a thing is not there; if not, only an empty mask rejects."""
        return self.prompt.family.rejects

    @property
    def rejection_threshold(self) -> float:
        """The model's own threshold: a slot is rejected if p_seg is below it."""
        return float(self.config.rejection_threshold)

    @property
    def rule(self) -> dict[str, float]:
        """The numbers of `decide` beside the threshold; see `model.config.GSVAConfig`."""
        return {name: getattr(self.config, name) for name in ("slot_temperature", "slot_bias")}

    @torch.inference_mode()
    @memory_errors()
    def encode(self, rgb: Rgb) -> EncodedFrame:
        """Run both vision towers and the prompt's prefix on a frame, once.

        Args:
            rgb: uint8 [H, W, 3], RGB.

        Raises:
            TypeError, ValueError: not such an array; the message says what is wrong.
        """
        start = time.perf_counter()
        rgb = check_rgb(rgb)
        height, width = rgb.shape[:2]
        model, prompt = self.model, self.prompt
        pixels = upload(rgb, self.device)
        self._side.fork()
        # SAM first: on a GPU its encoder, the longest part, runs while the host prepares the rest and
        # beside the other tower.
        encode_sam = self._compiled or model.encode_sam
        sam_pixel_values = self._sam(pixels)[None].to(self.dtype)
        image_embeddings = encode_sam(sam_pixel_values)
        with self._side.beside():
            pixel_values = (
                sam_pixel_values if self._alike else self._clip(pixels)[None].to(self.dtype)
            )
            image_tokens = model.project(model.encode_clip(pixel_values))
            before, after = self._embed(prompt.before_image), self._embed(prompt.after_image)
            prefix = self._prefix(torch.cat([before, image_tokens, after], 1))
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return EncodedFrame(
            engine=self,
            size=(height, width),
            resized=self._sam.resized(height, width),
            image_embeddings=image_embeddings,
            prefix=prefix,
            seconds=time.perf_counter() - start,
            rgb=rgb.copy() if model.refiner else None,
        )

    def release(self) -> None:
        """Release unused device memory, as after an OutOfMemoryError."""
        give_back(self.device)

    @torch.inference_mode()
    @memory_errors()
    def segment(
        self,
        frame: EncodedFrame,
        expressions: Sequence[str],
        *,
        joint: bool = False,
        threshold: float | Sequence[float] | None = None,
        mask_rejected: bool = False,
    ) -> Answer:
        """Decide one slot for each expression, and mask those that are present.

        Args:
            frame: from this engine's `encode`.
            expressions: referring phrases. They are plain text: special tokens in them are not parsed.
            joint: ask for all in GSVA's joint prompt, where each slot sees the model's earlier decisions;
                by default each is asked alone, so that none depends on the others.
            threshold: reject if p_seg is below it, 0 to 1: one value, or one per expression;
                None: the model's own.
            mask_rejected: mask rejected slots too, as if they were [SEG] (for evaluation).

        Raises:
            ExpressionError: expressions are empty, not valid text or too long; its `faults` say which.
            TypeError: `frame` is not from `encode`, `expressions` is a str, or one of them is not a str.
            ValueError: the frame is another engine's; a threshold is not a probability, or their number is
                not that of the expressions; `joint` with a model that has no joint prompt (InputError).
            MemoryError: the device has too little memory.
        """
        check_frame(frame, EncodedFrame, self)
        check_listed(expressions)
        if joint and not self.prompt.family.joint:
            raise InputError(
                f"{self.name} has no joint prompt: ask for expressions one at a time, without joint"
            )
        thresholds = thresholds_of(threshold, len(expressions), self.rejection_threshold)
        asked = checked(expressions, partial(self._fault, frame))
        start = time.perf_counter()
        decide = self._decide_jointly if joint else self._decide_alone
        unmasked = decide(frame, asked, thresholds) if asked else []
        text = _readable(self.prompt.answered(asked, [d.rejected for d in unmasked]))
        for slot, expression in zip(unmasked, expressions, strict=True):
            slot.expression = expression
        seconds = time.perf_counter() - start
        return self._answer(frame, unmasked, text, seconds, mask_rejected=mask_rejected)

    @torch.inference_mode()
    @memory_errors()
    def ask(
        self,
        frame: EncodedFrame,
        text: str,
        *,
        threshold: float | None = None,
        max_new_tokens: int = 128,
    ) -> Answer:
        """Let the model answer a free-form instruction token by token, and mask the slots it writes.

        Decoding is greedy; where the next token is [SEG] or [REJ], the threshold chooses between the
        two. If logits are not finite, a slot at fault ends the answer.

        Args:
            threshold: as for `segment`.
            max_new_tokens: maximum length of the answer; at least 1.

        Raises:
            ExpressionError: the instruction is empty, not valid text or too long.
            TypeError: `frame` is not from `encode`, or the instruction is not a str.
            ValueError: the frame is another engine's, the threshold is not a probability, or max_new_tokens
                is below 1.
            MemoryError: the device has too little memory.
        """
        check_frame(frame, EncodedFrame, self)
        if fault := text_fault(text, "an instruction"):
            raise ExpressionError(fault)
        text = normalised(text)
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is at least 1, not {max_new_tokens}")
        (limit,) = thresholds_of(threshold, 1, self.rejection_threshold)
        start = time.perf_counter()
        asked = self.prompt.ask(text)
        room = self._room(frame) - len(asked)
        if room < 1:
            raise ExpressionError(self._too_long("an instruction", text, len(asked), frame))
        steps = min(max_new_tokens, room)
        continuation = self._continuation(frame, len(asked) + steps)
        expected = expected_answer(self.prompt, text)
        writer = Writer(continuation, self.model.lm_head, asked, expected, self._slot_ids, steps)
        unmasked, complete = self._write(writer, steps, text, limit)
        answered = _readable(self.prompt.tokenizer.decode(writer.written))
        seconds = time.perf_counter() - start
        answer = self._answer(frame, unmasked, answered, seconds, complete)
        return replace(answer, tokens=len(writer.written))

    # Slots

    def decide(self, logits: Tensor, threshold: float) -> tuple[float, bool]:
        """The rule that decides a slot: its p([SEG]), 0 to 1 or NaN, and whether it is rejected.

        Args:
            logits: float32 [1 or 2], of [SEG] and, if the family has it, [REJ]. Of [SEG] alone, p([SEG]) is
                1 or NaN.
            threshold: reject if p([SEG]) is below it.
        """
        scores = logits / self.config.slot_temperature
        scores[0] += self.config.slot_bias
        p_seg = float(scores.softmax(-1)[0])
        return p_seg, not p_seg >= threshold

    def _write(
        self, writer: Writer, steps: int, instruction: str, threshold: float
    ) -> tuple[list[_Unmasked], bool]:
        """Write an answer of at most `steps` tokens; its slots, and whether it ended by itself."""
        unmasked: list[_Unmasked] = []
        since = 0  # where the text of the next slot begins
        for number in range(steps):
            found = writer.next()
            token = found.token
            # argmax treats NaN as the highest score.
            if not math.isfinite(found.scores[token]):
                return [*unmasked, _Unmasked(instruction, math.nan, True, found.state)], True
            if token == self._eos:
                return unmasked, True
            if token in self._slot_ids:
                words = self.prompt.tokenizer.decode(writer.written[since:])
                named, scores = _expression_in(words, instruction), found.scores[self._slot_ids]
                slot = self._unmasked(named, scores, found.state, threshold)
                unmasked.append(slot)
                token = self._seg
                if slot.rejected and self._rej is not None:
                    token = self._rej
                since = number + 1
            writer.write(token)
        return unmasked, False

    def _decide_alone(
        self, frame: EncodedFrame, expressions: Sequence[str], thresholds: Sequence[float]
    ) -> list[_Unmasked]:
        """Decide each expression as its own branch after the shared prefix, many in one pass."""
        branches = [self.prompt.slot(e) for e in expressions]
        unmasked: list[_Unmasked] = []
        for several in _passes(branches):
            tree = Branches.of(branches[several])
            hidden = self._continuation(frame, len(tree.ids)).branches(tree)
            logits = self._slot_logits(hidden)
            each = zip(expressions[several], logits, hidden, thresholds[several], strict=True)
            unmasked += [self._unmasked(*slot) for slot in each]
        return unmasked

    def _decide_jointly(
        self, frame: EncodedFrame, expressions: Sequence[str], thresholds: Sequence[float]
    ) -> list[_Unmasked]:
        """Decide all expressions in GSVA's joint prompt; each slot sees the decisions before it.

        All slots are first read as [SEG]; only what follows a slot that turns out [REJ] is read again.
        """
        turn = self.prompt.segment_turn(expressions, [False] * len(expressions))
        if len(turn.ids) > self._room(frame):
            joint = ", ".join(expressions)
            raise ExpressionError(self._too_long("a joint prompt", joint, len(turn.ids), frame))
        continuation, ids, done = self._continuation(frame, len(turn.ids)), list(turn.ids), 0
        unmasked: list[_Unmasked] = []
        while len(unmasked) < len(expressions):
            left = [slot - done for slot in turn.slots[len(unmasked) :]]
            states = continuation.append(ids[done : turn.slots[-1] + 1], left)
            for state, logits in zip(states, self._slot_logits(states), strict=True):
                number = len(unmasked)
                slot = self._unmasked(expressions[number], logits, state, thresholds[number])
                unmasked.append(slot)
                if slot.rejected and self._rej is not None:
                    done = turn.slots[number] + 1
                    ids[done] = self._rej
                    continuation.rewind(done)
                    break
        return unmasked

    def _slot_logits(self, hidden: Tensor) -> Tensor:
        """Logits of [SEG] and, if the family has it, [REJ], [K, 1 or 2], from hidden states [K, D]."""
        return (hidden @ self.model.lm_head.weight[self._slot_ids].T).float()

    def _unmasked(
        self, expression: str, logits: Tensor, hidden: Tensor, threshold: float
    ) -> _Unmasked:
        """Decide a slot from `_slot_logits` [1 or 2] and hidden state [D] of the position before it."""
        p_seg, rejected = self.decide(logits, threshold)
        return _Unmasked(expression, p_seg, rejected, hidden)

    def _answer(
        self,
        frame: EncodedFrame,
        unmasked: Sequence[_Unmasked],
        text: str,
        seconds: float,
        complete: bool = True,
        mask_rejected: bool = False,
    ) -> Answer:
        start = time.perf_counter()
        drawn = [
            i
            for i, d in enumerate(unmasked)
            if np.isfinite(d.p_seg) and (mask_rejected or not d.rejected)
        ]
        slots = [Slot.decided(d.expression, d.p_seg, d.rejected, frame.size) for d in unmasked]
        for first in range(0, len(drawn), BATCH):
            batch = drawn[first : first + BATCH]
            masked = self._masked(frame, [unmasked[i] for i in batch])
            for i, slot in zip(batch, masked, strict=True):
                slots[i] = slot
        timings = {"encode": frame.seconds, "decide": seconds, "mask": time.perf_counter() - start}
        return Answer(slots, text, timings, complete)

    def _masked(self, frame: EncodedFrame, unmasked: Sequence[_Unmasked]) -> Iterator[Slot]:
        """Slots with their masks, decoded in one batch."""
        hidden, size = torch.stack([slot.hidden for slot in unmasked]), frame.size
        masks = self._masker.draw(hidden, frame.image_embeddings, frame.resized, size, frame.rgb)
        for slot, drawn in zip(unmasked, masks, strict=True):
            if drawn is None:
                yield Slot.faulty(slot.expression, slot.p_seg, size, "mask")
            else:
                yield Slot.decided(slot.expression, slot.p_seg, slot.rejected, size, drawn)

    # Language model

    def _prefix(self, x: Tensor) -> Prefix:
        """The prefix of embeddings [1, P, D]."""
        if self._static:
            return self._static.prefix(x)
        return Prefix.of(self._read, self.model.model, x)

    def _continuation(self, frame: EncodedFrame, most: int) -> Continuation:
        """A reader of at most `most` positions after a frame's prefix."""
        if self._static:
            return self._static.continuation(frame.prefix, most)
        return PlainContinuation(self._read, self.model.embed, frame.prefix)

    def _embed(self, ids: Sequence[int]) -> Tensor:
        return self.model.embed(torch.tensor([list(ids)], dtype=torch.long, device=self.device))

    # Checks

    def _fault(self, frame: EncodedFrame, expression: str) -> str:
        """What is wrong with an expression's length; "" if nothing is."""
        length = len(self.prompt.slot(expression))
        if length <= self._room(frame):
            return ""
        return self._too_long("an expression", expression, length, frame)

    def _room(self, frame: EncodedFrame) -> int:
        """Positions that the model's context has left after the prefix."""
        limit = self.model.model.config.max_position_embeddings
        return int(limit) - frame.prefix_length

    def _too_long(self, what: str, text: str, count: int, frame: EncodedFrame) -> str:
        shown = text if len(text) <= 40 else f"{text[:40]}…"
        return (
            f"{what} is too long: {shown!r} takes {count} tokens with the words around it, "
            f"and the model has room for {self._room(frame)}; shorten it"
        )


def _alike(sam: SamPreprocessor, clip: ClipPreprocessor) -> bool:
    """Whether both towers are shown the same pixels of every frame, up to rounding, as gsva-mini's are."""
    if not sam.squash or clip.fields.do_center_crop:
        return False
    noise = np.random.default_rng(0).integers(0, 256, (36, 64, 3), dtype=np.uint8)
    return same_pixels(sam(noise), clip(noise))


def _passes(branches: Sequence[Sequence[int]]) -> Iterator[slice]:
    """Group branches into passes; the size is limited because the attention mask grows quadratically."""
    start = length = 0
    for number, branch in enumerate(branches):
        length += len(branch)
        if number > start and (number - start == BATCH or length > IDS):
            yield slice(start, number)
            start, length = number, len(branch)
    if branches:
        yield slice(start, len(branches))


def _readable(answer: str) -> str:
    """Add the spaces that the template leaves out (the weights were trained without them)."""
    answer = re.sub(r":(?=\[(SEG|REJ)\])", ": ", answer.strip())
    return re.sub(r"^(Sure,)(?=\S)", r"\1 ", answer)


def _expression_in(words: str, instruction: str) -> str:
    """The expression in the words before a slot; the whole instruction if they hold none."""
    expression = LEAD_OUT.sub("", LEAD_IN.sub("", words))
    return instruction if expression.lower() in PRONOUNS else expression
