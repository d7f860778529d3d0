"""Plays a sequence through the live pipeline: player, pipeline and recorder in three processes over DDS."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_S = 600.0  # a first start compiles for half a minute of processor time; a process that has ended is told at once
STOP_S = 30.0
LAST_S = 2.0  # after the last image, for the last estimates


@dataclass(frozen=True)
class Usage:
    """What the pipeline process needed while the recording played, `pace` times as fast as it was taken."""

    cpu_s: float
    wall_s: float
    peak_mb: float
    pace: float = 1.0


@dataclass(frozen=True)
class Listening:
    """A pipeline and a recorder that wait for images, and how another process joins them."""

    pipeline: subprocess.Popen
    recorder: subprocess.Popen
    environment: dict[str, str]
    log_folder: Path

    def play(self, sequence: Path, pace: float = 1.0) -> None:
        """Play `sequence` to its end. RuntimeError when the player fails."""
        with self.playing(sequence, pace) as player:
            player.wait()

    @contextmanager
    def playing(self, sequence: Path, pace: float = 1.0, loop: bool = False) -> Iterator[subprocess.Popen]:
        """A player of `sequence`, which begins when all listen to what they should hear; ended on leaving.
        RuntimeError when it has failed by then."""
        command, log = ["blur_motion_ros.nodes", "player", "--ros-args"], self.log_folder / "player.log"
        for parameter in (f"input:={sequence.resolve()}", f"pace:={float(pace)}", "wait_for_info:=2", "settle:=2.0",
                          f"loop:={str(loop).lower()}"):
            command += ["-p", parameter]
        with process(command, self.environment, log) as player:
            yield player
            if player.poll():
                raise RuntimeError(f"the player failed: {_last_line(log)}")


@contextmanager
def listening(bag: Path, log_folder: Path, assignments: list[str], topics: tuple[str, ...] = ()
              ) -> Iterator[Listening]:
    """A pipeline with these settings and a recorder to `bag` (replaced), ready for images; ended after the last
    estimates. topics: what is recorded (none: every output). RuntimeError when a part fails."""
    variables = environment()
    shutil.rmtree(bag, ignore_errors=True)
    Path(str(bag) + ".ready").unlink(missing_ok=True)
    parameters = [w for a in assignments for w in ("-p", a.replace("=", ":=", 1))]
    with (process(["blur_motion_ros.demo.recorder", str(bag), *topics], variables, log_folder / "recorder.log",
                  interrupt=True) as recorder,
          process(["blur_motion_ros.nodes", "pipeline", "--ros-args", *parameters], variables,
                  log_folder / "pipeline.log", interrupt=True) as pipeline):
        wait_ready(bag, pipeline, log_folder / "pipeline.log")
        yield Listening(pipeline, recorder, variables, log_folder)
        time.sleep(LAST_S)


def play_live(sequence: Path, bag: Path, log_folder: Path, assignments: list[str], say: Callable[[str], None],
              pace: float = 1.0) -> Usage:
    """Play `sequence` through the pipeline, recording to `bag` (replaced). RuntimeError when a part fails.

    pace: speed of playing; 1 is real time. The stamps are those of real time at any pace.
    """
    say("starting the pipeline")
    with listening(bag, log_folder, assignments) as parts:
        say("playing in real time" if pace == 1 else f"playing at {pace:.2f} of real time")
        pid = parts.pipeline.pid
        before, start = cpu_seconds(pid), time.monotonic()
        parts.play(sequence, pace)
        return Usage(cpu_seconds(pid) - before, time.monotonic() - start, memory_mb(pid, "VmHWM"), pace)


@contextmanager
def process(module: list[str], environment: dict[str, str], log: Path, interrupt: bool = False
             ) -> Iterator[subprocess.Popen]:
    """Run `python -m module` with its output in `log`; `interrupt`: end it with SIGINT and require exit status 0."""
    with open(log, "w") as out:
        child = subprocess.Popen([sys.executable, "-m", *module], env=environment, stdout=out,
                                   stderr=subprocess.STDOUT)
        try:
            yield child
        finally:
            if child.poll() is None:
                child.send_signal(signal.SIGINT)
            try:
                status = child.wait(STOP_S)
            except subprocess.TimeoutExpired:
                child.kill()
                status = child.wait()
    if interrupt and status != 0:
        raise RuntimeError(f"{module[0]} ended with status {status}: {_last_line(log)}")


def environment() -> dict[str, str]:
    """An own DDS domain on this machine only, one thread per numeric library, and the packaged middleware profile."""
    from blur_motion_ros.nodes import specs

    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH", "")) if p)
    return {**os.environ, **specs.environment(), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
            "ROS_DOMAIN_ID": str(random.randint(20, 100)), "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


def wait_ready(bag: Path, pipeline: subprocess.Popen, log: Path) -> None:
    """Wait until the recorder has heard that the pipeline waits for images. RuntimeError when it never does."""
    ready, end = Path(str(bag) + ".ready"), time.monotonic() + START_S
    while not ready.exists():
        failed = pipeline.poll() is not None or "cannot start" in log.read_text(errors="replace")
        if failed or time.monotonic() > end:
            raise RuntimeError(f"the pipeline does not get ready: {_last_line(log)}")
        time.sleep(0.1)


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else f"see {log}"


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, s (0 where /proc is missing)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def thread_seconds(pid: int) -> dict[str, float]:
    """User and system time of a process's threads by name, s (empty where /proc is missing)."""
    out: dict[str, float] = {}
    for task in Path(f"/proc/{pid}/task").glob("*/stat"):
        try:
            head, _, rest = task.read_text().rpartition(")")
        except OSError:  # it has ended
            continue
        fields, name = rest.split(), head.partition("(")[2]
        out[name] = out.get(name, 0.0) + (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return out


def memory_mb(pid: int, entry: str = "VmRSS") -> float:
    """Resident size of a process now, or with 'VmHWM' its peak, MB (0 where /proc is missing)."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(entry)), 0.0)
