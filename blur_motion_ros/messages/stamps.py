"""Seconds on one stream's clock <-> ROS stamps.

Floats cannot hold nanoseconds since 1970, so a stream counts seconds from its own `epoch` (ns). Converting a stamp to
seconds and back returns the same stamp, which lets clients pair an estimate with its image by equal stamps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

NANO = 1_000_000_000


def nanoseconds(stamp: Any) -> int:
    """builtin_interfaces Time or Duration -> ns."""
    return int(stamp.sec) * NANO + int(stamp.nanosec)


def fill(stamp: Any, ns: int) -> Any:
    """Write `ns` into a Time or Duration message and return it (nanosec is always in [0, 1e9))."""
    stamp.sec, stamp.nanosec = divmod(int(ns), NANO)
    return stamp


@dataclass(frozen=True)
class StreamClock:
    """Maps stamps of one stream to seconds since `epoch` (ns)."""

    epoch: int

    def seconds(self, stamp: Any) -> float:
        return (nanoseconds(stamp) - self.epoch) / NANO

    def ns(self, seconds: float) -> int:
        return self.epoch + round(seconds * NANO)

    def fill(self, stamp: Any, seconds: float) -> Any:
        return fill(stamp, self.ns(seconds))
