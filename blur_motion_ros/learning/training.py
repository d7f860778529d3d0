"""What the training commands share: their options, and a loop that an interruption does not change.

Every step draws its examples from generators seeded by (seed, step), and a checkpoint holds the rest. So a run that is
stopped anywhere and started again ends with the very numbers of one that was not (on the same device and thread count).
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from blur_motion_ros.learning.record import Scalars


def add_arguments(parser: argparse.ArgumentParser, *, out: Path, run: str, seed: int) -> None:
    """Options of every training command; out: where its weights go, run: folder of checkpoint and logs."""
    parser.add_argument("--mocap", type=Path, help="CMU subset npz (default: BLUR_MOTION_MOCAP)")
    parser.add_argument("--deepmimic", type=Path, help="folder with humanoid3d_*.txt (default: of pybullet_data)")
    parser.add_argument("--out", type=Path, default=out,
                        help=f"{out.suffix} file to write; a .json card is put beside it")
    parser.add_argument("--run", type=Path, default=Path("runs") / run,
                        help="folder of checkpoint, scalars.csv and TensorBoard events; goes on from what is there")
    parser.add_argument("--seed", type=int, default=seed)
    parser.add_argument("--device", default="auto", help="auto (a GPU where there is one), cpu or cuda")


def add_step_arguments(parser: argparse.ArgumentParser, *, steps: int, batch: int) -> None:
    """Length and batch of a gradient descent."""
    parser.add_argument("--steps", type=int, default=steps, help="optimiser steps")
    parser.add_argument("--batch", type=int, default=batch, help="examples per step")


def device(wanted: str = "auto") -> str:
    """'cuda' where one is there, else 'cpu'; ValueError when one is asked for and missing."""
    import torch
    found = torch.cuda.is_available()
    if wanted.startswith("cuda") and not found:
        raise ValueError(f"--device {wanted}: PyTorch {torch.__version__} finds no CUDA device; use cpu or auto")
    return ("cuda" if found else "cpu") if wanted == "auto" else wanted


class Trainee(Protocol):
    """What `Loop` drives. options: a dataclass, how it is trained; steps: how many there are to do."""

    options: Any
    steps: int
    where: str

    def update(self, step: int) -> dict[str, float]:
        """Do one step; every random number comes from (seed, step). Returns what to log."""
        ...

    def state(self) -> dict[str, Any]:
        """Everything that steps have changed: tensors, numbers, and dicts of them."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned."""
        ...


class Loop:
    """Runs a trainee to its last step with a progress bar, scalars and checkpoints; goes on from a checkpoint.

    folder: where `checkpoint.pt` and the logs lie. log, save: every how many steps. step: done so far; seconds: CPU
    time of these, over all interruptions. ValueError when the folder's checkpoint was made with other options (the
    number of steps may differ) or cannot be read.
    """

    def __init__(self, trainee: Trainee, folder: Path, log: int = 50, save: int = 250):
        self.trainee, self.folder, self.log, self.save_every = trainee, Path(folder), log, save
        self.step, self.seconds = 0, 0.0
        self.folder.mkdir(parents=True, exist_ok=True)
        self._resume()

    def run(self) -> float:
        """To the last step; returns CPU seconds."""
        from tqdm import trange
        steps = self.trainee.steps
        scalars = Scalars(self.folder, self.step)
        started, before = time.process_time(), self.seconds
        try:
            for step in trange(self.step, steps, initial=self.step, total=steps, mininterval=2, desc=self.folder.name):
                values = self.trainee.update(step)
                self.step, self.seconds = step + 1, before + time.process_time() - started
                if self.step % self.log == 0 or self.step == steps:
                    scalars.add(self.step, **values)
                if self.step % self.save_every == 0 or self.step == steps:
                    self.save()
        finally:
            scalars.close()
        return self.seconds

    def save(self) -> None:
        """Replace the checkpoint in one move."""
        import torch
        part = self.folder / "checkpoint.part"
        torch.save({"state": self.trainee.state(), "step": self.step, "seconds": self.seconds,
                    "options": json.dumps(asdict(self.trainee.options))}, part)
        part.replace(self.folder / "checkpoint.pt")

    def _resume(self) -> None:
        import torch
        path = self.folder / "checkpoint.pt"
        if not path.is_file():
            return
        try:
            saved = torch.load(path, map_location=self.trainee.where, weights_only=True)
            theirs, state = json.loads(saved["options"]), saved["state"]
        except Exception as error:  # pickle, zip and key errors alike: the file is not one of ours
            raise ValueError(f"{path} is no checkpoint of this command ({str(error).splitlines()[0]}); delete it or "
                             "choose another --run folder") from error
        ours = json.loads(json.dumps(asdict(self.trainee.options)))
        different = sorted(k for k in theirs.keys() | ours.keys() if theirs.get(k) != ours.get(k)
                           and k not in ("steps", "iterations"))
        if different:
            raise ValueError(f"{path} was made with other settings ({', '.join(different)}); choose another --run "
                             "folder or delete it")
        self.trainee.restore(state)
        self.step, self.seconds = saved["step"], saved["seconds"]
        print(f"resuming at step {self.step}")


def numpy_generator(seed: int, step: int) -> Any:
    """NumPy generator of one step."""
    import numpy as np
    return np.random.default_rng([seed, step])


def torch_generator(seed: int, step: int) -> Any:
    """PyTorch CPU generator of one step (streams of neighbouring steps are unrelated)."""
    import numpy as np
    import torch
    state = np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> np.uint64(1)
    return torch.Generator().manual_seed(int(state))
