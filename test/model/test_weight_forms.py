"""Official weights in every form that people have them: the same model, or what to do in one line."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden import OFFICIAL as GOLDEN
from golden import needs
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tiny import tiny_checkpoint, tiny_gsva
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

import gsva_ros
from gsva_ros import cli
from gsva_ros.errors import InputError
from gsva_ros.eval.calibrate import read_calibration
from gsva_ros.model import weights as weights_module
from gsva_ros.model.checkpoint import (
    Checkpoint,
    convert,
    load_converted,
    load_official,
    save_pretrained,
    unfit,
    write_model,
)
from gsva_ros.model.config import GSVAConfig
from gsva_ros.model.official_parts import official_config
from gsva_ros.model.schema import Sam
from gsva_ros.model.weights import CheckpointError, merge_lora, read_state, sam_sizes

TOWER = "model.vision_tower."
VOCABULARY = ("lm_head.weight", "model.embed_tokens.weight")
#: The recorded model's weights, and the parts that it was made of.
WEIGHTS = GOLDEN / "gsva_tiny.bin"
LLAVA = GOLDEN / "llava"
PARTS = {"vision_tower": GOLDEN / "clip-vit-tiny", "sam": {"decoder_heads": 4}}

pytestmark = needs(GOLDEN)

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    return {k: v.clone() for k, v in read_state(WEIGHTS).items()}


def official(weights: Path = WEIGHTS, llava: Path = LLAVA, **more: Any) -> Checkpoint:
    return load_official(llava, weights, **PARTS | more)


def load(weights: Path, **more: Any) -> State:
    return official(weights, **more).model.state_dict()


def config_of(llava: Path, weights: Path = WEIGHTS) -> GSVAConfig:
    return official(weights, llava).model.config


def torch_file(state: State, to: Path) -> Path:
    torch.save(state, to / "gsva.bin")
    return to / "gsva.bin"


def legacy(state: State, to: Path) -> Path:
    torch.save(state, to / "gsva.pth", _use_new_zipfile_serialization=False)
    return to / "gsva.pth"


def safe(state: State, to: Path) -> Path:
    save_file(state, to / "model.safetensors")
    return to


def only_file(state: State, to: Path) -> Path:
    torch.save(state, to / "gsva-7b-ft-gres.pt")
    return to


def safe_renamed(state: State, to: Path) -> Path:
    save_file(state, to / "gsva.bin")
    return to / "gsva.bin"


def shards(suffix: str, stem: str, write: Callable[[State, Path], None]) -> Any:
    def make(state: State, to: Path) -> Path:
        names = sorted(state)
        parts = [names[k::3] for k in range(3)]
        places = {}
        for number, part in enumerate(parts, start=1):
            file = f"{stem}-{number:05}-of-00003.{suffix}"
            write({name: state[name] for name in part}, to / file)
            places |= dict.fromkeys(part, file)
        (to / f"{stem}.{suffix}.index.json").write_text(json.dumps({"weight_map": places}))
        return to

    return make


def folder_as_a_file(state: State, to: Path) -> Path:
    (to / "gsva.bin").mkdir()
    shards("bin", "pytorch_model", torch.save)(state, to / "gsva.bin")
    return to


def renamed(change: Callable[[str], str]) -> Any:
    return lambda state, to: torch_file({change(k): v for k, v in state.items()}, to)


def nested(state: State, to: Path) -> Path:
    torch.save({"module": state, "global_step": 3}, to / "gsva.pt")
    return to / "gsva.pt"


def base_layer(name: str) -> str:
    name = name.replace("q_proj.weight", "q_proj.base_layer.weight")
    return f"base_model.model.{name}" if "model.layers" in name else name


FORMS = {
    "torch file": torch_file,
    "before the zip format": legacy,
    "folder": safe,
    "safetensors named as a torch file": safe_renamed,
    "bin shards": shards("bin", "pytorch_model", torch.save),
    "safetensors shards": shards("safetensors", "model", save_file),
    "folder with a file of any name": only_file,
    "folder with a folder named as a file": folder_as_a_file,
    "DataParallel": renamed(lambda name: f"module.{name}"),
    "compiled": renamed(lambda name: f"_orig_mod.{name}"),
    "peft's newer names": renamed(base_layer),
    "nested": nested,
}


@pytest.mark.parametrize("form", FORMS)
def test_the_same_model_whatever_the_form(form: str, state: State, tmp_path: Path) -> None:
    ours = load(FORMS[form](state, tmp_path))
    plain = load(WEIGHTS)
    assert ours.keys() == plain.keys()
    assert all(torch.equal(value, ours[name]) for name, value in plain.items())


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_a_whole_file_is_read_rather_than_an_index_beside_it(
    file: str, state: State, tmp_path: Path
) -> None:
    """As transformers does; the index may be left over from a download."""
    save_file(state, tmp_path / file)
    (tmp_path / f"{file}.index.json").write_text(json.dumps({"weight_map": {"x": "lost.bin"}}))
    assert read_state(tmp_path).keys() == state.keys()


def test_only_what_is_read_identifies_the_weights(state: State, tmp_path: Path) -> None:
    """Adapters name their base by it, which a README that comes or goes does not change."""
    shards("bin", "pytorch_model", torch.save)(state, tmp_path)
    before = official(tmp_path).weights_hash
    (tmp_path / "README.md").write_text("GSVA")
    assert official(tmp_path).weights_hash == before
    assert official(tmp_path / "pytorch_model.bin.index.json").weights_hash == before
    name = sorted(state)[1]
    shards("bin", "pytorch_model", torch.save)(state | {name: state[name] + 1}, tmp_path)
    assert official(tmp_path).weights_hash != before


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype, state: State, tmp_path: Path) -> None:
    ours = load(torch_file({k: v.to(dtype) for k, v in state.items()}, tmp_path))
    assert {v.dtype for v in ours.values() if v.is_floating_point()} == {dtype}
    assert all(torch.equal(ours[name], state[name].to(dtype)) for name in ours)
    assert not unfit(torch.full((1000,), 100.0, dtype=dtype)), "their sum may be beyond float16"


def test_what_older_programs_saved_beside_weights_is_passed_over(
    state: State, tmp_path: Path
) -> None:
    old = {
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8),
        f"{TOWER}vision_tower.vision_model.embeddings.position_ids": torch.arange(5)[None],
    }
    assert load(torch_file(state | old, tmp_path)).keys() == load(WEIGHTS).keys()


def test_tied_weights_become_two(state: State, tmp_path: Path) -> None:
    words = "model.embed_tokens.weight"
    tied = torch_file(state | {"lm_head.weight": state[words]}, tmp_path)
    checkpoint = official(tied)
    save_pretrained(checkpoint.model, checkpoint.prompt.tokenizer, tmp_path / "out")
    loaded = load_converted(tmp_path / "out").model
    assert torch.equal(loaded.lm_head.weight, state[words])
    assert torch.equal(loaded.model.embed_tokens.weight, state[words])


def test_a_state_without_vision_tower_takes_it_from_clip(state: State, tmp_path: Path) -> None:
    without = {k: v for k, v in state.items() if not k.startswith(TOWER)}
    ours = load(torch_file(without, tmp_path))
    tower = load_file(GOLDEN / "clip-vit-tiny/model.safetensors")
    assert any(k.startswith("vision_model.") for k in tower)
    for name, value in tower.items():
        if name.startswith("vision_model.") and not name.endswith("position_ids"):
            assert torch.equal(ours[f"{TOWER}vision_tower.{name}"], value), name
    bare = tmp_path / "clip"
    bare.mkdir()
    for name in ("config.json", "preprocessor_config.json"):
        shutil.copy(GOLDEN / "clip-vit-tiny" / name, bare)
    with pytest.raises(FileNotFoundError, match="holds no weights"):
        load(tmp_path / "gsva.bin", vision_tower=bare)


@pytest.mark.parametrize(
    ("embed", "depth", "heads", "windows"), [(48, 4, 4, [1, 3]), (32, 3, 2, [2]), (64, 2, 8, [0])]
)
def test_sam_of_any_size(embed: int, depth: int, heads: int, windows: list[int]) -> None:
    from gsva_ros.model.sam import VisualModel

    sizes = {
        "image_size": 128,
        "patch_size": 16,
        "embed_dim": embed,
        "depth": depth,
        "num_heads": heads,
        "global_attn_indexes": windows,
        "window_size": 5,
        "prompt_embed_dim": 32,
        "decoder_mlp_dim": 64,
        "mask_in_chans": 16,
        "mlp_ratio": 4,
    }
    state = VisualModel(Sam(**sizes)).state_dict()
    read = sam_sizes({f"model.visual_model.{name}": value for name, value in state.items()})
    assert sizes.items() <= read.items()


@pytest.mark.parametrize(
    ("name", "embed", "depth", "heads", "windows"),
    [
        ("ViT-B", 768, 12, 12, [2, 5, 8, 11]),
        ("ViT-L", 1024, 24, 16, [5, 11, 17, 23]),
        ("ViT-H", 1280, 32, 16, [7, 15, 23, 31]),
    ],
)
def test_the_published_sams(
    name: str, embed: int, depth: int, heads: int, windows: list[int]
) -> None:
    """Sizes as segment-anything builds them; shapes alone, without memory for the weights."""
    from gsva_ros.model.sam import VisualModel

    sizes = {"image_size": 1024, "patch_size": 16, "window_size": 14}
    sizes |= {"embed_dim": embed, "depth": depth, "num_heads": heads}
    sizes |= {"global_attn_indexes": windows}
    with torch.device("meta"):
        state = VisualModel(Sam(**sizes)).state_dict()
    read = sam_sizes({f"model.visual_model.{key}": value for key, value in state.items()})
    found = Sam(**read)
    assert found.decoder_heads == 8  # no shape shows it
    assert found == Sam(**sizes, iou_head_hidden_dim=256), name


def deepspeed(to: Path, _: State) -> Path:
    (to / "global_step5").mkdir()
    (to / "global_step5/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt").write_bytes(b"x")
    (to / "latest").write_text("global_step5")
    return to


def pointer(to: Path, _: State) -> Path:
    (to / "model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:1\n"
    )
    return to


def cut(make: Callable[[State, Path], Path], share: float) -> Callable[[Path, State], Path]:
    """A download that ended early."""

    def of(to: Path, state: State) -> Path:
        path = make(state, to)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(share * len(whole))])
        return path

    return of


def torch_file_renamed(to: Path, state: State) -> Path:
    return torch_file(state, to).rename(to / "gsva.safetensors")


def archive(to: Path, _: State) -> Path:
    """As clouds pack a folder for download."""
    with zipfile.ZipFile(to / "gsva.zip", "w") as packed:
        packed.writestr("gsva/gsva-7b-ft-gres.bin", b"x")
    return to / "gsva.zip"


def shard_lost(to: Path, state: State) -> Path:
    FORMS["bin shards"](state, to)
    (to / "pytorch_model-00002-of-00003.bin").unlink()
    return to


def shards_alone(to: Path, state: State) -> Path:
    FORMS["bin shards"](state, to)
    (to / "pytorch_model.bin.index.json").unlink()
    return to


def nothing(to: Path, _: State) -> Path:
    return to


def numbers(to: Path, _: State) -> Path:
    torch.save({"epoch": 3}, to / "gsva.bin")
    return to / "gsva.bin"


def half_a_factor(to: Path, state: State) -> Path:
    name = "model.layers.0.self_attn.q_proj.lora_A.weight"
    return torch_file(state | {name: torch.zeros(2, 64)}, to)


def lora(**shapes: tuple[int, ...]) -> Callable[[Path, State], Path]:
    """Whole weights with tensors of these shapes beside the first layer's q_proj; "__" is a dot."""
    module = "model.layers.0.self_attn.q_proj"

    def make(to: Path, state: State) -> Path:
        more = {f"{module}.{k.replace('__', '.')}": torch.zeros(v) for k, v in shapes.items()}
        return torch_file(state | more, to)

    return make


def adapter_beside_whole(to: Path, state: State) -> Path:
    save_file({"base_model.model.lm_head.weight": torch.zeros(1)}, to / "adapter_model.safetensors")
    (to / "adapter_config.json").write_text("{}")
    return safe(state, to)


def without_sam(to: Path, state: State) -> Path:
    return torch_file({k: v for k, v in state.items() if "visual_model" not in k}, to)


def factors_alone(to: Path, _: State) -> Path:
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    factors = {f"{module}.lora_A.weight": torch.zeros(2, 64)}
    return torch_file(factors | {f"{module}.lora_B.weight": torch.zeros(64, 2)}, to)


def rows(count: int) -> Callable[[Path, State], Path]:
    """A vocabulary of this size; the recorded model's has 604 rows."""
    return lambda to, state: torch_file(
        state | {k: state[k][:1].repeat(count, 1) for k in VOCABULARY}, to
    )


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (deepspeed, "zero_to_fp32.py"),
        (pointer, "git lfs pull"),
        (cut(torch_file, 0.5), r"gsva.bin cannot .* central directory; if its download was inter"),
        (cut(legacy, 0.5), r"gsva.pth cannot .*; if its download was interrupted, repeat it"),
        (
            cut(safe_renamed, 0.5),
            r"gsva.bin cannot .* not fully covered; if its download was inter",
        ),
        (cut(torch_file, 0.0), r"gsva.bin cannot .* ends too early; if its download was inter"),
        (torch_file_renamed, r"gsva.safetensors cannot .* torch file: rename it to .bin"),
        (archive, r"gsva.zip cannot .* archive of other files: unpack it"),
        (shard_lost, "lacks 1 of 3 shards: pytorch_model-00002-of-00003.bin"),
        (shards_alone, r"holds 3 files of weights \(pytorch_model-00001-of-.*put their index"),
        (nothing, "holds no weights: none of model.safetensors, model.safetensors.index"),
        (numbers, "is not a state dict: a dictionary of names and tensors"),
        (half_a_factor, "factor A but not B"),
        (lora(lora_B__default__weight=(64, 2)), "factor B but not A"),
        (
            lora(lora_A__default__weight=(2, 64), lora_B__default__weight=(64, 3)),
            r"A \(2, 64\) and B \(64, 3\) do not fit model.layers.0.self_attn.q_proj.weight",
        ),
        (lora(lora_embedding_A__default=(2, 64)), "lora_embedding_A.default is of a LoRA variant"),
        (lora(lora_magnitude_vector=(64,)), "lora_magnitude_vector is of a LoRA variant"),
        (
            lora(lora_A__default__weight=(0, 64), lora_B__default__weight=(64, 0)),
            r"A \(0, 64\) and B \(64, 0\) do not fit",
        ),
        (lora(lora_B__default__bias=(64,)), "lora_B.default.bias is of a LoRA variant"),
        (
            lora(
                lora_A__default__weight=(2, 64),
                lora_B__default__weight=(64, 2),
                lora_A__other__weight=(2, 64),
                lora_B__other__weight=(64, 2),
            ),
            r"2 adapters \(default, other\)",
        ),
        (without_sam, r"gsva\.bin: .* no model\.visual_model.*; give GSVA's whole state dict"),
        (
            factors_alone,
            r"gsva\.bin: LoRA factors for .*: give the whole state dict, or the adapter's",
        ),
        (adapter_beside_whole, "holds both model.safetensors and adapter_model.safetensors"),
        (
            rows(606),
            "606 embedding rows, but the tokenizer in .* makes 604 as gsva, 603 as lisa",
        ),
    ],
)
def test_what_cannot_be_read_says_what_to_do(
    make: Callable[[Path, State], Path], said: str, state: State, tmp_path: Path
) -> None:
    with pytest.raises((CheckpointError, FileNotFoundError), match=said):
        load(make(tmp_path, state))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("model.visual_model.image_encoder.pos_embed", (0,)),
        ("model.visual_model.image_encoder.patch_embed.proj.weight", ()),
        ("model.visual_model.image_encoder.blocks.0.attn.rel_pos_h", None),
        ("model.visual_model.image_encoder.blocks.0.attn.rel_pos_h", (0, 12)),
        ("model.visual_model.image_encoder.blocks.1.attn.rel_pos_h", (12,)),
        ("model.visual_model.mask_decoder.iou_prediction_head.layers.0.weight", (1,)),
        ("model.embed_tokens.weight", ()),
        ("model.layers.0.self_attn.q_proj.weight", (0,)),
    ],
)
def test_a_weight_without_its_shape_is_named(
    name: str, shape: tuple[int, ...] | None, state: State, tmp_path: Path
) -> None:
    """As a process of several leaves a weight that it does not hold, or files that are cut."""
    changed = {k: v for k, v in state.items() if k != name}
    if shape is not None:
        changed[name] = torch.zeros(shape)
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        load(torch_file(changed, tmp_path))


def test_a_checkpoint_without_rejection_is_never_read_as_gsva(state: State, tmp_path: Path) -> None:
    """One row less is LISA's vocabulary: [REJ] must not become <im_start>'s row."""
    config = config_of(LLAVA, rows(603)(tmp_path, state))
    assert (config.family, config.rej_token_id, config.im_start_token_id) == ("lisa", None, 601)


@pytest.fixture
def llava(tmp_path: Path) -> Path:
    """The recorded model's LLaVA directory, to be changed."""
    shutil.copytree(LLAVA, tmp_path / "llava")
    for path in (tmp_path / "llava").iterdir():
        path.chmod(0o644)
    return tmp_path / "llava"


ADDED = {"[REJ]": 600, "[SEG]": 601, "<im_start>": 602, "<im_end>": 603}
ADDED_FILES = {
    "added_tokens.json": ADDED,
    "tokenizer_config.json": {
        "added_tokens_decoder": {str(i): {"content": name} for name, i in ADDED.items()}
    },
    "tokenizer.json": {"added_tokens": [{"id": i, "content": n} for n, i in ADDED.items()]},
}


@pytest.mark.parametrize("where", ADDED_FILES)
def test_added_tokens_decide_the_ids(where: str, llava: Path) -> None:
    (llava / "tokenizer_config.json").unlink()
    (llava / where).write_text(json.dumps(ADDED_FILES[where]))
    config = config_of(llava)
    assert (config.rej_token_id, config.seg_token_id) == (600, 601)


def test_older_files_that_disagree_about_an_id_are_refused(llava: Path) -> None:
    (llava / "tokenizer_config.json").unlink()
    (llava / "tokenizer.json").write_text(json.dumps(ADDED_FILES["tokenizer.json"]))
    swapped = ADDED | {"[SEG]": 600, "[REJ]": 601}
    (llava / "added_tokens.json").write_text(json.dumps(swapped))
    with pytest.raises(CheckpointError, match=r"tokenizer\.json gives \[REJ\] the id 600.* 601"):
        config_of(llava)


@pytest.mark.parametrize("stale", ["added_tokens.json", "tokenizer.json"])
def test_older_files_beside_a_list_of_added_tokens_are_not_read(stale: str, llava: Path) -> None:
    """As transformers does: <pad> would make the rows of LISA."""
    listed = {
        "added_tokens.json": {"<pad>": 600},
        "tokenizer.json": {"added_tokens": [{"id": 600, "content": "<pad>"}]},
    }
    (llava / stale).write_text(json.dumps(listed[stale]))
    config = config_of(llava)
    assert (config.family, config.seg_token_id, config.rej_token_id) == ("gsva", 600, 601)


@pytest.mark.parametrize("file", ["tokenizer_config.json", "special_tokens_map.json"])
@pytest.mark.parametrize("token", ["[PAD]", {"content": "[PAD]", "lstrip": False}])
def test_a_special_token_without_an_id_is_the_first_that_is_appended(
    file: str, token: object, state: State, llava: Path, tmp_path: Path
) -> None:
    (llava / "tokenizer_config.json").unlink()
    (llava / file).write_text(json.dumps({"unk_token": "<unk>", "pad_token": token}))
    config = config_of(llava, rows(605)(tmp_path, state))
    assert (config.family, config.seg_token_id, config.rej_token_id) == ("gsva", 601, 602)


@pytest.mark.parametrize(("count", "family"), [(604, "lisa"), (605, "gsva")])
def test_added_tokens_that_no_file_lists_are_missed(
    count: int, family: str, state: State, llava: Path, tmp_path: Path
) -> None:
    """A LLaVA with <im_patch>, <im_start> and <im_end>: LISA's rows would be GSVA's on one without."""
    rewritten(llava, vocab_size=603)
    (llava / "tokenizer_config.json").unlink()
    weights = rows(count)(tmp_path, state)
    with pytest.raises(CheckpointError, match=r"vocab_size 603, .* 600 tokens: its added_tokens"):
        config_of(llava, weights)
    added = {"<im_patch>": 600, "<im_start>": 601, "<im_end>": 602}
    (llava / "added_tokens.json").write_text(json.dumps(added))
    config = config_of(llava, weights)
    assert config.family == family
    assert (config.seg_token_id, config.im_start_token_id) == (603, 601)


def test_a_llava_with_padded_embeddings_loads(llava: Path) -> None:
    """Training cuts them to the tokenizer's size."""
    assert config_of(rewritten(llava, vocab_size=640)).family == "gsva"


@pytest.mark.parametrize("flag", ["lstrip", "rstrip"])
@pytest.mark.parametrize("family", ["gsva", "lisa"])
def test_a_token_that_drops_the_spaces_next_to_it_is_refused_where_they_are_kept(
    family: str, flag: str, state: State, llava: Path, tmp_path: Path
) -> None:
    listed = {"600": {"content": "<unused>", flag: True}, "601": {"content": "[SEG]", flag: True}}
    path = llava / "tokenizer_config.json"
    path.write_text(json.dumps({"added_tokens_decoder": listed}))
    weights = rows({"gsva": 605, "lisa": 604}[family])(tmp_path, state)
    if family == "lisa":
        assert config_of(llava, weights).family == family
        return
    with pytest.raises(CheckpointError, match=rf"{path}: {flag} of \[SEG\] is true; only false is"):
        config_of(llava, weights)


@pytest.mark.parametrize(("legacy", "times"), [(False, 1), (True, 0), (None, 0)])
def test_a_tokenizer_that_is_not_legacy_is_warned_of(
    legacy: bool | None, times: int, llava: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = llava / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"legacy": legacy}))
    config_of(llava)
    assert caplog.text.count(f'{path} has "legacy": false; it is read as true') == times


def rewritten(llava: Path, **fields: Any) -> Path:
    path = llava / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return llava


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("rope_scaling", {"type": "linear", "factor": 2.0}, "rope_scaling is 'linear'"),
        ("rope_parameters", {"rope_type": "yarn", "factor": 2.0}, "rope_scaling is 'yarn'"),
        ("rope_scaling", 2.0, "neither null nor"),
        ("mm_vision_select_feature", "cls_patch", "is 'cls_patch'; only 'patch'"),
    ],
)
def test_what_no_weight_tells_and_is_not_computed_is_refused(
    field: str, value: object, said: str, llava: Path
) -> None:
    with pytest.raises(CheckpointError, match=rf"config\.json: .*{said}"):
        config_of(rewritten(llava, **{field: value}))


def test_the_image_is_enclosed_whatever_llava_did_before(llava: Path) -> None:
    """GSVA and LISA train with <im_start> and <im_end>, on LLaVAs whose config says that they have none."""
    assert config_of(rewritten(llava, mm_use_im_start_end=False)).use_im_start_end


def test_what_a_clip_config_leaves_out_has_transformers_defaults(
    state: State, tmp_path: Path
) -> None:
    """transformers 4 writes only what differs from them, so ViT-L/14 saved again has no image_size."""
    sizes = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16}
    sizes |= {"num_hidden_layers": 24, "patch_size": 14}
    short = {"model_type": "clip", "vision_config": sizes | {"model_type": "clip_vision_model"}}
    (tmp_path / "config.json").write_text(json.dumps(short))
    clip = official_config(LLAVA, tmp_path, sam_sizes(state), "llava_v1", state).clip
    defaults = {"image_size": 224, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
    assert clip.to_dict() == sizes | defaults


@pytest.mark.parametrize(
    ("part", "fields", "said"),
    [
        ("llava", {"hidden_size": None}, r"llava/config\.json: hidden_size: .*LLaVA's own folder"),
        ("llava", {"hidden_size": 128}, r"gsva_tiny\.bin does not fit the model of .*/llava with "),
        ("clip", {"patch_size": None}, r"clip/config\.json: patch_size: "),
        ("clip", {"model_type": "llava"}, r"clip/config\.json is a 'llava' model's, not CLIP's"),
    ],
)
def test_a_config_of_another_model_is_named(
    part: str, fields: dict[str, object], said: str, llava: Path, tmp_path: Path
) -> None:
    shutil.copytree(GOLDEN / "clip-vit-tiny", tmp_path / "clip", copy_function=shutil.copyfile)
    rewritten(tmp_path / part, **fields)
    with pytest.raises(InputError, match=said):
        official(WEIGHTS, llava, vision_tower=tmp_path / "clip")


@pytest.mark.parametrize("kind", ["mlp10x_gelu", "mlp2x_relu", "identity", None])
def test_a_projector_of_another_kind_is_refused(kind: str | None, llava: Path) -> None:
    said = rf"config\.json: mm_projector_type is {kind!r}; only .* give the folder of the LLaVA"
    with pytest.raises(CheckpointError, match=said):
        config_of(rewritten(llava, mm_projector_type=kind))


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_llava_with_a_projector_of_several_layers(
    layers: int, state: State, llava: Path, tmp_path: Path
) -> None:
    """As LLaVA-1.5's, whose CLIP sees 336 pixels; the projector is computed here as LLaVA defines it."""
    torch.manual_seed(layers)
    widths = [32] + layers * [64]
    linears = [nn.Linear(*pair) for pair in pairwise(widths)]
    own = nn.Sequential(*[part for linear in linears for part in (nn.GELU(), linear)][1:])
    sizes = json.loads((GOLDEN / "clip-vit-tiny/config.json").read_text()) | {"image_size": 336}
    tower = CLIPVisionModel(CLIPVisionConfig(**sizes)).eval()
    pixels = {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}}
    clip = tmp_path / "clip"
    clip.mkdir()
    (clip / "config.json").write_text(json.dumps(sizes))
    (clip / "preprocessor_config.json").write_text(json.dumps(pixels))
    named = {
        f"vision_model.{name.removeprefix('vision_model.')}": value
        for name, value in tower.state_dict().items()
    }
    save_file(named, clip / "model.safetensors")
    replaced = (TOWER, "model.mm_projector.")
    rest = {name: value for name, value in state.items() if not name.startswith(replaced)}
    projecting = {f"model.mm_projector.{name}": value for name, value in own.state_dict().items()}
    convert(
        tmp_path / "out",
        rewritten(llava, mm_projector_type=f"mlp{layers}x_gelu"),
        weights=torch_file(rest | projecting, tmp_path),
        vision_tower=clip,
        sam={"decoder_heads": 4},
    )
    model = load_converted(tmp_path / "out").model
    image = torch.randn(1, 3, 336, 336)
    with torch.no_grad():
        seen = tower(image, output_hidden_states=True).hidden_states[-2][:, 1:]
        tokens = model.project(model.encode_clip(image))
        torch.testing.assert_close(tokens, own(seen), atol=1e-5, rtol=1e-5)
    assert tokens.shape == (1, model.config.image_tokens, 64) == (1, 576, 64)
    engine = gsva_ros.load(tmp_path / "out", device="cpu", dtype="float32")
    frame = engine.encode(np.zeros((60, 80, 3), np.uint8))
    assert len(engine.segment(frame, ["the mug", "a can"], joint=True).slots) == 2


def test_a_projector_that_the_weights_do_not_have_is_named(llava: Path) -> None:
    with pytest.raises(CheckpointError, match=r"missing model\.mm_projector\.0\.weight"):
        config_of(rewritten(llava, mm_projector_type="mlp2x_gelu"))


def test_positions_as_transformers_5_writes_them(llava: Path) -> None:
    rope = {"rope_type": "default", "rope_theta": 500.0}
    config = config_of(rewritten(llava, rope_theta=None, rope_scaling=None, rope_parameters=rope))
    assert config.llm.rope_theta == 500.0


def test_the_layer_that_llava_sees_with_is_read_and_else_the_last_but_one(llava: Path) -> None:
    assert config_of(rewritten(llava, mm_vision_select_layer=-1)).select_layer == -1
    path = llava / "config.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in data.items() if not k.startswith("mm_")}))
    assert config_of(llava).select_layer == -2


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("added_tokens.json", '["[SEG]"]'),
        ("added_tokens.json", '{"[SEG]": "first"}'),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"600": "[SEG]"}}'),
        ("tokenizer.json", '{"added_tokens": [{"id": 600}]}'),
        ("special_tokens_map.json", '{"pad_token": {"lstrip": false}}'),
    ],
)
def test_added_tokens_that_cannot_be_read(file: str, content: str, llava: Path) -> None:
    (llava / "tokenizer_config.json").unlink()
    (llava / file).write_text(content)
    with pytest.raises(CheckpointError, match=f"{file}: its added tokens cannot be read"):
        config_of(llava)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
        (b"no model", "not a sentencepiece model"),
    ],
)
def test_a_tokenizer_that_is_none(content: bytes, said: str, llava: Path) -> None:
    (llava / "tokenizer.model").write_bytes(content)
    with pytest.raises(InputError, match=rf"tokenizer\.model.*{said}"):
        config_of(llava)


@pytest.mark.parametrize(
    ("part", "file"),
    [("llava", "config.json"), ("llava", "tokenizer.model"), ("clip-vit-tiny", "config.json")],
)
def test_a_part_that_is_not_whole_or_not_there(part: str, file: str, tmp_path: Path) -> None:
    for name in ("llava", "clip-vit-tiny"):
        shutil.copytree(GOLDEN / name, tmp_path / name)
        (tmp_path / name).chmod(0o755)
    given = (WEIGHTS, tmp_path / "llava")
    (tmp_path / part / file).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{part} has no {file}: give the whole folder"):
        official(*given, vision_tower=tmp_path / "clip-vit-tiny")
    shutil.rmtree(tmp_path / part)
    with pytest.raises(FileNotFoundError, match=rf"{part}: no such folder; download"):
        official(*given, vision_tower=tmp_path / "clip-vit-tiny")


def test_a_converted_directory_with_a_larger_tokenizer_is_refused(tmp_path: Path) -> None:
    """Its own words would be read as special tokens."""
    tiny_gsva(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes((LLAVA / "tokenizer.model").read_bytes())
    with pytest.raises(InputError, match=r"tokenizer\.model has 600 pieces.*begin at 3\d\d"):
        load_converted(tmp_path)


def described(adapter: Path, base: object, **more: Any) -> None:
    """Describe an adapter of rank 2 on a base."""
    said = {"base_model_name_or_path": str(base), "lora_alpha": 8, "r": 2} | more
    (adapter / "adapter_config.json").write_text(json.dumps(said))


def factors(module: str) -> tuple[State, Tensor]:
    """An adapter's random factors for a module, and what they add to its weight by that description."""
    a, b = torch.randn(2, 64), torch.randn(64, 2)
    named = {f"{module}.lora_A.weight": a, f"{module}.lora_B.weight": b}
    return {f"base_model.model.{name}": value for name, value in named.items()}, 4 * (b @ a)


@pytest.mark.parametrize("base", ["directory", "beside"])
def test_an_adapter_loads_on_its_base(base: str, state: State, tmp_path: Path) -> None:
    checkpoint = official()
    whole, adapter = tmp_path / "whole", tmp_path / "adapter"
    save_pretrained(checkpoint.model, checkpoint.prompt.tokenizer, whole)
    adapter.mkdir()
    target = "model.layers.1.self_attn.v_proj"
    head, (of, update) = torch.randn_like(state["lm_head.weight"]), factors(target)
    trained = of | {"base_model.model.lm_head.weight": head}
    save_file(trained, adapter / "adapter_model.safetensors")
    name = whole if base == "directory" else "../whole"
    described(adapter, name)
    merged = gsva_ros.load(adapter).model.state_dict()
    assert torch.allclose(merged[f"{target}.weight"], state[f"{target}.weight"] + update)
    assert torch.equal(merged["lm_head.weight"], head)
    assert gsva_ros.load(adapter).weights_hash != gsva_ros.load(whole).weights_hash
    described(adapter, name, use_dora=True)
    with pytest.raises(CheckpointError, match="use_dora is not supported"):
        gsva_ros.load(adapter)
    described(adapter, name, revision=f"sha256:{'0' * 64}")
    with pytest.raises(CheckpointError, match=r"other weights than those of .*whole"):
        gsva_ros.load(adapter)
    described(adapter, "x")
    with pytest.raises(CheckpointError, match="neither bundled nor a path"):
        gsva_ros.load(adapter)


@pytest.mark.parametrize("suffix", ["bin", "safetensors"])
def test_an_index_has_the_hash_of_its_shards(suffix: str, state: State, tmp_path: Path) -> None:
    form, found = FORMS[f"{suffix} shards"], []
    for more in (0.0, 1.0):
        head = state["lm_head.weight"] + more
        form(state | {"lm_head.weight": head}, tmp_path)
        (index,) = tmp_path.glob("*.index.json")
        found.append(official(index).weights_hash)
        assert official(tmp_path).weights_hash == found[-1]
    assert found[0] != found[1]


def test_an_adapters_hash_is_of_its_alpha_too(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "adapter_model.bin")
    found = set()
    for alpha in (8, 64):
        described(tmp_path, "gsva-mini", lora_alpha=alpha)
        found.add(load_converted(tmp_path).weights_hash)
    assert len(found) == 2


@pytest.mark.parametrize("base", ["..", "./whole", "whole"])
def test_a_relative_base_is_sought_first_from_the_adapters_folder(
    base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, adapter = tiny_checkpoint(), tmp_path / "above/adapter"
    adapter.mkdir(parents=True)
    save_pretrained(checkpoint.model, checkpoint.prompt.tokenizer, adapter / base)
    torch.save({}, adapter / "adapter_model.bin")
    described(adapter, base)
    other = {name: value + 1 for name, value in checkpoint.model.state_dict().items()}
    config, tokenizer = checkpoint.model.config, checkpoint.prompt.tokenizer
    write_model(config, tokenizer, other, tmp_path / "work/whole")
    monkeypatch.chdir(tmp_path / "work")
    loaded = gsva_ros.load(adapter).model.state_dict()
    assert all(torch.equal(v, loaded[k]) for k, v in checkpoint.model.state_dict().items())


def test_an_adapter_on_official_weights(state: State, tmp_path: Path) -> None:
    """It names the state dict that it belongs on, and brings its own alpha."""
    target = "model.layers.0.self_attn.q_proj"
    trained, update = factors(target)
    torch.save(trained, tmp_path / "adapter_model.bin")
    described(tmp_path, WEIGHTS)
    merged = load(tmp_path, lora_alpha=1.0)
    assert torch.allclose(merged[f"{target}.weight"], state[f"{target}.weight"] + update)
    assert torch.equal(merged["lm_head.weight"], state["lm_head.weight"])
    own = hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()
    for revision in ("main", f"sha256:{own}"):
        described(tmp_path, WEIGHTS, revision=revision)
        load(tmp_path)
    described(tmp_path, WEIGHTS, revision=f"sha256:{'0' * 64}")
    with pytest.raises(CheckpointError, match=r"other weights than those of .*gsva_tiny\.bin"):
        load(tmp_path)
    # The same weights, converted, on which an adapter may have been trained, too.
    base = official()
    save_pretrained(base.model, base.prompt.tokenizer, tmp_path / "base")
    own = load_converted(tmp_path / "base").weights_hash
    described(tmp_path, tmp_path / "base", revision=f"sha256:{own}")
    load(tmp_path)
    described(tmp_path, tmp_path)
    with pytest.raises(CheckpointError, match="its base is needed here"):
        load(tmp_path)


def test_a_small_update_of_a_16_bit_weight_is_kept() -> None:
    """As where training stored the frozen weights in bfloat16 and the factors in float32."""
    torch.manual_seed(0)
    weight, a, b = torch.randn(64, 64), torch.randn(2, 64), torch.randn(64, 2) * 1e-3
    frozen = weight.bfloat16()
    state = {"q.weight": frozen, "q.lora_A.weight": a, "q.lora_B.weight": b}
    update = merge_lora(state, alpha=2.0)["q.weight"] - frozen.float()
    torch.testing.assert_close(update, b @ a, rtol=0.0, atol=1e-6)
    state |= {name: state[name].bfloat16() for name in state}
    assert merge_lora(state, alpha=2.0)["q.weight"].dtype is torch.bfloat16


def test_an_adapter_on_official_weights_with_factors_of_their_own(tmp_path: Path) -> None:
    """Each with its own alpha: the base's factors are merged first, as they were when it was trained."""
    base = GOLDEN / "gsva_tiny_lora.bin"
    torch.save({}, tmp_path / "adapter_model.bin")
    described(tmp_path, base, r=1)
    alone, same = load(base), load(tmp_path)
    assert all(torch.equal(value, same[name]) for name, value in alone.items())
    target = "model.layers.0.self_attn.q_proj"
    trained, update = factors(target)
    torch.save(trained, tmp_path / "adapter_model.bin")
    merged = load(tmp_path)[f"{target}.weight"]
    assert torch.allclose(merged, alone[f"{target}.weight"] + update, atol=1e-6)


@pytest.mark.parametrize(
    ("field", "value"),
    [("init_lora_weights", "pissa"), ("init_lora_weights", "olora"), ("use_qalora", True)],
)
def test_an_adapter_that_the_formula_does_not_fit_is_refused(
    field: str, value: object, tmp_path: Path
) -> None:
    torch.save({}, tmp_path / "adapter_model.bin")
    described(tmp_path, WEIGHTS, **{field: value})
    with pytest.raises(CheckpointError, match=f"{field}.* is not supported; merge it with peft"):
        load(tmp_path)


def test_the_convert_command_of_the_documentation(tmp_path: Path) -> None:
    """As docs/weights.md writes it, with the recorded model's parts in the places of the official ones."""
    text = (Path(__file__).resolve().parents[2] / "docs/weights.md").read_text()
    line = next(line for line in text.replace("\\\n", " ").splitlines() if "gsva convert" in line)
    words = line[line.index("gsva convert") :].split("#")[0].split()[1:]
    parts = {
        "--llava": LLAVA,
        "--weights": WEIGHTS,
        "--vision-tower": GOLDEN / "clip-vit-tiny",
    }
    for option, path in parts.items():
        words[words.index(option) + 1] = str(path)
    words[-1] = str(tmp_path / "out")
    assert cli.main([*words, "--sam", str(GOLDEN / "sam_tiny.json")]) == 0
    assert gsva_ros.load(tmp_path / "out").can_reject


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("llava/config.json", "[]"),
        ("clip/config.json", "null"),
        ("clip/config.json", '{"vision_config": 1}'),
        ("sam.json", "[256]"),
    ],
)
def test_a_description_that_is_no_object_is_one_line(
    file: str, content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("llava", "clip-vit-tiny"):
        (tmp_path / name.removesuffix("-vit-tiny")).mkdir()
        for path in (GOLDEN / name).glob("*.*"):
            shutil.copyfile(path, tmp_path / name.removesuffix("-vit-tiny") / path.name)
    shutil.copyfile(GOLDEN / "sam_tiny.json", tmp_path / "sam.json")
    (tmp_path / file).write_text(content)
    places = {"llava": tmp_path / "llava", "vision-tower": tmp_path / "clip"}
    places |= {"sam": tmp_path / "sam.json", "weights": WEIGHTS}
    options = [f"--{name}={place}" for name, place in places.items()]
    assert cli.main(["convert", *options, str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"{file}: " in said
    assert "not a JSON object" in said


@pytest.mark.parametrize("which", ["llava", "clip", "file"])
def test_converting_overwrites_nothing_and_says_so_before_it_reads(
    which: str, llava: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "clip").mkdir()
    (tmp_path / "file").touch()
    before = {path: path.read_bytes() for path in llava.iterdir()}
    options = ["--llava", llava, "--vision-tower", tmp_path / "clip", "--weights", tmp_path]
    assert cli.main(["convert", *map(str, options), str(tmp_path / which)]) == 2
    said = "cannot be written" if which == "file" else "would be overwritten"
    assert said in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in llava.iterdir()}


@pytest.mark.parametrize(
    ("given", "base"),
    [
        ("7b/model.safetensors", ""),
        ("7b/model.safetensors.index.json", ""),
        ("adapter", ""),
        ("adapter", "model.safetensors"),
    ],
)
def test_converting_overwrites_no_weights_in_its_folder(
    given: str, base: str, state: State, llava: Path, tmp_path: Path
) -> None:
    """A file of weights, their index, and an adapter's base: a folder, or a file in it."""
    folder, adapter = tmp_path / "7b", tmp_path / "adapter"
    folder.mkdir()
    adapter.mkdir()
    save_file(state, folder / "model.safetensors")
    index = {"weight_map": dict.fromkeys(state, "model.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    torch.save({}, adapter / "adapter_model.bin")
    described(adapter, folder / base)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(InputError, match="7b is an input, whose files would be overwritten"):
        convert(folder, llava, weights=tmp_path / given, vision_tower=GOLDEN / "clip-vit-tiny")
    assert before == {path: path.read_bytes() for path in folder.iterdir()}


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise SafetensorError("No space left on device")

    monkeypatch.setattr(weights_module, "save_file", full)
    checkpoint = tiny_checkpoint()
    with pytest.raises(OSError, match=r"model\.safetensors: No space left"):
        save_pretrained(checkpoint.model, checkpoint.prompt.tokenizer, tmp_path)


@pytest.mark.parametrize("end", [SafetensorError("No space left on device"), KeyboardInterrupt()])
def test_a_conversion_that_ends_early_leaves_no_mixture_with_an_earlier_one(
    end: BaseException, llava: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    convert(out, llava, weights=WEIGHTS, **PARTS)
    save = weights_module.save_file

    def ends(state: State, path: Path) -> None:
        if isinstance(end, KeyboardInterrupt):
            save(state, path)  # safetensors ends at Ctrl-C once it has written
        raise end

    monkeypatch.setattr(weights_module, "save_file", ends)
    other = GOLDEN / "gsva_tiny_lora.bin"
    with pytest.raises((OSError, KeyboardInterrupt)):
        convert(out, llava, weights=other, conversation="llava_llama_2", **PARTS)
    with pytest.raises(FileNotFoundError, match=r"it has no config\.json"):
        load_converted(out)
    monkeypatch.undo()
    convert(out, llava, weights=other, conversation="llava_llama_2", **PARTS)
    assert load_converted(out).model.config.conversation == "llava_llama_2"


def test_a_conversion_has_neither_calibration_nor_heads_of_what_was_there(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in ("calibration.json", "auxiliary.safetensors"):
        (out / name).write_text("{}")
    convert(out, LLAVA, weights=WEIGHTS, **PARTS)
    assert read_calibration(out) is None
    assert not (out / "auxiliary.safetensors").exists()


def test_others_may_read_all_files_or_none(tmp_path: Path) -> None:
    """As the umask says; safetensors itself writes files for their owner alone."""
    checkpoint = tiny_checkpoint()
    for umask, mode in ((0o022, 0o644), (0o077, 0o600)):
        (tmp_path / str(umask)).mkdir()
        (tmp_path / str(umask) / "model.safetensors").touch(0o600)  # left there by such a version
        before = os.umask(umask)
        try:
            save_pretrained(checkpoint.model, checkpoint.prompt.tokenizer, tmp_path / str(umask))
        finally:
            os.umask(before)
        modes = {p.name: p.stat().st_mode & 0o777 for p in (tmp_path / str(umask)).iterdir()}
        assert set(modes.values()) == {mode}, modes


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("model.safetensors.index.json", '{"weight_map": {"lm_head.weight": 1}}', "not an index"),
        ("model.safetensors.index.json", "[" * 100_000, "not an index"),
        ("adapter_config.json", "[" * 100_000, "not a peft config"),
    ],
)
def test_descriptions_of_weights_that_cannot_be_read(
    file: str, content: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / file).write_text(content)
    if file.startswith("adapter"):
        (tmp_path / "adapter_model.bin").touch()
    with pytest.raises(CheckpointError, match=rf"{file}: {said}"):
        load(tmp_path)


def test_a_tokenizer_of_words_that_are_no_text(llava: Path) -> None:
    path = llava / "tokenizer.model"
    path.write_bytes(path.read_bytes().replace(b"<0x00>", b"<\x98x00>"))
    with pytest.raises(InputError, match=r"tokenizer\.model: not a sentencepiece model"):
        config_of(llava)
