"""The skin that is shown, posed by what a message carries: joint transforms."""

from __future__ import annotations

import numpy as np

from blur_motion_ros.body.decimate import closest_on_mesh
from blur_motion_ros.body.load import load_body
from blur_motion_ros.body.model import BodyModel


class Skin:
    """The body's skin at a level of detail, posed by joint transforms as the messages carry them.

    path: SMPL file, or '' for the free body; lod: see `load_body`.  faces: [F, 3]."""

    def __init__(self, path: str = "", lod: str = "display") -> None:
        self._body = load_body(path or None, lod=lod)
        self._betas: np.ndarray | None = None
        self._carrier: tuple[np.ndarray, np.ndarray] | None = None
        self.faces = self._body.faces

    def posed(self, betas: np.ndarray, positions: np.ndarray, rotations: np.ndarray) -> np.ndarray:
        """Vertices [V, 3] float32 m of shape `betas` [10], joints at `positions` [24, 3], `rotations` [24, 3, 3]."""
        if self._betas is None or not np.array_equal(betas, self._betas):
            self._betas = np.array(betas)
            self._rest = self._body.rest_vertices(betas)
            self._joints = self._body.rest_joints(betas)
        offset = positions - np.einsum("jab,jb->ja", rotations, self._joints)
        moved = self._body.weights @ np.concatenate([rotations.reshape(24, 9), offset], 1)
        return (np.einsum("vab,vb->va", moved[:, :9].reshape(-1, 3, 3), self._rest) + moved[:, 9:]).astype(np.float32)

    def coloured(self, source: BodyModel, colours: np.ndarray) -> np.ndarray:
        """Colours [V, 3] of this surface from those of another level of detail `source`, by the nearest point on it."""
        if source.v_template.shape == self._body.v_template.shape:
            return colours
        if self._carrier is None:
            face, bary, _ = closest_on_mesh(self._body.v_template, source.v_template, source.faces)
            self._carrier = source.faces[face], bary.astype(np.float32)
        corners, bary = self._carrier
        return np.einsum("vk,vkc->vc", bary, colours[corners])
