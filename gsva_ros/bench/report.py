"""Measurements as text: tables for the terminal and for `docs/performance.md`, between its markers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from .counting import Cost
from .picture import svg
from .timing import Measured, Time

#: The counted stage that bounds each timed one.
COUNTED = {"SAM": "SAM", "CLIP": "CLIP"}


def texts(name: str, costs: Mapping[str, Cost], measured: Measured) -> list[str]:
    """What was measured of a model."""
    gflops, copied = measured.ceilings["gflops"], measured.ceilings["copy_gb_s"]
    said = [
        f"{name}, {measured.how}; ceilings: {gflops:.0f} GFLOP/s in a {measured.product} product, "
        f"{copied:.1f} GB/s in a copy:\n\n{times_table(measured.times, costs, gflops)}"
    ]
    if measured.against:
        table = ratios_table(measured.against)
        said.append(f"{name}, a whole frame against the plain path, alternating:\n\n{table}")
        said.append(stock_line(measured.sam))
    return [*said, f"Largest memory held: {measured.peak_mib:.0f} MiB."]


def chart(name: str, costs: Mapping[str, Cost], measured: Measured) -> str:
    """A bar chart (SVG) of the stages, with the minimum that the machine needs for each."""
    gflops = measured.ceilings["gflops"]
    bars = {
        stage: (time.median, floor_ms(stage, costs, gflops))
        for stage, time in measured.times.items()
    }
    return svg(f"{name}: ms a stage; red: at the machine's best product", bars)


def times_table(times: Mapping[str, Time], costs: Mapping[str, Cost], gflops: float) -> str:
    """One row per stage; share: of the machine's best product, if the stage's arithmetic is known."""
    lines = [
        "| stage | ms, median | quarters | share of the product ceiling |",
        "|---|---|---|---|",
    ]
    for name, time in times.items():
        floor = floor_ms(name, costs, gflops)
        share = f"{floor / time.median:.0%}" if floor else ""
        lines.append(f"| {name} | {time.median:.2f} | {time.low:.2f}–{time.high:.2f} | {share} |")
    return "\n".join(lines)


def steps_table(times: Mapping[str, Time]) -> str:
    """One row per step."""
    lines = ["| step | ms, median | quarters |", "|---|---|---|"]
    lines += [f"| {n} | {t.median:.2f} | {t.low:.2f}–{t.high:.2f} |" for n, t in times.items()]
    return "\n".join(lines)


def floor_ms(stage: str, costs: Mapping[str, Cost], gflops: float) -> float | None:
    """The minimum milliseconds of a timed stage, at the ceiling's speed."""
    cost = costs.get(COUNTED.get(stage, ""))
    return cost.floor / gflops / 1e6 if cost else None


def costs_table(costs: Mapping[str, Cost]) -> str:
    """One row per stage, and one for the whole frame."""
    lines = [
        "| stage | GFLOP | floor | times the floor | operators | GB moved | largest tensor |",
        "|---|---|---|---|---|---|---|",
    ]
    whole = Cost(
        sum(c.flops for c in costs.values()),
        sum(c.operators for c in costs.values()),
        sum(c.moved for c in costs.values()),
        max(c.largest for c in costs.values()),
        sum(c.floor for c in costs.values()),
    )
    for name, cost in {**costs, "a frame": whole}.items():
        lines.append(
            f"| {name} | {cost.flops / 1e9:.2f} | {cost.floor / 1e9:.2f} | {cost.flops / cost.floor:.2f} "
            f"| {cost.operators} | {cost.moved / 1e9:.2f} | {cost.largest / 1e6:.1f} M |"
        )
    return "\n".join(lines)


def weights_line(sizes: Mapping[str, int]) -> str:
    """The memory of the weights, by dtype."""
    each = (f"{dtype} {size / 2**20:,.0f} MiB" for dtype, size in sizes.items())
    return f"Weights in memory: {', '.join(each)}."


def ratios_table(found: Mapping[int, Mapping[str, Time]]) -> str:
    """The plain path's times relative to ours, one row per number of expressions."""
    lines = [
        "| expressions | ours, ms | plain, both passes, over ours | its first pass alone, over ours |",
        "|---|---|---|---|",
    ]
    for count, times in found.items():
        ours = times["ours"].median
        both, first = times["plain"].median / ours, times["first"].median / ours
        lines.append(f"| {count} | {ours:.1f} | {both:.2f} | {first:.2f} |")
    return "\n".join(lines)


def stock_line(found: Mapping[str, Mapping[str, float]]) -> str:
    """Our forward pass of SAM's encoder, compared with the stock one."""
    ours, stock = found["ours"], found["stock"]
    return (
        f"SAM's encoder: {ours['ms']:.1f} ms, {stock['ms'] / ours['ms']:.2f} times as fast as the stock "
        f"module; it takes {ours['peak_mib']:.0f} MiB at the most, the stock module "
        f"{stock['peak_mib']:.0f} MiB."
    )


def around(page: Path, name: str) -> tuple[str, str]:
    """A page up to and including its opening marker of this name, and from the closing one on.

    Raises:
        InputError: the page has no such markers.
    """
    begin, end = f"<!-- bench {name} -->\n", f"<!-- end bench {name} -->"
    before, found, rest = page.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise InputError(
            f"{page}: no lines {begin.strip()!r} and {end!r}: add them where the text belongs"
        )
    return before + begin, end + after


def updated(page: Path, name: str, text: str) -> str:
    """A page with this text between its markers of this name; raises like `around`."""
    before, after = around(page, name)
    return f"{before}{text.rstrip()}\n{after}"


def json_text(found: Mapping[str, Any]) -> str:
    """Measurements as JSON."""
    return json.dumps(as_json(found), indent=2) + "\n"


def as_json(value: Any) -> Any:
    """Measurements as JSON-serialisable values."""
    if isinstance(value, Time | Cost):
        return vars(value)
    if isinstance(value, Mapping):
        return {str(k): as_json(v) for k, v in value.items()}
    return value
