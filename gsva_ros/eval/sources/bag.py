"""Rosbags: the instructions about their frames, and the ground truth if it is known."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...bags.bag import Bag, BagError
from ...bags.recovery import bag_files
from ...instructions import meant_by
from ...truth import FrameTruth, Referring, of_camera, read_truth
from ..asks import Ask, Recorded, match_frames, read_asks
from ..cases import Case, Gathered
from ..fingerprint import fingerprint


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the bag, and instructions and ground truth that are not in the bag itself."""
    parser.add_argument("bag", type=Path, help="rosbag2 folder or mcap file")
    parser.add_argument(
        "--instructions", type=Path, help="YAML file in the format of config/demo.yaml"
    )
    parser.add_argument(
        "--truth",
        type=Path,
        help="COCO-style JSON, as written by `gsva sim bag --truth` (default: the ground truth in the bag)",
    )
    parser.add_argument(
        "--topic", help="image topic, if it is not that of the ground truth or the bag has several"
    )


@contextmanager
def gather(args: argparse.Namespace) -> Iterator[Gathered]:
    """The bag's cases; it stays open, because images are read on demand."""
    with Bag(args.bag) as bag:
        truth = read_truth(args.truth) if args.truth else bag.truth()
        truth = of_camera(truth, args.topic, bag.image_topics)
        cases = _numbered(_cases(args, bag, truth))
        if not cases:
            message = "; ".join(["nothing to answer", *bag.problems[:3]])
            raise BagError(f"{args.bag}: {message}")
        files = [f for f in (args.truth, args.instructions) if f]
        files += bag_files(args.bag) if args.bag.is_dir() else [args.bag]
        yield Gathered(
            cases,
            f"{len(cases)} cases of {args.bag}",
            problems=bag.problems,
            fingerprint=fingerprint(files),
            skip=True,
        )


def _cases(args: argparse.Namespace, bag: Bag, truth: list[FrameTruth]) -> list[Case]:
    topics = [args.topic] if args.topic else bag.image_topics
    if not topics:
        raise BagError(f"{bag.path}: {bag.image_choice}")
    only = topics[0] if len(topics) == 1 else ""
    asks = read_asks(args.instructions, only, bag.frames) if args.instructions else bag.asks(only)
    if args.topic:
        asks = _about(asks, args.topic, bag)
    if not asks:
        if not truth:
            nothing = "no instructions in it: give --instructions or --truth"
            raise BagError(f"{bag.path}: {'; '.join([nothing, *bag.problems[:3]])}")
        return truth_cases(bag, truth)
    named = {ask.topic for ask in asks if not ask.cancel}  # the node ends a request by its id alone
    if "" in named:
        raise BagError(f"{bag.path}: several image topics, {', '.join(topics)}: give --topic")
    frames = {
        topic: [Recorded(stamp, at) for stamp, at in bag.frames(topic).items()]
        for topic in named & {*bag.image_topics, only}
    }
    pairs, problems = match_frames(asks, frames)
    bag.problems += [f"{bag.path}: {problem}" for problem in problems]
    return ask_cases(bag, pairs, truth)


def _about(asks: list[Ask], topic: str, bag: Bag) -> list[Ask]:
    """The instructions about one camera, as `meant_by` chooses them.

    Raises:
        BagError: all of them name other topics: more than one, or another of the bag's cameras.
    """
    named = {ask.topic for ask in asks if not ask.cancel}  # the node ends a request by its id alone
    name = meant_by(topic, named, bag.image_topics)
    if named and name is None:
        others = ", ".join(sorted(named))
        raise BagError(
            f"{bag.path}: no instruction about {topic}, but about {others}: give one of these, "
            f"or --instructions about {topic}"
        )
    return [replace(ask, topic=topic) for ask in asks if ask.cancel or ask.topic == name]


def _numbered(cases: list[Case]) -> list[Case]:
    """The cases, with a number appended to repeated names: a bag may contain the same request twice."""
    met: Counter[str] = Counter()
    named = []
    for case in cases:
        met[case.id] += 1
        number = met[case.id]
        named.append(replace(case, id=f"{case.id} ({number})") if number > 1 else case)
    return named


def truth_cases(bag: Bag, truth: list[FrameTruth]) -> list[Case]:
    """One case for each frame with ground truth; frames that cannot be read go to the bag's problems.

    Raises:
        BagError: an image topic is not in the bag.
    """
    cases = []
    for frame in truth:
        topic, stamp = frame.topic, frame.stamp
        if bag.is_usable(topic, stamp, frame.size):
            cases.append(Case(f"{topic} {stamp}", partial(_read, bag, topic, stamp, frame)))
    return cases


def ask_cases(bag: Bag, asked: list[tuple[Ask, int]], truth: list[FrameTruth]) -> list[Case]:
    """One case for each instruction and frame, with the expressions' ground truth where it is known.

    Raises:
        BagError: an image topic is not in the bag.
    """
    known = {(frame.topic, frame.stamp): frame for frame in truth}
    usable: dict[tuple[str, int], bool] = {}
    cases = []
    for ask, stamp in asked:
        place = (ask.topic, stamp)
        frame = known.get(place)
        if place not in usable:
            usable[place] = bag.is_usable(ask.topic, stamp, frame.size if frame else None)
        if usable[place]:
            image = f"{ask.topic} {stamp}"
            read = partial(_read, bag, ask.topic, stamp, frame, ask.expressions)
            cases.append(Case(f"{image} {ask.id}", read, ask.text, image))
    return cases


def _read(
    bag: Bag, topic: str, stamp: int, frame: FrameTruth | None, words: Sequence[str] | None = None
) -> tuple[NDArray[np.uint8], list[Referring]]:
    """A frame and its truth: all of it, or that of these expressions, which may be unknown."""
    rgb, queries = bag.rgb(topic, stamp), frame.expressions() if frame else []
    if words is not None:
        by_words = {q.expression: q for q in queries}
        queries = [by_words.get(w, Referring(w)) for w in words]
    return rgb, queries
