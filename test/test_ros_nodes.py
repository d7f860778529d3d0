"""The node around a computing core with a known answer: outputs, services, parameters, and bad input of every kind."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs rclpy and the message packages")

from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from geometry_msgs.msg import PoseArray  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from ros_harness import FakeCamera, Graph, stamp_ns  # noqa: E402
from ros_standin import Standin, position, velocity  # noqa: E402
from sensor_msgs.msg import Image, PointCloud2  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402
from trajectory_msgs.msg import MultiDOFJointTrajectory  # noqa: E402
from visualization_msgs.msg import Marker, MarkerArray  # noqa: E402

from blur_motion_ros.messages.cloud import read_cloud  # noqa: E402
from blur_motion_ros.messages.image import fill_image  # noqa: E402
from blur_motion_ros.messages.trajectory import read_trajectory  # noqa: E402
from blur_motion_ros.nodes import entry  # noqa: E402
from blur_motion_ros.nodes.base import quality  # noqa: E402
from blur_motion_ros.nodes.fitting import FitNode  # noqa: E402

BODY = "humans/bodies/b0/"


class Bench:
    """A graph with one fitting node around a stand-in, a camera, and helpers to feed and ask it."""

    def __init__(self, parameters: dict | None = None, reliability: str = "reliable") -> None:
        self.graph = Graph()
        self.engine = Standin()
        overrides = {"ros.reliability": "reliable", "ros.diagnostics_period": 0.2} | (parameters or {})
        self.node = self.graph.add(FitNode(
            "blur_motion", lambda settings: self.engine,
            parameter_overrides=[Parameter(k, value=v) for k, v in overrides.items()]))
        for kind, name in ((MultiDOFJointTrajectory, "trajectory"), (PointCloud2, "joint_states_3d"),
                           (PoseArray, "poses"), (DiagnosticArray, "status"), (MarkerArray, "skeleton"),
                           (MarkerArray, "mesh"), (PointCloud2, "cloud")):
            self.graph.listen(kind, BODY + name)
        self.graph.listen(DiagnosticArray, "/diagnostics")
        self.camera = FakeCamera(self.graph, reliability)
        assert self.graph.spin(lambda: self.camera.ready() and self.node.worker.ready.is_set()
                               and all(p.get_subscription_count() for p in self._publishers()))

    def _publishers(self):
        out = self.node.output
        return (out._trajectory, out._states, out._poses, out._status, out._skeleton, out._mesh, out._cloud)

    def calibrate(self) -> None:
        self.camera.info()
        assert self.graph.spin(lambda: self.node.intake.camera is not None)

    def answered(self) -> int:
        return len(self.graph.heard[BODY + "trajectory"])

    def send(self, **kwargs) -> int:
        """Publish one image and wait for its answer; returns its stamp."""
        before = self.answered()
        stamp = self.camera.image(**kwargs)
        assert self.graph.spin(lambda: self.answered() > before, 10), f"no answer; problems: {self.problems()}"
        return stamp

    def let_go(self) -> None:
        """Let the frame that the stand-in holds have been seen."""
        seen = len(self.engine.late)
        self.engine.hold.set()
        assert self.graph.spin(lambda: len(self.engine.late) == seen + 1)

    def problems(self) -> str:
        return "; ".join(self.node.problems.recent().values())

    def refused(self, words: str, **kwargs) -> None:
        """Publish an image that must be refused with `words` in the message, and without an answer."""
        before = self.answered()
        self.camera.image(**kwargs)
        assert self.graph.spin(lambda: words in self.problems(), 5), f"no '{words}' in: {self.problems()}"
        self.graph.spin_for(0.1)
        assert self.answered() == before

    def diagnostics(self, name: str) -> dict[str, str]:
        messages = self.graph.messages("/diagnostics")
        if not messages:
            return {"message": "", "level": b""}
        status = next(s for s in messages[-1].status if s.name.endswith(name))
        return {"message": status.message, "level": status.level} | {v.key: v.value for v in status.values}


@pytest.fixture()
def bench():
    b = Bench()
    yield b
    b.graph.close()


def test_one_image_comes_out_on_every_topic_with_the_right_numbers(bench):
    bench.calibrate()
    stamp = bench.send()
    assert bench.graph.spin(lambda: all(bench.graph.heard[BODY + t] for t in ("mesh", "status", "cloud")), 5)
    msg = bench.graph.messages(BODY + "trajectory")[-1]
    assert stamp_ns(msg.header) == stamp and msg.header.frame_id == "cam_optical"  # stamp = shutter opening
    epoch = stamp - stamp % 10**9
    times, x, _, v, _ = read_trajectory(msg)
    start = (stamp - epoch) / 1e9
    assert times[0] == 0 and np.all(np.diff(times) > 0)
    np.testing.assert_allclose(x[0], position(start), atol=1e-6)
    np.testing.assert_allclose(v[-1], velocity(start + times[-1]), atol=1e-6)
    settings = bench.node.settings.trajectory
    assert len(times) == settings.samples + settings.horizon_samples
    exposure = bench.engine.frames[-1].exposure
    assert times[settings.samples - 1] == pytest.approx(exposure.duration, abs=1e-6)
    states = bench.graph.messages(BODY + "joint_states_3d")[-1]
    closing = (stamp_ns(states.header) - epoch) / 1e9
    assert closing == pytest.approx(exposure.close, abs=1e-6)
    np.testing.assert_allclose(read_cloud(states)["vx"], velocity(closing)[:, 0], atol=1e-5)
    mesh = bench.graph.messages(BODY + "mesh")[-1].markers[0]
    now = (stamp_ns(mesh.header) - epoch) / 1e9
    assert exposure.close - 1e-6 <= now <= exposure.close + settings.horizon + 1e-6
    np.testing.assert_allclose([mesh.points[2].x, mesh.points[2].y, mesh.points[2].z], position(now)[2], atol=1e-5)
    painted = np.array([[c.r, c.g, c.b, c.a] for c in mesh.colors])  # corners of faces 0 1 2, 1 2 3; sRGB
    np.testing.assert_allclose(painted[:, 3], 0.75)
    np.testing.assert_allclose(painted[[0, 1, 2, 5], :3], [[0, 0, 0], [1, 0, 0], [0, 0.5, 0], [0, 0, 1]], atol=0.003)
    values = {v.key: v.value for v in bench.graph.messages(BODY + "status")[-1].status[0].values}
    assert values["status"] == "OK" and float(values["sigma_velocity_depth_m_s"]) == pytest.approx(0.5)


def test_exposure_topic_wins_over_the_settings(bench):
    bench.calibrate()
    bench.send()
    opened = bench.camera.time + 33_000_000
    bench.camera.exposure(opened, opened + 12_345_678)
    bench.graph.spin_for(0.2)
    bench.send(stamp=opened)
    assert bench.engine.frames[-1].exposure.duration == pytest.approx(0.012345678, abs=1e-9)


def test_lost_exposure_message_is_made_up_for_by_the_last_one(bench):
    bench.calibrate()
    opened = bench.camera.time + 33_000_000
    bench.camera.exposure(opened, opened + 12_000_000)
    bench.graph.spin_for(0.2)
    bench.send(stamp=opened)
    for _ in range(9):
        bench.send()
        assert bench.engine.frames[-1].exposure.duration == pytest.approx(0.012, abs=1e-9)
    bench.send()  # nobody tells exposures any more: the settings hold again, and that is said
    assert bench.engine.frames[-1].exposure.duration != pytest.approx(0.012, abs=1e-3)
    assert bench.graph.spin(lambda: "no exposure message for 10 images" in bench.diagnostics("camera")["message"], 5)


def test_nobody_in_view_is_said_and_markers_are_removed_once(bench):
    bench.calibrate()
    bench.send()
    for _ in range(3):
        bench.send(value=0)
    bench.graph.spin_for(0.2)
    assert not bench.graph.messages(BODY + "trajectory")[-1].points
    clears = [m for m in bench.graph.messages(BODY + "skeleton") if m.markers[0].action == Marker.DELETEALL]
    assert len(clears) == 1
    assert len(bench.graph.messages(BODY + "poses")) == 1
    assert bench.graph.spin(lambda: bench.diagnostics("fit")["message"] == "LOST", 5)


def test_missing_camera_info_is_told_and_cured(bench):
    bench.refused("no CameraInfo")
    bench.calibrate()
    bench.send()


def test_bad_camera_info_keeps_the_last_good_one(bench):
    bench.calibrate()
    bench.camera.info(k=[0.0] * 9)
    assert bench.graph.spin(lambda: "not calibrated" in bench.problems(), 5)
    bench.send()


BAD_IMAGES = {
    "short data": (dict(data=b"123"), "data holds 3 bytes"),
    "wrong size": (dict(width=32, step=96, data=b"\x64" * 96 * 48), "calibration is for 64x48"),
    "unknown encoding": (dict(encoding="h264"), "encoding is 'h264'"),
    "NaN": (dict(encoding="32FC1", step=256, data=np.full(64 * 48, np.nan, np.float32).tobytes()), "NaN"),
    "zero stamp": (dict(stamp=0), "stamp is zero"),
    "step": (dict(step=7), "step is 7"),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_a_bad_image_is_refused_and_the_next_good_one_answered(bench, case):
    changes, words = BAD_IMAGES[case]
    bench.calibrate()
    good = bench.send()
    bench.refused(words, **changes)
    bench.camera.time = good
    bench.send()
    assert bench.engine.resets == 0  # what was good is kept
    assert bench.graph.spin(lambda: words in bench.diagnostics("camera")["message"], 5)


def test_duplicate_and_late_stamps_are_dropped_without_losing_the_track(bench):
    bench.calibrate()
    first, second = bench.send(), bench.send()
    bench.refused("repeats", stamp=second)
    bench.refused("older", stamp=first)
    bench.camera.time = second
    bench.send()
    assert bench.engine.resets == 0


def test_clock_going_back_starts_anew(bench):
    bench.calibrate()
    stamp = bench.send()
    bench.send(stamp=stamp - 3600 * 10**9)
    assert bench.engine.resets == 1 and "clock went back" in bench.problems()
    bench.send()
    assert bench.engine.resets == 1


def test_a_long_gap_starts_anew(bench):
    bench.calibrate()
    bench.send()
    bench.send(step_s=30.0)
    assert bench.engine.resets == 1 and "ahead" in bench.problems()


def test_change_of_encoding_is_told_and_starts_anew(bench):
    bench.calibrate()
    bench.send()
    bench.send(encoding="bgr8")
    assert bench.engine.resets == 1 and "format changed from 64x48 rgb8 to 64x48 bgr8" in bench.problems()


def test_an_error_in_the_core_skips_one_frame(bench):
    bench.calibrate()
    bench.send()
    bench.refused("met a white image", value=255)
    bench.send()
    assert bench.graph.spin(lambda: bench.diagnostics("fit")["level"] == b"\2", 5)


def test_the_person_is_looked_for_while_the_last_image_is_fitted(bench):
    """Both halves take 50 ms: overlapped they answer nearly every 50 ms, one after the other every 100 ms."""
    bench.calibrate()
    bench.send()
    bench.engine.seconds = bench.engine.see_seconds = 0.05
    before, start = bench.answered(), time.monotonic()
    while time.monotonic() - start < 2.0:
        bench.camera.image(step_s=0.01)
        bench.graph.spin_for(0.01)
    rate = (bench.answered() - before) / (time.monotonic() - start)
    assert rate > 10.5, f"{rate:.1f} Hz"
    stamps = [stamp_ns(m.header) for m in bench.graph.messages(BODY + "trajectory")]
    assert stamps == sorted(stamps) and bench.engine.resets == 0


@pytest.mark.parametrize("see, fit, share", [(0.06, 0.02, 0.0), (0.02, 0.06, 1.0)])
def test_the_matte_is_made_by_who_has_time_for_it(bench, see, fit, share):
    """A fit that waits for the next image makes its matte itself; one that is busy finds it made."""
    bench.calibrate()
    bench.send()
    bench.engine.see_seconds, bench.engine.seconds = see, fit
    bench.graph.spin_for(0.2)
    frames, matted = len(bench.engine.frames), len(bench.engine.matted)
    start = time.monotonic()
    while time.monotonic() - start < 2.0:
        bench.camera.image(step_s=0.01)
        bench.graph.spin_for(0.01)
    frames, matted = len(bench.engine.frames) - frames, len(bench.engine.matted) - matted
    assert frames > 10 and abs(matted - share * frames) <= 0.25 * frames


@pytest.mark.parametrize("share", [0.5, 0.0])
def test_a_fit_is_told_when_to_hurry(share):
    """Half of the time between images after it begins; never, where the setting is 0."""
    bench = Bench({"ros.hurry_after": share})
    try:
        bench.calibrate()
        bench.engine.seconds = 0.07
        for _ in range(40):
            bench.camera.image(step_s=0.04)
            bench.graph.spin_for(0.04)
        told, period = np.array(bench.engine.hurry[8:]), 1 / bench.node.worker.input_rate.value()
        bench.graph.spin_for(0.3)
        late = float(bench.diagnostics("fit")["fit_hurried_share"])
    finally:
        bench.graph.close()
    assert len(told) > 5
    assert np.isinf(told).all() if share == 0 else abs(np.median(told) / period - 0.5) < 0.05
    assert late == 0 if share == 0 else late > 0.7


@pytest.mark.parametrize("hurry, wait, late", [(0.6, True, True), (0.6, False, False), (0.0, True, False)])
def test_an_image_that_waited_for_the_one_before_is_late(hurry, wait, late):
    """By more than a fifth of the time between images; never, where nothing is hurried.

    `wait`: the image before is being seen until 30 of the 40 ms between images have passed, else until this one comes.
    """
    bench = Bench({"ros.hurry_after": hurry})
    try:
        bench.calibrate()
        for _ in range(8):  # so that the rate is known
            bench.send()
            bench.graph.spin_for(0.03)
        bench.engine.hold, before = threading.Event(), len(bench.engine.late)
        for i in range(12):
            if i and not wait:
                bench.let_go()
            bench.camera.image(step_s=0.04)
            bench.graph.spin_for(0.03)
            if i and wait:
                bench.let_go()
            assert bench.graph.spin(lambda: bench.engine.holding)
            bench.graph.spin_for(0.01)
        told = bench.engine.late[before + 1:]
        bench.let_go()
        bench.engine.hold = None
        bench.graph.spin_for(0.3)
        share = float(bench.diagnostics("fit")["see_hurried_share"])
    finally:
        bench.graph.close()
    assert len(told) == 10 and all(flag == late for flag in told), told
    assert share > 0.4 if late else share < 0.1


def test_reset_service(bench):
    bench.calibrate()
    bench.send()
    response = bench.graph.call(Trigger, "/blur_motion/reset")
    assert response.success
    bench.send()
    bench.send()
    assert bench.engine.resets == 1


def test_capture_background_averages_the_next_images(bench):
    bench.calibrate()
    count = bench.node.settings.background.capture_frames
    client = bench.graph.client.create_client(Trigger, "/blur_motion/capture_background")
    assert bench.graph.spin(client.service_is_ready)
    future = client.call_async(Trigger.Request())
    bench.graph.spin_for(0.2)
    for i in range(count):
        assert not future.done()
        bench.send(value=100 + i % 2)
    assert bench.graph.spin(future.done, 5) and future.result().success, future.result().message
    assert bench.graph.spin(lambda: len(bench.engine.backgrounds) == 1, 5)
    assert abs(int(bench.engine.backgrounds[0][5, 5, 0]) - 100) <= 1


def test_capture_refuses_a_moving_scene(bench):
    bench.calibrate()
    client = bench.graph.client.create_client(Trigger, "/blur_motion/capture_background")
    assert bench.graph.spin(client.service_is_ready)
    future = client.call_async(Trigger.Request())
    bench.graph.spin_for(0.2)
    rng = np.random.default_rng(0)
    for i in range(bench.node.settings.background.capture_frames):
        image = np.full((48, 64, 3), 100, np.uint8)
        image[10:30, 2 * i % 40:2 * i % 40 + 15] = rng.integers(150, 250)
        bench.send(data=image.tobytes())
    assert bench.graph.spin(future.done, 5)
    assert not future.result().success and "moved" in future.result().message
    assert not bench.engine.backgrounds


def test_background_topic(bench):
    publisher = bench.graph.client.create_publisher(Image, "background", quality("reliable", 1, latched=True))
    publisher.publish(fill_image(Image(), np.full((48, 64, 3), 55, np.uint8)))
    assert bench.graph.spin(lambda: bool(bench.engine.backgrounds), 10)
    assert bench.engine.backgrounds[0][0, 0, 0] == 55


def test_live_parameters_are_checked_and_take_effect(bench):
    bench.calibrate()
    bench.send()
    result = bench.node.set_parameters([Parameter("trajectory.samples", value=7)])[0]
    assert result.successful
    bench.send()
    horizon = bench.node.settings.trajectory.horizon_samples
    assert len(bench.graph.messages(BODY + "trajectory")[-1].points) == 7 + horizon
    assert not bench.node.set_parameters([Parameter("trajectory.samples", value=1000)])[0].successful
    assert not bench.node.set_parameters([Parameter("fit.degree", value=3)])[0].successful  # not live
    described = bench.node.describe_parameter("trajectory.samples")
    assert described.integer_range[0].to_value == 65 and "exposure" in described.description


def test_wrong_parameters_at_start_are_one_sentence():
    graph = Graph()
    try:
        for name, value, words in (("camera.duty", 5.0, "allowed"), ("fit.degree", "two", "fit.degree"),
                                   ("ros.reliability", "maybe", "best_effort"), ("ros.body_id", "0", "letter first"),
                                   ("ros.calibration", "nowhere.yaml", "does not exist")):
            with pytest.raises(ValueError, match=words):
                FitNode("bad", lambda s: Standin(), parameter_overrides=[Parameter(name, value=value)])
    finally:
        graph.close()


def test_a_core_that_cannot_start_leaves_the_node_alive_and_says_why():
    graph = Graph()
    try:
        def fail(settings):
            raise ValueError("body file 'x.npz' is damaged; reinstall it")

        node = graph.add(FitNode("blur_motion", fail, parameter_overrides=[
            Parameter("ros.diagnostics_period", value=0.1)]))
        graph.listen(DiagnosticArray, "/diagnostics")
        assert graph.spin(lambda: any("x.npz" in s.message for m in graph.messages("/diagnostics")
                                      for s in m.status), 10)
        assert not node.finished
        answer = graph.call(Trigger, "/blur_motion/capture_background", 5)
        assert not answer.success and "x.npz" in answer.message
    finally:
        graph.close()


@pytest.mark.parametrize("parameter, words", [("body.path", "does not exist"),
                                              ("background.plate", "cannot be read")])
def test_missing_files_of_the_real_core_are_named_and_the_node_lives(parameter, words):
    graph = Graph()
    try:
        node = graph.add(FitNode("blur_motion", parameter_overrides=[
            Parameter(parameter, value="/nowhere/file.npz"), Parameter("ros.diagnostics_period", value=0.1)]))
        assert graph.spin(lambda: bool(node.worker.error), 60)
        error = node.worker.error
        assert "/nowhere/file.npz" in error and words in error and "\n" not in error
        assert not node.finished and not node.worker.ready.is_set()
    finally:
        graph.close()


def test_a_broken_matting_network_is_named_with_the_fix_and_the_node_lives(tmp_path):
    path = tmp_path / "garbage.onnx"
    path.write_bytes(bytes(range(256)))
    graph = Graph()
    try:
        node = graph.add(FitNode("blur_motion", parameter_overrides=[
            Parameter("matting.method", value="network"), Parameter("matting.model", value=str(path)),
            Parameter("ros.diagnostics_period", value=0.1)]))
        assert graph.spin(lambda: bool(node.worker.error), 60)
        error = node.worker.error
        assert str(path) in error and "give another file in 'matting.model'" in error and "\n" not in error
        assert not node.finished and not node.worker.ready.is_set()
    finally:
        graph.close()


def test_best_effort_publisher_and_reliable_subscriber_is_reported():
    bench = Bench.__new__(Bench)
    bench.graph = Graph()
    try:
        bench.node = bench.graph.add(FitNode("blur_motion", lambda s: Standin(), parameter_overrides=[
            Parameter("ros.reliability", value="reliable")]))
        FakeCamera(bench.graph, "best_effort")
        assert bench.graph.spin(lambda: "cannot hear" in bench.problems(), 10)
    finally:
        bench.graph.close()


def test_an_exception_in_a_callback_is_told_and_the_node_spins_on():
    class Faulty(Node):
        finished, exit_code = False, 7

        def __init__(self) -> None:
            super().__init__("faulty")
            self.told: list[str] = []
            self.create_timer(0.02, self._tick)
            seen.append(self)

        def _tick(self) -> None:
            self.finished = len(self.told) == 2
            raise ValueError(f"tick {len(self.told)}")

        def problem(self, kind: str, message: str) -> None:
            self.told.append(f"{kind}: {message}")

        def close(self, timeout: float) -> None:
            self.told.append("closed")

    seen: list[Faulty] = []
    graph = Graph()  # for its context
    try:
        assert entry._spin(Faulty, threading.Event(), entry.executor()) == 7
        assert seen[0].told == [*(f"callback: ValueError: tick {i}" for i in range(3)), "closed"]
    finally:
        graph.close()
