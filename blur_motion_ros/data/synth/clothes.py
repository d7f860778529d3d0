"""Random clothes and skin: which faces are what, their colours and patterns, and how far cloth stands off the body."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from blur_motion_ros.body.joints import SMPL24
from blur_motion_ros.data.synth.body import SkinnedBody, vertex_normals
from blur_motion_ros.data.synth.render import BLOTCHES, CHECKS, PLAIN, SPECKS, STRIPES, Surface

SKIN, HAIR, TOP, BOTTOM, SHOES = range(5)
_SKIN_TONES = np.array([[0.65, 0.42, 0.31], [0.50, 0.29, 0.19], [0.34, 0.18, 0.11], [0.16, 0.08, 0.05],
                        [0.72, 0.50, 0.40]])
_HAIR_TONES = np.array([[0.02, 0.015, 0.01], [0.08, 0.04, 0.02], [0.30, 0.18, 0.07], [0.25, 0.24, 0.23]])


@dataclass(frozen=True)
class Outfit:
    """vertices [V, 3]: the rest mesh with cloth added.  surface: its look.  description: for meta.json."""

    vertices: np.ndarray
    surface: Surface
    description: dict


def random_outfit(body: SkinnedBody, rng: np.random.Generator) -> Outfit:
    """Dress a body at random: sleeves, trouser length, cloth 0.3-3 cm off the skin, patterns, skin and hair."""
    sleeves = str(rng.choice(["long", "short"]))
    legs = str(rng.choice(["trousers", "trousers", "shorts"]))
    region = _vertex_regions(body, sleeves, legs)
    stand_off = {SKIN: 0.0, HAIR: rng.uniform(0.004, 0.025), TOP: rng.uniform(0.006, 0.025),
                 BOTTOM: rng.uniform(0.006, 0.025), SHOES: rng.uniform(0.006, 0.012)}
    distance = np.array([stand_off[r] for r in range(5)])[region]
    folds = 1 + 0.5 * _bumps(body.vertices, rng, 6.0) + 0.3 * _bumps(body.vertices, rng, 22.0)
    distance = _smoothed(distance * np.where(region == SKIN, 1, folds), body.faces, 2)
    vertices = body.vertices + distance[:, None] * vertex_normals(body.vertices, body.faces)
    materials, names = _materials(rng)
    face_region = np.sort(region[body.faces], axis=1)[:, 1]
    surface = Surface(body.faces, body.vertices, face_region.astype(np.int32), materials)
    return Outfit(vertices, surface, {"sleeves": sleeves, "legs": legs, "patterns": names,
                                      "stand_off_m": {"top": stand_off[TOP], "bottom": stand_off[BOTTOM]}})


def _vertex_regions(body: SkinnedBody, sleeves: str, legs: str) -> np.ndarray:
    part = body.weights.argmax(1)
    of = {name: i for i, name in enumerate(SMPL24)}
    region = np.full(len(body.vertices), TOP)

    def along(joint: str, child: str) -> np.ndarray:
        """0 at the joint, 1 at its child, for every vertex."""
        a, b = body.heads[of[joint]], body.heads[of[child]]
        return (body.vertices - a) @ (b - a) / ((b - a) @ (b - a))

    for side in ("left", "right"):
        if sleeves == "short":
            bare = (part == of[f"{side}_elbow"]) | ((part == of[f"{side}_shoulder"])
                                                    & (along(f"{side}_shoulder", f"{side}_elbow") > 0.6))
            region[bare] = SKIN
        region[np.isin(part, [of[f"{side}_wrist"], of[f"{side}_hand"]])] = SKIN
        leg = np.isin(part, [of[f"{side}_hip"], of[f"{side}_knee"], of[f"{side}_ankle"], of[f"{side}_foot"]])
        region[leg] = BOTTOM
        shin = along(f"{side}_knee", f"{side}_ankle")
        if legs == "shorts":
            region[leg & (along(f"{side}_hip", f"{side}_knee") > 0.85)] = SKIN
        region[leg & (shin > 0.93)] = SHOES
    region[(part == of["pelvis"]) & (body.vertices[:, 1] < body.heads[of["spine1"], 1] + 0.08)] = BOTTOM
    head = np.isin(part, [of["head"], of["neck"]])
    region[head] = SKIN
    crown = body.vertices[part == of["head"]]
    back = (body.vertices[:, 2] - crown[:, 2].min()) / np.ptp(crown[:, 2])
    high = (body.vertices[:, 1] - crown[:, 1].min()) / np.ptp(crown[:, 1])
    region[head & (part == of["head"]) & (high > 0.35 + 0.55 * back)] = HAIR
    return region


def _materials(rng: np.random.Generator) -> tuple[np.ndarray, dict[str, str]]:
    names = {PLAIN: "plain", STRIPES: "stripes", CHECKS: "checks", BLOTCHES: "blotches", SPECKS: "specks"}
    out = np.zeros((5, 10))
    chosen = {}
    for region, label in ((TOP, "top"), (BOTTOM, "bottom"), (SHOES, "shoes")):
        kind = int(rng.choice([PLAIN, STRIPES, CHECKS, BLOTCHES, SPECKS],
                              p=[0.4, 0.2, 0.1, 0.2, 0.1] if region == TOP else [0.7, 0.05, 0.05, 0.15, 0.05]))
        scale = {PLAIN: 1, STRIPES: rng.uniform(8, 25), CHECKS: rng.uniform(8, 20), BLOTCHES: rng.uniform(6, 20),
                 SPECKS: rng.uniform(12, 30)}[kind]
        out[region] = [*_cloth_colour(rng), *_cloth_colour(rng), kind, scale, rng.uniform(0.4, 1.0),
                       rng.uniform(0, 0.04)]
        chosen[label] = names[kind]
    skin = _SKIN_TONES[rng.integers(len(_SKIN_TONES))] * rng.uniform(0.85, 1.1)
    out[SKIN] = [*skin, *(skin * [1.0, 0.85, 0.8]), BLOTCHES, 9, 0.4, 0.03]
    hair = _HAIR_TONES[rng.integers(len(_HAIR_TONES))]
    out[HAIR] = [*hair, *(hair * 1.8), SPECKS, 25, 0.6, 0.05]
    return out, chosen


def _cloth_colour(rng: np.random.Generator) -> np.ndarray:
    """Linear albedo: half of the wardrobe is grey, black or white, the rest coloured."""
    value = rng.uniform(0.03, 0.75) ** 1.3
    tint = rng.uniform(0.25, 1.0, 3) if rng.random() < 0.6 else 1 + rng.uniform(-0.08, 0.08, 3)
    return np.clip(value * tint / tint.max(), 0.015, 0.8)


def _bumps(points: np.ndarray, rng: np.random.Generator, frequency: float) -> np.ndarray:
    """A smooth random field over points [V, 3], about -1 to 1; frequency in rad/m times 3."""
    waves = rng.normal(0, frequency, (8, 3))
    return np.sin(points @ waves.T + rng.uniform(0, 2 * np.pi, 8)).mean(1) * 2


def _smoothed(values: np.ndarray, faces: np.ndarray, rounds: int) -> np.ndarray:
    """Average over neighbouring vertices, so that cloth has no cliff at its hem."""
    for _ in range(rounds):
        total, count = np.zeros(len(values)), np.zeros(len(values))
        for i in range(3):
            for j in range(3):
                total += np.bincount(faces[:, i], values[faces[:, j]], len(values))
                count += np.bincount(faces[:, i], minlength=len(values))
        values = total / np.maximum(count, 1)
    return values
