"""Background matting by a network with Background-Matting-V2's interface; official files run unchanged.

Network: `src`, `bgr` [1, 3, H, W] RGB sRGB in [0, 1], H and W multiples of 4 -> `pha` [1, 1, H, W] in [0, 1], and
optionally `fgr`, `err` / `err_sm` (expected error of pha, any resolution). ONNX files run in onnxruntime on the first
provider that starts (CUDA with bound input and output, else CPU); anything else is loaded as TorchScript.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from blur_motion_ros.light import to_codes
from blur_motion_ros.matting.settings import MattingSettings
from blur_motion_ros.types import Matte

ASSET = Path(__file__).resolve().parents[1] / "assets" / "matting.onnx"
PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")
_LEAST_SIGMA, _EDGE_SIGMA = 0.03, 0.12  # alpha's standard deviation where opaque or empty, and more where blended
_log = logging.getLogger(__name__)


class MattingNetworkError(ValueError):
    """A network file is missing, broken, or of another interface. The message names what was found and the fix."""


class Runner(Protocol):
    """A loaded network. src, bgr [1, 3, H, W] float32 -> pha [H, W], error [h, w] or None."""

    def run(self, src: np.ndarray, bgr: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]: ...


class NetworkMatter:
    """`Matter` by a network. Without `settings.model` the free network of this package is used."""

    def __init__(self, settings: MattingSettings | None = None):
        self.settings = settings or MattingSettings(method="network")
        self.runner = load_network(self.settings.model or ASSET)

    def matte(self, image: np.ndarray, plate: np.ndarray, plate_sigma: np.ndarray | float | None = None,
              person_mask: np.ndarray | None = None) -> Matte:
        """Alpha of the person in `image` [H, W, 3] float32 linear over `plate` [H, W, 3], any size.

        plate_sigma is not used (the network judges noise itself). person_mask [H, W]: others than this person are
        dropped. ValueError when shapes disagree.
        """
        if image.shape != plate.shape or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"image {image.shape} and plate {plate.shape} must both be [H, W, 3]")
        if person_mask is not None and person_mask.shape != image.shape[:2]:
            raise ValueError(f"person_mask is {person_mask.shape}; it must have the image's size {image.shape[:2]}")
        pha, error = self.runner.run(_planes(image), _planes(plate))
        height, width = image.shape[:2]
        alpha = np.clip(pha[:height, :width], 0.0, 1.0).astype(np.float32)
        if not np.isfinite(alpha).all():
            raise MattingNetworkError("the matting network answered NaN; half precision on a CPU is the usual cause")
        near = _near(person_mask, self.settings.reach)
        return Matte(alpha * near, _sigma(alpha, error, pha.shape))


def load_network(path: str | Path) -> Runner:
    """Load a .onnx file with onnxruntime, any other as TorchScript. MattingNetworkError says what is wrong."""
    path = Path(path)
    if not path.is_file():
        raise MattingNetworkError(f"matting network {path} does not exist; set the setting 'matting.model' to an ONNX "
                                  "or TorchScript file of Background-Matting-V2, or leave it empty")
    return OnnxRunner(path) if path.suffix.lower() == ".onnx" else TorchScriptRunner(path)


# --------------------------------------------------------------------------------------------- ONNX


class OnnxRunner:
    """A Background-Matting-V2 ONNX file. provider: the execution provider that is in use."""

    def __init__(self, path: Path, providers: tuple[str, ...] = PROVIDERS):
        self._session, self.provider = _start_session(path, providers)
        inputs = {i.name: i for i in self._session.get_inputs()}
        outputs = [o.name for o in self._session.get_outputs()]
        if not {"src", "bgr"} <= set(inputs):
            raise MattingNetworkError(f"{path}: inputs are {sorted(inputs)}; Background-Matting-V2 has 'src' and 'bgr'")
        if "pha" not in outputs:
            raise MattingNetworkError(f"{path}: outputs are {outputs}; one named 'pha' is wanted")
        self._wanted = ["pha"] + [n for n in ("err", "err_sm") if n in outputs][:1]
        self._type = np.float16 if "float16" in inputs["src"].type else np.float32
        self._size = _fixed_size(inputs["src"].shape)

    def run(self, src: np.ndarray, bgr: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """src, bgr [1, 3, H, W] float32 in [0, 1] -> pha [H, W], error [h, w] or None."""
        shape = src.shape[2:]
        if self._size is not None and self._size != shape:
            src, bgr = (_resized(a, self._size) for a in (src, bgr))
        feeds = {"src": src.astype(self._type), "bgr": bgr.astype(self._type)}
        outputs = self._bound(feeds) if self.provider == "CUDAExecutionProvider" else self._session.run(
            self._wanted, feeds)
        return _answer(outputs, src.shape[2:], shape)

    def _bound(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Inputs copied once to the GPU; only the wanted outputs are copied back."""
        binding = self._session.io_binding()
        for name, value in feeds.items():
            binding.bind_cpu_input(name, value)
        for name in self._wanted:
            binding.bind_output(name)
        self._session.run_with_iobinding(binding)
        return binding.copy_outputs_to_cpu()


def _start_session(path: Path, providers: tuple[str, ...]) -> tuple[Any, str]:
    """The first provider that is installed and starts."""
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the fit runs on the other core
    options.log_severity_level = 3
    failure: Exception | None = None
    for provider in (p for p in providers if p in onnxruntime.get_available_providers()):
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=[provider])
        except Exception as error:  # onnxruntime raises many types; the file's own fault shows on the CPU as well
            failure = error
            _log.warning("matting network: %s does not start (%s)", provider, str(error).splitlines()[0])
            continue
        if session.get_providers()[0] == provider:
            return session, provider
    raise MattingNetworkError(f"{path}: onnxruntime cannot load it: {str(failure).splitlines()[0] if failure else ''}")


def _fixed_size(shape: list) -> tuple[int, int] | None:
    """(height, width) where the file has them built in."""
    height, width = shape[2], shape[3]
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


# --------------------------------------------------------------------------------------------- TorchScript


class TorchScriptRunner:
    """A Background-Matting-V2 TorchScript file; on the GPU where there is one. Half precision only there."""

    def __init__(self, path: Path):
        import torch
        self._torch = torch
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            network = torch.jit.load(str(path), map_location=self._device).eval()
        except (RuntimeError, ValueError) as error:
            raise MattingNetworkError(f"{path} is neither an ONNX file (.onnx) nor TorchScript: "
                                      f"{str(error).strip().splitlines()[0]}") from error
        self._type = next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)
        if self._type == torch.float16 and self._device == "cpu":
            network, self._type = network.float(), torch.float32
        self._network = network
        self._path = path

    def run(self, src: np.ndarray, bgr: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """src, bgr [1, 3, H, W] float32 in [0, 1] -> pha [H, W], error [h, w] or None."""
        torch = self._torch
        with torch.no_grad():
            inputs = (torch.from_numpy(a).to(self._device, self._type) for a in (src, bgr))
            try:
                result = self._network(*inputs)
            except RuntimeError as error:
                raise MattingNetworkError(f"{self._path}: does not take (src, bgr): {str(error).splitlines()[-1]}"
                                          ) from error
        if isinstance(result, dict):
            result = [result["pha"]] + [result[k] for k in ("err", "err_sm") if k in result][:1]
        elif torch.is_tensor(result):
            result = [result]
        else:  # pha, fgr, err, hid (base) or pha, fgr, pha_sm, fgr_sm, err_sm, ref_sm (refiner) or pha, fgr, err (ours)
            place = {3: 2, 4: 2, 6: 4}.get(len(result))
            result = [result[0]] + ([result[place]] if place is not None else [])
        return _answer([r.float().cpu().numpy() for r in result], src.shape[2:], src.shape[2:])


def _answer(outputs: list[np.ndarray], ran: tuple[int, int], wanted: tuple[int, int],
            ) -> tuple[np.ndarray, np.ndarray | None]:
    pha = np.asarray(outputs[0], np.float32)
    if pha.shape != (1, 1, *ran):
        raise MattingNetworkError(f"the network's pha is {list(pha.shape)}; [1, 1, {ran[0]}, {ran[1]}] wanted")
    error = np.asarray(outputs[1], np.float32)[0, 0] if len(outputs) > 1 else None
    pha = pha[0, 0]
    return (pha if ran == wanted else cv2.resize(pha, wanted[::-1], interpolation=cv2.INTER_LINEAR)), error


# --------------------------------------------------------------------------------------------- pictures


def _planes(linear: np.ndarray) -> np.ndarray:
    """[H, W, 3] linear -> [1, 3, H', W'] sRGB in [0, 1], edges repeated up to multiples of 4."""
    codes = to_codes(linear).astype(np.float32) * (1 / 255)
    height, width = codes.shape[:2]
    down, right = -height % 4, -width % 4
    if down or right:
        codes = cv2.copyMakeBorder(codes, 0, down, 0, right, cv2.BORDER_REPLICATE)
    return np.ascontiguousarray(codes.transpose(2, 0, 1)[None])


def _resized(planes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    image = cv2.resize(planes[0].transpose(1, 2, 0), size[::-1], interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None])


def _sigma(alpha: np.ndarray, error: np.ndarray | None, padded: tuple[int, int]) -> np.ndarray:
    """Standard deviation of alpha: the network's own word where it has one, never under a floor."""
    base = _LEAST_SIGMA + _EDGE_SIGMA * 4 * alpha * (1 - alpha)
    if error is None:
        return base.astype(np.float32)
    if error.shape != padded:
        error = cv2.resize(error, padded[::-1], interpolation=cv2.INTER_LINEAR)
    own = 1.25 * np.clip(error[:alpha.shape[0], :alpha.shape[1]], 0.0, 1.0)  # mean absolute error to deviation
    return np.maximum(own, _LEAST_SIGMA).astype(np.float32)


def _near(mask: np.ndarray | None, reach: float) -> np.ndarray | float:
    """1 near this person, 0 at others: the mask widened by how far blur may carry them."""
    if mask is None or float(mask.max(initial=0.0)) < 0.3:
        return 1.0
    solid = (mask > 0.3).astype(np.uint8)
    distance = cv2.distanceTransform(1 - solid, cv2.DIST_L2, 3)
    return np.clip(2.0 - distance / max(reach * float(np.sqrt(solid.sum())), 1.0), 0.0, 1.0).astype(np.float32)
