"""How far each joint's polynomial may bend: a degree per joint, by the blur that its motion is expected to make.

What hardly moves while the shutter is open does not show how its speed changes: such a joint is straight over the
window (degree 1), and its curvature is left to what the motion prior says of it. The expectation is the motion handed
on by the last window; windows without one have all their coefficients.
"""

from __future__ import annotations

import numpy as np

from blur_motion_ros.fit.kinematics import FitBody
from blur_motion_ros.fit.layout import WindowLayout


def expected_travel(body: FitBody, layout: WindowLayout, free: np.ndarray, pixels: float) -> np.ndarray:
    """[21] px: how far each free slot's own motion carries what hangs on it during the newest exposure.

    free [21, K, 3]: the expected motion; pixels: per metre at the body's distance. A joint's speed counts at the far
    end of its subtree (T-pose), whatever way it turns; the joints above it are not counted.
    """
    newest = layout.exposures[-1]
    rate = np.linalg.norm(np.einsum("ska,k->sa", free, layout.rates_at(newest.middle)), axis=-1)
    return pixels * newest.duration * body.reach * rate


def degrees(travel: np.ndarray, degree: int, one_below: float, three_above: float) -> np.ndarray:
    """[21] degrees, at most `degree`: 1 below `one_below` px of travel, 2 up to `three_above` px, then `degree`."""
    most = np.where(travel < one_below, 1, np.where(travel <= three_above, 2, degree))
    return np.minimum(most, degree)
