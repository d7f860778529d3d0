"""Run methods over sequences with ground truth and gather the numbers: per exposure, sequence and blur-rate bin."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from blur_motion_ros.config import Settings
from blur_motion_ros.data.sequence import read_sequence
from blur_motion_ros.evaluation import metrics
from blur_motion_ros.evaluation.calibration import Calibration, calibration
from blur_motion_ros.evaluation.ground_truth import GroundTruth, read_ground_truth
from blur_motion_ros.evaluation.methods import Method
from blur_motion_ros.evaluation.predictions import Prediction, read_prediction, save_prediction
from blur_motion_ros.evaluation.rerender import alpha_agreement

BLUR_EDGES = (0.0, 0.1, 0.2, 0.4, 0.6, 1.0)


@dataclass(frozen=True)
class Result:
    """One method on one sequence.  rows: metric -> [F];  along: [S] mm, root-relative error of each sub-frame (mean
    over exposures and joints);  speeds: [n, 2] m/s, predicted and true speed of wrists and ankles at mid-exposure;
    joints: the prediction at the truth's instants [F, S, 14, 3]."""

    method: str
    sequence: str
    group: str
    rows: dict[str, np.ndarray]
    blur_rate: np.ndarray
    along: np.ndarray
    speeds: np.ndarray
    joints: np.ndarray
    calibration: Calibration | None
    seconds: float
    psnr: float = float("nan")
    alpha_iou: float = float("nan")
    pve: float = float("nan")

    @property
    def means(self) -> dict[str, float]:
        return metrics.summarise(self.rows)


@dataclass(frozen=True)
class Benchmark:
    """All results, in the order they were asked for.  folders: sequence name -> its folder."""

    results: tuple[Result, ...]
    folders: dict[str, Path] = field(default_factory=dict)

    @property
    def methods(self) -> list[str]:
        return list(dict.fromkeys(r.method for r in self.results))

    @property
    def sequences(self) -> list[str]:
        return list(dict.fromkeys(r.sequence for r in self.results))

    def of(self, method: str) -> list[Result]:
        return [r for r in self.results if r.method == method]

    def overall(self, method: str) -> dict[str, float]:
        """Mean over sequences, equal weight."""
        return metrics.overall(r.means for r in self.of(method))

    def binned(self, method: str, metric: str, edges: Iterable[float] = BLUR_EDGES) -> tuple[np.ndarray, np.ndarray]:
        """Mean of a metric and number of exposures in each blur-rate bin, over all exposures alike."""
        edges = np.asarray(list(edges))
        results = self.of(method)
        rate = np.concatenate([r.blur_rate for r in results])
        value = np.concatenate([r.rows[metric] for r in results])
        place = np.clip(np.digitize(rate, edges) - 1, 0, len(edges) - 2)
        known = np.isfinite(value) & np.isfinite(rate)
        count = np.bincount(place[known], minlength=len(edges) - 1)
        total = np.bincount(place[known], value[known], len(edges) - 1)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan), count


def run(folders: Iterable[Path], methods: Iterable[Method], settings: Settings, cache: Path | None = None,
        reuse: bool = False, say: Callable[[str], None] = lambda text: None,
        offline: Settings | None = None) -> Benchmark:
    """Every method on every sequence folder. cache: predictions are written there (and with `reuse` read back).
    offline: settings of the methods that look ahead (default: the same)."""
    folders, methods = list(folders), list(methods)
    results = []
    for folder, method in _pairs(folders, methods):
        path = cache / method.name / f"{folder.name}.npz" if cache else None
        if reuse and path is not None and path.is_file():
            prediction = read_prediction(path)
        else:
            given = settings if method.causal or offline is None else offline
            prediction = method.run(read_sequence(folder), given)
            if path is not None:
                save_prediction(path, prediction)
        result = score(method.name, prediction, read_ground_truth(folder), group_of(folder.name))
        results.append(replace(result, **_picture_scores(prediction, folder)))
        m = results[-1].means
        say(f"{folder.name:<24} {method.name:<22} mpjpe {m['mpjpe']:6.1f} mm  pa {m['pa']:6.1f} mm"
            f"  vel {m['vel']:5.2f} m/s  {1e3 * prediction.seconds:5.0f} ms/frame")
    return Benchmark(tuple(results), {f.name: f for f in folders})


def score(method: str, prediction: Prediction, truth: GroundTruth, group: str = "main") -> Result:
    """Judge one prediction."""
    joints = metrics.resample(prediction.times, prediction.joints, truth.times)
    rows = metrics.per_exposure(joints, truth.joints, truth.times, truth.K)
    error = np.linalg.norm(metrics.root_relative(joints) - metrics.root_relative(truth.joints), axis=-1)
    with np.errstate(all="ignore"):
        along = np.array([metrics.finite_mean(error[:, s]) for s in range(error.shape[1])]) * 1e3
    return Result(method, truth.name, group, rows, truth.blur_rate, along, _speeds(joints, truth), joints,
                  _calibration(prediction, truth), prediction.seconds, pve=surface_error(prediction, truth))


def surface_error(prediction: Prediction, truth: GroundTruth) -> float:
    """PVE, mm: vertices at mid-exposure relative to the pelvis joint, mean over the exposures predicted. NaN where a
    method has no body, the truth no vertices, or the meshes differ."""
    if any(a is None for a in (prediction.vertices, prediction.smpl24, truth.vertices, truth.smpl24)):
        return float("nan")
    if prediction.vertices.shape != truth.vertices.shape:
        return float("nan")
    pelvis = [a[:, a.shape[1] // 2, 0] for a in (prediction.smpl24, truth.smpl24)]
    known = np.isfinite(prediction.vertices).all((1, 2))
    if not known.any():
        return float("nan")
    return metrics.pve(prediction.vertices[known], truth.vertices[known], pelvis[0][known], pelvis[1][known])


def group_of(name: str) -> str:
    """Table group of a sequence: 'real', 'low blur', 'slow shutter' or 'main', by its name."""
    if name.startswith("r_"):
        return "real"
    if "lowblur" in name:
        return "low blur"
    return "slow shutter" if "slow" in name else "main"


def _pairs(folders: list[Path], methods: list[Method]) -> Iterator[tuple[Path, Method]]:
    for folder in folders:
        for method in methods:
            yield folder, method


def _speeds(joints: np.ndarray, truth: GroundTruth) -> np.ndarray:
    """Predicted and true speed [n, 2] of wrists and ankles in the middle of each exposure, camera frame."""
    ends = [metrics.LSP14.index(f"{s}_{p}") for s in ("left", "right") for p in ("wrist", "ankle")]
    middle = (truth.times.shape[1] - 2) // 2
    pairs = [np.linalg.norm(metrics.velocity(j, truth.times)[:, middle][:, ends], axis=-1).ravel()
             for j in (joints, truth.joints)]
    pairs = np.stack(pairs, 1)
    return pairs[np.isfinite(pairs).all(1)]


def _picture_scores(prediction: Prediction, folder: Path) -> dict[str, float]:
    """How well the motion explains the pictures: for methods that render, mean over exposures."""
    if prediction.alpha is None or prediction.alpha_K is None or prediction.psnr is None:
        return {}
    camera = read_sequence(folder).camera
    iou = alpha_agreement(prediction.alpha, prediction.alpha_K, folder, camera)
    return {"psnr": metrics.finite_mean(prediction.psnr), "alpha_iou": metrics.finite_mean(iou)}


def _calibration(prediction: Prediction, truth: GroundTruth) -> Calibration | None:
    """Covariance of SMPL24 joints against their error; None where a method states none or the truth lacks them."""
    if prediction.covariance is None or prediction.smpl24 is None or truth.smpl24 is None:
        return None
    if prediction.times.shape != truth.times.shape or not np.allclose(prediction.times, truth.times, atol=1e-6):
        return None
    floor = 1e-10 * np.eye(3)  # prints of float32 may leave a zero eigenvalue
    return calibration(prediction.smpl24 - truth.smpl24, prediction.covariance + floor)
