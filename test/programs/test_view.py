"""`gsva_view` in a browser, on a real node with an engine that finds pure colours."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import browser
import gradio as gr
import harness
import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from harness import FAKE, Client, NodeProcess, blocks
from sensor_msgs.msg import CompressedImage, Image

from gsva_ros.conversions import fill_image
from gsva_ros.programs import view_page
from gsva_ros.programs.page import own_folder, serve
from gsva_ros.programs.view_page import (
    EXPRESSIONS,
    FOLLOW,
    ROWS,
    ViewPage,
    captions,
    health,
    listed,
)
from gsva_ros.programs.watcher import Camera, Ended, Watcher


@pytest.fixture(scope="module", autouse=True)
def isolated() -> None:
    harness.isolate()


class Stage:
    """A node with two cameras and depth, a robot that publishes frames on all, and the view."""

    def __init__(self) -> None:
        topics = {"image_topics": "[image, wrist]", "depth_topics": "[aligned_depth]"}
        self.node = NodeProcess(FAKE, topics)
        self.robot = Client(cameras=("image", "wrist", "aligned_depth"))
        self.robot.connect(self.node)
        self.watcher = Watcher("/test/gsva")
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.film, daemon=True)
        self.thread.start()
        cameras = ["/test/image", "/test/wrist"]
        self.robot.wait(lambda: self.watcher.cameras() == cameras, what="cameras without depth")

    def film(self) -> None:
        """Frames on all topics until stopped; the wrist's is all green."""
        rgb, _ = blocks()
        green = np.full((60, 80, 3), (0, 255, 0), np.uint8)
        depth = fill_image(Image(), np.full(rgb.shape[:2], 1000, np.uint16), "16UC1")
        while not self.stop.wait(0.1):
            now = time.time()
            self.robot.frame(rgb, stamp=now, camera="image")
            self.robot.frame(green, stamp=now, camera="wrist")
            self.robot.cameras["aligned_depth"].publish(depth)

    def close(self) -> None:
        self.stop.set()
        self.thread.join(5.0)
        self.watcher.close()
        self.robot.close()
        self.node.close()


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    made.close()


@pytest.fixture(scope="module")
def address(stage: Stage) -> Iterator[str]:
    with own_folder():
        page = ViewPage(stage.watcher)
        yield serve(page.blocks, "127.0.0.1", None)
        page.blocks.close(verbose=False)


@pytest.fixture(scope="module")
def chromium() -> Iterator[browser.Browser]:
    with browser.browser() as opened:
        yield opened


@pytest.fixture
def visitor(address: str, chromium: browser.Browser) -> Iterator[browser.Visitor]:
    with chromium.visit(address) as someone:
        someone.page.wait_for_selector("#newest img")
        yield someone


def row(visitor: browser.Visitor, expression: str, outcome: str) -> str:
    """Wait for an expression's row with an outcome; its text."""
    found = visitor.page.locator(
        f"#ended li:has-text({json.dumps(expression)}):has-text({json.dumps(outcome)})"
    ).first
    found.wait_for()
    return " ".join(found.inner_text().split())


def ask(visitor: browser.Visitor, words: str) -> None:
    visitor.page.fill("#words textarea, #words input", words)
    visitor.page.click("#ask")
    visitor.page.wait_for_selector("#status .notice")


def test_the_newest_frame_is_shown_and_moves_on(visitor: browser.Visitor) -> None:
    caption = visitor.page.locator("#newest figcaption")
    assert "Newest frame" in caption.inner_text()
    first = caption.inner_text()
    visitor.page.wait_for_function(
        "old => document.querySelector('#newest figcaption').innerText !== old", arg=first
    )


def test_a_page_that_gets_no_updates_says_so(
    stage: Stage, visitor: browser.Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view_page, "OVERDUE", 3.0)
    told = visitor.page.locator("#overdue .problem")
    told.wait_for(state="attached")
    for _ in range(10):
        visitor.page.wait_for_timeout(500)
        assert not told.is_visible()
    with stage.watcher._lock:  # as if the network was down
        told.wait_for()
        assert "what is shown is old" in told.inner_text()
    told.wait_for(state="hidden")


def test_a_frame_that_cannot_be_read_is_not_called_missing() -> None:
    """A video stream under the name of a compressed camera, for example."""
    with closing(Watcher("/test/nobody")) as watcher:
        watcher._cameras["/image/compressed"] = Camera()
        assert "No frame on /image/compressed yet" in ViewPage(watcher).look("/image/compressed")[4]
        watcher._on_frame("/image/compressed", CompressedImage(format="h264", data=[0, 0, 0, 1]))
        told = ViewPage(watcher).look("/image/compressed")[4]
    assert "Problem: the newest frame cannot be shown: /image/compressed: " in told


def test_a_camera_that_is_gone_is_not_offered() -> None:
    with closing(Watcher("/test/nobody")) as watcher:
        page = ViewPage(watcher)
        watcher._cameras = {"/a": Camera(), "/b": Camera()}
        assert page.look("/b")[2] == gr.update(choices=["/a", "/b"])
        del watcher._cameras["/a"]
        assert page.look("/b")[2] == gr.update(choices=["/b"])
        assert page.look("/a")[2] == gr.update(choices=["/b"], value="/b")
        del watcher._cameras["/b"]
        seen = page.look("/b")
        assert seen[2] == gr.update(choices=[], value=None)
        assert "No camera yet" in seen[4]


def test_outcomes_come_with_words_that_tell_them_apart(visitor: browser.Visitor) -> None:
    ask(visitor, "red; purple; raise")
    failed = row(visitor, "raise", "FAILED")
    assert "⚠" in failed
    ask(visitor, "red; purple")
    assert "■" in row(visitor, "red", "SEGMENTED")
    assert "ms" in row(visitor, "red", "SEGMENTED")
    assert "s old" in row(visitor, "red", "SEGMENTED")
    assert "∅" in row(visitor, "purple", "REJECTED")
    visitor.page.wait_for_selector("#answer img")
    size = visitor.page.locator("#answer img").evaluate("e => [e.naturalWidth, e.naturalHeight]")
    assert size[0] >= 480, "a small image is enlarged, so that its labels cover no object"


def test_expired_and_cancelled_are_seen(stage: Stage, visitor: browser.Visitor) -> None:
    from builtin_interfaces.msg import Duration, Time

    later = Time(sec=2**31 - 1)
    stage.robot.ask(["red"], id="late", not_before=later, deadline=Duration(nanosec=1000))
    assert "⏱" in row(visitor, "late", "EXPIRED")
    stage.robot.ask(["red"], id="dropped", not_before=later)
    stage.robot.ask(id="dropped", mode=2)
    cancelled = row(visitor, "dropped", "CANCELLED")
    assert "⊘" in cancelled
    assert "frame" not in cancelled, "there was none"


def test_an_instruction_on_every_frame_is_stopped(visitor: browser.Visitor) -> None:
    visitor.page.locator("#mode input").nth(1).click()
    ask(visitor, "green")
    row(visitor, "green", "SEGMENTED")
    visitor.page.click("#stop")
    visitor.page.wait_for_selector("#status .notice:has-text('Stopped')")
    assert "⊘" in row(visitor, "green", "CANCELLED")


def test_an_instruction_on_every_frame_ends_after_its_page_is_closed(
    stage: Stage, address: str, chromium: browser.Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_IS_E2E_TEST", "1")  # after a second instead of an hour
    with chromium.visit(address) as visitor:
        visitor.page.wait_for_selector("#newest img")
        visitor.page.locator("#mode input").nth(1).click()
        ask(visitor, "left behind")
        row(visitor, "left behind", "REJECTED")

    def ended() -> list[str]:
        return [e.outcome for e in stage.watcher.outcomes() if e.expression == "left behind"]

    stage.robot.wait(lambda: ended() == ["CANCELLED"], what="the end of the instruction")


def test_each_visitor_has_a_camera_of_its_own(
    address: str, chromium: browser.Browser, visitor: browser.Visitor
) -> None:
    with chromium.visit(address) as other:
        other.page.wait_for_selector("#newest img")
        other.page.wait_for_function("document.querySelector('#camera input').value !== ''")
        other.page.click("#camera input")
        other.page.locator("[role=option]:has-text('wrist')").click()
        ask(other, "green; red")
        assert "/test/wrist" in row(other, "red", "REJECTED")
        assert other.page.locator("#camera input").input_value() == "/test/wrist"
        assert visitor.page.locator("#camera input").input_value() == "/test/image"


def test_nothing_to_ask_is_told(visitor: browser.Visitor) -> None:
    visitor.page.click("#ask")
    visitor.page.wait_for_selector("#status .problem:has-text('nothing to ask')")


def test_health_is_told_in_words(visitor: browser.Visitor) -> None:
    visitor.page.wait_for_selector("#health:has-text('active')")
    shown = visitor.page.locator("#health").inner_text()
    assert "frames received per second" in shown


def test_a_silent_node_is_told() -> None:
    assert "no diagnostics" in health("", "", {}, float("inf"))
    assert "for 9 s" in health("OK", "active", {}, 9.2)
    assert "Problem: ERROR: stuck" in health("ERROR", "stuck", {"state": "<b>"}, 0.1)
    assert "&lt;b&gt;" in health("OK", "active", {"state": "<b>"}, 0.1)
    assert "<dd>active" in health("OK", "active", {"state": "active"}, 0.1)
    assert health("WARN", "stuck", {"last error": "stuck"}, 0.1).count("stuck") == 1, "told once"
    assert "role=" not in health("ERROR", "stuck", {}, 0.1), "it would be announced every second"


def test_an_instruction_that_nobody_receives_is_told() -> None:
    with closing(Watcher("/elsewhere/gsva")) as watcher:  # in a namespace of no other test's node
        mine, told = ViewPage(watcher).ask([], None, "red", EXPRESSIONS, FOLLOW)
        assert (mine, watcher._repeated) == ([], {})
        assert "not sent: nobody receives" in told
        assert "no instruction on every frame" in ViewPage(watcher).stop([])[1]
        mine = [watcher.ask(["red"], "", "", True)]
        assert ViewPage(watcher).stop(mine) == (mine, told), "the node may be back"
        assert list(watcher._repeated) == mine


def test_an_answer_that_is_old_or_without_its_frame_is_told() -> None:
    nan = float("nan")
    assert captions(2.0, 0.1, nan) == ("Last answer, frame at 2.000 s", "No answer yet.")
    assert captions(2.0, 7.0, nan)[0] == "Last answer, frame at 2.000 s, received 7 s ago"
    told = "last answer, frame at 3.000 s, is not drawn: this page does not hold that frame"
    seen = "frame at 2.000 s, received 5 min ago"
    assert captions(2.0, 300.0, 3.0) == (f"Answer on the {seen}; the {told}", f"The {told}.")


def test_outcomes_beyond_the_list_are_counted() -> None:
    ended = [
        Ended("a", "/image", slot, f"thing {slot}", "REJECTED", "", 0.1, 0.1, time.monotonic())
        for slot in range(ROWS + 3)
    ]
    assert "No outcome yet" in listed([])
    assert (listed(ended[:ROWS]).count("<li>"), "more" in listed(ended[:ROWS])) == (ROWS, False)
    assert (listed(ended).count("<li>"), "and 3 more" in listed(ended)) == (ROWS, True)


def test_an_outcome_that_is_no_longer_fresh_says_how_old_it_is() -> None:
    """A node that was killed ends no instruction: its last answer would seem to be going on."""
    for seconds, told in ((0.0, ""), (7.0, "7 s ago · "), (300.0, "5 min ago · ")):
        came = time.monotonic() - seconds
        html = listed([Ended("a", "/image", 0, "red", "REJECTED", "no", 0.1, 0.01, came)])
        assert f'"detail">{told}no · after 100 ms · frame 0.01 s old' in html


@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_is_cut_off(address: str, chromium: browser.Browser, width: int) -> None:
    with chromium.visit(address, width) as someone:
        someone.page.wait_for_selector("#newest img")
        ask(someone, "the very long expression that nobody would ever want to type " * 2)
        row(someone, "the very long expression", "REJECTED")
        assert someone.overflow() <= 0
        box = someone.page.locator("#newest img").bounding_box()
        assert box is not None
        assert box["x"] + box["width"] <= width


def test_it_is_never_in_the_nodes_way(stage: Stage) -> None:
    """It subscribes to nothing that the node would have to make for it."""
    node = stage.watcher.node
    for topic in ("overlay", "overlay/compressed", "label_image", "segmentation_3d"):
        assert node.count_subscribers(f"/test/{topic}") == 0
    subscribed = node.get_subscriber_names_and_types_by_node("gsva_view", "/test")
    names = {name for name, _ in subscribed}
    assert {"/test/segmentation", "/diagnostics", "/test/image", "/test/wrist"} <= names


def test_levels_are_all_known() -> None:
    from gsva_ros.programs.watcher import LEVELS

    levels = {DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR}
    assert levels <= set(LEVELS)


def test_the_program_says_where_it_is_and_ends_on_request() -> None:
    from pathlib import Path

    from ament_index_python.packages import get_package_prefix

    program = Path(get_package_prefix("gsva_ros")) / "lib" / "gsva_ros" / "gsva_view"
    if not program.exists():
        pytest.skip("this build has no gsva_view: build again")
    with subprocess.Popen([str(program)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "http://127.0.0.1:" in line
        process.send_signal(2)
        assert process.wait(20) == 130
    assert not rclpy.ok(), "this process is not part of it"
