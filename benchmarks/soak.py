"""Long live run: rate, latency, memory growth and processor time of the pipeline process.

    python benchmarks/soak.py FOLDER --minutes 10 [--pace 1.0] [--set name=value ...]

FOLDER is a sequence folder; it is played in a loop, over DDS, into a pipeline in a process of its own.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from blur_motion_ros.demo import live  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--pace", type=float, default=1.0, help="speed of playing")
    parser.add_argument("--set", action="append", default=[], dest="assignments")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        soak(args, Path(folder))
    return 0


def soak(args: argparse.Namespace, folder: Path) -> None:
    """Run everything and print a line every tenth of the time."""
    bag = folder / "bag"
    with live.listening(bag, folder, args.assignments) as parts:
        with parts.playing(Path(args.folder), args.pace, loop=True):
            _watch(parts.pipeline.pid, 60 * args.minutes)
    _report(bag)


def _watch(pid: int, seconds: float) -> None:
    start, cpu = time.monotonic(), live.cpu_seconds(pid)
    print(f"{'min':>6} {'memory MB':>10} {'cores':>6}")
    for i in range(10):
        time.sleep(max(0.0, start + (i + 1) * seconds / 10 - time.monotonic()))
        now = live.cpu_seconds(pid)
        print(f"{(time.monotonic() - start) / 60:6.1f} {live.memory_mb(pid):10.1f} {(now - cpu) / (seconds / 10):6.2f}",
              flush=True)
        cpu = now


def _report(bag: Path) -> None:
    import numpy as np

    from blur_motion_ros.demo.results import latencies_ms, read_run

    run = read_run(bag)
    seconds = (run.played[-1] - run.played[0]) / 1e9
    print(f"played {len(run.played) / seconds:.2f} Hz, estimates {len(run.statuses) / seconds:.2f} Hz")
    for name, values in latencies_ms(run).items():
        print(f"{name}: p50 {np.median(values):.1f} ms, p99 {np.percentile(values, 99):.1f} ms")


if __name__ == "__main__":
    raise SystemExit(main())
