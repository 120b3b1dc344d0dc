"""What keeps ROS 2 from starting is said in one line, by every program."""

from __future__ import annotations

import os
import subprocess

import harness
import pytest
import rclpy
import rendering  # noqa: F401 (skips this module where nothing can be rendered)

from gsva_ros.programs import live, pick_planner, player, view
from gsva_ros.ros import process

PROGRAMS = {
    "gsva_node": process.run,
    "gsva_player": player.main,
    "gsva_pick_planner": pick_planner.main,
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_domain_that_is_none(monkeypatch, capsys, tmp_path, name) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", "seven")
    status = PROGRAMS[name]([name, str(tmp_path)])
    said = capsys.readouterr().err.strip()
    assert status == 1
    assert said.splitlines()[-1] == (
        f"{name}: ROS 2 cannot start: RCLError: failed to initialize rcl: ROS_DOMAIN_ID is not an "
        "integral number"
    )
    assert not rclpy.ok()


def test_an_argument_that_ros_does_not_know(capsys) -> None:
    assert process.run(["gsva_node", "--ros-args", "--bogus"]) == 1
    assert "ROS 2 cannot start: UnknownROSArgsError: ['--bogus']" in capsys.readouterr().err


@pytest.mark.parametrize("program", [live, pick_planner, player, view])
def test_an_argument_that_a_program_cannot_pass_on(capsys, program) -> None:
    with pytest.raises(SystemExit) as ended:
        program.main(["program", "word", "--ros-args", "-p", "no_value"])
    assert ended.value.code == 2
    assert "Couldn't parse parameter override rule: '-p no_value'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("program", "option", "number"),
    [
        (pick_planner, "--episodes", "0"),
        (pick_planner, "--seed", "-1"),
        (pick_planner, "--width", "0"),
        (pick_planner, "--timeout", "nan"),
        (pick_planner, "--sure", "90"),
        (player, "--wait", "inf"),
        (live, "--wait", "nan"),
        (live, "--idle", "-1"),
    ],
)
def test_a_number_out_of_its_range(capsys, program, option, number) -> None:
    """Or a program would wait, or go on, for ever."""
    with pytest.raises(SystemExit) as ended:
        program.main(["program", option, number])
    assert ended.value.code == 2
    assert f"argument {option}: " in capsys.readouterr().err


def test_without_a_folder_for_logs() -> None:
    """As in a service or container without a home."""
    environment = {
        n: v for n, v in os.environ.items() if n not in ("HOME", "ROS_HOME", "ROS_LOG_DIR")
    }
    done = subprocess.run(
        harness.FAKE, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    (said,) = done.stderr.strip().splitlines()
    assert "failed to initialize logging" in said
    assert said.endswith("; set ROS_LOG_DIR to a folder that can be written")
