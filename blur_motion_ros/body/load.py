"""The body to work with: the free one of this package or an SMPL file, at a level of detail."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal

from blur_motion_ros.assets import packaged
from blur_motion_ros.body.error import BodyError
from blur_motion_ros.body.levels import cached_level
from blur_motion_ros.body.model import BodyModel, read_body
from blur_motion_ros.body.texture_layout import with_layout

LevelOfDetail = Literal["fit", "display", "full"]


def load_body(path: str | Path | None = None, lod: LevelOfDetail = "fit", uv: str | Path | None = None) -> BodyModel:
    """The free body (`path` None or '') or the SMPL file at `path` (.npz, .pkl), at a level of detail.

    "full" has every vertex; "display" about 4000 faces; "fit" about 1500. Levels of an official file are made on
    first use (some seconds) and kept in the cache folder. uv: an .obj with the texture coordinates of that file's
    mesh (`texture_layout`; the free body has its own). The result is shared: the arrays are read-only.
    Raises BodyError.
    """
    if lod not in ("fit", "display", "full"):
        raise BodyError(f"lod: unknown level of detail '{lod}'; choose fit, display or full")
    if not path:
        return _load_cached(str(packaged(f"body_{lod}.npz")), 0)
    path = Path(path).expanduser()
    if not path.is_file():
        raise BodyError(f"body model {path} does not exist; give a .pkl or .npz in SMPL format, or leave the path "
                        "empty for the free body")
    uv = Path(uv).expanduser() if uv else None
    if uv is not None and not uv.is_file():
        raise BodyError(f"texture layout {uv} does not exist; give the .obj of {path}, or leave body.uv empty")
    if lod == "full":
        body = _load_cached(str(path), path.stat().st_mtime_ns)
        if uv is None:
            return body
        return with_layout(body, uv)
    return cached_level(path, lod, uv)


@lru_cache(maxsize=8)
def _load_cached(path: str, _modified: int) -> BodyModel:
    return read_body(path)
