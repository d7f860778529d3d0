"""`blur-motion eval vibe`: the landmark network on held-out recordings, and alone as initialiser on sequences."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

from blur_motion_ros.types import Frame, Landmarks, Plate

Measure = Callable[[Frame, Landmarks], np.ndarray]  # -> LSP14 joints [14, 3] m in the camera frame


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--network", type=Path, default=None, help="TorchScript file (default: the packaged one)")
    parser.add_argument("--hindsight-network", type=Path, default=None,
                        help="bidirectional TorchScript file, for the row 'hindsight' (default: the packaged one)")
    parser.add_argument("--recordings", type=Path, default=None,
                        help="--data folder of `blur-motion train vibe`: score its held-out test recordings")
    parser.add_argument("--sequences", type=Path, nargs="*", default=[],
                        help="sequence folders with ground truth: BlazePose, registration and VIBE, each held constant")
    parser.add_argument("--no-plate", action="store_true", help="do not show the clean plate to the pose network")


def run(args: argparse.Namespace) -> int:
    if args.recordings is None and not args.sequences:
        raise ValueError("nothing to evaluate: give --recordings FOLDER or --sequences FOLDER ...")
    if args.recordings is not None:
        from blur_motion_ros.initialiser.vibe import load_network
        from blur_motion_ros.learning.vibe_command import load_skeleton, print_scores, score, test_examples

        network = load_network(args.network or packaged_network())
        print_scores(score(network, test_examples(args.recordings), load_skeleton()))
        print_table(score_recordings(args.recordings, args.network, args.hindsight_network))
    if args.sequences:
        print_table(score_sequences(args.sequences, args.network, not args.no_plate, args.hindsight_network))
    return 0


def packaged_network() -> Path:
    from blur_motion_ros.assets import packaged
    from blur_motion_ros.initialiser.vibe import LANDMARK_NETWORK

    return packaged(LANDMARK_NETWORK)


def score_sequences(folders: list[Path], network: Path | None, use_plate: bool, hindsight: Path | None = None
                    ) -> dict[str, dict[str, dict]]:
    """method -> sequence -> metrics (`evaluation.metrics`), of one pose per exposure, plus the acceleration error
    between mid-exposures in mm/frame^2 (`accel`). All methods get the same landmarks."""
    from blur_motion_ros.data import sequence as sequences
    from blur_motion_ros.evaluation.ground_truth import evaluated_folders, read_ground_truth

    out: dict[str, dict[str, dict]] = {}
    for folder in evaluated_folders(list(folders)):
        recording, truth = sequences.read(folder), read_ground_truth(folder)
        found = track(recording, use_plate)
        for name, make in methods(network).items():
            poses = _poses(found, make())
            out.setdefault(name, {})[folder.name] = _metrics(poses, truth)
        out.setdefault("hindsight", {})[folder.name] = _metrics(hindsight_poses(found, network, hindsight), truth)
    return out


def track(recording, use_plate: bool) -> list[tuple[Frame, Landmarks | None]]:
    """Landmarks of every frame."""
    from blur_motion_ros import light
    from blur_motion_ros.initialiser.blazepose import BlazePose
    from blur_motion_ros.initialiser.person import PersonTracker

    plate = None
    if use_plate and recording.plate is not None:
        plate = Plate(light.to_linear(recording.plate), np.full(recording.plate.shape[:2], 0.004, np.float32))
    tracker = PersonTracker(BlazePose.pretrained())
    return [(frame, tracker.track(frame.image, plate)) for frame in recording]


def methods(network: Path | None) -> dict[str, Callable[[], Measure]]:
    """Fresh measurers by name."""
    from blur_motion_ros.body import load_body
    from blur_motion_ros.initialiser.landmark import Registrar
    from blur_motion_ros.initialiser.sides import SideKeeper
    from blur_motion_ros.initialiser.vibe import LandmarkStream, VibeInitialiser, start_of, state_of

    body = load_body()

    def blazepose() -> Measure:
        from blur_motion_ros.body.joints import lsp14

        return lambda frame, seen: lsp14(seen.world)

    def registration() -> Measure:
        register, sides = Registrar(body), SideKeeper()
        return lambda frame, seen: joints_of(register(sides.correct(seen, frame.exposure.middle), frame).state, body)

    def alone() -> Measure:
        stream, register, sides = LandmarkStream.load(network), Registrar(body), SideKeeper()

        def measure(frame: Frame, seen: Landmarks) -> np.ndarray:
            seen = sides.correct(seen, frame.exposure.middle)
            start = start_of(register(seen, frame).state, body)
            return joints_of(state_of(stream.step(frame, seen, start), body), body)
        return measure

    def vibe(smooth: bool) -> Measure:
        initialiser = VibeInitialiser(None, LandmarkStream.load(network), body, smooth=smooth)
        return lambda frame, seen: joints_of(initialiser.of_landmarks(frame, seen).state, body)

    return {"BlazePose": blazepose, "registration": registration, "network": alone,
            "fused": lambda: vibe(False), "VIBE": lambda: vibe(True)}


def hindsight_poses(found: list[tuple[Frame, Landmarks | None]], network: Path | None, hindsight: Path | None
                    ) -> np.ndarray:
    """LSP14 joints [T, 14, 3] m as measured again with all frames known (`initialiser.hindsight`); NaN: nobody."""
    from blur_motion_ros.body import load_body
    from blur_motion_ros.initialiser.hindsight import Hindsight, Look
    from blur_motion_ros.initialiser.vibe import LandmarkStream, VibeInitialiser

    body = load_body()
    live = VibeInitialiser(None, LandmarkStream.load(network), body, hindsight_network=hindsight)
    looks = [Look(frame.exposure, frame.camera, None if seen is None else live.of_landmarks(frame, seen))
             for frame, seen in found]
    return np.stack([np.full((14, 3), np.nan) if m is None else joints_of(m.state, body)
                     for m in Hindsight.of(live)(looks)])


def score_recordings(data: Path, network: Path | None, hindsight: Path | None = None, most: int = 0
                     ) -> dict[str, dict[str, dict]]:
    """method -> kind of motion -> metrics on held-out recordings (`mpjpe`, `pa` in mm, `accel` in mm/frame^2)."""
    from blur_motion_ros.camera.camera import Camera
    from blur_motion_ros.learning.vibe_data import Recordings, examples_of, landmarks_of
    from blur_motion_ros.learning.vibe_scene import HEIGHT, WIDTH
    from blur_motion_ros.types import Exposure

    r = Recordings.load(list((data / "test").glob("*.npz")))
    r = r.select(np.arange(min(most or len(r), len(r))))
    seen = examples_of(r).weight > 0
    poses: dict[str, list] = {}
    for i in range(len(r)):
        camera, image = Camera(WIDTH, HEIGHT, r.K[i]), np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        found = [(Frame(image, Exposure(a, b), camera, j), landmarks_of(r, i, j) if r.score[i, j] > 0 else None)
                 for j, (a, b) in enumerate(zip(r.opened[i], r.closed[i], strict=True))]
        for name, make in methods(network).items():
            poses.setdefault(name, []).append(_poses(found, make()))
        poses.setdefault("hindsight", []).append(hindsight_poses(found, network, hindsight))
    kinds = {"all": np.arange(len(r))}
    return {name: {kind: _recorded_metrics(np.stack(p)[index], r, index, seen) for kind, index in kinds.items()}
            for name, p in poses.items()}


def _recorded_metrics(poses: np.ndarray, r, index: np.ndarray, seen: np.ndarray) -> dict[str, float]:
    from blur_motion_ros.body.joints import lsp14
    from blur_motion_ros.learning.vibe_train import joint_scores

    truth = lsp14(r.joints[index].astype(float))
    ok = seen[index] & np.isfinite(poses).all((2, 3))
    mpjpe, pa, accel = joint_scores(np.nan_to_num(poses), truth, ok)
    away = poses[:, :, 2:4].mean(2) - truth[:, :, 2:4].mean(2)
    return {"mpjpe": mpjpe, "pa": pa, "accel": accel, "root": float(np.linalg.norm(away[ok], axis=-1).mean() * 1e3),
            "missing": float(1 - ok[seen[index]].mean())}


def joints_of(state, body) -> np.ndarray:
    """LSP14 joints [14, 3] m of a body state, camera frame."""
    from blur_motion_ros.body.joints import lsp14
    from blur_motion_ros.data.mocap import PARENTS, forward
    from blur_motion_ros.motion.pose import local_rotations

    local = local_rotations(state)
    _, joints = forward(local[None], body.rest_joints(state.betas), PARENTS)
    return lsp14(joints[0] + state.transl)


def _poses(found: list[tuple[Frame, Landmarks | None]], measure: Measure) -> np.ndarray:
    return np.stack([np.full((14, 3), np.nan) if seen is None else measure(frame, seen) for frame, seen in found])


def _metrics(poses: np.ndarray, truth) -> dict[str, float]:
    from blur_motion_ros.evaluation.metrics import evaluate, root_relative

    middle = truth.times.shape[1] // 2
    out = evaluate(truth.times[:, middle:middle + 1], poses[:, None], truth.times, truth.joints, truth.K)
    error = root_relative(poses) - root_relative(truth.joints[:, middle])
    out["accel"] = float(np.nanmean(np.linalg.norm(np.diff(error, 2, axis=0), axis=-1)) * 1e3)
    return out


def print_table(scores: dict[str, dict[str, dict]]) -> None:
    columns = ("mpjpe", "pa", "mid", "pa_mid", "accel", "root", "reproj", "missing")
    print(f"{'one pose per exposure, held':30s} " + " ".join(f"{c:>8s}" for c in columns))
    for method, sequences in scores.items():
        for name, row in sequences.items():
            print(f"{method + ' ' + name:30s} " + " ".join(f"{row.get(c, np.nan):8.1f}" for c in columns))
        print(f"{method + ' mean':30s} " + " ".join(
            f"{np.mean([row.get(c, np.nan) for row in sequences.values()]):8.1f}" for c in columns))
