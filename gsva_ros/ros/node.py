"""The node: a lifecycle node (REP-2002's managed nodes) with topics, service and action around a Worker.

configure loads and warms the model, activate subscribes to the cameras, deactivate stops answering and says
so, cleanup lets go of the model. By itself it goes up to active at start (parameter `autostart`).
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial, wraps
from typing import Any

import numpy as np
import rclpy
import rclpy.logging
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType, JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import qos_policy_name_from_kind
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import String

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

from gsva_ros.answer import Segmenter, no_rejection
from gsva_ros.conversions import MessageError, camera_named, to_rgb
from gsva_ros.errors import one_line
from gsva_ros.msg import Instruction, Rejection, Segmentation
from gsva_ros.serving.requests import (
    BadImageError,
    CameraFrame,
    Limits,
    Outcome,
    Request,
    Result,
    Source,
)
from gsva_ros.serving.worker import Worker
from gsva_ros.srv import Segment
from gsva_ros.stamps import SECOND, nanoseconds

from . import parameters, qos
from .answers import provenance_of, segmentation
from .depth import DepthBuffer
from .diagnostics import Diagnostics
from .disposal import Disposal
from .follow import FollowServer
from .logs import through_ros
from .pending import Pending
from .views import Views

#: Callbacks that run at the same time: cameras, instructions, transitions, parameters, timer.
THREADS = 6
#: Seconds for accepted calls and goals to get their results out before their server goes.
DRAIN, GRACE = 5.0, 0.5
#: Seconds without a frame to answer on, while something waits for one, until that is said, and said again.
STARVED, STARVED_AGAIN = 2.0, 10.0
#: A clock that goes on by more was none before: under use_sim_time it is 0 until the first /clock.
FIRST_CLOCK = Duration(seconds=365 * 24 * 3600)
SHOWN = 80  # characters of a client's words in logs and diagnostics
INACTIVE = "the node is not active: `ros2 lifecycle set` activates it"

Loader = Callable[[str, str, str], Segmenter[Any]]


def load_engine(model: str, device: str, dtype: str) -> Segmenter[Any]:
    """Load the real engine; only now, because torch takes seconds to import."""
    import gsva_ros

    return gsva_ros.load(model, device=device, dtype=dtype)


Transition = Callable[["GsvaNode", LifecycleState], TransitionCallbackReturn]


def told(transition: Transition) -> Transition:
    """Have the log say what a transition raises, which rclpy takes for an ERROR in silence."""

    @wraps(transition)
    def run(self: GsvaNode, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(self, state)
        except Exception as error:
            what = transition.__name__.removeprefix("on_")
            self.get_logger().error(f"cannot {what}: {type(error).__name__}: {one_line(error)}")
            logging.getLogger("gsva").debug("details", exc_info=True)
            return TransitionCallbackReturn.ERROR

    return run


class GsvaNode(LifecycleNode):
    """Masks and rejections for what instructions name in the newest camera frames."""

    def __init__(self, loader: Loader = load_engine, **kwargs: Any) -> None:
        super().__init__("gsva", **kwargs)
        self._loader = loader
        self._publishing = threading.Lock()
        self._warned: dict[str, tuple[float, int]] = {}  # kind -> when, and how often since
        self._engine: Segmenter[Any] | None = None
        self._worker: Worker[Any] | None = None
        self._pending = Pending()
        self.disposal = Disposal()
        self.failure = ""  # why the node cannot go on
        self._finalized = False
        self._cameras: dict[str, Any] = {}  # image topic -> its subscription, while active
        self._listening: list[Any] = []  # the other subscriptions of the active state
        self._buffers: dict[str, DepthBuffer] = {}
        self._endpoints: list[Any] = []  # subscriptions of the configured state
        self._service: Any = None
        self._follow: FollowServer | None = None
        parameters.declare(self)
        self._limits = parameters.apply_limits(self, Limits())
        self._segmentation = self.create_publisher(Segmentation, "segmentation", qos.RELIABLE)
        self._rejection = self.create_publisher(Rejection, "rejection", qos.RELIABLE)
        self._health = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._views = Views(self, self._value, self._buffers, self._warn)
        self._diagnostics = Diagnostics(f"{self.get_fully_qualified_name()}: segmentation")
        self.add_on_set_parameters_callback(self._on_parameters)
        # By a clock of its own: what it watches over is to be seen also where /clock stands still.
        self.create_timer(
            1.0,
            self._on_timer,
            callback_group=MutuallyExclusiveCallbackGroup(),
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )
        self._before_jump = 0
        self._jumps = self.get_clock().create_jump_callback(
            JumpThreshold(min_forward=FIRST_CLOCK, min_backward=Duration(nanoseconds=-1)),
            pre_callback=self._on_jump_ahead,
            post_callback=self._on_jump,
        )

    # Transitions

    @told
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model, answer once on an empty picture, and take instructions."""
        model, device, dtype = (self._value(n) for n in ("model", "device", "dtype"))
        self.get_logger().info(f"loading {model!r} (device {device}, dtype {dtype})")
        try:
            self._topics = self._camera_topics()
            self._depths = self._depth_topics()
            self._engine = self._loader(model, device, dtype)
            self._warm_up(self._engine)
        except parameters.ParameterError as error:
            self.get_logger().error(str(error))
            return TransitionCallbackReturn.FAILURE
        except Exception as error:
            self.get_logger().error(f"cannot load {model!r}: {type(error).__name__}: {error}")
            logging.getLogger("gsva").debug("details", exc_info=True)
            self._release()
            return TransitionCallbackReturn.FAILURE
        if notice := no_rejection(self._engine):
            self.get_logger().warning(notice)
        self._provenance = provenance_of(self._engine, self._threshold())
        self._worker = Worker(self._engine, self._publish, self._limits, self._now)
        self._worker.pause(INACTIVE)
        self._worker.start()
        # Apart from transitions, during which instructions are answered too.
        group = MutuallyExclusiveCallbackGroup()
        self._endpoints = [
            self.create_subscription(kind, topic, callback, qos.RELIABLE, callback_group=group)
            for kind, topic, callback in (
                (Instruction, "instruction", self._on_instruction),
                (String, "instruction_text", self._on_text),
            )
        ]
        self._service = self.create_service(
            Segment,
            "~/segment",
            self._on_segment,
            qos_profile=qos.SERVICE,
            callback_group=ReentrantCallbackGroup(),
        )
        self._follow = FollowServer(
            self,
            self._worker,
            self._message,
            self._camera_named,
            lambda: bool(self._cameras),
            self._pending,
        )
        return TransitionCallbackReturn.SUCCESS

    @told
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the cameras and answer."""
        assert self._worker is not None
        self._worker.resume()
        compressed = self._value("image_transport") == "compressed"
        for number, topic in enumerate(self._topics):
            # Each has its own group: a burst of instructions must not hold frames up.
            self._cameras[topic] = self.create_subscription(
                CompressedImage if compressed else Image,
                topic,
                lambda msg, topic=topic: self._on_image(msg, topic),
                qos.IMAGE[self._value("image_reliability")],
                callback_group=MutuallyExclusiveCallbackGroup(),
                event_callbacks=SubscriptionEventCallbacks(
                    incompatible_qos=lambda event, topic=topic: self._on_incompatible(event, topic)
                ),
            )
            if number < len(self._depths) and self._depths[number]:
                self._listen_to_depth(topic, self._depths[number])
        initial = [e for e in self._value("instructions") if e]
        if initial:
            self._worker.submit(Request("initial", expressions=initial, every_frame=True))
        self.get_logger().info(
            f"ready: {self._provenance.model} on {self._provenance.device}, "
            f"frames from {', '.join(self._topics)}"
        )
        return super().on_activate(state)

    @told
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Answer what waits with CANCELLED, and every later instruction with FAILED (INACTIVE)."""
        assert self._worker is not None
        self._stop_listening()
        self._worker.pause(INACTIVE)
        self._pending.wait(DRAIN)
        self.get_logger().info("inactive: instructions are answered with FAILED (INACTIVE)")
        return super().on_deactivate(state)

    @told
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of the model and of its memory."""
        self._let_go()
        return TransitionCallbackReturn.SUCCESS

    @told
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """End from any state, with every instruction answered, and let go of the model."""
        self._finalized = True
        self._stop_listening()
        self.close()
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Back to unconfigured after a transition that raised."""
        self._let_go()
        return TransitionCallbackReturn.SUCCESS

    @property
    def pending(self) -> int:
        """Number of accepted calls and goals without a result."""
        return self._pending.count

    def close(self) -> None:
        """Answer what waits with CANCELLED and let the answers leave."""
        if self._worker is not None:
            if self.failure:
                self._worker.abandon(self.failure)
            else:
                self._worker.stop()
        if rclpy.ok(context=self.context):
            self._segmentation.wait_for_all_acked(Duration(seconds=0.5))

    def _warm_up(self, engine: Segmenter[Any]) -> None:
        """Answer once, mask included: the first time is slow, and damaged weights show here."""
        frame = engine.encode(np.full((480, 640, 3), 128, np.uint8))
        (slot,) = engine.segment(frame, ["the mug"], mask_rejected=True).slots
        if slot.fault:
            raise ValueError(slot.fault)

    def _threshold(self) -> float:
        assert self._engine is not None
        value = self._limits.rejection_threshold
        return value if value >= 0 else self._engine.rejection_threshold

    def _stop_listening(self) -> None:
        """Unsubscribe from cameras and depth; callbacks under way find an empty mailbox."""
        subscriptions = [*self._cameras.values(), *self._listening]
        self._cameras.clear()
        self._listening.clear()
        self._buffers.clear()
        self._dispose(*(partial(self.destroy_subscription, s) for s in subscriptions))

    def _dispose(self, *destroy: Callable[[], object]) -> None:
        self.disposal.add(*destroy)
        if self.executor is not None:
            self.executor.wake()

    def _let_go(self) -> None:
        self._stop_listening()
        if self._worker is not None:
            self._worker.stop()
            if self._pending.wait(DRAIN):
                time.sleep(GRACE)  # their results leave after their callbacks end
        self._dispose(*(partial(self.destroy_subscription, s) for s in self._endpoints))
        self._endpoints.clear()
        if self._service is not None:
            self._dispose(partial(self.destroy_service, self._service))
            self._service = None
        if self._follow is not None:
            self._dispose(self._follow.destroy)
            self._follow = None
        # Before others take their names.
        self.disposal.wait(DRAIN)
        self._worker = None  # until here it has answered whatever still came
        self._release()

    def _release(self) -> None:
        """Let go of the model."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.release()

    # In

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value

    def _now(self) -> int:
        return int(self.get_clock().now().nanoseconds)

    def _camera_topics(self) -> list[str]:
        suffix = "/compressed" if self._value("image_transport") == "compressed" else ""
        topics = [self._resolved("image_topics", t) for t in self._value("image_topics")]
        # Compressed pictures are beside the others, also where these are called something else.
        topics = [self._resolved("image_topics", t + suffix) for t in topics]
        if len(set(topics)) < len(topics):
            named = ", ".join(topics)
            raise parameters.ParameterError(
                f"parameter image_topics: a camera twice ({named}); name each once"
            )
        return topics

    def _depth_topics(self) -> list[str]:
        return [t and self._resolved("depth_topics", t) for t in self._value("depth_topics")]

    def _resolved(self, parameter: str, topic: str) -> str:
        try:
            return str(self.resolve_topic_name(topic))
        except Exception as error:  # rcl's errors share no base class
            message = " ".join(str(error).split())
            raise parameters.ParameterError(
                f"parameter {parameter}: {topic!r} is no topic name: {message}"
            ) from error

    def _camera_named(self, name: str) -> tuple[str, str]:
        """The image topic that is meant, as frames have it, and what is wrong with that ("": nothing)."""
        if not name:
            return "", ""
        resolved = ""
        with suppress(Exception):  # rcl's error has no public name; no topic can be called so
            resolved = self.resolve_topic_name(name)
        if topic := camera_named(resolved, self._topics):
            return topic, ""
        return name, f"no camera {_short(name)}; image_topics: {', '.join(self._topics)}"

    def _listen_to_depth(self, image: str, depth: str) -> None:
        buffer = self._buffers[image] = DepthBuffer()
        beside = image.removesuffix("/compressed").rsplit("/", 1)[0] + "/camera_info"
        for kind, topic, keep in (
            (Image, depth, buffer.add_depth),
            (CameraInfo, beside, buffer.add_info),
        ):
            self._listening.append(
                self.create_subscription(
                    kind,
                    topic,
                    keep,
                    qos.IMAGE["best_effort"],
                    callback_group=MutuallyExclusiveCallbackGroup(),
                )
            )

    def _on_image(self, msg: Any, topic: str) -> None:
        if self._worker is not None:
            self._worker.offer(self._frame(msg, topic))

    def _on_incompatible(self, event: Any, topic: str) -> None:
        self._warn(
            f"quality of service {topic}",
            f"{topic}: a publisher's quality of service does not match, so its frames do not arrive "
            f"({qos_policy_name_from_kind(event.last_policy_kind)}): set image_reliability to "
            "best_effort, or let it publish reliably",
        )

    def _on_jump_ahead(self) -> None:
        self._before_jump = self._now()
        if self._worker is not None:
            self._worker.jumping()

    def _on_jump(self, jump: TimeJump) -> None:
        """Time went back, began with the first /clock, or is from another clock from now on."""
        if self._worker is not None:
            delta = self._now() - self._before_jump
            self._worker.jumped(delta)
            which = "back" if delta < 0 else "on"
            self.get_logger().warning(f"time jumped {which}: earlier frames are forgotten")

    def _frame(self, msg: Any, topic: str) -> CameraFrame:
        stamp = nanoseconds(msg.header.stamp)

        def keep() -> None:
            if buffer := self._buffers.get(topic):
                buffer.hold(stamp)

        def decode() -> Any:
            try:
                return to_rgb(msg, topic)
            except MessageError as error:
                raise BadImageError(str(error)) from error

        return CameraFrame(msg.header, stamp, topic, decode, keep=keep)

    def _on_instruction(self, msg: Instruction) -> None:
        worker = self._worker
        if worker is None:
            return
        if msg.mode == Instruction.CANCEL:
            if not worker.cancel(msg.id):
                self._warn(
                    "cancel", f"instruction: nothing to cancel under the id {_short(msg.id)}"
                )
            return
        camera, unknown = self._camera_named(msg.image_topic)
        request = Request(
            id=msg.id,
            text=msg.text,
            expressions=list(msg.expressions),
            every_frame=msg.mode == Instruction.EVERY_FRAME,
            not_before=nanoseconds(msg.not_before),
            topic=camera,
            problem=unknown,
        )
        request.within = nanoseconds(msg.deadline)
        if request.within < 0:
            request.problem = f"deadline is negative ({request.within / SECOND:g} s); 0 means none"
        elif msg.mode not in (Instruction.ONCE, Instruction.EVERY_FRAME):
            request.problem = f"unknown mode {msg.mode}"
        worker.submit(request)

    def _on_text(self, msg: String) -> None:
        worker = self._worker
        if worker is None:
            return
        if self._value("text_mode") == "ask":
            worker.submit(Request(text=msg.data))
            return
        expressions = [e.strip() for e in msg.data.split(";") if e.strip()]
        worker.submit(Request(expressions=expressions))

    async def _on_segment(self, call: Segment.Request, reply: Segment.Response) -> Segment.Response:
        if self._worker is None:
            reply.message = INACTIVE
            return reply
        answered: Future = Future(executor=self.executor)
        with self._pending.one():
            self._worker.submit(
                Request(
                    text=call.text,
                    expressions=list(call.expressions),
                    source=Source.SERVICE,
                    frame=self._frame(call.image, f"{self.get_name()}/segment"),
                    done=answered.set_result,
                )
            )
            result: Result = await answered
        self._report(result)
        reply.segmentation = self._message(result)
        answered_by_model = (Outcome.SEGMENTED, Outcome.REJECTED)
        problems = [d for d in result.decisions if d.outcome not in answered_by_model]
        reply.success = len(problems) < len(result.decisions)
        reply.message = "; ".join(f"{_short(d.expression)}: {d.reason}" for d in problems)
        return reply

    def _on_parameters(self, changed: Sequence[Parameter]) -> SetParametersResult:
        for parameter in changed:
            problem = parameters.problem_with(parameter.name, parameter.value)
            if self._worker is not None and parameter.name in parameters.FIXED:
                problem = f"{parameter.name}: {parameters.UNCONFIGURED_ONLY}"
            if problem:
                return SetParametersResult(successful=False, reason=problem)
        for parameter in changed:
            if hasattr(self._limits, parameter.name):
                value = parameters.as_meant(parameter.name, parameter.value)
                setattr(self._limits, parameter.name, value)
            if parameter.name == "rejection_threshold" and self._engine is not None:
                self._provenance.rejection_threshold = float(self._threshold())
        return SetParametersResult(successful=True)

    # Out

    def _message(self, result: Result) -> Segmentation:
        return segmentation(
            result, self._provenance, self._now(), bool(self._value("split_instances"))
        )

    def _publish(self, result: Result) -> None:
        """Publish an answer; called from the inference thread and from callbacks."""
        self._report(result)
        msg = self._message(result)
        with self._publishing:  # so that nobody sees the parts of two answers interleaved
            self._segmentation.publish(msg)
            for rejection in msg.rejections:
                self._rejection.publish(rejection)
        self._views.publish(result, msg)

    def _report(self, result: Result) -> None:
        stamp = f"{result.frame.stamp / SECOND:.3f}" if result.frame is not None else "none"
        about = f"instruction={_short(result.request.id)} frame={stamp}"
        for decision in result.decisions:
            if decision.outcome is Outcome.FAILED:
                self._warn(
                    decision.code.name,
                    f"{about} expression={_short(decision.expression)} "
                    f"outcome=FAILED code={decision.code.name}: {decision.reason}",
                )
        ended = " ".join(decision.outcome.name for decision in result.decisions[:8])
        seconds = result.timings.get("total", 0.0)
        self.get_logger().debug(f"{about} outcomes={ended} seconds={seconds:.3f}")

    def _warn(self, kind: str, text: str, every: float = 1.0) -> None:
        """Warn, of each kind of problem once in `every` seconds."""
        self._diagnostics.error(text)
        now = time.monotonic()
        last, held_back = self._warned.get(kind, (float("-inf"), 0))
        if now - last < every:
            self._warned[kind] = (last, held_back + 1)
            return
        self._warned[kind] = (now, 0)
        more = f" ({held_back} more of this kind before it)" if held_back else ""
        self.get_logger().warning(text + more)

    def _on_timer(self) -> None:
        worker = self._worker
        state = "active" if self._cameras else "inactive" if worker else "unconfigured"
        state = "finalized" if self._finalized else state
        stamp = self.get_clock().now().to_msg()
        provenance = self._provenance if worker else None
        if worker is not None:
            worker.expire()
            self._watch(worker)
        if (follow := self._follow) is not None:
            follow.watch()
        self._health.publish(self._diagnostics.report(state, worker, provenance, stamp))

    def _watch(self, worker: Worker[Any]) -> None:
        """See to it that neither a thread that is gone nor a camera that is silent goes unsaid."""
        if problem := worker.problem():
            self.failure = problem
        for topic, seconds in worker.starved().items():
            if seconds >= STARVED:
                for camera in [topic] if topic else self._topics:
                    text = self._silence(camera, seconds)
                    self._warn(f"no frame {camera}", text, every=STARVED_AGAIN)

    def _silence(self, topic: str, seconds: float) -> str:
        publishers = self.count_publishers(topic)
        message = f"{topic}: an instruction waits {seconds:.0f} s for a frame to be answered on"
        if publishers:
            return (
                f"{message}; the topic has {publishers} publisher(s): they send nothing, or nothing new "
                "enough (not_before, max_frame_age, max_frame_lead)"
            )
        kind = "CompressedImage" if topic.endswith("/compressed") else "Image"
        others = [
            name
            for name, kinds in self.get_topic_names_and_types()
            if f"sensor_msgs/msg/{kind}" in kinds and self.count_publishers(name)
        ]
        return (
            f"{message}; nobody publishes it; topics with pictures: {', '.join(others) or 'none'}"
        )


def _short(words: str) -> str:
    """A client's words for a line of a log."""
    return repr(words) if len(words) <= SHOWN else f"{words[:SHOWN]!r}… ({len(words)} characters)"


def run(argv: Sequence[str] | None = None, loader: Loader = load_engine) -> int:
    """Run the node until SIGINT or SIGTERM."""
    # Own signal handlers: rclpy's would shut the context down before the last answers are out.
    rclpy.init(args=argv, signal_handler_options=SignalHandlerOptions.NO)
    through_ros(rclpy.logging.get_logger("gsva"))
    stop, starting = threading.Event(), False

    def on_signal(*_: object) -> None:
        nonlocal starting
        stop.set()
        if starting:  # a model may take minutes to load
            starting = False
            raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    try:
        node = GsvaNode(loader)
    except Exception as error:
        logging.getLogger("gsva").error("cannot start: %s: %s", type(error).__name__, error)
        rclpy.try_shutdown()
        return 1
    through_ros(node.get_logger())
    executor = MultiThreadedExecutor(num_threads=THREADS)
    executor.add_node(node)
    try:
        if node.get_parameter("autostart").value:
            starting = True
            went = _go_active(node)
            starting = False
            if not went:
                return 1
        while not stop.is_set() and rclpy.ok():
            _spin_once(node, executor, 0.2)
            if node.failure:
                node.get_logger().fatal(f"{node.failure}; ending")
                break
    except KeyboardInterrupt:
        node.get_logger().info("stopped while it was starting")
    finally:
        node.close()
        _drain(node, executor)
        executor.shutdown(timeout_sec=1.0)
        node.destroy_node()
        rclpy.try_shutdown()
    return 1 if node.failure else 0


def _drain(node: GsvaNode, executor: MultiThreadedExecutor) -> None:
    """Let accepted calls and goals send their results."""
    end = time.monotonic() + DRAIN
    while rclpy.ok() and time.monotonic() < end:
        if node.pending == 0:
            end = min(end, time.monotonic() + GRACE)
        _spin_once(node, executor, 0.05)


def _spin_once(node: GsvaNode, executor: MultiThreadedExecutor, seconds: float) -> None:
    try:
        executor.spin_once(timeout_sec=seconds)
    except ExternalShutdownException:
        return
    except Exception:  # one message's fault must not end the answers to all others
        logging.getLogger("gsva").exception("a callback failed; going on")
    node.disposal.run()


def _go_active(node: GsvaNode) -> bool:
    for step in (node.trigger_configure, node.trigger_activate):
        if step() is not TransitionCallbackReturn.SUCCESS:
            return False
    return True


def main() -> int:
    """Entry point of `ros2 run gsva_ros gsva_node`."""
    return run(sys.argv)
