"""`docs/ablations.md`: the rows' scores and their paired differences, from the answers of all runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ..eval.metrics import NAMES, Difference, metric, paired
from . import learn, score, shared
from .rows import ROWS
from .score import Answers, Thresholds

#: By row, the runs: for each seed, the test answers and the thresholds chosen on val.
Runs = Mapping[str, list[tuple[Answers, Thresholds]]]
Chosen = Callable[[Answers], npt.NDArray[np.bool_]]

KINDS: dict[str, tuple[str, Chosen]] = {
    "single": ("gIoU", lambda a: (a.asked == 1) & (a.category == "single")),
    "plural": ("gIoU", lambda a: (a.asked == 1) & (a.category == "multiple")),
    "relative": ("gIoU", lambda a: (a.asked == 1) & (a.category == "relative")),
    "absent": ("N_acc", lambda a: (a.asked == 1) & ~a.present),
}
#: Each idea, with the row that lacks it and the row that has it.
CLAIMS = {
    "absent things in training": ("A", "B"),
    "[REJ] instead of an empty mask": ("C", "E"),
    "a slot for each expression": ("D", "E"),
    "both, against LISA": ("B", "E"),
}


def page(runs: Runs) -> str:
    """The whole page as Markdown."""
    parts = [_head(len(next(iter(runs.values())))), "## Which ideas help\n", _claims(runs)]
    parts += ["## One expression in a prompt\n", _kinds(runs)]
    for count in score.ASKED:
        what = "expression" if count == 1 else "expressions"
        parts += [f"## Prompts of {count} {what}: all of them\n", _prompt(runs, count)]
    parts += ["## Differences\n", _differences(runs)]
    return "\n".join(parts)


def _head(seeds: int) -> str:
    rows = "\n".join(f"| {name} | {row.title} |" for name, row in ROWS.items())
    expressions = sum(n * k for n, k in score.ASKED.items())
    prompts = ", ".join(str(n) for n in learn.PROMPTS)
    return f"""# The gain from rejections and slots, at gsva-mini's scale

The paper (GSVA, CVPR 2024) adds two things to LISA: several [SEG] in one answer, and [REJ] for absent
targets. Here each of them is removed again, on rendered scenes, with everything else equal. `gsva ablate`
made this page: it renders, trains and scores, and resumes where it was stopped.

| row | what it is |
|---|---|
{rows}

Shared by all rows: {shared.COUNTS["train"]} training scenes; gsva-mini's two encoders, frozen; and, as
initial weights, its mask decoder and the first {shared.READING_LAYERS} layers of its language model, which
read words and patches. The upper layers, the slot tokens, the head and the mask prompts are initialised
randomly. In {learn.BASE_STEPS} steps this base learns to mask present objects, in both kinds of
conversation, without deciding a slot or seeing an absent object. (The lower layers come from a model that
was trained with rejections: an advantage, if it is one, for every row.) Each row is then trained for
{learn.ROW_STEPS} steps of {learn.BATCH} scenes with prompts of {prompts} expressions: the same scenes,
prompts and expressions for every row of a seed (in A, absent ones are replaced by present ones of the
scene), with GSVA's losses and the same auxiliary term, {seeds} seeds. A and B ask for each expression in a
conversation of its own, as LISA does; the other rows ask for all expressions of a prompt at once.

Scoring: {shared.COUNTS["test"]} test scenes with {expressions} expressions each, about half of them absent,
by the rules of `gsva eval` (protocol deployed: a rejected expression has no mask). For each run and prompt
size, the threshold with the best gIoU on {shared.COUNTS["val"]} other scenes is used: on p([SEG]) where a
row can reject, on the mask's area where it cannot. In a joint prompt, E reads its own earlier answers. D
has one mask per prompt, which counts for each of its expressions. Figures are means over seeds, ± half the
range between them. These are short runs: they compare rows, and say nothing about what a row reaches with
long training.
"""


def _claims(runs: Runs) -> str:
    """For each idea, the gain in gIoU of the row with it over the row that lacks only it."""
    rows = []
    for idea, (without, having) in CLAIMS.items():
        gains = [gain(runs[without], runs[having], count)["gIoU"] for count in score.ASKED]
        above, below = all(g.interval[0] > 0 for g in gains), all(g.interval[1] < 0 for g in gains)
        verdict = "yes" if above else "the reverse does" if below else "not everywhere"
        rows.append((idea, f"{having} over {without}", *map(_signed, gains), verdict))
    told = (
        "Difference in gIoU, with its 95 % interval; an idea helps where the interval lies above 0."
    )
    heads = ("idea", "rows", *(f"prompts of {count}" for count in score.ASKED), "holds")
    return f"{told}\n\n{_table(heads, rows)}"


def _kinds(runs: Runs) -> str:
    rows = [
        (name, *(_cell(of_row, figure, chosen) for figure, chosen in KINDS.values()))
        for name, of_row in runs.items()
    ]
    return _table(("row", *(f"{kind}: {figure}" for kind, (figure, _) in KINDS.items())), rows)


def _prompt(runs: Runs, count: int) -> str:
    rows = [
        (name, *(_cell(of_row, figure, lambda a: a.asked == count) for figure in NAMES))
        for name, of_row in runs.items()
    ]
    return _table(("row", *NAMES), rows)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head, *lines = (f"| {' | '.join(cells)} |" for cells in (heads, *rows))
    return "\n".join([head, "|---" * len(heads) + "|", *lines, ""])


def _cell(of_row: list[tuple[Answers, Thresholds]], figure: str, chosen: Chosen) -> str:
    values = [float(metric()(a.terms(t)[chosen(a)].sum(0))[figure]) for a, t in of_row]
    return f"{np.mean(values):.3f} ± {(max(values) - min(values)) / 2:.3f}"


def _differences(runs: Runs) -> str:
    """E minus each other row, with bootstrap intervals over scenes."""
    told = (
        "E minus the row, all seeds together, 95 % bootstrap interval over scenes "
        "(an interval that excludes 0 shows a difference)."
    )
    rows = [
        (str(count), name, *difference(runs[name], runs["E"], count))
        for count in score.ASKED
        for name in runs
        if name != "E"
    ]
    return f"{told}\n\n{_table(('prompt', 'row', *NAMES), rows)}"


def difference(
    a: list[tuple[Answers, Thresholds]], b: list[tuple[Answers, Thresholds]], count: int
) -> list[str]:
    """b minus a in NAMES on prompts of `count` expressions, each with its interval."""
    return [_signed(g) for g in gain(a, b, count).values()]


def _signed(gained: Difference) -> str:
    low, high = gained.interval
    return f"{gained.value:+.3f} [{low:+.3f}, {high:+.3f}]"


def gain(
    a: list[tuple[Answers, Thresholds]], b: list[tuple[Answers, Thresholds]], count: int
) -> dict[str, Difference]:
    """`metrics.paired` on prompts of `count` expressions, of all seeds together."""
    terms_a, terms_b = (
        np.concatenate([x.terms(limits)[x.asked == count] for x, limits in of_row])
        for of_row in (a, b)
    )
    scenes = np.concatenate([x.scene[x.asked == count] for x, _ in a])
    return paired(terms_a, terms_b, scenes, metric())
