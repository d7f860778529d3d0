"""Estimates -> topics under humans/bodies/<id>/. No subscriber, no work."""

from __future__ import annotations

import re
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import Point, Pose, PoseArray, Transform, TransformStamped, Twist
from rclpy.node import Node
from rclpy.serialization import serialize_message
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import ColorRGBA, Header
from trajectory_msgs.msg import MultiDOFJointTrajectory, MultiDOFJointTrajectoryPoint
from visualization_msgs.msg import Marker, MarkerArray

from blur_motion_ros.body import joints
from blur_motion_ros.config import Settings
from blur_motion_ros.light import to_codes
from blur_motion_ros.messages import diagnostics, markers, stamps
from blur_motion_ros.messages.cloud import fill_cloud
from blur_motion_ros.messages.diagnostics import Window
from blur_motion_ros.messages.trajectory import PatchedPoses, PatchedTrajectory, fill_states, fill_trajectory
from blur_motion_ros.motion import rotations
from blur_motion_ros.nodes.base import quality
from blur_motion_ros.nodes.engine import Engine
from blur_motion_ros.nodes.worker import Result
from blur_motion_ros.types import DISTRUSTED, JointTrajectory, Status

_MARKER_TYPES = SimpleNamespace(MarkerArray=MarkerArray, Marker=Marker, Point=Point, ColorRGBA=ColorRGBA, Header=Header)
_TRAJECTORY_TYPES = SimpleNamespace(MultiDOFJointTrajectory=MultiDOFJointTrajectory, Header=Header, Twist=Twist,
                                    MultiDOFJointTrajectoryPoint=MultiDOFJointTrajectoryPoint, Transform=Transform)
_POSE_TYPES = SimpleNamespace(PoseArray=PoseArray, Pose=Pose, Header=Header)
_ID = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_CLOCKS_AGREE_S = 2.0  # a camera clock farther off than this is not the node's clock


class EstimatePublisher:
    """Publishes everything about one body.  `publish` runs in the worker's thread; rclpy publishers allow that."""

    def __init__(self, node: Node, settings: Settings) -> None:
        self.configure(settings)
        self._node = node
        body = self.settings.body_id
        if not _ID.fullmatch(body):
            raise ValueError(f"ros.body_id is '{body}'; use letters, digits and _, a letter first, e.g. b0")
        base = f"humans/bodies/{body}/"
        self._trajectory = self._publisher(MultiDOFJointTrajectory, base + "trajectory", 10)
        self._states = self._publisher(PointCloud2, base + "joint_states_3d", 10)
        self._poses = self._publisher(PoseArray, base + "poses", 10)
        self._status = self._publisher(DiagnosticArray, base + "status", 10)
        self._skeleton = self._publisher(MarkerArray, base + "skeleton", 2)
        self._mesh = self._publisher(MarkerArray, base + "mesh", 2)
        self._cloud = self._publisher(PointCloud2, base + "cloud", 2)
        self._tf = self._transform_publisher() if self.settings.publish_tf else None
        self._mesh_marker: markers.MeshMarker | None = None
        self._patched: PatchedTrajectory | None = None
        self._patched_poses: PatchedPoses | None = None
        self._skeleton_markers: markers.SkeletonMarkers | None = None
        self.latency_arrival_ms, self.latency_stamp_ms = Window(), Window()
        self.clocks_agree = True
        self.last_status: Status | None = None
        self.last_values: dict[str, Any] = {}

    def configure(self, settings: Settings) -> None:
        """Take over the values of live parameters."""
        self.settings, self._sampling = settings.ros, settings.trajectory

    def publish(self, engine: Engine, result: Result) -> None:
        """Publish one estimate on every topic that has subscribers."""
        estimate = result.estimate
        frame_id = self.settings.output_frame or result.frame.camera.frame_id
        lost = Status.LOST in estimate.status
        trajectory = None if lost else engine.sample(estimate, self._times(result))
        self._publish_trajectory(result, trajectory, frame_id)
        if trajectory is None:
            self._publish_lost(result, frame_id)
        else:
            self._publish_people(engine, result, trajectory, frame_id)
        self._note(result, trajectory)

    def now(self, result: Result) -> float:
        """The present on the camera's clock (s): the node's clock if the camera uses it, else counted from arrival."""
        ns = self._node.get_clock().now().nanoseconds
        now = (ns - result.clock.epoch) / stamps.NANO
        close = result.frame.exposure.close
        self.clocks_agree = -0.2 < now - close < _CLOCKS_AGREE_S
        return now if self.clocks_agree else close + (time.monotonic() - result.arrived)

    def _times(self, result: Result) -> np.ndarray:
        """Instants to sample: `samples` in the exposure, then the extrapolated ones, then now (within the horizon)."""
        s, e = self._sampling, result.frame.exposure
        ahead = e.close + s.horizon * np.arange(1, s.horizon_samples + 1) / max(1, s.horizon_samples)
        now = min(max(self.now(result), e.close), e.close + s.horizon)
        return np.concatenate([np.linspace(e.open, e.close, s.samples), ahead, [now]])

    def _publish_trajectory(self, result: Result, trajectory: JointTrajectory | None, frame_id: str) -> None:
        if not self._trajectory.get_subscription_count():
            return
        opened = result.frame.exposure.open
        if trajectory is None:
            msg = MultiDOFJointTrajectory(header=Header(frame_id=frame_id))
            self._trajectory.publish(fill_trajectory(msg, None, joints.SMPL24, result.clock, opened,
                                                     MultiDOFJointTrajectoryPoint, Transform, Twist))
            return
        count = len(trajectory.times) - 1  # the last is "now", for the other topics
        if self._patched is None or (self._patched.count, self._patched.frame_id) != (count, frame_id):
            self._patched = PatchedTrajectory(_TRAJECTORY_TYPES, serialize_message, frame_id, joints.SMPL24, count)
        self._trajectory.publish(self._patched.patch(trajectory, result.clock, opened))

    def _publish_people(self, engine: Engine, result: Result, trajectory: JointTrajectory, frame_id: str) -> None:
        s, closing = self.settings, self._closing(trajectory)
        if self._states.get_subscription_count():
            msg = PointCloud2(header=Header(frame_id=frame_id))
            self._states.publish(fill_states(msg, trajectory, closing, result.clock, PointField))
        if self._poses.get_subscription_count():
            if self._patched_poses is None or self._patched_poses.frame_id != frame_id:
                self._patched_poses = PatchedPoses(_POSE_TYPES, serialize_message, frame_id, len(joints.SMPL24))
            self._poses.publish(self._patched_poses.patch(trajectory, -1, result.clock))
        header = Header(frame_id=frame_id)
        result.clock.fill(header.stamp, float(trajectory.times[-1]))
        if s.publish_skeleton and self._skeleton.get_subscription_count():
            speeds = np.linalg.norm(trajectory.linear_velocity[-1], axis=-1)
            shown = self._skeleton_markers
            if shown is None or (shown.frame_id, shown.top) != (frame_id, s.max_colour_speed):
                shown = markers.SkeletonMarkers(_MARKER_TYPES, serialize_message, frame_id, f"body_{s.body_id}",
                                                joints.SMPL24_PARENTS, s.max_colour_speed)
                self._skeleton_markers = shown
            self._skeleton.publish(shown.patch(trajectory.positions[-1], speeds, header.stamp, _opacity(result)))
        self._publish_surface(engine, result, header, trajectory)
        if self._tf is not None:
            self._tf.publish(self._transforms(trajectory, header))

    def _publish_surface(self, engine: Engine, result: Result, header: Header, trajectory: JointTrajectory) -> None:
        mesh = self.settings.publish_mesh and self._mesh.get_subscription_count()
        cloud = self.settings.publish_cloud and self._cloud.get_subscription_count()
        if not (mesh or cloud):
            return
        vertices = engine.mesh(result.estimate, trajectory, -1)
        if mesh:
            painted = self.settings.mesh_colours
            if self._mesh_marker is None or self._mesh_marker.painted != painted:
                self._mesh_marker = markers.MeshMarker(_MARKER_TYPES, serialize_message, header.frame_id,
                                                       f"body_{self.settings.body_id}", engine.faces, painted=painted)
            colours = to_codes(engine.colours()) / np.float32(255) if painted else None
            self._mesh.publish(self._mesh_marker.patch(vertices, header.stamp, colours, _opacity(result)))
        if cloud:
            self._cloud.publish(fill_cloud(PointCloud2(header=header), ("x", "y", "z"), vertices, PointField))

    def _publish_lost(self, result: Result, frame_id: str) -> None:
        """Remove what is shown, once."""
        if self.last_status is not None and Status.LOST in self.last_status:
            return
        header = Header(frame_id=frame_id)
        result.clock.fill(header.stamp, result.frame.exposure.close)
        for publisher in (self._skeleton, self._mesh):
            if publisher.get_subscription_count():
                publisher.publish(markers.clear_markers(_MARKER_TYPES, header))

    @staticmethod
    def _closing(trajectory: JointTrajectory | None) -> int:
        """Index of the instant at which the shutter closes."""
        if trajectory is None:
            return 0
        return int(np.argmin(np.abs(trajectory.times - trajectory.exposure.close)))

    def _note(self, result: Result, trajectory: JointTrajectory | None) -> None:
        """Latency, status message and the values for diagnostics."""
        estimate = result.estimate
        arrival = 1e3 * (time.monotonic() - result.arrived)
        self.latency_arrival_ms.add(arrival)
        stamp = 1e3 * (self.now(result) - result.frame.exposure.close)
        if self.clocks_agree:
            self.latency_stamp_ms.add(stamp)
        values = diagnostics.estimate_values(estimate, trajectory, self._closing(trajectory))
        values |= {"latency_since_arrival_ms": arrival, "latency_since_shutter_closed_ms": stamp,
                   "exposure_s": result.frame.exposure.duration, "frame_index": result.frame.index}
        self.last_status, self.last_values = estimate.status, values
        if self._status.get_subscription_count():
            msg = DiagnosticArray()
            result.clock.fill(msg.header.stamp, result.frame.exposure.open)
            msg.status = [diagnostics.fill_status(DiagnosticStatus(), f"body_{self.settings.body_id}",
                                                  diagnostics.level(estimate.status), str(values["status"]), values,
                                                  KeyValue)]
            self._status.publish(msg)

    def _publisher(self, kind: type, topic: str, depth: int) -> Any:
        return self._node.create_publisher(kind, topic, quality("reliable", depth))

    def _transform_publisher(self) -> Any:
        try:
            from tf2_msgs.msg import TFMessage
        except ImportError as error:
            raise ValueError("ros.publish_tf needs tf2_msgs, which is not installed; install it or set it to false"
                             ) from error
        self._tf_message = TFMessage
        return self._node.create_publisher(TFMessage, "/tf", quality("reliable", 100))

    def _transforms(self, trajectory: JointTrajectory, header: Header) -> Any:
        """camera -> body_<id> (pelvis) and camera -> body_<id>/<joint>, at now."""
        names = [f"body_{self.settings.body_id}"] + [f"body_{self.settings.body_id}/{n}" for n in joints.SMPL24]
        x = np.vstack([trajectory.positions[-1][:1], trajectory.positions[-1]]).tolist()
        q = rotations.to_quaternion(trajectory.rotations[-1])
        out = []
        for name, p, r in zip(names, x, np.vstack([q[:1], q]).tolist(), strict=True):
            t = TransformStamped(header=header, child_frame_id=name)
            t.transform.translation.x, t.transform.translation.y, t.transform.translation.z = p
            t.transform.rotation.x, t.transform.rotation.y, t.transform.rotation.z, t.transform.rotation.w = r
            out.append(t)
        return self._tf_message(transforms=out)


def _opacity(result: Result) -> float:
    return markers.DISTRUSTED_OPACITY if result.estimate.status & DISTRUSTED else 1.0
