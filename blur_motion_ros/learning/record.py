"""What a training run leaves behind: scalars while it runs (TensorBoard where installed), a card beside the weights."""

from __future__ import annotations

import hashlib
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any


class Scalars:
    """Append scalars to `folder`: `scalars.csv` always, TensorBoard event files where the package is installed.

    step: where the run goes on; what an interrupted run had logged beyond it is dropped.
    """

    def __init__(self, folder: Path, step: int = 0):
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "scalars.csv"
        kept = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        kept = [line for line in kept if line.split(",")[0].isdigit() and int(line.split(",")[0]) <= step]
        path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        self._csv = path.open("a", encoding="utf-8")
        self._board = _board(folder, step)

    def add(self, step: int, **values: float) -> None:
        """Record named values at a step."""
        for name, value in values.items():
            self._csv.write(f"{step},{name},{float(value):.6g}\n")
            if self._board is not None:
                self._board.add_scalar(name, float(value), step)
        self._csv.flush()

    def close(self) -> None:
        self._csv.close()
        if self._board is not None:
            self._board.close()


def _board(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1)


def write_card(weights: Path, *, seed: int, seconds: float, metrics: dict[str, Any], settings: dict[str, Any]) -> Path:
    """Write `weights` with suffix .json: how it was made, what it reached, its SHA-256."""
    card = {"file": weights.name, "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
            "bytes": weights.stat().st_size, "seed": seed, "command": "blur-motion " + " ".join(_command()),
            "finished": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), "cpu_seconds": round(seconds, 1),
            "python": platform.python_version(), "settings": settings, "metrics": metrics}
    path = weights.with_suffix(".json")
    path.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    return path


def _command() -> list[str]:
    """The command line without the folders of this machine."""
    return [Path(a).name if "/" in a else a for a in sys.argv[1:] if a != "--debug"]

