"""How much memory loading a converted model takes, as a multiple of its weights, for each dtype.

Usage: python test/support/load_memory.py [SIZE] [FOLDER] [DTYPE ...]

Creates a random 16-bit model of about SIZE GiB (default 1.5) with GSVA-7B's width, loads it in separate
processes, prints their peak resident memory (mapped files included), and deletes it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import wide
from safetensors.torch import save_file
from tiny import tiny_config

from gsva_ros.engine import PRECISIONS
from gsva_ros.model.checkpoint import WEIGHTS_NAME
from gsva_ros.model.tokenizer import TOKENIZER_NAME

# The memory that a process holds before loading is subtracted.
LOAD = """
import re, sys
import gsva_ros, gsva_ros.loading
from gsva_ros.model.quantised import QUANTISED, nbytes

def resident(name):
    return int(re.search(name + r":\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024

if sys.argv[2] in QUANTISED:
    import torchao.prototype.quantization.int4
before = resident("VmRSS")
engine = gsva_ros.load(sys.argv[1], device="cpu", dtype=sys.argv[2])
held = sum(nbytes(p) for p in engine.model.parameters())
print(resident("VmHWM") - before, held)
"""


def measure(folder: Path, size: float) -> None:
    tokenizer, pieces = wide.tokenizer()
    config = tiny_config(pieces, llm=wide.llm(pieces, size))
    save_file(wide.weights_of(config), folder / WEIGHTS_NAME)
    os.sync()  # like a file that was written long ago
    config.save(folder)
    (folder / TOKENIZER_NAME).write_bytes(tokenizer)
    file = (folder / WEIGHTS_NAME).stat().st_size
    print(f"{file / 2**30:.2f} GiB of safetensors in bfloat16")
    for dtype in sys.argv[3:] or PRECISIONS:
        command = [sys.executable, "-c", LOAD, str(folder), dtype]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        peak, held = map(int, output.split())
        print(
            f"{dtype}: weights {held / 2**30:.2f} GiB, peak {peak / 2**30:.2f} GiB, "
            f"{peak / max(held, file):.2f} times the larger of them and the file"
        )


if __name__ == "__main__":
    wide.in_a_folder(measure, 1.5)
