"""The body during a fit: poses every sub-frame of a window and knows how each surface point moves with each joint."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numba import njit

from blur_motion_ros.fit.layout import FREE_COUNT, FREE_JOINTS, LIMB_OF_SLOT, PART_OF_SLOT, SLOT_OF_JOINT
from blur_motion_ros.motion import rotations

TIP = 0.12  # m: from a joint without children to the end of what it moves


@dataclass(frozen=True)
class FitBody:
    """A body of fixed shape, reduced to what the fit touches.

    rest_joints [24, 3], parents [24], rest_vertices [V, 3], faces [F, 3], weights [V, 4] / weight_joints [V, 4];
    chain_start [V + 1], chain_slot, chain_share: for each vertex the free slots that move it (compressed rows) and
    s_j, the skin weight summed over joint j's subtree. edges [E, 2]: mesh edges (colour smoothness). uv [K, 2],
    uv_faces [F, 3]: texture coordinates, where the body has them (`fit.first_order.texture`).
    """

    rest_joints: np.ndarray
    parents: np.ndarray
    rest_vertices: np.ndarray
    faces: np.ndarray
    weights: np.ndarray
    weight_joints: np.ndarray
    chain_start: np.ndarray
    chain_slot: np.ndarray
    chain_share: np.ndarray
    edges: np.ndarray
    uv: np.ndarray | None = None
    uv_faces: np.ndarray | None = None

    @cached_property
    def parts_of_vertices(self) -> np.ndarray:
        """[V] bits of the `layout.PARTS` that move each vertex; the root (bit 0) always does."""
        mask = np.ones(len(self.rest_vertices), np.uint8)
        owner = np.repeat(np.arange(len(mask)), np.diff(self.chain_start))
        np.bitwise_or.at(mask, owner, (1 << PART_OF_SLOT[self.chain_slot]).astype(np.uint8))
        return mask

    @cached_property
    def bone_of_vertices(self) -> np.ndarray:
        """[V] free slot of the joint with the largest skin weight; hands and feet: of the joint above them."""
        joint = self.weight_joints[:, 0]
        slot = SLOT_OF_JOINT[joint]
        return np.where(slot >= 0, slot, SLOT_OF_JOINT[self.parents[joint]]).astype(np.int32)

    @cached_property
    def limbs_of_vertices(self) -> np.ndarray:
        """[V] bit of the limb (`layout.LIMBS`) of `bone_of_vertices`."""
        return (1 << LIMB_OF_SLOT[self.bone_of_vertices]).astype(np.uint8)

    @cached_property
    def reach(self) -> np.ndarray:
        """[21] m: from each free slot's joint to the farthest joint that hangs on it in the T-pose; 1 for the
        translation."""
        reach = np.full(len(self.parents), TIP)
        for joint, place in enumerate(self.rest_joints):
            above = self.parents[joint]
            while above >= 0:
                reach[above] = max(reach[above], float(np.linalg.norm(place - self.rest_joints[above])))
                above = self.parents[above]
        out = np.ones(FREE_COUNT)
        out[1:] = reach[FREE_JOINTS]
        return out

    @staticmethod
    def of(rest_vertices: np.ndarray, rest_joints: np.ndarray, weights: np.ndarray, parents: np.ndarray,
           faces: np.ndarray, inflation: float = 0.0) -> FitBody:
        """From rest geometry in metres and dense skin weights [V, 24]; `inflation` m grows it along its normals."""
        order = np.argsort(-weights, axis=1)[:, :4].astype(np.int32)
        top = np.take_along_axis(weights, order, 1)
        top = top / top.sum(1, keepdims=True)
        start, slot, share = _chains(weights, parents)
        faces = np.ascontiguousarray(faces, np.int32)
        body = FitBody(np.asarray(rest_joints, np.float64), np.asarray(parents, np.int32),
                       np.asarray(rest_vertices, np.float32), faces, np.ascontiguousarray(top, np.float32), order,
                       start, slot, share, _edges(faces))
        return body.reshaped(rest_vertices, rest_joints, inflation)

    def reshaped(self, rest_vertices: np.ndarray, rest_joints: np.ndarray, inflation: float = 0.0) -> FitBody:
        """The same body with another shape (its mesh and skinning stay)."""
        vertices = np.asarray(rest_vertices, np.float64)
        if inflation:
            vertices = vertices + inflation * vertex_normals(vertices, self.faces)
        return replace(self, rest_vertices=np.ascontiguousarray(vertices, np.float32),
                       rest_joints=np.asarray(rest_joints, np.float64))


@dataclass(frozen=True)
class Posed:
    """M posed bodies.  joints [M, 24, 3], globals [M, 24, 3, 3] (joint to camera), vertices [M, V, 3] float32,
    lever [M, 21, 3, 3]: world angular velocity per unit of each free rotation parameter (slot 0 unused)."""

    joints: np.ndarray
    globals: np.ndarray
    vertices: np.ndarray
    lever: np.ndarray


def pose(body: FitBody, reference: np.ndarray, reference_transl: np.ndarray, coefficients: np.ndarray,
         basis: np.ndarray, skin: bool = True) -> Posed:
    """Pose the body at M instants.

    reference [24, 3, 3] and reference_transl [3]: R_ref and the translation reference; coefficients [25, K, 3];
    basis [M, K]: Legendre values at the instants.
    """
    count = len(basis)
    joints, globals_ = np.empty((count, 24, 3)), np.empty((count, 24, 3, 3))
    lever = np.zeros((count, FREE_COUNT, 3, 3))
    _pose(np.ascontiguousarray(coefficients, np.float64), basis, np.asarray(reference, np.float64),
          np.asarray(reference_transl, np.float64), body.rest_joints, body.parents, joints, globals_, lever)
    vertices = np.empty((count if skin else 0,) + body.rest_vertices.shape, np.float32)
    if skin:
        _skin(globals_, joints, body.rest_joints, body.rest_vertices, body.weights, body.weight_joints, vertices)
    return Posed(joints, globals_, vertices, lever)


def chain(local: np.ndarray, transl: np.ndarray, rest_joints: np.ndarray, parents: np.ndarray
          ) -> tuple[np.ndarray, np.ndarray]:
    """Forward kinematics, smplx semantics: local [M, 24, 3, 3], transl [M, 3] -> (globals, joints [M, 24, 3])."""
    globals_ = np.empty_like(local)
    joints = np.empty(local.shape[:2] + (3,))
    _chain(local, np.asarray(transl, np.float64), rest_joints, parents, globals_, joints)
    return globals_, joints


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Area-weighted unit normals [V, 3]."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    face_normals = np.cross(b - a, c - a)
    owner = faces.reshape(-1)
    normals = np.stack([np.bincount(owner, np.repeat(n, 3), len(vertices)) for n in face_normals.T], -1)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)


def _chains(weights: np.ndarray, parents: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    share = np.array(weights, np.float64)
    for j in range(23, 0, -1):
        share[:, parents[j]] += share[:, j]
    start, slots, shares = [0], [], []
    for v in range(len(share)):
        for j in np.flatnonzero((share[v] > 0.02) & (SLOT_OF_JOINT >= 0)):
            slots.append(SLOT_OF_JOINT[j])
            shares.append(share[v, j])
        start.append(len(slots))
    return np.array(start, np.int32), np.array(slots, np.int32), np.array(shares, np.float32)


def _edges(faces: np.ndarray) -> np.ndarray:
    pairs = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), 1)
    return np.unique(pairs, axis=0).astype(np.int32)


@njit(cache=True)
def _pose(coefficients, basis, reference, reference_transl, rest, parents, joints, globals_, lever):
    """Joints, global rotations and levers at every instant."""
    count, bodies = len(basis), len(reference)
    value = np.zeros((count, bodies + 1, 3))
    for m in range(count):
        for j in range(bodies + 1):
            for k in range(basis.shape[1]):
                for a in range(3):
                    value[m, j, a] += basis[m, k] * coefficients[j, k, a]
    local, turned, right = np.empty((count, bodies, 3, 3)), np.empty((bodies, 3, 3)), np.empty((bodies, 3, 3))
    for m in range(count):
        rotations.exp_into(value[m, 1:], turned)
        for j in range(bodies):
            _product(reference[j], turned[j], local[m, j])
    _chain(local, reference_transl + value[:, 0], rest, parents, globals_, joints)
    for m in range(count):
        rotations.right_jacobian_into(value[m, 1:], False, right)
        for slot in range(1, lever.shape[1]):
            j = FREE_JOINTS[slot - 1]
            _product(globals_[m, j], right[j], lever[m, slot])


@njit(cache=True, nogil=True, inline="always")
def _product(a, b, out):
    for i in range(3):
        for j in range(3):
            out[i, j] = a[i, 0] * b[0, j] + a[i, 1] * b[1, j] + a[i, 2] * b[2, j]


@njit(cache=True, nogil=True)
def _chain(local, transl, rest, parents, globals_, joints):
    for m in range(local.shape[0]):
        for a in range(3):
            joints[m, 0, a] = rest[0, a] + transl[m, a]
            for b in range(3):
                globals_[m, 0, a, b] = local[m, 0, a, b]
        for j in range(1, local.shape[1]):
            p = parents[j]
            for a in range(3):
                value = joints[m, p, a]
                for b in range(3):
                    value += globals_[m, p, a, b] * (rest[j, b] - rest[p, b])
                    total = 0.0
                    for c in range(3):
                        total += globals_[m, p, a, c] * local[m, j, c, b]
                    globals_[m, j, a, b] = total
                joints[m, j, a] = value


@njit(cache=True, nogil=True, fastmath=True)
def _skin(globals_, joints, rest, vertices, weights, weight_joints, out):
    """Linear blend skinning: each vertex by the mean of its joints' transforms."""
    rigid = np.empty((rest.shape[0], 12))  # rows of [R | t - R rest], so that x' = R x + t
    for m in range(globals_.shape[0]):
        for j in range(rest.shape[0]):
            g = globals_[m, j]
            for a in range(3):
                rigid[j, 4 * a + 3] = joints[m, j, a]
                for b in range(3):
                    rigid[j, 4 * a + b] = g[a, b]
                    rigid[j, 4 * a + 3] -= g[a, b] * rest[j, b]
        for v in range(vertices.shape[0]):
            vx, vy, vz = vertices[v, 0], vertices[v, 1], vertices[v, 2]
            x = y = z = 0.0
            for i in range(4):
                w = weights[v, i]
                if w == 0:
                    continue
                r = rigid[np.uint64(weight_joints[v, i])]
                x += w * (r[0] * vx + r[1] * vy + r[2] * vz + r[3])
                y += w * (r[4] * vx + r[5] * vy + r[6] * vz + r[7])
                z += w * (r[8] * vx + r[9] * vy + r[10] * vz + r[11])
            out[m, v, 0] = x
            out[m, v, 1] = y
            out[m, v, 2] = z
