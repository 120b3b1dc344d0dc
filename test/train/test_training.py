"""gsva-mini's stages, by their own files: each goes on from the one before, to a model that loads."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
import rendering  # noqa: F401 (skips this module where nothing can be rendered)
import torch
import yaml
from safetensors.torch import load_file, save_file

import gsva_ros
from gsva_ros.errors import InputError
from gsva_ros.model.bundled import model_directory
from gsva_ros.model.checkpoint import load_converted, save_pretrained
from gsva_ros.model.config import AUXILIARY_NAME
from gsva_ros.model.stems import pretrained_stems
from gsva_ros.phrasing.words import Vocabulary
from gsva_ros.programs.train import train
from gsva_ros.scenes import Expression, SceneSet, joined
from gsva_ros.sim.dataset import write_dataset
from gsva_ros.train import stages
from gsva_ros.train.config import Config, Data, read_config
from gsva_ros.train.frames import Frames
from gsva_ros.train.language import Questions
from gsva_ros.train.mini import new_mini
from gsva_ros.train.sources.rendered import RenderedScenes
from gsva_ros.train.stages import task
from gsva_ros.train.text import BranchWriter


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "train"
    write_dataset(folder, "train", 16, workers=1)
    return folder


ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "config/train").glob("mini-*.yaml"))
EDGES = ROOT / "config/train/mini-09-edges.yaml"
LARGER = ROOT / "config/train/mini-10-larger.yaml"


def stage_config(path: Path, scenes: Path, runs: Path, **changes: Any) -> Config:
    """A stage as it is configured, of one step, in other folders."""
    data = yaml.safe_load(path.read_text().replace("runs/mini", str(runs)))
    data["sources"] = [{"kind": "scenes", "path": str(scenes)}]
    small = {"steps": 1, "batch": 4, "warmup": 0, "workers": 0, "jitter": 0.0}
    return Config(**data | small | changes)


def test_all_stages_make_a_model_that_loads(scenes: Path, tmp_path: Path) -> None:
    assert len(CONFIGS) == 12
    with pytest.raises(FileNotFoundError, match="no model"):
        train(stage_config(CONFIGS[-1], scenes, tmp_path / "other"))
    *stages, edges, larger, many, places = CONFIGS
    for path in stages:
        train(stage_config(path, scenes, tmp_path))
    # So little taught, a model draws nothing.
    with pytest.raises(InputError, match="predicts no mask"):
        train(stage_config(edges, scenes, tmp_path))
    train(stage_config(larger, scenes, tmp_path, model=str(tmp_path / "prints/model")))
    train(stage_config(many, scenes, tmp_path))
    train(stage_config(places, scenes, tmp_path))
    exported = tmp_path / "places/model"
    assert (exported / "model.safetensors").stat().st_size < 40e6
    engine = gsva_ros.load(exported, device="cpu")
    frame = engine.encode(np.asarray(SceneSet(scenes, "train").rgb[0]))
    assert [s.expression for s in engine.segment(frame, ["the red mug"]).slots] == ["the red mug"]
    assert engine.config.image_tokens == 20**2
    # A stage goes on from the weights and the read-outs of those before it.
    sam, last = (load_file(tmp_path / n / "model/auxiliary.safetensors") for n in ("sam", "places"))
    symbols = [name for name in sam if name.startswith("symbolic.")]
    assert symbols
    assert all(torch.equal(sam[name], last[name]) for name in symbols)
    assert not [name for name in last if name.startswith("model.")]  # not the weights once more
    first, final = (load_file(tmp_path / n / "model/model.safetensors") for n in ("sam", "places"))
    # A step of AdamW moves a weight by no more than about its rate.
    most = 1.1 * sum(read_config(path).parts.get("mask_decoder", 0.0) for path in CONFIGS[2:])
    for name, value in final.items():
        if "mask_decoder" in name:
            torch.testing.assert_close(value, first[name], atol=most, rtol=0)


def test_a_stage_may_go_part_of_the_way(scenes: Path, tmp_path: Path) -> None:
    whole = stage_config(CONFIGS[2], scenes, tmp_path, model="new", out=tmp_path / "whole")
    # Both begin with the same weights and learn the same.
    part = whole.model_copy(update={"out": tmp_path / "part", "blend": 0.25})
    for config in (whole, part):
        train(config)
    began = new_mini(whole).model.state_dict()
    learnt, blended = (load_file(out / "model/model.safetensors") for out in (whole.out, part.out))
    moved = 0
    for name, value in learnt.items():
        wanted = began[name] + 0.25 * (value - began[name])
        torch.testing.assert_close(blended[name], wanted, atol=1e-6, rtol=1e-5)
        moved += not torch.equal(value, began[name])
    assert moved


def test_expressions_become_branches_with_their_truth(scenes: Path, tmp_path: Path) -> None:
    checkpoint = new_mini(stage_config(CONFIGS[0], scenes, tmp_path))
    writer = BranchWriter(checkpoint.prompt, Vocabulary(("mug", "can"), ("red",)), 0.04)
    prompt = writer.prompt
    seg, rej = prompt.tokenizer.slot_ids
    expressions = [Expression("the red mug", "single", (1,)), Expression("the can", "single", ())]
    drawn = writer.sample(expressions, np.random.default_rng(0), tokens=2000)
    assert len(drawn) > 50
    assert 1900 < sum(len(b.ids) for b in drawn) <= 2000
    for branch in drawn:
        assert len(branch.slots) == len(branch.targets)
        for place, targets in zip(branch.slots, branch.targets, strict=True):
            assert branch.labels[place] == (seg if targets else rej)
        if len(branch.slots) == 1 and "mug" in branch.texts[0]:
            assert branch.targets == ((1,),)
            assert "mug" in prompt.tokenizer.decode(list(branch.ids))
    assert any(len(b.slots) > 1 for b in drawn)


def test_each_config_goes_on_where_the_one_before_ends() -> None:
    configs = [read_config(path) for path in CONFIGS]
    assert [c.objective for c in configs] == [
        "clip",
        "sam",
        "language",
        *["joint"] * 5,
        "edges",
        *["joint"] * 3,
    ]
    assert configs[0].model == "new"
    for before, after in itertools.pairwise(configs):
        assert after.model == str(before.out / "model")
    # The folders that the page on training says how to render.
    page = (ROOT / "docs/training.md").read_text()
    for path in {s.options["path"] for config in configs for s in config.sources}:
        assert f"--out {path}\n" in page


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [({"export": "adapter"}, "side: an adapter"), ({"model": "new"}, "side: a new model")],
)
def test_a_size_that_would_be_lost_is_refused(changes: dict[str, Any], wrong: str) -> None:
    data = yaml.safe_load(LARGER.read_text())
    assert Config(**data).side == 320
    with pytest.raises(ValueError, match=wrong):
        Config(**data | changes)


def test_a_stage_learns_from_several_folders(scenes: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path / "household", "train", 2, world="household", workers=1)
    places = [tmp_path / "household", scenes]
    first, other = (SceneSet(place, "train") for place in places)
    whole = joined([first, other])
    rows = np.array([17, 0, 1, 2])
    alone = [other.rgb[15], first.rgb[0], first.rgb[1], other.rgb[0]]
    assert np.array_equal(whole.rgb[rows], alone)
    assert np.array_equal(whole.rgb[17], alone[0])
    named = [other.kinds[k] for k in other.kind[0] if k >= 0]
    assert [whole.kinds[k] for k in whole.kind[2] if k >= 0] == named
    assert whole.expressions[2] == other.expressions[0]
    with pytest.raises(InputError, match="the folder that knows all"):
        joined([other, first])

    sources = [{"kind": "scenes", "path": str(place)} for place in places]
    clip = stage_config(CONFIGS[0], scenes, tmp_path, sources=sources)
    train(clip)
    for place, count in zip(places, (2, 16), strict=True):
        assert len(np.load(place / "backbone_256_16.npy")) == count
    bag = Data(kind="bag", path="x", topic="/t")
    other_kind = clip.model_copy(update={"sources": [*clip.sources, bag]})
    with pytest.raises(InputError, match="sources of kind scenes"):
        new_mini(other_kind)


def test_features_are_kept_by_scene_in_every_folder(scenes: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path / "household", "train", 2, world="household", workers=1)
    joint = joined([SceneSet(place, "train") for place in (tmp_path / "household", scenes)])
    model = new_mini(stage_config(CONFIGS[0], scenes, tmp_path)).model.eval()
    frames, stem = Frames(joint, model.config), pretrained_stems(model)[0]
    rows, rng = np.array([17, 0, 3, 2]), np.random.default_rng(0)
    with torch.inference_mode():
        wanted = stem.backbone(frames.sam(rows))
        frames.remember(model)
        found = stem.backbone(frames.show(frames.draw(rows, rng)))
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == torch.float32
        for own, true in zip(one, other, strict=True):
            distances = [(own - features).norm() / true.norm() for features in other]
            assert min(distances) == (own - true).norm() / true.norm() < 0.2


def test_towers_that_see_different_pixels_are_refused(scenes: Path, tmp_path: Path) -> None:
    config = new_mini(stage_config(CONFIGS[0], scenes, tmp_path)).model.config
    whole, usual = SceneSet(scenes, "train"), config.preprocessor
    Frames(whole, config).check()
    side = config.clip.image_size // 2
    for other in ({"image_mean": [0.5, 0.5, 0.5]}, {"size": {"height": side, "width": side}}):
        config.preprocessor = usual.model_copy(update=other)
        with pytest.raises(InputError, match="choose objective: gsva"):
            Frames(whole, config).check()


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"per_image": 3}, r"sources\.0: per_image: Extra inputs.*path and limit"),
        ({"limit": 0}, r"sources\.0: limit: Input should be greater"),
        ({"rate": 2}, r"sources\.0\.rate: .*use `limit`"),
    ],
)
def test_a_stage_does_not_pass_over_an_option(
    scenes: Path, tmp_path: Path, option: dict[str, Any], said: str
) -> None:
    source = {"kind": "scenes", "path": str(scenes)} | option
    with pytest.raises(InputError, match=said):
        new_mini(stage_config(CONFIGS[0], scenes, tmp_path, sources=[source]))


@pytest.mark.parametrize("model", ["new", "gsva-mini"])
def test_an_objective_of_which_no_task_is_made_is_told(
    scenes: Path, tmp_path: Path, model: str
) -> None:
    config = stage_config(CONFIGS[0], scenes, tmp_path, model=model)
    other = [Data(kind="bag", path="x", topic="/t")]
    with pytest.raises(NotImplementedError, match="objective focal: no task is made for it"):
        train(config.model_copy(update={"objective": "focal", "sources": other}))


def test_every_objective_but_gsvas_is_a_stage() -> None:
    names = get_args(Config.model_fields["objective"].annotation)
    assert set(names) == {"gsva", *stages.STAGES}


def test_a_row_makes_a_stage_on_sams_features(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = replace(stages.STAGES["sam"], trains=("head",))
    monkeypatch.setitem(stages.STAGES, "dense", row)
    small = {"jitter": 0.1, "batch": 1, "masks": 1}
    config = stage_config(CONFIGS[1], scenes, tmp_path, model="gsva-mini", **small)
    dense = config.model_copy(update={"objective": "dense"})
    made = task(dense, load_converted(model_directory("gsva-mini")), None)
    loss, _ = made.module(made.batches[0])
    assert loss.isfinite()
    heads = {group["name"] for group in made.groups} - set(config.parts)
    assert heads == {"head"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_hidden_layers": 4}, r"4 layers and 4 heads \(4 of keys\).* at least 5 layers"),
        ({"num_attention_heads": 2, "num_key_value_heads": 2}, "2 heads .* 4 heads or more"),
        ({"num_key_value_heads": 2}, r"\(2 of keys\).* with keys of their own"),
    ],
)
def test_a_language_model_that_the_read_outs_do_not_fit_is_refused(
    scenes: Path, tmp_path: Path, changes: dict[str, int], said: str
) -> None:
    config = stage_config(CONFIGS[2], scenes, tmp_path, model="gsva-mini", jitter=0.1)
    checkpoint = load_converted(model_directory("gsva-mini"))
    sizes = checkpoint.model.config
    sizes.llm = sizes.llm.model_copy(update=changes)
    with pytest.raises(InputError, match=said):
        task(config, checkpoint, None)


def rewritten(scenes: Path, out: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Path:
    """The scenes with each one's lists changed."""
    shutil.copytree(scenes, out)
    lines = [json.loads(line) for line in (out / "scenes.jsonl").read_text().splitlines()]
    (out / "scenes.jsonl").write_text("".join(json.dumps(change(line)) + "\n" for line in lines))
    return out


def test_what_a_run_keeps_is_of_its_own_scenes_and_model(scenes: Path, tmp_path: Path) -> None:
    """A folder in which an earlier run was configured otherwise, and stopped before its first state."""
    word = {"text": "the quixotic zyzzyva", "category": "single", "targets": [1]}
    other = rewritten(scenes, tmp_path / "s", lambda scene: scene | {"expressions": 20 * [word]})
    config = stage_config(CONFIGS[2], other, tmp_path, model="new", out=tmp_path / "used")
    fresh = stage_config(CONFIGS[2], scenes, tmp_path, model="new", out=tmp_path / "fresh")
    used = fresh.model_copy(update={"out": config.out})
    task(config, new_mini(config), None)
    for run in (used, fresh):
        task(run, new_mini(run), None)
    for name in ("tokenizer.model", "clip_tokens.npy"):
        assert (used.out / name).read_bytes() == (fresh.out / name).read_bytes()

    train(used)
    tokenizer = (used.out / "tokenizer.model").read_bytes()
    train(config.model_copy(update={"steps": 2}))  # a run that goes on keeps its pieces
    assert (used.out / "tokenizer.model").read_bytes() == tokenizer

    taught = load_converted(model_directory("gsva-mini"))
    task(fresh, taught, None)
    seen = np.load(fresh.out / "clip_tokens.npy")
    assert not np.array_equal(seen, np.load(used.out / "clip_tokens.npy"))


def test_the_seed_decides_what_is_drawn(scenes: Path, tmp_path: Path) -> None:
    def drawn(seed: int) -> list[torch.Tensor]:
        config = stage_config(CONFIGS[0], scenes, tmp_path, model="gsva-mini", seed=seed)
        batches = task(config, load_converted(model_directory("gsva-mini")), None).batches
        return [batches[step].pictures.pixels for step in range(3)]

    first, again, other = drawn(0), drawn(0), drawn(1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert not torch.equal(first[0], first[1])


@pytest.mark.parametrize("count", [1, 2])
def test_simple_expressions_give_way_as_late_with_several_passes_a_step(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """The passes of all processes are counted."""
    monkeypatch.setattr(stages, "processes", lambda: SimpleNamespace(num_processes=count))
    shares: list[float] = []
    about = Questions.about

    def noted(self: Questions, rows: Any, rng: Any, simple: float = 0.0) -> Any:
        shares.append(simple)
        return about(self, rows, rng, simple)

    monkeypatch.setattr(Questions, "about", noted)
    changes = {"model": "gsva-mini", "steps": 4, "accumulation": 2 // count, "simple": 0.5}
    config = stage_config(CONFIGS[2], scenes, tmp_path, **changes)
    batches = task(config, load_converted(model_directory("gsva-mini")), None).batches
    for number in range(8):
        batches[number]
    assert shares == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0, 0.0, 0.0]


def test_a_stage_goes_on_from_the_bundled_models_auxiliary_heads(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Asked(Exception):
        pass

    def asked(_config: object, _checkpoint: object, folder: Path) -> None:
        raise Asked(folder)

    monkeypatch.setattr(stages, "task", asked)
    with pytest.raises(Asked) as seen:
        train(stage_config(CONFIGS[-1], scenes, tmp_path, model="gsva-mini"))
    (folder,) = seen.value.args
    heads = load_file(folder / AUXILIARY_NAME)
    assert {name.split(".")[0] for name in heads} == {"symbolic", "grounding"}


def test_auxiliary_heads_that_are_damaged_are_told(scenes: Path, tmp_path: Path) -> None:
    config = stage_config(CONFIGS[2], scenes, tmp_path, model="gsva-mini", jitter=0.1)
    path = tmp_path / "auxiliary.safetensors"

    def load() -> dict[str, torch.Tensor]:
        stage = task(config, load_converted(model_directory("gsva-mini")), tmp_path).module
        return {k: v.clone() for k, v in stage.state_dict().items()}

    whole = {k: v + 1 for k, v in load().items() if k.startswith("grounding.")}
    save_file(whole | {"other.head": torch.zeros(1)}, path)
    loaded = load()
    assert all(torch.equal(loaded[name], value) for name, value in whole.items())
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=r"auxiliary\.safetensors"):
        load()


def test_the_joint_stage_does_not_learn_from_random_symbolic_prompts(
    scenes: Path, tmp_path: Path
) -> None:
    config = stage_config(CONFIGS[3], scenes, tmp_path, model="gsva-mini", jitter=0.1)
    bundled = model_directory("gsva-mini")  # it knows more kinds than these scenes
    for base, named in ((None, "model"), (tmp_path, tmp_path), (bundled, bundled)):
        with pytest.raises(InputError, match=r"symbolic prompts for .* start from") as said:
            task(config, load_converted(bundled), base)
        assert str(said.value).startswith(f"{named}: no auxiliary.safetensors")
    own = stages.Stage(load_converted(bundled), SceneSet(scenes, "train"), "joint").state_dict()
    symbols = {name: value for name, value in own.items() if name.startswith("symbolic.")}
    save_file(symbols, tmp_path / AUXILIARY_NAME)
    task(config, load_converted(bundled), tmp_path)


def test_a_rendered_scene_is_asked_for_some_of_its_expressions(scenes: Path) -> None:
    source, whole = RenderedScenes(str(scenes), per_image=5), SceneSet(scenes, "train")
    assert set(source.expressions()) == {e.text for asked in whole.expressions for e in asked}
    for seed in range(10):
        sample = source.draw(np.random.default_rng(seed))
        (row,) = (r for r in range(len(whole)) if np.array_equal(whole.rgb[r], sample.image))
        targets = {e.text: e.targets for e in whole.expressions[row]}
        assert len(set(sample.expressions)) == len(sample.masks) == 5
        for text, mask in zip(sample.expressions, sample.masks, strict=True):
            assert np.array_equal(mask, np.isin(whole.instances[row], targets[text])), text


def test_only_scenes_with_expressions_are_asked_about(scenes: Path, tmp_path: Path) -> None:
    one = rewritten(
        scenes, tmp_path / "one", lambda s: s if s["seed"] % 16 == 0 else s | {"expressions": []}
    )
    source = RenderedScenes(str(one))
    drawn = [source.draw(np.random.default_rng(seed)) for seed in range(8)]
    assert all(sample.expressions for sample in drawn)
    none = rewritten(scenes, tmp_path / "none", lambda scene: scene | {"expressions": []})
    with pytest.raises(InputError, match="none: no scene has an expression"):
        RenderedScenes(str(none))
    config = stage_config(CONFIGS[2], none, tmp_path, model="gsva-mini", jitter=0.1)
    with pytest.raises(InputError, match="none: no scene has an expression"):
        task(config, load_converted(model_directory("gsva-mini")), None)


def test_scenes_that_hold_nothing_named_teach_no_masks(scenes: Path, tmp_path: Path) -> None:
    def change(scene: dict[str, Any]) -> dict[str, Any]:
        named = scene["seed"] % 8 == 0
        return scene | {"objects": [t if named else t | {"kind": ""} for t in scene["objects"]]}

    train(
        stage_config(CONFIGS[1], rewritten(scenes, tmp_path / "s", change), tmp_path, model="new")
    )
    assert (tmp_path / "sam/model/model.safetensors").is_file()


def test_relations_to_what_is_not_there_alone_teach_no_place(scenes: Path, tmp_path: Path) -> None:
    asked = {"text": "the mug left of the knife", "category": "absent_relation", "targets": []}
    other = rewritten(scenes, tmp_path / "s", lambda scene: scene | {"expressions": [asked]})
    # A loss that is NaN would stop it.
    train(stage_config(CONFIGS[2], other, tmp_path, model="new"))
    assert (tmp_path / "language/model/model.safetensors").is_file()


def test_edges_are_learnt_and_nothing_else_changes(scenes: Path, tmp_path: Path) -> None:
    """From a decoder with coarse edges: its masks come nearer to the truth, all other weights stay."""
    bundled = load_converted(model_directory("gsva-mini"))
    bundled.model.config.refiner = bundled.model.refiner = None
    for layer in bundled.model.model.visual_model.mask_decoder.modules():
        if isinstance(layer, torch.nn.ConvTranspose2d):  # equal pixels instead of finer ones
            layer.weight.data.copy_(layer.weight.data.mean((2, 3), keepdim=True))
    save_pretrained(bundled.model, bundled.prompt.tokenizer, tmp_path / "plain")
    config = stage_config(
        EDGES,
        scenes,
        tmp_path,
        model=str(tmp_path / "plain"),
        parts={"refiner": 3e-3},
        steps=80,
        batch=12,
    )
    with pytest.raises(InputError, match="export: an adapter needs a base with a refiner"):
        train(config.model_copy(update={"export": "adapter"}))
    train(config)
    before, after = (gsva_ros.load(m, device="cpu") for m in (config.model, config.out / "model"))
    old, new = before.model.state_dict(), after.model.state_dict()
    assert not any(name.startswith("refiner.") for name in old)
    assert all(torch.equal(value, new[name]) for name, value in old.items())
    taught = SceneSet(scenes, "train")
    plain, refined = [], []
    for row in range(len(taught)):
        present = [e for e in taught.expressions[row] if e.targets][:6]
        truth = taught.target_masks(np.full(len(present), row), [e.targets for e in present])
        for engine, found in ((before, plain), (after, refined)):
            frame, texts = engine.encode(np.asarray(taught.rgb[row])), [e.text for e in present]
            slots = engine.segment(frame, texts, mask_rejected=True).slots
            found += [iou(slot.mask, t) for slot, t in zip(slots, truth, strict=True)]
    assert np.mean(refined) > np.mean(plain) + 0.02


@pytest.mark.parametrize(
    ("objective", "parts"),
    [("edges", ["mask_decoder"]), ("edges", ["refiner", "lm_head"]), ("joint", ["refiner"])],
)
def test_edges_are_taught_alone(
    scenes: Path, tmp_path: Path, objective: str, parts: list[str]
) -> None:
    with pytest.raises(ValueError, match="the objective edges trains the part refiner"):
        stage_config(EDGES, scenes, tmp_path, objective=objective, parts=dict.fromkeys(parts, 1e-3))


def iou(mask: np.ndarray | None, truth: np.ndarray) -> float:
    return 0.0 if mask is None else float((mask & truth).sum() / (mask | truth).sum())
