"""Threads of the linear algebra libraries: one, unless the user says otherwise.

The matrices here are small. With a thread per core the libraries spin while they wait for each other, which on a busy
machine costs tens of times the computing itself. The variables are read when NumPy is first imported.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from pathlib import Path

VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


SWITCH_S = 2e-4


def limit() -> None:
    """Set the variables that are not set yet. Call before NumPy is imported."""
    for name in VARIABLES:
        os.environ.setdefault(name, "1")


def share() -> None:
    """Hand the interpreter over sooner between threads of one process.

    The kernels release it for fractions of a millisecond; with Python's 5 ms a thread that comes back from one waits
    many times as long for the other thread as its own work takes. For the same reason kernels of less than some 20 us
    keep it (no `nogil`): each release may cost a wait of `SWITCH_S`.
    """
    sys.setswitchinterval(SWITCH_S)


def settle() -> None:
    """Call when everything is loaded, before work that must be in time.

    Python's full garbage collection then no longer goes through all that was loaded (several 10 ms with the interpreter
    locked, every few seconds), and OpenCV uses the calling thread alone: there is a thread per core already.
    """
    import cv2

    cv2.setNumThreads(1)
    gc.collect()
    gc.freeze()


def name(text: str) -> None:
    """Give the calling thread this name (15 characters) in `top -H` and /proc too; Python tells it to nobody."""
    try:
        Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text(text)
    except OSError:  # no /proc: only the name is missing
        pass
