"""Threads of the linear algebra libraries: one, unless the user says otherwise.

The matrices here are small. With a thread per core the libraries spin while they wait for each other, which on a busy
machine costs tens of times the computing itself. The variables are read when NumPy is first imported.
"""

from __future__ import annotations

import os

VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def limit() -> None:
    """Set the variables that are not set yet. Call before NumPy is imported."""
    for name in VARIABLES:
        os.environ.setdefault(name, "1")
