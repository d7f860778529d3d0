"""What the live run published, read back from its bag: one `Shown` per exposure, and the numbers of the report."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from blur_motion_ros.body.skin import Skin
from blur_motion_ros.data.sequence import Sequence
from blur_motion_ros.evaluation.overlay import Shown
from blur_motion_ros.messages.stamps import nanoseconds
from blur_motion_ros.messages.trajectory import read_trajectory
from blur_motion_ros.types import DISTRUSTED, Status


@dataclass
class Run:
    """Messages of one run by shutter opening (ns), and the exposures that were played (ns, in order)."""

    played: list[int] = field(default_factory=list)
    closing: dict[int, int] = field(default_factory=dict)
    trajectories: dict[int, Any] = field(default_factory=dict)
    statuses: dict[int, dict[str, str]] = field(default_factory=dict)
    received: dict[int, int] = field(default_factory=dict)
    last_diagnostics: dict[str, dict[str, str]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)


def read_run(bag: Path) -> Run:
    """Read the bag of `demo.recorder`."""
    from rosbags.highlevel import AnyReader
    from rosbags.typesys import Stores, get_typestore

    run = Run()
    with AnyReader([bag], default_typestore=get_typestore(Stores.ROS2_KILTED)) as reader:
        for connection, received, data in reader.messages():
            run.counts[connection.topic] = run.counts.get(connection.topic, 0) + 1
            if connection.topic.endswith(("/mesh", "/skeleton", "/poses", "/joint_states_3d")):
                continue  # counted only
            _take(run, connection.topic, reader.deserialize(data, connection.msgtype), received)
    return run


def _take(run: Run, topic: str, msg: Any, received: int) -> None:
    stamp = nanoseconds(msg.header.stamp)
    if topic.endswith("/camera_info"):
        run.played.append(stamp)
    elif topic.endswith("/exposure"):
        run.closing[stamp] = nanoseconds(msg.time_ref)
    elif topic.endswith("/trajectory"):
        run.trajectories[stamp] = msg
        run.received[stamp] = received
    elif topic.endswith("/status"):
        run.statuses[stamp] = {v.key: v.value for v in msg.status[0].values}
    elif topic == "/diagnostics":
        for status in msg.status:
            run.last_diagnostics[status.name.rpartition(": ")[2]] = {v.key: v.value for v in status.values}


def shown_frames(run: Run, sequence: Sequence, skin: Skin) -> list[Shown | None]:
    """One entry per frame of the sequence: what was published for it, or None when nothing was."""
    out: list[Shown | None] = []
    for stamp, exposure in zip(run.played, sequence.exposures, strict=False):
        if stamp not in run.trajectories or stamp not in run.statuses:
            out.append(None)
            continue
        values = run.statuses[stamp]
        status = Status(int(values["status_bits"]))
        times, positions, rotations, linear, _ = read_trajectory(run.trajectories[stamp])
        if not len(times):
            out.append(Shown(None, None, None, None, status, exposure.open))
            continue
        inside = times <= exposure.duration + 1e-6
        betas = np.array(values["betas"].split(), float)
        meshes = tuple(skin.posed(betas, positions[inside][i], rotations[inside][i]) for i in (0, -1))
        out.append(Shown(positions[inside], np.linalg.norm(linear[inside], axis=-1), meshes, skin.faces, status,
                         exposure.open))
    return out


IN_NODE = "image in node -> published"


def latencies_ms(run: Run) -> dict[str, np.ndarray]:
    """Latency of every estimate in ms: in the node since the image came, and from shutter closing to a client."""
    inside = [float(v["latency_since_arrival_ms"]) for v in run.statuses.values()]
    whole = [(t - run.closing[s]) / 1e6 for s, t in run.received.items() if s in run.closing]
    return {IN_NODE: np.array(inside), "shutter closed -> received by client": np.array(whole)}


def report(run: Run, usage: Any, shown: list[Shown | None], sequence: Sequence, title: str) -> str:
    """`report.md`."""
    played, answered = len(run.played), len(run.trajectories)
    seconds = (run.played[-1] - run.played[0]) / 1e9 if played > 1 else float("nan")
    rate = usage.pace / seconds  # stamps are those of real time
    found = [s for s in shown if s is not None and s.joints is not None]
    lines = [f"# {title}", "", f"{sequence.camera.width}x{sequence.camera.height}, exposure "
             f"{1e3 * sequence.exposures[0].duration:.1f} ms, played {_pace_text(usage.pace)} over DDS, three "
             "processes.", "",
             "| what | value |", "|---|---|",
             f"| images played | {played} of {seconds:.2f} s = {rate * (played - 1):.2f} Hz |",
             f"| estimates received | {answered} = {rate * max(answered - 1, 0):.2f} Hz |",
             f"| images without an estimate (dropped) | {played - answered} |",
             f"| estimates with a body | {len(found)} |"]
    for name, values in latencies_ms(run).items():
        if len(values) and (usage.pace == 1 or name == IN_NODE):  # slower, the stamps are not on the wall clock
            p50, p90, p99 = np.percentile(values, (50, 90, 99))
            lines.append(f"| {name}, ms: p50 / p90 / p99 / max | {p50:.1f} / {p90:.1f} / {p99:.1f} / "
                         f"{values.max():.1f} |")
    fit = run.last_diagnostics.get("fit", {})
    lines += [f"| stage {k[6:-3]}, ms (last frame) | {float(v):.1f} |" for k, v in fit.items()
              if k.startswith("stage_") and k.endswith("_ms")]
    if usage.wall_s and usage.cpu_s:
        lines.append(f"| pipeline process | {100 * usage.cpu_s / usage.wall_s:.0f} % of one core, "
                     f"peak memory {usage.peak_mb:.0f} MB |")
    return "\n".join(lines + ["", *_body_lines(run, found), "", *_topic_lines(run)]) + "\n"


def _pace_text(pace: float) -> str:
    return "in real time" if pace == 1 else f"at {pace:.2f} of real time (stamps unchanged)"


def _body_lines(run: Run, found: list[Shown]) -> list[str]:
    if not found:
        return ["No body was found in any image."]
    trusted = [s for s in found if not s.status & DISTRUSTED]
    fastest = max(trusted or found, key=lambda s: s.speeds.max())
    among = f"of the {len(trusted)} frames that are trusted" if trusted else "no frame is trusted"
    flags: dict[str, int] = {}
    for values in run.statuses.values():
        for name in values["status"].split("|"):
            flags[name] = flags.get(name, 0) + 1
    rate = np.array([float(v["blur_rate"]) for v in run.statuses.values()])
    flag_text = ", ".join(f"{k} {n}" for k, n in sorted(flags.items()))
    return [f"Fastest joint: {fastest.speeds.max():.1f} m/s at {fastest.time:.2f} s ({among}). Median blur rate "
            f"{np.nanmedian(rate):.2f}.", "", f"Status flags: {flag_text}"]


def _topic_lines(run: Run) -> list[str]:
    return ["Recorded messages:", "", "| topic | messages |", "|---|---|",
            *(f"| `{topic}` | {n} |" for topic, n in sorted(run.counts.items()))]
