"""A place for compiled kernels where numba finds none: without one, importing a module with kernels would fail.

Numba keeps them in __pycache__ beside each module, else in the user's cache folder (`NUMBA_CACHE_DIR`: there).
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

VARIABLE = "NUMBA_CACHE_DIR"


def ensure() -> None:
    """In a read-only installation of a user without a home: a folder of this process (and those it starts), so that
    everything works and is compiled anew each time. Call before a module with kernels is imported."""
    if os.environ.get(VARIABLE) or os.access(Path(__file__).parent, os.W_OK) or _writable(_user_cache()):
        return
    os.environ[VARIABLE] = tempfile.mkdtemp(prefix="blur_motion_ros_")


def _user_cache() -> Path:
    """Where numba looks next (appdirs' user_cache_dir)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "numba"


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
