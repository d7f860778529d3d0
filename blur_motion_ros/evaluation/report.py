"""A benchmark written down: Markdown, CSV (one line per exposure), JSON."""

from __future__ import annotations

import csv
import datetime
import json
import math
import os
import platform
from collections.abc import Iterable
from pathlib import Path

from blur_motion_ros.evaluation import metrics
from blur_motion_ros.evaluation.benchmark import BLUR_EDGES, Benchmark

MAIN_COLUMNS = ("mpjpe", "pa", "pa_exp", "root", "vel", "acc", "pck50", "auc", "reproj", "dir_acc", "best_mpjpe",
                "missing")
BINNED = ("mpjpe", "pa", "root", "vel")
LOWER_IS_WORSE = ("pck50", "pck150", "auc", "dir_acc")


def write_all(benchmark: Benchmark, folder: Path, command: str) -> Path:
    """Write results.json, results.csv and report.md into `folder`; returns the report."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(as_json(benchmark, command), indent=1) + "\n")
    write_csv(benchmark, folder / "results.csv")
    report = folder / "report.md"
    report.write_text(markdown(benchmark, command))
    return report


def markdown(benchmark: Benchmark, command: str) -> str:
    """The tables: overall, per group, by blur rate, per sequence, calibration; with command, machine and date."""
    lines = ["# Benchmark", "", f"`{command}`", "", f"{machine()}, {datetime.date.today().isoformat()}. "
             f"{len(benchmark.sequences)} sequences. Columns: `evaluation/metrics.py`. Best in bold.", "",
             "## Overall (mean over sequences)", "", *overall_table(benchmark)]
    for metric in BINNED:
        lines += ["", f"## {metric} ({metrics.UNITS[metric]}) by blur rate", "", *binned_table(benchmark, metric)]
    for metric in ("mpjpe", "vel"):
        lines += ["", f"## {metric} ({metrics.UNITS[metric]}) per sequence", "", *sequence_table(benchmark, metric)]
    pictures = picture_table(benchmark)
    if pictures:
        lines += ["", "## Pictures: the motion rendered again", "", *pictures]
    surfaces = surface_table(benchmark)
    if surfaces:
        lines += ["", "## Surface", "", *surfaces]
    calibrated = calibration_table(benchmark)
    if calibrated:
        lines += ["", "## Calibration of the stated covariance", "", *calibrated]
    return "\n".join(lines) + "\n"


BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"


def update(document: Path, tables: str) -> None:
    """Replace what stands between the marks BEGIN and END of a document. ValueError if it has no such marks."""
    text = document.read_text() if document.is_file() else ""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{document} has no lines '{BEGIN}' and '{END}'")
    body = tables.partition("\n")[2].strip()  # without the title
    document.write_text(f"{before}{BEGIN}\n\n{body}\n\n{END}{after}")


def overall_table(benchmark: Benchmark) -> list[str]:
    """One row per method."""
    rows = {m: benchmark.overall(m) for m in benchmark.methods}
    true_speed = metrics.finite_mean([rows[m]["vel_gt"] for m in rows])
    columns = [[rows[m][c] for m in rows] for c in MAIN_COLUMNS]
    header = [f"{c} {metrics.UNITS[c]}".strip() for c in MAIN_COLUMNS] + ["ms/frame"]
    cells = [_marked(values, c in LOWER_IS_WORSE) for values, c in zip(columns, MAIN_COLUMNS, strict=True)]
    cells.append([_number(1e3 * metrics.finite_mean([r.seconds for r in benchmark.of(m)])) for m in rows])
    lines = [[m, *values] for m, values in zip(rows, zip(*cells, strict=True), strict=True)]
    table = _table(["method", *header], lines)
    return [*table, "", f"True mean speed (error of predicting no motion): {true_speed:.2f} m/s."]


def binned_table(benchmark: Benchmark, metric: str) -> list[str]:
    """One row per method, one column per blur-rate bin."""
    values = {m: benchmark.binned(m, metric) for m in benchmark.methods}
    counts = next(iter(values.values()))[1]
    header = [f"{a:g}-{b:g} ({n})" for a, b, n in zip(BLUR_EDGES[:-1], BLUR_EDGES[1:], counts, strict=True)]
    cells = [_marked([values[m][0][i] for m in values]) for i in range(len(header))]
    return _table(["method", *header], [[m, *row] for m, row in zip(values, zip(*cells, strict=True), strict=True)])


def sequence_table(benchmark: Benchmark, metric: str) -> list[str]:
    """One row per sequence, one column per method."""
    found = {(r.sequence, r.method): r.means[metric] for r in benchmark.results}
    rates = {r.sequence: metrics.finite_mean(r.blur_rate) for r in benchmark.results}
    rows = [[f"{s} ({rates[s]:.2f})", *_marked([found.get((s, m), math.nan) for m in benchmark.methods])]
            for s in benchmark.sequences]
    return _table(["sequence (blur rate)", *benchmark.methods], rows)


def picture_table(benchmark: Benchmark) -> list[str]:
    """Agreement with the pictures of the methods that render; [] if none does."""
    rows = []
    for method in benchmark.methods:
        values = [metrics.finite_mean([getattr(r, k) for r in benchmark.of(method)]) for k in ("psnr", "alpha_iou")]
        if math.isfinite(values[0]):
            rows.append([method, *map(_number, values)])
    return _table(["method", "PSNR of the blurred body (dB)", "soft IoU of the average silhouette"], rows) if rows \
        else []


def surface_table(benchmark: Benchmark) -> list[str]:
    """PVE of the methods that have a body, over the sequences whose truth has its mesh; [] if there is none."""
    found = {m: [r.pve for r in benchmark.of(m) if math.isfinite(r.pve)] for m in benchmark.methods}
    rows = [[m, _number(metrics.finite_mean(values)), str(len(values))] for m, values in found.items() if values]
    return _table(["method", "PVE mm", "sequences"], rows) if rows else []


def calibration_table(benchmark: Benchmark) -> list[str]:
    """Normalised errors of the methods that state a covariance; [] if none does."""
    rows = []
    for method in benchmark.methods:
        found = [r.calibration for r in benchmark.of(method) if r.calibration is not None and r.calibration.count]
        if found:
            rows.append([method, *(_number(metrics.finite_mean([getattr(c, k) for c in found]))
                                   for k in ("nees", "plane", "depth"))])
    if not rows:
        return []
    return [*_table(["method", "normalised error squared (honest: 1)", "image plane", "depth"], rows), "",
            "Joints of the truth are bone heads of another body model; 1-3 cm of difference counts as error."]


def as_json(benchmark: Benchmark, command: str) -> dict:
    """Everything but the per-exposure rows, with NaN as null."""
    out = {"command": command, "machine": machine(), "date": datetime.date.today().isoformat(),
           "blur_edges": list(BLUR_EDGES), "methods": {}}
    for m in benchmark.methods:
        results = benchmark.of(m)
        out["methods"][m] = {
            "overall": _plain(benchmark.overall(m)),
            "groups": {g: _plain(metrics.overall(r.means for r in results if r.group == g))
                       for g in sorted({r.group for r in results})},
            "sequences": {r.sequence: _plain(r.means) for r in results},
            "by_blur_rate": {c: [_finite(v) for v in benchmark.binned(m, c)[0]] for c in BINNED},
            "exposures_in_bin": benchmark.binned(m, "mpjpe")[1].tolist(),
            "error_along_exposure_mm": {r.sequence: [_finite(v) for v in r.along] for r in results},
            "pve_mm": _finite(metrics.finite_mean([r.pve for r in results])),
            "psnr_db": _finite(metrics.finite_mean([r.psnr for r in results])),
            "alpha_iou": _finite(metrics.finite_mean([r.alpha_iou for r in results])),
            "seconds_per_frame": _finite(metrics.finite_mean([r.seconds for r in results]))}
    return out


def write_csv(benchmark: Benchmark, path: Path) -> None:
    """One line per method, sequence and exposure."""
    names = [c for c in metrics.COLUMNS if c in benchmark.results[0].rows]
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["method", "sequence", "group", "exposure", "blur_rate", *names])
        for r in benchmark.results:
            for i, rate in enumerate(r.blur_rate):
                writer.writerow([r.method, r.sequence, r.group, i, f"{rate:.4f}",
                                 *(f"{r.rows[c][i]:.6g}" if c in r.rows else "" for c in names)])


def machine() -> str:
    """What it ran on, in words."""
    model = platform.processor() or platform.machine()
    try:
        text = Path("/proc/cpuinfo").read_text()
        model = next((line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")),
                     model)
    except OSError:
        pass
    return f"{os.cpu_count()} cores of {model}, Python {platform.python_version()}"


def _table(header: list[str], rows: Iterable[list[str]]) -> list[str]:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def _marked(values: list[float], higher_is_better: bool = False) -> list[str]:
    finite = [v for v in values if math.isfinite(v)]
    best = (max if higher_is_better else min)(finite) if len(finite) > 1 else None
    return [f"**{_number(v)}**" if v == best else _number(v) for v in values]


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _plain(values: dict[str, float]) -> dict[str, float | None]:
    return {k: _finite(v) for k, v in values.items()}
