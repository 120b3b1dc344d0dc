"""How much memory `gsva convert` takes, as a multiple of the checkpoint it reads.

Usage: python test/support/convert_memory.py [SIZE] [FOLDER]

Makes a random checkpoint of about SIZE GiB (default 4) in 16 bits with GSVA-7B's width and its LoRA factors
beside the weights, converts it in a process of its own, prints its peak resident memory, and deletes both.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from tiny import tiny_config, tiny_tokenizer_model

from gsva_ros.model.gsva import GSVA

RANK = 8  # GSVA-7B's
LAYER = 4 * 4096 * 4096 + 3 * 4096 * 11008


def main() -> None:
    size = float(sys.argv[1]) if len(sys.argv) > 1 else 4.0
    folder = Path(tempfile.mkdtemp(dir=sys.argv[2] if len(sys.argv) > 2 else None))
    try:
        measure(folder, size)
    finally:
        shutil.rmtree(folder)


def measure(folder: Path, size: float) -> None:
    llava, clip = folder / "llava", folder / "clip"
    llava.mkdir()
    clip.mkdir()
    import sentencepiece

    model = tiny_tokenizer_model()
    (llava / "tokenizer.model").write_bytes(model)
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model).vocab_size()
    plain = tiny_config(pieces).clip | {"stem": "patch"}
    llm = {
        "vocab_size": pieces + 4,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": max(1, round(size * 2**30 / 2 / LAYER)),
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
    }
    config = tiny_config(
        pieces, llm=llm, clip=plain, image_token_norm=False, image_token_position=False
    )
    config.sam |= {"stem": "patch"}
    (llava / "config.json").write_text(json.dumps(llm))
    (clip / "config.json").write_text(json.dumps(plain))
    (clip / "preprocessor_config.json").write_text(json.dumps(config.preprocessor))
    (folder / "sam.json").write_text(json.dumps({"decoder_heads": 2}))
    with torch.device("meta"):
        shapes = GSVA(config).state_dict()
    weights = {k: torch.full(v.shape, 0.01, dtype=torch.bfloat16) for k, v in shapes.items()}
    for name in [n for n in weights if n.endswith(("q_proj.weight", "v_proj.weight"))]:
        if name.startswith("model.layers."):
            module, (rows, columns) = name.removesuffix(".weight"), weights[name].shape
            for factor, shape in (("A", (RANK, columns)), ("B", (rows, RANK))):
                value = torch.full(shape, 0.01, dtype=torch.bfloat16)
                weights[f"{module}.lora_{factor}.default.weight"] = value
    torch.save(weights, folder / "gsva.bin")
    del weights
    command = [sys.executable, "-m", "gsva_ros", "convert", "--llava", str(llava)]
    command += ["--weights", str(folder / "gsva.bin"), "--vision-tower", str(clip)]
    command += ["--sam", str(folder / "sam.json"), str(folder / "out")]
    start = time.monotonic()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0
    checkpoint = (folder / "gsva.bin").stat().st_size / 2**30
    peak = usage.ru_maxrss / 2**20
    print(
        f"checkpoint {checkpoint:.2f} GiB, peak resident memory {peak:.2f} GiB "
        f"({peak / checkpoint:.2f} times, mapped file included), {time.monotonic() - start:.0f} s"
    )


if __name__ == "__main__":
    main()
