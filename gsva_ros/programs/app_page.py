"""The page of `gsva app`: open an image or a bag, ask, look, correct, save."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import cv2
import gradio as gr
import numpy as np

from gsva_ros.answer import Answer, ExpressionError, Segmenter, no_rejection
from gsva_ros.errors import InputError
from gsva_ros.overlay import Target, draw, fitted
from gsva_ros.overlay.target import Shape
from gsva_ros.programs.app_export import write_coco, write_labelled, write_masks
from gsva_ros.programs.app_session import LONGEST, Correction, Label, Mask, Session
from gsva_ros.programs.page import REQUEST, notice, outcomes, printable, problem, row_of

EXPRESSIONS = "Expressions, one per line"
NOTHING = "No answer yet."
UNLABELLED = "No expression of this frame is labelled."
#: Seconds that uploaded and saved files are kept.
KEPT = 3600
#: The brush's colours, RGB; told apart by whether red or blue is stronger.
ADDS, REMOVES = "#e69f00", "#0072b2"
#: More objects in one image are a slip of the hand.
MOST_REFERENTS = 1000
Updates = dict[Any, Any]


class Page:
    """Builds the page around one engine, which answers one visitor at a time.

    Args:
        bags: bags and images that can be chosen on the page. folder: where saved files are created.
    """

    def __init__(self, engine: Segmenter[Any], bags: Sequence[Path], folder: Path) -> None:
        self.engine = engine
        self.folder = folder
        self.known = dict(enumerate(bags))
        with gr.Blocks(
            title=f"gsva_ros: {engine.name}",
            analytics_enabled=False,
            delete_cache=(KEPT, KEPT),
            fill_width=True,
        ) as self.blocks:
            self._build()
            self._connect()

    # What is on the page

    def _build(self) -> None:
        # Gradio deletes it an hour after the page was closed; with a time to live, in an open page, too.
        self.session = gr.State(Session(), delete_callback=Session.close)
        rejects = "each one whose object is not in the image gets a rejection"
        gr.Markdown(
            "# Segment an image by words\nEach expression whose object is in the image gets a mask; "
            f"{no_rejection(self.engine) or rejects}. Model {self.engine.name} on {self.engine.device}."
        )
        start = "Open an image or a bag, then type expressions or a request."
        self.status = gr.HTML(notice(start), elem_id="status")
        with gr.Row():
            with gr.Column(scale=3, min_width=320):
                self._build_question()
            with gr.Column(scale=5, min_width=320):
                self._build_answer()
        with gr.Accordion("Save the answer", open=False, elem_id="save"):
            self._build_saving()
        with gr.Accordion("Label this frame for training", open=False, elem_id="label"):
            self._build_labelling()

    def _build_question(self) -> None:
        self.file = gr.File(
            label="Image or bag (.png, .jpg, .mcap, .db3)", height=150, elem_id="file"
        )
        self.bag = gr.Dropdown(
            [(printable(str(path)), number) for number, path in self.known.items()],
            value=None,
            label="Or choose one of these",
            elem_id="bag",
            visible=bool(self.known),
        )
        self.topic = gr.Dropdown([], label="Camera", visible=False, elem_id="topic")
        self.number = gr.Slider(0, 1, 0, step=1, label="Frame", visible=False, elem_id="number")
        self.kind = gr.Radio(
            [EXPRESSIONS, REQUEST], value=EXPRESSIONS, label="Ask with", elem_id="kind"
        )
        self.words = gr.Textbox(
            lines=6,
            max_lines=6,  # grown with its lines, Gradio's box blocks the page for seconds
            label="Expressions or request",
            elem_id="words",
            placeholder="the red mug\nthe apple",
        )
        self.run = gr.Button("Ask", variant="primary", elem_id="run")
        self.threshold = gr.Slider(
            0.0,
            1.0,
            round(self.engine.rejection_threshold, 3),
            step=0.001,
            label="Rejection threshold",
            info="An expression is rejected if p([SEG]), the model's probability that its object is in "
            "the image, is lower.",
            elem_id="threshold",
        )

    def _build_answer(self) -> None:
        self.picture = gr.Image(
            label="Image with the answer",
            interactive=False,
            format="png",
            elem_id="picture",
            buttons=["download", "fullscreen"],
        )
        self.shown = gr.CheckboxGroup(
            [], label="Shown in the image", elem_id="shown", visible=False, type="value"
        )
        self.rows = gr.HTML(outcomes([], NOTHING), elem_id="rows")
        self.text = gr.Textbox(
            label="Answer as text",
            interactive=False,
            elem_id="text",
            lines=1,
        )

    def _build_saving(self) -> None:
        with gr.Row():
            self.masks = gr.Button("Save masks (PNG)", elem_id="masks")
            self.coco = gr.Button("Save as COCO (JSON)", elem_id="coco")
        self.saved = gr.File(label="Saved file", interactive=False, visible=False, elem_id="saved")

    def _build_labelling(self) -> None:
        gr.Markdown(
            "Label each expression, then keep the frame. The labelled bag contains all frames that were "
            "kept; `gsva train` and `gsva eval bag` read it. When you paint, orange adds to the mask and "
            "blue removes from it; the outline is the answer's mask."
        )
        with gr.Row():
            self.slot = gr.Dropdown([], label="Expression", elem_id="slot", type="value")
            self.meant = gr.Number(1, label="Number of objects it refers to", elem_id="meant")
        with gr.Row():
            self.right = gr.Button(Label.RIGHT.value.capitalize(), elem_id="right")
            self.absent = gr.Button(Label.ABSENT.value.capitalize(), elem_id="absent")
            self.paint = gr.Button("Paint the mask", elem_id="paint")
        self.editor = gr.ImageEditor(
            label="Mask",
            visible=False,
            type="numpy",
            image_mode="RGBA",
            sources=(),
            transforms=(),
            layers=False,
            elem_id="editor",
            brush=gr.Brush(colors=[ADDS, REMOVES], color_mode="fixed", default_size=12),
        )
        self.painted = gr.Button("Use the painted mask", visible=False, elem_id="painted")
        self.labels = gr.HTML(notice(UNLABELLED), elem_id="labels")
        with gr.Row():
            self.keep = gr.Button("Keep this frame", variant="primary", elem_id="keep")
            self.export = gr.Button("Save the labelled bag", elem_id="export")
        self.labelled = gr.File(
            label="Labelled bag", interactive=False, visible=False, elem_id="labelled"
        )

    # What happens on it

    def _connect(self) -> None:
        look = [self.session, self.threshold]
        undecided = [self.session, gr.State(0.0)]  # whatever is typed as the threshold
        everything = [
            self.session, self.status, self.topic, self.number, self.picture, self.shown, self.rows,
            self.text, self.slot, self.labels, self.editor, self.painted, self.bag, self.file, self.saved,
        ]  # fmt: skip
        on = self._on
        on(self.file.upload, self.opened, [*undecided, self.file], everything, preprocess=True)
        # `change` rather than `input`: `input` fires twice for one choice, also when a list is left as it
        # was, and not at all when a slider is reset. For the program's own changes, nothing is left to do.
        on(self.bag.change, self.chosen, [*look, self.bag], everything)
        on(self.topic.change, self.turned, [*look, self.topic], everything)
        moved = [*look, self.topic, self.number]
        on(self.number.change, self.scrubbed, moved, everything, trigger_mode="always_last")
        asked = [*look, self.kind, self.words]
        for trigger in (self.run.click, self.words.submit):
            on(trigger, self.asked, asked, everything, concurrency_id="engine", concurrency_limit=1)
        seen = [*look, self.shown]
        drawn = [self.session, self.status, self.picture, self.rows, self.labels, self.saved]
        live: dict[str, Any] = {"trigger_mode": "always_last", "show_progress": "hidden"}
        on(self.threshold.change, self.redrawn, seen, drawn, aside=True, **live)
        on(self.shown.input, self.redrawn, seen, drawn, aside=True, **live)
        saved = [self.session, self.status, self.saved]
        on(self.masks.click, self.saved_masks, look, saved)
        on(self.coco.click, self.saved_coco, look, saved)
        labelled = [self.session, self.status, self.labels, self.editor, self.painted]
        said = [*look, self.slot, self.meant]
        on(self.right.click, self.said_right, said, labelled)
        on(self.absent.click, self.said_absent, said, labelled)
        on(self.paint.click, self.painting, [*look, self.slot], labelled)
        painted = [*undecided, self.meant, self.editor]
        on(self.painted.click, self.took_painted, painted, labelled, preprocess=True)
        kept = [self.session, self.status, self.labels, self.labelled]
        on(self.keep.click, self.kept, look, kept)
        on(self.export.click, self.exported, look, kept)

    def _on(
        self, trigger: Any, does: Callable[..., Updates], inputs: Sequence[Any],
        outputs: Sequence[Any], preprocess: bool = False, aside: bool = False, **how: Any,
    ) -> None:  # fmt: skip
        """Let an event call a method; errors are shown on the page, and stay until the next success.

        Only files need preprocessing by Gradio, whose range checks name no control and print a traceback.

        Args:
            aside: a success ends only its own problem: it may come late, when another event has had one.
                So does a return to what is open, for which there is nothing to do.
        """

        @wraps(does)
        def call(session: Session, threshold: float, *values: Any) -> Updates:
            updates: Updates = {self.session: session}
            try:
                done = does(session, number(threshold, 0, 1, "the threshold"), *values)
            except (InputError, ExpressionError, OSError) as error:
                told = problem(error)
            except MemoryError:
                self.engine.release()
                told = problem("too little memory on the device: ask for fewer expressions")
            else:
                if (aside or not done) and session.failed != does.__name__:
                    return updates | done
                session.failed = ""
                return updates | {self.status: notice("") if done else _told(session)} | done
            session.failed = does.__name__
            return updates | {self.status: told}

        how |= {"preprocess": preprocess, "api_visibility": "private"}
        trigger(call, list(inputs), list(outputs), **how)

    def opened(self, session: Session, threshold: float, path: str | None) -> Updates:
        """A file was uploaded."""
        if path is None:
            return {}
        return self._open(session, threshold, Path(path), {self.bag: None}, {self.file: None})

    def chosen(self, session: Session, threshold: float, bag: int | None) -> Updates:
        """One of the known bags was chosen."""
        path = None if bag is None else self.known.get(bag)
        if path is None or path == session.source:
            return {}
        before = next((n for n, known in self.known.items() if known == session.source), None)
        return self._open(session, threshold, path, {self.file: None}, {self.bag: before})

    def _open(
        self, session: Session, threshold: float, path: Path, opened: Updates, failed: Updates
    ) -> Updates:
        """Open a file; `opened` and `failed` also update the page, so that it names what is open alone."""
        try:
            session.open(path)
        except (InputError, OSError) as error:
            return {self.status: problem(error)} | failed
        topics = session.bag.image_topics if session.bag else []
        last = max(1, session.frames() - 1)
        more = " Type expressions or a request."
        if left_out := session.left_out():
            more += f" Not readable in it: {'; '.join(left_out[:3])}"
        return (
            self._all(session, threshold)
            | opened
            | {
                self.status: _told(session, more),
                self.topic: gr.update(
                    choices=topics, value=session.topic or None, visible=len(topics) > 1
                ),
                self.number: gr.update(maximum=last, value=0, visible=session.frames() > 1),
            }
        )

    def turned(self, session: Session, threshold: float, topic: str) -> Updates:
        """Another camera of the bag was chosen."""
        if session.bag is None or topic == session.topic:
            return {}
        session.show(topic, 0)
        last = max(1, session.frames() - 1)
        return self._all(session, threshold) | {
            self.status: _told(session),
            self.number: gr.update(maximum=last, value=0, visible=session.frames() > 1),
        }

    def scrubbed(
        self, session: Session, threshold: float, topic: str, chosen: float | None
    ) -> Updates:
        """Another frame of the bag was chosen."""
        topic = topic or session.topic
        if session.bag is None:
            return {}
        frame = int(number(chosen, 0, session.frames() - 1, "the frame"))
        if (topic, frame) == (session.topic, session.number):
            return {}
        session.show(topic, frame)
        return self._all(session, threshold) | {self.status: _told(session)}

    def asked(
        self, session: Session, threshold: float, kind: str, words: str,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Updates:  # fmt: skip
        """The model is asked."""
        lines = [line.strip() for line in (words or "").splitlines() if line.strip()]
        if not lines:
            raise InputError("nothing to ask: type expressions, one per line, or a request")
        progress(0.1, "Reading the image")
        known = session.frame is not None
        session.look(self.engine)
        progress(0.6, "Answering")
        if kind == REQUEST:
            session.ask(self.engine, " ".join(lines), threshold)
        else:
            session.segment(self.engine, lines)
        assert session.answer is not None
        done = notice(answered(session.answer, known), spoken=True)
        return self._all(session, threshold) | {self.status: done}

    def redrawn(self, session: Session, threshold: float, shown: Sequence[int]) -> Updates:
        """The threshold moved, or a mask was shown or hidden: decide and draw again, not ask again."""
        return self._drawn(session, threshold, list(shown))

    def saved_masks(self, session: Session, threshold: float) -> Updates:
        """Save the masks as a zip file."""
        path = Path(tempfile.mkdtemp(dir=self.folder)) / "masks.zip"
        write_masks(path, session.slots(threshold))
        return {self.saved: gr.update(value=str(path), visible=True)}

    def saved_coco(self, session: Session, threshold: float) -> Updates:
        """Save the answer as a JSON file."""
        path = Path(tempfile.mkdtemp(dir=self.folder)) / "answer.json"
        write_coco(path, session.name, session.slots(threshold))
        return {self.saved: gr.update(value=str(path), visible=True)}

    def said_right(
        self, session: Session, threshold: float, slot: int | None, meant: float | None
    ) -> Updates:
        """An answer was marked as right."""
        return self._correct(session, threshold, slot, Correction(Label.RIGHT, referents(meant)))

    def said_absent(
        self, session: Session, threshold: float, slot: int | None, _: float | None
    ) -> Updates:
        """An expression was marked as having no referent in the image."""
        return self._correct(session, threshold, slot, Correction(Label.ABSENT, 0))

    def painting(self, session: Session, threshold: float, slot: int | None) -> Updates:
        """Open the editor on the image, with the answer's mask outlined."""
        if slot is None or session.rgb is None:
            raise InputError("choose an expression first")
        session.check_answered(slot)
        decided = session.slots(threshold)[slot]
        seen = [] if decided.rejected else [Target.of(slot, decided)]
        # A browser takes minutes to paint on a large photograph.
        picture = draw(*fitted(session.rgb, seen, LONGEST))
        value = {"background": picture, "layers": [], "composite": None}
        session.painting = slot, threshold, picture.shape[:2]
        return {
            self.editor: gr.update(value=value, visible=True),
            self.painted: gr.update(visible=True),
        }

    def took_painted(
        self, session: Session, _: float, meant: float | None, value: dict[str, Any] | None
    ) -> Updates:
        """Use the answer's mask, as changed by painting, as the expression's mask."""
        if session.painting is None:
            raise InputError(
                "no mask is being painted: choose an expression and paint its mask first"
            )
        slot, threshold, size = session.painting  # those on the page may have changed since
        decided = session.slots(threshold)[slot]
        mask = painted_mask(value, size, decided.mask, decided.size)
        correction = Correction(Label.PAINTED, referents(meant), mask)
        return self._correct(session, threshold, slot, correction) | {
            self.editor: gr.update(value=None, visible=False),
            self.painted: gr.update(visible=False),
        }

    def _correct(
        self, session: Session, threshold: float, slot: int | None, correction: Correction
    ) -> Updates:
        if slot is None:
            raise InputError("choose an expression first")
        session.correct(int(slot), correction, threshold)
        return {self.labels: self._labels(session)}

    def kept(self, session: Session, threshold: float) -> Updates:
        """Add the frame to the labelled ones."""
        count = session.keep()
        told = f"Kept. Labels: {count}. Frames kept so far: {len(session.labelled)}."
        return {
            self.status: notice(told, spoken=True),
            self.labels: self._labels(session),
            self.labelled: gr.update(value=None, visible=False),  # it lacks this one
        }

    def exported(self, session: Session, threshold: float) -> Updates:
        """Save the labelled frames as a bag."""
        _, archive = write_labelled(Path(tempfile.mkdtemp(dir=self.folder)), session.labelled)
        return {self.labelled: gr.update(value=str(archive), visible=True)}

    # Updates of the page

    def _all(self, session: Session, threshold: float) -> Updates:
        slots = session.slots(threshold)
        names = [(f"{n}. {slot.expression}", n - 1) for n, slot in enumerate(slots, 1)]
        every = [n for _, n in names]
        return self._drawn(session, threshold, every) | {
            self.shown: gr.update(choices=names, value=every, visible=bool(names)),
            self.text: session.answer.text if session.answer else "",
            self.slot: gr.update(choices=names, value=every[0] if every else None),
            self.editor: gr.update(value=None, visible=False),
            self.painted: gr.update(visible=False),
        }

    def _drawn(self, session: Session, threshold: float, shown: Sequence[int]) -> Updates:
        rows = [row_of(n, slot) for n, slot in enumerate(session.slots(threshold))]
        seen = [f"{row.expression}: {row.outcome}" for n, row in enumerate(rows) if n in shown]
        return {
            self.picture: gr.update(
                value=session.overlay(threshold, shown),
                alt_text=printable(" · ".join([session.name, *seen])),
            ),
            self.rows: outcomes(rows, NOTHING),
            self.labels: self._labels(session),
            # It belongs to another answer or threshold.
            self.saved: gr.update(value=None, visible=False),
        }

    def _labels(self, session: Session) -> str:
        if session.answer is None or not session.corrections:
            count = session.kept()
            kept = f"This frame was kept. Labels: {count}. Keeping it again replaces them."
            return notice(kept if count else UNLABELLED)
        said = (
            f"{session.answer.slots[n].expression}: {correction.label.value}"
            for n, correction in sorted(session.corrections.items())
        )
        return notice(" · ".join(said), spoken=True)


def number(value: Any, low: float, high: float, what: str) -> float:
    """A number from a control.

    Raises:
        InputError: it is none, or out of range; `what` names the control.
    """
    if isinstance(value, int | float) and low <= value <= high:
        return float(value)
    given = "empty" if value is None else value
    raise InputError(f"{what} is a number from {low} to {high}, not {given}")


def referents(value: Any) -> int:
    """The number of objects that a person says an expression refers to; InputError if it is below 1."""
    return int(number(value, 1, MOST_REFERENTS, "the number of objects"))


def answered(answer: Answer, known: bool) -> str:
    """How long an answer took, and what is missing in it.

    Args:
        known: the image had been read for an earlier answer.
    """
    seconds, slots = answer.timings, answer.slots
    encode, took = seconds.get("encode", 0.0), sum(seconds.values())
    done = f"Answered in {took:.2f} s, {encode:.2f} s of it to read the image."
    if known:
        done = f"Answered in {took - encode:.2f} s."
    if faults := sum(bool(slot.fault) for slot in slots):
        done += f" {faults} of {len(slots)} expressions FAILED: the list says why."
    if not answer.complete:
        cut = f"The answer was cut after {answer.tokens} tokens"
        return f"{done} {cut}: what it would have named after that is unknown."
    return done if slots else "The model's answer names nothing to segment."


def _told(session: Session, more: str = "") -> str:
    """What is open, or why nothing can be shown; "" if nothing is open."""
    if session.problem:
        return problem(session.problem)
    return notice(f"{session.name} is open.{more}", spoken=True) if session.name else ""


def painted_mask(
    value: dict[str, Any] | None, size: Shape, mask: Mask | None, full: Shape
) -> Mask | None:
    """A mask, bool of size `full` or None, as changed in an image editor's value of size `size`.

    None: no mask and no painting. What is not painted over keeps the mask's own pixels.

    Raises:
        InputError: the painting is of another size.
    """
    layers = [np.asarray(layer) for layer in (value or {}).get("layers", [])]
    if not layers:
        return mask
    painted = np.zeros(full, bool) if mask is None else mask.copy()
    for layer in layers:
        if layer.shape[:2] != size:
            raise InputError("the painted mask differs in size from the image: paint it again")
        layer = cv2.resize(layer, full[::-1], interpolation=cv2.INTER_NEAREST)
        seen = layer[..., 3] > 127
        adds = layer[..., 0] > layer[..., 2]
        painted = (painted | (seen & adds)) & ~(seen & ~adds)
    return painted
