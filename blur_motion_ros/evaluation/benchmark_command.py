"""`blur-motion benchmark DATA...`: our method and the baselines over sequences with ground truth, in one table."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from blur_motion_ros import config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("data", nargs="*", metavar="DATA", help="sequence folders with gt.npz, or folders of such")
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="which methods (default: all; --list shows them)")
    parser.add_argument("--out", default="benchmark", metavar="DIR", help="report, figures, predictions (./benchmark)")
    parser.add_argument("--reuse", action="store_true", help="keep predictions that are already in DIR/predictions")
    parser.add_argument("--no-figures", action="store_true", help="tables only")
    parser.add_argument("--update", metavar="FILE", help="put the tables between the marks of a document")
    parser.add_argument("--list", action="store_true", help="list the methods and stop")
    config.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run and report; prints the Markdown tables."""
    from blur_motion_ros.evaluation import benchmark, methods, report
    from blur_motion_ros.evaluation.ground_truth import evaluated_folders

    if args.list:
        for m in methods.methods().values():
            print(f"{m.name:<24}{m.doc}{'' if m.causal else ' (looks ahead)'}")
        return 0
    if not args.data:
        raise ValueError("no DATA given; name sequence folders with gt.npz")
    chosen, folders, out = methods.select(args.methods), evaluated_folders(args.data), Path(args.out)
    result = benchmark.run(folders, chosen, config.from_arguments(args), out / "predictions", args.reuse,
                           lambda text: print(text, file=sys.stderr, flush=True),
                           config.from_arguments(args, offline=True))
    path = report.write_all(result, out, command_line(args))
    print(path.read_text())
    if args.update:
        report.update(Path(args.update), path.read_text())
    if not args.no_figures and _matplotlib():
        from blur_motion_ros.evaluation.figures import write_figures

        write_figures(result, out / "figures")
    print(f"written to {out}", file=sys.stderr)
    return 0


def _matplotlib() -> bool:
    import importlib.util

    found = importlib.util.find_spec("matplotlib") is not None
    if not found:
        print("no figures: they need matplotlib (pip install matplotlib)", file=sys.stderr)
    return found


def command_line(args: argparse.Namespace) -> str:
    """What was asked, with folder names only (paths differ between machines)."""
    words = ["blur-motion benchmark", *(Path(d).name for d in args.data)]
    words += ["--methods", *args.methods] if args.methods else []
    words += [f"--set {a}" for a in args.assignments]
    return " ".join(words)
