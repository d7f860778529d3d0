"""Motion capture readers: CMU (npz subset, BVH), DeepMimic text, AMASS, 3DPW -> `MotionClip` of the SMPL skeleton.

World frame of a clip: metres, y up, the body faces +z and its left is +x in the rest pose (SMPL's own axes).
Rotations are local (parent to child), joint 0 is the global orientation, joints in SMPL-24 order.

Retargeting copies *global* orientations, corrected by the constant rotation that takes our rest bone to the source's
rest bone (`A_j`): `G_j = G_source A_j`. Bones then point exactly as the source's do and the twist about them is kept.
The torso, collars and feet have comparable anatomical axes in every rest pose and take `A = I`.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from blur_motion_ros.motion import rotations

PARENTS = np.array([-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21])
MIRROR = np.array([0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22])
HELD_OUT = ("punch", "kick", "spinkick", "jump", "cartwheel")  # DeepMimic clips that are never trained or tuned on
GLITCH_SPEED = 12.0  # m/s: no joint of these recordings moves faster; beyond it a marker was swapped
_SHORTEST = 8  # frames left after cutting glitches

# Rest (T-pose) joints of an average adult, metres, relative to the pelvis; used where no body is given.
NOMINAL_REST = np.array([
    [0, 0, 0], [.078, -.088, .0], [-.078, -.088, .0], [0, .115, -.02], [.088, -.485, .0], [-.088, -.485, .0],
    [0, .245, -.015], [.085, -.885, -.03], [-.085, -.885, -.03], [0, .305, .0], [.105, -.945, .09],
    [-.105, -.945, .09], [0, .505, -.03], [.08, .42, -.02], [-.08, .42, -.02], [0, .60, .01], [.185, .435, -.03],
    [-.185, .435, -.03], [.445, .435, -.045], [-.445, .435, -.045], [.695, .435, -.045], [-.695, .435, -.045],
    [.775, .43, -.045], [-.775, .43, -.045]])


class MocapError(ValueError):
    """A motion file is missing, of another layout, or not what it claims to be. The message names it and the fix."""


@dataclass(frozen=True)
class MotionClip:
    """One recording on the SMPL skeleton.

    rotvec: [T, 24, 3] rad, local.  pelvis: [T, 3] m, world position of the *pelvis joint* (smplx's `transl` is
    `pelvis - rest_pelvis`: see `transl`).  split: 'train' or 'test'.
    """

    name: str
    split: str
    fps: float
    rotvec: np.ndarray
    pelvis: np.ndarray

    def __len__(self) -> int:
        return len(self.rotvec)

    @property
    def duration(self) -> float:
        """Seconds from the first to the last frame."""
        return (len(self) - 1) / self.fps

    def matrices(self) -> np.ndarray:
        """Local rotation matrices [T, 24, 3, 3]."""
        return rotations.exp(self.rotvec)

    def transl(self, rest_pelvis: np.ndarray) -> np.ndarray:
        """smplx translation [T, 3] for a body whose rest pelvis joint is at `rest_pelvis` [3]."""
        return self.pelvis - rest_pelvis

    def joints(self, rest: np.ndarray = NOMINAL_REST) -> np.ndarray:
        """World joint positions [T, 24, 3] for rest joints [24, 3]."""
        _, positions = forward(self.matrices(), rest, PARENTS)
        return positions + (self.pelvis - positions[:, 0])[:, None]

    def sample(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Local rotations [N, 24, 3, 3] and pelvis [N, 3] at `times` [N] s from the start (geodesic, linear)."""
        frame = np.clip(np.asarray(times, np.float64) * self.fps, 0, len(self) - 1)
        low = np.minimum(frame.astype(int), max(len(self) - 2, 0))
        high = np.minimum(low + 1, len(self) - 1)
        weight = frame - low
        a, b = rotations.exp(self.rotvec[low]), rotations.exp(self.rotvec[high])
        turned = rotations.slerp(a, b, weight[:, None])
        return turned, self.pelvis[low] + weight[:, None] * (self.pelvis[high] - self.pelvis[low])

    def resampled(self, fps: float) -> MotionClip:
        """The same motion at another rate."""
        times = np.arange(int(np.floor(self.duration * fps)) + 1) / fps
        turned, pelvis = self.sample(times)
        return replace(self, fps=fps, rotvec=rotations.log(turned), pelvis=pelvis)

    def mirrored(self) -> MotionClip:
        """Left and right exchanged (reflection in the x = 0 plane); its own inverse."""
        return replace(self, name=self.name + "~" if not self.name.endswith("~") else self.name[:-1],
                       rotvec=mirror_pose(self.rotvec), pelvis=self.pelvis * np.array([-1.0, 1.0, 1.0]))


def mirror_pose(rotvec: np.ndarray) -> np.ndarray:
    """Rotation vectors [..., 24, 3] or body poses [..., 23, 3] with left and right exchanged."""
    order = MIRROR if rotvec.shape[-2] == 24 else MIRROR[1:] - 1
    return rotvec[..., order, :] * np.array([1.0, -1.0, -1.0])


def forward(local: np.ndarray, rest: np.ndarray, parents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Forward kinematics: local [T, J, 3, 3], rest joints [J, 3] -> global rotations and positions [T, J, 3].

    The root joint stays at `rest[0]`.
    """
    turned = np.empty_like(local)
    positions = np.empty(local.shape[:-1])
    for j, parent in enumerate(parents):
        if parent < 0:
            turned[:, j], positions[:, j] = local[:, j], rest[j]
            continue
        turned[:, j] = turned[:, parent] @ local[:, j]
        positions[:, j] = positions[:, parent] + turned[:, parent] @ (rest[j] - rest[parent])
    return turned, positions


# --------------------------------------------------------------------------------------------- retargeting


@dataclass(frozen=True)
class SourceMotion:
    """A recording on its own skeleton: local [T, J, 3, 3], offsets [J, 3] m, root [T, 3] m."""

    names: tuple[str, ...]
    parents: np.ndarray
    offsets: np.ndarray
    local: np.ndarray
    root: np.ndarray
    fps: float

    def rest(self) -> np.ndarray:
        """Rest joint positions [J, 3] with the root at the origin."""
        positions = np.zeros_like(self.offsets)
        for j, parent in enumerate(self.parents):
            if parent >= 0:
                positions[j] = positions[parent] + self.offsets[j]
        return positions

    def globals(self) -> tuple[np.ndarray, np.ndarray]:
        """Global rotations [T, J, 3, 3] and world positions [T, J, 3]."""
        turned, positions = forward(self.local, self.rest(), self.parents)
        return turned, positions + self.root[:, None]


@dataclass(frozen=True)
class Mapping:
    """How a source skeleton drives SMPL's.

    drive: SMPL joint -> source joint whose orientation it takes, or (joint a, joint b, fraction) between two.
    align: SMPL joint -> (its child, source joint, source child): bones that must point alike.
    """

    drive: dict[int, str | tuple[str, str, float]]
    align: dict[int, tuple[int, str, str]]


def _cmu_mapping() -> Mapping:
    drive: dict = {0: "Hips", 3: "LowerBack", 6: "Spine", 9: "Spine1", 12: "Neck1", 15: "Head"}
    align: dict = {}
    for side, joints in (("Left", (1, 4, 7, 10, 13, 16, 18, 20, 22)), ("Right", (2, 5, 8, 11, 14, 17, 19, 21, 23))):
        parts = ("UpLeg", "Leg", "Foot", "ToeBase", "Shoulder", "Arm", "ForeArm", "Hand", "Hand")
        drive |= {joint: side + part for joint, part in zip(joints, parts, strict=True)}
        hip, knee, ankle, _, _, shoulder, elbow, wrist, hand = joints
        align |= {hip: (knee, side + "UpLeg", side + "Leg"), knee: (ankle, side + "Leg", side + "Foot"),
                  shoulder: (elbow, side + "Arm", side + "ForeArm"), elbow: (wrist, side + "ForeArm", side + "Hand"),
                  wrist: (hand, side + "Hand", side + "HandIndex1")}
    return Mapping(drive, align)


def _deepmimic_mapping() -> Mapping:
    drive: dict = {0: "root", 3: ("root", "chest", 1 / 3), 6: ("root", "chest", 2 / 3), 9: "chest",
                   12: ("chest", "neck", 0.5), 15: "neck", 13: "chest", 14: "chest"}
    align: dict = {}
    for side, joints in (("left_", (1, 4, 7, 10, 16, 18, 20, 22)), ("right_", (2, 5, 8, 11, 17, 19, 21, 23))):
        parts = ("hip", "knee", "ankle", "ankle", "shoulder", "elbow", "elbow", "elbow")
        drive |= {joint: side + part for joint, part in zip(joints, parts, strict=True)}
        hip, knee, ankle, _, shoulder, elbow, wrist, hand = joints
        align |= {hip: (knee, side + "hip", side + "knee"), knee: (ankle, side + "knee", side + "ankle"),
                  shoulder: (elbow, side + "shoulder", side + "elbow"),
                  elbow: (wrist, side + "elbow", side + "wrist"), wrist: (hand, side + "elbow", side + "wrist")}
    return Mapping(drive, align)


def retarget(source: SourceMotion, mapping: Mapping, name: str, split: str,
             rest: np.ndarray = NOMINAL_REST) -> MotionClip:
    """Drive the SMPL skeleton with rest joints [24, 3] by a source motion. Hand and toe tips follow their parents."""
    index = {n: i for i, n in enumerate(source.names)}
    turned, positions = source.globals()
    corrections = _corrections(source, mapping, index, rest)
    target = np.empty((len(turned), 24, 3, 3))
    for j in range(24):
        target[:, j] = _driven(turned, index, mapping.drive[j]) @ corrections[j]
    for tip, parent in ((22, 20), (23, 21)):
        target[:, tip] = target[:, parent]
    local = target.copy()
    local[:, 1:] = np.swapaxes(target[:, PARENTS[1:]], -1, -2) @ target[:, 1:]
    hips = [index[mapping.drive[j]] for j in (1, 2)]
    scale = _leg_length(rest, (1, 4, 7)) / _leg_length(source.rest(), [index[n] for n in _left_leg(mapping)])
    pelvis = scale * positions[:, hips].mean(1) - target[:, 0] @ (rest[[1, 2]].mean(0) - rest[0])
    return MotionClip(name, split, float(source.fps), rotations.log(local), pelvis)


def _corrections(source: SourceMotion, mapping: Mapping, index: dict[str, int], rest: np.ndarray) -> np.ndarray:
    own = source.rest()
    out = np.tile(np.eye(3), (24, 1, 1))
    for j, (child, a, b) in mapping.align.items():
        out[j] = _between(rest[child] - rest[j], own[index[b]] - own[index[a]])
    return out


def _driven(turned: np.ndarray, index: dict[str, int], drive: str | tuple[str, str, float]) -> np.ndarray:
    if isinstance(drive, str):
        return turned[:, index[drive]]
    a, b, fraction = drive
    return rotations.slerp(turned[:, index[a]], turned[:, index[b]], np.array(fraction))


def _between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The smallest rotation [3, 3] taking direction a to direction b."""
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    axis = np.cross(a, b)
    sine, cosine = np.linalg.norm(axis), float(a @ b)
    if sine < 1e-9 and cosine < 0:
        raise MocapError("two rest bones point in opposite directions: the skeletons do not correspond")
    return rotations.exp(axis / max(sine, 1e-12) * np.arctan2(sine, cosine))


def _left_leg(mapping: Mapping) -> tuple[str, str, str]:
    return mapping.align[1][1], mapping.align[4][1], mapping.align[4][2]


def _leg_length(rest: np.ndarray, chain: Iterable[int]) -> float:
    hip, knee, ankle = chain
    return float(np.linalg.norm(rest[knee] - rest[hip]) + np.linalg.norm(rest[ankle] - rest[knee]))


# --------------------------------------------------------------------------------------------- cutting glitches


def cut_glitches(clip: MotionClip, rest: np.ndarray = NOMINAL_REST, spikes_only: bool = False) -> list[MotionClip]:
    """Split a clip where a joint moves faster than 12 m/s; pieces under 8 frames are dropped.

    spikes_only: only where one step is also 1.8 times faster than both its neighbours (for clean recordings of
    kicks and flips, which do pass 12 m/s, but have seams where a loop was closed).
    """
    joints = clip.joints(rest)
    speed = np.linalg.norm(np.diff(joints, axis=0), axis=-1).max(1) * clip.fps
    fast = speed > GLITCH_SPEED
    if spikes_only:
        padded = np.concatenate([speed[:1], speed, speed[-1:]])
        fast &= speed > 1.8 * np.maximum(padded[:-2], padded[2:])
    if not fast.any():
        return [clip]
    bad = np.zeros(len(clip), bool)
    bad[:-1] |= fast
    bad[1:] |= fast
    edges = np.flatnonzero(np.diff(np.concatenate([[True], bad, [True]]).astype(int)))
    pieces = [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a >= _SHORTEST]
    return [replace(clip, name=f"{clip.name}#{i}", rotvec=clip.rotvec[a:b], pelvis=clip.pelvis[a:b])
            for i, (a, b) in enumerate(pieces)]


# --------------------------------------------------------------------------------------------- readers


def read_cmu_npz(path: str | Path, split: str | None = None, rest: np.ndarray = NOMINAL_REST) -> list[MotionClip]:
    """The CMU subset: arrays `SPLIT/NAME/rotvec` [T, 38, 3] and `.../root` [T, 3] over one skeleton."""
    clips = []
    for key, source in cmu_sources(path, split):
        part, name = key.split("/", 1)
        clips += cut_glitches(retarget(source, _cmu_mapping(), "cmu_" + name, part, rest), rest)
    return clips


def cmu_sources(path: str | Path, split: str | None = None) -> Iterable[tuple[str, SourceMotion]]:
    """Yield ('SPLIT/NAME', recording on the CMU skeleton)."""
    with np.load(_existing(path), allow_pickle=False) as data:
        for need in ("joint_names", "parents", "offsets", "fps"):
            if need not in data:
                raise MocapError(f"{path}: no array '{need}'; expected the CMU subset npz")
        names, parents = tuple(str(n) for n in data["joint_names"]), data["parents"]
        for key in (k[:-7] for k in data.files if k.endswith("/rotvec")):
            if split is None or key.startswith(split + "/"):
                yield key, SourceMotion(names, parents, data["offsets"].astype(float),
                                        rotations.exp(data[key + "/rotvec"].astype(float)),
                                        data[key + "/root"].astype(float), float(data["fps"]))


def read_bvh(path: str | Path, split: str = "train", rest: np.ndarray = NOMINAL_REST, *,
             unit: float | None = None, drop_first: bool = True) -> list[MotionClip]:
    """A CMU-named BVH. unit: metres per file unit (None: from the leg length); drop_first: frame 0 is the rest pose."""
    source = bvh_source(path, unit)
    if drop_first:
        source = replace(source, local=source.local[1:], root=source.root[1:])
    return cut_glitches(retarget(source, _cmu_mapping(), Path(path).stem, split, rest), rest)


def bvh_source(path: str | Path, unit: float | None = None) -> SourceMotion:
    """Parse a BVH into joints (end sites dropped), local rotations and root positions."""
    text = _existing(path).read_text()
    header, _, motion = text.partition("MOTION")
    if "HIERARCHY" not in header or not motion:
        raise MocapError(f"{path}: not a BVH (HIERARCHY and MOTION sections wanted)")
    names, parents, offsets, channels = _bvh_hierarchy(header)
    lines = motion.strip().splitlines()
    values = np.array([line.split() for line in lines[2:] if line.strip()], np.float64)
    width = sum(len(c) for c in channels)
    if values.ndim != 2 or values.shape[1] != width:
        raise MocapError(f"{path}: rows of {values.shape[-1]} numbers where the hierarchy declares {width} channels")
    local, root = _bvh_motion(values, channels)
    source = SourceMotion(names, parents, offsets, local, root, 1.0 / float(lines[1].split(":")[1]))
    scale = unit or _cmu_unit(source, path)
    return replace(source, offsets=offsets * scale, root=root * scale)


def _bvh_hierarchy(header: str) -> tuple[tuple[str, ...], np.ndarray, np.ndarray, list[list[str]]]:
    names, parents, offsets, channels, stack = [], [], [], [], []
    for line in header.splitlines():
        words = line.split()
        if not words:
            continue
        if words[0] in ("ROOT", "JOINT"):
            parents.append(next((s for s in reversed(stack) if s >= 0), -1))
            names.append(words[1])
            pending = len(names) - 1
        elif words[0] == "End":
            pending = -2
        elif words[0] == "{":
            stack.append(pending)
        elif words[0] == "}":
            stack.pop()
        elif words[0] == "OFFSET" and stack[-1] >= 0:
            offsets.append([float(w) for w in words[1:4]])
        elif words[0] == "CHANNELS":
            channels.append(words[2:])
    return tuple(names), np.array(parents), np.array(offsets), channels


def _bvh_motion(values: np.ndarray, channels: list[list[str]]) -> tuple[np.ndarray, np.ndarray]:
    local = np.tile(np.eye(3), (len(values), len(channels), 1, 1))
    root = np.zeros((len(values), 3))
    column = 0
    for j, names in enumerate(channels):
        for name in names:
            axis = "XYZ".index(name[0])
            if name.endswith("position") and j == 0:
                root[:, axis] = values[:, column]
            elif name.endswith("rotation"):
                vector = np.zeros((len(values), 3))
                vector[:, axis] = np.deg2rad(values[:, column])
                local[:, j] = local[:, j] @ rotations.exp(vector)
            column += 1
    return local, root


def _cmu_unit(source: SourceMotion, path: str | Path) -> float:
    index = {n: i for i, n in enumerate(source.names)}
    missing = [n for n in ("LeftUpLeg", "LeftLeg", "LeftFoot") if n not in index]
    if missing:
        raise MocapError(f"{path}: no joint named {missing[0]}; only CMU joint names are understood")
    leg = _leg_length(source.rest(), [index[n] for n in ("LeftUpLeg", "LeftLeg", "LeftFoot")])
    for unit in (1.0, 0.0254 / 0.45, 0.01, 0.001):  # metres, CMU's inches/0.45, centimetres, millimetres
        if 0.6 < leg * unit < 1.05:
            return unit
    raise MocapError(f"{path}: legs of {leg:.3g} units fit no known unit; pass unit= in metres")


_DEEPMIMIC_JOINTS = (  # name, parent, rest offset in DeepMimic axes (x forward, y up, z right), columns (4, 1 or 0)
    ("root", -1, (0, 0, 0), 4), ("chest", 0, (0, .236151, 0), 4), ("neck", 1, (0, .223894, 0), 4),
    ("right_hip", 0, (0, 0, .084887), 4), ("right_knee", 3, (0, -.421546, 0), 1),
    ("right_ankle", 4, (0, -.40987, 0), 4), ("right_shoulder", 1, (-.02405, .2435, .18311), 4),
    ("right_elbow", 6, (0, -.274788, 0), 1), ("left_hip", 0, (0, 0, -.084887), 4),
    ("left_knee", 8, (0, -.421546, 0), 1), ("left_ankle", 9, (0, -.40987, 0), 4),
    ("left_shoulder", 1, (-.02405, .2435, -.18311), 4), ("left_elbow", 11, (0, -.274788, 0), 1),
    ("right_wrist", 7, (0, -.258947, 0), 0), ("left_wrist", 12, (0, -.258947, 0), 0))
_TO_OURS = np.array([[0.0, 0.0, -1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])  # left is -z there, forward is +x


def read_deepmimic(path: str | Path, rest: np.ndarray = NOMINAL_REST) -> list[MotionClip]:
    """One DeepMimic text file (`humanoid3d_NAME.txt`); its split follows from its name (`HELD_OUT`)."""
    name = Path(path).stem.removeprefix("humanoid3d_")
    split = "test" if name in HELD_OUT else "train"
    clip = retarget(deepmimic_source(path), _deepmimic_mapping(), "deepmimic_" + name, split, rest)
    return cut_glitches(clip, rest, spikes_only=True)


def deepmimic_source(path: str | Path) -> SourceMotion:
    """Parse the text into our axes (y up, facing +z, left +x)."""
    try:
        frames = np.array(json.loads(_existing(path).read_text())["Frames"], np.float64)
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise MocapError(f"{path}: not a DeepMimic motion (JSON with rows of equal length in 'Frames')") from error
    if frames.ndim != 2 or frames.shape[1] != 44:
        raise MocapError(f"{path}: rows of {frames.shape[-1]} numbers; a DeepMimic humanoid has 44")
    local = np.tile(np.eye(3), (len(frames), len(_DEEPMIMIC_JOINTS), 1, 1))
    column = 4
    for j, (_, _, _, width) in enumerate(_DEEPMIMIC_JOINTS):
        local[:, j] = _deepmimic_rotation(frames[:, column:column + width])
        column += width
    local = _TO_OURS @ local @ _TO_OURS.T
    offsets = np.array([o for _, _, o, _ in _DEEPMIMIC_JOINTS]) @ _TO_OURS.T
    return SourceMotion(tuple(n for n, _, _, _ in _DEEPMIMIC_JOINTS), np.array([p for _, p, _, _ in _DEEPMIMIC_JOINTS]),
                        offsets, local, frames[:, 1:4] @ _TO_OURS.T, 1.0 / float(frames[0, 0]))


def _deepmimic_rotation(columns: np.ndarray) -> np.ndarray:
    if columns.shape[1] == 4:  # w, x, y, z
        return rotations.from_quaternion(columns[:, [1, 2, 3, 0]])
    angle = columns[:, 0] if columns.shape[1] == 1 else np.zeros(len(columns))
    return rotations.exp(angle[:, None] * np.array([0.0, 0.0, 1.0]))


def read_amass(path: str | Path, split: str = "train", rest: np.ndarray = NOMINAL_REST) -> list[MotionClip]:
    """An AMASS .npz (z up; `poses` [T, >=66], `trans`): SMPL rotations as they are, hands dropped."""
    with np.load(_existing(path), allow_pickle=False) as data:
        rate = next((float(data[k]) for k in ("mocap_framerate", "mocap_frame_rate") if k in data), None)
        if rate is None or "poses" not in data or "trans" not in data:
            raise MocapError(f"{path}: not an AMASS motion (poses, trans and mocap_framerate wanted)")
        poses, trans = data["poses"].astype(float), data["trans"].astype(float)
    if poses.ndim != 2 or poses.shape[1] < 66:
        raise MocapError(f"{path}: poses of shape {poses.shape}; at least 66 columns (22 joints) wanted")
    z_up = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
    return cut_glitches(_smpl_clip(Path(path).stem, split, rate, poses[:, :66], trans, rest, z_up), rest)


def read_3dpw(path: str | Path, split: str = "test", rest: np.ndarray = NOMINAL_REST) -> list[MotionClip]:
    """A 3DPW sequence .pkl (y up, 60 Hz poses where present), one clip per person. Unpickles numpy arrays only."""
    data = load_pickle(path)
    rate, suffix = (60.0, "_60Hz") if "poses_60Hz" in data else (30.0, "")
    if "poses" + suffix not in data or "trans" + suffix not in data:
        raise MocapError(f"{path}: not a 3DPW sequence (poses and trans wanted)")
    clips = []
    for i, (poses, trans) in enumerate(zip(data["poses" + suffix], data["trans" + suffix], strict=True)):
        name = f"{Path(path).stem}_{i}"
        clips += cut_glitches(_smpl_clip(name, split, rate, np.asarray(poses, float)[:, :66],
                                         np.asarray(trans, float), rest, np.eye(3)), rest)
    return clips


def _smpl_clip(name: str, split: str, fps: float, poses: np.ndarray, trans: np.ndarray, rest: np.ndarray,
               world: np.ndarray) -> MotionClip:
    """poses [T, 66] rotvecs and trans [T, 3] in a world that `world` [3, 3] takes to ours."""
    rotvec = np.zeros((len(poses), 24, 3))
    rotvec[:, :22] = poses.reshape(-1, 22, 3)
    rotvec[:, 0] = rotations.log(world @ rotations.exp(rotvec[:, 0]))
    # smplx rotates about the rest pelvis, which lies some 0.2-0.35 m below its origin; our nominal body has it at 0.
    return MotionClip(name, split, fps, rotvec, (trans + rest[0]) @ world.T)


class _NumpyOnly(pickle.Unpickler):
    """Refuses everything but numpy arrays and plain containers: a pickle from the web may run any code."""

    _ALLOWED = {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}
    _RECONSTRUCT = re.compile(r"numpy\.(_)?core\.(multiarray|numeric)$")

    def find_class(self, module: str, name: str) -> object:
        if (module, name) in self._ALLOWED:
            return super().find_class(module, name)
        if self._RECONSTRUCT.match(module) and name in ("_reconstruct", "scalar", "_frombuffer"):
            return _numpy_reconstructor(name)
        raise MocapError(f"the pickle wants {module}.{name}; only numpy arrays are loaded")


def _numpy_reconstructor(name: str) -> object:
    import importlib
    home = "numpy._core" if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else "numpy.core"
    module = "numeric" if name == "_frombuffer" else "multiarray"
    return getattr(importlib.import_module(f"{home}.{module}"), name)


def load_pickle(path: str | Path) -> dict:
    """Unpickle a dictionary of numpy arrays and plain Python values, refusing anything else."""
    raw = _existing(path).read_bytes()
    try:
        data = _NumpyOnly(io.BytesIO(raw), encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError, AttributeError, IndexError, KeyError) as error:
        raise MocapError(f"{path}: cannot be unpickled ({error})") from error
    if not isinstance(data, dict):
        raise MocapError(f"{path}: holds a {type(data).__name__}; a dictionary is wanted")
    return data


# --------------------------------------------------------------------------------------------- finding them


def mocap_path(path: str | Path | None = None) -> Path:
    """The CMU subset: argument, else environment `BLUR_MOTION_MOCAP`, else ../shared/mocap beside the repository."""
    given = path or os.environ.get("BLUR_MOTION_MOCAP")
    default = Path(__file__).resolve().parents[2].parent / "shared" / "mocap" / "cmu_subset.npz"
    return _existing(given or default)


def deepmimic_files(folder: str | Path | None = None) -> list[Path]:
    """`humanoid3d_*.txt` in `folder`, `BLUR_MOTION_DEEPMIMIC`, or an installed pybullet_data; may be empty."""
    folder = folder or os.environ.get("BLUR_MOTION_DEEPMIMIC")
    if folder is None:
        import importlib.util
        spec = importlib.util.find_spec("pybullet_data")
        if spec is None or not spec.submodule_search_locations:
            return []
        folder = Path(list(spec.submodule_search_locations)[0]) / "data" / "motions"
    return sorted(Path(folder).rglob("humanoid3d_*.txt"))


def load_training_clips(split: str = "train", path: str | Path | None = None,
                        deepmimic: str | Path | None = None, rest: np.ndarray = NOMINAL_REST) -> list[MotionClip]:
    """All clips of a split ('train' or 'test'): the CMU subset, plus DeepMimic's where its files are found."""
    if split not in ("train", "test"):
        raise MocapError(f"split is '{split}'; choose train or test")
    clips = read_cmu_npz(mocap_path(path), split, rest)
    for file in deepmimic_files(deepmimic):
        clips += [clip for clip in read_deepmimic(file, rest) if clip.split == split]
    return clips


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise MocapError(f"motion file {path} does not exist; set BLUR_MOTION_MOCAP or pass its path")
    return path
