"""SAM 3 on a tiny random configuration: it answers as the other engine does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_sam3 import SIDE, tiny_directory
from transformers import Sam3VideoConfig, Sam3VideoModel

import gsva_ros
from gsva_ros import cli
from gsva_ros.answer import ExpressionError, Rejection
from gsva_ros.errors import InputError
from gsva_ros.sam3 import Sam3Engine


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_directory(tmp_path_factory.mktemp("sam3"))


@pytest.fixture
def rgb() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


def test_it_decides_by_presence_and_draws_all_instances(directory: Path, rgb: np.ndarray) -> None:
    engine = gsva_ros.load(directory)
    assert isinstance(engine, Sam3Engine)
    frame = engine.encode(rgb)
    (slot,) = engine.segment(frame, ["red mug"], threshold=0.0).slots
    assert 0.5 < slot.p_seg < 1.0
    ids = engine._tokenizer("red mug", return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        plain = engine.model(vision_embeds=frame.vision, input_ids=ids)
    presence = float(plain.presence_logits.sigmoid())
    assert slot.p_seg == pytest.approx(presence)
    scores = plain.pred_logits[0].sigmoid() * presence
    assert 1 < int((scores > 0.3).sum()) < len(scores)
    masks = torch.nn.functional.interpolate(
        plain.pred_masks[0][:, None].sigmoid(), (40, 60), mode="bilinear"
    )
    union = (masks[scores > 0.3, 0] > 0.5).any(0).numpy()
    assert union.any()
    assert np.array_equal(slot.mask, union)
    assert slot.rejection is None
    (rejected,) = engine.segment(frame, ["red mug"], threshold=1.0).slots
    assert (rejected.rejection, rejected.mask) == (Rejection.MODEL, None)
    (shown,) = engine.segment(frame, ["red mug"], threshold=1.0, mask_rejected=True).slots
    assert shown.rejection is Rejection.MODEL
    assert np.array_equal(shown.mask, union)


def test_expressions_do_not_change_each_other(directory: Path, rgb: np.ndarray) -> None:
    engine = gsva_ros.load(directory)
    frame = engine.encode(rgb)
    answer = engine.segment(frame, ["red mug", "a can", "box"])
    assert (answer.complete, answer.tokens) == (True, 0)
    for slot in answer.slots:
        (alone,) = engine.segment(frame, [slot.expression]).slots
        assert alone.p_seg == pytest.approx(slot.p_seg, abs=1e-6)


def test_pasted_words_are_read_as_typed_ones(directory: Path, rgb: np.ndarray) -> None:
    engine = gsva_ros.load(directory)
    frame = engine.encode(rgb)
    (typed,) = engine.segment(frame, ["red mug"]).slots
    (slot,) = engine.segment(frame, ["red\xa0m\xadug\n"]).slots
    assert (slot.expression, slot.p_seg) == ("red\xa0m\xadug\n", typed.p_seg)


def test_special_tokens_in_expressions_are_plain_text(directory: Path) -> None:
    engine = gsva_ros.load(directory)
    assert isinstance(engine, Sam3Engine)
    start, *word, _ = engine._ids("a<|startoftext|>")
    assert start not in word
    letters = engine._tokenizer.convert_tokens_to_ids(list("startoftex"))
    assert word[3:13] == letters  # after "a", "<" and "|"


def test_what_it_cannot_do_is_said(directory: Path, rgb: np.ndarray) -> None:
    engine = gsva_ros.load(directory)
    frame = engine.encode(rgb)
    with pytest.raises(ExpressionError, match="not free-form text"):
        engine.ask(frame, "hand me the mug")
    with pytest.raises(InputError, match="cannot be quantised to int8; choose float32"):
        gsva_ros.load(directory, dtype="int8")


def test_a_damaged_directory_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "sam3"}')
    with pytest.raises(InputError, match="cannot be loaded as SAM 3"):
        gsva_ros.load(tmp_path)


def altered(directory: Path, to: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> Path:
    shutil.copytree(directory, to)
    state = load_file(to / "model.safetensors")
    change(state)
    save_file(state, to / "model.safetensors", metadata={"format": "pt"})
    return to


BIAS = "mask_decoder.instance_projection.bias"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.pop(BIAS), f"missing {BIAS}"),
        (lambda state: state.update(more=torch.zeros(2)), "unexpected more"),
        (lambda state: state.update({BIAS: torch.zeros(3)}), rf"{BIAS} is \(3,\), not \(32,\)"),
        (lambda state: state[BIAS].fill_(float("nan")), f"{BIAS} holds inf or NaN"),
    ],
)
def test_weights_that_do_not_fit(
    change: Callable[[dict[str, torch.Tensor]], object], said: str, directory: Path, tmp_path: Path
) -> None:
    """transformers itself would go on with random numbers."""
    with pytest.raises(InputError, match=said):
        gsva_ros.load(altered(directory, tmp_path / "model", change))


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("model.safetensors", b"no weights", "cannot be loaded as SAM 3"),
        ("tokenizer.json", b"{", "its tokenizer or preprocessing cannot be read"),
        ("preprocessor_config.json", b"{", "its tokenizer or preprocessing cannot be read"),
        ("preprocessor_config.json", b"{}", "preprocessing: image_mean"),
        (
            "preprocessor_config.json",
            b'{"image_mean": [0.5, 0.5, 0.5], "image_std": [0, 1, 1], "size": {"height": 56}}',
            r"preprocessing: image_std\.0",
        ),
        (
            "preprocessor_config.json",
            b'{"image_mean": [0, 0, 0], "image_std": [1, 1, 1], "size": {"height": 56}}',
            "size has no height and width",
        ),
    ],
)
def test_damaged_files(
    file: str, content: bytes, said: str, directory: Path, tmp_path: Path
) -> None:
    shutil.copytree(directory, tmp_path / "model")
    assert (tmp_path / "model" / file).exists()
    (tmp_path / "model" / file).write_bytes(content)
    with pytest.raises(InputError, match=said) as caught:
        gsva_ros.load(tmp_path / "model")
    assert "\n" not in str(caught.value)


def test_a_tokenizer_of_another_model(directory: Path, tmp_path: Path) -> None:
    """Its words' rows are not in the weights, or are those of other words."""
    shutil.copytree(directory, tmp_path / "model")
    path = tmp_path / "model" / "tokenizer.json"
    path.write_text(path.read_text().replace('"z</w>":', '"zz</w>": 54, "z</w>":'))
    with pytest.raises(
        InputError, match="tokenizer has 55 tokens, but its weights have rows for 54"
    ):
        gsva_ros.load(tmp_path / "model")


def test_preprocessing_in_the_processors_file(directory: Path, tmp_path: Path) -> None:
    """As transformers' Sam3Processor saves it: the image processor's fields inside the whole's."""
    folder = tmp_path / "model"
    shutil.copytree(directory, folder)
    own = folder / "preprocessor_config.json"
    (folder / "processor_config.json").write_text(
        json.dumps(
            {"processor_class": "Sam3Processor", "image_processor": json.loads(own.read_text())}
        )
    )
    own.unlink()
    assert gsva_ros.load(folder)._size == (SIDE, SIDE)


def test_a_directory_with_the_video_tracker(directory: Path, tmp_path: Path) -> None:
    """The detector in it is the model; the tracker is left alone."""
    shutil.copytree(directory, tmp_path / "video")
    own = gsva_ros.load(directory).model
    video = Sam3VideoModel(Sam3VideoConfig(detector_config=own.config.to_dict()))
    video.detector_model.load_state_dict(own.state_dict())
    video.save_pretrained(tmp_path / "video")
    loaded = gsva_ros.load(tmp_path / "video").model.state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in own.state_dict().items())


def test_a_full_device_is_pythons_error(
    directory: Path, rgb: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("out of memory")

    engine = gsva_ros.load(directory)
    frame = engine.encode(rgb)
    monkeypatch.setattr(engine.model, "forward", full)
    with pytest.raises(MemoryError):
        engine.segment(frame, ["mug"])
    monkeypatch.setattr(engine.model, "get_vision_features", full)
    with pytest.raises(MemoryError):
        engine.encode(rgb)


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("detr_decoder.presence_head.layer3", "the model's decision for 'mug'"),
        ("dot_product_scoring.query_proj", "the model's mask for 'mug'"),
        ("mask_decoder.instance_projection", "the model's mask for 'mug'"),
    ],
)
@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_numbers_that_are_none_are_a_fault(
    threshold: float, part: str, said: str, directory: Path, rgb: np.ndarray
) -> None:
    engine = gsva_ros.load(directory)
    frame = engine.encode(rgb)
    engine.model.get_submodule(part).bias.data.fill_(float("nan"))
    (slot,) = engine.segment(frame, ["mug"], threshold=threshold, mask_rejected=True).slots
    assert slot.fault.startswith(said)
    assert (slot.rejection, slot.mask) == (None, None)


def test_half_precision_answers_too(directory: Path, rgb: np.ndarray) -> None:
    engine = gsva_ros.load(directory, dtype="bfloat16")
    exact = gsva_ros.load(directory, dtype="float32")
    (slot,) = engine.segment(engine.encode(rgb), ["red mug"], threshold=0.0).slots
    (reference,) = exact.segment(exact.encode(rgb), ["red mug"], threshold=0.0).slots
    assert slot.p_seg == pytest.approx(reference.p_seg, abs=0.02)


def test_the_evaluation_runs_on_it(directory: Path, tmp_path: Path) -> None:
    demo = Path(__file__).resolve().parents[2] / "demo"
    out = tmp_path / "out.json"
    command = ["eval", "bag", str(demo / "tabletop"), "--truth", str(demo / "tabletop_truth.json")]
    assert cli.main([*command, "--model", str(directory), "--no-blind", "--out", str(out)]) == 0
    slots = [slot for case in json.loads(out.read_text())["records"] for slot in case["slots"]]
    assert len(slots) > 100
    assert all(0.5 < slot["p_seg"] < 1.0 for slot in slots)
