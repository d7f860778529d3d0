"""JointTrajectory -> MultiDOFJointTrajectory, PoseArray and the joint-state cloud. No computing, only copying.

All positions are metres in the frame named in the header (the camera's optical frame unless set otherwise).
Message classes are passed in as instances, so that this module imports no ROS.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from blur_motion_ros.messages import cdr
from blur_motion_ros.messages.cloud import fill_cloud
from blur_motion_ros.messages.stamps import NANO, StreamClock, fill
from blur_motion_ros.motion import rotations
from blur_motion_ros.types import JointTrajectory

# One point per SMPL joint: position, velocity, speed, joint index, and the upper triangles of both covariances.
STATE_FIELDS = ("x", "y", "z", "vx", "vy", "vz", "speed", "joint",
                "pxx", "pxy", "pxz", "pyy", "pyz", "pzz", "vxx", "vxy", "vxz", "vyy", "vyz", "vzz")
_UPPER = np.triu_indices(3)


def fill_trajectory(msg: Any, trajectory: JointTrajectory | None, names: Sequence[str], clock: StreamClock,
                    opened: float, point: type, transform: type, twist: type) -> Any:
    """Fill a MultiDOFJointTrajectory whose stamp is the shutter opening `opened`; no points when nobody is there.

    `time_from_start` counts from that stamp, so the first point of an exposure has zero and extrapolated points
    follow shutter closing. Transforms are joint -> camera, velocities are in camera axes.
    """
    clock.fill(msg.header.stamp, opened)
    msg.joint_names = list(names)
    if trajectory is None:
        msg.points = []
        return msg
    quaternions = rotations.to_quaternion(trajectory.rotations)
    points = []
    for i, time in enumerate(trajectory.times):
        p = point()
        p.transforms = [_transform(transform(), x, q) for x, q in
                        zip(trajectory.positions[i].tolist(), quaternions[i].tolist(), strict=True)]
        p.velocities = [_twist(twist(), v, w) for v, w in
                        zip(trajectory.linear_velocity[i].tolist(), trajectory.angular_velocity[i].tolist(),
                            strict=True)]
        fill(p.time_from_start, clock.ns(time) - clock.ns(opened))
        points.append(p)
    msg.points = points
    return msg


class PatchedTrajectory:
    """A MultiDOFJointTrajectory of `count` points for the joints `names`, serialised once: `patch` -> CDR bytes.

    The bytes are those of `fill_trajectory`'s message, which takes 2 ms to build and to publish; patching takes a
    twentieth. types: namespace with the message classes.  serialise: message -> bytes.
    """

    def __init__(self, types: Any, serialise: Callable[[Any], bytes], frame_id: str, names: Sequence[str],
                 count: int) -> None:
        self.count, self.frame_id = count, frame_id
        n = len(names)
        msg = types.MultiDOFJointTrajectory(header=types.Header(frame_id=frame_id), joint_names=list(names))
        msg.header.stamp.sec, msg.header.stamp.nanosec = cdr.mark("i", 2)
        for i in range(count):
            point = types.MultiDOFJointTrajectoryPoint()
            point.transforms = [types.Transform() for _ in names]
            point.velocities = [types.Twist() for _ in names]
            _set_xyz(point.transforms[0].translation, cdr.mark("d", 3, 2 * i))
            point.transforms[0].rotation.w = 0.0
            _set_xyz(point.velocities[0].linear, cdr.mark("d", 3, 2 * i + 1))
            point.time_from_start.sec, point.time_from_start.nanosec = cdr.mark("i", 2, 1 + i)
            msg.points.append(point)
        self._bytes = bytearray(serialise(msg))
        self._stamp = cdr.find(self._bytes, "i", cdr.mark("i", 2))
        self._times = [cdr.find(self._bytes, "i", cdr.mark("i", 2, 1 + i)) for i in range(count)]
        self._transforms, self._velocities = (
            [np.frombuffer(self._bytes, "<f8", n * width, cdr.find(self._bytes, "d", cdr.mark("d", 3, 2 * i + k)))
             .reshape(n, width) for i in range(count)] for k, width in ((0, 7), (1, 6)))

    def patch(self, trajectory: JointTrajectory, clock: StreamClock, opened: float) -> bytes:
        """The first `count` instants of `trajectory`; see `fill_trajectory`."""
        start = clock.ns(opened)
        struct.pack_into("<iI", self._bytes, self._stamp, *divmod(start, NANO))
        quaternions = rotations.to_quaternion(trajectory.rotations[:self.count])
        for i in range(self.count):
            self._transforms[i][:, :3] = trajectory.positions[i]
            self._transforms[i][:, 3:] = quaternions[i]
            self._velocities[i][:, :3] = trajectory.linear_velocity[i]
            self._velocities[i][:, 3:] = trajectory.angular_velocity[i]
            struct.pack_into("<iI", self._bytes, self._times[i],
                             *divmod(clock.ns(float(trajectory.times[i])) - start, NANO))
        return bytes(self._bytes)


def read_trajectory(msg: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """MultiDOFJointTrajectory -> (seconds from the stamp [T], positions [T, J, 3], rotations [T, J, 3, 3],
    linear [T, J, 3] and angular [T, J, 3] velocities)."""
    n = len(msg.joint_names)
    times = np.array([p.time_from_start.sec + p.time_from_start.nanosec / NANO for p in msg.points])
    x = np.array([[_xyz(t.translation) for t in p.transforms] for p in msg.points]).reshape(-1, n, 3)
    q = np.array([[(t.rotation.x, t.rotation.y, t.rotation.z, t.rotation.w) for t in p.transforms]
                  for p in msg.points]).reshape(-1, n, 4)
    v = np.array([[_xyz(t.linear) for t in p.velocities] for p in msg.points]).reshape(-1, n, 3)
    w = np.array([[_xyz(t.angular) for t in p.velocities] for p in msg.points]).reshape(-1, n, 3)
    return times, x, rotations.from_quaternion(q), v, w


def fill_poses(msg: Any, trajectory: JointTrajectory, index: int, clock: StreamClock, pose: type) -> Any:
    """Fill a PoseArray with the 24 joint poses at `trajectory.times[index]`, which becomes its stamp."""
    clock.fill(msg.header.stamp, float(trajectory.times[index]))
    quaternions = rotations.to_quaternion(trajectory.rotations[index])
    msg.poses = [_pose(pose(), x, q) for x, q in
                 zip(trajectory.positions[index].tolist(), quaternions.tolist(), strict=True)]
    return msg


class PatchedPoses:
    """`fill_poses` for `count` joints, serialised once: `patch` -> CDR bytes. types: namespace with the messages."""

    def __init__(self, types: Any, serialise: Callable[[Any], bytes], frame_id: str, count: int) -> None:
        self.frame_id = frame_id
        msg = types.PoseArray(header=types.Header(frame_id=frame_id), poses=[types.Pose() for _ in range(count)])
        msg.header.stamp.sec, msg.header.stamp.nanosec = cdr.mark("i", 2)
        _set_xyz(msg.poses[0].position, cdr.mark("d", 3))
        self._bytes = bytearray(serialise(msg))
        self._stamp = cdr.find(self._bytes, "i", cdr.mark("i", 2))
        start = cdr.find(self._bytes, "d", cdr.mark("d", 3))
        self._poses = np.frombuffer(self._bytes, "<f8", 7 * count, start).reshape(count, 7)

    def patch(self, trajectory: JointTrajectory, index: int, clock: StreamClock) -> bytes:
        """The joints at `trajectory.times[index]`; see `fill_poses`."""
        struct.pack_into("<iI", self._bytes, self._stamp, *divmod(clock.ns(float(trajectory.times[index])), NANO))
        self._poses[:, :3] = trajectory.positions[index]
        self._poses[:, 3:] = rotations.to_quaternion(trajectory.rotations[index])
        return bytes(self._bytes)


def fill_states(msg: Any, trajectory: JointTrajectory, index: int, clock: StreamClock, point_field: type) -> Any:
    """Fill the PointCloud2 of joint states at one time: `STATE_FIELDS`, one point per joint."""
    clock.fill(msg.header.stamp, float(trajectory.times[index]))
    v = trajectory.linear_velocity[index]
    joints = np.arange(len(v))[:, None]
    speed = np.linalg.norm(v, axis=-1, keepdims=True)
    columns = [trajectory.positions[index], v, speed, joints,
               trajectory.position_covariance[index][:, _UPPER[0], _UPPER[1]],
               trajectory.velocity_covariance[index][:, _UPPER[0], _UPPER[1]]]
    return fill_cloud(msg, STATE_FIELDS, np.concatenate(columns, -1), point_field)


def covariances(columns: dict[str, np.ndarray], prefix: str) -> np.ndarray:
    """`read_cloud` columns of a joint-state cloud -> [J, 3, 3] covariance of `prefix` 'p' (m^2) or 'v' (m^2/s^2)."""
    xx, xy, xz, yy, yz, zz = (columns[f"{prefix}{c}"] for c in ("xx", "xy", "xz", "yy", "yz", "zz"))
    return np.stack([np.stack([xx, xy, xz], -1), np.stack([xy, yy, yz], -1), np.stack([xz, yz, zz], -1)], -2)


def _transform(msg: Any, x: list[float], q: list[float]) -> Any:
    t, r = msg.translation, msg.rotation
    t.x, t.y, t.z = x
    r.x, r.y, r.z, r.w = q
    return msg


def _twist(msg: Any, v: list[float], w: list[float]) -> Any:
    linear, angular = msg.linear, msg.angular
    linear.x, linear.y, linear.z = v
    angular.x, angular.y, angular.z = w
    return msg


def _pose(msg: Any, x: list[float], q: list[float]) -> Any:
    p, r = msg.position, msg.orientation
    p.x, p.y, p.z = x
    r.x, r.y, r.z, r.w = q
    return msg


def _set_xyz(v: Any, values: Sequence[float]) -> None:
    v.x, v.y, v.z = values


def _xyz(v: Any) -> tuple[float, float, float]:
    return v.x, v.y, v.z
