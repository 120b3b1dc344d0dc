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

setup(
    name="gsva-ros",
    version=PACKAGE.findtext("version"),
    description=" ".join((PACKAGE.findtext("description") or "").split()),
    license=PACKAGE.findtext("license"),
    packages=find_packages(include=["gsva_ros", "gsva_ros.*"]),
    # Model folders are data, not packages: their names hold dashes.
    package_data={"gsva_ros": ["checkpoints/*/*", "eval/*.html", "py.typed"]},
    # Where ROS keeps them too; bags with our messages are read and written by these.
    data_files=[("share/gsva_ros/msg", [str(p.relative_to(HERE)) for p in HERE.glob("msg/*.msg")])],
    python_requires=">=3.10,<3.14",
    install_requires=[
        "accelerate",
        "jinja2",
        "numpy",
        "opencv-python-headless",
        "pillow",
        "pycocotools",
        "safetensors",
        "segment-anything",
        "sentencepiece",
        "torch>=2.4",
        "tqdm",
        "transformers>=5,<6",
    ],
    extras_require={
        "bags": ["mcap>=1.2", "pyyaml", "rosbags>=0.11", "rosbags-image>=0.10"],
        "sim": ["mujoco>=3.2", "rosbags>=0.11"],
    },
    entry_points={
        "console_scripts": [
            f"{name} = {what}" for name, what in PROGRAMS["console_scripts"].items()
        ]
    },
)
