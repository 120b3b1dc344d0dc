"""Packed branches: what training computes side by side equals each expression asked alone."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaModel

from gsva_ros.train.packing import IGNORE, Branch, pack, read_packed

PREFIX = 5


def branch(*ids: int, slot: int, targets: tuple[int, ...] = ()) -> Branch:
    return Branch(ids, (IGNORE,) * len(ids), (slot,), (targets,), ("",))


@pytest.mark.parametrize("key_heads", [4, 2])
def test_branches_neither_see_nor_shift_each_other(key_heads: int) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "vocab_size": 50, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": key_heads}
    llama = LlamaModel(LlamaConfig(**sizes, **heads)).eval()
    first, second = branch(3, 4, 5, slot=2, targets=(1,)), branch(6, 7, 8, 9, slot=3)
    packed = pack(PREFIX, [[first, second], [second]])
    prefix = torch.randn(2, PREFIX, 32)
    x = torch.cat([prefix, llama.embed_tokens(packed.ids)], 1)
    bias = packed.bias(torch.float32)
    hidden = llama(
        inputs_embeds=x, attention_mask=bias, position_ids=packed.position_ids
    ).last_hidden_state[:, PREFIX:]
    *layers, last = read_packed(llama, x, packed.position_ids, PREFIX, bias[:, :, PREFIX:])
    torch.testing.assert_close(last[:, PREFIX:], hidden, atol=1e-5, rtol=1e-4)
    assert len(layers) == 3  # the embeddings and both layers
    for (image, place), alone, which in zip(
        packed.slot_at.tolist(), (first, second, second), (0, 0, 1), strict=True
    ):
        assert image == which
        ids = torch.tensor([alone.ids])
        single = llama(inputs_embeds=torch.cat([prefix[[image]], llama.embed_tokens(ids)], 1))
        expected = single.last_hidden_state[0, PREFIX + alone.slots[0]]
        torch.testing.assert_close(hidden[image, place], expected, atol=1e-5, rtol=1e-4)
    assert packed.slot_targets == [(1,), (), ()]
