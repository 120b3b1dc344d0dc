"""Scenes written by `gsva sim render`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...arguments import count
from ...chance import pick
from ...errors import InputError
from ...phrasing.forms import HELD_OUT, TAUGHT, Form, in_form
from ...phrasing.unknown import HELD_OUT as HELD_OUT_NOUNS
from ...phrasing.unknown import renamed, unknown
from ...phrasing.words import Vocabulary
from ...scenes import INSTANCES, LINES, META, RGB, Expression, SceneSet
from ...truth import Referring
from ..cases import Case, Gathered
from ..fingerprint import fingerprint

#: Sets of forms to ask in.
FORMS = {"taught": TAUGHT, "held-out": HELD_OUT}
#: The value of --forms that replaces nouns instead.
UNKNOWN = "unknown"


def add_arguments(parser: argparse.ArgumentParser, split: str) -> None:
    """Add the folders and their split; `split`: the default."""
    parser.add_argument(
        "--data", type=Path, required=True, nargs="+", help="folders written by `gsva sim render`"
    )
    parser.add_argument("--split", default=split, help="split that each folder must contain")
    parser.add_argument("--limit", type=count, help="only the first LIMIT scenes of each folder")
    parser.add_argument(
        "--forms",
        choices=(*FORMS, UNKNOWN, "as written"),
        default="as written",
        help="ask each expression in another form with the same meaning, as people type, and report "
        "scores by form. held-out: forms that training never draws. unknown: one noun of each is "
        "replaced by one that no scene contains and training never uses",
    )


@contextmanager
def gather(args: argparse.Namespace) -> Iterator[Gathered]:
    """The scenes' cases; InputError if a folder does not contain them."""
    nouns = HELD_OUT_NOUNS if args.forms == UNKNOWN else ()
    cases, files, boxed = [], [], 0
    for folder in args.data:
        scenes = SceneSet(folder, args.split, args.limit)
        if nouns and scenes.photograph.any():
            raise InputError(
                f"{folder}: photographs contain unlabelled objects, possibly a {nouns[0]}: --forms "
                f"{UNKNOWN} is for rendered scenes"
            )
        where = f"{folder}, " if len(args.data) > 1 else ""
        cases += scene_cases(scenes, FORMS.get(args.forms), nouns, where)
        files += [folder / name for name in sorted((META, RGB, INSTANCES, LINES))]
        boxed += int((~scenes.outlined).sum())
    data = f"{len(cases)} scenes of split {args.split}"
    data += (
        f", in {args.forms} forms" if args.forms in FORMS else ", unknown nouns" if nouns else ""
    )
    if boxed:
        data += f", {boxed} of them with boxes, with which gIoU and cIoU compare the masks"
    yield Gathered(cases, data, fingerprint=fingerprint(files))


def scene_cases(
    scenes: SceneSet,
    forms: Mapping[str, Form] | None = None,
    nouns: Sequence[str] = (),
    where: str = "",
) -> list[Case]:
    """One case for each rendered scene; with forms, of the expressions that have one, by form.

    nouns: nouns that no scene contains; if given, of expressions in which one of them replaces a noun.
    where: prefix of the cases' names.
    """
    words = Vocabulary(tuple(scenes.kinds), tuple(scenes.colours))
    nouns = unknown(nouns, words)

    def asked_of(row: int) -> list[Expression]:
        if nouns:
            rng = np.random.default_rng([row, len(nouns)])
            texts = [renamed(e.text, pick(nouns, rng), words, rng) for e in scenes.expressions[row]]
            return [Expression(text, UNKNOWN, ()) for text in dict.fromkeys(texts) if text]
        if forms is None:
            return scenes.expressions[row]
        rng = np.random.default_rng([row, len(forms)])
        made = [(e, in_form(e.text, forms, words, rng)) for e in scenes.expressions[row]]
        return [Expression(m[0], m[1], e.targets) for e, m in made if m]

    def reader(row: int) -> Callable[[], tuple[NDArray[np.uint8], list[Referring]]]:
        def read() -> tuple[NDArray[np.uint8], list[Referring]]:
            asked = asked_of(row)
            masks = scenes.target_masks(np.full(len(asked), row), [e.targets for e in asked])
            queries = [
                Referring(e.text, e.category, len(e.targets), m)
                for e, m in zip(asked, masks, strict=True)
            ]
            return np.ascontiguousarray(scenes.rgb[row]), queries

        return read

    return [Case(f"{where}scene {row}", reader(row)) for row in range(len(scenes))]
