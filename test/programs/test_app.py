"""`gsva app` in a browser, used as a person would."""

from __future__ import annotations

import http.client
import json
import math
import socket
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import browser
import cv2
import numpy as np
import pytest
from contrast import luminance
from page_engine import PageEngine, picture
from starlette.datastructures import Headers

from gsva_ros.answer import Answer
from gsva_ros.bags.bag import Bag
from gsva_ros.errors import InputError
from gsva_ros.programs.app_page import Page, answered, painted_mask
from gsva_ros.programs.app_session import LONGEST, Session
from gsva_ros.programs.page import OwnPage, Row, notice, outcomes, own_folder, problem, serve

DEMO = Path(__file__).resolve().parents[2] / "demo" / "tabletop"
PNG = "blocks.png"


class App:
    """The served page, and files to open on it."""

    def __init__(self, address: str, engine: PageEngine, folder: Path) -> None:
        self.address, self.engine, self.folder = address, engine, folder


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    folder = tmp_path_factory.mktemp("files")
    cv2.imwrite(str(folder / PNG), picture()[..., ::-1])
    (folder / "note.png").write_text("this is no picture")
    engine = PageEngine()
    with own_folder() as own:
        page = Page(engine, [DEMO, folder / "note.png"], own)
        yield App(serve(page.blocks, "127.0.0.1", None), engine, folder)
        page.blocks.close(verbose=False)


@pytest.fixture(scope="module")
def chromium() -> Iterator[browser.Browser]:
    with browser.browser() as opened:
        yield opened


@pytest.fixture
def visitor(app: App, chromium: browser.Browser) -> Iterator[browser.Visitor]:
    with chromium.visit(app.address) as someone:
        yield someone


def upload(visitor: browser.Visitor, path: Path) -> None:
    visitor.page.set_input_files("#file input[type=file]", str(path))


def ask(visitor: browser.Visitor, words: str) -> None:
    visitor.page.fill("#words textarea", words)
    visitor.page.click("#run")


def told(visitor: browser.Visitor, words: str) -> None:
    visitor.page.wait_for_selector(f".notice:has-text({json.dumps(words)})")


def rows(visitor: browser.Visitor) -> list[str]:
    return [" ".join(r.split()) for r in visitor.page.locator(".outcomes li").all_inner_texts()]


def opened(visitor: browser.Visitor, app: App, words: str = "red\nblue\ngreen") -> None:
    upload(visitor, app.folder / PNG)
    told(visitor, "blocks.png is open")
    ask(visitor, words)
    told(visitor, "Answered in")


def wait_for_row(visitor: browser.Visitor, number: int, outcome: str) -> None:
    visitor.page.wait_for_selector(f".outcomes li:nth-child({number}):has-text('{outcome}')")


def threshold(visitor: browser.Visitor, value: float) -> None:
    """Type it into the slider's number field, as a keyboard user would."""
    field = visitor.page.locator("#threshold input[type=number]")
    field.fill(str(value))
    field.press("Enter")


def test_words_in_masks_and_rejections_out(app: App, visitor: browser.Visitor) -> None:
    opened(visitor, app)
    red, blue, green = rows(visitor)
    assert "SEGMENTED" in red
    assert "p([SEG]) 0.950 · predicted IoU 0.90 · box x 40, y 40, width 80, height 80 px" in red
    assert "SEGMENTED" in blue
    assert "REJECTED" in green
    assert "the model finds no referent in the image" in green
    numbers = visitor.page.locator(".outcomes .words").evaluate_all(
        "all => all.map(e => getComputedStyle(e, '::before').content)"
    )
    assert numbers == ['"1. "', '"2. "', '"3. "'], "as in the overlay"
    text = visitor.page.locator("#text textarea, #text input").first.input_value()
    assert text == "Sure, red: [SEG], blue: [SEG], green: [REJ]."
    source = visitor.page.locator("#picture img").get_attribute("src")
    assert source


def test_the_slider_decides_anew_without_the_model(app: App, visitor: browser.Visitor) -> None:
    opened(visitor, app)
    before = app.engine.asked
    threshold(visitor, 0.7)
    wait_for_row(visitor, 2, "REJECTED")
    wait_for_row(visitor, 1, "SEGMENTED")
    slider = visitor.page.locator("#threshold input[type=range]")
    slider.focus()
    slider.press("Home")
    wait_for_row(visitor, 3, "SEGMENTED")
    visitor.page.click("#threshold button")  # back to the model's own
    wait_for_row(visitor, 3, "REJECTED")
    wait_for_row(visitor, 2, "SEGMENTED")
    assert app.engine.asked == before


def test_a_number_out_of_range_is_told_by_its_name(
    app: App, visitor: browser.Visitor, capfd: pytest.CaptureFixture[str]
) -> None:
    opened(visitor, app)
    for value in ("5", "-1", ""):
        visitor.page.fill("#threshold input[type=number]", value)
        told(visitor, f"the threshold is a number from 0 to 1, not {value or 'empty'}")
    threshold(visitor, 0.5)
    visitor.page.click("#label button")
    for value in ("0", "-2", ""):
        visitor.page.fill("#meant input", value)
        visitor.page.click("#right")
        told(visitor, f"the number of objects is a number from 1 to 1000, not {value or 'empty'}")
    assert "Traceback" not in capfd.readouterr().err
    assert not visitor.page.locator(".toast-body").count()
    visitor.page.fill("#meant input", "2")
    visitor.page.click("#right")
    told(visitor, "red: answer is right")


def test_each_mask_is_switched(app: App, visitor: browser.Visitor) -> None:
    opened(visitor, app)
    first = visitor.page.locator("#picture img").get_attribute("src")
    visitor.page.locator("#shown input[type=checkbox]").first.click()
    visitor.page.wait_for_function(
        "old => document.querySelector('#picture img')?.getAttribute('src') !== old", arg=first
    )
    assert len(rows(visitor)) == 3


def test_a_free_request_is_answered(app: App, visitor: browser.Visitor) -> None:
    visitor.page.locator("#kind input").nth(1).click()
    opened(visitor, app, "hand me the red one and the green one")
    assert [row.split()[0] for row in rows(visitor)] == ["red", "green"]
    ask(visitor, "tell me a story")
    told(visitor, "names nothing to segment")


def test_an_answer_that_was_cut_is_told() -> None:
    """What the model had not written yet is not absent."""
    cut = Answer([], "", {"encode": 1.0, "decide": 0.5}, complete=False, tokens=256)
    told = "The answer was cut after 256 tokens: what it would have named after that is unknown."
    assert answered(cut, known=True) == f"Answered in 0.50 s. {told}"
    assert "names nothing to segment" in answered(replace(cut, complete=True), known=True)


def test_what_goes_wrong_is_told_in_the_page(app: App, visitor: browser.Visitor) -> None:
    ask(visitor, "red")
    told(visitor, "Problem: no image is open")
    upload(visitor, app.folder / "note.png")
    told(visitor, "neither an image nor a bag")
    opened(visitor, app, "red")
    ask(visitor, "  ")
    told(visitor, "Problem: nothing to ask")
    ask(visitor, f"red\n{'x' * 200}\nblue")
    told(visitor, "1 of 3 expressions FAILED")
    assert ["SEGMENTED" in row for row in rows(visitor)] == [True, False, True]
    assert "an expression is too long: shorten it" in rows(visitor)[1]
    ask(visitor, "memory")
    told(visitor, "too little memory")
    ask(visitor, "<img src=x onerror=alert(1)>")
    told(visitor, "Answered in")
    assert rows(visitor)[0].startswith("<img src=x"), "words are text"
    ask(visitor, "red")
    wait_for_row(visitor, 1, "SEGMENTED")


def test_a_file_that_does_not_open_is_not_named_as_what_is_open(
    app: App, visitor: browser.Visitor
) -> None:
    visitor.page.click("#bag input")
    visitor.page.locator("[role=option]").first.click()
    told(visitor, "/camera/image at 1.000 s is open")
    upload(visitor, app.folder / "note.png")
    told(visitor, "Problem: note.png: neither an image nor a bag")
    visitor.page.wait_for_selector("#file input[type=file]", state="attached")
    assert "note.png" not in visitor.page.inner_text("#file")
    ask(visitor, "red")
    told(visitor, "Answered in")
    visitor.page.click("#bag input")
    visitor.page.locator("[role=option]").last.click()
    told(visitor, "Problem: note.png: neither an image nor a bag")
    visitor.page.wait_for_function(
        "document.querySelector('#bag input').value.endsWith('tabletop')"
    )
    visitor.page.wait_for_timeout(500)
    told(visitor, "Problem: note.png")  # it stays until something succeeds


def test_a_bag_is_scrubbed(app: App, visitor: browser.Visitor) -> None:
    upload(visitor, app.folder / PNG)
    told(visitor, "blocks.png is open")
    visitor.page.click("#bag input")
    visitor.page.locator("[role=option]").first.click()
    told(visitor, "/camera/image at 1.000 s is open")
    assert PNG not in visitor.page.inner_text("#file"), "the page names what is open alone"
    field = visitor.page.locator("#number input[type=number]")
    field.fill("28")
    told(visitor, "the frame is a number from 0 to 27, not 28")
    field.fill("0")
    field.press("Enter")
    told(visitor, "/camera/image at 1.000 s is open")  # as it was
    field.fill("27")
    field.press("Enter")
    told(visitor, "/camera/image at 7.750 s is open")
    ask(visitor, "green")
    wait_for_row(visitor, 1, "REJECTED")
    visitor.page.click("#bag input")
    visitor.page.keyboard.press("Tab")
    visitor.page.wait_for_timeout(500)
    told(visitor, "Answered in")  # the list was left as it was
    assert field.input_value() == "27"
    assert len(rows(visitor)) == 1
    visitor.page.click("#number button")
    told(visitor, "/camera/image at 1.000 s is open")
    assert rows(visitor) == []


def test_a_bag_is_opened_once_for_a_choice(app: App, visitor: browser.Visitor) -> None:
    """Gradio tells of a choice in a list twice, at once."""
    opened, open_ = [], Session.open
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Session, "open", lambda own, path: opened.append(path) or open_(own, path))
        visitor.page.click("#bag input")
        visitor.page.locator("[role=option]").first.click()
        told(visitor, "is open")
        visitor.page.wait_for_timeout(500)
    assert opened == [DEMO]


def test_masks_and_results_are_downloaded(
    app: App, visitor: browser.Visitor, tmp_path: Path
) -> None:
    opened(visitor, app)
    visitor.page.click("#save button")
    for button, name in (("#masks", "masks.zip"), ("#coco", "answer.json")):
        visitor.page.click(button)
        link = visitor.page.locator(f"#saved a[download='{name}']")
        link.wait_for()
        with visitor.page.expect_download() as download:
            link.click()
        download.value.save_as(tmp_path / name)
    assert zipfile.ZipFile(tmp_path / "masks.zip").namelist() == ["1_red.png", "2_blue.png"]
    captions = [
        a["caption"] for a in json.loads((tmp_path / "answer.json").read_text())["annotations"]
    ]
    assert captions == ["red", "blue", "green"]
    ask(visitor, "blue")
    link.wait_for(state="detached")  # it is of the answer before


def test_a_labelled_bag_is_made_by_looking(
    app: App, visitor: browser.Visitor, tmp_path: Path
) -> None:
    page = visitor.page
    opened(visitor, app)
    page.click("#label button")
    page.click("#keep")
    told(visitor, "no expression of this frame is labelled: label one")
    page.click("#right")
    told(visitor, "red: answer is right")

    def choose(number: int) -> None:
        page.click("#slot input")
        page.locator("[role=option]").nth(number).click()

    choose(2)
    page.click("#absent")
    told(visitor, "green: not in the image")
    choose(1)
    page.click("#paint")
    canvas = page.locator("#editor canvas").first
    canvas.wait_for()
    page.wait_for_timeout(1500)  # the editor fits the picture before it can be painted on
    canvas.scroll_into_view_if_needed()
    place = canvas.bounding_box()
    assert place is not None
    x, y = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
    page.mouse.move(x - 60, y)
    page.mouse.down()
    for step in range(12):
        page.mouse.move(x - 60 + 10 * step, y)
    page.mouse.up()
    page.wait_for_timeout(500)
    page.click("#painted")
    told(visitor, "blue: mask painted")
    page.click("#keep")
    told(visitor, "Kept. Labels: 3. Frames kept so far: 1.")
    page.click("#export")
    link = page.locator("#labelled a[download]")
    link.wait_for()
    with page.expect_download() as download:
        link.click()
    download.value.save_as(tmp_path / "labelled.zip")
    zipfile.ZipFile(tmp_path / "labelled.zip").extractall(tmp_path)
    with Bag(tmp_path / "labelled") as bag:
        (truth,) = bag.truth()
        known = {e.expression: e for e in truth.expressions()}
    assert [known[w].referents for w in ("red", "blue", "green")] == [1, 1, 0]
    assert (known["red"].mask == (picture() == (255, 0, 0)).all(-1)).all()
    blue = (picture() == (0, 0, 255)).all(-1)
    assert known["blue"].mask is not None
    assert (known["blue"].mask & blue).sum() == blue.sum(), "the answer's mask was the first paint"
    assert (known["blue"].mask & ~blue).sum() > 100, "and the brush added to it"
    page.click("#keep")
    link.wait_for(state="detached")  # a frame was kept since


def test_a_large_photograph_is_painted_on_in_a_reduced_picture(tmp_path: Path) -> None:
    """A browser takes minutes on the whole; what is not painted over keeps the model's pixels."""
    large = np.repeat(np.repeat(picture(), 8, 0), 8, 1)
    page, session = Page(PageEngine(), [], tmp_path), Session(rgb=large)
    session.segment(PageEngine(), ["blue"])
    shown = page.painting(session, 0.5, 0)[page.editor]["value"]["background"]
    assert max(shown.shape) == LONGEST < max(large.shape)
    layer = np.zeros((*shown.shape[:2], 4), np.uint8)
    height, width = shown.shape[:2]
    layer[: height // 4, : width // 4] = (255, 128, 0, 255)
    page.took_painted(session, 0.5, 1, {"layers": [layer]})
    mask = session.corrections[0].mask
    corner = np.zeros(large.shape[:2], bool)
    corner[: large.shape[0] // 4, : large.shape[1] // 4] = True
    blue = (large == (0, 0, 255)).all(-1)
    assert mask is not None
    assert np.array_equal(mask, blue | corner)
    with pytest.raises(InputError, match="differs in size"):
        painted_mask({"layers": [layer[1:]]}, (height, width), mask, mask.shape)


def test_two_people_do_not_see_each_others_pictures(
    app: App, chromium: browser.Browser, tmp_path: Path
) -> None:
    green = np.full((100, 100, 3), (0, 255, 0), np.uint8)
    cv2.imwrite(str(tmp_path / "green.png"), green)
    with chromium.visit(app.address) as one, chromium.visit(app.address) as other:
        upload(one, app.folder / PNG)
        told(one, "blocks.png is open")
        ask(other, "red")
        told(other, "no image is open")
        upload(other, tmp_path / "green.png")
        told(other, "green.png is open")
        for someone in (one, other):
            ask(someone, "red\ngreen")
            told(someone, "Answered in")
        assert [r.split()[-0] for r in rows(one)] == ["red", "green"]
        assert "SEGMENTED" in rows(one)[0]
        assert "REJECTED" in rows(other)[0]
        assert "SEGMENTED" in rows(other)[1]


def test_hundreds_of_expressions_do_not_block_the_page(app: App, visitor: browser.Visitor) -> None:
    box = visitor.page.locator("#words textarea")
    before = box.bounding_box()
    assert before is not None
    opened(visitor, app, "\n".join(f"thing {n}" for n in range(60)))
    after = box.bounding_box()
    assert after is not None
    assert after["height"] == before["height"], "if it grew, each line would lay out the page anew"
    assert (after["x"], after["width"]) == (before["x"], before["width"]), (
        "nor does the page shrink"
    )
    assert len(rows(visitor)) == 60
    choices = visitor.page.locator("#shown").bounding_box()
    assert choices is not None
    assert choices["height"] < 600, "they scroll"


@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_is_cut_off(app: App, chromium: browser.Browser, width: int) -> None:
    with chromium.visit(app.address, width) as someone:
        opened(someone, app, "x" * 98 + "\n" + "the very long expression " * 3)
        assert someone.overflow() <= 0
        for selector in (
            "#run", "#words textarea", "#picture img", ".outcomes li", "#shown label span"
        ):  # fmt: skip
            box = someone.page.locator(selector).first.bounding_box()
            assert box is not None
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width
        smallest = someone.page.evaluate(
            "Math.min(...[...document.querySelectorAll('.outcomes span, .notice')]"
            ".filter(e => e.textContent).map(e => parseFloat(getComputedStyle(e).fontSize)))"
        )
        assert smallest >= 13


def test_the_keyboard_is_enough(app: App, visitor: browser.Visitor) -> None:
    page = visitor.page
    upload(visitor, app.folder / PNG)
    told(visitor, "blocks.png is open")
    page.focus("#words textarea")
    page.keyboard.type("red")
    page.keyboard.press("Tab")
    assert (
        page.evaluate("document.activeElement.id || document.activeElement.closest('[id]').id")
        == "run"
    )
    page.keyboard.press("Enter")
    told(visitor, "Answered in")
    reached = set()
    page.focus("body")
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.closest('[id]')?.id"))
    for name in ("run", "threshold", "shown", "bag"):
        inside = f"document.getElementById({json.dumps(name)})"
        ids = page.evaluate(
            f"[{inside}.id, ...[...{inside}.querySelectorAll('[id]')].map(e => e.id)]"
        )
        assert reached & set(ids), name


def test_the_page_is_for_every_reader(app: App, chromium: browser.Browser) -> None:
    """A message is seen wherever one is, images and controls have names, and text has contrast."""
    with chromium.visit(app.address, 400) as someone:
        opened(someone, app)
        page = someone.page
        assert page.get_attribute("html", "lang") == "en"
        alt = page.get_attribute("#picture img", "alt")
        assert alt == "blocks.png · red: SEGMENTED · blue: SEGMENTED · green: REJECTED"
        assert page.locator(".outcomes [aria-hidden=true]").count() == 6
        ends = page.locator("#picture :is([data-testid=block-label], button[title])").evaluate_all(
            "all => all.map(e => e.getBoundingClientRect().bottom)"
        )
        picture = page.locator("#picture img").bounding_box()
        assert picture is not None
        assert len(ends) == 3
        assert max(ends) <= picture["y"], "nothing is on the picture but what is drawn in it"
        page.click("#label button")
        page.click("#keep")
        told(someone, "no expression of this frame is labelled")
        place = page.locator("#status .problem").bounding_box()
        assert place is not None
        assert 0 <= place["y"] < 900, "in the window, far below its place"
        assert page.get_attribute("#status .problem", "role") == "alert"
        beneath = page.locator("#words [data-testid=block-info]").evaluate(
            "(label, y) => { scrollBy(0, label.getBoundingClientRect().top - y);"
            " const { x, y: top } = label.getBoundingClientRect();"
            " return document.elementFromPoint(x + 5, top + 5).closest('#status') !== null }",
            place["y"] + 5,
        )
        assert beneath, "a control's label is not seen through it"
        for unnamed in ("input", "textarea", "button"):
            names = page.locator(f"{unnamed}:visible").evaluate_all(
                "all => all.map(e => e.ariaLabel || e.innerText || e.labels?.length || e.title"
                " || e.querySelector('[alt], [aria-label]') || e.outerHTML)"
            )
            assert not [name for name in names if str(name).startswith("<")]
        colours = page.evaluate(
            "['#run', '#keep'].map(s => getComputedStyle(document.querySelector(s)))"
            ".map(s => [s.color, s.backgroundColor])"
        )
        for pair in colours:
            low, high = sorted(luminance(colour) for colour in pair)
            assert (high + 0.05) / (low + 0.05) >= 4.5


def test_labels_outlive_an_idle_hour() -> None:
    """A state with a time to live is deleted even if its page is open."""
    with own_folder() as own:
        page = Page(PageEngine(), [], own)
        assert page.session.time_to_live == math.inf


def test_it_listens_to_this_machine_alone(app: App) -> None:
    port = int(app.address.rstrip("/").rpartition(":")[2])
    listening = [
        line.split()[1]
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if line.split()[3] == "0A"
    ]
    assert f"0100007F:{port:04X}" in listening
    assert f"00000000:{port:04X}" not in listening


@pytest.mark.parametrize(
    ("host", "origin", "told"),
    [
        ("127.0.0.1:{}", None, ""),
        ("localhost:{}", "http://localhost:{}", ""),
        ("[::1]:{}", "http://[::1]:{}", ""),
        ("robot:{}", "http://robot:{}", ""),
        ("Robot.local", "https://robot.local", ""),
        ("127.0.0.1:{}", "http://elsewhere.example", "a page of http://elsewhere.example"),
        ("127.0.0.1:{}", "null", "a page of null"),
        ("127.0.0.1:{}", "http://127.0.0.1:{}.example", "a page of http://127.0.0.1:"),
        ("127.0.0.1:{}", "http://127.0.0.1:80", "a page of http://127.0.0.1:80"),
        ("10.0.0.5:{}", "http://elsewhere.example", "a page of http://elsewhere.example"),
        ("elsewhere.example:{}", "http://elsewhere.example:{}", "--host elsewhere.example"),
        ("elsewhere.example:{}", None, "--host elsewhere.example"),
        ("127.0.0.1.example", None, "--host 127.0.0.1.example"),
        ("local.example", None, "--host local.example"),
        ("robot.local.", None, "--host robot.local."),
        ("[a.example]:{}", None, "--host [a.example]"),
    ],
)
def test_another_sites_page_cannot_use_this_one(
    app: App, host: str, origin: str | None, told: str
) -> None:
    """Through a browser that can reach it, whatever name of this machine that site gives."""
    port = app.address.rstrip("/").rpartition(":")[2]
    asked = http.client.HTTPConnection("127.0.0.1", int(port))
    headers = {"Host": host.format(port)} | ({"Origin": origin.format(port)} if origin else {})
    asked.request("GET", "/config", headers=headers)
    answer = asked.getresponse()
    text = answer.read().decode()
    assert answer.status == (403 if told else 200)
    assert not told or (told in text and len(text.splitlines()) == 1)


def test_the_name_of_host_is_this_machines() -> None:
    page = OwnPage(None, "Robot.lab.example")
    assert not page._foreign(Headers({"host": "robot.lab.example:7860"}))
    assert page._foreign(Headers({"host": "elsewhere.example:7860"}))


def test_nothing_that_is_told_is_markup() -> None:
    """Reasons are others' words, too; and a file's name need not be UTF-8."""
    words = "<b>\udcff"
    told = outcomes([Row(1, "<b>", "<b>", "<b>")], "") + notice(words) + problem(words)
    assert "<b>" not in told
    assert told.count("&lt;b&gt;") == 5
    assert told.count("&lt;b&gt;?") == 2


def test_a_taken_port_is_told() -> None:
    with socket.socket() as taken, own_folder() as own:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        page = Page(PageEngine(), [], own)
        with pytest.raises(InputError, match=f"--port {port}"):
            serve(page.blocks, "127.0.0.1", port)
