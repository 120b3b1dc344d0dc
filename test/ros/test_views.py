"""Topics derived from an answer: pictures, labels, instances, points in space."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
import threading
import time
import types
from contextlib import closing

import cv2
import harness
import numpy as np
import pytest
from geometry_msgs.msg import Point, Pose, Quaternion, Vector3
from gsva_ros.msg import InstanceMask, Segmentation, Segmentation3D
from harness import Client, blocks
from patience import wait
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointField
from std_msgs.msg import Header

from gsva_ros.conversions import MessageError, fill_image, mask_of
from gsva_ros.geometry import organised_points, quaternion, rotation_of, shape_of, to_metres
from gsva_ros.instances import split
from gsva_ros.overlay import colour_of
from gsva_ros.ros import depth, patience, picture_process
from gsva_ros.ros.depth import HELD, DepthBuffer, depth_of, intrinsics_of, is_distorted
from gsva_ros.ros.instances_3d import segmentation_3d
from gsva_ros.ros.patience import PATIENCE
from gsva_ros.ros.picture_process import TOPICS, Painter, Shown
from gsva_ros.ros.pictures import Pictures
from gsva_ros.ros.transforms import Transform, TransformError, Transforms
from gsva_ros.ros.views import Views
from gsva_ros.serving.requests import CameraFrame, Request, Result
from gsva_ros.stamps import SECOND

K = np.array([[100.0, 0.0, 40.0], [0.0, 100.0, 30.0], [0.0, 0.0, 1.0]])

harness.isolate()


def test_pictures_while_somebody_listens(start):
    kinds = {"overlay": Image, "label_image": Image, "overlay/compressed": CompressedImage}
    _, client = start(listen=kinds)
    rgb, _ = blocks()
    client.frame(rgb, stamp=2.0)
    client.ask(["red", "blue", "green"], id="look")
    client.wait(lambda: len(client.pictures) == 3, what="pictures")
    labels = np.frombuffer(client.pictures["label_image"].data, "<u2").reshape(60, 80)
    assert client.pictures["label_image"].encoding == "mono16"
    assert (labels[10:30, 5:25] == 1).all()
    assert (labels[20:50, 40:70] == 3).all()
    overlay = client.pictures["overlay"]
    assert overlay.header.stamp.sec == 2
    assert bytes(overlay.data) != rgb.tobytes()
    squeezed = client.pictures["overlay/compressed"]
    assert squeezed.header == overlay.header
    shown = cv2.imdecode(np.frombuffer(squeezed.data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    whole = np.frombuffer(overlay.data, np.uint8).reshape(60, 80, 3)
    assert np.abs(shown.astype(int) - whole).mean() < 12
    # The rejected expression's label lies on a dark ground.
    assert (whole[-8:] < 30).all(2).mean() > 0.1
    assert not (rgb < 30).all(2).any()
    assert whole[:5, 77:].mean() == rgb[:5, 77:].mean()  # beside the labels, in any OpenCV's font
    # Nothing found at all: the whole picture is.
    client.frame(rgb, stamp=3.0)
    client.ask(["blue"], id="none")
    client.wait(lambda: client.pictures["overlay"].header.stamp.sec == 3, what="the next overlay")
    dark = np.frombuffer(client.pictures["overlay"].data, np.uint8).reshape(60, 80, 3)
    assert dark[:5, 77:].mean() == pytest.approx(0.5 * rgb[:5, 77:].mean(), abs=1)
    # A tint that hides the object, from now on.
    assert client.set_parameter("overlay_opacity", 1.0).successful
    client.frame(rgb, stamp=4.0)
    client.ask(["red"], id="covered")
    client.wait(lambda: client.pictures["overlay"].header.stamp.sec == 4, what="the third overlay")
    covered = np.frombuffer(client.pictures["overlay"].data, np.uint8).reshape(60, 80, 3)
    assert tuple(covered[20, 15]) == colour_of(0)
    assert tuple(whole[20, 15]) != colour_of(0)
    # What failed is not drawn: it is not known to be absent.
    client.frame(rgb, stamp=5.0)
    client.ask(["red", ""], id="failed")
    client.wait(lambda: client.pictures["overlay"].header.stamp.sec == 5, what="the last overlay")
    assert bytes(client.pictures["overlay"].data) == covered.tobytes()


def test_what_is_too_large_for_a_jpeg_is_said(monkeypatch):
    """And everything else is published."""
    sent, warned = [], []
    publishers = {
        topic: types.SimpleNamespace(
            publish=lambda msg, topic=topic: sent.append(topic), get_subscription_count=lambda: 1
        )
        for topic in TOPICS
    }
    monkeypatch.setattr(Pictures, "_start", lambda self: None)
    monkeypatch.setattr(
        Pictures, "_write", lambda self, process, shown: Painter(publishers).publish(shown)
    )
    node = types.SimpleNamespace(
        get_name=lambda: "gsva",
        get_namespace=lambda: "/",
        context=types.SimpleNamespace(get_domain_id=lambda: 0),
        resolve_topic_name=str,
        count_subscribers=lambda topic: 1,
    )
    pictures = Pictures(node, {"overlay_opacity": 0.5}.get, lambda *told: warned.append(told))
    frame = CameraFrame(Header(), 0, "/camera", lambda: None)
    for side in (65_500, 65_501):
        pictures._show(Result(Request(), [], frame, np.zeros((1, side, 3), np.uint8)))
    first, second = sent[: len(TOPICS)], sent[len(TOPICS) :]
    assert sorted(first) == sorted(TOPICS)
    assert set(first) - set(second) == {"overlay/compressed"}
    assert len(warned) == 1
    assert "65501x1 is too large for a JPEG" in warned[0][1]


@pytest.mark.parametrize("heard", [*TOPICS, "heat", None])
def test_a_picture_is_drawn_for_any_of_the_topics(heard, monkeypatch):
    """Also for one that is added to them."""
    monkeypatch.setitem(TOPICS, "heat", Image)
    drawn = []
    monkeypatch.setattr(picture_process, "_targets", lambda shown: drawn.append(shown) or [])
    publishers = {
        topic: types.SimpleNamespace(
            publish=lambda msg: None, get_subscription_count=lambda topic=topic: topic == heard
        )
        for topic in TOPICS
    }
    shown = Shown([], np.zeros((8, 8, 3), np.uint8), Header(), [], 0.5)
    Painter(publishers).publish(shown)
    assert drawn == [shown] * (heard is not None)


def painter_of(node):
    """The process that draws a node's pictures."""
    found = subprocess.run(
        ["pgrep", "-P", str(node.process.pid), "-f", "picture_process"],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(found.stdout)


def test_a_node_without_standard_input(tmp_path):
    """As a supervisor may start it: only the process that draws reads its own, a pipe."""
    load = 'exec "$0" -c "import gsva_ros.ros.pictures" <&-'
    loaded = subprocess.run(["sh", "-c", load, sys.executable], cwd=tmp_path, check=False)
    assert loaded.returncode == 0


def test_a_viewer_that_takes_no_picture_delays_no_answer(start):
    """As at the end of a network without bandwidth, where publishing a picture does not return."""
    node, client = start(listen={"overlay": Image})
    rgb, _ = blocks()
    client.frame(rgb, stamp=1.0)
    client.ask(["red"], id="first")
    client.wait(lambda: "overlay" in client.pictures, what="the first overlay")
    painter = painter_of(node)
    os.kill(painter, signal.SIGSTOP)
    large = np.zeros((240, 320, 3), np.uint8)  # one fills the pipe
    for number in range(20):
        client.frame(large, stamp=2.0 + number)
        client.ask(["red"], id=f"on {number}")
        client.wait(lambda n=number: len(client.answers) == n + 2, what="an answer")
    os.kill(painter, signal.SIGCONT)
    client.wait(
        lambda: client.pictures["overlay"].header.stamp.sec == 21, what="the newest overlay"
    )
    # Nor does it delay the end.
    os.kill(painter, signal.SIGSTOP)
    for number in range(3):
        client.frame(large, stamp=30.0 + number)
        client.ask(["red"], id=f"late {number}")
    client.wait(lambda: len(client.answers) == 24, what="the last answers")
    assert node.interrupt(30.0) == 0
    assert not os.path.exists(f"/proc/{painter}")


def test_pictures_go_on_after_their_process_died(start):
    node, client = start(listen={"overlay": Image})
    rgb, _ = blocks()
    os.kill(painter_of(node), signal.SIGKILL)
    asked = []

    def shown():
        if not asked or time.monotonic() - asked[-1] > 0.5:  # the new one must discover us first
            asked.append(time.monotonic())
            client.frame(rgb, stamp=float(len(asked)))
            client.ask(["red"], id=f"{len(asked)}")
        return "overlay" in client.pictures

    client.wait(shown, what="an overlay")
    node.says("its process ended with status -9: starting it again")
    assert node.interrupt() == 0


def test_the_pictures_process_ends_with_a_killed_node(start):
    node, _ = start()
    painter = painter_of(node)
    node.process.kill()

    def ended():
        """Also one that nobody has waited for, as where no init runs."""
        try:
            with open(f"/proc/{painter}/stat") as file:
                return file.read().rpartition(")")[2].split()[0] == "Z"
        except FileNotFoundError:
            return True

    harness.wait(ended)


def test_split_instances_changes_live(start):
    _, client = start()
    rgb = np.zeros((60, 80, 3), np.uint8)
    rgb[10:20, 50:60] = rgb[30:50, 5:25] = (255, 0, 0)
    client.frame(rgb)
    client.ask(["red"], id="union")
    assert len(client.answer("union").instances) == 1
    assert client.set_parameter("split_instances", True).successful
    client.ask(["red"], id="parts")
    parts = client.answer("parts").instances
    assert [(p.slot, p.instance, p.roi.x_offset, p.roi.width) for p in parts] == [
        (0, 0, 5, 20),
        (0, 1, 50, 10),
    ]
    whole = sum(mask_of(p, 80, 60).astype(int) for p in parts)
    assert np.array_equal(whole, (rgb[..., 0] == 255).astype(int))


def test_crumbs_stay_with_the_nearest_instance():
    mask = np.zeros((40, 60), bool)
    mask[5:25, 5:25] = mask[5:25, 35:55] = True
    mask[30, 40] = True
    mask[15, 27:32] = True  # its one end is nearer to the left than the other to the right
    left, right = split(mask)
    assert left.sum() == 405
    assert right.sum() == 401
    assert right[30, 40]
    touching = np.zeros((10, 10), bool)
    touching[2:4, 2:4] = touching[4:6, 4:6] = True
    assert len(list(split(touching))) == 1  # corners touch


def test_a_crumb_at_the_end_of_a_long_instance_is_of_that_instance():
    """Whose middle is further away than that of another one."""
    mask = np.zeros((120, 480), bool)
    mask[100:110, 40:340] = mask[100:110, 346:358] = True
    mask[60:75, 392:404] = True
    long, other = split(mask)
    assert long[100:110, 346:358].all()
    assert other.sum() == 15 * 12


def test_instances_are_from_left_to_right_and_together_the_mask():
    """Crumbs too, wherever they lie; one is smaller than a twentieth of the largest instance."""
    mask = np.zeros((60, 90), bool)
    mask[40:50, 0:10] = mask[20:30, 30:40] = mask[5:15, 70:80] = True
    mask[40, 20:25] = True  # five pixels of a hundred: an instance
    mask[0, 66:70] = mask[59, 0] = True  # four pixels and one
    parts = list(split(mask))
    assert [int(part.sum()) for part in parts] == [101, 5, 100, 104]
    assert [int(np.flatnonzero(part.any(0))[0]) for part in parts] == [0, 20, 30, 66]
    assert np.array_equal(np.sum(parts, axis=0), mask)


def test_many_things_alike_are_instances_and_no_crumbs():
    mask = np.zeros((60, 120), bool)
    for left in range(0, 120, 5):
        mask[10:14, left : left + 4] = True
    mask[30, 0] = True  # a crumb: less than a twentieth of the largest would be
    mask[40:46, 0:6] = True
    parts = list(split(mask))
    assert len(parts) == 25
    assert sum(part.sum() for part in parts) == mask.sum()


def depth_message(depth, stamp=5.0):
    msg = Image(height=depth.shape[0], width=depth.shape[1], encoding="32FC1")
    msg.step = 4 * depth.shape[1]
    msg.data = np.ascontiguousarray(depth, "<f4").tobytes()
    msg.header.stamp.sec = int(stamp)
    msg.header.stamp.nanosec = round((stamp - int(stamp)) * 1e9)
    return msg


def test_instances_in_space(start):
    """A red board one metre away and a green one two metres away, with known edges."""
    node, client = start(
        {"depth_topics": "[depth]", "depth_tolerance": 0.1},
        listen={"segmentation_3d": Segmentation3D},
    )
    depths = client.node.create_publisher(Image, "depth", harness.qos.IMAGES_OUT)
    infos = client.node.create_publisher(CameraInfo, "camera_info", harness.qos.IMAGES_OUT)
    client.wait(lambda: depths.get_subscription_count() and infos.get_subscription_count())
    rgb, _ = blocks()
    depth = np.full((60, 80), np.nan, np.float32)
    depth[10:30, 5:25] = 1.0
    depth[20:50, 40:70] = 2.0
    depth[20:50, 40] = 0.0  # no depth there: nothing to do with the rest

    def told():
        infos.publish(CameraInfo(height=60, width=80, k=K.reshape(-1), d=[0.1, 0.0, 0.0, 0.0, 0.0]))
        depths.publish(depth_message(depth, 5.05))
        client.frame(rgb, stamp=5.0)
        client.ask(["red", "blue", "green"], id="look")
        return "segmentation_3d" in client.pictures

    client.wait(told, what="points in space")
    client.wait(lambda: "lens distortion" in node.log, what="a word about the lens")
    msg = client.pictures["segmentation_3d"]
    assert (msg.instruction_id, msg.header.stamp.sec) == ("look", 5)
    assert msg.depth_offset == pytest.approx(0.05, abs=1e-6)
    red, green = msg.instances
    assert (red.expression, red.slot, green.slot) == ("red", 0, 2)
    # Pixels 5 to 24 and 10 to 29 at one metre, with f = 100 and the centre at (40, 30).
    assert red.pose.position.x == pytest.approx((14.5 - 40) / 100, abs=1e-5)
    assert red.pose.position.y == pytest.approx((19.5 - 30) / 100, abs=1e-5)
    assert red.pose.position.z == pytest.approx(1.0, abs=1e-5)
    assert green.pose.position.z == pytest.approx(2.0, abs=1e-5)
    assert sorted([green.extents.x, green.extents.y], reverse=True) == pytest.approx(
        [0.58, 0.56], abs=0.03
    )
    assert green.extents.z == pytest.approx(0.0, abs=1e-5)
    cloud = green.points
    assert (cloud.height, cloud.width, cloud.point_step, cloud.row_step) == (30, 30, 12, 360)
    assert [f.name for f in cloud.fields] == ["x", "y", "z"]
    points = np.frombuffer(cloud.data, "<f4").reshape(30, 30, 3)
    assert np.isnan(points[:, 0]).all()
    assert np.isfinite(points[:, 1:]).all()
    # Depth of another size is not registered: said, and nothing is published.

    def complained():
        depths.publish(depth_message(depth[:30], 9.0))
        client.frame(rgb, stamp=9.0)
        client.ask(["red"])
        return "registered" in node.log

    client.wait(complained, what="a word about the depth")
    assert client.pictures["segmentation_3d"].header.stamp.sec == 5


def test_camera_info_that_was_published_before_the_node_started(start):
    with closing(Client()) as driver:
        infos = driver.node.create_publisher(CameraInfo, "camera_info", harness.qos.LATCHED)
        infos.publish(CameraInfo(height=60, width=80, k=K.reshape(-1)))
        parameters = {"depth_topics": "[depth]"}
        _, client = start(parameters, listen={"segmentation_3d": Segmentation3D})
        depths = client.node.create_publisher(Image, "depth", harness.qos.IMAGES_OUT)
        rgb, _ = blocks()

        def told():
            depths.publish(depth_message(np.ones((60, 80), np.float32), 5.0))
            client.frame(rgb, stamp=5.0)
            client.ask(["red"])
            return "segmentation_3d" in client.pictures

        client.wait(told, what="points in space")


def test_only_publishers_that_keep_camera_info_are_asked_for_it():
    """Any other would warn of a subscription that it does not match."""
    with harness.a_node("-p", "depth_topics:=[depth]") as node:
        assert node.trigger_configure() is TransitionCallbackReturn.SUCCESS
        assert node.trigger_activate() is TransitionCallbackReturn.SUCCESS
        wanted = [DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL]
        for count, profile in enumerate((harness.qos.IMAGES_OUT, harness.qos.LATCHED), start=1):
            node.create_publisher(CameraInfo, "camera_info", profile)
            wait(lambda count=count: node.count_publishers("camera_info") == count)
            for _ in range(2):
                node._cameras.latch()
            found = [s for s in node.subscriptions if s.topic_name == "/camera_info"]
            assert [s.qos_profile.durability for s in found] == wanted[:count]


def test_late_depth_is_waited_for_as_long_as_the_parameter_says(start):
    _, client = start(
        {"depth_topics": "[depth]", "depth_wait": 5.0}, listen={"segmentation_3d": Segmentation3D}
    )
    depths = client.node.create_publisher(Image, "depth", harness.qos.IMAGES_OUT)
    infos = client.node.create_publisher(CameraInfo, "camera_info", harness.qos.IMAGES_OUT)
    client.wait(lambda: depths.get_subscription_count() and infos.get_subscription_count())
    client.be_known()  # or the node might not listen to these two yet
    infos.publish(CameraInfo(height=60, width=80, k=K.reshape(-1)))
    client.frame(blocks()[0], stamp=5.0)
    client.ask(["red"], id="look")
    client.answer("look")  # which does not wait
    time.sleep(0.5)
    depths.publish(depth_message(np.ones((60, 80), np.float32), 5.0))
    client.wait(lambda: "segmentation_3d" in client.pictures, what="points in space")
    assert client.pictures["segmentation_3d"].instruction_id == "look"


def near(stamp, metres=1.0):
    """A depth image that is one metre throughout, unless said otherwise; its stamp in seconds."""
    return depth_message(np.full((2, 2), metres, np.float32), stamp)


def recent(*stamps):
    """A camera's buffer with its camera_info, and with depth of these stamps."""
    buffer = DepthBuffer("/depth", "/camera_info")
    buffer.add_info(CameraInfo(k=K.reshape(-1)))
    for stamp in stamps:
        buffer.add_depth(near(stamp))
    return buffer


def waited(buffer, add, late, second=10):
    """What a buffer finds beside a stamp where this message comes while it waits."""
    timer = threading.Timer(0.1, add, (late,))
    timer.start()
    found = buffer.beside(second * SECOND, 0.05, 20.0)
    timer.join()
    return found


def test_depth_nearest_in_time():
    """Held is the nearest of what was there and of what comes later, however much follows."""
    buffer = DepthBuffer("/depth", "/camera_info")
    stamp = 10 * SECOND
    buffer.hold(stamp)
    assert buffer.beside(stamp, 1.0, 0.0) is None
    for at in (9.0, 9.97, 10.02, 11.0):
        buffer.add_depth(near(at))
    assert buffer.beside(stamp, 1.0, 0.0) is None  # no camera_info yet
    buffer.add_info(CameraInfo(k=K.reshape(-1)))
    for number in range(100):  # three seconds of camera while the model works
        buffer.add_depth(near(12.0 + number / 30))
    image, info, offset = buffer.beside(stamp, 0.05, 0.0)
    assert image.header.stamp.nanosec == 20_000_000
    assert offset == pytest.approx(0.02)
    assert np.array_equal(info.k, K.reshape(-1))
    assert buffer.beside(stamp, 0.01, 0.0) is None
    assert buffer.beside(11 * SECOND, 1.0, 0.0) is None  # nobody held it
    assert buffer.beside(15 * SECOND + SECOND // 100, 0.05, 0.0)[2] == pytest.approx(-0.01)
    # Nor this one, but it is of the last second.
    carried = buffer.beside(29 * SECOND // 2, 0.05, 0.0)
    assert carried is not None
    assert carried[2] == pytest.approx(0.0, abs=0.02)


def test_depth_is_held_for_the_newest_frames_only():
    buffer = recent()

    def seen(second):
        buffer.add_depth(near(float(second)))
        buffer.hold(second * SECOND)

    for second in range(HELD):
        seen(second)
    buffer.hold(0)  # again: it is the most recent one now
    seen(HELD)
    for second in range(100, 200):
        buffer.add_depth(near(float(second)))
    held = [n for n in range(HELD + 1) if buffer.beside(n * SECOND, 0.0, 0.0) is not None]
    assert held == [0, *range(2, HELD + 1)]


def test_depth_that_is_on_its_way_is_waited_for():
    buffer = recent()
    buffer.hold(10 * SECOND)
    found = waited(buffer, buffer.add_depth, late := near(10.0))
    assert found is not None
    assert found[0] is late


@pytest.mark.parametrize("stamps", [(9.96, 9.98), (9.92, 9.94, 9.98), (9.98, 9.96, 9.98)])
def test_a_nearer_depth_image_that_is_due_is_waited_for(stamps):
    """The one before is near enough, but shows what has moved where it was. Images get lost and swapped."""
    buffer = recent(*stamps)
    buffer.hold(10 * SECOND)
    image, _, offset = waited(buffer, buffer.add_depth, late := near(10.0))
    assert image is late
    assert offset == 0.0


@pytest.mark.parametrize(
    "stamps",
    [
        (9.98,),
        (9.9, 9.98),
        (9.98, 9.98),
        (9.98, 10.0),
        (9.98, 10.01),
        (9.9, 9.96),
        (9.91, 9.911, 9.95, 9.99),
    ],
)
def test_where_no_nearer_depth_image_is_due_the_nearest_is_taken_at_once(stamps):
    """Nor is one waited for longer than what it is nearer. Two may be stamped in a burst."""
    start = time.monotonic()
    image, _, _ = recent(*stamps).beside(10 * SECOND, 0.05, 20.0)
    assert time.monotonic() - start < 10.0
    assert image.header.stamp == near(stamps[-1]).header.stamp


@pytest.fixture
def no_second(monkeypatch):
    """A wait in vain was never a second ago, however slow the machine is."""
    for module in (patience, depth):
        monkeypatch.setattr(module, "AGAIN", 1e9)


@pytest.mark.usefixtures("no_second")
def test_a_nearer_depth_image_that_does_not_come_costs_no_points():
    """Nor a wait for each answer."""
    buffer = recent(9.96, 9.98)
    for _ in range(PATIENCE):
        assert buffer.beside(10 * SECOND, 0.05, 0.01) is not None
    start = time.monotonic()
    assert buffer.beside(10 * SECOND, 0.05, 20.0) is not None
    assert time.monotonic() - start < 10.0


def test_camera_info_that_is_on_its_way_is_waited_for():
    """Also after waits in vain, up to the first one that comes."""
    buffer = DepthBuffer("/depth", "/camera_info")
    buffer.add_depth(near(10.0))
    for _ in range(PATIENCE - 1):
        assert buffer.beside(10 * SECOND, 0.05, 0.0) is None
    start = time.monotonic()
    found = waited(buffer, buffer.add_info, late := CameraInfo(k=K.reshape(-1)))
    assert time.monotonic() - start < 10.0
    assert found is not None
    assert found[1] is late


def test_a_camera_whose_first_camera_info_comes_late_is_waited_for():
    buffer = DepthBuffer("/depth", "/camera_info")
    for _ in range(PATIENCE):
        assert buffer.beside(10 * SECOND, 0.05, 0.0) is None
    buffer.add_info(CameraInfo(k=K.reshape(-1)))
    assert waited(buffer, buffer.add_depth, near(10.0)) is not None


@pytest.mark.usefixtures("no_second")
def test_a_silent_depth_camera_is_not_waited_for():
    """Each answer would be, and everybody behind it."""
    buffer = recent()
    for _ in range(PATIENCE):
        assert buffer.beside(10 * SECOND, 0.05, 0.01) is None
        buffer.add_info(CameraInfo(k=K.reshape(-1)))  # which the colour camera sends
    start = time.monotonic()
    assert buffer.beside(10 * SECOND, 0.05, 20.0) is None
    assert time.monotonic() - start < 10.0
    # One that sends again, however rarely, is waited for again.
    for second in (20, 40):
        buffer.add_depth(near(second - 5.0))
        assert waited(buffer, buffer.add_depth, near(float(second)), second) is not None


@pytest.mark.usefixtures("no_second")
def test_depth_that_always_comes_too_late_is_not_waited_for():
    """As over a slow network: it would delay every answer, and bring none its points."""
    buffer = recent()
    for second in range(10, 10 + PATIENCE):
        buffer.add_depth(near(second - 1.0))
        assert buffer.beside(second * SECOND, 0.05, 0.01) is None
    buffer.add_depth(near(19.0))
    start = time.monotonic()
    assert buffer.beside(20 * SECOND, 0.05, 20.0) is None
    assert time.monotonic() - start < 10.0


def test_of_depth_without_stamps_the_last_one_counts():
    buffer = recent()
    for metres in (2.0, 1.5, 1.0):
        buffer.add_depth(near(0.0, metres))
        buffer.hold(0)
        found = buffer.beside(0, 0.05, 0.0)
        assert found is not None
        assert depth_of(found[0], "/depth")[0, 0] == metres


@pytest.mark.usefixtures("no_second")
def test_what_a_frame_lacks_is_named_and_not_waited_for():
    """Depth without camera_info, which may be published next to another topic."""
    buffer = DepthBuffer("/depth", "/camera/camera_info")
    assert buffer.missing(10 * SECOND, 0.05) == "no depth image on /depth"
    for number in range(PATIENCE):
        buffer.add_depth(near(10.0 + number))
        assert buffer.beside((10 + number) * SECOND, 0.05, 0.01) is None
        assert buffer.missing(10 * SECOND, 0.05) == "no camera_info on /camera/camera_info"
    buffer._heard = float("-inf")  # nor where depth comes rarely
    buffer.add_depth(near(20.0))
    start = time.monotonic()
    assert buffer.beside(20 * SECOND, 0.05, 20.0) is None
    assert time.monotonic() - start < 10.0
    buffer.add_info(CameraInfo(k=K.reshape(-1)))
    assert buffer.beside(20 * SECOND, 0.05, 0.0) is not None
    assert not buffer.missing(20 * SECOND, 0.05)
    said = buffer.missing(20 * SECOND + SECOND // 8, 0.05)
    assert said == "the nearest image on /depth is 0.125 s away (depth_tolerance 0.05)"


def test_depth_encodings():
    millimetres = np.array([[0, 1500], [65534, 65535]], np.uint16)
    msg = Image(height=2, width=2, encoding="16UC1", step=6, is_bigendian=1)
    msg.data = np.pad(millimetres.astype(">u2"), ((0, 0), (0, 1))).tobytes()
    expected = np.array([[np.nan, 1.5], [65.534, np.nan]], np.float32)
    for msg.encoding in ("16UC1", "mono16"):
        assert np.array_equal(depth_of(msg, "d"), expected, equal_nan=True)
    msg.encoding = "rgb8"
    with pytest.raises(MessageError, match="rgb8"):
        depth_of(msg, "d")
    msg.encoding, msg.step = "32FC1", 4
    with pytest.raises(MessageError, match="step 4"):
        depth_of(msg, "d")
    with pytest.raises(ValueError, match="float64"):
        to_metres(np.zeros((2, 2)))


def test_depth_may_be_followed_by_more_but_not_be_cut():
    depth = np.array([[0.5, 1.5, 2.5], [3.5, 4.5, 5.5]], np.float32)
    msg = depth_message(depth)
    assert np.array_equal(depth_of(msg, "d"), depth)
    whole = bytes(msg.data)
    msg.data = whole + b"more"
    assert np.array_equal(depth_of(msg, "d"), depth)
    msg.data = whole[:-1]
    with pytest.raises(MessageError, match="23 bytes with step 12"):
        depth_of(msg, "d")


def test_a_largest_number_is_no_depth():
    """Nor is anything beyond ten kilometres, 0 or less."""
    depth = np.full((10, 10), 2.0, np.float32)
    depth[0] = np.finfo(np.float32).max, 10_001, np.inf, np.nan, 0, -1, 10_000, 0.2, 1, 2
    metres = to_metres(depth)
    assert np.isnan(metres[0, :6]).all()
    assert np.array_equal(metres[0, 6:], depth[0, 6:])
    points = organised_points(metres[:, :6], K, np.ones((10, 6), bool), (0, 0))
    assert shape_of(points).centroid[2] == pytest.approx(2.0)
    assert organised_points(metres[:0], K, np.ones((0, 10), bool), (0, 0)).shape == (0, 10, 3)


def test_far_points_keep_their_shape():
    """Sums of many float32 numbers that lie far out would lose the last metres."""
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (200_000, 3)).astype(np.float32)
    points[:, 2] += 5000
    assert shape_of(points).centroid[2] == pytest.approx(5000.0, abs=0.02)


def test_shape_of_a_turned_box():
    rng = np.random.default_rng(0)
    points = rng.uniform(-0.5, 0.5, (20000, 3)) * [0.4, 0.2, 0.1]
    turn, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    turn *= np.sign(np.linalg.det(turn))
    shape = shape_of((points @ turn.T + [1, 2, 3]).astype(np.float32))
    assert shape is not None
    assert shape.centroid == pytest.approx([1, 2, 3], abs=5e-3)
    assert shape.extents == pytest.approx(np.array([0.4, 0.2, 0.1]) * 0.96, rel=0.05)
    assert np.abs((shape.axes * turn).sum(0)) == pytest.approx(np.ones(3), abs=1e-3)
    assert np.linalg.det(shape.axes) == pytest.approx(1.0, abs=1e-5)
    x, y, z, w = quaternion(shape.axes)
    assert rotation_of(x, y, z, w) == pytest.approx(shape.axes, abs=1e-5)
    assert shape_of(np.full((4, 4, 3), np.nan, np.float32)) is None


def test_a_quaternion_is_that_of_the_rotation():
    rng = np.random.default_rng(1)
    for x, y, z, w in (*rng.standard_normal((20, 4)), np.array([0, 0, 1, 0])):
        turn = rotation_of(x, y, z, w)
        assert rotation_of(*quaternion(turn)) == pytest.approx(turn)
        assert quaternion(turn)[3] >= 0


def test_three_points_have_a_shape_and_two_have_none():
    points = np.full((2, 2, 3), np.nan, np.float32)
    points[0, 0], points[0, 1] = (0, 0, 1), (1, 0, 1)
    assert shape_of(points) is None
    points[1, 1] = (2, 0, 1)
    assert shape_of(points).centroid == pytest.approx([1, 0, 1])


def test_axes_do_not_turn_round_from_frame_to_frame():
    """Of the same object with other noise; also in another frame, where the rule is that frame's."""
    rng = np.random.default_rng(0)
    box = rng.uniform(-0.5, 0.5, (500, 3)) * [0.1, 0.4, 0.2]
    turned = Transform(rotation_of(0.0, 0.0, 1.0, 0.0), np.zeros(3))
    for _ in range(20):
        shape = shape_of((box + rng.normal(0, 0.005, box.shape)).astype(np.float32))
        for axes in (shape.axes, turned.shape(shape).axes):
            assert axes == pytest.approx(np.eye(3)[:, [1, 2, 0]], abs=0.1)


def test_a_box_is_where_the_points_are():
    """Also of a thing with more points at one end, as most have: their mean is not its middle."""
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 1, (20000, 3)) ** 3 * [0.4, 0.2, 0.1] + [1, 2, 3]
    turn = rotation_of(0.1, 0.2, 0.3, 0.9)
    moved = Transform(turn, np.array([5.0, 0.0, 0.0])).shape(shape_of(points))
    along = (points @ turn.T + [5, 0, 0] - moved.center) @ moved.axes
    low, high = np.percentile(along, (2, 98), axis=0)
    assert high == pytest.approx(moved.extents / 2, abs=1e-9)
    assert low == pytest.approx(-moved.extents / 2, abs=1e-9)
    assert np.abs(moved.center - moved.centroid).max() > 0.05


def test_points_are_of_the_pixels():
    depth = np.full((2, 3), 2.0, np.float32)
    mask = np.array([[True, False, True], [True, True, True]])
    points = organised_points(depth, K, mask, (50, 30))
    assert points[0, 0] == pytest.approx([0.2, 0.0, 2.0])
    assert np.isnan(points[0, 1]).all()
    assert points[1, 2] == pytest.approx([0.24, 0.02, 2.0])
    flat = np.array([[100.0, 0.0, 40.0], [0.0, 50.0, 20.0], [0.0, 0.0, 1.0]])  # no square pixels
    points = organised_points(depth, flat, mask, (50, 30))
    assert points[1, 2] == pytest.approx([0.24, 0.44, 2.0])


def test_the_wall_in_a_masks_rim_is_no_part_of_the_object():
    """A mask that is one or two pixels too wide has the points of the true one. A thin handle stays."""
    v, u = np.mgrid[:60, :80]
    face = (abs(u - 40) <= 6) & (abs(v - 30) <= 6)
    depth = np.where(face, 0.5, 1.2).astype(np.float32)
    for rim in (0, 1, 2):
        mask = cv2.dilate(face.astype(np.uint8), np.ones((2 * rim + 1, 2 * rim + 1))) > 0
        points = organised_points(depth, K, mask, (0, 0))
        assert np.array_equal(np.isfinite(points).all(-1), face)
    handled = face | ((abs(u - 55) <= 10) & (abs(v - 30) <= 1))
    depth[handled] = 0.5
    points = organised_points(depth, K, handled, (0, 0))
    assert np.array_equal(np.isfinite(points).all(-1), handled)


@pytest.mark.parametrize("rim", [1, 2])
def test_the_wall_is_left_out_of_a_round_masks_crop(rim):
    """Which has no pixel outside the mask's box, where the wall lies at its edges."""
    v, u = np.mgrid[: 21 + 2 * rim, : 21 + 2 * rim]
    away = np.hypot(u - 10 - rim, v - 10 - rim)
    depth = np.where(away <= 10, 0.5, 1.2).astype(np.float32)
    points = organised_points(depth, K, away <= 10 + rim, (30, 20))
    assert np.array_equal(np.isfinite(points).all(-1), away <= 10)


@pytest.mark.parametrize(("behind", "stays"), [(0.02, True), (0.05, False)])
def test_noise_in_a_masks_rim_stays_and_a_near_wall_does_not(behind, stays):
    """Depth cameras are off by 1 to 2 %."""
    depth = np.full((20, 20), 1.0 + behind, np.float32)
    depth[2:-2, 2:-2] = 1.0
    points = organised_points(depth, K, np.ones((20, 20), bool), (30, 20))
    assert np.isfinite(points[[0, 1, -2, -1]]).all() == stays
    assert np.isfinite(points[2:-2, 2:-2]).all()


def test_what_is_wider_than_a_masks_rim_is_the_objects():
    """Three pixels that lie further back: a step in the object."""
    depth = np.full((20, 20), 1.05, np.float32)
    depth[3:-3, 3:-3] = 1.0
    assert np.isfinite(organised_points(depth, K, np.ones((20, 20), bool), (30, 20))).all()


def test_detections_where_vision_msgs_is_installed(monkeypatch):
    """With the fields of vision_msgs 4 (Humble and later), whether or not it is installed."""
    import gsva_ros.ros.detections as module

    class Message(types.SimpleNamespace):
        def __getattr__(self, name):
            value = Message()
            setattr(self, name, value)
            return value

    names = ("Detection2DArray", "Detection2D", "LabelInfo", "VisionClass")
    names += ("Detection3DArray", "Detection3D")
    stand_in = types.SimpleNamespace(
        **{n: type(n, (Message,), {}) for n in (*names, "ObjectHypothesisWithPose")}
    )
    stand_in.Detection3DArray.detections = []
    if module.vision is None:
        monkeypatch.setattr(module, "vision", stand_in)

    class Publisher:
        def __init__(self, profile):
            self.sent, self.profile, self.listeners = [], profile, 1

        def publish(self, msg):
            self.sent.append(msg)

        def get_subscription_count(self):
            return self.listeners

    made = {}

    class Node:
        def create_publisher(self, kind, topic, profile):
            return made.setdefault(topic, Publisher(profile))

    views = module.Detections.create(Node())
    instance = types.SimpleNamespace(slot=1, instance=0, id=0, expression="red", p_seg=0.9)
    instance.roi = types.SimpleNamespace(x_offset=10, y_offset=20, width=30, height=40)
    header = Header(frame_id="camera")
    answer = types.SimpleNamespace(header=header, instances=[instance])
    views.publish(answer)
    numbers = views.publish(answer)
    (info,) = made["label_info"].sent  # once: nothing new the second time
    assert info.header == header
    assert [(c.class_id, c.class_name) for c in info.class_map] == [(1, "red")]
    assert made["detections"].sent[1].header == header
    detection = made["detections"].sent[1].detections[0]
    assert (detection.id, detection.header) == ("", header)  # not tracked
    assert detection.results[0].hypothesis.class_id == "1"
    assert detection.results[0].hypothesis.score == 0.9
    assert (detection.bbox.center.position.x, detection.bbox.center.position.y) == (25.0, 40.0)
    assert (detection.bbox.size_x, detection.bbox.size_y) == (30.0, 40.0)
    # The types of vision_msgs' fields, which Humble's setters insist on.
    hypothesis = detection.results[0].hypothesis
    assert (type(hypothesis.class_id), type(hypothesis.score)) == (str, float)
    assert type(info.class_map[0].class_id) is int
    assert {type(v) for v in (detection.bbox.size_x, detection.bbox.center.position.x)} == {float}
    thing = types.SimpleNamespace(slot=1, instance=0, id=0, expression="red", p_seg=0.9)
    thing.pose = Pose(orientation=Quaternion(x=0.6, w=0.8))
    thing.center, thing.extents = Point(x=1.0, y=2.0, z=3.0), Vector3(x=0.3, y=0.2, z=0.1)
    space = types.SimpleNamespace(header=header, instances=[thing])
    detections = made["detections_3d"]
    views.publish_3d(space, numbers)
    (solid,) = detections.sent[0].detections
    assert (solid.id, solid.bbox.size) == ("", thing.extents)
    assert (detections.sent[0].header, solid.header) == (header, header)
    assert solid.results[0].hypothesis.class_id == "1"
    assert solid.results[0].hypothesis.score == 0.9
    assert solid.bbox.center.position == thing.center
    assert solid.bbox.center.orientation == thing.pose.orientation
    assert solid.results[0].pose.pose == thing.pose
    # What is followed keeps its id where others before it are lost.
    instance.id = thing.id = 7
    views.publish(answer)
    views.publish_3d(space, numbers)
    assert made["detections"].sent[-1].detections[0].id == "7"
    assert detections.sent[-1].detections[-1].id == "7"
    instance.id = thing.id = 0
    # Nobody listens to the boxes; who comes later is told the labels all the same.
    boxes = [made["detections"], detections]
    for publisher in boxes:
        publisher.sent.clear()
        publisher.listeners = 0
    views.publish(answer)
    views.publish_3d(space, numbers)
    assert not any(publisher.sent for publisher in boxes)
    latched = made["label_info"].profile
    assert latched.durability == DurabilityPolicy.TRANSIENT_LOCAL
    assert latched.reliability == ReliabilityPolicy.RELIABLE
    # Requests without an end: the newest labels stay, and a number is not soon another expression's.
    assert module.LAST_NUMBER < 65_535, "UNLABELED (VisionClass.msg)"
    monkeypatch.setattr(module, "LABELS", 3)
    monkeypatch.setattr(module, "LAST_NUMBER", 6)

    def labels(*expressions):
        answer.instances = [types.SimpleNamespace(**vars(instance)) for _ in expressions]
        for each, expression in zip(answer.instances, expressions, strict=True):
            each.expression = expression
        views.publish(answer)
        return {c.class_name: c.class_id for c in made["label_info"].sent[-1].class_map}

    assert labels("green") == {"red": 1, "green": 2}
    assert labels("blue", "red", "blue") == {"green": 2, "red": 1, "blue": 3}
    assert labels("black") == {"red": 1, "blue": 3, "black": 4}
    assert labels("green") == {"blue": 3, "black": 4, "green": 5}
    assert labels("blue", "a", "b", "c") == {"blue": 3, "a": 6, "b": 1, "c": 2}
    assert labels("d") == {"b": 1, "c": 2, "d": 3}
    # One that is still somebody's is left out.
    assert labels("b", "e", "f", "g") == {"b": 1, "e": 4, "f": 5, "g": 6}
    assert labels("b", "h") == {"g": 6, "b": 1, "h": 2}


class Buffer:
    """tf2's buffer with one transform: base is one metre below the camera, and looks along its z axis.

    It is known at seven seconds, and has not arrived yet.
    """

    def lookup_transform(self, target, source, time, timeout):
        if time.nanoseconds != 7 * SECOND or timeout.nanoseconds < 10_000_000:
            raise LookupError(f"nothing is known at {time.nanoseconds} ns")
        if (target, source) != ("base", "camera"):
            raise LookupError(f"{target} is not connected\nto {source}")
        found = types.SimpleNamespace()
        # Optical x right, y down, z forward to x forward, y left, z up (REP 103).
        found.rotation = types.SimpleNamespace(x=-0.5, y=0.5, z=-0.5, w=0.5)
        found.translation = types.SimpleNamespace(x=0.0, y=0.0, z=1.0)
        return types.SimpleNamespace(transform=found)


def red_at_two_metres():
    """An answer with one instance in the picture's middle, and its depth."""
    answer = Segmentation(height=60, width=80, instruction_id="look")
    answer.header.frame_id, answer.header.stamp.sec = "camera", 7
    instance = InstanceMask(expression="red", p_seg=0.9)
    instance.roi.x_offset, instance.roi.y_offset = 30, 20
    instance.roi.width = instance.roi.height = 20
    instance.mask = fill_image(Image(), np.full((20, 20), 255, np.uint8), "mono8")
    answer.instances = [instance]
    return answer, np.full((60, 80), 2.0, np.float32)


def test_an_instance_in_space_is_that_of_the_answer():
    """Its points are those of its mask; one without any depth is left out."""
    answer, depth = red_at_two_metres()
    (instance,) = answer.instances
    instance.slot, instance.instance, instance.id, instance.roi.height = 2, 1, 5, 10
    mask = np.full((10, 20), 255, np.uint8)
    mask[:, 5:] = 0
    instance.mask = fill_image(Image(), mask, "mono8")
    elsewhere = copy.deepcopy(instance)
    elsewhere.roi.x_offset = 60
    answer.instances = [elsewhere, instance]
    depth[:, 60:] = np.nan
    # So that its middle is not its mean.
    depth[20:30] += np.linspace(0, 0.3, 10, dtype=np.float32)[:, None] ** 2
    space = segmentation_3d(answer, depth, K, 0.25, "/camera")
    assert (space.instruction_id, space.depth_offset) == ("look", 0.25)
    (found,) = space.instances
    assert (found.slot, found.instance, found.id, found.expression) == (2, 1, 5, "red")
    assert (found.roi, found.p_seg) == (instance.roi, instance.p_seg)
    points = np.frombuffer(found.points.data, "<f4").reshape(10, 20, 3)
    assert np.array_equal(np.isfinite(points).all(-1), mask > 0)
    shape = shape_of(points)
    where, middle = found.pose.position, found.center
    assert (where.x, where.y, where.z) == pytest.approx(shape.centroid)
    assert (middle.x, middle.y, middle.z) == pytest.approx(shape.center)
    cloud = found.points
    assert (cloud.height, cloud.width, cloud.point_step, cloud.row_step) == (10, 20, 12, 240)
    assert not cloud.is_bigendian
    assert not cloud.is_dense, "some points are missing"
    turn = found.pose.orientation
    assert rotation_of(turn.x, turn.y, turn.z, turn.w) == pytest.approx(shape.axes)
    for other, size in ((depth[:30], "80x30"), (depth.T, "60x80")):
        with pytest.raises(MessageError, match=f"depth is {size}, the image is 80x60"):
            segmentation_3d(answer, other, K, 0.0, "/camera")


def test_points_in_another_frame():
    answer, depth = red_at_two_metres()
    transform = Transforms(Buffer()).between("base", answer.header)
    moved = segmentation_3d(answer, depth, K, 0.0, "/camera", "base", transform)
    here = segmentation_3d(answer, depth, K, 0.0, "/camera")
    assert (moved.header.frame_id, here.header.frame_id) == ("base", "camera")
    missed = segmentation_3d(answer, depth, K, 0.0, "/camera", "base", None)
    assert missed.header.frame_id == "camera"
    near, far = moved.instances[0].pose.position, here.instances[0].pose.position
    assert (near.x, near.y, near.z) == pytest.approx((far.z, -far.x, 1.0 - far.y), abs=1e-5)
    cloud, old = (
        np.frombuffer(each.instances[0].points.data, "<f4").reshape(20, 20, 3)
        for each in (moved, here)
    )
    fields = [(f.name, f.offset, f.datatype, f.count) for f in moved.instances[0].points.fields]
    assert fields == [(name, 4 * i, PointField.FLOAT32, 1) for i, name in enumerate("xyz")]
    expected = np.stack([old[..., 2], -old[..., 0], 1.0 - old[..., 1]], -1)
    assert cloud == pytest.approx(expected, abs=1e-5)
    assert moved.instances[0].points.header.frame_id == "base"
    extents = [moved.instances[0].extents, here.instances[0].extents]
    assert extents[0].x == pytest.approx(extents[1].x, abs=1e-4)


def test_poses_are_exact_in_a_frame_as_large_as_a_country():
    """In UTM's coordinates float32 knows half metres."""
    answer, depth = red_at_two_metres()
    depth = depth + np.linspace(0, 0.1, 80, dtype=np.float32)
    turned = rotation_of(0.1, 0.2, 0.3, 0.9)
    here, there = (
        segmentation_3d(answer, depth, K, 0.0, "/camera", "utm", Transform(turned, np.array(t)))
        for t in ([0.0, 0.0, 0.0], [448_262.31, 5_411_932.7, 120.0])
    )
    (near,), (far,) = here.instances, there.instances
    assert far.pose.position.x - 448_262.31 == pytest.approx(near.pose.position.x, abs=1e-6)
    assert far.pose.position.y - 5_411_932.7 == pytest.approx(near.pose.position.y, abs=1e-6)
    assert far.extents == near.extents
    assert far.pose.orientation == near.pose.orientation


def test_a_transform_that_is_missing_is_said():
    answer, _ = red_at_two_metres()
    with pytest.raises(TransformError, match=r"'camera' to 'map'.*not connected to camera"):
        Transforms(Buffer()).between("map", answer.header)
    with pytest.raises(TransformError, match="tf2_ros_py is not installed"):
        Transforms().between("base", answer.header)


@pytest.mark.parametrize("target", ["", "camera"])
def test_points_that_are_wanted_in_their_own_frame_need_no_transform(target):
    answer, _ = red_at_two_metres()
    views = Views.__new__(Views)
    views._transforms = None  # not asked
    assert views._transform(target, answer.header) is None


def info(width: int = 80, height: int = 60, **fields) -> CameraInfo:
    msg = CameraInfo(width=width, height=height, **fields)
    msg.k = [100.0, 0.0, 40.0, 0.0, 120.0, 30.0, 0.0, 0.0, 1.0]
    return msg


def test_intrinsics_are_those_of_the_picture():
    """Of one that is binned and cut out of what the camera_info's K is of."""
    same = intrinsics_of(info(), 80, 60, "/camera")
    assert np.array_equal(same, np.reshape(info().k, (3, 3)))
    assert np.array_equal(intrinsics_of(info(0, 0), 80, 60, "/camera"), same), "sizes left out"
    binned = intrinsics_of(info(binning_x=2, binning_y=3), 40, 20, "/camera")
    assert np.array_equal(binned, [[50, 0, 20], [0, 40, 10], [0, 0, 1]])
    part = info(binning_x=2, binning_y=2)
    part.roi.x_offset, part.roi.y_offset, part.roi.width, part.roi.height = 20, 10, 40, 40
    assert np.array_equal(
        intrinsics_of(part, 20, 20, "/camera"), [[50, 0, 10], [0, 60, 10], [0, 0, 1]]
    )


def test_a_rectified_picture_has_other_intrinsics():
    msg = info(d=[0.1, 0.0, 0.0, 0.0, 0.0])
    assert is_distorted(msg, "/camera/image_raw/compressed")
    assert not is_distorted(msg, "/camera/image_rect_color")
    assert not is_distorted(info(), "/camera/image_raw")
    msg.p = [90.0, 0.0, 41.0, -5.0, 0.0, 95.0, 31.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    wanted = [[90, 0, 41], [0, 95, 31], [0, 0, 1]]
    for topic in ("/camera/image_rect", "/camera/image_rect_color/compressed"):
        assert np.array_equal(intrinsics_of(msg, 80, 60, topic), wanted)
    assert intrinsics_of(msg, 80, 60, "/camera/image_raw")[0, 0] == 100.0


@pytest.mark.parametrize("place", [0, 4])
@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan")])
def test_a_camera_that_is_not_calibrated_has_no_points(wrong, place):
    msg = info()
    msg.k[place] = wrong
    with pytest.raises(MessageError, match=r"/camera.*calibrate"):
        intrinsics_of(msg, 80, 60, "/camera")


def test_a_camera_info_of_another_size_is_refused():
    with pytest.raises(MessageError, match=r"/camera.*80x60, but the image is 160x120"):
        intrinsics_of(info(), 160, 120, "/camera")
    for width, height in ((80, 30), (40, 60), (82, 60)):
        with pytest.raises(MessageError, match="80x60"):
            intrinsics_of(info(), width, height, "/camera")
    assert intrinsics_of(info(), 81, 59, "/camera")[0, 0] == 100.0, "rounded elsewhere"
    with pytest.raises(MessageError, match="40x30"):
        intrinsics_of(info(binning_x=2, binning_y=2), 80, 60, "/camera")


@pytest.mark.parametrize(
    ("image", "depth", "said"),
    [
        ("camera", "depth", True),
        ("camera", "camera", False),
        ("camera", "", False),
        ("", "depth", False),
    ],
)
def test_depth_in_another_frame_than_the_image_is_said(image, depth, said):
    """It can have the image's size all the same. A driver that names no frame says nothing."""
    answer, metres = red_at_two_metres()
    answer.header.frame_id = image
    msg = depth_message(metres, 7.0)
    msg.header.frame_id = depth
    buffer = DepthBuffer("/depth", "/camera_info")
    buffer.add_info(info())
    buffer.add_depth(msg)
    views, warned = Views.__new__(Views), []
    views._buffers, views._transforms = {"/camera": buffer}, Transforms()
    views._value = {"depth_tolerance": 0.1, "depth_wait": 0.0, "target_frame": ""}.get
    views._warn = lambda *told: warned.append(told)
    assert views._in_3d(answer, "/camera").instances, "points all the same"
    text = (
        "segmentation_3d: /camera: depth is in frame 'depth', the image in 'camera': "
        "use depth that is registered (aligned) to the image"
    )
    assert warned == [("unregistered depth", text)] * said


def test_a_jump_in_time_forgets_the_depth_of_before():
    """Stamps repeat when a bag starts again: depth of the last round is not that of this one."""
    buffer = recent(10.0)
    buffer.hold(10 * SECOND)
    views = types.SimpleNamespace(
        _buffers={"/camera": buffer}, _transforms=types.SimpleNamespace(clear=lambda: None)
    )
    Views.jumped(views)
    assert buffer.beside(10 * SECOND, 1.0, 0.0) is None
    buffer.add_depth(near(10.0, 2.0))
    buffer.hold(10 * SECOND)
    image, _, _ = buffer.beside(10 * SECOND, 1.0, 0.0)
    assert (depth_of(image, "d") == 2).all()
