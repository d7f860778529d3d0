"""Matting by networks with Background-Matting-V2's interface: made-up files of its shapes, and our free network."""

import numpy as np
import pytest
from synthetic import something_before_a_plate

from blur_motion_ros.light import to_codes
from blur_motion_ros.matting import MattingSettings, make_matter, runners
from blur_motion_ros.matting import network as mn

torch = pytest.importorskip("torch")


class Refiner(torch.nn.Module):
    """The refiner's interface with a known answer: pha = |src - bgr| summed over channels; six outputs in its order."""

    def __init__(self, scale: float = 1.0):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(scale))

    def forward(self, src: torch.Tensor, bgr: torch.Tensor):
        pha = (src - bgr).abs().sum(1, keepdim=True).clamp(0, 1) * self.scale
        small = torch.nn.functional.avg_pool2d(pha, 4)
        return pha, src, small, torch.nn.functional.avg_pool2d(src, 4), 0.5 * small, small


def _expected(image, plate):
    codes = [to_codes(a).astype(np.float32) / 255 for a in (image, plate)]
    return np.abs(codes[0] - codes[1]).sum(2).clip(0, 1)


def _export_onnx(path, model, names, dynamic=True, size=(64, 96), inputs=("src", "bgr")):
    pytest.importorskip("onnx")
    example = (torch.rand(1, 3, *size), torch.rand(1, 3, *size))
    axes = {n: {2: "height", 3: "width"} for n in (*inputs, *names)} if dynamic else None
    torch.onnx.export(model.eval(), example, str(path), input_names=list(inputs), output_names=list(names),
                      dynamic_axes=axes, opset_version=17, dynamo=False)


REFINER_OUTPUTS = ("pha", "fgr", "pha_sm", "fgr_sm", "err_sm", "ref_sm")


@pytest.mark.parametrize("kind", ["onnx", "torchscript", "torchscript_half"])
def test_refiner_shaped_files_run_unchanged(kind, tmp_path):
    """Both formats, sizes that are not multiples of 4, outputs in the official order; alpha is exact."""
    if kind == "onnx":
        path = tmp_path / "bmv2.onnx"
        _export_onnx(path, Refiner(), REFINER_OUTPUTS)
    else:
        path = tmp_path / "bmv2.pth"
        model = Refiner().half() if kind.endswith("half") else Refiner()
        torch.jit.script(model).save(str(path))
    image, plate = something_before_a_plate()
    matte = make_matter(MattingSettings(method="network", model=str(path))).matte(image, plate)
    assert matte.alpha.shape == matte.sigma.shape == (50, 70)
    assert np.allclose(matte.alpha, _expected(image, plate), atol=2e-3)
    inside = matte.sigma[15:25, 25:35].mean()
    assert inside == pytest.approx(1.25 * 0.5 * matte.alpha[15:25, 25:35].mean(), rel=0.15), "err_sm becomes sigma"
    assert matte.sigma.min() >= 0.03 - 1e-6


def test_random_network_of_the_real_shape(tmp_path):
    """Convolutions with random weights: ONNX and TorchScript agree to 1e-4 on the same picture."""
    torch.manual_seed(0)

    class Base(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.down = torch.nn.Conv2d(6, 8, 3, 4, 1)
            self.up = torch.nn.ConvTranspose2d(8, 5, 4, 4)

        def forward(self, src, bgr):
            out = self.up(torch.relu(self.down(torch.cat([src, bgr], 1))))
            return out[:, :1].sigmoid(), src, out[:, 4:].sigmoid(), out
    model = Base().eval()
    _export_onnx(tmp_path / "a.onnx", model, ("pha", "fgr", "err", "hid"))
    torch.jit.script(model).save(str(tmp_path / "a.pt"))
    image, plate = something_before_a_plate()
    mattes = [mn.NetworkMatter(MattingSettings(method="network", model=str(tmp_path / n))).matte(image, plate)
              for n in ("a.onnx", "a.pt")]
    assert np.allclose(mattes[0].alpha, mattes[1].alpha, atol=1e-4)
    assert np.allclose(mattes[0].sigma, mattes[1].sigma, atol=1e-4)


def test_fixed_size_files_are_resized_to(tmp_path):
    path = tmp_path / "fixed.onnx"
    _export_onnx(path, Refiner(), REFINER_OUTPUTS, dynamic=False, size=(96, 128))
    image, plate = something_before_a_plate()
    matte = mn.NetworkMatter(MattingSettings(method="network", model=str(path))).matte(image, plate)
    assert matte.alpha.shape == (50, 70)
    assert np.abs(matte.alpha - _expected(image, plate)).mean() < 0.03


def test_providers_fall_back(tmp_path):
    path = tmp_path / "a.onnx"
    _export_onnx(path, Refiner(), REFINER_OUTPUTS)
    assert runners.OnnxRunner(path, ("NoSuchProvider", "CPUExecutionProvider")).provider == "CPUExecutionProvider"
    import onnxruntime
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        assert runners.OnnxRunner(path).provider == "CPUExecutionProvider"


def test_others_are_dropped_and_this_person_kept(tmp_path):
    path = tmp_path / "a.pt"
    torch.jit.script(Refiner()).save(str(path))
    image, plate = something_before_a_plate(100, 160)
    image[10:30, 120:150] += 0.3  # somebody else
    mask = np.zeros((100, 160), np.float32)
    mask[10:30, 20:40] = 1
    matter = mn.NetworkMatter(MattingSettings(method="network", model=str(path)))
    alpha = matter.matte(image, plate, None, mask).alpha
    everyone = matter.matte(image, plate).alpha
    assert np.allclose(alpha[10:30, 20:40], everyone[10:30, 20:40])
    assert everyone[10:30, 125:150].mean() > 0.5 and alpha[10:30, 125:150].max() == 0


def test_bad_files_and_pictures_are_named(tmp_path):
    with pytest.raises(runners.MattingNetworkError, match="does not exist"):
        runners.load_network(tmp_path / "none.onnx")
    (tmp_path / "b.onnx").write_bytes(b"nonsense")
    with pytest.raises(runners.MattingNetworkError, match="onnxruntime cannot load"):
        runners.load_network(tmp_path / "b.onnx")
    (tmp_path / "b.pth").write_bytes(b"nonsense")
    with pytest.raises(runners.MattingNetworkError, match="TorchScript"):
        runners.load_network(tmp_path / "b.pth")
    _export_onnx(tmp_path / "c.onnx", Refiner(), ("alpha", *REFINER_OUTPUTS[1:]))
    with pytest.raises(runners.MattingNetworkError, match="'pha' is wanted"):
        runners.load_network(tmp_path / "c.onnx")
    _export_onnx(tmp_path / "d.onnx", Refiner(), REFINER_OUTPUTS, inputs=("image", "background"))
    with pytest.raises(runners.MattingNetworkError, match="'src' and 'bgr'"):
        runners.load_network(tmp_path / "d.onnx")
    torch.jit.script(Refiner(float("nan"))).save(str(tmp_path / "e.pt"))
    matter = mn.NetworkMatter(MattingSettings(method="network", model=str(tmp_path / "e.pt")))
    image, plate = something_before_a_plate()
    with pytest.raises(runners.MattingNetworkError, match="NaN"):
        matter.matte(image, plate)
    with pytest.raises(ValueError, match="must both be"):
        matter.matte(image, plate[:-1])
    with pytest.raises(ValueError, match="person_mask"):
        matter.matte(image, plate, None, np.ones((3, 3), np.float32))


def test_fusion_is_the_mixture_of_both():
    """Weights 1 / sigma^2; mean and variance of the mixture, against random draws from it."""
    from blur_motion_ros.matting.fused import fuse
    from blur_motion_ros.types import Matte
    rng = np.random.default_rng(0)
    a, b, sa, sb = (rng.uniform(low, high, (4, 5)).astype(np.float32)
                    for low, high in ((0, 1), (0, 1), (0.02, 0.3), (0.02, 0.3)))
    fused = fuse(Matte(a, sa), Matte(b, sb))
    share = sb**2 / (sa**2 + sb**2)
    draws = np.where(rng.random((200000, 4, 5)) < share, a + sa * rng.standard_normal((200000, 4, 5)),
                     b + sb * rng.standard_normal((200000, 4, 5)))
    assert np.allclose(fused.alpha, draws.mean(0), atol=5e-3)
    assert np.allclose(fused.sigma, draws.std(0), atol=5e-3)
    same = fuse(Matte(a, sa), Matte(a, sa))
    assert np.allclose(same.alpha, a, atol=1e-6) and np.allclose(same.sigma, sa, atol=1e-6), "one witness twice"


def test_fused_method_lies_between_its_parts(tmp_path):
    path = tmp_path / "a.pt"
    torch.jit.script(Refiner()).save(str(path))
    image, plate = something_before_a_plate()
    mattes = {m: make_matter(MattingSettings(method=m, model=str(path))).matte(image, plate)
              for m in ("difference", "network", "fused")}
    low = np.minimum(mattes["difference"].alpha, mattes["network"].alpha)
    high = np.maximum(mattes["difference"].alpha, mattes["network"].alpha)
    assert ((mattes["fused"].alpha >= low - 1e-6) & (mattes["fused"].alpha <= high + 1e-6)).all()
    assert mattes["fused"].alpha[12:28, 22:38].mean() > 0.5


def _development_frames():
    import os
    from pathlib import Path

    from blur_motion_ros.data import sequence
    root = Path(os.environ.get("BLUR_MOTION_DEVSET", Path(__file__).resolve().parents[2] / "shared" / "devset"))
    if not (root / "b08_walk" / "meta.json").is_file():
        pytest.skip("no development sequences; set BLUR_MOTION_DEVSET")
    import cv2
    for name in ("b04_run", "b08_walk"):
        recording = sequence.read(root / name)
        truth = cv2.imread(str(root / name / "alpha_008.png"), cv2.IMREAD_GRAYSCALE) / 255.0
        yield recording.plate, list(recording)[8].image, truth


def test_packaged_network_mattes_unseen_blur_without_any_mask():
    """Crops of blurred renders from another path tracer: close overall, and right to 0.15 where alpha is fractional."""
    from blur_motion_ros.light import to_linear
    if not mn.ASSET.is_file():
        pytest.skip("assets/matting.onnx is not trained yet")
    assert mn.ASSET.stat().st_size < 2e6
    matter = mn.NetworkMatter()
    for plate, image, truth in _development_frames():
        rows, columns = np.nonzero(truth > 0.05)
        centre = int(rows.mean()), int(columns.mean())
        half = int(0.7 * max(np.ptp(rows), np.ptp(columns)))
        part = (slice(max(centre[0] - half, 0), centre[0] + half), slice(max(centre[1] - half, 0), centre[1] + half))
        image, plate, truth = (a[part] for a in (image, plate, truth))
        import cv2
        size = (128, int(round(128 * image.shape[0] / image.shape[1])))
        image, plate = (cv2.resize(to_linear(np.ascontiguousarray(a)), size, interpolation=cv2.INTER_AREA)
                        for a in (image, plate))
        truth = cv2.resize(truth, size, interpolation=cv2.INTER_AREA)
        wrong = np.abs(matter.matte(image, plate).alpha - truth)
        band = (truth > 0.05) & (truth < 0.95)
        assert wrong.mean() < 0.03 and wrong[band].mean() < 0.15, (wrong.mean(), wrong[band].mean())
        empty = matter.matte(plate, plate).alpha
        assert empty.mean() < 0.02, "nobody there"
