"""Rates that the live pipeline keeps up with: python benchmarks/live_rate.py SEQUENCE [--rates 10 15 20 25 30]

SEQUENCE is played forwards and backwards in turn over DDS into the pipeline, with a recording client beside it: three
processes, as in `./run demo`. Positions and images stay continuous where it turns round (an exposure's average does not
show its direction). At every rate the shutter is open for the same share of the period as in SEQUENCE and the stamps
advance with the wall clock, so at a lower rate the same images tell of a slower motion.

Prints one Markdown row per rate, and the CPU ms per played image of each process and of the pipeline's threads. The
first `SETTLE_S` of every run are not counted.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np  # noqa: E402

from blur_motion_ros.data import sequence  # noqa: E402
from blur_motion_ros.data.sequence import PLATE_NAMES, frame_paths  # noqa: E402
from blur_motion_ros.demo import live, results  # noqa: E402
from blur_motion_ros.demo.results import Run  # noqa: E402
from blur_motion_ros.types import Exposure  # noqa: E402

SETTLE_S = 1.0
WAIT_S = 60.0
LIGHT = ("camera_info", "exposure", "humans/bodies/b0/trajectory", "humans/bodies/b0/status", "/diagnostics")
NANO = 1e9


@dataclass(frozen=True)
class Times:
    """CPU seconds at one moment (wall clock, s): of each process by name, and of the pipeline's threads by name."""

    at: float
    processes: dict[str, float]
    threads: dict[str, float]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sequence", metavar="SEQUENCE")
    parser.add_argument("--rates", type=float, nargs="+", default=[10, 15, 20, 25, 30], metavar="HZ")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of every run (default 20)")
    parser.add_argument("--client", choices=("all", "light"), default="all",
                        help="subscribes to every output, mesh and skeleton too, or to trajectory and status only")
    parser.add_argument("--set", action="append", default=[], dest="assignments", metavar="NAME=VALUE")
    args = parser.parse_args()
    topics = LIGHT if args.client == "light" else ()
    rows, costs = [], []
    for rate in args.rates:
        with tempfile.TemporaryDirectory() as folder:
            load = os.getloadavg()[0]
            stream = make_stream(Path(args.sequence), rate, args.seconds, Path(folder) / "stream")
            run, times = play(stream, Path(folder), args.assignments, topics)
            rows.append(rate_row(rate, run, load))
            costs.append(cost_row(rate, run, times))
            print(rows[-1], costs[-1], sep="\n", file=sys.stderr, flush=True)
    print(*table(RATE_COLUMNS, rows), "", *table(COST_COLUMNS, costs), sep="\n")
    return 0


def make_stream(folder: Path, rate: float, seconds: float, out: Path) -> Path:
    """A sequence folder of `rate` x `seconds` frames: the images of `folder` to and fro, its share of open shutter."""
    recording = sequence.read(folder)
    opens = np.array([e.open for e in recording.exposures])
    share = float(np.median([e.duration for e in recording.exposures]) / np.median(np.diff(opens)))
    exposures = [Exposure(i / rate, (i + share) / rate) for i in range(round(rate * seconds))]
    out.mkdir(parents=True)
    for name in ("meta.json", *PLATE_NAMES):
        if (folder / name).is_file():
            (out / name).symlink_to((folder / name).resolve())
    (out / "exposure.json").write_text(str([[e.open, e.close] for e in exposures]))
    paths = frame_paths(folder)
    for i, k in zip(range(len(exposures)), to_and_fro(len(paths)), strict=False):
        (out / f"blur_{i:03d}{paths[k].suffix}").symlink_to(paths[k].resolve())
    return out


def to_and_fro(count: int) -> Iterator[int]:
    """0, 1, ... count - 1, count - 2, ... 1, 0, 1, ... without end."""
    period = max(2 * (count - 1), 1)
    i = 0
    while True:
        yield min(i % period, period - i % period) if count > 1 else 0
        i += 1


def play(stream: Path, folder: Path, assignments: list[str], topics: tuple[str, ...]) -> tuple[Run, list[Times]]:
    """Play `stream` once through a new pipeline; what was heard, and CPU times ten times a second."""
    bag = folder / "bag"
    with live.listening(bag, folder, assignments, topics) as parts:
        with parts.playing(stream) as player:
            times = watch({"player": player.pid, "pipeline": parts.pipeline.pid, "client": parts.recorder.pid}, player)
    return results.read_run(bag), times


def watch(pids: dict[str, int], player) -> list[Times]:
    """CPU times until the player ends."""
    times = []
    while player.poll() is None:
        times.append(Times(time.time(), {name: live.cpu_seconds(pid) for name, pid in pids.items()},
                           live.thread_seconds(pids["pipeline"])))
        time.sleep(0.1)
    return times[:-1]  # the last may have met an ended player


def counted(run: Run) -> tuple[int, int, list[int]]:
    """Start and end of the part that counts (stamps, ns), and the stamps in it."""
    played = sorted(run.played)
    start, end = played[0] + int(SETTLE_S * NANO), played[-1]
    return start, end, [s for s in played if start <= s < end]  # as many as periods between start and end


RATE_COLUMNS = ("rate, Hz", "played, Hz", "estimates, Hz", "dropped", "share",
                "dropped / told by the node, whole run", "latency ms p50 / p95 / p99", "see ms p50 / p95 / p99",
                "fit ms p50 / p95 / p99", "load before")


def rate_row(rate: float, run: Run, load: float) -> str:
    """Latency is from shutter closing to the client's callback; see and fit are wall ms of the two threads, and like
    what the node tells (`images_superseded`) of its last diagnostics message."""
    start, end, played = counted(run)
    seconds = (end - start) / NANO
    got = [s for s in played if s in run.trajectories]
    late = np.array([(run.received[s] - run.closing[s]) / 1e6 for s in got if s in run.closing])
    p50, p95, p99 = np.percentile(late, (50, 95, 99)) if len(late) else [np.nan] * 3
    fit, camera = (run.last_diagnostics.get(k, {}) for k in ("fit", "camera"))
    told = f"{len(run.played) - len(run.trajectories)} / {camera.get('images_superseded', '?')}"
    see_text, fit_text = (" / ".join(f"{float(fit.get(f'{k}_ms_{p}', 'nan')):.0f}" for p in ("p50", "p95", "p99"))
                          for k in ("see", "fit"))
    lost = len(played) - len(got)
    return (f"| {rate:g} | {len(played) / seconds:.1f} | {len(got) / seconds:.1f} | {lost} | "
            f"{len(got) / len(played):.1%} | {told} | {p50:.0f} / {p95:.0f} / {p99:.0f} | {see_text} | {fit_text} | "
            f"{load:.1f} |")


COST_COLUMNS = ("rate, Hz", "player", "pipeline", "client", "pipeline per estimate", "threads of the pipeline")


def cost_row(rate: float, run: Run, times: list[Times]) -> str:
    """CPU ms per image played."""
    start, end, played = counted(run)
    inside = [t for t in times if start <= t.at * NANO <= end]
    first, last = inside[0], inside[-1]
    scale = 1e3 / (len(played) * (last.at - first.at) * NANO / (end - start))
    each = {k: scale * (last.processes[k] - first.processes[k]) for k in first.processes}
    threads = {k: scale * (v - first.threads.get(k, 0.0)) for k, v in last.threads.items()}
    shown = ", ".join(f"{k} {v:.1f}" for k, v in sorted(threads.items(), key=lambda x: -x[1]) if v >= 0.3)
    got = sum(s in run.trajectories for s in played)
    return (f"| {rate:g} | {each['player']:.1f} | {each['pipeline']:.1f} | {each['client']:.1f} | "
            f"{each['pipeline'] * len(played) / max(got, 1):.1f} | {shown} |")


def table(columns: tuple[str, ...], rows: list[str]) -> list[str]:
    return ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns), *rows]


if __name__ == "__main__":
    raise SystemExit(main())
