"""The action ~/follow: an answer on every frame as feedback, until cancelled or its client is gone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.task import Future

from gsva_ros.action import Follow
from gsva_ros.msg import Segmentation
from gsva_ros.serving.requests import Outcome, Request, Result, Source
from gsva_ros.serving.worker import Worker

from . import qos
from .pending import Pending, awaited

POLL = 0.005  # seconds
#: Seconds without a subscriber to the feedback after which a goal's client is considered gone.
ABANDONED = 5.0
CANCELLED = "cancelled by its client"
GONE = f"its client is gone: the feedback has had no subscriber for {ABANDONED:.0f} s"


@dataclass(eq=False)
class _Goal:
    """State that a goal's cancel and execute callbacks share under `lock`."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    cancelled: bool = False  # a cancel was accepted: the goal can only end CANCELED
    ending: bool = False  # its end is decided: too late to cancel


class _Answers:
    """A goal's answers as feedback, until `ended` has the reason of its end."""

    def __init__(
        self, handle: Any, message: Callable[[Result], Segmentation], ended: Future
    ) -> None:
        self.frames, self.last, self.ended = 0, Segmentation(), ended
        self._handle, self._message = handle, message

    @property
    def complete(self) -> bool:
        """Whether there are as many as were asked for."""
        return bool(self.frames) and self.frames == self._handle.request.max_frames

    def take(self, result: Result) -> None:
        """Publish an answer, or end with the request."""
        if self.ended.done():
            return
        outcomes = {decision.outcome for decision in result.decisions}
        if result.frame is None or Outcome.CANCELLED in outcomes:
            self.ended.set_result(result.decisions[0].reason)
            return
        self.last = self._message(result)
        self.frames += 1
        self._handle.publish_feedback(Follow.Feedback(segmentation=self.last))
        if self.complete:
            self.ended.set_result(f"{self.frames} frames were asked for")


class ReadyServer(ActionServer):
    """Returns no data once destroyed: an executor that found the server ready may still take from it."""

    gone = False

    def take_data(self) -> Any:
        """Goals, cancels and result requests that have arrived."""
        try:
            return super().take_data()
        except RuntimeError:  # rclpy's RCLError and InvalidHandle
            if self.gone:
                return {}
            raise

    def destroy(self) -> None:
        """Destroy the server."""
        self.gone = True
        super().destroy()


class FollowServer:
    """Serves any number of goals at once: each awaits a future and occupies no thread.

    Args:
        message: creates the answer's message. active: whether goals are accepted.
        resolve: returns an image topic's full name, and what is wrong with it ("": nothing).
    """

    def __init__(
        self,
        node: Any,
        worker: Worker[Any],
        message: Callable[[Result], Segmentation],
        resolve: Callable[[str], tuple[str, str]],
        active: Callable[[], bool],
        pending: Pending,
    ) -> None:
        self._node, self._worker, self._message, self._resolve = node, worker, message, resolve
        self._active, self._pending = active, pending
        self._goals: dict[str, _Goal] = {}
        self._feedback = node.resolve_topic_name("~/follow/_action/feedback")
        self._heard = time.monotonic()  # last time of a subscriber, or of no goals
        self._server = ReadyServer(
            node,
            Follow,
            "~/follow",
            execute_callback=self._execute,
            goal_callback=self._admit,
            handle_accepted_callback=self._accepted,
            cancel_callback=self._on_cancel,
            callback_group=ReentrantCallbackGroup(),
            goal_service_qos_profile=qos.SERVICE,
            result_service_qos_profile=qos.SERVICE,
            cancel_service_qos_profile=qos.SERVICE,
        )

    def destroy(self) -> None:
        """Destroy the action server."""
        self._server.destroy()

    def watch(self) -> None:
        """End goals whose clients disappeared without cancelling, which would otherwise run for ever.

        A client is visible to the server only as a subscriber to the feedback, so goals end once the last
        client is gone, not one of several. Call this about once a second.
        """
        if not self._goals or self._node.count_subscribers(self._feedback):
            self._heard = time.monotonic()
        elif time.monotonic() - self._heard >= ABANDONED:
            for name in list(self._goals):
                if self._worker.cancel(name, GONE):
                    self._node.get_logger().warning(f"follow: goal {name} ends: {GONE}")

    def _admit(self, goal: Follow.Goal) -> GoalResponse:
        if not self._active():
            self._node.get_logger().warning("follow: goal rejected: the node is not active")
            return GoalResponse.REJECT
        if bool(goal.text) == bool(goal.expressions):
            self._node.get_logger().warning(
                "follow: goal rejected: give either text or expressions"
            )
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    def _accepted(self, handle: Any) -> None:
        self._pending.add()
        try:
            handle.execute()
        except RuntimeError:  # rclpy: a cancel came while it looked; the goal ends in `_execute`
            self._server.notify_execute(handle, None)

    def _on_cancel(self, handle: Any) -> CancelResponse:
        goal = self._goals.setdefault(_id_of(handle), _Goal())
        with goal.lock:
            if goal.ending:
                return CancelResponse.REJECT
            goal.cancelled = True
        # If the request is not submitted yet, `_follow` cancels it as soon as it is.
        self._worker.cancel(_id_of(handle), CANCELLED)
        return CancelResponse.ACCEPT

    async def _execute(self, handle: Any) -> Follow.Result:
        goal = self._goals.setdefault(_id_of(handle), _Goal())
        try:
            return await self._follow(handle, goal)
        finally:
            self._goals.pop(_id_of(handle), None)
            self._pending.remove()

    async def _follow(self, handle: Any, goal: _Goal) -> Follow.Result:
        answers = _Answers(handle, self._message, awaited(self._node))
        self._submit(handle, answers)
        if goal.cancelled:
            self._worker.cancel(_id_of(handle), CANCELLED)
        reason = str(await answers.ended)
        self._worker.cancel(_id_of(handle), reason)
        with goal.lock:
            goal.ending = True
        if goal.cancelled:
            # The cancel was accepted, but rclpy may not have updated the goal's state yet.
            while not handle.is_cancel_requested:
                await self._pause()
            handle.canceled()
        elif answers.complete:
            handle.succeed()
        else:
            handle.abort()
        return Follow.Result(frames=answers.frames, message=reason, segmentation=answers.last)

    def _submit(self, handle: Any, answers: _Answers) -> None:
        asked = handle.request
        topic, problem = self._resolve(asked.image_topic)
        self._worker.submit(
            Request(
                id=_id_of(handle),
                text=asked.text,
                expressions=list(asked.expressions),
                source=Source.FOLLOW,
                every_frame=True,
                topic=topic,
                problem=problem,
                done=answers.take,
            )
        )

    async def _pause(self) -> None:
        """Yield to other callbacks."""
        passed = awaited(self._node)
        timer = threading.Timer(POLL, passed.set_result, (None,))
        timer.daemon = True
        timer.start()
        await passed


def _id_of(handle: Any) -> str:
    return "follow-" + bytes(handle.goal_id.uuid).hex()
