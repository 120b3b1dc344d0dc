"""Auxiliary losses that teach a small language model where to look, layer by layer.

A relation ("the mug left of the box") is decided in steps: find the anchor, determine its position, look
next to it. Cross-entropy on the decision alone left gsva-mini at chance on relations, so each step has its
own loss at a layer: the state of the anchor's last word predicts the anchor's patches; one layer later two
heads attend to them and the word's state predicts the anchor's position; then the slot's state predicts
it; then the slot's state predicts the target's patches. None of this is part of the exported model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from ..errors import InputError
from ..model.gsva import GSVA
from ..model.prompt import Prompt
from ..phrasing.words import plural
from ..scenes import SceneSet
from .known import Known
from .packing import Packed

# Number of layers whose output each read-out uses.
ANCHOR_LAYER, SEEN_LAYER, PLACE_LAYER, TARGET_LAYER = 1, 2, 3, 4
# Two heads of the layer between ANCHOR_LAYER and SEEN_LAYER learn to attend to the anchor, and two of the
# layer before TARGET_LAYER to a slot's targets.
ANCHOR_HEADS, TARGET_HEADS = (0, 1), (2, 3)
# In the first layer, words attend to what they name.
WORD_HEADS = {"kind": (0, 1), "colour": (2, 3)}
#: What the read-outs need of a language model; the last layer's output is not read.
LAYERS, HEADS = TARGET_LAYER + 1, max(*ANCHOR_HEADS, *TARGET_HEADS) + 1
# Width of a matcher's queries and keys.
CHANNELS = 64


@dataclass(frozen=True)
class Read:
    """A pass of the language model over packed branches, for the read-outs.

    Attributes:
        layers: the embeddings and each layer's output, [B, T, D].
        packed: the branches.
        known: the ground truth of the images and slots.
        patches: positions of the image tokens. start: the first position of the branches.
    """

    layers: tuple[Tensor, ...]
    packed: Packed
    known: Known
    patches: slice
    start: int


#: Queries and keys of a layer, [B, heads, T, d].
Attention = tuple[Tensor, Tensor]
#: An attribute of things ("kind", "colour"), and the index of a class.
Name = tuple[str, int]


def names_of(prompt: Prompt, scenes: SceneSet) -> dict[int, Name]:
    """The tokens that alone identify a kind or a colour of the scenes.

    For a word of several pieces this is the last one, unless it also ends another word.
    """
    found: dict[int, Name | None] = {}
    for attribute, words in (("kind", scenes.kinds), ("colour", scenes.colours)):
        for index, word in enumerate(words):
            for spelt in (word, plural(word)):
                last = prompt.tokenizer.encode([spelt])[-1]
                name = (attribute, index)
                found[last] = name if found.get(last, name) == name else None
    return {token: name for token, name in found.items() if name}


class Matcher(nn.Module):
    """Predicts which image patches a position refers to."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, CHANNELS)
        self.key = nn.Linear(width, CHANNELS)
        self.bias = nn.Parameter(torch.tensor(-2.0))

    def forward(self, positions: Tensor, patches: Tensor, image: Tensor) -> Tensor:
        """Logits [K, N] of positions [K, D] and patches [B, N, D]; image: [K], the index in B of each."""
        query, keys = self.query(positions), self.key(patches)
        return torch.einsum("kc,knc->kn", query, keys[image]) / query.shape[-1] ** 0.5 + self.bias


class Grounding(nn.Module):
    """The read-outs: what a word names, a slot's targets, a relation's anchor and its position.

    Their losses, by name; those of what a batch does not contain are left out:
        target: cross-entropy of a slot's target patches. found: of two heads' attention to them.
        anchor: cross-entropy of an anchor's patches, at its last word. guide: of attention to them.
        seen, place: mean error of a single anchor's position, at its last word and at the slot.
        kind, colour: cross-entropy of the attention of words that name one to such objects.
        kind there, colour there: cross-entropy of whether there are such objects.
    """

    def __init__(self, model: GSVA, names: Mapping[int, Name] | None = None) -> None:
        """Args: names: tokens that alone identify a kind or a colour (`names_of`)."""
        super().__init__()
        width = model.config.hidden_size
        self._names = names or {}
        self.target = Matcher(width)
        self.anchor = Matcher(width)
        self.seen = nn.Linear(width, 3)
        self.place = nn.Linear(width, 3)
        self.there = nn.Linear(width, 1)
        self._model = (model,)  # in a tuple: not a submodule of this one

    def check(self) -> None:
        """Raise InputError if the language model has too few layers or heads, or heads that share keys."""
        llm = self._model[0].config.llm
        layers, heads, keys = llm.num_hidden_layers, llm.num_attention_heads, llm.key_value_heads
        if layers < LAYERS or heads < HEADS or keys != heads:
            raise InputError(
                f"model: its language model has {layers} layers and {heads} heads ({keys} of keys), but "
                f"the objectives language and joint need at least {LAYERS} layers, and {HEADS} heads or "
                "more with keys of their own: start from gsva-mini"
            )

    def forward(self, read: Read) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of the losses, and each loss."""
        image, place = read.packed.slot_at.unbind(1)
        slot = read.start + place
        matched = self._matched(self.target, read, TARGET_LAYER, image, slot)
        covered = read.known.coverage(image, read.known.targets)
        target_loss = F.binary_cross_entropy_with_logits(matched, covered)
        deciding = self._attention(read, TARGET_LAYER - 1)
        found = _guide_loss(read, deciding, TARGET_HEADS, image, slot, covered)
        figures = {"target": target_loss, "found": found}
        total = 4.0 * target_loss + found
        if self._names:
            named, of_words = self._named_losses(read)
            total, figures = total + named, figures | of_words
        if len(read.known.related):
            related, of_anchors = self._related_losses(read)
            total, figures = total + related, figures | of_anchors
        return total, figures

    def _related_losses(self, read: Read) -> tuple[Tensor, dict[str, Tensor]]:
        """Losses of relations: the anchor's patches, attention to them, its position at word and slot."""
        known = read.known
        image, place = read.packed.slot_at[known.related].unbind(1)
        slot = read.start + place
        word = slot - 1  # the anchor's last word
        covered = known.coverage(image, known.anchors)
        matched = self._matched(self.anchor, read, ANCHOR_LAYER, image, word)
        losses = {
            "anchor": F.binary_cross_entropy_with_logits(matched, covered),
            "guide": _guide_loss(
                read, self._attention(read, SEEN_LAYER - 1), ANCHOR_HEADS, image, word, covered
            ),
        }
        single = known.anchors.sum(1) == 1
        if single.any():
            image, word, slot = image[single], word[single], slot[single]
            true = known.position[image, known.anchors[single].long().argmax(1)]
            seen = self.seen(read.layers[SEEN_LAYER][image, word]).float()
            told = self.place(read.layers[PLACE_LAYER][image, slot]).float()
            losses |= {"seen": F.l1_loss(seen, true), "place": F.l1_loss(told, true)}
        weights = {"anchor": 4.0, "guide": 0.3, "seen": 2.0, "place": 2.0}
        total = torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()
        return total, losses

    def _named_losses(self, read: Read) -> tuple[Tensor, dict[str, Tensor]]:
        """Losses of words that name a kind or a colour: attention to such objects, and their presence."""
        attention = self._attention(read, 0)
        total = read.known.covered.new_zeros(())
        figures: dict[str, Tensor] = {}
        for attribute, heads in WORD_HEADS.items():
            image, place, objects = self._named(read, attribute)
            if not len(image):
                continue
            covered, at = read.known.coverage(image, objects), read.start + place
            there = self.there(read.layers[SEEN_LAYER][image, at]).float()[:, 0]
            knowing = F.binary_cross_entropy_with_logits(there, covered.any(1).float())
            looking = _guide_loss(read, attention, heads, image, at, covered)
            total = total + 0.3 * looking + knowing
            figures |= {attribute: looking, f"{attribute} there": knowing}
        return total, figures

    def _named(self, read: Read, attribute: str) -> tuple[Tensor, Tensor, Tensor]:
        """Where branches name a class of an attribute: images [K], places [K], and its objects [K, O]."""
        ids, table = read.packed.ids, getattr(read.known, attribute)
        own = {token: index for token, (of, index) in self._names.items() if of == attribute}
        tokens, classes = ids.new_tensor(list(own)), ids.new_tensor(list(own.values()))
        image, place = torch.isin(ids, tokens).nonzero().unbind(1)
        spoken = (ids[image, place][:, None] == tokens).long().argmax(1)
        return image, place, table[image] == classes[spoken][:, None]

    def _matched(
        self, matcher: Matcher, read: Read, layer: int, image: Tensor, place: Tensor
    ) -> Tensor:
        states = read.layers[layer]
        logits: Tensor = matcher(states[image, place], states[:, read.patches], image)
        return logits.float()

    def _attention(self, read: Read, number: int) -> Attention:
        """A layer's queries and keys, with rotary positions applied."""
        inner = self._model[0].model
        layer: Any = inner.layers[number]
        states = layer.input_layernorm(read.layers[number])
        attention = layer.self_attn
        split = (*states.shape[:2], -1, attention.head_dim)
        queries = attention.q_proj(states).view(split).transpose(1, 2)
        keys = attention.k_proj(states).view(split).transpose(1, 2)
        cos, sin = inner.rotary_emb(states, read.packed.position_ids)
        return apply_rotary_pos_emb(queries, keys, cos, sin)


def _guide_loss(
    read: Read,
    attention: Attention,
    heads: tuple[int, ...],
    image: Tensor,
    place: Tensor,
    covered: Tensor,
) -> Tensor:
    """Cross-entropy between some heads' attention at `place` [K] and the covered patches [K, N]."""
    there = covered.any(1)
    if not there.any():
        return covered.new_zeros(())
    image, place, covered = image[there], place[there], covered[there]
    queries, keys = (part[:, list(heads)] for part in attention)
    logits = queries[:, :, read.start :] @ keys.transpose(2, 3)  # [B, h, L, T]
    logits = logits[image, :, place - read.start].float() * keys.shape[-1] ** -0.5
    allowed = read.packed.allowed[image, 0, place][:, None]
    shares = F.log_softmax(logits.masked_fill(~allowed, float("-inf")), -1)[..., read.patches]
    wanted = (covered / covered.sum(-1, keepdim=True))[:, None]
    return -(wanted * shares).sum(-1).mean()
