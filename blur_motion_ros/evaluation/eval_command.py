"""`blur-motion eval --data DATA... --pred DIR`: score motion files (`DIR/SEQUENCE.npz`) against ground truth."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("--data", nargs="+", required=True, metavar="DIR", help="sequence folders with gt.npz")
    parser.add_argument("--pred", required=True, metavar="DIR", help="folder of SEQUENCE.npz (as `fit` writes)")
    parser.add_argument("--json", metavar="FILE", help="also write every metric as JSON")
    parser.add_argument("--report", metavar="DIR", help="also write report.md, results.csv and figures")


def run(args: argparse.Namespace) -> int:
    """Print one line per sequence and the mean."""
    from blur_motion_ros.evaluation import benchmark, metrics, report
    from blur_motion_ros.evaluation.ground_truth import evaluated_folders, read_ground_truth
    from blur_motion_ros.evaluation.predictions import read_prediction

    folders = [f for f in evaluated_folders(args.data) if (Path(args.pred) / f"{f.name}.npz").is_file()]
    if not folders:
        raise ValueError(f"{args.pred} holds no SEQUENCE.npz for any sequence of {', '.join(args.data)}")
    results = [benchmark.score("prediction", read_prediction(Path(args.pred) / f"{f.name}.npz"), read_ground_truth(f),
                               benchmark.group_of(f.name)) for f in folders]
    table = {r.sequence: r.means for r in results} | {"mean": metrics.overall(r.means for r in results)}
    print(text_table(table))
    if args.json:
        Path(args.json).write_text(json.dumps(table, indent=1))
    if args.report:
        from blur_motion_ros.evaluation.figures import write_figures

        whole = benchmark.Benchmark(tuple(results), {f.name: f for f in folders})
        report.write_all(whole, Path(args.report), "blur-motion eval")
        write_figures(whole, Path(args.report) / "figures")
    return 0


def text_table(table: dict[str, dict[str, float]]) -> str:
    """Columns of numbers for a terminal, ten metrics at a time."""
    from blur_motion_ros.evaluation.metrics import COLUMNS

    width = max(len(n) for n in table) + 1
    parts = []
    for start in range(0, len(COLUMNS), 11):
        columns = COLUMNS[start:start + 11]
        lines = [" " * width + " ".join(f"{c:>10s}" for c in columns)]
        lines += [f"{name:<{width}s}" + " ".join(f"{row[c]:10.3f}" for c in columns) for name, row in table.items()]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)
