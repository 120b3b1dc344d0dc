"""A node in another process, and its client in this one."""

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import rclpy
from ament_index_python.packages import get_package_prefix
from diagnostic_msgs.msg import DiagnosticArray
from fake_engine import FakeEngine
from gsva_ros.msg import Instruction, Rejection, Segmentation
from gsva_ros.srv import Segment
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from patience import PATIENCE, wait
from rcl_interfaces.srv import SetParameters
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from gsva_ros.conversions import fill_image
from gsva_ros.ros import qos, transport
from gsva_ros.ros.node import GsvaNode

SUPPORT = Path(__file__).resolve().parent
REAL = [str(Path(get_package_prefix("gsva_ros")) / "lib" / "gsva_ros" / "gsva_node")]
GREETING = "greeting"
FAKE = [sys.executable, str(SUPPORT / "fake_node.py")]


def isolate():
    """Give this process and its children a random DDS domain, on this machine only.

    UDP is used because tests kill nodes: a process that is killed or stopped for seconds can leave Fast
    DDS's shared memory in a state in which the next one never receives a message. The profile sets the
    discovery range, because rmw_fastrtps adds shared memory of its own under LOCALHOST.
    """
    os.environ[transport.profile_variable(os.environ)] = str(SUPPORT / "loopback.xml")
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "SYSTEM_DEFAULT"
    os.environ["ROS_DOMAIN_ID"] = str(random.SystemRandom().randint(1, 100))
    os.environ.setdefault("ROS_LOG_DIR", "/tmp/gsva_ros_test_log")


@contextmanager
def a_node(*arguments):
    """A node in this process, unconfigured; nothing spins it."""
    rclpy.init(args=["--ros-args", *arguments])
    node = GsvaNode(lambda *_: FakeEngine())
    try:
        yield node
    finally:
        node.close()
        node.destroy_node()
        rclpy.try_shutdown()


class NodeProcess:
    """The node, started with `parameters`; `log` collects what it prints."""

    def __init__(self, command, parameters=None, delay=0.0, remap=None):
        arguments = ["--ros-args", "-r", "__ns:=/test"]
        for name, other in (remap or {}).items():
            arguments += ["-r", f"{name}:={other}"]
        for name, value in (parameters or {}).items():
            arguments += ["-p", f"{name}:={value}"]
        self._hold = Path(tempfile.gettempdir()) / f"gsva_ros_test_{uuid.uuid4().hex}"
        environment = {**os.environ, "FAKE_DELAY": str(delay), "PYTHONUNBUFFERED": "1"}
        environment["FAKE_HOLD"] = str(self._hold)
        self.process = subprocess.Popen(
            [*command, *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.log = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.log += line

    def says(self, words):
        """Wait until it has printed `words`; fail with its log."""
        wait(lambda: words in self.log, lambda: self.log)

    def hold(self):
        """Let the fake engine finish no answer until it is let go."""
        self._hold.touch()

    def let_go(self):
        """Let the fake engine finish its answers again."""
        self._hold.unlink(missing_ok=True)

    def ended(self, timeout=PATIENCE):
        """Wait for its end, and for all that it has printed; return its exit status."""
        status = self.process.wait(timeout)
        self._reader.join(PATIENCE)
        return status

    def interrupt(self, timeout=PATIENCE, number=signal.SIGINT):
        """Send a signal; return the exit status."""
        self.process.send_signal(number)
        return self.ended(timeout)

    def close(self):
        self.let_go()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Manager:
    """Calls the lifecycle services, as `ros2 lifecycle` does."""

    def __init__(self, client):
        self.client = client
        self._change = client.node.create_client(ChangeState, "gsva/change_state")
        client.wait(self._change.service_is_ready, what="the lifecycle services")

    def ask(self, transition):
        """Request a transition without waiting for its result."""
        return self._change.call_async(ChangeState.Request(transition=Transition(id=transition)))

    def change(self, transition):
        self.client.be_known()
        future = self.ask(transition)
        self.client.wait(future.done, what="the transition")
        if transition == Transition.TRANSITION_ACTIVATE:
            self.client.be_heard()
        return future.result().success

    def state(self):
        return self.client.reply(GetState, "gsva/get_state").current_state.id


class Client:
    """Publishes frames and instructions, and collects answers and the newest message of topics."""

    def __init__(self, compressed=False, listen=None, cameras=("image",)):
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("client", namespace="/test", context=self.context)
        self.answers = []
        self.rejections = []
        self.pictures = {}
        self.health = []
        self._actions = []
        self._greeted = False
        self._server = None
        kind, suffix = (CompressedImage, "/compressed") if compressed else (Image, "")
        self.cameras = {
            camera: self.node.create_publisher(kind, camera + suffix, qos.IMAGES_OUT)
            for camera in cameras
        }
        self.images = self.cameras[cameras[0]]
        self.texts = self.node.create_publisher(String, "instruction_text", qos.RELIABLE)
        self.calls = self.node.create_client(Segment, "gsva/segment", qos_profile=qos.SERVICE)
        subscribe = self.node.create_subscription
        subscribe(Rejection, "rejection", self.rejections.append, qos.RELIABLE)
        subscribe(DiagnosticArray, "/diagnostics", self.health.append, 10)
        self._listened = list(listen or ())
        for topic, kind in (listen or {}).items():
            subscribe(
                kind, topic, lambda m, t=topic: self.pictures.__setitem__(t, m), qos.IMAGES_OUT
            )
        # Last, because endpoints are discovered in the order of their creation: a node that knows
        # these two (see `connect`) knows the others.
        self.instructions = self.node.create_publisher(Instruction, "instruction", qos.RELIABLE)
        subscribe(Segmentation, "segmentation", self._on_answer, qos.RELIABLE)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self._stop = False
        self._died = None  # what a thread has raised
        self._thread = self.thread(self._spin)

    def thread(self, do, *arguments):
        """Start a thread; what it raises fails the waits of this client, which would be in vain."""

        def run():
            try:
                do(*arguments)
            except BaseException as error:
                self._died = error

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    def _spin(self):
        while not self._stop:
            self.executor.spin_once(timeout_sec=0.05)

    def _on_answer(self, msg):
        if msg.instruction_id.startswith(GREETING):
            self._greeted = True
        else:
            self.answers.append(msg)

    def status(self):
        """The newest diagnostics of the node; None before the first."""
        return self.health[-1].status[0] if self.health else None

    def told(self):
        """Values of the newest diagnostics by key."""
        return {v.key: v.value for v in self.status().values} if self.health else {}

    def wait(self, condition, timeout=PATIENCE, what="the condition"):
        """Wait until `condition()` is true; fail with `what` after `timeout` seconds."""
        end = time.monotonic() + timeout
        while not condition():
            if self._died is not None:
                raise AssertionError(f"{what}: a thread died") from self._died
            if time.monotonic() > end:
                said = f"; the node:\n{self._server.log[-2000:]}" if self._server else ""
                raise AssertionError(f"{what}: not within {timeout} s{said}")
            time.sleep(0.005)

    def connect(self, node, listens=True):
        """Wait until the node answers, until its publishers are discovered and, if it `listens`, its
        camera subscriptions.

        An answer shows that the node has discovered our endpoints, not that its own are discovered here: a
        frame published before its subscription is known is lost.
        """
        self._server = node
        asked = []

        def greeted():
            assert node.process.poll() is None, f"the node ended:\n{node.log}"
            if not asked or time.monotonic() - asked[-1] > 0.2:
                asked.append(time.monotonic())
                self.ask(id=f"{GREETING} {asked[-1]}")  # empty: answered at once, with FAILED
            return self._greeted and self.calls.service_is_ready()

        self.wait(greeted, what="contact")
        # Images come from a process of their own.
        self.wait(
            lambda: all(self.node.count_publishers(topic) for topic in self._listened),
            what="a publisher of each topic",
        )
        if listens:
            self.be_heard()

    def be_heard(self):
        """Wait until each camera has a subscriber."""
        cameras = self.cameras.values()
        self.wait(
            lambda: all(p.get_subscription_count() for p in cameras),
            what="a listener of each camera",
        )

    def be_known(self):
        """Wait until the node has discovered all that was made here so far.

        It has when a client that is made now gets an answer, since endpoints are discovered in the order of
        their creation. What it sends before that to others of them is lost.
        """
        self.reply(GetState, "gsva/get_state")

    def reply(self, kind, service, **fields):
        """Call a service of the node, again if need be: one that does not know the client may not reply."""
        client = self.node.create_client(kind, service)
        self.wait(client.service_is_ready, what=service)
        asked = []

        def told():
            if not asked or time.monotonic() - asked[-1][0] > 5.0:
                asked.append((time.monotonic(), client.call_async(kind.Request(**fields))))
            return any(future.done() for _, future in asked)

        self.wait(told, what=f"the reply of {service}")
        self.between(lambda: self.node.destroy_client(client), "a client's end")
        return next(future for _, future in asked if future.done()).result()

    def frame(self, rgb, stamp=1.0, frame_id="camera", camera=None):
        """Publish an image; return the message."""
        msg = image(rgb, stamp, frame_id)
        (self.cameras[camera] if camera else self.images).publish(msg)
        return msg

    def ask(self, expressions=(), **fields):
        """Publish an instruction."""
        self.instructions.publish(Instruction(expressions=list(expressions), **fields))

    def answer(self, instruction_id, timeout=PATIENCE, count=1):
        """Wait for the answers to an instruction; return the last one."""

        def mine():
            return [a for a in self.answers if a.instruction_id == instruction_id]

        self.wait(lambda: len(mine()) >= count, timeout, f"answer to {instruction_id!r}")
        return mine()[-1]

    def call(self, rgb, expressions=(), text=""):
        """Call the service."""
        request = Segment.Request(expressions=list(expressions), text=text)
        request.image = rgb if isinstance(rgb, Image) else image(rgb)
        future = self.calls.call_async(request)
        self.wait(future.done, what="the service's answer")
        return future.result()

    def between(self, do, what):
        """do() in the executor's thread, between two waits: rclpy registers an action client before it is
        complete, and an entity that goes during a wait can end the executor."""
        done = self.executor.create_task(do)
        self.wait(done.done, what=what)
        return done.result()

    def action(self, kind, name, **quality):
        """An ActionClient whose server is ready and knows it: feedback is lost otherwise.

        So is what does not fit into rclpy's ten unread messages.
        """
        quality = {"feedback_sub_qos_profile": qos.RELIABLE, **quality}
        client = self.between(
            lambda: ActionClient(self.node, kind, name, **quality), "an action client"
        )
        self._actions.append(client)
        self.wait(client.server_is_ready, what="the action")
        self.be_known()
        return client

    def send(self, action, goal, **how):
        """Send a goal; return the future of its handle.

        rclpy loses an answer that its executor takes before all is noted that a goal, cancel or request for
        a result needs, which is why these are made in its thread.
        """
        return self.between(lambda: action.send_goal_async(goal, **how), "a goal")

    def unpublish(self, publisher):
        """Destroy a publisher."""
        self.between(lambda: self.node.destroy_publisher(publisher), "a publisher's end")

    def set_parameter(self, name, value):
        """Set a parameter of the node; return its SetParametersResult."""
        # Through the service: Humble's rclpy has no parameter client.
        wanted = Parameter(name, value=value).to_parameter_msg()
        return self.reply(SetParameters, "gsva/set_parameters", parameters=[wanted]).results[0]

    def close(self):
        self._stop = True
        self._thread.join()
        self.executor.shutdown()
        for action in self._actions:  # the node does not destroy them; later tests would see them
            action.destroy()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


def image(rgb, stamp=1.0, frame_id="camera"):
    """Return an rgb8 message."""
    msg = fill_image(Image(), rgb, "rgb8")
    msg.header.frame_id = frame_id
    msg.header.stamp.sec = int(stamp)
    msg.header.stamp.nanosec = round((stamp - int(stamp)) * 1e9)
    return msg


def blocks():
    """Return an image with a red and a green rectangle, and their regions (x, y, width, height)."""
    rgb = np.full((60, 80, 3), 90, np.uint8)
    rgb[10:30, 5:25] = (255, 0, 0)
    rgb[20:50, 40:70] = (0, 255, 0)
    return rgb, {"red": (5, 10, 20, 20), "green": (40, 20, 30, 30)}


def outcomes(answer):
    """Outcome and code of each expression of a Segmentation."""
    return [(o.outcome, o.code) for o in answer.outcomes]
