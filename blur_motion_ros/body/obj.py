"""Wavefront OBJ: the one format that carries a texture layout everywhere. Reading layouts, writing textured meshes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from blur_motion_ros.body.error import BodyError
from blur_motion_ros.body.mesh import vertex_normals


def read_obj(path: str | Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """vertices [V,3], faces [F,3], uv [T,2] (v up) and uv_faces [F,3] of a triangle mesh with texture coordinates.

    BodyError names the file, the line and what is wrong: no `vt`, polygons that are not triangles, indices out of
    range.
    """
    path = Path(path).expanduser()
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BodyError(f"texture layout {path} cannot be read: {error}") from None
    vertices, uv, corners = [], [], []
    for number, line in enumerate(lines, 1):
        kind, *words = line.split() or [""]
        try:
            if kind == "v":
                vertices.append([float(w) for w in words[:3]])
            elif kind == "vt":
                uv.append([float(w) for w in words[:2]])
            elif kind == "f":
                corners.append(_corners(words))
        except (ValueError, IndexError):
            raise BodyError(f"{path}, line {number}: '{line.strip()}' is not a number list or a triangle "
                            "v/vt v/vt v/vt") from None
    if not (vertices and uv and corners):
        raise BodyError(f"{path}: has {len(vertices)} vertices, {len(uv)} texture coordinates and {len(corners)} faces;"
                        " a texture layout needs all three")
    index = np.array(corners, np.int64)
    index = np.where(index < 0, index + [len(vertices), len(uv)], index - 1)  # negative counts from the end
    if index.min() < 0 or (index.max((0, 1)) >= [len(vertices), len(uv)]).any():
        raise BodyError(f"{path}: a face refers to a vertex or texture coordinate that is not there")
    faces, uv_faces = index[..., 0].astype(np.int32), index[..., 1].astype(np.int32)
    return np.array(vertices, float), faces, np.array(uv, float), uv_faces


def write_obj(path: str | Path, vertices: np.ndarray, faces: np.ndarray, uv: np.ndarray, uv_faces: np.ndarray,
              texture: str = "texture.png") -> None:
    """Write PATH.obj and, beside it, PATH.mtl that names the image file `texture`.

    vertices [V,3] m; faces [F,3]; uv [T,2] (v up); uv_faces [F,3]. Coordinates are written as they are given.
    """
    path = Path(path)
    normals = vertex_normals(np.asarray(vertices, float), faces)
    lines = [f"mtllib {path.with_suffix('.mtl').name}", "o body"]
    lines += ["v {:.6f} {:.6f} {:.6f}".format(*v) for v in np.asarray(vertices).tolist()]
    lines += ["vt {:.6f} {:.6f}".format(*t) for t in np.asarray(uv).tolist()]
    lines += ["vn {:.4f} {:.4f} {:.4f}".format(*n) for n in normals.tolist()]
    lines += ["usemtl body", "s 1"]
    for f, t in zip((np.asarray(faces) + 1).tolist(), (np.asarray(uv_faces) + 1).tolist(), strict=True):
        lines.append("f " + " ".join(f"{v}/{c}/{v}" for v, c in zip(f, t, strict=True)))
    path.write_text("\n".join(lines) + "\n")
    path.with_suffix(".mtl").write_text(f"newmtl body\nKa 0 0 0\nKd 1 1 1\nKs 0 0 0\nillum 1\nmap_Kd {texture}\n")


def _corners(words: list[str]) -> list[list[int]]:
    if len(words) != 3:
        raise ValueError
    pairs = [word.split("/") for word in words]
    return [[int(pair[0]), int(pair[1])] for pair in pairs]
