"""Many expressions about one image in one pass, as branches that share only the image prefix.

A branch attends to the prefix and to itself, and its positions start right after the prefix, so each slot
is decided exactly as if its expression had been asked alone (the engine's deployed protocol).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from ..model.losses import IGNORE
from ..model.prompt import Prompt, Turn
from .conversations import Row
from .movable import Movable


@dataclass(frozen=True)
class Branch:
    """Token ids after the prefix; `labels` are the ids to predict *at* each position, or IGNORE.

    `slots` are the positions that decide a slot, `targets` each slot's objects (none: rejected), `texts`
    its expression.
    """

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    slots: tuple[int, ...]
    targets: tuple[tuple[int, ...], ...]
    texts: tuple[str, ...]

    @classmethod
    def of(
        cls,
        prompt: Prompt,
        turn: Turn,
        targets: Iterable[tuple[int, ...]],
        texts: Iterable[str],
    ) -> Branch:
        """A turn, whose last id predicts nothing and is left out."""
        ids, labels = tuple(turn.ids[:-1]), tuple(prompt.labels(turn)[:-1])
        return cls(ids, labels, tuple(turn.slots), tuple(targets), tuple(texts))


@dataclass
class Laid(Movable):
    """Branches, one after another, following the prefixes of a batch of images.

    Shapes: ids, and labels to predict *at* each position, int64 [B, L], padded with 0 and IGNORE;
    position_ids int64 [B, P + L]; branch_of int64 [B, P + L], each position's branch, counted from 1; 0 in
    the prefix and -1 in the padding.
    """

    ids: Tensor
    labels: Tensor
    position_ids: Tensor
    branch_of: Tensor

    @cached_property
    def allowed(self) -> Tensor:
        """Attention mask bool [B, 1, P + L, P + L]; True: may attend."""
        branch = self.branch_of
        order = torch.arange(branch.shape[1], device=branch.device)
        causal = order[:, None] >= order[None, :]
        same = branch[:, :, None] == branch[:, None, :]
        return (causal & (same | (branch == 0)[:, None, :]))[:, None]

    def bias(self, dtype: torch.dtype) -> Tensor:
        """`allowed` as an additive attention mask [B, 1, P + L, P + L]: 0, or -inf where it is False."""
        bias = torch.zeros(self.allowed.shape, dtype=dtype, device=self.allowed.device)
        return bias.masked_fill_(~self.allowed, float("-inf"))


@dataclass
class Packed(Laid):
    """Laid branches with their slots.

    slot_at: int64 [K, 2] (image, index in L). slot_targets: K tuples. slot_texts: K expressions.
    """

    slot_at: Tensor
    slot_targets: list[tuple[int, ...]]
    slot_texts: list[str]


def lay(prefix: int, images: Sequence[Sequence[Branch | Row]]) -> Laid:
    """Concatenate each image's branches after a prefix of `prefix` positions."""
    length = max(sum(len(b.ids) for b in branches) for branches in images)
    batch = len(images)
    ids = torch.zeros(batch, length, dtype=torch.long)
    labels = torch.full((batch, length), IGNORE)
    branch_of = torch.full((batch, prefix + length), -1)
    branch_of[:, :prefix] = 0
    positions = torch.zeros(batch, prefix + length, dtype=torch.long)
    positions[:, :prefix] = torch.arange(prefix)
    for i, branches in enumerate(images):
        start = 0
        for number, branch in enumerate(branches, start=1):
            end = start + len(branch.ids)
            ids[i, start:end] = torch.tensor(branch.ids)
            labels[i, start:end] = torch.tensor(branch.labels)
            branch_of[i, prefix + start : prefix + end] = number
            positions[i, prefix + start : prefix + end] = prefix + torch.arange(end - start)
            start = end
    return Laid(ids, labels, positions, branch_of)


def pack(prefix: int, images: Sequence[Sequence[Branch]]) -> Packed:
    """`lay` the branches, and record where their slots are."""
    slot_at: list[tuple[int, int]] = []
    for i, branches in enumerate(images):
        starts = itertools.accumulate((len(b.ids) for b in branches), initial=0)
        slot_at += [
            (i, start + s) for start, b in zip(starts, branches, strict=False) for s in b.slots
        ]
    everything = [branch for branches in images for branch in branches]
    return Packed(
        **vars(lay(prefix, images)),
        slot_at=torch.tensor(slot_at).view(-1, 2),
        slot_targets=[targets for b in everything for targets in b.targets],
        slot_texts=[text for b in everything for text in b.texts],
    )


def read_packed(
    llama: Any, x: Tensor, places: Tensor, prefix: int, bias: Tensor
) -> tuple[Tensor, ...]:
    """Every layer's states [B, P + L, D] of a prefix and the branches packed after it.

    The prefix attends to itself and the branches to what `bias` allows, in two attention calls, which skip
    the half of all pairs that is always masked. Source: transformers' `LlamaDecoderLayer`.

    Args:
        llama: a LlamaModel.
        x: embeddings [B, P + L, D].
        places: position ids [B, P + L].
        prefix: P.
        bias: additive float [B, 1, L, P + L], attention mask of the branches' positions.

    Returns:
        The embeddings, each layer's output, and the last output after the final norm.
    """
    cos, sin = llama.rotary_emb(x, places)
    states = [x]
    for layer in llama.layers:
        attention, h = layer.self_attn, layer.input_layernorm(x)
        shape = (*h.shape[:2], -1, attention.head_dim)
        query, key, value = (
            project(h).view(shape).transpose(1, 2)
            for project in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        query, key = apply_rotary_pos_emb(query, key, cos, sin)
        how: dict[str, Any] = {
            "scale": attention.scaling,
            "enable_gqa": key.shape[1] != query.shape[1],
        }
        q, k, v = (t[:, :, :prefix] for t in (query, key, value))
        mixed = torch.cat(
            [
                F.scaled_dot_product_attention(q, k, v, is_causal=True, **how),
                F.scaled_dot_product_attention(query[:, :, prefix:], key, value, bias, **how),
            ],
            2,
        )
        x = x + attention.o_proj(mixed.transpose(1, 2).flatten(2))
        x = x + layer.mlp(layer.post_attention_layernorm(x))
        states.append(x)
    return (*states, llama.norm(x))
