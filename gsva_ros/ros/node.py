"""The node: a managed (lifecycle) node with topics, a service and an action around a Worker.

configure loads and warms up the model; activate subscribes to the cameras; deactivate stops answering, and
tells clients so (INACTIVE); cleanup releases the model. With the parameter `autostart`, the node configures
and activates itself at start-up. Source: design.ros2.org/articles/node_lifecycle.html.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial, wraps
from itertools import count
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from std_msgs.msg import String

from gsva_ros.answer import Segmenter, no_rejection
from gsva_ros.errors import one_line
from gsva_ros.instructions import expressions_in
from gsva_ros.msg import Instruction, Rejection, Segmentation
from gsva_ros.serving.requests import (
    DECIDED,
    NEVER,
    CameraFrame,
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
from .cameras import Cameras
from .clocks import ClockBeside, Clocks
from .diagnostics import Diagnostics
from .disposal import Disposal
from .follow import FollowServer
from .logs import short
from .pending import Pending, awaited, delivered
from .pictures import Pictures
from .views import Views

#: Before a server is destroyed: seconds to wait for the results of accepted calls and goals, and then for
#: the last results to be sent and the last instructions to be read.
DRAIN, GRACE = 5.0, 0.5
#: Seconds that a request waits for a frame until there is a warning, and between two warnings.
STARVED, STARVED_AGAIN = 2.0, 10.0
INACTIVE = "the node is not active: `ros2 lifecycle set` activates it"

Loader = Callable[[str, str, str], Segmenter[Any]]


def load_engine(model: str, device: str, dtype: str) -> Segmenter[Any]:
    """Load the real engine; imported here because torch takes seconds to import."""
    import gsva_ros

    return gsva_ros.load(model, device=device, dtype=dtype)


Transition = Callable[["GsvaNode", LifecycleState], TransitionCallbackReturn]


def errors_logged(transition: Transition) -> Transition:
    """Log what a transition raises; rclpy turns it into ERROR without logging it."""

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


class GsvaNode(ClockBeside):
    """Answers instructions with masks and rejections on the newest camera frames.

    Args:
        arguments: the process's command line.
    """

    def __init__(
        self, loader: Loader = load_engine, arguments: Sequence[str] = (), **kwargs: Any
    ) -> None:
        super().__init__("gsva", **kwargs)
        self._loader = loader
        self._publishing = threading.Lock()
        self._warned: dict[str, tuple[float, int]] = {}  # kind -> last warning, suppressed since
        self._engine: Segmenter[Any] | None = None
        self._worker: Worker[Any] | None = None
        self._instance_ids = count(1)  # of all workers: none is used again
        self._pending = Pending()
        self.disposal = Disposal()
        self.failure = ""  # why the node cannot continue
        self.loading = False  # a thread is loading a model, which cannot be interrupted
        self._finalized = False
        self._cameras = Cameras(self, self._offer, self._warn, self._dispose)
        self._endpoints: list[Any] = []  # subscriptions of the configured state
        self._service: Any = None
        self._follow: FollowServer | None = None
        try:
            parameters.declare(self)
        except Exception:
            self.destroy_node()  # ends the thread that receives /clock, before Python ends
            raise
        self._limits = parameters.limits_of(self)
        self._segmentation = self.create_publisher(Segmentation, "segmentation", qos.RELIABLE)
        self._rejection = self.create_publisher(Rejection, "rejection", qos.RELIABLE)
        self._health = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        pictures = Pictures(self, self._value, self._warn, arguments)
        self._views = Views(self, self._value, self._cameras.depth, self._warn, pictures)
        self._diagnostics = Diagnostics(f"{self.get_fully_qualified_name()}: segmentation")
        self.add_on_set_parameters_callback(self._on_parameters)
        # On a steady clock, so that they also fire while /clock stands still.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(
            1.0, self._on_timer, callback_group=MutuallyExclusiveCallbackGroup(), clock=steady
        )
        self.create_timer(1.0, self._cameras.latch, clock=steady)  # not during a transition
        self._clocks = Clocks(self.get_clock(), self._on_jump_ahead, self._on_jump)

    # Transitions

    @errors_logged
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model, answer once on a blank image, and accept instructions."""
        try:
            self._cameras.find()
            engine = self._load()
        except parameters.ParameterError as error:
            self.get_logger().error(str(error))
            return TransitionCallbackReturn.FAILURE
        except Exception as error:
            model = self._value("model")
            self.get_logger().error(f"cannot load {model!r}: {type(error).__name__}: {error}")
            logging.getLogger("gsva").debug("details", exc_info=True)
            self._release()
            return TransitionCallbackReturn.FAILURE
        if notice := no_rejection(engine):
            self.get_logger().warning(notice)
        threshold = self._limits.threshold(engine.rejection_threshold)
        self._provenance = provenance_of(engine, threshold)
        now, timer = self._clocks.now, self._clocks.timer
        self._worker = Worker(engine, self._publish, self._limits, now, timer, self._instance_ids)
        self._worker.pause(INACTIVE)
        self._worker.start()
        self._serve(self._worker)
        return TransitionCallbackReturn.SUCCESS

    @errors_logged
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the cameras and start answering."""
        assert self._worker is not None
        self._worker.resume()
        self._cameras.subscribe()
        initial = [e for e in self._value("instructions") if e]
        if initial:
            # However long the camera takes to start: nobody would ask again.
            request = Request("initial", expressions=initial, every_frame=True, within=NEVER)
            self._worker.submit(request)
        self.get_logger().info(
            f"ready: {self._provenance.model} on {self._provenance.device}, "
            f"frames from {', '.join(self._cameras.topics)}"
        )
        return super().on_activate(state)

    @errors_logged
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Answer waiting requests with CANCELLED, and every later one with FAILED (INACTIVE)."""
        assert self._worker is not None
        self._cameras.unsubscribe()
        self._worker.pause(INACTIVE)
        self._pending.wait(DRAIN)
        self.get_logger().info("inactive: instructions are answered with FAILED (INACTIVE)")
        return super().on_deactivate(state)

    @errors_logged
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release the model and its memory."""
        self._let_go()
        return TransitionCallbackReturn.SUCCESS

    @errors_logged
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Shut down from any state: answer every instruction, then release the model."""
        self._finalized = True
        self._cameras.unsubscribe()
        self.close()
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Return to unconfigured after a transition raised."""
        self._let_go()
        return TransitionCallbackReturn.SUCCESS

    def close(self) -> None:
        """Answer waiting requests with CANCELLED (FAILED after a failure) and let the answers be sent.

        Then stop listening to tf.
        """
        if self._worker is not None:
            if self.failure:
                self._worker.abandon(self.failure)
            else:
                self._worker.stop()
        if rclpy.ok(context=self.context):
            delivered(self._segmentation, 0.5)
        self._views.close()

    def settle(self) -> None:
        """Wait until what has arrived is read and answered, and the results of calls and goals are sent."""
        # What is unread goes with its endpoint, and results are sent after their callbacks return.
        self._pending.settle(GRACE, DRAIN)

    def _load(self) -> Segmenter[Any]:
        """Load the engine named by the parameters and let it answer once, mask included.

        The first answer is slow, and it reveals damaged weights.
        """
        model, device, dtype = (self._value(n) for n in ("model", "device", "dtype"))
        self.get_logger().info(f"loading {model!r} (device {device}, dtype {dtype})")
        self.loading = True
        try:
            self._engine = engine = self._loader(model, device, dtype)
            frame = engine.encode(np.full((480, 640, 3), 128, np.uint8))
            (slot,) = engine.segment(frame, ["the mug"], mask_rejected=True).slots
            if slot.fault:
                raise ValueError(slot.fault)
        finally:
            self.loading = False
        return engine

    def _serve(self, worker: Worker[Any]) -> None:
        """Accept instructions, calls and goals."""
        # A separate callback group: instructions are answered during transitions, too.
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
            worker,
            self._message,
            self._cameras.named,
            lambda: self._cameras.subscribed,
            self._pending,
        )

    def _dispose(self, *destroy: Callable[[], object]) -> None:
        self.disposal.add(*destroy)
        if self.executor is not None:
            self.executor.wake()

    def _let_go(self) -> None:
        self._cameras.unsubscribe()
        if self._worker is not None:
            self._worker.stop()
            self.settle()
        self._dispose(*(partial(self.destroy_subscription, s) for s in self._endpoints))
        self._endpoints.clear()
        if self._service is not None:
            self._dispose(partial(self.destroy_service, self._service))
            self._service = None
        if self._follow is not None:
            self._dispose(self._follow.destroy)
            self._follow = None
        # Before new endpoints take their names.
        self.disposal.wait(DRAIN)
        self._worker = None  # until here it answers whatever still arrives
        self._release()

    def _release(self) -> None:
        """Release the model."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.release()

    # In

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value

    def _offer(self, frame: CameraFrame) -> None:
        if self._worker is not None:
            self._worker.offer(frame)

    def _on_jump_ahead(self) -> None:
        worker = self._worker
        if worker is not None:
            worker.jumping()

    def _on_jump(self, delta: int, what: str) -> None:
        """The clock jumped, and that of the deadlines by `delta` nanoseconds."""
        self._views.jumped()
        worker = self._worker  # a transition may end it meanwhile
        if worker is not None:
            worker.jumped(delta)
            self.get_logger().warning(f"{what}: earlier frames are discarded")

    def _on_instruction(self, msg: Instruction) -> None:
        self._pending.arrived()
        worker = self._worker
        if worker is None:
            return
        if msg.mode == Instruction.CANCEL:
            if not worker.cancel(msg.id):
                self._warn("cancel", f"instruction: nothing to cancel with id {short(msg.id)}")
            return
        camera, unknown = self._cameras.named(msg.image_topic)
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
        self._pending.arrived()
        worker = self._worker
        if worker is None:
            return
        if self._value("text_mode") == "ask":
            worker.submit(Request(text=msg.data))
            return
        worker.submit(Request(expressions=expressions_in(msg.data)))

    async def _on_segment(self, call: Segment.Request, reply: Segment.Response) -> Segment.Response:
        if self._worker is None:
            reply.message = INACTIVE
            return reply
        answered = awaited(self)
        with self._pending.one():
            self._worker.submit(
                Request(
                    text=call.text,
                    expressions=list(call.expressions),
                    source=Source.SERVICE,
                    frame=self._cameras.frame(call.image, f"{self.get_name()}/segment"),
                    done=answered.set_result,
                )
            )
            result: Any = await answered
        self._report(result)
        reply.segmentation = self._message(result)
        problems = [d for d in result.decisions if d.outcome not in DECIDED]
        reply.success = len(problems) < len(result.decisions)
        reply.message = "; ".join(f"{short(d.expression)}: {d.reason}" for d in problems)
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
                threshold = self._limits.threshold(self._engine.rejection_threshold)
                self._provenance.rejection_threshold = float(threshold)
            if parameter.name == "target_frame":
                self._views.listen_to_tf(parameter.value)
        return SetParametersResult(successful=True)

    # Out

    def _message(self, result: Result) -> Segmentation:
        return segmentation(
            result, self._provenance, self._clocks.now(), self._limits.split_instances
        )

    def _publish(self, result: Result) -> None:
        """Publish an answer; called from the worker's threads and from callbacks."""
        self._report(result)
        msg = self._message(result)
        with self._publishing:  # so that nobody sees the parts of two answers interleaved
            self._segmentation.publish(msg)
            for rejection in msg.rejections:
                self._rejection.publish(rejection)
        self._views.publish(result, msg)

    def _report(self, result: Result) -> None:
        stamp = f"{result.frame.stamp / SECOND:.3f}" if result.frame is not None else "none"
        about = f"instruction={short(result.request.id)} frame={stamp}"
        for decision in result.decisions:
            if decision.outcome is Outcome.FAILED:
                self._warn(
                    decision.code.name,
                    f"{about} expression={short(decision.expression)} "
                    f"outcome=FAILED code={decision.code.name}: {decision.reason}",
                )
        ended = " ".join(decision.outcome.name for decision in result.decisions[:8])
        seconds = result.timings.get("total", 0.0)
        self.get_logger().debug(f"{about} outcomes={ended} seconds={seconds:.3f}")

    def _warn(self, kind: str, text: str, every: float = 1.0) -> None:
        """Warn at most once in `every` seconds per kind of problem."""
        self._diagnostics.error(text)
        now = time.monotonic()
        last, held_back = self._warned.get(kind, (float("-inf"), 0))
        if now - last < every:
            self._warned[kind] = (last, held_back + 1)
            return
        self._warned[kind] = (now, 0)
        more = f" ({held_back} similar warnings suppressed)" if held_back else ""
        self.get_logger().warning(text + more)

    def _on_timer(self) -> None:
        worker = self._worker
        state = "active" if self._cameras.subscribed else "inactive" if worker else "unconfigured"
        state = "finalized" if self._finalized else state
        self._clocks.watch()
        stamp = self.get_clock().now().to_msg()
        self._tell_namesake()
        provenance = self._provenance if worker else None
        if worker is not None:
            worker.expire()
            self._watch(worker)
        if (follow := self._follow) is not None:
            follow.watch()
        self._health.publish(self._diagnostics.report(state, worker, provenance, stamp))

    def _tell_namesake(self) -> None:
        """Warn of another node of this name."""
        name = self.get_name(), self.get_namespace()
        if self.get_node_names_and_namespaces().count(name) > 1:
            text = (
                f"another node is called {self.get_fully_qualified_name()}: both answer all that is asked; "
                "stop one of them (one that was killed is taken for running for some 20 s)"
            )
            self._warn("name", text, every=STARVED_AGAIN)

    def _watch(self, worker: Worker[Any]) -> None:
        """Report an inference thread that is dead or stuck, and cameras without usable frames."""
        if problem := worker.problem():
            self.failure = problem
        for topic, seconds in worker.starved().items():
            if seconds >= STARVED:
                for camera in [topic] if topic else self._cameras.topics:
                    text = self._cameras.silence(camera, seconds)
                    self._warn(f"no frame {camera}", text, every=STARVED_AGAIN)
