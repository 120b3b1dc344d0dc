"""`--help` of the commands says what an option is where it is left out."""

from __future__ import annotations

import pytest

from gsva_ros import cli


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (
            "segment",
            ["checkpoint directory (default: gsva-mini)", "overlay (default: IMAGE.overlay.png)"],
        ),
        ("sim bag", ["frames a second (default: 4.0)", "scene each"]),
        ("bench", ["default 1280x720"]),
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
