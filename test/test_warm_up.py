"""Nothing is left to compile or load at the first image; and of the made-up person nothing stays behind."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from blur_motion_ros import assets, config, kernel_cache
from blur_motion_ros.camera.camera import Camera
from blur_motion_ros.messages.image import to_rgb
from blur_motion_ros.motion.rotations import to_quaternion
from blur_motion_ros.types import Exposure, Frame, Status

ROOT = Path(__file__).resolve().parents[1]
SIZE = (640, 360)
CAMERA = Camera(*SIZE, np.array([[600.0, 0, 320], [0, 600.0, 180], [0, 0, 1]]))
LENS = replace(CAMERA, dist=np.array([-0.05, 0.01, 0.0, 0.0, 0.0]))
# Whatever chooses another way through the live code. The solver that is not for live use is left out.
LIVE = ("", "initialiser.kind=landmarks", "matting.method=fused", "fit.frames=3 fit.direction_every=1", "fit.frames=1",
        "fit.pose_prior_weight=0.5", "fit.stillness=false fit.short_motion=false", "fit.degree=3", "fit.size=32",
        "camera.exposure_mode=estimate", "background.drift=none background.learn=false",
        "initialiser.person.mask=false matting.shadows=false")


def settings_of(words: str) -> config.Settings:
    return config.load(overrides=config.parse_assignments(words.split()))


def pictures(count: int) -> list[np.ndarray]:
    """Of the demo's person, [360, 640, 3]."""
    import av

    with av.open(str(assets.asset("demo.mp4"))) as video:
        frames = (f for i, f in enumerate(video.decode(video=0)) if i % 2 == 0)
        return [cv2.resize(next(frames).to_ndarray(format="rgb24"), SIZE, interpolation=cv2.INTER_AREA)
                for _ in range(count)]


def message(image: np.ndarray, encoding: str = "rgb8", padding: int = 0) -> SimpleNamespace:
    """A sensor_msgs/Image, as far as `to_rgb` looks."""
    rows = (image if encoding == "rgb8" else image[..., ::-1]).reshape(len(image), -1)
    data = np.pad(rows, ((0, 0), (0, padding)))
    return SimpleNamespace(encoding=encoding, width=image.shape[1], height=len(image), step=data.shape[1],
                           is_bigendian=0, data=data.tobytes())


def stream(images: list[np.ndarray], camera: Camera = CAMERA, **layout) -> Iterator[Frame]:
    for i, image in enumerate(images):
        yield Frame(to_rgb(message(image, **layout)), Exposure(i / 15, i / 15 + 0.06), camera, i)


def answer(engine, frame: Frame, fresh: bool = False):
    """An estimate, and all that is published of it."""
    estimate = engine.fit(engine.see(frame, fresh, late=False), math.inf)
    if Status.LOST not in estimate.status:
        trajectory = engine.sample(estimate, np.linspace(estimate.start, estimate.end, 5))
        to_quaternion(trajectory.rotations)
        to_quaternion(trajectory.rotations[-1])
        engine.mesh(estimate, trajectory, -1)
        engine.colours()
    return estimate


def live(engine, images: list[np.ndarray]) -> int:
    """A stream with every event: no plate, a plate, nobody, another encoding, padded rows, a lens. -> estimates with a
    body."""
    wall = np.median(images, 0).astype(np.uint8)
    found = [answer(engine, f, f.index == 0) for f in stream(images[:3])]
    engine.set_background(to_rgb(message(wall)))
    found += [answer(engine, f, f.index == 0) for f in stream(images + [wall, wall] + images[-3:])]
    found += [answer(engine, f, f.index == 0) for f in stream(images[:3], encoding="bgr8")]
    found += [answer(engine, f, f.index == 0) for f in stream(images[:3], padding=16)]
    found += [answer(engine, f, f.index == 0) for f in stream(images[:3], LENS)]
    return sum(Status.LOST not in e.status for e in found)


def compiled_late(assignments: list[str]) -> dict[str, list[str]]:
    """For every set of assignments the kernels that got a new signature after the engine said it was ready."""
    from blur_motion_ros.nodes.engine import PipelineEngine
    from blur_motion_ros.warm_up import kernels

    images, late = pictures(8), {}
    for words in assignments:
        engine = PipelineEngine(settings_of(words))
        ready = {name: set(k.signatures) for name, k in kernels().items()}
        assert live(engine, images) >= 12, f"{words}: the person of the demo was not found"
        late[words] = [name for name, k in kernels().items() if set(k.signatures) - ready.get(name, set())]
    return late


def in_fresh_process(assignments: list[str]) -> dict[str, list[str]]:
    code = f"import json, test_warm_up as t; print(json.dumps(t.compiled_late({assignments!r})))"
    path = os.pathsep.join([str(ROOT), str(ROOT / "test")])
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                            env=os.environ | {"PYTHONPATH": path})
    assert result.returncode == 0, result.stderr[-2000:]
    return json.loads(result.stdout.splitlines()[-1])


@pytest.fixture(autouse=True)
def fetched():
    pytest.importorskip("av")
    for name in ("demo.mp4", "pose_detection.tflite", "pose_landmark_full.tflite"):
        try:
            assets.asset(name)
        except assets.AssetError as error:
            pytest.skip(str(error))


def test_no_kernel_is_compiled_after_the_node_is_ready():
    assert in_fresh_process(list(LIVE[:3])) == {words: [] for words in LIVE[:3]}


@pytest.mark.long
def test_no_kernel_is_compiled_after_the_node_is_ready_with_any_live_setting():
    assert in_fresh_process(list(LIVE[3:])) == {words: [] for words in LIVE[3:]}


def test_without_warming_up_kernels_are_compiled_late():
    """That the test above could fail."""
    late = in_fresh_process(["ros.warm_up=false"])["ros.warm_up=false"]
    for kernel in ("initialiser.registration._bones", "background.learn.learn", "fit.image_terms._blocks"):
        assert f"blur_motion_ros.{kernel}" in late


def test_networks_have_run_as_often_as_they_take_to_specialise(monkeypatch):
    """TorchScript profiles a module in its first call and compiles it for what it saw in the second."""
    from blur_motion_ros.fit.short_motion import ShortMotionPrior, load_network
    from blur_motion_ros.pipeline import Pipeline
    from blur_motion_ros.warm_up import warm_up

    calls = []
    pipeline = Pipeline(settings_of(""))
    temporal, expect = pipeline.initialiser.stream, ShortMotionPrior.expect
    network = temporal._network
    monkeypatch.setattr(temporal, "_network", lambda *a: calls.append("temporal") or network(*a))
    monkeypatch.setattr(ShortMotionPrior, "expect", lambda p, e: calls.append(id(p.network)) or expect(p, e))
    warm_up(pipeline)
    assert calls.count("temporal") >= 3 and calls.count(id(load_network())) >= 3
    assert pipeline._fit.short_motion.network is load_network(), "another copy would begin at its first call"


def test_all_networks_that_read_landmarks_are_loaded(monkeypatch):
    """Of short and of long exposures; somebody is found, which is when a mirror is used too."""
    from blur_motion_ros.initialiser import blazepose
    from blur_motion_ros.pipeline import Pipeline
    from blur_motion_ros.warm_up import warm_up

    heavy = assets.present("pose_landmark_heavy.tflite")
    pipeline = Pipeline(settings_of(""))
    warm_up(pipeline)

    def loaded_late(*args):
        raise AssertionError(f"{args[0]} is loaded after the warm-up")

    monkeypatch.setattr(blazepose, "_Network", loaded_late)
    tracker = pipeline.initialiser.tracker
    assert tracker.reading(0.06).landmark_file.name == f"pose_landmark_{'heavy' if heavy else 'blur'}.tflite"
    for exposure in (0.03, 0.06):
        tracker.reset()
        assert tracker.track(pictures(1)[0], None, exposure) is not None


def test_made_up_person_is_forgotten():
    """The first frames are answered as by a pipeline that was never warmed up."""
    from blur_motion_ros.nodes.engine import PipelineEngine

    images = pictures(5)
    wall = np.median(pictures(20), 0).astype(np.uint8)
    answers = []
    for warm in ("true", "false"):
        engine = PipelineEngine(settings_of(f"ros.warm_up={warm}"))
        engine.set_background(wall)
        answers.append([answer(engine, f, f.index == 0) for f in stream(images)])
    for warmed, cold in zip(*answers, strict=True):
        assert warmed.status == cold.status
        np.testing.assert_allclose(warmed.reference.transl, cold.reference.transl, atol=1e-6)
        np.testing.assert_allclose(warmed.coefficients, cold.coefficients, atol=1e-5)


def test_a_read_only_installation_without_a_home_gets_a_place_for_kernels(monkeypatch, tmp_path):
    """Numba itself would refuse to import a module with kernels there."""
    monkeypatch.setenv(kernel_cache.VARIABLE, "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kernel_cache.ensure()
    assert not os.environ[kernel_cache.VARIABLE], "the checkout or the user's cache can be written"
    monkeypatch.setattr(kernel_cache.os, "access", lambda path, mode: False)
    kernel_cache.ensure()
    assert not os.environ[kernel_cache.VARIABLE] and (tmp_path / "numba").is_dir()
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(kernel_cache.tempfile, "tempdir", str(tmp_path))
    kernel_cache.ensure()
    place = Path(os.environ[kernel_cache.VARIABLE])
    assert place.parent == tmp_path and place.is_dir()
