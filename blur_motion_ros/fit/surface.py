"""The colours of the body's surface as unknowns of a window: one per texel, or one per vertex without a layout.

Human from Blur solves a UV texture together with the motion, one for all exposures, and asks neighbouring texels
(eight) that are visible in at least one sub-frame to be alike. Here that term is the sum over such pairs of
`weight * |difference|^2`: the same quadratic form for texels (`texels.neighbour_pairs`: 1 / squared distance) and mesh
edges (weight 1), in the joint loss (`losses.texture_smoothness`) and in the linear solves given the motion
(`colour.graph_laplacian`), so that solving together and in turn have one optimum.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy import sparse

from blur_motion_ros.fit.kinematics import FitBody
from blur_motion_ros.fit.texels import TexelGrid, neighbour_pairs


@dataclass(frozen=True, eq=False)
class Surface:
    """values [n, 3] linear light; pairs [E, 2], weights [E]: who is whose neighbour; body: the mesh they colour;
    grid: where the texels lie (None: the values belong to the vertices)."""

    values: np.ndarray
    pairs: np.ndarray
    weights: np.ndarray
    body: FitBody
    grid: TexelGrid | None = None

    @staticmethod
    def of_vertices(body: FitBody, colours: np.ndarray) -> Surface:
        """One colour per vertex [V, 3]; neighbours share an edge."""
        return Surface(np.asarray(colours, np.float32), body.edges, np.ones(len(body.edges), np.float32), body)

    @staticmethod
    def of_texels(body: FitBody, grid: TexelGrid, colours: np.ndarray) -> Surface:
        """One colour per texel, beginning with what colours per vertex [V, 3] give the same points of the skin."""
        pairs, weights = neighbour_pairs(grid, np.ones(len(grid.at), bool))
        return Surface(grid.points_of(np.asarray(colours), body.faces).astype(np.float32), pairs, weights, body, grid)

    def painted(self, values: np.ndarray) -> Surface:
        """The same surface with other colours [n, 3]."""
        return replace(self, values=values)

    def vertex_colours(self) -> np.ndarray:
        """[V, 3] float32: the colours at the vertices, for renderers that know no texels."""
        if self.grid is None:
            return self.values
        return np.ascontiguousarray(self._to_vertices @ self.values, np.float32)

    @cached_property
    def _to_vertices(self) -> sparse.csr_matrix:
        return self.grid.at_vertices(self.body.faces, len(self.body.rest_vertices)).astype(np.float32)
