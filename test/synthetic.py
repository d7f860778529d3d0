"""A body made of capsules around the SMPL skeleton: exact, tiny, and independent of the shipped model."""

from __future__ import annotations

import numpy as np

from blur_motion_ros.fit.kinematics import FitBody

PARENTS = np.array([-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21])
REST = np.array([[0, 0, 0], [.08, -.08, 0], [-.08, -.08, 0], [0, .11, -.02], [.1, -.47, 0], [-.1, -.47, 0],
                 [0, .24, -.01], [.09, -.88, -.03], [-.09, -.88, -.03], [0, .30, 0], [.11, -.94, .09],
                 [-.11, -.94, .09],
                 [0, .52, -.03], [.08, .42, -.02], [-.08, .42, -.02], [0, .60, .02], [.18, .45, -.03],
                 [-.18, .45, -.03],
                 [.44, .44, -.05], [-.44, .44, -.05], [.69, .44, -.05], [-.69, .44, -.05], [.78, .44, -.06],
                 [-.78, .44, -.06]])
_BONES = [(0, 3, .13), (3, 6, .13), (6, 12, .14), (12, 15, .06), (15, None, .10), (13, 16, .06), (14, 17, .06),
          (16, 18, .05), (17, 19, .05), (18, 20, .045), (19, 21, .045), (20, 22, .04), (21, 23, .04), (1, 4, .08),
          (2, 5, .08), (4, 7, .06), (5, 8, .06), (7, 10, .045), (8, 11, .045), (1, 2, .11)]


def capsule_body() -> FitBody:
    vertices, faces, weights = [], [], []
    for joint, child, radius in _BONES:
        end = REST[child] if child is not None else REST[joint] + [0, .12, .02]
        v, f = _capsule(REST[joint], end, radius)
        faces.append(f + sum(map(len, vertices)))
        vertices.append(v)
        w = np.zeros((len(v), 24))
        w[:, joint] = 1
        weights.append(w)
    return FitBody.of(np.concatenate(vertices), REST, np.concatenate(weights), PARENTS, np.concatenate(faces))


def _capsule(a, b, radius, rings=8, around=10):
    axis = (b - a) / np.linalg.norm(b - a)
    side = np.cross(axis, [0, 0, 1] if abs(axis[2]) < .9 else [1, 0, 0])
    side /= np.linalg.norm(side)
    up = np.cross(axis, side)
    vertices = []
    for i in range(rings):
        angle = np.pi * (i + 0.02) / (rings - 0.96) - np.pi / 2
        centre = a if i < rings / 2 else b
        for k in range(around):
            phi = 2 * np.pi * k / around
            ring = np.cos(angle) * (np.cos(phi) * side + np.sin(phi) * up)
            vertices.append(centre + radius * (ring + np.sin(angle) * axis))
    faces = []
    for i in range(rings - 1):
        for k in range(around):
            p, q = i * around + k, i * around + (k + 1) % around
            r, s = p + around, q + around
            faces += [[p, q, s], [p, s, r]]
    faces += [[0, k + 1, k] for k in range(1, around - 1)]
    top = (rings - 1) * around
    faces += [[top, top + k, top + k + 1] for k in range(1, around - 1)]
    return np.array(vertices), np.array(faces)


def something_before_a_plate(height=50, width=70):
    """Linear image and plate [H, W, 3]: a bright rectangle before noise."""
    rng = np.random.default_rng(0)
    plate = rng.uniform(0.1, 0.4, (height, width, 3)).astype(np.float32)
    image = plate.copy()
    image[10:30, 20:40] += 0.3
    return image, plate
