"""What `gsva app` does behind its page: thresholds, labels, files."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from page_engine import PageEngine, picture, recorded
from pycocotools import mask as rle
from tiny_sam3 import tiny_directory

from gsva_ros import cli
from gsva_ros.answer import Answer, Rejection, Slot
from gsva_ros.bags.bag import Bag
from gsva_ros.errors import InputError
from gsva_ros.masks import Region
from gsva_ros.programs.app_export import write_coco, write_labelled, write_masks
from gsva_ros.programs.app_session import Correction, Label, Session

DEMO = Path(__file__).resolve().parents[2] / "demo" / "tabletop"


@pytest.fixture
def shown(tmp_path: Path) -> tuple[Session, PageEngine]:
    path = tmp_path / "blocks.png"
    cv2.imwrite(str(path), picture()[..., ::-1])
    session, engine = Session(), PageEngine()
    session.open(path)
    session.segment(engine, ["red", "blue", "green"])
    return session, engine


def outcomes(session: Session, threshold: float) -> list[Rejection | None]:
    return [slot.rejection for slot in session.slots(threshold)]


def test_a_threshold_decides_anew_without_the_model(shown: tuple[Session, PageEngine]) -> None:
    session, engine = shown
    assert outcomes(session, 0.5) == [None, None, Rejection.MODEL]
    assert outcomes(session, 0.7) == [None, Rejection.MODEL, Rejection.MODEL]
    assert outcomes(session, 0.01) == [None, None, None]
    assert (engine.encoded, engine.asked) == (1, 1)
    session.segment(engine, ["red"])
    assert (engine.encoded, engine.asked) == (1, 2), "the picture is encoded once"


def test_the_rule_is_the_engines() -> None:
    from gsva_ros import load

    engine = load("gsva-mini")
    frame = engine.encode(picture())
    words = ["the red box", "the apple", "all blue cans"]
    ours = engine.segment(frame, words, mask_rejected=True).slots
    for threshold in (0.0, 0.2, 0.6, 0.99, 1.0):
        theirs = engine.segment(frame, words, threshold=threshold).slots
        decided = [slot.at(threshold) for slot in ours]
        assert [s.rejection for s in decided] == [s.rejection for s in theirs]


@pytest.mark.parametrize("presence", [1.0, -1.0])
def test_the_rule_is_sam_3s(tmp_path: Path, presence: float) -> None:
    """Its masks are of all instances above a score; where the object is unlikely, there is none."""
    from gsva_ros import load

    engine = load(tiny_directory(tmp_path))
    engine.model.detr_decoder.presence_head.layer3.bias.data.fill_(presence)
    engine.rejection_threshold = 1.0
    frame = engine.encode(picture())
    (ours,) = engine.segment(frame, ["red mug"], mask_rejected=True).slots
    (theirs,) = engine.segment(frame, ["red mug"], threshold=0.0).slots
    assert theirs.rejection is (None if presence > 0 else Rejection.EMPTY_MASK)
    decided = ours.at(0.0)
    assert decided.rejection is theirs.rejection
    assert np.array_equal(decided.mask, theirs.mask)


def test_a_fault_stays_one_and_a_lost_mask_is_not_invented() -> None:
    fault = Slot("a", 0.0, None, (4, 4), fault="not finite")
    assert fault.at(0.0) is fault
    maskless = Slot("b", 0.3, Rejection.MODEL, (4, 4))
    assert maskless.at(0.1).rejection is Rejection.MODEL
    empty = Slot("c", 0.9, Rejection.EMPTY_MASK, (4, 4))
    assert empty.at(0.1).rejection is Rejection.EMPTY_MASK
    assert empty.at(0.95).rejection is Rejection.MODEL
    masked = Slot("d", 0.9, None, (4, 4), Region((0, 0, 2, 2), np.ones((2, 2), bool)), 0.8)
    assert masked.at(0.95).mask is None
    assert (masked.at(0.95).box, masked.at(0.95).crop) == (None, None)
    assert masked.at(0.9).rejection is None, "only what is below the threshold is rejected"


def rejected(kind: Rejection) -> list[Slot]:
    """Slots rejected in one way: without a mask, and with one that was drawn all the same."""
    region = Region((0, 0, 2, 2), np.ones((2, 2), bool))
    return [Slot("a", 0.25, kind, (4, 4)), Slot("a", 0.25, kind, (4, 4), region, 0.8)]


@pytest.mark.parametrize("kind", Rejection)
def test_the_command_says_why_a_slot_is_rejected(kind: Rejection) -> None:
    for slot in rejected(kind):
        assert "(p([SEG]) 0.250)" in slot.reason
        assert cli._line(slot) == f"a: REJECTED: {slot.reason}"


@pytest.mark.parametrize("kind", Rejection)
def test_the_page_says_why_a_slot_is_rejected(kind: Rejection) -> None:
    page = pytest.importorskip("gsva_ros.programs.page", reason="the page needs Gradio")
    for slot in rejected(kind):
        assert page.row_of(0, slot) == page.Row(1, "a", "REJECTED", slot.reason)


def test_a_file_whose_name_is_not_utf_8_can_be_chosen(tmp_path: Path) -> None:
    """Gradio sends what the page shows as JSON, which has no such characters."""
    app_page = pytest.importorskip("gsva_ros.programs.app_page", reason="the page needs Gradio")
    path = tmp_path / os.fsdecode(b"caf\xe9.png")
    path.write_bytes(cv2.imencode(".png", picture())[1].tobytes())
    page, session = app_page.Page(PageEngine(), [path], tmp_path), Session()
    assert page.bag.choices == [(f"{tmp_path}/caf?.png", 0)]
    updates = page.chosen(session, 0.5, 0)
    assert session.source == path
    assert "caf?.png is open" in updates[page.status]
    assert updates[page.picture]["alt_text"] == "caf?.png"
    assert page.chosen(session, 0.5, None) == {}


def test_an_expression_that_cannot_be_asked_fails_alone(
    shown: tuple[Session, PageEngine], tmp_path: Path
) -> None:
    session, engine = shown
    session.segment(engine, ["x" * 101, "red", "y" * 101, "green"])
    slots = session.slots(0.5)
    assert [slot.expression[0] for slot in slots] == ["x", "r", "y", "g"]
    assert ["too long" in slot.fault for slot in slots] == [True, False, True, False]
    assert [slot.rejected for slot in slots] == [False, False, False, True]
    for label in Label:
        with pytest.raises(InputError, match="no answer to label: an expression is too long"):
            session.correct(0, Correction(label, 1, np.ones((240, 320), bool)), 0.5)
    write_coco(tmp_path / "answer.json", session.name, slots)
    data = json.loads((tmp_path / "answer.json").read_text())
    assert (data["images"][0]["width"], data["images"][0]["height"]) == (320, 240)
    assert [a.get("rejected") for a in data["annotations"]] == [None, False, None, True]
    assert "too long" in data["annotations"][0]["fault"]


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("note.txt", b"hello", "neither an image nor a bag"),
        ("broken.png", b"\x89PNG\r\n\x1a\n", "neither an image nor a bag"),
        ("empty.jpg", b"", "neither an image nor a bag"),
        ("broken.mcap", b"\x89MCAP0\r\nrest", "broken.mcap"),
        ("broken.db3", b"SQLite format 3\0", "broken.db3"),
    ],
)
def test_a_bad_file_is_told_and_the_picture_stays(
    shown: tuple[Session, PageEngine], tmp_path: Path, name: str, data: bytes, words: str
) -> None:
    session, _ = shown
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=words) as told:
        session.open(tmp_path / name)
    assert str(tmp_path) not in str(told.value), "uploads lie in folders that say nothing"
    assert session.name == "blocks.png"
    assert session.answer is not None


def test_a_bag_is_scrubbed() -> None:
    session = Session()
    session.open(DEMO)
    assert session.topic == "/camera/image"
    assert session.frames() == 28
    first = session.rgb
    session.show("/camera/image", 27)
    assert session.rgb is not None
    assert first is not None
    assert (session.rgb != first).any()
    with pytest.raises(InputError, match="28 frames"):
        session.show("/camera/image", 28)
    session.close()
    assert session.frames() == 0
    with pytest.raises(InputError, match="no image is open"):
        session.look(PageEngine())


def test_a_bag_opens_at_a_camera_that_has_something_to_see(tmp_path: Path) -> None:
    """Depth beside the camera and topics without a message often come first by name."""
    session = Session()
    frames = [("/cam/aligned_depth", "16UC1"), ("/cam/color", "rgb8")]
    session.open(recorded(tmp_path / "bag", frames, silent=["/a/image"]))
    assert (session.topic, session.problem) == ("/cam/color", "")
    assert session.rgb is not None
    with pytest.raises(InputError, match="no image in this bag"):
        session.open(recorded(tmp_path / "empty", [], silent=["/a/image"]))
    assert session.topic == "/cam/color", "which stays"


def test_a_frame_that_cannot_be_read_leaves_no_other_one_open(tmp_path: Path) -> None:
    session, engine = Session(), PageEngine()
    session.open(recorded(tmp_path / "bag", [("/cam", e) for e in ("odd", "rgb8", "odd")]))
    assert "unknown encoding 'odd'; those that can be read: rgb8, " in session.problem, (
        "no node is meant"
    )
    assert session.frames() == 3, "and the others can be reached"
    session.show("/cam", 1)
    session.segment(engine, ["red"])
    session.show("/cam", 2)
    assert session.answer is None
    with pytest.raises(InputError, match="unknown encoding 'odd'"):
        session.segment(engine, ["red"])


def test_masks_are_saved_as_pictures(shown: tuple[Session, PageEngine], tmp_path: Path) -> None:
    session, _ = shown
    path = tmp_path / "masks.zip"
    write_masks(path, session.slots(0.5))
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["1_red.png", "2_blue.png"]
        data = np.frombuffer(io.BytesIO(archive.read("1_red.png")).read(), np.uint8)
    mask = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    assert mask.shape == (240, 320)
    assert set(np.unique(mask)) == {0, 255}
    assert ((mask > 0) == (picture() == (255, 0, 0)).all(-1)).all()
    with pytest.raises(InputError, match="no mask to save"):
        write_masks(path, session.slots(1.0))


def test_an_answer_is_saved_as_coco(shown: tuple[Session, PageEngine], tmp_path: Path) -> None:
    session, _ = shown
    path = tmp_path / "answer.json"
    write_coco(path, session.name, session.slots(0.5))
    data = json.loads(path.read_text())
    assert data["images"][0] == {
        "id": 1, "file_name": "blocks.png", "width": 320, "height": 240,
    }  # fmt: skip
    red, _, green = data["annotations"]
    assert (rle.decode(red["segmentation"]) > 0).sum() == 80 * 80
    assert red["bbox"] == [40, 40, 80, 80]
    assert green["rejected"]
    assert "segmentation" not in green
    with pytest.raises(InputError, match="ask first"):
        write_coco(path, "x", [])


def test_labels_become_a_bag_that_carries_its_truth(
    shown: tuple[Session, PageEngine], tmp_path: Path
) -> None:
    session, engine = shown
    with pytest.raises(InputError, match="no expression of this frame is labelled"):
        session.keep()
    painted = np.zeros((240, 320), bool)
    painted[5:15, 5:25] = True
    session.correct(0, Correction(Label.RIGHT), 0.5)
    session.correct(1, Correction(Label.PAINTED, 2, painted), 0.5)
    session.correct(2, Correction(Label.ABSENT), 0.5)
    assert session.keep() == 3
    assert session.keep() == 3, "the same frame again replaces itself"
    assert session.kept() == 3
    session.open(DEMO)
    assert session.kept() == 0
    session.segment(engine, ["red"])
    session.correct(0, Correction(Label.RIGHT), 0.5)
    session.keep()
    session.show("/camera/image", 1)
    assert session.kept() == 0
    session.show("/camera/image", 0)
    assert session.kept() == 1, "it was labelled before"
    assert len(session.labelled) == 2
    folder, archive = write_labelled(tmp_path, session.labelled)
    assert "labelled/metadata.yaml" in zipfile.ZipFile(archive).namelist()
    with Bag(folder) as bag:
        first, second = bag.truth()
        assert not bag.problems
        assert (bag.rgb(first.topic, first.stamp) == picture()).all()
        red, blue, green = first.expressions()
        assert [r.referents for r in (red, blue, green)] == [1, 2, 0]
        assert (red.mask == (picture() == (255, 0, 0)).all(-1)).all()
        assert (blue.mask == painted).all()
        assert [r.referents for r in second.expressions()] == [0], "rejected, and rightly so"
        assert [ask.expressions for ask in bag.asks("")] == [("red", "blue", "green"), ("red",)]


def test_what_was_called_right_is_what_was_seen_then(shown: tuple[Session, PageEngine]) -> None:
    """The threshold may be moved before the frame is kept: neither answer turns into its opposite."""
    session, _ = shown
    assert session.slots(0.7)[1].rejected
    assert not session.slots(0.01)[2].rejected
    session.correct(1, Correction(Label.RIGHT), 0.5)
    session.correct(2, Correction(Label.RIGHT), 0.5)
    session.keep()
    ((_, (blue, green)),) = session.labelled.values()
    assert (blue.referents, green.referents) == (1, 0)
    assert blue.mask.any()
    assert not green.mask.any()


class Slow(PageEngine):
    """Its visitor does something while it works."""

    meanwhile: Callable[[], None] = staticmethod(lambda: None)

    def segment(self, *arguments: Any, **named: Any) -> Answer:
        self.meanwhile()
        return super().segment(*arguments, **named)

    def encode(self, rgb: np.ndarray) -> Any:
        self.meanwhile()
        return super().encode(rgb)


@pytest.mark.parametrize("seen", [False, True])
def test_an_answer_is_never_shown_on_another_picture(
    shown: tuple[Session, PageEngine], tmp_path: Path, seen: bool
) -> None:
    """One that was opened while the engine looked, or answered."""
    session, engine = shown[0], Slow()
    cv2.imwrite(str(tmp_path / "other.png"), np.zeros((60, 80, 3), np.uint8))
    session.open(tmp_path / "blocks.png")
    if seen:
        session.look(engine)
    engine.meanwhile = lambda: session.open(tmp_path / "other.png")
    with pytest.raises(InputError, match="meanwhile: ask again"):
        session.segment(engine, ["red"])
    assert session.answer is None
    assert session.frame is None
    engine.meanwhile = lambda: None
    session.segment(engine, ["red"])
    assert session.answer.slots[0].size == (60, 80)


def test_one_expression_labelled_in_two_ways_is_refused(shown: tuple[Session, PageEngine]) -> None:
    session, engine = shown
    session.segment(engine, ["red", "red"])
    session.correct(0, Correction(Label.RIGHT), 0.5)
    session.correct(1, Correction(Label.RIGHT), 0.5)
    assert session.keep() == 2
    session.correct(1, Correction(Label.RIGHT, referents=2), 0.5)
    with pytest.raises(InputError, match="'red' is labelled in two ways"):
        session.keep()
    session.correct(1, Correction(Label.ABSENT), 0.5)
    with pytest.raises(InputError, match="'red' is labelled in two ways"):
        session.keep()


def test_a_bags_suffix_may_be_upper_case(tmp_path: Path) -> None:
    session = Session()
    (tmp_path / "B.MCAP").write_bytes(b"no bag")
    with pytest.raises(InputError, match="cannot be read as a bag"):
        session.open(tmp_path / "B.MCAP")


def test_pictures_of_one_file_name_keep_their_own_labels(tmp_path: Path) -> None:
    session, engine = Session(), PageEngine()
    for number, folder in enumerate(("a", "b")):
        (tmp_path / folder).mkdir()
        rgb = picture()
        rgb[-10:, -10:] = 40 * number
        cv2.imwrite(str(tmp_path / folder / "image.png"), rgb[..., ::-1])
        session.open(tmp_path / folder / "image.png")
        session.segment(engine, ["red"])
        session.correct(0, Correction(Label.RIGHT), 0.5)
        session.keep()
    corners = [int(rgb[-1, -1, 0]) for rgb, _ in session.labelled.values()]
    assert corners == [0, 40]


def test_a_photograph_is_displayed_smaller_and_its_masks_are_saved_whole(tmp_path: Path) -> None:
    rgb = cv2.resize(picture(), (4000, 3000), interpolation=cv2.INTER_NEAREST)
    cv2.imwrite(str(tmp_path / "photograph.png"), rgb[..., ::-1])
    session = Session()
    session.open(tmp_path / "photograph.png")
    session.segment(PageEngine(), ["red"])
    displayed = session.overlay(0.5, [0])
    assert displayed is not None
    assert displayed.shape == (1200, 1600, 3)
    assert session.slots(0.5)[0].size == (3000, 4000)


def test_labels_that_cannot_be(shown: tuple[Session, PageEngine], tmp_path: Path) -> None:
    session, _ = shown
    with pytest.raises(InputError, match="nothing is painted"):
        session.correct(0, Correction(Label.PAINTED, 1, np.zeros((240, 320), bool)), 0.5)
    with pytest.raises(InputError, match="differs in size"):
        session.correct(0, Correction(Label.PAINTED, 1, np.ones((2, 2), bool)), 0.5)
    with pytest.raises(InputError, match="no such answer"):
        session.correct(9, Correction(Label.RIGHT), 0.5)
    with pytest.raises(InputError, match="no frame is kept"):
        write_labelled(tmp_path, {})
