"""Official SMPL files: reading them without chumpy and without running code, and landmarks that they do not carry.

A pickle can execute anything; this reader builds numpy arrays, scipy sparse matrices and inert stand-ins for
chumpy's wrappers, and refuses every other class by name.
"""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from blur_motion_ros.body.error import BodyError
from blur_motion_ros.body.joints import LANDMARKS, SMPL24

# Vertices of the SMPL mesh (6890) that smplx names, as published in smplx.vertex_ids.
SMPL_VERTICES = {
    "nose": 332, "right_eye": 6260, "left_eye": 2800, "right_ear": 4071, "left_ear": 583, "left_big_toe": 3216,
    "left_small_toe": 3226, "left_heel": 3387, "right_big_toe": 6617, "right_small_toe": 6624, "right_heel": 6787,
    "left_thumb_tip": 2746, "left_index_tip": 2319, "left_middle_tip": 2445, "left_pinky_tip": 2673,
    "right_thumb_tip": 6191, "right_index_tip": 5782, "right_middle_tip": 5905, "right_pinky_tip": 6133,
}
_KEYS = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table", "f", "vt", "ft",
         "landmark_regressor", "joint_basis", "landmark_basis")


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an SMPL .npz or .pkl by their official names. Raises BodyError."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
        if start[:2] == b"PK":
            with np.load(path, allow_pickle=False) as data:
                return {k: data[k] for k in _KEYS if k in data.files}
        if path.suffix == ".npz":
            raise BodyError(f"{path}: not an npz archive (damaged or cut off?); get the file again")
        with path.open("rb") as file:
            content = _SafeUnpickler(file, encoding="latin1").load()
    except BodyError:
        raise
    except (OSError, zipfile.BadZipFile) as error:
        raise BodyError(f"{path}: cannot be read ({error})") from error
    except Exception as error:  # a damaged pickle can raise anything
        raise BodyError(f"{path}: not a readable SMPL file ({type(error).__name__}: {error})") from error
    if not isinstance(content, dict):
        raise BodyError(f"{path}: holds a {type(content).__name__}, expected a dictionary of SMPL arrays")
    return {k: _plain(content[k], k, path) for k in _KEYS if k in content}


class _Chumpy:
    """Stand-in for any chumpy object: keeps its state and runs nothing."""

    def __init__(self, *args: Any):
        self.args = args
        self.state: dict = {}

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, dict) else {"x": state}


_NUMPY = {("numpy.core.multiarray", "_reconstruct"), ("numpy.core.multiarray", "scalar"), ("numpy", "ndarray"),
          ("numpy", "dtype"), ("numpy._core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "scalar"),
          ("numpy.core.numeric", "_frombuffer"), ("numpy._core.numeric", "_frombuffer")}


class _SafeUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "chumpy":
            return _Chumpy
        if (module, name) in _NUMPY:
            return super().find_class(module, name)
        if module.startswith("scipy.sparse") and name in ("csc_matrix", "csr_matrix", "coo_matrix", "csc_array",
                                                          "csr_array", "coo_array"):
            import scipy.sparse

            return getattr(scipy.sparse, name)
        if (module, name) == ("_codecs", "encode"):  # how Python 2 strings and protocol-2 bytes are rebuilt
            return _latin1
        if module in ("builtins", "__builtin__") and name in ("set", "frozenset", "slice", "complex"):
            return super().find_class("builtins", name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not allowed in a body file")


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    return text.encode("latin1")


def _plain(value: Any, key: str, path: Path) -> np.ndarray:
    """A numpy array out of an array, a sparse matrix or a chumpy wrapper."""
    if isinstance(value, _Chumpy):
        value = _chumpy_value(value)
    if hasattr(value, "toarray"):
        value = value.toarray()
    if not isinstance(value, (np.ndarray, list, tuple)):
        raise BodyError(f"{path}: '{key}' holds a {type(value).__name__}, expected an array")
    return np.asarray(value)


def _chumpy_value(node: _Chumpy) -> Any:
    """What a chumpy object evaluates to, for the kinds found in SMPL files: Ch (`x`) and Select (`a`, `idxs`)."""
    state = node.state
    if "a" in state and "idxs" in state:
        source = _chumpy_value(state["a"]) if isinstance(state["a"], _Chumpy) else state["a"]
        picked = np.asarray(source).ravel()[np.asarray(state["idxs"])]
        return picked.reshape(state["preferred_shape"]) if "preferred_shape" in state else picked
    if "x" in state:
        inner = state["x"]
        return _chumpy_value(inner) if isinstance(inner, _Chumpy) else inner
    return None


def landmark_regressor(template: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """[P,V] rows for `joints.LANDMARKS` of a mesh that carries none: v_template [V,3], J_regressor [24,V].

    The official mesh: smplx's named vertices, and mixtures of them for knuckles, eye corners and mouth. Any other
    mesh: the vertices nearest to where an adult has them, relative to the joints (some centimetres off).
    """
    rows = _official_points(len(template), joints) if len(template) == 6890 else _found_points(template, joints)
    for i, name in enumerate(SMPL24):
        rows[name] = joints[i]
    above_head = np.linalg.norm(template[:, [0, 2]] - (joints[15] @ template)[[0, 2]], axis=1) < 0.05
    rows["head_top"] = np.zeros(len(template))
    rows["head_top"][np.where(above_head, template[:, 1], -np.inf).argmax()] = 1
    return np.stack([_landmark(name, rows) for name in LANDMARKS])


def _official_points(count: int, joints: np.ndarray) -> dict[str, np.ndarray]:
    rows = {}
    for name, vertex in SMPL_VERTICES.items():
        rows[name] = np.zeros(count)
        rows[name][vertex] = 1
    return rows


def _found_points(template: np.ndarray, joints: np.ndarray) -> dict[str, np.ndarray]:
    """Nearest vertices to where an adult's points lie relative to the joints (SMPL axes, metres)."""
    at = joints @ template
    scale = np.linalg.norm(at[15] - at[0]) / 0.6
    offsets = {"nose": ("head", (0, 0.003, 0.121))}
    for side, s in (("left", 1.0), ("right", -1.0)):
        head, ankle, foot, hand = "head", f"{side}_ankle", f"{side}_foot", f"{side}_hand"
        offsets |= {
            f"{side}_eye": (head, (s * 0.030, 0.039, 0.090)),
            f"{side}_ear": (head, (s * 0.067, 0.019, 0.015)),
            f"{side}_heel": (ankle, (-s * 0.006, -0.035, -0.053)),
            f"{side}_big_toe": (foot, (-s * 0.011, -0.013, 0.060)),
            f"{side}_small_toe": (foot, (s * 0.050, -0.015, 0.007)),
            f"{side}_index_tip": (hand, (s * 0.070, -0.020, 0.050)),
            f"{side}_middle_tip": (hand, (s * 0.080, -0.039, -0.007)),
            f"{side}_pinky_tip": (hand, (s * 0.040, -0.020, -0.070)),
            f"{side}_thumb_tip": (hand, (-s * 0.010, -0.050, 0.085)),
        }
    rows = {}
    for name, (joint, offset) in offsets.items():
        rows[name] = np.zeros(len(template))
        point = at[SMPL24.index(joint)] + scale * np.array(offset)
        rows[name][np.linalg.norm(template - point, axis=1).argmin()] = 1
    return rows


def _landmark(name: str, rows: dict[str, np.ndarray]) -> np.ndarray:
    """One landmark as a mixture of named points (fractions measured on the free body)."""
    if name in rows:
        return rows[name]
    side, _, part = name.partition("_")
    eyes = 0.5 * (rows["left_eye"] + rows["right_eye"])
    nose, forward = rows["nose"], eyes - rows["head"]
    if name == "jaw":
        return nose - 0.84 * (eyes - nose) - 0.86 * forward
    if part == "mouth":
        return nose - 0.49 * (eyes - nose) - 0.43 * forward + 0.88 * (rows[f"{side}_eye"] - eyes)
    if part in ("eye_inner", "eye_outer"):
        return eyes + (0.57 if part == "eye_inner" else 1.43) * (rows[f"{side}_eye"] - eyes)
    if part in ("index", "pinky"):
        return rows[f"{side}_hand"] + 0.55 * (rows[f"{side}_{part}_tip"] - rows[f"{side}_middle_tip"])
    if part == "thumb":
        return 0.5 * rows[f"{side}_wrist"] + 0.5 * rows[f"{side}_thumb_tip"]
    if part == "middle_tip":
        return rows[f"{side}_middle_tip"]
    if part == "foot_index":
        return 0.88 * rows[f"{side}_big_toe"] + 0.12 * rows[f"{side}_small_toe"]
    raise KeyError(name)
