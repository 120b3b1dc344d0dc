"""The action ~/follow: every frame answered, as feedback, until the goal is cancelled."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.task import Future

from gsva_ros.action import Follow
from gsva_ros.msg import Segmentation

from .worker import Outcome, Request, Result, Worker

CANCEL_TIMEOUT = 5.0  # seconds


class FollowServer:
    """Any number of goals at once: one waits on a future, not in a thread."""

    def __init__(
        self,
        node: Any,
        worker: Worker,
        message: Callable[[Result], Segmentation],
        resolve: Callable[[str], str],
    ) -> None:
        self._node, self._worker, self._message, self._resolve = node, worker, message, resolve
        self._server = ActionServer(
            node,
            Follow,
            "~/follow",
            execute_callback=self._execute,
            goal_callback=self._admit,
            cancel_callback=self._on_cancel,
            callback_group=ReentrantCallbackGroup(),
        )

    def destroy(self) -> None:
        """Take the action away."""
        self._server.destroy()

    def _admit(self, goal: Follow.Goal) -> GoalResponse:
        if bool(goal.text) == bool(goal.expressions):
            self._node.get_logger().warning("follow: a goal needs either text or expressions")
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    def _on_cancel(self, handle: Any) -> CancelResponse:
        # The worker's last word, CANCELLED, ends the goal, once the state below is "canceling".
        threading.Timer(
            0.0, self._worker.cancel, (_id_of(handle), "cancelled by its client")
        ).start()
        return CancelResponse.ACCEPT

    async def _execute(self, handle: Any) -> Follow.Result:
        goal = handle.request
        ended: Future = Future(executor=self._node.executor)
        frames = 0
        last = Segmentation()

        def done(result: Result) -> None:
            nonlocal frames, last
            if ended.done():
                return
            outcomes = {decision.outcome for decision in result.decisions}
            if result.frame is None or Outcome.CANCELLED in outcomes:
                ended.set_result(result.decisions[0].reason)
                return
            last = self._message(result)
            frames += 1
            handle.publish_feedback(Follow.Feedback(segmentation=last))
            if frames == goal.max_frames:
                ended.set_result(f"{frames} frames were asked for")

        self._worker.submit(
            Request(
                id=_id_of(handle),
                text=goal.text,
                expressions=list(goal.expressions),
                every_frame=True,
                topic=self._resolve(goal.image_topic),
                done=done,
            )
        )
        reason = await ended
        self._worker.cancel(_id_of(handle), reason)
        if handle.is_cancel_requested:
            handle.canceled()
        elif frames and frames == goal.max_frames:
            handle.succeed()
        else:
            handle.abort()
        return Follow.Result(frames=frames, message=reason, segmentation=last)


def _id_of(handle: Any) -> str:
    return "follow-" + bytes(handle.goal_id.uuid).hex()
