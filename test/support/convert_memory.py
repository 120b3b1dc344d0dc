"""How much memory `gsva convert` takes, as a multiple of the checkpoint it reads.

Usage: python test/support/convert_memory.py [SIZE] [FOLDER]

Creates a random 16-bit checkpoint of about SIZE GiB (default 4) with GSVA-7B's width and separate LoRA
factors, converts it in a separate process, prints its peak resident memory, and deletes both.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch
import wide
from tiny import tiny_config

RANK = 8  # GSVA-7B's


def measure(folder: Path, size: float) -> None:
    llava, clip = folder / "llava", folder / "clip"
    llava.mkdir()
    clip.mkdir()
    model, pieces = wide.tokenizer()
    (llava / "tokenizer.model").write_bytes(model)
    plain = tiny_config(pieces).clip.to_dict() | {"stem": "patch"}
    llm = wide.llm(pieces, size)
    config = tiny_config(
        pieces, llm=llm, clip=plain, image_token_norm=False, image_token_position=False
    )
    config.sam.stem = "patch"
    (llava / "config.json").write_text(json.dumps(llm))
    (clip / "config.json").write_text(json.dumps(plain))
    (clip / "preprocessor_config.json").write_text(json.dumps(config.preprocessor.model_dump()))
    (folder / "sam.json").write_text(json.dumps({"decoder_heads": 2}))
    weights = wide.weights_of(config)
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
    wide.in_a_folder(measure, 4.0)
