"""What follows a prefix, against transformers' own forward pass."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache, LlamaConfig, LlamaModel

from gsva_ros.model.prefix import Prefix, branch_bias
from gsva_ros.model.reading import read

SIZES = {
    "as many key heads": {},
    "shared key heads": {"num_key_value_heads": 2},
    "scaled positions": {
        "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5000.0}
    },
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


def began(llama, length=9):
    """A prefix of random embeddings, as transformers' cache and as ours."""
    x = torch.randn(1, length, 32)
    caches = [llama(inputs_embeds=x, use_cache=True).past_key_values for _ in range(2)]
    assert isinstance(caches[0], DynamicCache)
    return caches[0], Prefix(caches[1]).cache()


@torch.inference_mode()
@pytest.mark.parametrize("steps", [[1] * 5, [4], [1, 6, 1], [300, 2]])
def test_equals_transformers_step_by_step(llama, steps):
    theirs, ours = began(llama)
    for count in steps:
        x = torch.randn(1, count, 32)
        want = llama(inputs_embeds=x, past_key_values=theirs).last_hidden_state[0]
        got = read(llama, x, ours)
        assert torch.allclose(got, want, atol=2e-5)
    assert ours.get_seq_length() == theirs.get_seq_length() == 9 + sum(steps)


@torch.inference_mode()
def test_branches_do_not_see_each_other(llama):
    _, cache = began(llama)
    prefix = cache.get_seq_length()
    x = torch.randn(1, 7, 32)
    lengths = [3, 4]
    places = torch.cat([torch.arange(prefix, prefix + n) for n in lengths])[None]
    bias = branch_bias(lengths, prefix, torch.float32, x.device)
    together = read(llama, x, cache, places, bias)
    for start, end in ((0, 3), (3, 7)):
        for layer in cache.layers:
            layer.used = prefix
        alone = read(llama, x[:, start:end], cache)
        assert torch.allclose(together[start:end], alone, atol=2e-5)


@torch.inference_mode()
def test_half_precision_rounds_where_transformers_does(llama):
    llama = llama.bfloat16()
    x = torch.randn(1, 9, 32, dtype=torch.bfloat16)
    caches = [llama(inputs_embeds=x, use_cache=True).past_key_values for _ in range(2)]
    ours = Prefix(caches[1]).cache()
    x = torch.randn(1, 1, 32, dtype=torch.bfloat16)
    want = llama(inputs_embeds=x, past_key_values=caches[0]).last_hidden_state[0]
    got = read(llama, x, ours)
    assert got.dtype == want.dtype
    assert torch.allclose(got.float(), want.float(), atol=0.1, rtol=0.05)
