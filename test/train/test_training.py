"""Training: a kill loses nothing, and every stage runs through to a model that the engine loads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rendering  # noqa: F401 (skips this module where nothing can be rendered)
import torch
from torch import Tensor, nn

import gsva_ros
from gsva_ros.scenes import Expression, SceneSet
from gsva_ros.sim.dataset import write_dataset
from gsva_ros.train.loop import Stage, decayed
from gsva_ros.train.mini import MiniTraining
from gsva_ros.train.recipe import Recipe


class Killed(Exception):
    """Stands for a kill at any moment."""


def run_stage(path: Path, kill_at: int | None = None) -> nn.Linear:
    torch.manual_seed(0)
    module = nn.Linear(3, 1)
    stage = Stage("toy", {"m": module}, [decayed([module], 0.1)], 12, path, save_every_s=0.0)

    def loss_of(step: int) -> tuple[Tensor, dict[str, float]]:
        if step == kill_at:
            raise Killed
        x = torch.from_numpy(np.random.default_rng(step).standard_normal((8, 3), np.float32))
        loss = (module(x) - x.sum(1, keepdim=True)).square().mean()
        return loss, {"loss": loss.item()}

    stage.run(loss_of)
    return module


def test_a_killed_stage_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = run_stage(tmp_path / "whole.pt")
    with pytest.raises(Killed):
        run_stage(tmp_path / "killed.pt", kill_at=7)
    resumed = run_stage(tmp_path / "killed.pt")
    assert torch.equal(whole.weight, resumed.weight)
    assert torch.equal(whole.bias, resumed.bias)
    # A finished stage is not run again.
    finished = run_stage(tmp_path / "killed.pt", kill_at=0)
    assert torch.equal(whole.weight, finished.weight)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "train"
    write_dataset(folder, "train", 16, workers=1)
    return folder


def test_all_stages_make_a_model_that_loads(scenes: Path, tmp_path: Path) -> None:
    def training() -> MiniTraining:
        return MiniTraining(scenes, tmp_path, "cpu")

    with pytest.raises(FileNotFoundError, match="'clip' first"):
        training().run("joint", 1)
    for stage in ("sam", "clip", "language", "joint"):
        # Each stage in a process of its own, as far as it can know.
        training().run(stage, 1)
    exported = tmp_path / "gsva-mini"
    assert (exported / "model.safetensors").stat().st_size < 40e6
    engine = gsva_ros.load(exported, device="cpu")
    frame = engine.encode(np.asarray(SceneSet(scenes, "train").rgb[0]))
    assert [s.expression for s in engine.segment(frame, ["the red mug"]).slots] == ["the red mug"]
    # The joint stage goes on from the others' weights: one warm-up step hardly moves them.
    visual = torch.load(tmp_path / "sam.pt", weights_only=True)["modules"]["visual"]
    state = engine.model.model.visual_model.state_dict()
    assert state.keys() == visual.keys()
    for name, value in state.items():
        torch.testing.assert_close(value, visual[name], atol=1e-3, rtol=0)


def test_expressions_become_branches_with_their_truth(scenes: Path, tmp_path: Path) -> None:
    branches = MiniTraining(scenes, tmp_path, "cpu")._loss().branches
    prompt = branches.prompt
    seg, rej = branches.slot_ids
    expressions = [Expression("the red mug", "single", (1,)), Expression("the can", "single", ())]
    drawn = branches.sample(expressions, np.random.default_rng(0), tokens=2000)
    assert len(drawn) > 50
    assert 1900 < sum(len(b.ids) for b in drawn) <= 2000
    for branch in drawn:
        assert len(branch.slots) == len(branch.targets)
        for place, targets in zip(branch.slots, branch.targets, strict=True):
            assert branch.labels[place] == (seg if targets else rej)
        text = prompt.tokenizer.decode(list(branch.ids))
        if "red mug" in text and "can" not in text.replace("can you", ""):
            assert branch.targets == ((1,),)
    assert any(len(b.slots) > 1 for b in drawn)


def test_the_recipe_is_what_the_model_card_says() -> None:
    card = (Path(gsva_ros.__file__).parent / "checkpoints" / "gsva-mini" / "README.md").read_text()
    for stage, steps in vars(Recipe()).items():
        assert f"| {stage.removesuffix('_steps')} | {steps} |" in card
