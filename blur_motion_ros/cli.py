"""`blur-motion <command>`: one table of commands; a command's module is imported only when it is used.

A command module has `add_arguments(parser)` and `run(args) -> int` (the exit status).
"""

from __future__ import annotations

import argparse
import importlib
import sys
from types import ModuleType

from blur_motion_ros import kernel_cache, threads

# name -> (module, one-line help)
COMMANDS: dict[str, tuple[str, str]] = {
    "fit": ("blur_motion_ros.fit_command", "fit a recording offline, without ROS: motion.npz and an overlay video"),
    "demo": ("blur_motion_ros.demo.command", "the demo on a real person, live over ROS 2, with report and pictures"),
    "play": ("blur_motion_ros.nodes.play_command", "publish a recording as a ROS camera would"),
    "assets": ("blur_motion_ros.assets.command", "fetch the pretrained pose networks and the demo video"),
    "synth": ("blur_motion_ros.data.synth_command", "make blurred training or test sequences from motion capture"),
    "train": ("blur_motion_ros.learning.train_command", "train the learned parts"),
    "export": ("blur_motion_ros.learning.export_command", "export trained networks for the pipeline"),
    "eval": ("blur_motion_ros.evaluation.eval_command", "score motion.npz files against ground truth"),
    "benchmark": ("blur_motion_ros.evaluation.benchmark_command", "accuracy and speed tables"),
}

# (command, first word after it) -> module: commands that mean something else for one subject
SUBJECTS = {("eval", "vibe"): "blur_motion_ros.learning.eval_command"}


def main(argv: list[str] | None = None) -> int:
    """Entry point of the console script. Errors of the input are one line on stderr, exit status 1."""
    threads.limit()
    kernel_cache.ensure()
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv
    argv = [a for a in argv if a != "--debug"]
    parser = argparse.ArgumentParser(prog="blur-motion", description="Human motion from motion blur.",
                                     formatter_class=argparse.RawDescriptionHelpFormatter, epilog=_table())
    parser.add_argument("--version", action="version", version=_version())
    parser.add_argument("command", choices=sorted(COMMANDS), metavar="COMMAND")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    first = parser.parse_args(argv)
    try:
        subject = SUBJECTS.get((first.command, *first.arguments[:1]))
        name = f"{first.command} {first.arguments[0]}" if subject else first.command
        module = _load(subject or COMMANDS[first.command][0])
        sub = argparse.ArgumentParser(prog=f"blur-motion {name}", description=COMMANDS[first.command][1])
        module.add_arguments(sub)
        return int(module.run(sub.parse_args(first.arguments[1:] if subject else first.arguments)) or 0)
    except (ValueError, OSError, RuntimeError) as error:
        if debug:
            raise
        print(f"blur-motion {first.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _load(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name:
            raise RuntimeError("this command is not part of this installation") from error
        raise RuntimeError(f"the Python package '{error.name}' is missing; run './run setup'") from error


def _table() -> str:
    lines = [f"  {name:<10} {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(["commands:", *lines, "", "'blur-motion COMMAND --help' tells the options of one command; "
                                                      "--debug shows tracebacks."])


def _version() -> str:
    from blur_motion_ros import __version__

    return __version__


if __name__ == "__main__":
    raise SystemExit(main())
