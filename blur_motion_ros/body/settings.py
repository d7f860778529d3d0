"""Settings of the body model."""

from __future__ import annotations

from dataclasses import dataclass

from blur_motion_ros.settings import setting


@dataclass(frozen=True)
class BodySettings:
    """Which body is fitted."""

    path: str = setting("", "an official SMPL file (.pkl or .npz); empty: the free body that comes with the package")
    uv: str = setting("", "texture coordinates of that file's mesh (.obj); empty: a generated atlas (the free body has "
                      "its own)")
