"""The action ~/follow: an answer on every frame as feedback, until cancelled or its client is gone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.callback_groups import ReentrantCallbackGroup

from gsva_ros.action import Follow
from gsva_ros.msg import Segmentation
from gsva_ros.serving.requests import Request, Result, Source
from gsva_ros.serving.worker import Worker

from . import qos
from .pending import Pending, awaited

POLL = 0.005  # seconds
#: Looks, one a second, in which a new goal's client is discovered, and after which it is gone if unseen.
ABANDONED = 5
CANCELLED = "cancelled by its client"
GONE = f"its client is gone: for {ABANDONED} s, nobody has subscribed to the feedback who did when it began"


@dataclass(eq=False)
class _Goal:
    """State of a goal; its cancel and execute callbacks share `cancelled` and `ending` under `lock`."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    cancelled: bool = False  # a cancel was accepted: the goal can only end CANCELED
    ending: bool = False  # its end is decided: too late to cancel
    looks: int = 0  # of `FollowServer.watch`
    alone: int = 0  # the last ones of them, without any of `clients`
    clients: set[bytes] = field(default_factory=set)  # its own and all others there when it began


class _Answers:
    """A goal's answers as feedback, until `end` is called with the reason of its end, once."""

    def __init__(
        self, handle: Any, message: Callable[[Result], Segmentation], end: Callable[[str], None]
    ) -> None:
        self.frames, self.last = 0, Segmentation()
        self._handle, self._message, self._end = handle, message, end
        self._ended = False

    @property
    def complete(self) -> bool:
        """Whether there are as many as were asked for."""
        return bool(self.frames) and self.frames == self._handle.request.max_frames

    def take(self, result: Result) -> None:
        """Publish an answer, or end with the request."""
        if self._ended:
            return
        if result.frame is None:
            self._finish(result.decisions[0].reason)
            return
        self.last = self._message(result)
        self.frames += 1
        self._handle.publish_feedback(Follow.Feedback(segmentation=self.last))
        if self.complete:
            self._finish(f"{self.frames} frames were asked for")

    def _finish(self, reason: str) -> None:
        self._ended = True
        self._end(reason)


class GoalServer(ActionServer):
    """Runs no callback for a goal that begins, only for one that ends (`notify_execute` with a callback).

    rclpy's runs one from a goal's beginning, and its executor resumes every coroutine that awaits something
    each time it waits: with a hundred goals, other callbacks would queue behind tens of thousands of
    resumptions.
    """

    gone = False

    def notify_execute(self, goal_handle: Any, execute_callback: Any) -> None:
        """Called by a handle's `execute` without a callback."""
        if execute_callback is not None:
            super().notify_execute(goal_handle, execute_callback)

    def take_data(self) -> Any:
        """Goals, cancels and result requests that have arrived; none once destroyed.

        An executor that found the server ready may still take from it.
        """
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
    """Serves any number of goals at once: none occupies a thread or awaits its end.

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
        self._server = GoalServer(
            node,
            Follow,
            "~/follow",
            execute_callback=lambda _: None,  # not called: see `notify_execute`
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

        rclpy does not tell who sent a goal, but its client subscribed to the feedback before: the goal ends
        once all are gone who subscribed at its beginning. Call this about once a second.
        """
        if not self._goals:
            return
        # Newer rclpy remaps the name of an action, older only those of its topics.
        names = {"~/follow", self._node.resolve_topic_name("~/follow")}
        found = [self._node.get_subscriptions_info_by_topic(f"{n}/_action/feedback") for n in names]
        there = {bytes(subscription.endpoint_gid) for each in found for subscription in each}
        for name, goal in list(self._goals.items()):
            goal.looks += 1
            if goal.looks <= ABANDONED:
                goal.clients |= there
            goal.alone = 0 if goal.clients & there else goal.alone + 1
            if goal.alone >= ABANDONED and self._worker.cancel(name, GONE):
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
        goal = self._goals.setdefault(_id_of(handle), _Goal())
        with suppress(RuntimeError):  # rclpy: a cancel came between its check and its transition
            handle.execute()
        answers = _Answers(
            handle,
            self._message,
            lambda reason: self._server.notify_execute(
                handle, partial(self._end, goal=goal, answers=answers, reason=reason)
            ),
        )
        self._submit(handle, answers)
        if goal.cancelled:
            self._worker.cancel(_id_of(handle), CANCELLED)

    def _on_cancel(self, handle: Any) -> CancelResponse:
        goal = self._goals.setdefault(_id_of(handle), _Goal())
        # Asked after that: `_end`, which may run at any time, removes it once.
        if not handle.is_active:
            self._goals.pop(_id_of(handle), None)
            return CancelResponse.REJECT
        with goal.lock:
            if goal.ending:
                return CancelResponse.REJECT
            goal.cancelled = True
        # If the request is not submitted yet, `_accepted` cancels it as soon as it is.
        self._worker.cancel(_id_of(handle), CANCELLED)
        return CancelResponse.ACCEPT

    async def _end(
        self, handle: Any, *, goal: _Goal, answers: _Answers, reason: str
    ) -> Follow.Result:
        try:
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
        finally:
            self._goals.pop(_id_of(handle), None)
            self._pending.remove()

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
