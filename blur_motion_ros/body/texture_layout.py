"""Texture coordinates for bodies that come without: from an .obj of the same mesh, or an atlas of flat charts.

The free body carries MakeHuman's layout, and its levels of detail keep it. Official SMPL files hold none: their layout
is published as an .obj (`body.uv`). Without that, `atlas` cuts the skin into charts that lie flat without folds.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from blur_motion_ros.body.error import BodyError
from blur_motion_ros.body.mesh import face_normals
from blur_motion_ros.body.model import BodyModel
from blur_motion_ros.body.obj import read_obj

FLAT = 0.5  # cosine of the largest angle between a chart's faces and its plane: no face is squeezed below half
SLANTED = 0.2  # the same for faces that would otherwise be crumbs of their own
CRUMB = 12  # faces of a chart that is rather given to its neighbours
MARGIN = 0.006  # share of the texture's side left free around each chart


def with_layout(body: BodyModel, path: str | Path) -> BodyModel:
    """`body` with the texture coordinates of the .obj at `path`, which must have the same vertices and faces.

    The order of the faces and of their corners may differ. Raises BodyError.
    """
    vertices, faces, uv, uv_faces = read_obj(path)
    if len(vertices) != len(body.v_template) or len(faces) != len(body.faces):
        raise BodyError(f"{path}: {len(vertices)} vertices and {len(faces)} faces, but the body {body.source} has "
                        f"{len(body.v_template)} and {len(body.faces)}; give the layout of this mesh")
    if uv.min() < 0 or uv.max() > 1:
        raise BodyError(f"{path}: texture coordinates reach from {uv.min():g} to {uv.max():g}; they must be in [0, 1]")
    theirs, their_order = _canonical(faces)
    ours, our_order = _canonical(body.faces)
    if not np.array_equal(theirs, ours):
        raise BodyError(f"{path}: its faces are not those of the body {body.source}; give the layout of this mesh")
    out = np.empty_like(uv_faces)
    turned = np.take_along_axis(uv_faces, _turn(faces), 1)[their_order]  # corners from the lowest vertex on
    back = np.argsort(_turn(body.faces), axis=1)[our_order]
    out[our_order] = np.take_along_axis(turned, back, 1)
    return dataclasses.replace(body, uv=uv, uv_faces=np.ascontiguousarray(out, np.int32))


def textured(body: BodyModel) -> BodyModel:
    """`body` itself if it has texture coordinates, else with a generated atlas."""
    if body.uv is not None and body.uv_faces is not None:
        return body
    uv, uv_faces = atlas(body.v_template, body.faces, body.weights.argmax(1))
    return dataclasses.replace(body, uv=uv, uv_faces=uv_faces)


def atlas(vertices: np.ndarray, faces: np.ndarray, parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """uv [T,2] in [0,1] and uv_faces [F,3]: every face in exactly one flat chart, all at the same scale.

    vertices [V,3] m, faces [F,3], parts [V] int: charts do not cross from one body part to another. Deterministic.
    """
    charts = _charts(vertices, faces, parts)
    flat = [_flatten(vertices, faces[chart], axis) for chart, axis in charts]
    places, side = _pack([points.max(0) for points, _ in flat])
    uv, uv_faces = [], np.empty_like(faces, dtype=np.int32)
    for (chart, _), (points, local), place in zip(charts, flat, places, strict=True):
        uv_faces[chart] = local + sum(map(len, uv))
        uv.append((points + place) / side)
    return np.clip(np.concatenate(uv), 0, 1), uv_faces


def _canonical(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Faces with their lowest vertex first (winding kept), sorted, and the order that sorts them."""
    turned = np.take_along_axis(np.asarray(faces, np.int64), _turn(faces), 1)
    order = np.lexsort(turned.T[::-1])
    return turned[order], order


def _turn(faces: np.ndarray) -> np.ndarray:
    return (np.argmin(faces, axis=1)[:, None] + np.arange(3)) % 3


def _charts(vertices: np.ndarray, faces: np.ndarray, parts: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Face indices and plane normal of every chart.

    Grown from the largest face left, again along the mean normal of what was found; crumbs go to their neighbours.
    """
    normals = face_normals(vertices, faces)
    corner = vertices[faces]
    area = np.linalg.norm(np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), axis=1)
    part = np.sort(parts[faces], axis=1)[:, 1]  # the median: a majority where there is one
    beside = _neighbours(faces)
    free = np.ones(len(faces), bool)
    charts = []
    for seed in np.argsort(-area, kind="stable"):
        if not free[seed]:
            continue
        axis = normals[seed]
        for _ in range(2):
            chart = _grow(seed, axis, free, part, normals, beside)
            mean = (normals[chart] * area[chart, None]).sum(0)
            mean /= max(np.linalg.norm(mean), 1e-20)
            axis = mean if mean @ normals[seed] > FLAT else axis
        chart = _grow(seed, axis, free, part, normals, beside)
        free[chart] = False
        charts.append((chart, axis))
    owner = _without_crumbs(charts, normals, beside)
    return [(np.flatnonzero(owner == i), charts[i][1]) for i in np.unique(owner)]


def _without_crumbs(charts: list[tuple[np.ndarray, np.ndarray]], normals: np.ndarray, beside: list[list[int]]
                    ) -> np.ndarray:
    """Chart of every face [F], after faces of crumbs moved to the neighbouring chart that they lie flattest in."""
    owner = np.empty(len(normals), np.int64)
    for i, (chart, _) in enumerate(charts):
        owner[chart] = i
    large = np.array([len(chart) >= CRUMB for chart, _ in charts])
    loose = [int(f) for chart, _ in charts if len(chart) < CRUMB for f in chart]
    moved = True
    while moved and loose:
        moved = False
        for f in list(loose):
            around = [int(owner[g]) for g in beside[f] if large[owner[g]]]
            if not around:
                continue
            best = max(around, key=lambda i, f=f: (normals[f] @ charts[i][1], -i))
            if normals[f] @ charts[best][1] > SLANTED:
                owner[f] = best
                loose.remove(f)
                moved = True
    return owner


def _grow(seed: int, axis: np.ndarray, free: np.ndarray, part: np.ndarray, normals: np.ndarray,
          beside: list[list[int]]) -> np.ndarray:
    fits = free & (part == part[seed]) & (normals @ axis > FLAT)
    fits[seed] = False
    chart, front = [seed], [seed]
    while front:
        for other in beside[front.pop()]:
            if fits[other]:
                fits[other] = False
                chart.append(other)
                front.append(other)
    return np.sort(np.array(chart))


def _neighbours(faces: np.ndarray) -> list[list[int]]:
    """Faces that share an edge with each face."""
    owners: dict[tuple[int, int], list[int]] = {}
    for i, (a, b, c) in enumerate(np.asarray(faces).tolist()):
        for edge in ((a, b), (b, c), (c, a)):
            owners.setdefault((min(edge), max(edge)), []).append(i)
    beside: list[list[int]] = [[] for _ in range(len(faces))]
    for shared in owners.values():
        for i in shared:
            beside[i] += [j for j in shared if j != i]
    return beside


def _flatten(vertices: np.ndarray, faces: np.ndarray, axis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places [n,2] m of a chart's vertices in the plane across `axis` (from 0 on, wider than high), local faces."""
    used, local = np.unique(faces, return_inverse=True)
    centred = vertices[used] - vertices[used].mean(0)
    inside = centred - np.outer(centred @ axis, axis)
    along = np.linalg.svd(inside, full_matrices=False)[2][0]
    along = along - (along @ axis) * axis
    along *= np.sign(along[np.abs(along).argmax()]) / max(np.linalg.norm(along), 1e-20)
    points = inside @ np.stack([along, np.cross(axis, along)], 1)
    return points - points.min(0), local.reshape(-1, 3).astype(np.int32)


def _pack(sizes: list[np.ndarray]) -> tuple[list[np.ndarray], float]:
    """Corner of every box [2] and the side of the square that holds them: shelves, tallest first, smallest square."""
    sizes = np.array(sizes)
    order = np.lexsort((-sizes[:, 0], -sizes[:, 1]))
    side = float(np.sqrt(sizes.prod(1).sum()))
    while True:
        margin = MARGIN * side
        places, x, y, shelf = np.zeros_like(sizes), margin, margin, 0.0
        for i in order:
            if x + sizes[i, 0] + margin > side:
                x, y, shelf = margin, y + shelf + margin, 0.0
            places[i] = x, y
            x, shelf = x + sizes[i, 0] + margin, max(shelf, sizes[i, 1])
        if y + shelf + margin <= side and (places[:, 0] + sizes[:, 0] <= side).all():
            return list(places), side
        side *= 1.02
