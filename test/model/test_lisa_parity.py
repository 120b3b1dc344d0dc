"""Agreement with LISA's own code on every tensor of its recorded runs.

LISA_GOLDEN names the folder (default: ../shared/golden/lisa_tiny beside this repository). The runs use a
seeded tiny model with random weights. They were recorded with transformers 4.44.2, whose tokenizer does not
strip text next to added tokens, unlike LISA's own 4.31.0 (`test_prompt.py`): where prompts are compared
here, they are built as recorded.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden import LISA as GOLDEN
from golden import needs
from safetensors.torch import load_file

from gsva_ros import cli
from gsva_ros.answer import Rejection
from gsva_ros.engine import Engine
from gsva_ros.errors import InputError
from gsva_ros.eval.paper import paper_slots
from gsva_ros.model.checkpoint import Checkpoint, load_converted, load_official
from gsva_ros.model.clip import ClipPreprocessor
from gsva_ros.model.families import FAMILIES
from gsva_ros.model.official import official_pass
from gsva_ros.model.prompt import Prompt
from gsva_ros.model.sam import SamPreprocessor
from gsva_ros.model.tokenizer import Special
from gsva_ros.model.weights import read_state
from gsva_ros.truth import Referring

pytestmark = needs(GOLDEN)


@cache
def recorded() -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    return json.loads((GOLDEN / "cases.json").read_text()), load_file(GOLDEN / "cases.safetensors")


@cache
def checkpoint() -> Checkpoint:
    return load_official(
        GOLDEN / "llava",
        GOLDEN / "lisa_tiny.bin",
        vision_tower=GOLDEN / "clip-vit-tiny",
        sam=json.loads((GOLDEN / "sam_tiny.json").read_text()),
        conversation=recorded()[0]["conv_type"],
    )


def engine() -> Engine:
    return Engine(checkpoint(), "lisa", torch.device("cpu"), "float32")


@pytest.fixture
def recorded_prompt(monkeypatch: pytest.MonkeyPatch) -> Prompt:
    """Builds prompts as the recording's tokenizer did."""
    assert recorded()[0]["transformers"] == "4.44.2"
    own = checkpoint()
    monkeypatch.setitem(FAMILIES, "lisa", dataclasses.replace(FAMILIES["lisa"], strips=False))
    return Prompt(own.prompt.tokenizer, own.model.config)


def close(ours: torch.Tensor, golden: torch.Tensor, tolerance: float = 1e-4) -> None:
    assert ours.shape == golden.shape
    assert (ours - golden).abs().max() <= tolerance


def test_it_is_found_to_be_lisa() -> None:
    config = checkpoint().model.config
    assert (config.family, config.rej_token_id) == ("lisa", None)
    assert config.seg_token_id == recorded()[0]["seg_token_idx"]


def test_every_recorded_tensor() -> None:
    data, tensors = recorded()
    model, config = checkpoint().model, checkpoint().model.config
    clip, sam = ClipPreprocessor(config.preprocessor), SamPreprocessor(config.sam.image_size)
    assert data["cases"]
    for i, case in enumerate(data["cases"]):
        image = tensors[f"case{i}.image"].numpy()
        assert [list(sam.resized(*image.shape[:2])), list(image.shape[:2])] == [
            case["resize"],
            case["original"],
        ]
        close(clip(image), tensors[f"case{i}.images_clip"])
        close(sam(image), tensors[f"case{i}.images"])
        with torch.inference_mode():
            output = official_pass(
                model,
                model.project(model.encode_clip(clip(image)[None])),
                model.encode_sam(sam(image)[None]),
                tensors[f"case{i}.input_ids"],
                tuple(case["resize"]),
                tuple(case["original"]),
            )
        close(output.logits, tensors[f"case{i}.forced.logits"])
        close(output.hidden_last, tensors[f"case{i}.forced.hidden_last"])
        close(output.low_res_masks, tensors[f"case{i}.forced.low_res"], 1e-5)
        close(output.predicted_iou, tensors[f"case{i}.forced.iou"])
        close(output.pred_masks, tensors[f"case{i}.forced.pred_masks"], 1e-5)


def test_prompts(recorded_prompt: Prompt) -> None:
    data, tensors = recorded()
    for i, case in enumerate(data["cases"]):
        question = case["question"].partition("<im_end>")[2]
        before, _, after = case["answer"].partition("[SEG]")
        turn = recorded_prompt.rounds([(question, [before, Special.SEG, after])])
        assert recorded_prompt.full(turn) == tensors[f"case{i}.input_ids"].flatten().tolist()


def test_what_it_writes_by_itself(recorded_prompt: Prompt) -> None:
    """Twelve tokens of greedy decoding after the question, as the recorded run wrote them."""
    data, tensors = recorded()
    lisa = engine()
    lisa.prompt = recorded_prompt
    for i, case in enumerate(data["cases"]):
        frame = lisa.encode(tensors[f"case{i}.image"].numpy())
        question = case["question"].partition("<im_end>")[2].removeprefix("\n")
        continuation, given, written = (
            lisa._continuation(frame, 99),
            recorded_prompt.ask(question),
            [],
        )
        with torch.inference_mode():
            for _ in range(12):
                hidden = continuation.append(given, [len(given) - 1])[0]
                given = [int(lisa.model.lm_head(hidden).argmax())]
                written += given
        assert written == tensors[f"case{i}.written_ids"].tolist()


def test_the_engine_never_rejects_but_for_an_empty_mask() -> None:
    lisa, image = engine(), recorded()[1]["case0.image"].numpy()
    assert not lisa.can_reject
    frame = lisa.encode(image)
    answer = lisa.segment(frame, ["the red cup", "a zebra", "what holds water?"], threshold=1.0)
    for slot in answer.slots:
        assert slot.p_seg == 1.0
        assert slot.rejection in (None, Rejection.EMPTY_MASK)
    alone = lisa.segment(frame, ["a zebra"]).slots[0]
    assert alone.rejection == answer.slots[1].rejection
    assert np.array_equal(alone.mask, answer.slots[1].mask)
    with pytest.raises(InputError, match="has no joint prompt"):
        lisa.segment(frame, ["the red cup", "a zebra"], joint=True)


def test_its_question_and_answer() -> None:
    prompt = checkpoint().prompt
    for expression, asked in (
        ("the red cup", "What is the red cup in this image? Please output"),
        ("What holds water?", "What holds water? Please output segmentation mask."),
    ):
        turn = prompt.segment_turn([expression], [False])
        text = prompt.tokenizer.decode(turn.ids)
        assert text.startswith(asked)
        assert "[SEG]" in text
        assert len(turn.slots) == 1


def test_published_protocol_asks_one_at_a_time() -> None:
    image = recorded()[1]["case0.image"].numpy()
    empty = np.zeros(image.shape[:2], bool)
    queries = [Referring("the red cup", mask=~empty), Referring("a zebra", mask=empty)]
    both, _ = paper_slots(engine(), image, queries)
    for query, slot in zip(queries, both, strict=True):
        alone = paper_slots(engine(), image, [query])[0][0]
        assert np.array_equal(alone.mask, slot.mask)
        assert slot.rejection in (None, Rejection.EMPTY_MASK)


def test_published_protocol_asks_for_phrases() -> None:
    image = recorded()[1]["case0.image"].numpy()
    mask = np.ones(image.shape[:2], bool)
    queries = [
        Referring("is she the left one?", mask=mask, region=region)
        for region in ("", "phrase", "sentence")
    ]
    plain, phrase, sentence = (s.predicted_iou for s in paper_slots(engine(), image, queries)[0])
    assert plain == phrase != sentence


def test_convert_and_load(tmp_path: Path) -> None:
    options = ["--llava", str(GOLDEN / "llava"), "--weights", str(GOLDEN / "lisa_tiny.bin")]
    options += [
        "--vision-tower",
        str(GOLDEN / "clip-vit-tiny"),
        "--sam",
        str(GOLDEN / "sam_tiny.json"),
    ]
    assert cli.main(["convert", *options, str(tmp_path)]) == 0
    assert load_converted(tmp_path).model.config == checkpoint().model.config


def hugging_face(folder: Path, added: dict[str, int], lora: bool) -> dict[str, torch.Tensor]:
    """LISA as its authors publish it: tokenizer and shards in one folder, no vision tower.

    Returns:
        The weights that it stands for.
    """
    shutil.copytree(GOLDEN / "llava", folder, copy_function=shutil.copyfile)
    rows = max(added.values()) + 1
    files = {
        name: json.loads((folder / name).read_text())
        for name in ("config.json", "tokenizer_config.json")
    }
    del files["tokenizer_config.json"]["added_tokens_decoder"]  # transformers 4.31.0 writes none
    files["config.json"]["vocab_size"] = rows
    for name, data in (files | {"added_tokens.json": added}).items():
        (folder / name).write_text(json.dumps(data))
    state = {k: v.clone() for k, v in read_state(GOLDEN / "lisa_tiny.bin").items()}
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        state[name] = torch.cat([state[name], state[name][: rows - len(state[name])]])
    saved = {k: v for k, v in state.items() if not k.startswith("model.vision_tower.")}
    if lora:
        target = "model.layers.0.self_attn.q_proj"
        a, b = torch.randn(4, 64), torch.randn(64, 4)
        saved = {f"base_model.model.{name}": value for name, value in saved.items()}
        saved[f"base_model.model.{target}.lora_A.default.weight"] = a
        saved[f"base_model.model.{target}.lora_B.default.weight"] = b
        state[f"{target}.weight"] = state[f"{target}.weight"] + 4 * (b @ a)
    names = sorted(saved)
    places = {}
    for number in (1, 2):
        file = f"pytorch_model-0000{number}-of-00002.bin"
        part = names[number - 1 :: 2]
        torch.save({name: saved[name] for name in part}, folder / file)
        places |= dict.fromkeys(part, file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    return state


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize(
    "added",
    [
        {"[SEG]": 600, "<im_start>": 601, "<im_end>": 602},
        # Behind LLaVA's own tokens there are as many rows as GSVA's four would make.
        {"<im_patch>": 600, "<im_start>": 601, "<im_end>": 602, "[SEG]": 603},
    ],
)
def test_a_hugging_face_directory(added: dict[str, int], lora: bool, tmp_path: Path) -> None:
    folder, out = tmp_path / "lisa", tmp_path / "out"
    expected = hugging_face(folder, added, lora)
    command = ["convert", "--llava", str(folder), "--weights", str(folder), str(out)]
    command += ["--vision-tower", str(GOLDEN / "clip-vit-tiny")]
    assert cli.main([*command, "--sam", str(GOLDEN / "sam_tiny.json")]) == 0
    loaded = load_converted(out)
    config, state = loaded.model.config, loaded.model.state_dict()
    assert (config.family, config.seg_token_id) == ("lisa", added["[SEG]"])
    assert config.im_start_token_id == added["<im_start>"]
    for name, value in state.items():
        assert torch.allclose(value, expected[name], atol=1e-6), name
