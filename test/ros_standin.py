"""A moving skeleton with a closed-form path, shaped like the computing core: the ROS side is tested against exact
numbers. Every joint circles with radius 0.2 m in the image plane: velocity and position are known at any time."""

from __future__ import annotations

import threading
import time

import numpy as np

from blur_motion_ros.types import BodyState, Frame, JointTrajectory, MotionEstimate, Status

RADIUS, OMEGA, DEPTH = 0.2, 6.0, 4.0
SIGMA_P, SIGMA_V = np.array([0.01, 0.02, 0.05]), np.array([0.1, 0.2, 0.5])


def position(t: float) -> np.ndarray:
    """[24, 3] m at time t."""
    a = OMEGA * t + np.arange(24) * 0.1
    return np.stack([RADIUS * np.cos(a), RADIUS * np.sin(a) + 0.05 * np.arange(24), np.full(24, DEPTH)], -1)


def velocity(t: float) -> np.ndarray:
    """[24, 3] m/s at time t."""
    a = OMEGA * t + np.arange(24) * 0.1
    return np.stack([-RADIUS * OMEGA * np.sin(a), RADIUS * OMEGA * np.cos(a), np.zeros(24)], -1)
COLOURS = np.array([[0, 0, 0], [1, 0, 0], [0, 0.2140411, 0], [0, 0, 1]], np.float32)  # of `mesh`, linear light


class Standin:
    """An `Engine`: reports LOST for black images and raises on all-white ones."""

    def __init__(self, settings=None, seconds: float = 0.0) -> None:
        self.timings = {"fit": 1.0}
        self.faces = np.array([[0, 1, 2], [1, 2, 3]])
        self.seconds, self.see_seconds = seconds, 0.0
        self.hold: threading.Event | None = None  # where there is one, each frame is being seen until it is set
        self.holding = False
        self.resets = 0
        self.backgrounds: list[np.ndarray] = []
        self.frames: list[Frame] = []
        self.late: list[bool] = []  # of every frame that was seen
        self.matted: list[Frame] = []
        self.hurry: list[float] = []  # s from the start of each fit until it should take no step that it need not

    def see(self, frame: Frame, fresh: bool, late: bool) -> Frame:
        time.sleep(self.see_seconds)
        if self.hold is not None:
            self.holding = True
            self.hold.wait(5)
            self.hold.clear()
            self.holding = False
        self.resets += fresh
        self.late.append(late)
        self.frames.append(frame)
        return frame

    def matte(self, seen: Frame) -> Frame:
        self.matted.append(seen)
        return seen

    def fit(self, frame: Frame, until: float) -> MotionEstimate:
        self.hurry.append(until - time.perf_counter())
        time.sleep(self.seconds)
        value = frame.image[0, 0, 0]
        if value == 255:
            raise ArithmeticError("the solver met a white image")
        status = Status.LOST if value == 0 else Status.OK
        body = BodyState(np.zeros(3), np.zeros((23, 3)), np.zeros(10), np.zeros(3))
        e = frame.exposure
        return MotionEstimate(e.open, e.close, (e,), body, np.zeros((25, 3, 3)), np.arange(3), None, status, 0.5, 1.0)

    def sample(self, estimate: MotionEstimate, times: np.ndarray) -> JointTrajectory:
        n = len(times)
        angle = OMEGA * np.asarray(times)
        rotation = np.zeros((n, 24, 3, 3))
        rotation[..., 2, 2] = 1
        rotation[..., 0, 0] = rotation[..., 1, 1] = np.cos(angle)[:, None]
        rotation[..., 1, 0] = np.sin(angle)[:, None]
        rotation[..., 0, 1] = -np.sin(angle)[:, None]
        spin = np.tile(np.array([0.0, 0.0, OMEGA]), (n, 24, 1))
        tile = (n, 24, 1, 1)
        return JointTrajectory(np.asarray(times), np.stack([position(t) for t in times]), rotation,
                               np.stack([velocity(t) for t in times]), spin, np.tile(np.diag(SIGMA_P**2), tile),
                               np.tile(np.diag(SIGMA_V**2), tile), estimate.exposures[-1], estimate.status)

    def mesh(self, estimate: MotionEstimate, trajectory: JointTrajectory, index: int) -> np.ndarray:
        return position(trajectory.times[index])[:4].astype(np.float32)

    def colours(self) -> np.ndarray:
        return COLOURS

    def set_background(self, image: np.ndarray) -> None:
        self.backgrounds.append(image)
