"""What follows a prefix, against transformers' own forward pass."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaModel

from gsva_ros.model.prefix import Branches, Prefix, empty, rewind
from gsva_ros.model.reading import Reader, _normed

SIZES = {
    "as many key heads": {},
    "shared key heads": {"num_key_value_heads": 2},
    "scaled positions": {
        "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5000.0}
    },
    "another activation": {"hidden_act": "gelu"},
    "a norm that damps": {"rms_norm_eps": 0.5},
    "biases": {"attention_bias": True, "mlp_bias": True},
}


@pytest.fixture(params=SIZES.values(), ids=SIZES.keys())
def llama(request):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=512,
        **{"num_key_value_heads": 4, **request.param},
    )
    model = LlamaModel(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return model


def began(llama, length=9, dtype=torch.float32):
    """A prefix of random embeddings, as transformers' cache and as ours."""
    x = torch.randn(1, length, 32, dtype=dtype)
    ours = empty(llama, x)
    Reader(llama)(x, ours, wanted=torch.tensor([], dtype=torch.long))
    return llama(inputs_embeds=x, use_cache=True).past_key_values, Prefix.after(ours).cache()


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_norm_rounds_as_transformers_does(llama, dtype):
    """To the dtype of the weights before these are applied."""
    norm, x = llama.norm.to(dtype), torch.randn(100, 32).to(dtype)
    assert torch.equal(_normed(norm.weight, norm.variance_epsilon, x), norm(x))


@torch.inference_mode()
@pytest.mark.parametrize("steps", [[1] * 5, [4], [1, 6, 1], [300, 2]])
def test_equals_transformers_step_by_step(llama, steps):
    theirs, ours = began(llama)
    for count in steps:
        x = torch.randn(1, count, 32)
        want = llama(inputs_embeds=x, past_key_values=theirs).last_hidden_state[0]
        got = Reader(llama)(x, ours)
        assert torch.allclose(got, want, atol=2e-5)
    assert ours.get_seq_length() == theirs.get_seq_length() == 9 + sum(steps)


@torch.inference_mode()
@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("wanted", [[], [6], [0, 3, 3, 5], range(7)])
def test_only_what_is_wanted(llama, begun, wanted):
    theirs, ours = began(llama) if begun else (None, empty(llama, torch.empty(0)))
    x = torch.randn(1, 7, 32)
    want = llama(inputs_embeds=x, past_key_values=theirs, use_cache=True)
    got = Reader(llama)(x, ours, wanted=torch.tensor(wanted, dtype=torch.long))
    assert torch.allclose(got, want.last_hidden_state[0, list(wanted)], atol=2e-5)
    for layer, own in zip(want.past_key_values.layers, ours.layers, strict=True):
        keys, values = (x[:, :, : own.used] for x in own.room)
        assert torch.allclose(keys, layer.keys, atol=2e-5)
        assert torch.allclose(values, layer.values, atol=2e-5)


@torch.inference_mode()
def test_branches_do_not_see_each_other(llama):
    _, cache = began(llama)
    prefix, words = cache.get_seq_length(), torch.randn(50, 32)
    # Shared beginnings, one that is the whole of another, twice the same, and one that differs at first.
    sequences = [[1, 2, 3], [1, 2, 4, 5], [1, 2], [2, 1], [1, 2, 4, 5], [3, 2, 4]]
    tree = Branches.of(sequences)
    assert len(tree.ids) == 10
    together = Reader(llama)(
        words[tree.ids][None],
        cache,
        torch.tensor(tree.depths) + prefix,
        tree.bias(prefix, torch.float32, words.device),
        torch.tensor(tree.ends),
    )
    for state, sequence in zip(together, sequences, strict=True):
        rewind(cache, prefix)
        alone = Reader(llama)(words[sequence][None], cache)
        assert torch.allclose(state, alone[-1], atol=2e-5)


@torch.inference_mode()
def test_half_precision_rounds_where_transformers_does(llama):
    llama = llama.bfloat16()
    theirs, ours = began(llama, dtype=torch.bfloat16)
    x = torch.randn(1, 1, 32, dtype=torch.bfloat16)
    want = llama(inputs_embeds=x, past_key_values=theirs).last_hidden_state[0]
    got = Reader(llama)(x, ours)
    assert got.dtype == want.dtype
    assert torch.allclose(got.float(), want.float(), atol=0.1, rtol=0.05)


class Louder(torch.nn.Linear):
    """A layer that computes more than the product of its weight, as LoRA's do."""

    def forward(self, x):
        return 2 * super().forward(x)


@torch.inference_mode()
def test_a_layer_that_is_more_than_its_weight_is_called(llama):
    for module in llama.modules():
        if isinstance(module, torch.nn.Linear):
            module.__class__ = Louder
    x = torch.randn(1, 5, 32)
    want = llama(inputs_embeds=x).last_hidden_state[0]
    assert torch.allclose(Reader(llama)(x, empty(llama, x)), want, atol=2e-5)
