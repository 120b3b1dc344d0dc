"""The node: topics, service and parameters around a Worker.

Built in three steps, `configure` (model, parameters), `activate` (subscriptions) and `close`, which
are a lifecycle node's transitions in all but name.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.duration import Duration
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from gsva_ros.conversions import MessageError, fill_image, to_rgb
from gsva_ros.msg import Instruction, Provenance, Rejection, Segmentation
from gsva_ros.overlay import Target, draw, label_image
from gsva_ros.srv import Segment

from . import parameters, qos
from .answers import provenance_of, segmentation
from .diagnostics import Diagnostics
from .worker import BadImageError, Frame, Limits, Outcome, Request, Result, Worker

#: Service calls carried out at a time; each keeps one executor thread waiting.
SERVICE_CALLS = 4

Loader = Callable[[str, str, str], Any]


def load_engine(model: str, device: str, dtype: str) -> Any:
    """Load the real engine; only now, because torch takes seconds to import."""
    import gsva_ros

    return gsva_ros.load(model, device=device, dtype=dtype)


class GsvaNode(Node):
    """Masks and rejections for what instructions name in the newest camera frame."""

    def __init__(self, loader: Loader = load_engine, **kwargs: Any) -> None:
        super().__init__("gsva", **kwargs)
        self._loader = loader
        self._calls = threading.BoundedSemaphore(SERVICE_CALLS)
        self._publishing = threading.Lock()
        self.configure()
        self.activate()

    # Steps

    def configure(self) -> None:
        """Declare parameters, load the model, create what publishes."""
        parameters.declare(self)
        self._limits = parameters.apply_limits(self, Limits())
        model, device, dtype = (self._value(n) for n in ("model", "device", "dtype"))
        self.get_logger().info(f"loading {model!r} (device {device}, dtype {dtype})")
        engine = self._loader(model, device, dtype)
        self._engine = engine
        self._own_threshold = float(engine.rejection_threshold)
        self._provenance: Provenance = provenance_of(engine)
        self._set_threshold(self._value("rejection_threshold"))
        self._worker = Worker(engine, self._publish, self._limits)
        self._diagnostics = Diagnostics(
            f"{self.get_fully_qualified_name()}: segmentation", self._provenance.device
        )
        self._segmentation = self.create_publisher(Segmentation, "segmentation", qos.RELIABLE)
        self._rejection = self.create_publisher(Rejection, "rejection", qos.RELIABLE)
        self._overlay = self.create_publisher(Image, "overlay", qos.PICTURE)
        self._labels = self.create_publisher(Image, "label_image", qos.PICTURE)
        self._health = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.add_on_set_parameters_callback(self._on_parameters)

    def activate(self) -> None:
        """Start the worker and listen."""
        self._worker.start()
        compressed = self._value("image_transport") == "compressed"
        # Frames have their own group: a burst of instructions must not hold them up.
        self._image = self.create_subscription(
            CompressedImage if compressed else Image,
            "image/compressed" if compressed else "image",
            self._on_image,
            qos.IMAGE[self._value("image_reliability")],
            callback_group=MutuallyExclusiveCallbackGroup(),
        )
        self.create_subscription(Instruction, "instruction", self._on_instruction, qos.RELIABLE)
        self.create_subscription(String, "instruction_text", self._on_text, qos.RELIABLE)
        self.create_service(
            Segment, "~/segment", self._on_segment, callback_group=ReentrantCallbackGroup()
        )
        self.create_timer(1.0, self._on_timer)
        initial = [e for e in self._value("instructions") if e]
        if initial:
            self._worker.submit(Request("initial", expressions=initial, every_frame=True))
        self.get_logger().info(
            f"ready: {self._provenance.model} on {self._provenance.device}, "
            f"frames from {self._image.topic_name}"
        )

    def close(self) -> None:
        """Answer what waits with CANCELLED and let the answers leave."""
        self._worker.stop()
        if rclpy.ok(context=self.context):
            self._segmentation.wait_for_all_acked(Duration(seconds=0.5))

    # In

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value

    def _on_image(self, msg: Any) -> None:
        self._worker.offer(self._frame(msg, self._image.topic_name))

    def _frame(self, msg: Any, topic: str) -> Frame:
        def decode() -> Any:
            try:
                return to_rgb(msg, topic)
            except MessageError as error:
                raise BadImageError(str(error)) from error

        return Frame(msg.header, _nanoseconds(msg.header.stamp), topic, decode)

    def _on_instruction(self, msg: Instruction) -> None:
        if msg.mode == Instruction.CANCEL:
            if not self._worker.cancel(msg.id):
                self._warn(f"instruction: nothing to cancel under the id {msg.id!r}")
            return
        request = Request(
            id=msg.id,
            text=msg.text,
            expressions=list(msg.expressions),
            every_frame=msg.mode == Instruction.EVERY_FRAME,
            not_before=_nanoseconds(msg.not_before),
            topic=msg.image_topic,
        )
        seconds = _nanoseconds(msg.deadline) * 1e-9
        if seconds > 0:
            request.deadline = request.submitted + seconds
        if msg.mode not in (Instruction.ONCE, Instruction.EVERY_FRAME):
            request.problem = f"unknown mode {msg.mode}"
        self._worker.submit(request)

    def _on_text(self, msg: String) -> None:
        if self._value("text_mode") == "ask":
            self._worker.submit(Request(text=msg.data))
            return
        expressions = [e.strip() for e in msg.data.split(";") if e.strip()]
        self._worker.submit(Request(expressions=expressions))

    def _on_segment(self, call: Segment.Request, reply: Segment.Response) -> Segment.Response:
        if not self._calls.acquire(blocking=False):
            reply.message = f"busy: {SERVICE_CALLS} calls are being answered already"
            return reply
        try:
            answered = threading.Event()
            results: list[Result] = []

            def done(result: Result) -> None:
                results.append(result)
                answered.set()

            self._worker.submit(
                Request(
                    text=call.text,
                    expressions=list(call.expressions),
                    frame=self._frame(call.image, f"{self.get_name()}/segment"),
                    done=done,
                )
            )
            answered.wait()
        finally:
            self._calls.release()
        result = results[0]
        self._report(result)
        reply.segmentation = self._message(result)
        problems = [d for d in result.decisions if d.outcome > Outcome.REJECTED]
        reply.success = len(problems) < len(result.decisions)
        reply.message = "; ".join(f"{d.expression!r}: {d.reason}" for d in problems)
        return reply

    def _on_parameters(self, changed: Sequence[Parameter]) -> SetParametersResult:
        for parameter in changed:
            choices = parameters.CHOICES.get(parameter.name)
            if choices and parameter.value not in choices:
                reason = f"{parameter.name}: {parameter.value!r} is none of {', '.join(choices)}"
                return SetParametersResult(successful=False, reason=reason)
        for parameter in changed:
            if hasattr(self._limits, parameter.name):
                setattr(self._limits, parameter.name, parameter.value)
            if parameter.name == "rejection_threshold":
                self._set_threshold(parameter.value)
        return SetParametersResult(successful=True)

    def _set_threshold(self, value: float) -> None:
        """Let the engine decide with `value`; negative: with what its model came with."""
        value = value if value >= 0 else self._own_threshold
        self._engine.rejection_threshold = value
        self._provenance.rejection_threshold = value

    # Out

    def _message(self, result: Result) -> Segmentation:
        return segmentation(result, self._provenance, self.get_clock().now().nanoseconds)

    def _publish(self, result: Result) -> None:
        """Publish an answer; called from the inference thread and from callbacks."""
        self._report(result)
        msg = self._message(result)
        with self._publishing:  # so that nobody sees the parts of two answers interleaved
            self._segmentation.publish(msg)
            for rejection in msg.rejections:
                self._rejection.publish(rejection)
        if result.rgb is not None:
            self._publish_pictures(result)

    def _publish_pictures(self, result: Result) -> None:
        assert result.rgb is not None
        assert result.frame is not None
        if self._overlay.get_subscription_count() > 0:
            picture = draw(result.rgb, targets_of(result), float(self._value("overlay_opacity")))
            msg = fill_image(Image(), picture, "rgb8")
            msg.header = result.frame.header
            self._overlay.publish(msg)
        if self._labels.get_subscription_count() > 0:
            labels = label_image(result.rgb.shape[:2], targets_of(result))
            msg = fill_image(Image(), labels, "mono16")
            msg.header = result.frame.header
            self._labels.publish(msg)

    def _report(self, result: Result) -> None:
        for decision in result.decisions:
            if decision.outcome is Outcome.FAILED:
                self._warn(
                    f"instruction {result.request.id!r}: {decision.expression[:80]!r} "
                    f"FAILED ({decision.code.name}): {decision.reason}"
                )

    def _warn(self, text: str) -> None:
        self._diagnostics.error(text)
        self.get_logger().warning(text, throttle_duration_sec=1.0)

    def _on_timer(self) -> None:
        stamp = self.get_clock().now().to_msg()
        self._health.publish(self._diagnostics.report(self._worker, self._provenance, stamp))


def targets_of(result: Result) -> list[Target]:
    """Return what the overlay draws."""
    return [
        Target(d.slot, d.expression, d.mask, d.p_seg)
        for d in result.decisions
        if d.outcome in (Outcome.SEGMENTED, Outcome.REJECTED)
    ]


def _nanoseconds(time: Any) -> int:
    return time.sec * 1_000_000_000 + time.nanosec


def run(argv: Sequence[str] | None = None, loader: Loader = load_engine) -> int:
    """Run the node until SIGINT or SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="[%(levelname)s] %(name)s: %(message)s")
    # Own signal handlers: rclpy's would shut the context down before the last answers are out.
    rclpy.init(args=argv, signal_handler_options=SignalHandlerOptions.NO)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        node = GsvaNode(loader)
    except Exception as error:
        logging.getLogger("gsva").error("cannot start: %s: %s", type(error).__name__, error)
        logging.getLogger("gsva").debug("details", exc_info=True)
        rclpy.try_shutdown()
        return 1
    executor = MultiThreadedExecutor(num_threads=SERVICE_CALLS + 3)
    executor.add_node(node)
    try:
        while not stop.is_set() and rclpy.ok():
            executor.spin_once(timeout_sec=0.2)
    except ExternalShutdownException:
        pass
    finally:
        node.close()
        executor.shutdown(timeout_sec=1.0)
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


def main() -> int:
    """Entry point of `ros2 run gsva_ros gsva_node`."""
    return run(sys.argv)
