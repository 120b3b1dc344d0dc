"""Configurations and weights that no model can have: refused at load, with file, key and reason."""

from __future__ import annotations

import copy
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import tiny_gsva
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD, PILImageResampling

import gsva_ros
from gsva_ros.errors import InputError
from gsva_ros.model.bundled import model_directory
from gsva_ros.model.checkpoint import load_converted
from gsva_ros.model.clip import ClipPreprocessor
from gsva_ros.model.config import CONFIG_NAME, PREPROCESSOR_NAME, GSVAConfig
from gsva_ros.model.schema import Preprocessor, parameters


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gsva(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "model")
    return tmp_path / "model"


def changed(folder: Path, file: str, **values: object) -> None:
    path = folder / file
    data = json.loads(path.read_text())
    for key, value in values.items():
        part, *rest = key.split("__")
        if rest:
            data[part][rest[0]] = value
        else:
            data[part] = value
    path.write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"rejection_threshold": float("nan")}, "rejection_threshold"),
        ({"rejection_threshold": 1.01}, "rejection_threshold"),
        ({"rejection_threshold": -0.5}, "rejection_threshold"),
        ({"rejection_threshold": "high"}, "rejection_threshold"),
        ({"part_confidence": 1.01}, "part_confidence"),
        ({"seg_token_id": 10**9}, "seg_token_id"),
        ({"select_layer": 99}, "select_layer"),
        ({"llm__num_hidden_layers": 10**7}, r"llm\.num_hidden_layers"),
        ({"llm__num_attention_heads": 3}, "num_attention_heads"),
        ({"llm__num_attention_heads": 64}, "num_attention_heads"),
        ({"llm__num_key_value_heads": 3}, "num_key_value_heads"),
        ({"clip__num_attention_heads": 5}, r"clip: .*num_attention_heads \(5\)"),
        ({"clip__image_size": 4}, r"image_size \(4\) is less than patch_size \(8\)"),
        ({"refiner": [4, 0, 8]}, r"refiner\.1"),
        ({"refiner": [4, 6, 1001]}, r"refiner\.2"),
        ({"refiner": [4, 6]}, "refiner"),
        ({"projector": "identity"}, r"projector: .*linear\|mlp"),
        ({"im_end_token_id": 10**6, "use_im_start_end": True}, "im_end_token_id is 1000000"),
        ({"llm__hidden_size": 10**6, "llm__intermediate_size": 10**6}, "GiB"),
        ({"sam__global_attn_indexes": [99]}, "global_attn_indexes"),
        ({"sam__image_size": 0}, r"sam\.image_size"),
        ({"clip__patch_size": None}, r"clip\.patch_size"),
        ({"shoe_size": 43}, "shoe_size"),
        ({"conversation": "vicuna"}, "'vicuna' is unknown; there are llava_v1"),
    ],
)
def test_configurations_that_cannot_be(folder: Path, values: dict, named: str) -> None:
    changed(folder, "config.json", **values)
    with pytest.raises(InputError, match=named) as caught:
        load_converted(folder)
    assert str(folder / "config.json") in str(caught.value)


def test_tokens_around_the_image_are_of_no_matter_where_there_are_none(folder: Path) -> None:
    changed(folder, "config.json", im_start_token_id=10**6, im_end_token_id=10**6)
    load_converted(folder)


def test_the_memory_that_a_model_takes_is_never_overrated(folder: Path) -> None:
    model = load_converted(folder).model
    config = model.config
    weights = sum(p.numel() for p in model.parameters())
    assert 0.4 * weights < parameters(config.llm, config.clip, config.sam) <= weights


def test_special_tokens_of_one_id(folder: Path) -> None:
    ids = json.loads((folder / "config.json").read_text())
    changed(folder, "config.json", rej_token_id=ids["seg_token_id"])
    with pytest.raises(InputError, match="share an id"):
        load_converted(folder)


@pytest.mark.parametrize("name", ["seg_token_id", "rej_token_id", "im_start_token_id"])
def test_special_tokens_that_are_pieces_of_the_tokenizer(folder: Path, name: str) -> None:
    """Those around the image only where they are used."""
    changed(folder, "config.json", **{name: 7})
    if name == "im_start_token_id":
        load_converted(folder)
        changed(folder, "config.json", use_im_start_end=True)
    with pytest.raises(InputError, match=r"begin at 7: the weights were trained with another"):
        load_converted(folder)


def test_preprocessing_in_the_short_form(folder: Path) -> None:
    """As in OpenAI's own CLIP folders, from before transformers wrote every field."""
    path = folder / "preprocessor_config.json"
    short = {"size": 32, "crop_size": 32, "do_center_crop": True, "feature_extractor_type": "x"}
    path.write_text(json.dumps(short | {"resample": 3, "image_mean": None}))
    config = load_converted(folder).model.config
    rgb = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    whole = Preprocessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    assert torch.equal(ClipPreprocessor(config.preprocessor)(rgb), ClipPreprocessor(whole)(rgb))


def test_what_openai_leaves_out_of_its_preprocessing_is_its_own() -> None:
    fields = Preprocessor()
    assert (fields.image_mean, fields.image_std) == (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)
    assert fields.resample == PILImageResampling.BICUBIC


def test_a_preprocessor_that_says_nothing_makes_of_white_what_openais_does() -> None:
    white = ClipPreprocessor(Preprocessor())(np.full((224, 224, 3), 255, np.uint8))
    wanted = (1 - np.array(OPENAI_CLIP_MEAN)) / OPENAI_CLIP_STD
    assert white.amin((1, 2)).tolist() == pytest.approx(wanted)
    assert white.amax((1, 2)).tolist() == pytest.approx(wanted)


def test_what_a_configuration_leaves_out_is_as_in_llava_and_segment_anything(folder: Path) -> None:
    path = folder / "config.json"
    data = json.loads(path.read_text())
    del data["select_layer"], data["projector"], data["sam"]["decoder_heads"]
    path.write_text(json.dumps(data))
    config = load_converted(folder).model.config
    assert (config.select_layer, config.projector, config.sam.decoder_heads) == (-2, "linear", 8)


def test_a_configuration_is_saved_as_it_was_read(tmp_path: Path) -> None:
    bundled = model_directory("gsva-mini")
    GSVAConfig.load(bundled).save(tmp_path)
    for name in (CONFIG_NAME, PREPROCESSOR_NAME):
        assert (tmp_path / name).read_bytes() == (bundled / name).read_bytes()


def test_what_a_part_leaves_out_stays_out_and_a_whole_number_stays_one(
    folder: Path, tmp_path: Path
) -> None:
    changed(folder, CONFIG_NAME, slot_bias=1, llm__rope_theta=10000)
    changed(folder, PREPROCESSOR_NAME, image_mean=[0, 0, 1], foreign=[1])
    GSVAConfig.load(folder).save(tmp_path)
    for name in (CONFIG_NAME, PREPROCESSOR_NAME):
        read, saved = (json.loads((place / name).read_text()) for place in (folder, tmp_path))
        assert json.dumps(saved, sort_keys=True) == json.dumps(read, sort_keys=True)


def test_a_model_that_nobody_calibrated_decides_by_its_scores_alone(folder: Path) -> None:
    path = folder / "config.json"
    data = json.loads(path.read_text())
    rule = ("slot_temperature", "slot_bias", "rejection_threshold", "part_confidence")
    path.write_text(json.dumps({k: v for k, v in data.items() if k not in rule}))
    config = load_converted(folder).model.config
    assert [getattr(config, name) for name in rule] == [1.0, 0.0, 0.5, 0.0]


@pytest.mark.parametrize("mean", [[0.5], [0.5, 0.5, float("nan")], "grey", [0.5] * 4])
def test_preprocessing_that_cannot_be(folder: Path, mean: object) -> None:
    changed(folder, "preprocessor_config.json", image_mean=mean)
    with pytest.raises(InputError, match=r"preprocessor_config\.json.*image_mean"):
        load_converted(folder)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"size": {"width": 32}}, "size has no height and width"),
        ({"do_center_crop": True, "crop_size": {"shortest_edge": 32}}, "crop_size has no height"),
        ({"do_center_crop": True, "crop_size": 40}, r"crop_size \[40, 40\] is larger"),
        ({"do_center_crop": True, "crop_size": "32"}, "crop_size"),
        ({"do_center_crop": True, "crop_size": 24}, "makes pictures 24x24"),
        ({"do_center_crop": True, "crop_size": 40, "do_resize": False}, "makes pictures 40x40"),
        ({"size": 32}, "makes pictures as the frame is"),
        ({"do_resize": False}, "makes pictures as the frame is"),
        ({"size": {"height": 40, "width": 32}}, "makes pictures 40x32"),
    ],
)
def test_preprocessing_for_another_vision_tower(folder: Path, fields: dict, said: str) -> None:
    """Told when the model is loaded, and not by each of its frames."""
    changed(folder, "preprocessor_config.json", **fields)
    with pytest.raises(InputError, match=rf"preprocessor.*{said}"):
        load_converted(folder)


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("model.visual_model.mask_decoder.iou_token.weight", float("nan"), "inf or NaN"),
        ("model.embed_tokens.weight", float("inf"), "inf or NaN"),
        ("lm_head.weight", "complex", "complex64"),
        ("lm_head.weight", "int", "int32"),
    ],
)
def test_weights_that_cannot_be(folder: Path, name: str, value: object, complaint: str) -> None:
    path = folder / "model.safetensors"
    state = load_file(path)
    if isinstance(value, str):
        kind = {"complex": torch.complex64, "int": torch.int32}[value]
        state[name] = state[name].to(kind)
    else:
        state[name].flatten()[1] = value
    save_file(state, path)
    with pytest.raises(InputError, match=rf"model\.safetensors.*{name}.*{complaint}"):
        load_converted(folder)


def test_random_nonsense_is_refused_in_one_line(whole: Path, tmp_path: Path) -> None:
    """Any key with any value: it loads and answers, or one line says why not."""
    rng = random.Random(0)
    nonsense = [None, -1, 0, 3, 7.5, 10**12, float("nan"), "", "x", [], {}, [1], True]
    folder = tmp_path / "model"
    shutil.copytree(whole, folder)
    files = {
        name: json.loads((folder / name).read_text())
        for name in ("config.json", "preprocessor_config.json")
    }
    refused = 0
    for _ in range(250):
        name = rng.choice([*files, "config.json"])
        data = copy.deepcopy(files[name])
        part = rng.choice([data, *(v for v in data.values() if isinstance(v, dict))])
        part[rng.choice(list(part))] = rng.choice(nonsense)
        (folder / name).write_text(json.dumps(data))
        try:
            gsva_ros.load(folder, device="cpu")
        except InputError as error:
            refused += 1
            assert str(folder) in str(error), error  # noqa: PT017
            assert "\n" not in str(error)  # noqa: PT017
        (folder / name).write_text(json.dumps(files[name]))
    assert refused > 150


def test_files_that_cannot_be_read_are_told(folder: Path) -> None:
    path = folder / "preprocessor_config.json"
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"preprocessor_config\.json: no such file: copy"):
        load_converted(folder)
    path.mkdir()
    with pytest.raises(InputError, match=r"preprocessor_config\.json: cannot be read as JSON"):
        load_converted(folder)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_truncated_files(folder: Path, name: str) -> None:
    path = folder / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        load_converted(folder)
