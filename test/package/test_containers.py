"""Container files and the workflow: well formed, and about files and targets that are here."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
INSTRUCTIONS = {"ARG", "FROM", "SHELL", "RUN", "COPY", "WORKDIR", "CMD"}


def made(text: str) -> set[str]:
    """Targets of `make` in a script."""
    return set(re.findall(r"\bmake ([a-z-]+)", text))


def test_dockerfile() -> None:
    text = (ROOT / "docker" / "Dockerfile").read_text()
    joined = re.sub(r"\\\n", " ", text)
    lines = [line for line in joined.splitlines() if line and not line.startswith("#")]
    assert {line.split()[0] for line in lines} == INSTRUCTIONS
    for line in lines:
        if line.startswith("COPY"):
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists(), source
    assert lines[0].startswith("ARG ROS_DISTRO="), "an argument of FROM stands before it"
    assert re.findall(r"ros:\$\{ROS_DISTRO\}-ros-base", text)


def test_the_image_gets_nothing_that_git_ignores() -> None:
    ignored = {line.strip("/") for line in (ROOT / ".gitignore").read_text().split()}
    left_out = (ROOT / ".dockerignore").read_text().split()
    assert not ignored - {line.removeprefix("**/") for line in left_out}


def test_the_shell_of_the_image_can_source_a_workspace(tmp_path: Path) -> None:
    """Whose setup.bash reads variables that may be unset."""
    (tmp_path / "setup.bash").write_text(
        '[ -n "$AMENT_TRACE_SETUP_FILES" ] && echo "tracing"; true\n'
    )
    (shell,) = re.findall(r"^SHELL (.*)", (ROOT / "docker/Dockerfile").read_text(), re.MULTILINE)
    command = [*json.loads(shell), f"source '{tmp_path}/setup.bash'"]
    done = subprocess.run(command, env={"PATH": os.environ["PATH"]}, check=False)
    assert done.returncode == 0


def test_containers_reach_programs_outside() -> None:
    """On the host's network, Fast DDS would use shared memory, which a container does not share."""
    text = (ROOT / "docs" / "containers.md").read_text().replace("\\\n", " ")
    commands = [line for line in text.splitlines() if line.startswith("docker run")]
    assert commands
    for line in commands:
        assert "--net=host" not in line or "FASTDDS_BUILTIN_TRANSPORTS=UDPv4" in line


def test_devcontainer() -> None:
    data = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    assert made(data["postCreateCommand"]) <= TARGETS


def test_workflow() -> None:
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    jobs = yaml.safe_load(text)["jobs"]
    steps = [step for job in jobs.values() for step in job["steps"]]
    assert all({"uses", "run"} & set(step) for step in steps)
    assert made(text) >= {"test-app", "docs", "lint"}
    assert made(text) <= TARGETS
    assert "bash .ci/run" in text
    assert (ROOT / ".ci" / "run").exists()
    for name in re.findall(r"requirements[\w-]*\.txt", text):
        assert (ROOT / name).exists(), name
    assert jobs["ros"]["strategy"]["matrix"]["distro"] == ["humble", "jazzy", "kilted"]
