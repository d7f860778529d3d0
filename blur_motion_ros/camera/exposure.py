"""From image stamps to exposure intervals, with a clock that may stutter, jump or repeat.

A stamp marks the start, middle or end of an exposure whose duration is fixed or a share ('duty') of the frame
period; the period is measured from the stamps. `ExposureModel.interval` returns the interval, or raises
`ClockJump` when time did something that the caller must act on.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from enum import Enum
from pathlib import Path

import numpy as np

from blur_motion_ros.camera.settings import CameraSettings
from blur_motion_ros.types import Exposure

_HISTORY = 31  # intervals kept for the period
_LATE_FRAMES = 2  # so many older frames in a row mean that the clock itself went back


class JumpKind(Enum):
    """DUPLICATE, LATE: drop this frame.  BACKWARD, FORWARD: forget the past, this frame starts anew.  INVALID: drop."""

    DUPLICATE = "duplicate"
    LATE = "late"
    BACKWARD = "backward"
    FORWARD = "forward"
    INVALID = "invalid"


class ClockJump(ValueError):
    """A stamp does not follow the previous one.

    kind: what happened.  step: seconds since the previous accepted stamp.  exposure: the frame's interval when it is
    usable (BACKWARD, FORWARD: the model has already restarted from it), else None: drop the frame.
    """

    def __init__(self, kind: JumpKind, step: float, exposure: Exposure | None, message: str):
        super().__init__(message)
        self.kind, self.step, self.exposure = kind, step, exposure

    @property
    def flush(self) -> bool:
        """Whether everything remembered from earlier frames must be dropped."""
        return self.exposure is not None


class ExposureModel:
    """Turns stamps of one camera into exposure intervals."""

    def __init__(self, settings: CameraSettings | None = None):
        self.settings = settings or CameraSettings()
        self.reset()

    def reset(self) -> None:
        """Forget all stamps (the measured period too)."""
        self._last: float | None = None
        self._steps: deque[float] = deque(maxlen=_HISTORY)
        self._late = 0
        self._late_stamp = -np.inf

    @property
    def period(self) -> float:
        """Frame period, seconds: measured once three intervals are known, else from the `rate` setting."""
        if len(self._steps) >= 3:
            return frame_period(self._steps)
        return 1.0 / (self.settings.rate or 30.0)

    @property
    def duration(self) -> float:
        """Seconds that the shutter is open; never longer than the measured period."""
        if self.settings.exposure <= 0.0:
            return self.settings.duty * self.period
        measured = len(self._steps) >= 3
        return min(self.settings.exposure, self.period) if measured else self.settings.exposure

    @property
    def gap(self) -> float:
        """Seconds that the shutter stays closed between two frames."""
        return max(self.period - self.duration, 0.0)

    def interval(self, stamp: float) -> Exposure:
        """Interval of the frame stamped `stamp` (s). Raises ClockJump when it does not follow the previous one."""
        if not np.isfinite(stamp):
            raise ClockJump(JumpKind.INVALID, float("nan"), None, f"stamp is {stamp}; frame dropped")
        if self._last is None:
            return self._accept(stamp, None)
        step = stamp - self._last
        if step <= 0.0:
            self._reject_backward(stamp, step)
        if step > self.settings.max_gap:
            raise ClockJump(JumpKind.FORWARD, step, self._accept(stamp, None),
                            f"stamps jumped {step:.3f} s ahead (max_gap {self.settings.max_gap:g} s); window restarted")
        return self._accept(stamp, step)

    def _accept(self, stamp: float, step: float | None) -> Exposure:
        if step is not None:
            self._steps.append(step)
        self._last, self._late, self._late_stamp = stamp, 0, -np.inf
        before = {"start": 0.0, "middle": 0.5, "end": 1.0}[self.settings.reference]
        opened = stamp - before * self.duration
        return Exposure(opened, opened + self.duration)

    def _reject_backward(self, stamp: float, step: float) -> None:
        """Raise the ClockJump of a stamp that is not newer: duplicate, one late frame, or the clock went back."""
        if abs(step) < 1e-6:
            raise ClockJump(JumpKind.DUPLICATE, step, None, f"stamp {stamp:.6f} s repeats; frame dropped")
        self._late = self._late + 1 if stamp > self._late_stamp else 1
        self._late_stamp = stamp
        if -step <= self.settings.max_gap and self._late < _LATE_FRAMES:
            raise ClockJump(JumpKind.LATE, step, None, f"stamp is {-step:.3f} s older than the last one; frame dropped")
        raise ClockJump(JumpKind.BACKWARD, step, self._accept(stamp, None),
                        f"clock went back {-step:.3f} s; window restarted")


def frame_period(steps: Sequence[float]) -> float:
    """Frame period from stamp differences (s): dropped frames (multiples) and jitter do not bias it."""
    steps = np.asarray(steps, np.float64)
    steps = steps[steps > 0]
    if not len(steps):
        raise ValueError("no positive stamp differences; at least two frames with increasing stamps are needed")
    shortest = np.quantile(steps, 0.2)
    once = np.median(steps[steps < 1.5 * shortest])
    return float(np.median(steps / np.maximum(np.round(steps / once), 1.0)))


def read_exposures(path: str | Path) -> list[Exposure]:
    """Exposures of a sequence from exposure.json ([[open, close], ...] s) or the key 'exposure' of an .npz."""
    path = Path(path)
    if path.suffix == ".npz":
        with np.load(path) as data:
            if "exposure" not in data:
                raise ValueError(f"{path.name} has no key 'exposure'; provide exposure.json")
            rows = data["exposure"]
    else:
        try:
            rows = json.loads(path.read_text())
        except (OSError, json.JSONDecodeError) as error:
            raise ValueError(f"{path.name} cannot be read as a list of [open, close] seconds: {error}") from None
    return checked_exposures(rows, path.name)


def sequence_exposures(folder: str | Path, count: int | None = None) -> list[Exposure]:
    """Exposures of a sequence folder: exposure.json, else gt.npz 'exposure', else fps and duty of meta.json."""
    folder = Path(folder)
    for name in ("exposure.json", "gt.npz"):
        if (folder / name).is_file():
            return read_exposures(folder / name)
    if not (folder / "meta.json").is_file():
        raise ValueError(f"{folder.name} has neither exposure.json nor meta.json; add one of them")
    meta = json.loads((folder / "meta.json").read_text())
    count = meta.get("n") if count is None else count
    if not meta.get("fps") or count is None:
        raise ValueError(f"{folder.name}/meta.json lacks 'fps' or 'n'; add them or an exposure.json")
    period = 1.0 / meta["fps"]
    duration = meta.get("exposure_s") or meta.get("duty", 1.0) * period
    return [Exposure(i * period, i * period + duration) for i in range(count)]


def checked_exposures(rows: object, source: str = "exposure") -> list[Exposure]:
    """[F, 2] open, close seconds -> exposures. ValueError when not finite, not open < close, or not in order."""
    try:
        rows = np.asarray(rows, np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{source}: must be a list of [open, close] seconds") from None
    if rows.ndim != 2 or rows.shape[1] != 2 or not len(rows):
        raise ValueError(f"{source}: shape is {rows.shape}; must be a list of [open, close] seconds")
    bad = ~(np.isfinite(rows).all(1) & (rows[:, 1] > rows[:, 0]))
    if bad.any():
        i = int(np.argmax(bad))
        raise ValueError(f"{source}: entry {i} is {rows[i].tolist()}; close must follow open")
    if np.any(np.diff(rows[:, 0]) <= 0):
        i = int(np.argmax(np.diff(rows[:, 0]) <= 0)) + 1
        raise ValueError(f"{source}: entry {i} opens no later than the one before; frames must be in time order")
    return [Exposure(float(a), float(b)) for a, b in rows]
