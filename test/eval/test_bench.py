"""What `gsva bench` counts, compares and writes. Its times are shown to people and asserted nowhere."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from tiny import tiny_lisa
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gsva_ros.bench import counting, plain, sizes, timing
from gsva_ros.bench.picture import svg
from gsva_ros.cli import main
from gsva_ros.errors import InputError
from gsva_ros.model.gsva import GSVA

CPU = torch.device("cpu")
ASKED = ["the red mug", "the apple", "all cans"]


@pytest.fixture(scope="module")
def mini():
    return sizes.engine_of("mini", CPU, "float32", 2**40)


def counted(size: str, asked: list[str] = ASKED) -> dict[str, counting.Cost]:
    config = sizes.config_of(size)
    return counting.count(config, sizes.prompt_of(config), asked)


# Most of "mid" is SAM's: global attention of small heads, which positions beside them make thrice as wide.
@pytest.mark.parametrize(("size", "times"), [("7b", 1.15), ("7b-small", 1.15), ("mid", 1.5)])
def test_a_frame_costs_little_more_than_its_floor(size: str, times: float) -> None:
    costs = counted(size)
    assert list(costs) == ["SAM", "CLIP", "prefix", "decide", "masks"]
    for stage, cost in costs.items():
        assert cost.floor <= cost.flops * 1.02, stage  # the floor is one
    assert sum(c.flops for c in costs.values()) <= times * sum(c.floor for c in costs.values())


def test_floors_are_what_is_computed_where_nothing_else_is() -> None:
    """SAM's windows without padding; CLIP runs one layer of 24 too many; weights are moved once."""
    config = sizes.config_of("7b").model_copy(deep=True)
    config.sam.window_size, config.sam.global_attn_indexes = 16, []
    costs = counting.count(config, sizes.prompt_of(config), ASKED)
    over = {name: cost.flops / cost.floor for name, cost in costs.items()}
    wanted = {"SAM": 1.0, "CLIP": 24 / 23, "prefix": 1.007, "decide": 1.0033, "masks": 1.0226}
    assert over == pytest.approx(wanted, abs=1e-3)
    # 7B in float32, and activations.
    assert costs["decide"].moved == pytest.approx(29.9e9, rel=0.01)
    windows = costs["SAM"].floor
    config.sam.global_attn_indexes = [3]
    # 64 x 64 places of 1280 channels each look at all others instead of 16 x 16.
    more = 4 * 1280 * 4096 * (4096 - 256) + 4 * 1280 * 4096 * (64 - 16)
    assert counting.sam_floor(config) - windows == more


def test_heads_that_a_config_leaves_out_are_not_shared() -> None:
    config = sizes.config_of("7b").model_copy(deep=True)
    whole = counting.llama_floor(config, 600, 180_300, 3)
    config.llm.num_key_value_heads = None
    assert counting.llama_floor(config, 600, 180_300, 3) == whole


def test_a_projector_costs_what_its_layers_do() -> None:
    config = sizes.config_of("7b").model_copy(deep=True)
    prompt = sizes.prompt_of(config)
    linear = counting.count(config, prompt, ASKED)["CLIP"]
    weights = counting.weight_bytes(config)["bfloat16"]
    config.projector = "mlp2x_gelu"
    deeper = counting.count(config, prompt, ASKED)["CLIP"]
    assert deeper.flops - linear.flops == 2 * 4096**2 * 256
    assert deeper.floor - linear.floor == 2 * 4096**2 * 256
    assert counting.weight_bytes(config)["bfloat16"] - weights == 2 * (4096**2 + 4096)


def test_edges_cost_what_their_convolutions_do() -> None:
    config = sizes.config_of("mini")
    config.refiner = [24, 32, 48]
    costs = counting.count(config, sizes.prompt_of(config), ASKED)
    assert list(costs)[-1] == "edges"
    assert costs["edges"].flops == costs["edges"].floor > 0


def test_a_7b_has_the_bytes_of_the_published_lisa() -> None:
    """Its index says how many its shards hold together: without the vision tower, mostly in bfloat16."""
    with torch.device("meta"):
        shapes = GSVA(sizes.config_of("7b")).state_dict()
    wide = ("model.visual_model.", "model.text_hidden_fcs.")  # float32
    held = sum(
        value.numel() * (4 if name.startswith(wide) else 2)
        for name, value in shapes.items()
        if not name.startswith("model.vision_tower.")
    )
    frequencies = 32 * 64 * 4  # of rotary embeddings, which older transformers saved, too
    assert held + frequencies == 16_120_985_792


def test_costs_follow_what_is_asked() -> None:
    one, many = counted("mini", ASKED[:1]), counted("mini", ASKED[:1] * 8)
    assert [one[s].flops for s in ("SAM", "CLIP", "prefix")] == [
        many[s].flops for s in ("SAM", "CLIP", "prefix")
    ]
    assert many["decide"].operators == one["decide"].operators  # one pass for all of them
    assert 7 * one["masks"].flops < many["masks"].flops <= 8 * one["masks"].flops


def test_no_layer_makes_a_tensor_of_all_pairs() -> None:
    """Of SAM's places, at 13B's shapes; 7B's language model is as wide as SAM has places."""
    config = sizes.config_of("13b")
    places = config.sam_grid**2
    made: list[tuple[int, ...]] = []

    class Shapes(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            result = func(*args, **(kwargs or {}))
            made.extend(tuple(t.shape) for t in tree_leaves(result) if isinstance(t, torch.Tensor))
            return result

    with Shapes():
        counted("13b")
    assert any(places in shape for shape in made)
    assert not [shape for shape in made if list(shape).count(places) > 1]


def test_the_plain_path_gives_the_same_masks(mini: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the decoder draws them: gsva-mini's departures behind it are no part of the plain path."""
    rgb = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    rgb[40:80, 40:100] = (200, 20, 20)
    masks = (plain.answer(mini, rgb, ASKED) > 0).numpy()
    monkeypatch.setattr(mini.model, "refiner", None)
    monkeypatch.setattr(mini.config, "part_confidence", 0.0)
    slots = mini.segment(mini.encode(rgb), ASKED, joint=True, threshold=0.0).slots
    assert any(slot.mask is not None for slot in slots)
    for slot, mask in zip(slots, masks, strict=True):
        own = np.zeros_like(mask) if slot.mask is None else slot.mask
        assert (own != mask).mean() < 1e-3


def test_the_plain_path_answers_in_bfloat16(mini: Any) -> None:
    half = sizes.engine_of("mini", CPU, "bfloat16", 2**40)
    rgb = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    logits, exact = (plain.answer(engine, rgb, ASKED) for engine in (half, mini))
    assert (logits - exact).abs().mean() < 0.02 * exact.abs().mean()


def test_the_stock_encoder_is_not_given_what_ours_has_seen(mini: Any) -> None:
    """A backbone that towers share answers from the last call, where that saw the same pixels."""
    seen: list[torch.Tensor] = []
    embed = mini.model.model.visual_model.image_encoder.patch_embed
    hook = embed.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    timing.sam_against_stock(mini, 1)
    hook.remove()
    assert len(seen) == 6  # once for memory, a warm-up, a run: of both
    assert not any(torch.equal(a, b) for a, b in pairwise(seen))


def test_the_stock_decoder_is_compared_on_the_same_weights(mini: Any) -> None:
    embeddings, prompts = torch.randn(1, 128, 24, 24), torch.randn(3, 128)
    with torch.inference_mode():
        ours, _ = mini.model.decode_masks(embeddings, prompts)
    assert torch.allclose(plain.stock_masks(mini, embeddings, prompts), ours, atol=1e-4)


def test_from_the_command_to_numbers_picture_and_page(tmp_path: Path, capsys: Any) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- bench mini -->\nold\n<!-- end bench mini -->\nafter\n")
    given = ["--runs", "1", "--frame", "64x48", "--expressions", "1", "2", "--against", "plain"]
    written = {name: tmp_path / f"b.{name}" for name in ("json", "svg")}
    outputs = ["--out", str(written["json"]), "--picture", str(written["svg"]), "--page", str(page)]
    assert main(["bench", *given, *outputs]) == 0
    said = capsys.readouterr().out
    assert "plain, both passes, over ours" in said
    assert "times as fast as the stock module" in said
    found = json.loads(written["json"].read_text())
    assert {"decide 1", "decide and mask 2", "SAM", "a written token"} <= set(found["times"])
    assert found["times"]["SAM"]["median"] > 0
    assert set(found["against plain"]) == {"1", "2"}
    assert found["costs"]["SAM"]["flops"] > 0
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| SAM |" in text
    bars = ElementTree.fromstring(written["svg"].read_text())
    assert len(bars.findall("{*}rect")) == 1 + len(found["times"])
    assert main(["bench", "--count", "--size", "7b", "--page", str(page)]) == 2
    assert "7b counted" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--count", "--picture", "b.svg"], "leave out --count"),
        (["--node", "--against", "plain"], "leave out --count"),
        (["--page", "none.md"], "none.md"),
        (["--model", "lisa", "--against", "plain"], "needs --expressions 1"),
        (["--model", "lisa", "--frame", "1x500"], "too thin"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    options: list[str], said: str, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_lisa(tmp_path / "lisa", sees=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(timing, "ceilings", lambda *_: {"gflops": 1.0})
    capsys.readouterr()
    assert main(["bench", *options]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_size_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="use --count"):
        sizes.engine_of("7b", CPU, "float32", 8 << 30)


def test_random_weights_write_words_that_the_tokenizer_knows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts = sizes._llama(64, 2, 2, 96), sizes._clip(32, 1, 2), sizes._sam(64, 32, 1, 2, [0])
    tiny = sizes.Size(*parts)
    monkeypatch.setitem(sizes.SIZES, "mid", tiny)
    engine = sizes.engine_of("mid", CPU, "float32", 8 << 30)
    frame = engine.encode(np.zeros((48, 64, 3), np.uint8))
    for seed in range(3):
        torch.manual_seed(seed)
        torch.nn.init.normal_(engine.model.model.embed_tokens.weight)
        assert engine.ask(frame, "where is the mug?", max_new_tokens=16).text


def test_times_are_taken_in_turn_after_a_warm_up() -> None:
    order: list[str] = []
    times = timing.alternating(2, a=lambda: order.append("a"), b=lambda: order.append("b"))
    assert order == ["a", "b"] * 3
    assert times["a"].runs == 2


def test_a_peak_is_what_is_held_at_the_most() -> None:
    # In a process of its own: this one's allocator may have kept as much from another test.
    program = (
        "import numpy as np, torch\n"
        "from gsva_ros.bench import timing\n"
        "run = lambda: [np.ones(size << 20, np.uint8).sum() for size in (40, 10)]\n"
        "print(timing.peak_of(run, torch.device('cpu')))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert 35 < float(found.stdout) < 60


def test_a_picture_of_any_names() -> None:
    bars = ElementTree.fromstring(svg("a < b & c", {"<x>": (2.0, 1.0), "y": (0.0, None)}))
    assert len(bars.findall("{*}line")) == 1


def test_the_node_needs_ros(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gsva_ros.ros", None)
    assert main(["bench", "--node"]) == 2
    assert "install/setup.bash" in capsys.readouterr().err


def test_fixed_shapes_are_measured_where_asked() -> None:
    assert sizes.engine_of("mini", CPU, "float32", 2**40, static=True)._static
    assert not sizes.engine_of("mini", CPU, "float32", 2**40)._static


@pytest.mark.parametrize(
    ("dtype", "precision", "product", "gflops"),
    [("auto", "float32", "float32", 4), ("int4", "int4", "bfloat16", 2)],
)
def test_the_precision_is_the_one_asked_for(
    capsys: Any,
    monkeypatch: pytest.MonkeyPatch,
    dtype: str,
    precision: str,
    product: str,
    gflops: int,
) -> None:
    if dtype == "int4":
        pytest.importorskip("torchao", reason="int4 needs torchao (extra small)")
    monkeypatch.setattr(timing, "stages", lambda *_: {})
    monkeypatch.setattr(
        timing, "ceilings", lambda _, dtype: {"gflops": 1.0 * dtype.itemsize, "copy_gb_s": 3.0}
    )
    assert main(["bench", "--dtype", dtype]) == 0
    ceilings = f"{precision}, 10 runs; ceilings: {gflops} GFLOP/s in a {product} product"
    assert ceilings in capsys.readouterr().out


@pytest.mark.parametrize("given", ["320", "320x", "wide x high"])
def test_a_frame_that_is_no_size_is_told_what_a_size_is(
    given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["bench", "--frame", given])
    assert f"argument --frame: WxH, such as 640x480, not '{given}'" in capsys.readouterr().err
