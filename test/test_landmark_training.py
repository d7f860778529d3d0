"""The landmark network that reads blur: its torch twin against TFLite's interpreter, the truth that it learns from
against projection and against MediaPipe's own network, its training, and the weights that ship."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from blur_motion_ros.assets import asset, packaged  # noqa: E402
from blur_motion_ros.body.joints import BLAZEPOSE33, BLAZEPOSE33_MIRROR  # noqa: E402
from blur_motion_ros.camera.camera import Camera  # noqa: E402
from blur_motion_ros.data.synth.body import smpl_body  # noqa: E402
from blur_motion_ros.data.synth.scene import Shot, look_at  # noqa: E402
from blur_motion_ros.initialiser import tflite_graph  # noqa: E402
from blur_motion_ros.initialiser.blazepose import Region, _Network  # noqa: E402
from blur_motion_ros.learning import landmark_data as data  # noqa: E402
from blur_motion_ros.learning import landmark_train as train  # noqa: E402
from blur_motion_ros.learning.landmark_net import Answer, LandmarkGraph, pictures_of  # noqa: E402
from blur_motion_ros.learning.vibe_motion import random_clips  # noqa: E402

PLAIN = replace(data.TEST, plain=1.0, scale=0.0, angle=0.0, offset=0.0)


@pytest.fixture(scope="module")
def people() -> list:
    """Twenty-four exposures of the free body in random shapes, clothes and invented motions."""
    rng, rows = np.random.default_rng(3), []
    clips = random_clips(12, seed=8)
    bodies = [smpl_body(rng.normal(0, 1, 10)) for _ in range(4)]
    while len(rows) < 24:
        rows += data._film(bodies, clips, np.full(len(clips), 1 / len(clips)), 0.0, rng)
    return list(np.array(rows[:24], data._FIELDS))


@pytest.fixture(scope="module")
def content() -> bytes:
    return asset("pose_landmark_full.tflite").read_bytes()


def interpreter(content: bytes, tmp_path) -> _Network:
    path = tmp_path / "network.tflite"
    path.write_bytes(content)
    return _Network(path, 1, tflite_graph.at_half_size)


# -- the network in torch ------------------------------------------------------------------------------------------


def views(people, count: int = 6) -> list[np.ndarray]:
    """Several, since single landmarks of single pictures jump between two places at the least cause."""
    return [data.compose(people, 3 * k, np.random.default_rng(k), data.TEST).view for k in range(count)]


def apart(ours: Answer, theirs: list[dict]) -> dict[str, np.ndarray]:
    """How far answers are from those of the interpreter, by what they say."""
    told = {"points": (ours.points.flatten(1), (195,)), "world": (ours.world.flatten(1), (117,)),
            "score": (ours.score[:, None], (1,)), "heat": (ours.heat.permute(0, 2, 3, 1).sigmoid(), (64, 64, 39)),
            "mask": (ours.mask.permute(0, 2, 3, 1).sigmoid(), (128, 128, 1))}
    out = {}
    for name, (mine, shape) in told.items():
        other = torch.from_numpy(np.stack([t[shape] for t in theirs]))
        other = other.sigmoid() if name in ("heat", "mask") else other
        out[name] = (mine - other).abs().numpy()
    out["points"] = out["points"].reshape(len(theirs), 39, 5)[..., :2]
    return out


def test_the_torch_graph_says_what_the_interpreter_says(people, content, tmp_path):
    seen = views(people)
    network = interpreter(content, tmp_path)
    theirs = [network(view) for view in seen]
    with torch.no_grad():
        exact, quick = (apart(LandmarkGraph(content, stem)(pictures_of(seen)), theirs) for stem in (0, 64))
    for name, bound in {"points": 0.02, "world": 1e-4, "score": 1e-4, "heat": 1e-3, "mask": 1e-3}.items():
        assert exact[name].max() < bound, name
    for name, bound in {"points": 0.7, "world": 0.015, "score": 0.01, "heat": 1e-3, "mask": 0.01}.items():
        assert quick[name].mean() < bound, f"{name}: the stem is in bfloat16"


def test_a_file_packed_again_is_the_same_network(people, content, tmp_path):
    view = data.compose(people, 1, np.random.default_rng(0)).view
    before, after = interpreter(content, tmp_path)(view), interpreter(LandmarkGraph(content).packed(), tmp_path)(view)
    assert all(np.array_equal(before[shape], after[shape]) for shape in before)


def test_a_packed_file_has_the_weights_that_were_learned(people, content, tmp_path):
    seen, net = views(people), LandmarkGraph(content)
    with torch.no_grad():
        for weight in net.weights.values():
            weight.mul_(1 + 0.01 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
        ours = net(pictures_of(seen))
    packed, before = interpreter(net.packed(), tmp_path), interpreter(content, tmp_path)
    left, moved = (apart(ours, [network(view) for view in seen])["points"].mean() for network in (packed, before))
    assert left < 0.1 * moved and left < 0.5  # the file's numbers have half precision


def test_the_torch_graph_moves_as_a_whole(people, content):
    """To another type of numbers, as to another device."""
    view = pictures_of([data.compose(people, 1, np.random.default_rng(0)).view])
    with torch.no_grad():
        one, other = LandmarkGraph(content)(view), LandmarkGraph(content).double()(view.double())
    assert other.points.dtype == other.heat.dtype == torch.float64
    assert (one.points[..., :2] - other.points[..., :2]).abs().max() < 0.05


def test_another_file_is_refused(content):
    with pytest.raises(ValueError, match="not a TFLite file"):
        LandmarkGraph(b"nothing of that kind")
    with pytest.raises(ValueError, match="not a landmark network"):
        LandmarkGraph(asset("pose_detection.tflite").read_bytes())


# -- the truth -----------------------------------------------------------------------------------------------------


def test_the_camera_of_a_cut_sees_what_the_cut_shows():
    R, T = look_at(np.array([1.0, 1.5, 3.0]), np.array([0.2, 0.9, 0.0]))
    shot = Shot(Camera(640, 480, np.array([[600.0, 0, 319.5], [0, 600, 239.5], [0, 0, 1]])), R, T)
    to_image = np.vstack([Region(np.array([300.0, 260.0]), 210.0, 0.4).to_image(128), [0, 0, 1]])
    cut = data._turned(shot, np.linalg.inv(to_image), 128)
    points = np.random.default_rng(0).normal([0.2, 0.9, 0], 0.4, (20, 3))
    pixels = shot.camera.project(shot.to_camera(points))
    expected = (np.linalg.inv(to_image) @ np.column_stack([pixels, np.ones(20)]).T).T[:, :2]
    assert np.abs(cut.camera.project(cut.to_camera(points)) - expected).max() < 1e-6
    assert np.linalg.det(cut.R) == pytest.approx(1)
    assert (cut.to_camera(points)[:, 2] > 0).all()


def test_a_mirrored_picture_has_mirrored_landmarks(people):
    one, other = (data.compose(people, 3, np.random.default_rng(7), replace(PLAIN, mirrored=m)) for m in (0.0, 1.0))
    assert np.abs(one.view[:, ::-1] - other.view).max() < 0.02
    order = list(BLAZEPOSE33_MIRROR)
    assert np.abs(other.points - (one.points * [-1, 1] + [255, 0])[order]).max() < 1e-3
    assert np.allclose(other.world, (one.world * [-1, 1, 1])[order])


def test_a_turned_picture_has_turned_landmarks(people):
    straight = data.compose(people, 3, np.random.default_rng(7), PLAIN)
    turned = data.compose(people, 3, np.random.default_rng(7), replace(PLAIN, turned=1.0))
    a, b = (p.points - p.points.mean(0) for p in (straight, turned))
    u, _, v = np.linalg.svd(b.T @ a)
    turn = u @ v
    assert np.linalg.det(turn) > 0
    assert np.abs(b - a @ turn.T).max() < 0.01
    assert np.abs(turned.world[:, :2] - straight.world[:, :2] @ turn.T).max() < 1e-3
    assert np.abs(turn - np.eye(2)).max() > 0.05


def test_the_landmarks_are_where_mediapipes_network_sees_them(people, content):
    """Independent of our geometry: a network made for people finds the same points, in the picture and in depth."""
    net, points, world = LandmarkGraph(content), [], []
    for i in range(len(people)):
        if people[i]["travel"] < 0.06:
            example = data.compose(people, i, np.random.default_rng(i), data.TEST)
            with torch.no_grad():
                answer = net(pictures_of([example.view]), mask=False)
            points.append(np.linalg.norm(answer.points[0, :33, :2].numpy() - 0.5 - example.points, axis=1))
            world.append((answer.world[0, 11:33].numpy(), example.world[11:]))
    assert len(points) >= 8
    assert np.median(points) < 9  # px of 256
    told, true = (np.array(w).reshape(-1, 3) for w in zip(*world, strict=True))
    for k, least in enumerate((0.75, 0.85, 0.5)):
        assert np.corrcoef(told[:, k], true[:, k])[0, 1] > least


def test_composed_people_are_where_their_landmarks_are(people):
    """Against the plate alone, what differs in the picture is the body: its middle is that of the landmarks."""
    for i in (0, 9, 17):
        own = people[i]
        rows, columns = np.nonzero(own["alpha"] > 128)
        low, high = own["points"].min(0), own["points"].max(0)
        assert columns.min() > low[0] - 30 and columns.max() < high[0] + 30
        assert rows.min() > low[1] - 45 and rows.max() < high[1] + 30
        nose, hip = own["points"][BLAZEPOSE33.index("nose")], own["points"][[23, 24]].mean(0)
        assert nose[1] < hip[1] + 40  # regions are upright


# -- training ------------------------------------------------------------------------------------------------------


def answer_of(points: torch.Tensor, world: torch.Tensor) -> Answer:
    """A perfect answer."""
    n = len(points)
    whole = torch.zeros(n, 39, 5)
    whole[:, :33, :2] = points + 0.5
    heat = torch.logit(torch.cat([train.heatmaps(points), torch.zeros(n, 6, 64, 64)], 1).clamp(1e-6, 1 - 1e-6))
    return Answer(whole, torch.cat([world, torch.zeros(n, 6, 3)], 1), torch.ones(n), heat, None)


def test_the_losses_are_least_at_the_truth():
    generator = torch.Generator().manual_seed(0)
    points, world = 60 + 130 * torch.rand(2, 33, 2, generator=generator), torch.randn(2, 33, 3, generator=generator)
    best = train.losses(answer_of(points, world), points, world, torch.ones(2))
    for dp, dw in ((3.0, 0.0), (0.0, 0.05)):
        moved = answer_of(points + dp * torch.randn(points.shape, generator=generator),
                          world + dw * torch.randn(world.shape, generator=generator))
        worse = train.losses(moved, points, world, torch.ones(2))
        for name in ("across", "heat") if dp else ("space", "bones"):
            assert worse[name] > best[name] + 1e-3
    nobody = train.losses(answer_of(points, world), points + 20, world + 1, torch.zeros(2))
    assert sum(nobody.values()) == 0


def test_heatmaps_peak_at_their_point():
    heat = train.heatmaps(torch.tensor([[[100.0, 41.5]]]))[0, 0]
    row, column = np.unravel_index(int(heat.argmax()), heat.shape)
    assert (column, row) == (25, 10)  # (100 + 0.5) / 4 - 0.5 and (41.5 + 0.5) / 4 - 0.5
    assert 0.95 < heat.max() <= 1


def test_training_learns_and_goes_on_where_it_stopped(people, content):
    options = train.LandmarkOptions(steps=40, batch=4, rate=5e-3)
    fixed = [data.compose(people, i, np.random.default_rng(i), data.TEST) for i in range(4)]
    points, world = (torch.from_numpy(np.stack([getattr(e, k) for e in fixed])) for k in ("points", "world"))

    def loss(net: LandmarkGraph) -> float:
        with torch.no_grad():
            answer = net(pictures_of([e.view for e in fixed]), mask=False)
        return float(sum(train.losses(answer, points, world, torch.ones(4)).values()))

    def trained(first: int, last: int, state: dict | None = None) -> train.Trainer:
        with ThreadPoolExecutor(2) as pool:
            trainer = train.Trainer(options, people[:4], content, pool)
            if state is not None:
                trainer.restore(state)
            trainer.log = [trainer.update(step) for step in range(first, last)]
        return trainer

    torch.set_num_threads(1)
    whole = trained(0, 18)
    parts = trained(12, 18, trained(0, 12).state())
    assert loss(whole.net) < 0.9 * loss(whole.before)
    assert parts.log[-1] == pytest.approx(whole.log[-1], rel=1e-6)
    view = pictures_of([fixed[0].view])
    with torch.no_grad():
        said = [LandmarkGraph(c)(view).points for c in (whole.blended(0.0), content, whole.blended(0.5))]
    assert torch.equal(said[0], said[1]) and not torch.equal(said[0], said[2])


# -- what ships ----------------------------------------------------------------------------------------------------


def test_the_packaged_network_reads_blur_better(people, content):
    path = packaged("pose_landmark_blur.tflite")
    card = json.loads(path.with_suffix(".json").read_text())
    assert card["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    before, after = (train.evaluate(c, people) for c in (content, path.read_bytes()))
    assert after["limb_degrees"] < 0.9 * before["limb_degrees"]
    assert after["limb_ends_px_blurred"] < before["limb_ends_px_blurred"]
