"""What every matting method offers, and how one is chosen."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Protocol

import numpy as np

from blur_motion_ros.matting.settings import MattingSettings
from blur_motion_ros.types import Matte


class Matter(Protocol):
    """Separates the person from a known background."""

    def matte(self, image: np.ndarray, plate: np.ndarray, plate_sigma: np.ndarray | float | None = None,
              person_mask: np.ndarray | None = None) -> Matte:
        """Alpha of the person in `image` [H, W, 3] float32 linear over `plate` [H, W, 3]; any size, crop or frame.

        plate_sigma: [H, W] expected noise of image - plate.  person_mask: [H, W] soft and coarse, or None.
        """
        ...


class Matters:
    """The matter of every exposure. One that is named by the settings is loaded at once, so that a bad file is told."""

    def __init__(self, settings: MattingSettings | None = None):
        self.settings = settings or MattingSettings()
        self._loaded: dict[str, Matter] = {}
        if self.settings.method != "auto":
            self._loaded[self.settings.method] = make_matter(self.settings)

    def of(self, exposure: float, whole: bool = True) -> Matter:
        """The matter for exposures of so many s. A network that is first needed now is loaded now.

        whole: the background is known everywhere. The network has no notion of a plate with holes.
        """
        method = self.settings.method
        if method == "auto":
            method = "network" if whole and exposure >= self.settings.long_exposure else "difference"
        if method not in self._loaded:
            self._loaded[method] = _available(replace(self.settings, method=method))
        return self._loaded[method]


def make_matter(settings: MattingSettings | None = None) -> Matter:
    """The matter that `settings.method` names (auto: the difference, which serves every exposure; `Matters` tells long
    ones apart); loads a network only when asked for one."""
    settings = settings or MattingSettings()
    if settings.method == "network":
        from blur_motion_ros.matting.network import NetworkMatter

        return NetworkMatter(settings)
    if settings.method == "fused":
        from blur_motion_ros.matting.fused import FusedMatter

        return FusedMatter(settings)
    from blur_motion_ros.matting.difference import DifferenceMatter

    return DifferenceMatter(settings)


def _available(settings: MattingSettings) -> Matter:
    """What `auto` has chosen; the difference where the package's own network cannot run because nothing runs it."""
    try:
        return make_matter(settings)
    except ValueError as error:
        if settings.model:
            raise
        warnings.warn(f"long exposures are matted by background difference: {error}", stacklevel=2)
        return make_matter(replace(settings, method="difference"))
