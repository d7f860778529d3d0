"""Files of matting networks, loaded and run: ONNX by onnxruntime, anything else as TorchScript.

Interface (Background-Matting-V2's): `src`, `bgr` [1, 3, H, W] RGB sRGB in [0, 1], H and W multiples of 4 -> `pha`
[1, 1, H, W] in [0, 1], optionally `fgr`, `err` / `err_sm` (expected error of pha, any resolution) and others, which
are not computed where that can be helped. Sizes may be free or built in; numbers float32 or float16. Whatever does not
keep to this ends in a `MattingNetworkError` that names the file, what was found and what to do.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")
_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_REFINED = 512  # px: images below this have so few pixels that the refiner's coarse pass runs at half resolution
_log = logging.getLogger(__name__)


class MattingNetworkError(ValueError):
    """A network file is missing, broken, or of another interface. The message names what was found and the fix."""


class Runner(Protocol):
    """A loaded network. src, bgr [1, 3, H, W] float32 -> pha [H, W], error [h, w] or None."""

    def run(self, src: np.ndarray, bgr: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]: ...


def load_network(path: str | Path) -> Runner:
    """Load a .onnx file with onnxruntime, any other as TorchScript. MattingNetworkError says what is wrong."""
    path = Path(path)
    if not path.is_file():
        raise MattingNetworkError(f"matting network {path} does not exist; set the setting 'matting.model' to an ONNX "
                                  "or TorchScript file of Background-Matting-V2, or leave it empty")
    return OnnxRunner(path) if path.suffix.lower() == ".onnx" else TorchScriptRunner(path)


# --------------------------------------------------------------------------------------------- ONNX


class OnnxRunner:
    """A Background-Matting-V2 ONNX file. provider: the execution provider in use; bound: whether by IO binding.

    providers: tried in this order. bind: use IO binding (None: on the GPU only, where it saves copies).
    """

    def __init__(self, path: Path, providers: Sequence[str] = PROVIDERS, bind: bool | None = None):
        self._path, self._bind = Path(path), bind
        self._start(tuple(providers))

    def _start(self, providers: tuple[str, ...]) -> None:
        self._session, self.provider = _start_session(self._path, providers)
        self.bound = self.provider == PROVIDERS[0] if self._bind is None else self._bind
        self._inputs: dict[str, Any] = {}
        taken = {i.name: i for i in self._session.get_inputs()}
        offered = [o.name for o in self._session.get_outputs()]
        if set(taken) != {"src", "bgr"}:
            raise MattingNetworkError(f"{self._path}: inputs are {sorted(taken)}; Background-Matting-V2 has 'src' and "
                                      "'bgr'; give a file of that kind in 'matting.model'")
        if "pha" not in offered:
            raise MattingNetworkError(f"{self._path}: outputs are {offered}; one named 'pha' is wanted; export it "
                                      "again with that name")
        self._wanted = ["pha"] + [n for n in ("err", "err_sm") if n in offered][:1]
        self._types = {name: self._type_of(i) for name, i in taken.items()}
        self._size = self._built_in_size(taken["src"].shape)

    def _type_of(self, tensor: Any) -> type:
        if tensor.type not in _TYPES:
            raise MattingNetworkError(f"{self._path}: input '{tensor.name}' is {tensor.type}; float or float16 in "
                                      "[0, 1] is wanted; export it again without a conversion of the images")
        return _TYPES[tensor.type]

    def _built_in_size(self, shape: list) -> tuple[int | None, int | None]:
        """(height, width) where the file has them built in."""
        if len(shape) != 4 or shape[0] not in (1, None) and isinstance(shape[0], int) or shape[1] != 3 and isinstance(
                shape[1], int):
            raise MattingNetworkError(f"{self._path}: 'src' is {shape}; [1, 3, height, width] is wanted; export it for "
                                      "one RGB image")
        height, width = (n if isinstance(n, int) else None for n in shape[2:])
        return height, width

    def run(self, src: np.ndarray, bgr: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """src, bgr [1, 3, H, W] float32 in [0, 1] -> pha [H, W], error [h, w] or None."""
        wanted = src.shape[2:]
        size = tuple(fixed or free for fixed, free in zip(self._size, wanted, strict=True))
        planes = {"src": src, "bgr": bgr}
        if size != wanted:
            planes = {name: _resized_planes(a, size) for name, a in planes.items()}
        feeds = {name: np.ascontiguousarray(a, self._types[name]) for name, a in planes.items()}
        return _answer(self._path, self._outputs(feeds), size, wanted)

    def _outputs(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Run; a GPU that fails (out of memory, driver) is given up for the CPU."""
        try:
            return self._bound_run(feeds) if self.bound else self._session.run(self._wanted, feeds)
        except Exception as error:  # onnxruntime raises many types
            if self.provider == PROVIDERS[-1]:
                raise MattingNetworkError(f"{self._path}: onnxruntime cannot run it on {feeds['src'].shape}: "
                                          f"{_first_line(error)}; is it a matting network?") from error
            _log.warning("matting network: %s failed (%s); going on with the CPU", self.provider, _first_line(error))
        self._bind = None
        self._start(PROVIDERS[-1:])
        return self._outputs(feeds)

    def _bound_run(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Inputs are copied into device buffers that stay; only the wanted outputs are computed and copied back."""
        device = "cuda" if self.provider == PROVIDERS[0] else "cpu"
        binding = self._session.io_binding()
        for name, value in feeds.items():
            binding.bind_ortvalue_input(name, self._on_device(name, value, device))
        for name in self._wanted:
            binding.bind_output(name, device)
        self._session.run_with_iobinding(binding)
        return binding.copy_outputs_to_cpu()

    def _on_device(self, name: str, value: np.ndarray, device: str) -> Any:
        import onnxruntime
        buffer = self._inputs.get(name)
        if buffer is None or tuple(buffer.shape()) != value.shape:
            self._inputs[name] = onnxruntime.OrtValue.ortvalue_from_numpy(value.copy(), device, 0)
        else:
            buffer.update_inplace(value)
        return self._inputs[name]


def _start_session(path: Path, providers: tuple[str, ...]) -> tuple[Any, str]:
    """The first provider that is installed and starts."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MattingNetworkError(f"{path} needs the package onnxruntime (or onnxruntime-gpu): pip install onnxruntime"
                                  ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the fit runs on the other core
    options.log_severity_level = 3
    failure: Exception | None = None
    for provider in (p for p in providers if p in onnxruntime.get_available_providers()):
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=[provider])
        except Exception as error:  # onnxruntime raises many types; the file's own fault shows on the CPU as well
            failure = error
            _log.warning("matting network: %s does not start (%s)", provider, _first_line(error))
            continue
        if session.get_providers()[0] == provider:
            return session, provider
        _log.warning("matting network: %s is installed but does not start", provider)
    reason = _first_line(failure) if failure else f"none of {', '.join(providers)} is there"
    raise MattingNetworkError(f"{path}: onnxruntime cannot load it: {reason}; give another file in 'matting.model'")


# --------------------------------------------------------------------------------------------- TorchScript


class TorchScriptRunner:
    """A Background-Matting-V2 TorchScript file; on the GPU where there is one. Half precision only there."""

    def __init__(self, path: Path):
        try:
            import torch
        except ImportError as error:
            raise MattingNetworkError(f"{path} is not named .onnx and TorchScript needs the package torch: "
                                      "pip install torch") from error
        self._torch, self._path = torch, Path(path)
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            network = torch.jit.load(str(path), map_location=self._device).eval()
        except Exception as error:  # zip, pickle and compiler errors
            raise MattingNetworkError(f"{path} is neither an ONNX file (.onnx) nor TorchScript: {_first_line(error)}; "
                                      "a state_dict (.pth) has to be exported with torch.jit.script first") from error
        self._type = next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)
        if self._type == torch.float16 and self._device == "cpu":
            network, self._type = network.float(), torch.float32
        self._network = network
        self._pixels = getattr(network, "refine_sample_pixels", None)

    def run(self, src: np.ndarray, bgr: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """src, bgr [1, 3, H, W] float32 in [0, 1] -> pha [H, W], error [h, w] or None."""
        torch, size = self._torch, src.shape[2:]
        self._fit_refiner(size)
        with torch.no_grad():
            inputs = [torch.from_numpy(np.ascontiguousarray(a)).to(self._device, self._type) for a in (src, bgr)]
            try:
                result = self._network(*inputs)
            except Exception as error:  # a script raises what it likes
                raise MattingNetworkError(f"{self._path} does not take (src, bgr): {_last_line(error)}; it must be a "
                                          "script of Background-Matting-V2's interface") from error
        outputs = [r.detach().float().cpu().numpy() for r in self._chosen(result)]
        return _answer(self._path, outputs, size, size)

    def _fit_refiner(self, size: tuple[int, int]) -> None:
        """The official refiner picks a number of pixels meant for high definition; a crop has fewer."""
        if self._pixels is None:
            return
        self._network.refine_sample_pixels = min(int(self._pixels), size[0] * size[1])
        if max(size) < _REFINED and hasattr(self._network, "backbone_scale"):
            self._network.backbone_scale = 0.5

    def _chosen(self, result: Any) -> list[Any]:
        """pha and, where there is one, the error of whatever the script answered."""
        torch = self._torch
        if isinstance(result, dict):
            chosen = [result.get("pha")] + [result[k] for k in ("err", "err_sm") if k in result][:1]
        elif isinstance(result, (tuple, list)) and len(result):
            # pha, fgr, err, hid (base); pha, fgr, pha_sm, fgr_sm, err_sm, ref_sm (refiner); pha, fgr, err (ours)
            place = {3: 2, 4: 2, 6: 4}.get(len(result))
            chosen = [result[0]] + ([result[place]] if place is not None else [])
        else:
            chosen = [result]
        if not all(torch.is_tensor(r) for r in chosen):
            raise MattingNetworkError(f"{self._path} answers {type(result).__name__} without a tensor 'pha'; a matting "
                                      "network answers pha first")
        return chosen


# --------------------------------------------------------------------------------------------- answers


def _answer(path: Path, outputs: list[np.ndarray], ran: tuple[int, int], wanted: tuple[int, int],
            ) -> tuple[np.ndarray, np.ndarray | None]:
    """pha [H, W] in [0, 1] and error [h, w] or None, checked."""
    pha = np.asarray(outputs[0], np.float32)
    if pha.shape != (1, 1, *ran):
        raise MattingNetworkError(f"{path}: the network's pha is {list(pha.shape)}; [1, 1, {ran[0]}, {ran[1]}] is "
                                  "wanted, of the images' size; choose another file in 'matting.model'")
    if not np.isfinite(pha).all():
        raise MattingNetworkError(f"{path}: the network answered NaN or infinite alpha; half precision on a processor "
                                  "and broken weights are the usual causes: use a float32 file")
    low, high = float(pha.min()), float(pha.max())
    if low < -0.05 or high > 1.05:
        raise MattingNetworkError(f"{path}: pha runs from {low:.3g} to {high:.3g}; [0, 1] is wanted; end the network "
                                  "with a clamp or sigmoid")
    error = np.asarray(outputs[1], np.float32) if len(outputs) > 1 else None
    if error is not None and (error.ndim != 4 or error.shape[:2] != (1, 1) or not np.isfinite(error).all()):
        raise MattingNetworkError(f"{path}: the network's error map is {list(error.shape)} or not finite; "
                                  "[1, 1, height, width] is wanted; leave that output out")
    pha = np.clip(pha[0, 0], 0.0, 1.0)
    return (pha if ran == wanted else resized(pha, wanted)), None if error is None else error[0, 0]


def _resized_planes(planes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    image = resized(np.ascontiguousarray(planes[0].transpose(1, 2, 0)), size)
    return image.transpose(2, 0, 1)[None]


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """[H, W(, C)] to size (height, width): averaged where it shrinks, linear where it grows."""
    shrinks = size[0] * size[1] < image.shape[0] * image.shape[1]
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
