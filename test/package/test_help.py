"""`--help` of the commands says what an option is where it is left out."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from gsva_ros import arguments, cli
from gsva_ros.programs import train


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (
            "segment",
            ["checkpoint directory (default: gsva-mini)", "overlay (default: IMAGE.overlay.png)"],
        ),
        ("sim bag", ["frames per second (default: 4.0)", "scene each"]),
        ("bench", ["default 1280x720"]),
        ("eval dataset", ["folder that contains refer_seg/ or, for ReasonSeg, reason_seg/"]),
    ],
)
def test_help_says_each_default_once(command, said, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        cli.main([*command.split(), "--help"])
    told = capsys.readouterr().out
    for line in said:
        assert f"{line}\n" in told
    assert "default: None" not in told
    assert "default: False" not in told


@pytest.mark.parametrize(
    ("command", "option", "number"),
    [
        *[
            ("sim render", f"--{name}", n)
            for name in ("count", "width", "workers")
            for n in (0, -3)
        ],
        *[("sim bag", f"--{name}", 0) for name in ("frames", "height", "rate")],
        *[("sim bag", "--seeds", -1), ("sim bag", "--rate", "nan")],
        *[("sim video", f"--{name}", n) for name in ("seconds", "rate") for n in (0, "inf")],
        *[("eval scenes", "--limit", -1), ("eval dataset", "--limit", 0)],
        *[("ablate", "--seeds", n) for n in (0, -1)],
        *[("photographs", f"--{name}", 0) for name in ("crops", "width", "height")],
        *[("bench", f"--{name}", 0) for name in ("runs", "threads", "expressions")],
        *[("app", "--port", n) for n in (0, 99_999_999)],
        ("train", "--threads", -1),
        ("convert", "--lora-alpha", 0),
    ],
)
def test_a_number_out_of_range_is_refused(command, option, number, capsys) -> None:
    if command == "app":
        pytest.importorskip("gradio")
    with pytest.raises(SystemExit) as ended:
        cli.main([*command.split(), option, str(number)])
    assert ended.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"argument {option}: " in said
    assert f", not {number}" in said


@pytest.mark.parametrize(
    ("kind", "inside", "outside", "said"),
    [
        (arguments.count, (1, 10**9), (0, -1), "at least 1"),
        (arguments.seed, (0, 10**9), (-1,), "at least 0"),
        (arguments.port, (1, 65535), (0, 65536), "1 to 65535"),
        (arguments.positive, (1e-9, 1e9), (0, -1, "inf", "nan"), "more than 0"),
        (arguments.patience, (0, 1e9), (-1, "inf", "nan"), "at least 0"),
        (arguments.probability, (0, 0.5, 1), (-0.1, 1.1, "nan"), "0 to 1"),
        (arguments.rate, (0.01, 1000), (0.009, 1001, "nan"), "between 0.01 and 1000"),
    ],
)
def test_a_range_includes_its_ends(kind, inside, outside, said) -> None:
    assert [kind(str(number)) for number in inside] == list(inside)
    for number in outside:
        with pytest.raises(argparse.ArgumentTypeError, match=f"^{said}, not {number}$"):
            kind(str(number))


def test_an_unknown_command_is_told_all_that_there_are(capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["zork"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    for command in (
        "segment",
        "convert",
        *(n for _, names in cli.COMMANDS.values() for n in names),
    ):
        assert command in said.partition("choose from")[2]


@pytest.mark.parametrize(
    ("command", "arguments", "expected"),
    [
        ("segment", "a.png --output b.png cup", ["cup"]),
        ("segment", "a.png cup --output b.png -- -mug", ["cup", "-mug"]),
        ("segment", "--output b.png -- -a.png -mug", ["-mug"]),
        ("train", "a.yaml --threads 2 b.yaml", [Path("a.yaml"), Path("b.yaml")]),
    ],
)
def test_options_may_stand_between_the_arguments_of_a_list(
    command, arguments, expected, monkeypatch
) -> None:
    given: list[argparse.Namespace] = []
    monkeypatch.setattr(cli, "segment", given.append)
    monkeypatch.setattr(train, "run", given.append)
    assert cli.main([command, *arguments.split()]) == 0
    (args,) = given
    assert (args.expressions if command == "segment" else args.configs) == expected
    assert command == "train" or args.output == Path("b.png")


def test_an_unknown_option_is_told_with_the_usage_of_its_command(capsys) -> None:
    for name, *given in (
        ("segment", "segment", "a.png", "cup", "--zork"),
        ("segment", "--zork", "segment", "a.png", "cup"),
        ("sim", "sim", "bag", "--seeds", "1", "--out", "a", "--zork"),
    ):
        with pytest.raises(SystemExit) as ended:
            cli.main(given)
        assert ended.value.code == 2
        said = capsys.readouterr().err
        assert said.startswith(f"usage: gsva {name} ")
        assert said.endswith(f"gsva {name}: error: unrecognized arguments: --zork\n")
