"""Matting network files built by hand (onnx.helper, no exporter): interface, sizes, precision, IO binding, errors."""

import numpy as np
import pytest
from synthetic import something_before_a_plate

from blur_motion_ros.light import to_codes
from blur_motion_ros.matting import Matters, MattingSettings, runners
from blur_motion_ros.matting.difference import DifferenceMatter
from blur_motion_ros.matting.network import NetworkMatter

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16


def _save(path, nodes, inputs, outputs, constants=()):
    graph = helper.make_graph(nodes, "matting", inputs, outputs, list(constants))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def _difference(path, kind=FLOAT, size=("H", "W"), names=("src", "bgr"), pha="pha", gain=1.0, extra=()):
    """pha = gain * mean |src - bgr| over colours; fgr = src; err = half of pha at a quarter of the resolution."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    shape, one = [1, 3, *size], [1, 1, *size]
    nodes = [helper.make_node("Sub", list(names), ["difference"]),
             helper.make_node("Abs", ["difference"], ["absolute"]),
             helper.make_node("ReduceMean", ["absolute"], ["mean"], axes=[1], keepdims=1),
             helper.make_node("Mul", ["mean", "gain"], [pha]), helper.make_node("Identity", [names[0]], ["fgr"]),
             helper.make_node("AveragePool", [pha], ["coarse"], kernel_shape=[4, 4], strides=[4, 4]),
             helper.make_node("Mul", ["coarse", "half"], ["err_sm"])]
    value = helper.make_tensor_value_info
    inputs = [value(n, kind, shape) for n in names] + [value(n, kind, [1]) for n in extra]
    nodes += [helper.make_node("Add", [n, n], [n + "_2"]) for n in extra]
    outputs = [value(pha, kind, one), value("fgr", kind, shape), value("err_sm", kind, [1, 1, "h", "w"])]
    constants = [numpy_helper.from_array(np.array(v, dtype), n) for n, v in (("gain", gain), ("half", 0.5))]
    return _save(path, nodes, inputs, outputs, constants)


def _random_network(path, kind=FLOAT, size=("H", "W"), seed=0):
    """A random encoder-decoder of the official outputs (pha, fgr, err, hid), weights of `kind`."""
    rng = np.random.default_rng(seed)
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    down, up = rng.normal(0, 0.2, (8, 6, 3, 3)).astype(dtype), rng.normal(0, 0.3, (8, 37, 4, 4)).astype(dtype)
    nodes = [helper.make_node("Concat", ["src", "bgr"], ["both"], axis=1),
             helper.make_node("Conv", ["both", "down"], ["low"], kernel_shape=[3, 3], strides=[4, 4], pads=[1] * 4),
             helper.make_node("Relu", ["low"], ["rectified"]),
             helper.make_node("ConvTranspose", ["rectified", "up"], ["wide"], kernel_shape=[4, 4], strides=[4, 4]),
             helper.make_node("Split", ["wide", "parts"], ["a", "residual", "e", "hid"], axis=1),
             helper.make_node("Sigmoid", ["a"], ["pha"]), helper.make_node("Sigmoid", ["e"], ["err"]),
             helper.make_node("Add", ["src", "residual"], ["fgr"])]
    value = helper.make_tensor_value_info
    channels = {"pha": 1, "fgr": 3, "err": 1, "hid": 32}
    constants = [numpy_helper.from_array(a, n) for n, a in (("down", down), ("up", up),
                                                           ("parts", np.array([1, 3, 1, 32], np.int64)))]
    _save(path, nodes, [value(n, kind, [1, 3, *size]) for n in ("src", "bgr")],
          [value(n, kind, [1, c, *size]) for n, c in channels.items()], constants)
    return down.astype(np.float64), up.astype(np.float64)


def _codes(image, plate):
    return [to_codes(a).astype(np.float64) / 255 for a in (image, plate)]


def _matte(path, image, plate):
    return NetworkMatter(MattingSettings(method="network", model=str(path))).matte(image, plate)


@pytest.mark.parametrize("kind", [FLOAT, HALF], ids=["float", "half"])
@pytest.mark.parametrize("size", [("H", "W"), (52, 72), ("H", 72)], ids=["free", "fixed", "half fixed"])
def test_known_answer_in_every_precision_and_size(kind, size, tmp_path):
    image, plate = something_before_a_plate()
    matte = _matte(_difference(tmp_path / "m.onnx", kind, size), image, plate)
    a, b = _codes(image, plate)
    assert matte.alpha.shape == matte.sigma.shape == (50, 70) and matte.alpha.dtype == np.float32
    assert np.allclose(matte.alpha, np.abs(a - b).mean(2), atol=2e-3)
    assert matte.sigma[15:25, 25:35].mean() == pytest.approx(1.25 * 0.5 * matte.alpha[15:25, 25:35].mean(), rel=0.2)


@pytest.mark.parametrize("kind", [FLOAT, HALF], ids=["float", "half"])
def test_random_weights_against_numpy(kind, tmp_path):
    """The whole path (padding, precision, output choice) against the same convolutions written out in numpy."""
    down, up = _random_network(tmp_path / "m.onnx", kind)
    image, plate = something_before_a_plate(48, 64)
    both = np.concatenate(_codes(image, plate), 2).transpose(2, 0, 1)
    padded = np.pad(both, ((0, 0), (1, 1), (1, 1)))
    low = np.array([[(padded[:, 4 * y:4 * y + 3, 4 * x:4 * x + 3] * w).sum() for y in range(12) for x in range(16)]
                    for w in down]).reshape(8, 12, 16)
    wide = np.einsum("cyx,cij->yixj", np.maximum(low, 0), up[:, 0]).reshape(48, 64)
    matte = _matte(tmp_path / "m.onnx", image, plate)
    assert np.allclose(matte.alpha, 1 / (1 + np.exp(-wide)), atol=1e-4 if kind == FLOAT else 2e-2)


def test_large_fixed_file_is_fed_and_read_smoothly(tmp_path):
    """A file of another size: enlarged linearly, answered back averaged; no blocks, no shift."""
    y, x = np.mgrid[:48, :64].astype(np.float32)
    plate = np.full((48, 64, 3), 0.2, np.float32)
    image = plate + (0.1 + 0.1 * np.sin(x / 6) * np.cos(y / 5))[..., None].astype(np.float32)
    a, b = _codes(image, plate)
    matte = _matte(_difference(tmp_path / "big.onnx", size=(192, 256)), image, plate)
    assert np.abs(matte.alpha - np.abs(a - b).mean(2)).max() < 0.02


def test_io_binding_answers_the_same_and_reuses_its_buffers(tmp_path):
    """The path taken on a GPU, with the CPU as the device: same numbers, also when pictures change size."""
    path = tmp_path / "m.onnx"
    _random_network(path)
    plain = runners.OnnxRunner(path, ("CPUExecutionProvider",), bind=False)
    bound = runners.OnnxRunner(path, ("CPUExecutionProvider",), bind=True)
    assert bound.bound and not plain.bound
    rng = np.random.default_rng(1)
    buffers = []
    for size in ((32, 48), (32, 48), (16, 24), (32, 48)):
        src, bgr = rng.random((2, 1, 3, *size), np.float32)
        expected, found = plain.run(src, bgr), bound.run(src, bgr)
        assert np.array_equal(expected[0], found[0]) and np.array_equal(expected[1], found[1])
        buffers.append(bound._inputs["src"])
    assert buffers[0] is buffers[1] and buffers[1] is not buffers[2]


def test_on_a_gpu_binding_is_the_default(tmp_path):
    import onnxruntime
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("no onnxruntime-gpu")
    _random_network(tmp_path / "m.onnx")
    runner = runners.OnnxRunner(tmp_path / "m.onnx")
    src, bgr = np.random.default_rng(1).random((2, 1, 3, 32, 48), np.float32)
    expected = runners.OnnxRunner(tmp_path / "m.onnx", ("CPUExecutionProvider",)).run(src, bgr)
    assert np.allclose(runner.run(src, bgr)[0], expected[0], atol=1e-3)
    assert runner.bound == (runner.provider == "CUDAExecutionProvider")


def _pretend_cuda(monkeypatch, fails):
    """onnxruntime that lists CUDA; its session is the CPU's under CUDA's name. fails: 'start', 'silently' or 'run'."""
    import onnxruntime
    real, started = onnxruntime.InferenceSession, []

    class Session:
        def __init__(self, path, options, providers):
            if fails == "start" and providers == ["CUDAExecutionProvider"]:
                raise RuntimeError("CUDA failure 35: driver too old")
            self._name = providers[0] if fails == "run" else "CPUExecutionProvider"
            self._session = real(path, options, providers=["CPUExecutionProvider"])
            started.append(self._name)

        def __getattr__(self, name):
            return getattr(self._session, name)

        def get_providers(self):
            return [self._name]

        def io_binding(self):
            raise RuntimeError("CUDA out of memory")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(runners.PROVIDERS))
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    return started


@pytest.mark.parametrize("fails", ["start", "silently", "run"])
def test_a_gpu_that_fails_is_given_up_for_the_cpu(fails, tmp_path, monkeypatch, caplog):
    path = _difference(tmp_path / "m.onnx")
    image, plate = something_before_a_plate()
    expected = _matte(path, image, plate).alpha
    _pretend_cuda(monkeypatch, fails)
    matter = NetworkMatter(MattingSettings(method="network", model=str(path)))
    assert matter.runner.provider == ("CUDAExecutionProvider" if fails == "run" else "CPUExecutionProvider")
    for _ in range(2):
        assert np.array_equal(matter.matte(image, plate).alpha, expected)
    assert matter.runner.provider == "CPUExecutionProvider" and not matter.runner.bound
    assert "CUDAExecutionProvider" in caplog.text


def _garbage(path):
    path.write_bytes(bytes(range(256)) * 8)
    return path


BROKEN = {
    "garbage": (_garbage, "cannot load it.*another file"),
    "other inputs": (lambda p: _difference(p, names=("image", "background")), "inputs are .*'src' and 'bgr'"),
    "more inputs": (lambda p: _difference(p, extra=("r1",)), "inputs are .*'r1'"),
    "no pha": (lambda p: _difference(p, pha="alpha"), "'pha' is wanted; export it again"),
    "bytes": (lambda p: _takes_bytes(p), r"tensor\(uint8\).*export it again"),
    "batch": (lambda p: _batch_of_two(p), "one RGB image"),
}


def _takes_bytes(path):
    value = helper.make_tensor_value_info
    nodes = [helper.make_node("Cast", [n], [n + "_f"], to=FLOAT) for n in ("src", "bgr")]
    nodes += [helper.make_node("Sub", ["src_f", "bgr_f"], ["d"]),
              helper.make_node("ReduceMean", ["d"], ["pha"], axes=[1], keepdims=1)]
    return _save(path, nodes, [value(n, TensorProto.UINT8, [1, 3, "H", "W"]) for n in ("src", "bgr")],
                 [value("pha", FLOAT, [1, 1, "H", "W"])])


def _batch_of_two(path):
    _difference(path)
    model = onnx.load(str(path))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(model, str(path))
    return path


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_named_with_the_fix(case, tmp_path):
    make, words = BROKEN[case]
    path = tmp_path / "broken file.onnx"
    with pytest.raises(ValueError, match=words) as found:
        NetworkMatter(MattingSettings(method="network", model=str(make(path))))
    assert str(path) in str(found.value) and "\n" not in str(found.value)


@pytest.mark.parametrize("gain, words", [(np.nan, "NaN.*float32 file"), (np.inf, "NaN or infinite"),
                                         (255.0, r"runs from 0 to .*clamp or sigmoid"), (-1.0, "clamp or sigmoid")])
def test_wrong_answers_are_named_with_the_fix(gain, words, tmp_path):
    path = _difference(tmp_path / "wrong.onnx", gain=gain)
    with pytest.raises(ValueError, match=words) as found:
        _matte(path, *something_before_a_plate())
    assert str(path) in str(found.value)


def test_answer_of_another_size_is_named(tmp_path):
    value = helper.make_tensor_value_info
    nodes = [helper.make_node("AveragePool", ["src"], ["pha"], kernel_shape=[4, 4], strides=[4, 4]),
             helper.make_node("Identity", ["bgr"], ["fgr"])]
    path = _save(tmp_path / "small.onnx", nodes, [value(n, FLOAT, [1, 3, "H", "W"]) for n in ("src", "bgr")],
                 [value("pha", FLOAT, [1, 3, "h", "w"]), value("fgr", FLOAT, [1, 3, "H", "W"])])
    with pytest.raises(ValueError, match=r"pha is \[1, 3, 13, 18\]; \[1, 1, 52, 72\]") as found:
        _matte(path, *something_before_a_plate())
    assert str(path) in str(found.value)


def test_missing_onnxruntime_is_named(tmp_path, monkeypatch):
    import sys
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match="pip install onnxruntime"):
        runners.OnnxRunner(_difference(tmp_path / "m.onnx"))


def test_long_exposures_are_matted_by_the_network(tmp_path):
    """With `auto`, from the exposure of the setting on; the network is loaded once, and by nobody who needs none."""
    path = _difference(tmp_path / "m.onnx")
    matters = Matters(MattingSettings(model=str(path), long_exposure=0.04))
    assert isinstance(matters.of(0.039), DifferenceMatter)
    assert isinstance(matters.of(0.04), NetworkMatter) and matters.of(0.1) is matters.of(0.04)
    assert isinstance(matters.of(0.1, whole=False), DifferenceMatter), "the network knows nothing of plates with holes"
    (tmp_path / "m.onnx").unlink()
    assert isinstance(Matters(MattingSettings(model=str(path))).of(0.01), DifferenceMatter)
    with pytest.raises(ValueError, match="matting.model"):
        Matters(MattingSettings(model=str(path))).of(0.1)
    for method, kind in (("difference", DifferenceMatter), ("network", NetworkMatter)):
        assert isinstance(Matters(MattingSettings(method=method)).of(0.1), kind)


def test_long_exposures_are_matted_by_difference_where_nothing_runs_the_network(monkeypatch):
    import sys
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    matters = Matters()
    with pytest.warns(UserWarning, match="pip install onnxruntime"):
        matter = matters.of(0.1)
    assert isinstance(matter, DifferenceMatter) and matters.of(0.1) is matter


# --------------------------------------------------------------------------------------------- TorchScript


def _script(module, path):
    torch = pytest.importorskip("torch")
    torch.jit.script(module).save(str(path))
    return path


def test_official_refiner_settings_suit_a_crop(tmp_path):
    """The official script refines the 80 000 worst pixels of a high-definition picture; a crop has fewer than that."""
    torch = pytest.importorskip("torch")

    class Official(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone_scale, self.refine_sample_pixels = 0.25, 80_000

        def forward(self, src: torch.Tensor, bgr: torch.Tensor):
            pha = (src - bgr).abs().mean(1, keepdim=True)
            error = torch.nn.functional.avg_pool2d(pha, 4).flatten(1)
            chosen = error.topk(self.refine_sample_pixels // 16, dim=1).indices
            assert self.backbone_scale > 0.3
            return pha, src, pha, src, 0 * pha + chosen.size(1) / error.size(1), pha
    image, plate = something_before_a_plate()
    a, b = _codes(image, plate)
    matte = _matte(_script(Official(), tmp_path / "bmv2.pth"), image, plate)
    assert np.allclose(matte.alpha, np.abs(a - b).mean(2), atol=1e-5)
    assert np.allclose(matte.sigma, 1.25), "every patch is refined"


def test_torchscript_of_another_interface_is_named(tmp_path):
    torch = pytest.importorskip("torch")

    class OneInput(torch.nn.Module):
        def forward(self, src: torch.Tensor):
            return src

    class Text(torch.nn.Module):
        def forward(self, src: torch.Tensor, bgr: torch.Tensor):
            return "alpha"

    class NoAlpha(torch.nn.Module):
        def forward(self, src: torch.Tensor, bgr: torch.Tensor):
            return {"fgr": src}
    for i, (module, words) in enumerate(((OneInput(), "does not take"), (Text(), "without a tensor 'pha'"),
                                         (NoAlpha(), "without a tensor 'pha'"))):
        path = _script(module, tmp_path / f"{i}.pt")
        with pytest.raises(ValueError, match=words) as found:
            _matte(path, *something_before_a_plate())
        assert str(path) in str(found.value)
    path = tmp_path / "weights.pth"
    torch.save({"weight": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match="torch.jit.script"):
        runners.load_network(path)
