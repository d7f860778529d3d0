"""`python -m blur_motion_ros.demo.check FOLDER`: are the demo's results there and do they hold what they should?"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

LEAST_ESTIMATED = 0.25  # share of the frames played


def problems(out: Path) -> list[str]:
    """What is wrong with the results in `out`, one sentence each."""
    from blur_motion_ros.data.sequence import read_image
    from blur_motion_ros.demo.results import read_run
    from blur_motion_ros.messages.trajectory import read_trajectory

    missing = [n for n in ("overlay.mp4", "contact_sheet.png", "report.md", "bag") if not (out / n).exists()]
    if missing:
        return [f"{', '.join(missing)} missing in {out}"]
    found = []
    if read_image(out / "contact_sheet.png").std() < 10:
        found.append("contact_sheet.png is blank")
    run = read_run(out / "bag")
    frames = _video_frames(out / "overlay.mp4")
    if frames != len(run.played):
        found.append(f"overlay.mp4 has {frames} frames but {len(run.played)} images were played")
    bodies = [read_trajectory(m) for m in run.trajectories.values() if m.points]
    if len(bodies) < LEAST_ESTIMATED * len(run.played):
        found.append(f"only {len(bodies)} of {len(run.played)} frames have an estimate with a body; at least "
                     f"{LEAST_ESTIMATED:.0%} are expected")
    if not bodies:
        found.append("no frame has an estimate with a body")
    if bodies and not all(np.isfinite(x).all() and np.isfinite(v).all() for _, x, _, v, _ in bodies):
        found.append("a published trajectory holds NaN or infinite values")
    if bodies and not all(0.5 < x[..., 2].mean() < 50 for _, x, _, _, _ in bodies):
        found.append("a body is not between 0.5 and 50 m in front of the camera")
    return found


def _video_frames(path: Path) -> int:
    import av

    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


if __name__ == "__main__":
    found = problems(Path(sys.argv[1]))
    for sentence in found:
        print(f"demo: {sentence}", file=sys.stderr)
    if not found:
        print("demo: results are complete")
    sys.exit(bool(found))
