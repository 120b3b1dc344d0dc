"""The demo: plays a bag through the node and asks it for objects.

Three processes over ROS 2: the node, the player, and this client, which sends the instructions, prints one
line per answer, and writes a page (index.html), images and a bag of results.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import rclpy
from ament_index_python.packages import get_package_prefix, get_package_share_directory
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from tqdm import tqdm

from gsva_ros.arguments import Parser, add_device, add_model, rate
from gsva_ros.bags.bag import Bag
from gsva_ros.eval.asks import Script, read_script
from gsva_ros.image_files import write_rgb
from gsva_ros.masks import box_text, mask_box
from gsva_ros.msg import Instruction, Segmentation
from gsva_ros.overlay import Target, colour_of, poster
from gsva_ros.programs.demo_page import Card, Line, headline, verdict, write_page
from gsva_ros.programs.results import ResultsBag
from gsva_ros.programs.signals import end_alike
from gsva_ros.ros import qos
from gsva_ros.ros.answers import outcome_name, targets_in
from gsva_ros.ros.start import init
from gsva_ros.stamps import SECOND, fill, nanoseconds
from gsva_ros.truth import FrameTruth, read_truth

#: File that marks a folder as an earlier run's output.
MARK = ".gsva_demo"


class Demo:
    """Sends the script's instructions and keeps the answers."""

    def __init__(self, script: Script, bag: Bag, truth: Sequence[FrameTruth], output: Path) -> None:
        self.output = output
        self.files: list[Path] = []
        self.cards: list[Card] = []
        self._truth = {(frame.topic, frame.stamp): frame for frame in truth}
        self._script = script.instructions
        self._image_topic = script.image_topic
        self._bag, self._stamps = bag, bag.frames(script.image_topic).keys()
        self._waiting = {entry.id for entry in self._script if not entry.repeat}
        self._received: list[Segmentation] = []
        self.node = rclpy.create_node("gsva_demo")
        self.node.create_subscription(Segmentation, "segmentation", self._on_answer, qos.RELIABLE)
        self._instructions = self.node.create_publisher(Instruction, "instruction", qos.RELIABLE)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)

    def _on_answer(self, msg: Segmentation) -> None:
        self._received.append(msg)

    def spin(self, seconds: float) -> None:
        """Spin the executor for `seconds`."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and rclpy.ok():
            self._executor.spin_once(timeout_sec=0.02)

    def connect(self, node: subprocess.Popen[bytes], seconds: float) -> None:
        """Wait until the node has loaded its model and discovered this client."""
        end = time.monotonic() + seconds
        while self._instructions.get_subscription_count() == 0 or not self.node.count_publishers(
            "segmentation"
        ):
            _check_running(node)
            if time.monotonic() > end:
                raise RuntimeError(f"no node found within {seconds:.0f} s")
            self.spin(0.1)
        self.spin(0.5)

    def send(self) -> None:
        """Send every instruction, each with the stamp of the first frame it applies to."""
        begin = min(self._stamps)
        for entry in self._script:
            msg = Instruction(id=entry.id, text=entry.text, expressions=entry.expressions)
            msg.mode = Instruction.EVERY_FRAME if entry.repeat else Instruction.ONCE
            first = begin + round(entry.at * SECOND)
            fill(msg.not_before, first)
            self._instructions.publish(msg)

    def collect(
        self,
        node: subprocess.Popen[bytes],
        player: subprocess.Popen[bytes],
        bag: ResultsBag,
        grace: float,
    ) -> None:
        """Show answers until all have arrived, or until `grace` seconds after the end of the bag."""
        last = max(self._stamps)
        end = None
        written: set[int] = set()
        with tqdm(total=len(self._waiting), unit="answer", desc="demo", ascii=True) as bar:
            while rclpy.ok():
                _check_running(node)
                self.spin(0.1)
                taken, self._received = self._received, []
                for msg in taken:
                    self._show(msg, bag, written)
                    if msg.instruction_id in self._waiting:
                        self._waiting.discard(msg.instruction_id)
                        bar.update()
                if player.poll() is not None:
                    if player.returncode != 0:
                        raise RuntimeError(f"the player ended with status {player.returncode}")
                    end = end or time.monotonic() + grace
                    idle = not taken and time.monotonic() > end - grace + 1.0
                    if (not self._waiting and idle) or time.monotonic() > end:
                        break
        if self._waiting:
            unanswered = ", ".join(sorted(self._waiting))
            raise RuntimeError(f"no answer to {unanswered} (bag ended at {last / SECOND:.2f} s)")

    def _show(self, msg: Segmentation, bag: ResultsBag, written: set[int]) -> None:
        stamp = nanoseconds(msg.header.stamp)
        milliseconds = 1000 * (msg.timings.queue + msg.timings.total)
        targets = targets_in(msg)
        lines = self._lines(msg, targets)
        for line in lines:
            right = line.verdict.right
            judged = "" if right is None else f"  {'right' if right else 'WRONG'}: "
            tqdm.write(
                f"frame {stamp / SECOND:7.3f}  {line.expression:<32} {line.outcome}, {line.detail}  "
                f"[{milliseconds:.0f} ms]{judged}{line.verdict.text if judged else ''}",
                file=sys.stdout,
            )
        bag.write("/segmentation", msg, stamp)
        for rejection in msg.rejections:
            bag.write("/rejection", rejection, stamp)
        picture = None
        if stamp in self._stamps and targets:
            if stamp not in written:
                written.add(stamp)
                kind, raw = self._bag.published(self._image_topic, stamp)
                bag.write_raw(self._image_topic, kind, raw, stamp)
            picture = poster(self._bag.rgb(self._image_topic, stamp), targets)
            path = self.output / f"{stamp / SECOND:07.3f}_{_safe(msg.instruction_id)}.png"
            write_rgb(path, picture)
            self.files.append(path)
        self.cards.append(Card(msg.instruction_id, stamp / SECOND, milliseconds, picture, lines))

    def _lines(self, msg: Segmentation, targets: Sequence[Target]) -> list[Line]:
        """An answer as lines to print, one per expression."""
        frame = self._truth.get((self._image_topic, nanoseconds(msg.header.stamp)))
        truth = {each.expression: each for each in frame.expressions()} if frame else {}
        drawn = {target.slot: target for target in targets}
        lines = []
        for outcome in msg.outcomes:
            target, detail = drawn.get(outcome.slot), outcome.reason
            mask = None if target is None else target.mask
            if target is not None:
                detail = f"p([SEG]) {target.p_seg:.3f}"
            if mask is not None:
                box = box_text(mask_box(mask) or (0, 0, 0, 0))
                detail += f", {int(mask.sum())} pixels, {box}"
            judged = verdict(truth.get(outcome.expression), mask, decided=target is not None)
            name = outcome_name(outcome.outcome)
            lines.append(Line(outcome.expression, colour_of(outcome.slot), name, detail, judged))
        return lines


def _check_running(node: subprocess.Popen[bytes]) -> None:
    if node.poll() is not None:
        raise RuntimeError(f"the node ended with status {node.returncode}")


@contextmanager
def process(name: str, arguments: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program of this package with its output in `log`; ended on exit at the latest."""
    program = Path(get_package_prefix("gsva_ros")) / "lib" / "gsva_ros" / name
    with open(log, "wb") as output:
        # Its own session: Ctrl-C reaches only this client, which then ends the others in order.
        child = subprocess.Popen(
            [str(program), *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield child
        finally:
            try:
                child.send_signal(signal.SIGINT)  # no effect if it has ended
                child.wait(10.0)
            except subprocess.TimeoutExpired:
                pass
            finally:  # also on a second Ctrl-C
                child.kill()
                child.wait()


def run(args: argparse.Namespace) -> int:
    """Run the demo; returns the exit status."""
    script = read_script(args.script)
    name, times = Counter(entry.id for entry in script.instructions).most_common(1)[0]
    if times > 1:
        raise ValueError(
            f"{args.script}: {times} instructions have the id {name!r}; they would replace each other"
        )
    share = Path(get_package_share_directory("gsva_ros"))
    path = args.bag or _found(script.bag, share)
    if path is None or not path.exists():
        raise ValueError(f"no bag at {path or script.bag}")
    with Bag(path) as bag:
        if not bag.frames(script.image_topic):
            raise ValueError(f"{path}: no frame on {script.image_topic} can be read")
        known = args.truth or (None if args.bag else _found(script.truth, share))
        truth = read_truth(known) if known else bag.truth()
        _clear(args.output)
        demo = _play(args, script, bag, truth)
    page = args.output / "index.html"
    write_page(page, demo.cards, {"bag": path, "model": args.model})
    print("\nFiles written:")
    for file in demo.files:
        print(f"  {file}")
    print(f"All answers with images: {page}")
    print(headline(demo.cards))
    return 0


def _play(args: argparse.Namespace, script: Script, bag: Bag, truth: Sequence[FrameTruth]) -> Demo:
    """Start the node, ask, and play the bag to it; returns the client with all answers."""
    domain = _stay_apart()
    output: Path = args.output
    node_log, player_log, results = (output / n for n in ("node.log", "player.log", "results"))
    node_arguments = _node_arguments(bag, script.image_topic, args.model, args.device)
    print(f"bag: {bag.path}   model: {args.model}   (logs: {node_log}, {player_log})")
    print(f"ROS_DOMAIN_ID={domain}")
    init(signal_handler_options=SignalHandlerOptions.NO)
    end_alike()
    try:
        with process("gsva_node", node_arguments, node_log) as node:
            demo = Demo(script, bag, truth, output)
            try:
                demo.connect(node, 120.0)
            except RuntimeError:
                print(node_log.read_text(errors="replace"), file=sys.stderr)
                raise
            demo.send()
            demo.spin(0.3)
            player_arguments = [str(bag.path), "--rate", str(args.rate)]
            with (
                process("gsva_player", player_arguments, player_log) as player,
                ResultsBag(results) as bag_out,
            ):
                demo.collect(node, player, bag_out, 60.0)
    finally:
        rclpy.try_shutdown()
    demo.files += [*sorted(results.iterdir()), node_log, player_log]
    return demo


def _node_arguments(bag: Bag, topic: str, model: str, device: str) -> list[str]:
    """The node's command line for one of the bag's image topics, raw or compressed."""
    parameters = [f"model:={model}", f"device:={device}", "image_reliability:=reliable"]
    if bag.topics[topic] == "sensor_msgs/msg/CompressedImage":
        parameters.append("image_transport:=compressed")
        remapping = f"/image/compressed:={topic}"
    else:
        remapping = f"image:={topic}"
    settings = (argument for each in parameters for argument in ("-p", each))
    return ["--ros-args", "-r", remapping, *settings]


def _stay_apart() -> str:
    """Use a random domain, on this machine only, so that two demos, or a robot nearby, do not interfere.

    Returns:
        The domain, which is also set in the environment.
    """
    domain = os.environ["ROS_DOMAIN_ID"] = str(random.SystemRandom().randint(1, 100))
    if os.environ.get("ROS_DISTRO") == "humble":
        os.environ.setdefault("ROS_LOCALHOST_ONLY", "1")  # later distributions warn about it
    elif os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "OFF") == "OFF":  # not even each other
        os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    return domain


def _found(name: str, share: Path) -> Path | None:
    """A file named by a script: relative to the current folder, or else to the installation."""
    return next((p for p in (Path(name), share / name) if name and p.exists()), None)


def _clear(output: Path) -> None:
    """Create the folder, or remove an earlier run's output from it, and nothing else.

    Raises:
        ValueError: it contains other files than an earlier run's.
    """
    output.mkdir(parents=True, exist_ok=True)
    if not (output / MARK).exists() and any(output.iterdir()):
        raise ValueError(
            f"--output {output} contains other files: choose an empty or new folder, or remove it"
        )
    (output / MARK).touch()
    for path in [*output.glob("[0-9]*_*.png"), *output.glob("results/*"), output / "index.html"]:
        path.unlink(missing_ok=True)
    if (output / "results").is_dir():
        (output / "results").rmdir()


def _safe(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in name)[:40]


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `ros2 run gsva_ros gsva_demo`."""
    script = Path(get_package_share_directory("gsva_ros")) / "config" / "demo.yaml"
    parser = Parser(prog="gsva_demo", description=__doc__)
    parser.add_argument("--script", type=Path, default=script, help="YAML file of the instructions")
    parser.add_argument("--bag", type=Path, help="bag to play instead of the script's")
    parser.add_argument("--truth", type=Path, help="COCO-style JSON about the bag's frames")
    parser.add_argument(
        "--rate", type=rate, default=1.0, help="playback speed, relative to the recording"
    )
    parser.add_argument("--output", type=Path, default=Path("demo_output"), help="output folder")
    add_model(parser)
    add_device(parser)
    args = parser.parse_args(argv)
    try:
        return run(args)
    except (RuntimeError, ValueError, OSError) as error:
        print(f"gsva_demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
