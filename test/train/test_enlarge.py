"""A model given a larger square to see keeps what it knows, and says where it cannot be given one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rendering  # noqa: F401 (skips this module where nothing can be rendered)
import torch
from tiny import tiny_checkpoint

from gsva_ros.engine import Engine
from gsva_ros.errors import InputError
from gsva_ros.model.bundled import model_directory
from gsva_ros.model.checkpoint import load_converted
from gsva_ros.scenes import SceneSet
from gsva_ros.sim.dataset import write_dataset
from gsva_ros.train.enlarge import CLIP_POSITIONS, TOKEN_POSITIONS, enlarged

_TINY = tiny_checkpoint().model.config
#: A tiny model whose towers see the same square, as gsva-mini's do.
SQUASHED = {
    "clip": _TINY.clip.to_dict() | {"image_size": 64},
    "sam": _TINY.sam.to_dict() | {"squash": True},
    "preprocessor": _TINY.preprocessor.model_dump() | {"size": {"height": 64, "width": 64}},
}


def test_an_enlarged_model_still_finds_what_is_there(tmp_path: Path) -> None:
    write_dataset(tmp_path / "scenes", "val", 4, workers=1)
    scenes = SceneSet(tmp_path / "scenes", "val")
    before = load_converted(model_directory("gsva-mini"))
    side = before.model.config.sam.image_size + 64
    after = enlarged(before, side)
    assert after.model.config.patch_grid == side // 16
    assert after.model.config.preprocessor.size == {"height": side, "width": side}
    engines = [Engine(c, "mini", torch.device("cpu"), "float32") for c in (before, after)]
    same = []
    for row in range(len(scenes)):
        texts = [e.text for e in scenes.expressions[row]]
        answers = [e.segment(e.encode(np.asarray(scenes.rgb[row])), texts).slots for e in engines]
        same += [a.rejected == b.rejected for a, b in zip(*answers, strict=True)]
    assert len(same) > 40
    assert np.mean(same) > 0.9


def test_places_are_laid_out_over_the_new_grid() -> None:
    positions = _TINY.llm.to_dict() | {"max_position_embeddings": 512}
    before = tiny_checkpoint(**SQUASHED, llm=positions)
    table = before.model.state_dict()[TOKEN_POSITIONS]
    columns = torch.arange(8.0).repeat(8)  # of each place
    with torch.no_grad():
        table.copy_(columns[:, None].expand_as(table))
    after = enlarged(before, 128).model.state_dict()
    grid = after[TOKEN_POSITIONS][:, 0].view(16, 16)
    assert torch.equal(grid[0], grid[15])
    torch.testing.assert_close(grid[0, 2:-2], torch.arange(2.0, 14.0) / 2 - 0.25, atol=0.1, rtol=0)
    clip = before.model.state_dict()[CLIP_POSITIONS]
    assert torch.equal(after[CLIP_POSITIONS][0], clip[0])  # what stands for the whole picture
    assert after[CLIP_POSITIONS].shape == (1 + 16 * 16, clip.shape[1])


def test_a_model_of_that_size_stays_as_it_is() -> None:
    checkpoint = tiny_checkpoint(**SQUASHED)
    assert enlarged(checkpoint, 64) is checkpoint


def test_what_cannot_be_enlarged_is_refused() -> None:
    with pytest.raises(InputError, match="side: 80 must be a multiple of 32"):
        enlarged(tiny_checkpoint(**SQUASHED), 80)
    with pytest.raises(
        InputError, match=r"side: 512 makes 1024 image tokens, but .* 1024 positions"
    ):
        enlarged(load_converted(model_directory("gsva-mini")), 512)
    with pytest.raises(InputError, match="the same squashed frame"):
        enlarged(tiny_checkpoint(), 128)


def test_an_encoder_without_windows_can_be_enlarged() -> None:
    everywhere = {"window_size": 0, "global_attn_indexes": list(range(_TINY.sam.depth))}
    whole = SQUASHED["sam"] | everywhere
    positions = _TINY.llm.to_dict() | {"max_position_embeddings": 512}
    after = enlarged(tiny_checkpoint(**SQUASHED | {"sam": whole, "llm": positions}), 80)
    assert after.model.config.sam_grid == 80 // _TINY.sam.patch_size


def test_a_config_may_leave_out_how_many_positions_there_are() -> None:
    positions = {k: v for k, v in _TINY.llm.to_dict().items() if k != "max_position_embeddings"}
    checkpoint = tiny_checkpoint(**SQUASHED, llm=positions)
    assert checkpoint.model.config.positions == 2048
    assert enlarged(checkpoint, 128).model.config.clip.image_size == 128
