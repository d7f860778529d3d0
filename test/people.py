"""Files that tests of the pose networks share: fetched on first use, skipped where that is not possible."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from blur_motion_ros import assets


def fetched(name: str) -> Path:
    try:
        return assets.asset(name)
    except assets.AssetError as e:
        pytest.skip(str(e))


def demo_frames(indices: list[int]) -> list[np.ndarray]:
    """Frames of the demo video, RGB, 884 x 497."""
    av, cv2 = pytest.importorskip("av"), pytest.importorskip("cv2")
    out = []
    with av.open(str(fetched("demo.mp4"))) as video:
        for i, frame in enumerate(video.decode(video=0)):
            if i in indices:
                out.append(cv2.resize(frame.to_ndarray(format="rgb24"), (884, 497), interpolation=cv2.INTER_AREA))
            if i >= max(indices):
                break
    return out
