"""Soak test: with a continuous camera and a thousand instructions, is each answered, and is memory stable?

`make soak` runs it for ten minutes with the bundled model; options: `python test/support/soak.py --help`.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from dataclasses import dataclass, field

import harness
import numpy as np
from gsva_ros.msg import Instruction

from gsva_ros.ros.answers import outcome_name

GRACE = 60.0  # seconds for the last answers
MIB = 2**20


@dataclass
class Soak:
    """The results. memory: the node's resident MiB, from start to end."""

    frames: int = 0
    unanswered: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    outcomes: dict[int, int] = field(default_factory=dict)
    followed: int = 0
    late: float = 0.0  # the longest time in the node from a frame's arrival to its turn, seconds
    memory: list[float] = field(default_factory=list)

    @property
    def growth(self) -> float:
        """Growth in MiB from the second quarter's median to the last quarter's, which excludes start-up."""
        quarter = len(self.memory) // 4
        return float(
            np.median(self.memory[-quarter:]) - np.median(self.memory[quarter : 2 * quarter])
        )

    def lines(self) -> list[str]:
        """The report."""
        ended = ", ".join(f"{outcome_name(k)} {v}" for k, v in sorted(self.outcomes.items()))
        return [
            f"frames published: {self.frames}; answered for the repeated instruction: {self.followed}",
            f"outcomes of the others: {ended or 'none'}",
            f"unanswered: {len(self.unanswered)}; answered twice: {len(self.twice)}",
            f"longest wait of a frame in the node: {self.late:.3f} s",
            f"memory: {self.memory[0]:.0f} MiB at first, {self.memory[-1]:.0f} at last, "
            f"{self.growth:+.1f} from the second to the last quarter",
        ]


def resident(pid: int) -> float:
    """Resident memory of a process, MiB."""
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * 4096 / MIB


def soak(
    command: list[str],
    parameters: dict[str, object],
    seconds: float,
    rate: float = 30.0,
    instructions: int = 1000,
    size: tuple[int, int] = (1280, 720),
) -> Soak:
    """Run the node under load; the instructions are spread evenly over time."""
    width, height = size
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (height, width, 3), np.uint8)
    rgb[height // 4 : height // 2, width // 4 : width // 2] = (255, 0, 0)
    image = harness.image(rgb)
    report = Soak()
    node = harness.NodeProcess(command, {"image_reliability": "reliable", **parameters})
    client = harness.Client()
    stop = threading.Event()
    try:
        client.connect(node)
        client.ask(["red"], id="follow", mode=Instruction.EVERY_FRAME)

        def stream() -> None:
            start = time.monotonic()
            while not stop.wait(max(0.0, start + report.frames / rate - time.monotonic())):
                now = time.time_ns()
                image.header.stamp.sec, image.header.stamp.nanosec = now // 10**9, now % 10**9
                client.images.publish(image)
                report.frames += 1

        thread = threading.Thread(target=stream, daemon=True)
        thread.start()
        start = time.monotonic()
        sent = 0

        def send(until: float) -> None:
            nonlocal sent
            while sent < min(instructions, instructions * until / seconds):
                client.ask(["red", "blue"], id=f"soak-{sent}")
                sent += 1

        while (elapsed := time.monotonic() - start) < seconds:
            send(elapsed)
            report.memory.append(resident(node.process.pid))
            if node.process.poll() is not None:
                raise AssertionError(f"the node ended:\n{node.log}")
            time.sleep(min(1.0, seconds / 40))

        send(seconds)

        def answered() -> dict[str, int]:
            counts: dict[str, int] = {f"soak-{n}": 0 for n in range(sent)}
            for answer in list(client.answers):
                if answer.instruction_id in counts:
                    counts[answer.instruction_id] += 1
            return counts

        end = time.monotonic() + GRACE
        while min(answered().values()) == 0 and time.monotonic() < end:
            time.sleep(0.2)
        stop.set()
        thread.join()
        counts = answered()
        report.unanswered = [name for name, count in counts.items() if count == 0]
        report.twice = [name for name, count in counts.items() if count > 1]
        for answer in client.answers:
            if answer.instruction_id == "follow":
                report.followed += 1
                report.late = max(report.late, answer.timings.queue)
            for outcome in answer.outcomes if answer.instruction_id in counts else ():
                report.outcomes[outcome.outcome] = report.outcomes.get(outcome.outcome, 0) + 1
    finally:
        stop.set()
        client.close()
        node.close()
    return report


def main() -> int:
    """Run and print; fail if an answer is missing or duplicate, or if memory grows by over 50 MiB."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=30.0, help="frames a second")
    parser.add_argument("--instructions", type=int, default=1000)
    parser.add_argument("--model", default="gsva-mini")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    harness.isolate()
    parameters = {"model": args.model, "device": args.device}
    report = soak(harness.REAL, parameters, 60 * args.minutes, args.rate, args.instructions)
    print("\n".join(report.lines()))
    return 1 if report.unanswered or report.twice or report.growth > 50 else 0


if __name__ == "__main__":
    sys.exit(main())
