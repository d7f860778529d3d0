"""Messages: every image encoding against an independent reference, every bad message, and round trips to the bit."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from ros_standin import SIGMA_P, SIGMA_V, Standin, position, velocity

from blur_motion_ros.body.joints import SMPL24, SMPL24_PARENTS
from blur_motion_ros.camera.camera import Camera
from blur_motion_ros.messages import cdr, diagnostics, markers
from blur_motion_ros.messages.camera_info import fill_camera_info, to_camera
from blur_motion_ros.messages.cloud import fill_cloud, read_cloud
from blur_motion_ros.messages.image import ENCODINGS, ImageError, fill_image, to_rgb
from blur_motion_ros.messages.stamps import StreamClock
from blur_motion_ros.messages.trajectory import (
    PatchedPoses,
    PatchedTrajectory,
    covariances,
    fill_poses,
    fill_states,
    fill_trajectory,
    read_trajectory,
)
from blur_motion_ros.motion import rotations
from blur_motion_ros.types import Exposure, Status

pytest.importorskip("rclpy", reason="needs rclpy and the message packages")

from builtin_interfaces.msg import Time  # noqa: E402
from geometry_msgs.msg import Point, Pose, PoseArray, Transform, Twist, Vector3  # noqa: E402
from rclpy.serialization import deserialize_message, serialize_message  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField  # noqa: E402
from std_msgs.msg import ColorRGBA, Header  # noqa: E402
from trajectory_msgs.msg import MultiDOFJointTrajectory, MultiDOFJointTrajectoryPoint  # noqa: E402
from visualization_msgs.msg import Marker, MarkerArray  # noqa: E402

MARKERS = SimpleNamespace(MarkerArray=MarkerArray, Marker=Marker, Point=Point, ColorRGBA=ColorRGBA, Header=Header)


def picture(height: int = 24, width: int = 32) -> np.ndarray:
    """A smooth RGB image with all three channels different, so that a swapped channel or axis shows."""
    y, x = np.mgrid[:height, :width].astype(float)
    r, g, b = 255 * x / width, 255 * y / height, 127 + 100 * np.sin(x / 5 + y / 7)
    return np.stack([r, g, b], -1).astype(np.uint8)


def message(encoding: str, raw: np.ndarray, width: int, height: int, padding: int = 0, big: bool = False) -> Image:
    """An Image of already encoded rows [rows, bytes], with `padding` bytes after each row."""
    rows = np.ascontiguousarray(raw).view(np.uint8).reshape(raw.shape[0], -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    msg = Image(width=width, height=height, encoding=encoding, step=rows.shape[1], is_bigendian=int(big))
    msg.data = rows.tobytes()
    return msg


def mosaic(rgb: np.ndarray, pattern: str) -> np.ndarray:
    """Bayer samples of an RGB image; `pattern` names the 2x2 cell from the first pixel, row by row (ROS naming)."""
    out = np.empty(rgb.shape[:2], np.uint8)
    for i, letter in enumerate(pattern):
        y, x = divmod(i, 2)
        out[y::2, x::2] = rgb[y::2, x::2, "rgb".index(letter)]
    return out


@pytest.mark.parametrize("padding", [0, 6])
def test_eight_bit_colour_encodings_keep_every_channel(padding):
    rgb = picture()
    h, w = rgb.shape[:2]
    alpha = np.full((h, w, 1), 9, np.uint8)
    cases = {"rgb8": rgb, "bgr8": rgb[..., ::-1], "8UC3": rgb[..., ::-1], "rgba8": np.concatenate([rgb, alpha], -1),
             "bgra8": np.concatenate([rgb[..., ::-1], alpha], -1)}
    for encoding, raw in cases.items():
        np.testing.assert_array_equal(to_rgb(message(encoding, raw.copy(), w, h, padding)), rgb, err_msg=encoding)


@pytest.mark.parametrize("padding", [0, 8])
def test_grey_encodings_become_equal_channels(padding):
    grey = picture()[..., 0]
    h, w = grey.shape
    expected = np.repeat(grey[..., None], 3, -1)
    deep = grey.astype(np.uint16) << 8 | 0x5A
    cases = [("mono8", grey, False), ("8UC1", grey, False), ("mono16", deep.astype("<u2"), False),
             ("16UC1", deep.astype(">u2"), True), ("32FC1", (grey / np.float32(255)).astype("<f4"), False)]
    for encoding, raw, big in cases:
        np.testing.assert_array_equal(to_rgb(message(encoding, raw, w, h, padding, big)), expected, err_msg=encoding)


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_patterns_are_named_from_the_first_pixel(pattern):
    rgb = picture()
    got = to_rgb(message(f"bayer_{pattern}8", mosaic(rgb, pattern), rgb.shape[1], rgb.shape[0]))
    inner = np.s_[3:-3, 3:-3]
    assert np.abs(got[inner].astype(int) - rgb[inner]).max() <= 14  # interpolation only; a wrong pattern is off by 100


def test_yuv_encodings_against_the_bt601_formula():
    rgb = picture()
    h, w = rgb.shape[:2]
    rgb[:, 1::2], rgb[1::2] = rgb[:, ::2], rgb[::2]  # constant 2x2 cells: chroma subsampling loses nothing
    r, g, b = (rgb[..., i].astype(float) for i in range(3))
    y = 16 + (65.481 * r + 128.553 * g + 24.966 * b) / 255
    u = 128 + (-37.797 * r - 74.203 * g + 112.0 * b) / 255
    v = 128 + (112.0 * r - 93.786 * g - 18.214 * b) / 255
    y, u, v = (np.rint(p).astype(np.uint8) for p in (y, u, v))
    packed = {"uyvy": (u, y, v, y), "yuv422": (u, y, v, y), "yuyv": (y, u, y, v), "yuv422_yuy2": (y, u, y, v)}
    for encoding, (a, b1, c, d) in packed.items():
        raw = np.stack([a[:, ::2], b1[:, ::2], c[:, ::2], d[:, ::2]], -1).reshape(h, -1)
        assert np.abs(to_rgb(message(encoding, raw, w, h, 4)).astype(int) - rgb).max() <= 4, encoding
    for encoding, chroma in (("nv12", (u, v)), ("nv21", (v, u))):
        raw = np.vstack([y, np.stack([c[::2, ::2] for c in chroma], -1).reshape(h // 2, w)])
        assert np.abs(to_rgb(message(encoding, raw, w, h)).astype(int) - rgb).max() <= 4, encoding


def test_rgb8_is_a_view_of_the_message():
    msg = message("rgb8", picture(), 32, 24, 6)
    image = to_rgb(msg)
    assert image.base is not None and not image.flags.writeable
    msg.data[0] = 201
    assert image[0, 0, 0] == 201


BAD = {
    "short data": (dict(cut=100), "data holds"),
    "no data": (dict(cut=10**9), "data holds"),
    "step too small": (dict(step=10), "step is 10"),
    "zero height": (dict(height=0), "height is 0"),
    "absurd width": (dict(width=10**6), "width is 1000000"),
    "unknown encoding": (dict(encoding="nonsense"), "encoding is 'nonsense'"),
    "odd nv12": (dict(encoding="nv12", height=23), "even width and height"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_images_are_refused_with_the_field_in_the_message(case):
    changes, words = BAD[case]
    msg = message("rgb8", picture(), 32, 24)
    msg.data = msg.data[:max(0, len(msg.data) - changes.pop("cut", 0))]
    for name, value in changes.items():
        setattr(msg, name, value)
    with pytest.raises(ImageError, match=words):
        to_rgb(msg)


def test_nan_in_float_image_is_refused():
    raw = np.full((24, 32), 0.5, np.float32)
    raw[3, 4] = np.nan
    with pytest.raises(ImageError, match="NaN"):
        to_rgb(message("32FC1", raw, 32, 24))


def test_every_encoding_is_tested_here():
    tested = {"rgb8", "bgr8", "8UC3", "rgba8", "bgra8", "mono8", "8UC1", "mono16", "16UC1", "32FC1", "uyvy", "yuv422",
              "yuyv", "yuv422_yuy2", "nv12", "nv21", *(f"bayer_{p}8" for p in ("rggb", "bggr", "gbrg", "grbg"))}
    assert tested == set(ENCODINGS)


def test_fill_image_round_trip_through_the_wire():
    rgb = picture()
    msg = deserialize_message(serialize_message(fill_image(Image(), rgb)), Image)
    np.testing.assert_array_equal(to_rgb(msg), rgb)


def test_camera_info_round_trip():
    k = np.array([[500.0, 0, 321.5], [0, 510.0, 239.25], [0, 0, 1]])
    for dist, model in (([], "pinhole"), ([0.1, -0.2, 0.001, 0.002, 0.05], "pinhole"),
                        (list(np.linspace(-0.1, 0.1, 8)), "pinhole"), ([0.1, 0.02, 0.003, 0.0004], "fisheye")):
        camera = Camera(640, 480, k, np.array(dist), "cam", model)
        back = to_camera(deserialize_message(serialize_message(fill_camera_info(CameraInfo(), camera)), CameraInfo))
        point = np.array([0.3, -0.2, 2.0])
        np.testing.assert_allclose(back.project(point), camera.project(point), atol=1e-9)
        assert (back.width, back.height, back.frame_id, back.model) == (640, 480, "cam", model)


def test_uncalibrated_camera_info_is_refused():
    with pytest.raises(ValueError, match="K is zero"):
        to_camera(CameraInfo(width=640, height=480, distortion_model="plumb_bob"))


def test_stamps_survive_the_stream_clock_exactly():
    clock = StreamClock(1_795_236_225 * 10**9)
    for ns in (0, 1, 333_333_333, 999_999_999, 86_400 * 10**9 + 7):
        stamp = Time()
        sec, nanosec = divmod(clock.epoch + ns, 10**9)
        stamp.sec, stamp.nanosec = sec, nanosec
        again = clock.fill(Time(), clock.seconds(stamp))
        assert (again.sec, again.nanosec) == (sec, nanosec)


def test_times_before_the_epoch_keep_nanoseconds_positive():
    stamp = StreamClock(5 * 10**9).fill(Time(), -0.25)
    assert (stamp.sec, stamp.nanosec) == (4, 750_000_000)


def trajectory(times=(0.01, 0.02, 0.04)):
    estimate = SimpleNamespace(exposures=(Exposure(0.01, 0.04),), status=Status.OK)
    return Standin().sample(estimate, np.array(times))


def test_trajectory_round_trip():
    motion = trajectory()
    clock = StreamClock(10**18)
    msg = fill_trajectory(MultiDOFJointTrajectory(), motion, SMPL24, clock, 0.01, MultiDOFJointTrajectoryPoint,
                          Transform, Twist)
    msg = deserialize_message(serialize_message(msg), MultiDOFJointTrajectory)
    times, x, r, v, w = read_trajectory(msg)
    assert (msg.header.stamp.sec, msg.header.stamp.nanosec) == (10**9, 10_000_000)
    assert list(msg.joint_names) == list(SMPL24)
    np.testing.assert_allclose(times, [0, 0.01, 0.03], atol=1e-9)  # since the shutter opened
    np.testing.assert_allclose(x[1], position(0.02), atol=1e-12)
    np.testing.assert_allclose(v[2], velocity(0.04), atol=1e-12)
    np.testing.assert_allclose(r, motion.rotations, atol=1e-12)
    np.testing.assert_allclose(w, motion.angular_velocity, atol=1e-12)
    np.testing.assert_allclose((x[1] - x[0]) / 0.01, velocity(0.015), atol=2e-3)  # velocities belong to the positions


def test_patched_trajectory_is_the_filled_message():
    types = SimpleNamespace(MultiDOFJointTrajectory=MultiDOFJointTrajectory, Header=Header, Transform=Transform,
                            MultiDOFJointTrajectoryPoint=MultiDOFJointTrajectoryPoint, Twist=Twist)
    patched = PatchedTrajectory(types, serialize_message, "camera_optical", SMPL24, 2)
    for clock, times in ((StreamClock(10**18), (0.01, 0.02, 0.04)), (StreamClock(3), (0.5, 1.75, 9.0))):
        motion = trajectory(times)
        wanted = fill_trajectory(MultiDOFJointTrajectory(header=Header(frame_id="camera_optical")), motion, SMPL24,
                                 clock, times[0], MultiDOFJointTrajectoryPoint, Transform, Twist)
        wanted.points = wanted.points[:2]
        got = patched.patch(motion, clock, times[0])
        assert deserialize_message(got, MultiDOFJointTrajectory) == wanted
        assert len(got) == len(serialize_message(wanted))  # bytes between the fields are anything


def test_a_mark_that_occurs_twice_is_not_taken():
    data = serialize_message(Twist(linear=Vector3(x=1.5, y=2.5, z=3.5), angular=Vector3(x=1.5, y=2.5, z=3.5)))
    assert cdr.find(data, "d", (3.5, 1.5)) == 4 + 2 * 8
    with pytest.raises(RuntimeError):
        cdr.find(data, "d", (1.5, 2.5, 3.5))
    with pytest.raises(RuntimeError):
        cdr.find(data, "d", (2.5, 1.5))


def test_nobody_gives_names_and_no_points():
    msg = fill_trajectory(MultiDOFJointTrajectory(), None, SMPL24, StreamClock(0), 0.0, MultiDOFJointTrajectoryPoint,
                          Transform, Twist)
    assert len(msg.joint_names) == 24 and not msg.points


def test_pose_array_is_the_chosen_instant():
    motion = trajectory()
    msg = fill_poses(PoseArray(), motion, -1, StreamClock(0), Pose)
    assert msg.header.stamp.nanosec == 40_000_000
    p, q = msg.poses[7].position, msg.poses[7].orientation
    np.testing.assert_allclose([p.x, p.y, p.z], position(0.04)[7])
    np.testing.assert_allclose(rotations.from_quaternion(np.array([q.x, q.y, q.z, q.w])), motion.rotations[-1, 7],
                               atol=1e-12)


def test_patched_poses_are_the_filled_message():
    types = SimpleNamespace(PoseArray=PoseArray, Pose=Pose, Header=Header)
    patched, motion = PatchedPoses(types, serialize_message, "cam", 24), trajectory()
    for index in (-1, 0):
        wanted = fill_poses(PoseArray(header=Header(frame_id="cam")), motion, index, StreamClock(10**18), Pose)
        assert deserialize_message(patched.patch(motion, index, StreamClock(10**18)), PoseArray) == wanted


def test_patched_skeleton_is_the_built_message():
    patched = markers.SkeletonMarkers(MARKERS, serialize_message, "cam", "body_b0", SMPL24_PARENTS, 6.0)
    for time, speeds in ((0.1, np.linspace(0, 8, 24)), (0.7, np.linspace(3, 0, 24))):
        header = Header(frame_id="cam", stamp=Time(sec=3, nanosec=round(1e9 * time)))
        wanted = markers.skeleton_markers(MARKERS, header, "body_b0", position(time), speeds, SMPL24_PARENTS, 6.0)
        wanted = deserialize_message(serialize_message(wanted), MarkerArray)  # colours are single precision
        assert deserialize_message(patched.patch(position(time), speeds, header.stamp), MarkerArray) == wanted


def test_joint_states_carry_velocity_and_covariance():
    msg = fill_states(PointCloud2(), trajectory(), 1, StreamClock(0), PointField)
    columns = read_cloud(deserialize_message(serialize_message(msg), PointCloud2))
    np.testing.assert_allclose(np.stack([columns[c] for c in ("vx", "vy", "vz")], -1), velocity(0.02), atol=1e-6)
    np.testing.assert_allclose(columns["speed"], np.linalg.norm(velocity(0.02), axis=-1), rtol=1e-6)
    np.testing.assert_allclose(covariances(columns, "p")[3], np.diag(SIGMA_P**2), rtol=1e-6)
    np.testing.assert_allclose(covariances(columns, "v")[23], np.diag(SIGMA_V**2), rtol=1e-6)
    np.testing.assert_array_equal(columns["joint"], np.arange(24))


def test_cloud_says_when_it_is_not_dense():
    points = np.ones((5, 3), np.float32)
    assert fill_cloud(PointCloud2(), ("x", "y", "z"), points, PointField).is_dense
    points[2, 1] = np.nan
    assert not fill_cloud(PointCloud2(), ("x", "y", "z"), points, PointField).is_dense


def test_patched_mesh_equals_one_built_from_points():
    rng = np.random.default_rng(0)
    faces = rng.integers(0, 50, (99, 3))
    mesh = markers.MeshMarker(MARKERS, serialize_message, "cam", "body_b0", faces)
    for seconds in (7, 8):
        vertices = rng.normal(size=(50, 3))
        msg = deserialize_message(mesh.patch(vertices, Time(sec=seconds, nanosec=9)), MarkerArray)
        marker = msg.markers[0]
        assert (marker.header.stamp.sec, marker.header.stamp.nanosec, marker.header.frame_id) == (seconds, 9, "cam")
        assert marker.type == Marker.TRIANGLE_LIST and marker.scale.x == 1.0
        got = np.array([[p.x, p.y, p.z] for p in marker.points])
        np.testing.assert_array_equal(got, vertices[faces].reshape(-1, 3))


def test_painted_mesh_carries_a_colour_per_corner():
    rng = np.random.default_rng(1)
    faces, vertices = rng.integers(0, 50, (99, 3)), rng.normal(size=(50, 3))
    mesh = markers.MeshMarker(MARKERS, serialize_message, "cam", "body_b0", faces, painted=True)
    for _ in range(2):
        colours = rng.uniform(size=(50, 3)).astype(np.float32)
        data = mesh.patch(vertices, Time(sec=1, nanosec=2), colours)
        marker = deserialize_message(data, MarkerArray).markers[0]
        got = np.array([[c.r, c.g, c.b, c.a] for c in marker.colors], np.float32)
        np.testing.assert_array_equal(got[:, :3], colours[faces].reshape(-1, 3))
        assert (got[:, 3] == 0.75).all() and marker.points[4].x == vertices[faces[1, 1], 0]


@pytest.mark.parametrize("painted", [False, True])
def test_a_distrusted_body_is_fainter_and_only_while_it_is(painted):
    faces, vertices = np.array([[0, 1, 2]]), np.eye(3)
    mesh = markers.MeshMarker(MARKERS, serialize_message, "cam", "body_b0", faces, painted=painted)
    bones = markers.SkeletonMarkers(MARKERS, serialize_message, "cam", "body_b0", SMPL24_PARENTS, 6.0)
    colours = np.ones((3, 3), np.float32) if painted else None
    for opacity in (0.25, 1.0):
        shown = deserialize_message(mesh.patch(vertices, Time(), colours, opacity), MarkerArray).markers[0]
        assert shown.color.a == np.float32(0.75 * opacity) and shown.color.b == np.float32(0.9)
        assert {c.a for c in shown.colors} == ({np.float32(0.75 * opacity)} if painted else set())
        data = bones.patch(position(0.1), np.zeros(24), Time(), opacity)
        for marker in deserialize_message(data, MarkerArray).markers:
            assert {c.a for c in marker.colors} == {opacity}


def test_skeleton_colours_follow_speed():
    speeds = np.zeros(24)
    speeds[20] = 100.0
    msg = markers.skeleton_markers(MARKERS, Header(frame_id="cam"), "b", position(0.0), speeds, SMPL24_PARENTS, 6.0)
    joints, bones = msg.markers
    slow, fast = joints.colors[0], joints.colors[20]
    assert slow.b > slow.r and fast.r > fast.b
    assert len(bones.points) == 2 * 23 and len(bones.colors) == 46
    ends = np.array([[p.x, p.y, p.z] for p in bones.points]).reshape(23, 2, 3)
    np.testing.assert_allclose(ends[0], position(0.0)[[0, 1]])  # pelvis to left hip


def test_status_flags_are_named():
    assert diagnostics.flag_names(Status.OK) == "OK"
    assert diagnostics.flag_names(Status.LOW_BLUR | Status.OCCLUDED) == "LOW_BLUR|OCCLUDED"
    assert diagnostics.level(Status.OK) == b"\0"
    assert diagnostics.level(Status.LOST) == b"\2"


def test_rate_and_problem_throttling_use_the_clock():
    now = [0.0]
    rate = diagnostics.Rate(now=lambda: now[0])
    for i in range(11):
        now[0] = i * 0.1
        rate.tick()
    assert rate.value() == pytest.approx(10.0)
    problems = diagnostics.Problems(now=lambda: now[0])
    assert problems.report("a", "x") and not problems.report("a", "y") and problems.report("b", "z")
    now[0] += 6
    assert problems.report("a", "again") and problems.counts() == {"a": 3, "b": 1}
    now[0] += 20
    assert not problems.recent()


def test_bgr_conversion_agrees_with_opencv():
    raw = picture()
    np.testing.assert_array_equal(to_rgb(message("bgr8", raw, 32, 24)), cv2.cvtColor(raw, cv2.COLOR_BGR2RGB))
