"""What a node knows about itself -> diagnostic_msgs; counters and rates that need no ROS."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from blur_motion_ros.types import JointTrajectory, MotionEstimate, Status

OK, WARN, ERROR, STALE = (bytes([i]) for i in range(4))


class Rate:
    """Events per second over the last `span` seconds, thread-safe."""

    def __init__(self, span: float = 5.0, now: Callable[[], float] = time.monotonic) -> None:
        self._span, self._now = span, now
        self._times: deque[float] = deque()
        self._lock = threading.Lock()
        self.total = 0

    def tick(self) -> None:
        with self._lock:
            self.total += 1
            self._times.append(self._now())

    def value(self) -> float:
        """Rate over the events inside the span (0 with fewer than two)."""
        with self._lock:
            now = self._now()
            while self._times and self._times[0] < now - self._span:
                self._times.popleft()
            if len(self._times) < 2:
                return 0.0
            return (len(self._times) - 1) / max(now - self._times[0], 1e-6)


class Window:
    """The last `size` numbers, thread-safe, for percentiles."""

    def __init__(self, size: int = 300) -> None:
        self._values: deque[float] = deque(maxlen=size)
        self._lock = threading.Lock()

    def add(self, value: float) -> None:
        with self._lock:
            self._values.append(value)

    def mean(self) -> float:
        """NaN without numbers."""
        with self._lock:
            return sum(self._values) / len(self._values) if self._values else float("nan")

    def percentiles(self, *q: float) -> list[float]:
        with self._lock:
            values = list(self._values)
        return [float(v) for v in np.percentile(values, q)] if values else [float("nan")] * len(q)


class Problems:
    """What went wrong, by kind: count, last message, and when (monotonic seconds). Thread-safe."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._kinds: dict[str, tuple[int, str, float]] = {}
        self._lock = threading.Lock()

    def report(self, kind: str, message: str) -> bool:
        """Note a problem; True if it should be logged (the first of its kind in 5 s)."""
        with self._lock:
            count, _, last = self._kinds.get(kind, (0, "", -1e9))
            now = self._now()
            fresh = now - last > 5.0
            self._kinds[kind] = (count + 1, message, now if fresh else last)
            return fresh

    def recent(self, age: float = 10.0) -> dict[str, str]:
        """Kinds reported within `age` seconds -> last message."""
        with self._lock:
            return {k: m for k, (_, m, t) in self._kinds.items() if self._now() - t <= age}

    def counts(self) -> dict[str, int]:
        with self._lock:
            return {k: c for k, (c, _, _) in self._kinds.items()}


def flag_names(status: Status) -> str:
    """Status flags as text: 'OK' or 'LOW_BLUR|OCCLUDED'."""
    names = [flag.name for flag in Status if flag.value and flag in status]
    return "|".join(names) or "OK"


def level(status: Status) -> bytes:
    """OK, WARN for anything known against the estimate, ERROR when there is no estimate."""
    if Status.LOST in status:
        return ERROR
    return OK if status == Status.OK else WARN


def estimate_values(estimate: MotionEstimate, trajectory: JointTrajectory | None, index: int) -> dict[str, Any]:
    """Key-values that describe one estimate; sigmas are medians over the joints at `trajectory.times[index]`.

    In-plane and depth uncertainty are reported apart: one camera barely sees depth.
    """
    values: dict[str, Any] = {"status": flag_names(estimate.status), "status_bits": int(estimate.status),
                              "blur_rate": estimate.blur_rate, "image_rms_sigmas": estimate.rms,
                              "betas": " ".join(f"{b:.4g}" for b in estimate.reference.betas)}
    if trajectory is None:
        return values
    p = np.sqrt(np.maximum(np.diagonal(trajectory.position_covariance[index], axis1=-2, axis2=-1), 0))
    v = np.sqrt(np.maximum(np.diagonal(trajectory.velocity_covariance[index], axis1=-2, axis2=-1), 0))
    speed = np.linalg.norm(trajectory.linear_velocity[index], axis=-1)
    fastest = int(np.argmax(speed))
    return values | {
        "sigma_position_in_plane_m": float(np.median(p[:, :2])),
        "sigma_position_depth_m": float(np.median(p[:, 2])),
        "sigma_velocity_in_plane_m_s": float(np.median(v[:, :2])),
        "sigma_velocity_depth_m_s": float(np.median(v[:, 2])),
        "fastest_joint": fastest, "fastest_joint_speed_m_s": float(speed[fastest]),
        "fastest_joint_sigma_m_s": float(np.sqrt((v[fastest] ** 2).sum()))}


def fill_status(msg: Any, name: str, severity: bytes, message: str, values: Mapping[str, Any], key_value: type) -> Any:
    """Fill a DiagnosticStatus; numbers are written with six significant digits."""
    msg.name, msg.level, msg.message, msg.hardware_id = name, severity, message, "blur_motion_ros"
    msg.values = [key_value(key=k, value=f"{v:.6g}" if isinstance(v, float) else str(v)) for k, v in values.items()]
    return msg
