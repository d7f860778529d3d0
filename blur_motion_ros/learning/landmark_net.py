"""BlazePose's landmark network as a PyTorch module with the weights of a TFLite file, and back into such a file."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blur_motion_ros.initialiser import tflite_graph
from blur_motion_ros.initialiser.blazepose import LANDMARK_SIZE

_ALL = 39  # landmarks with the auxiliary ones
_OUTPUTS = {"points": (1, 5 * _ALL), "world": (1, 3 * _ALL), "score": (1, 1), "heat": (1, 64, 64, _ALL),
            "mask": (1, 128, 128, 1)}
_SMALLEST = 0.05  # least scale of an output channel's weights, in that of the mean channel


@dataclass(frozen=True)
class Answer:
    """points [N, 39, 5]: x, y, z (px of the 256 px input), logits of visibility and presence.  world [N, 39, 3] m.
    score [N] in [0, 1].  heat [N, 39, 64, 64] logits.  mask [N, 1, 128, 128] logits, None where it was not wanted."""

    points: Tensor
    world: Tensor
    score: Tensor
    heat: Tensor
    mask: Tensor | None


class LandmarkGraph(nn.Module):
    """The operators of a TFLite landmark network, in their order.

    content: the file, its mask of 128 or 256 px (the whole mask is made at 128, `tflite_graph.at_half_size`).
    stem: operators on maps of at least so many px that read the picture only are frozen, and run in bfloat16.

    Normalisation is folded into the weights of such files: those of one layer are 10 000 times those of another. So
    what is learned are weights in units of their own size, by output channel (`weights`; the sizes are buffers).
    """

    def __init__(self, content: bytes, stem: int = 0):
        super().__init__()
        self._model = tflite_graph.parsed(tflite_graph.at_half_size(content, (1, 256, 256, 1)))
        if self._model is None:
            raise ValueError("not a TFLite file with one graph")
        self._graph = self._model.subgraphs[0]
        self._whole = tflite_graph.parsed(content)
        self._stored: dict[int, int] = {}  # a dequantised tensor -> the one in the file
        weights: dict[str, nn.Parameter] = {}
        steps: list[_Step] = []
        for op in self._graph.operators:
            if tflite_graph.code(self._model, op) == "DEQUANTIZE":
                self._stored[int(op.outputs[0])] = int(op.inputs[0])
            else:
                steps.append(self._step(op, weights))
        self.weights = nn.ParameterDict(weights)
        self._steps, self._outputs = steps, self._named_outputs()
        self._mask_only = self._needed_for("mask")
        self._stem = self._frozen(stem)

    # -- reading -------------------------------------------------------------------------------------------------

    def _step(self, op, weights: dict[str, nn.Parameter]) -> _Step:
        kind, inputs = tflite_graph.code(self._model, op), [int(i) for i in op.inputs]
        if kind in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            for i in inputs[1:]:
                weights[str(i)] = self._parameter(i, kind)
            return _Step(kind, inputs[:1], int(op.outputs[0]), _convolution(op.builtinOptions, kind), inputs[1:])
        if kind == "ADD":
            return _Step(kind, inputs, int(op.outputs[0]), _sum(op.builtinOptions))
        constant = None if len(inputs) < 2 else self._array(inputs[1])
        return _Step(kind, inputs[:1], int(op.outputs[0]), _simple(kind, constant))

    def _array(self, i: int) -> np.ndarray:
        return tflite_graph.array(self._model, self._graph.tensors[self._stored.get(i, i)])

    def _parameter(self, i: int, kind: str) -> nn.Parameter:
        a = self._array(i).astype(np.float32)
        if a.ndim == 4:
            a = a.transpose(3, 0, 1, 2) if kind == "DEPTHWISE_CONV_2D" else a.transpose(0, 3, 1, 2)
        w = torch.from_numpy(np.ascontiguousarray(a))
        size = w.square().mean(tuple(range(1, w.dim())), keepdim=True).sqrt() if w.dim() > 1 else (
            w.square().mean().sqrt().expand_as(w))
        size = size.clamp(min=max(float(size.mean()) * _SMALLEST, 1e-4)).clone()
        self.register_buffer(f"size_{i}", size, persistent=False)
        return nn.Parameter(w / size)

    def _weight(self, i: int | str) -> Tensor:
        """As the network has it."""
        return self.weights[str(i)] * self.get_buffer(f"size_{i}")

    def _named_outputs(self) -> dict[str, int]:
        shapes = {tuple(int(n) for n in self._graph.tensors[i].shape): int(i) for i in self._graph.outputs}
        if not set(_OUTPUTS.values()) <= set(shapes):
            raise ValueError(f"not a landmark network: its outputs are {sorted(shapes)}")
        return {name: shapes[shape] for name, shape in _OUTPUTS.items()}

    def _needed_for(self, name: str) -> set[int]:
        """Tensors that only this output needs."""
        def ancestors(names: list[str]) -> set[int]:
            needed = {self._outputs[n] for n in names}
            for step in reversed(self._steps):
                if step.output in needed:
                    needed.update(step.inputs)
            return needed
        return ancestors([name]) - ancestors([n for n in self._outputs if n != name])

    def _frozen(self, least: int) -> int:
        """How many of the first steps are the stem; their weights are frozen."""
        if not least:
            return 0
        count = next(k for k, s in enumerate(self._steps) if int(self._graph.tensors[s.output].shape[1]) < least)
        for step in self._steps[:count]:
            for i in step.weights:
                self.weights[str(i)].requires_grad_(False)
        return count

    # -- running -------------------------------------------------------------------------------------------------

    def forward(self, pictures: Tensor, mask: bool = True) -> Answer:
        """pictures: [N, 3, 256, 256] sRGB in [0, 1]. mask: whether it is wanted."""
        known = {int(self._graph.inputs[0]): pictures}
        if self._stem:
            with torch.no_grad(), torch.autocast(pictures.device.type, torch.bfloat16):
                self._run(known, self._steps[:self._stem], mask)
            later = {i for step in self._steps[self._stem:] for i in step.inputs}
            known = {i: t.float() for i, t in known.items() if i in later}
        self._run(known, self._steps[self._stem:], mask)
        out = {name: known.get(i) for name, i in self._outputs.items()}
        return Answer(out["points"].reshape(-1, _ALL, 5), out["world"].reshape(-1, _ALL, 3), out["score"][:, 0],
                      out["heat"], out["mask"])

    def _run(self, known: dict[int, Tensor], steps: list[_Step], mask: bool) -> None:
        for step in steps:
            if mask or step.output not in self._mask_only:
                weights = (self._weight(i) for i in step.weights)
                known[step.output] = step.run(*(known[i] for i in step.inputs), *weights)

    # -- writing -------------------------------------------------------------------------------------------------

    def packed(self) -> bytes:
        """The TFLite file (as it was given, its mask whole) with these weights, as precise as its own were."""
        for key in self.weights:
            i = self._stored.get(int(key), int(key))
            a = self._weight(key).detach().cpu().numpy()
            if a.ndim == 4:
                stored = tuple(int(n) for n in self._graph.tensors[i].shape)
                order = next(o for o in ((0, 2, 3, 1), (1, 2, 3, 0)) if a.transpose(o).shape == stored)
                a = a.transpose(order)
            tflite_graph.set_array(self._whole, i, a)
        return tflite_graph.packed(self._whole)


@dataclass(frozen=True)
class _Step:
    """An operator: inputs and output are numbers of tensors, weights of those that are learned."""

    kind: str
    inputs: list[int]
    output: int
    run: Callable[..., Tensor]
    weights: list[int] | tuple = ()


def _convolution(options, kind: str) -> Callable[..., Tensor]:
    stride, same, act = int(options.strideH), tflite_graph.pads_same(options), _activation(options)

    def run(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        pad = 0
        if same:  # as TensorFlow does: more at the far end
            n = x.shape[-1]
            total = max((math.ceil(n / stride) - 1) * stride + weight.shape[-1] - n, 0)
            pad = total // 2
            if total % 2:
                x, pad = F.pad(x, (pad, total - pad) * 2), 0
        groups = x.shape[1] if kind == "DEPTHWISE_CONV_2D" else 1
        return act(F.conv2d(x, weight, bias, stride, pad, groups=groups))
    return run


def _sum(options) -> Callable[..., Tensor]:
    act = _activation(options)
    return lambda a, b: act(a + b)


def _activation(options) -> Callable[[Tensor], Tensor]:
    name = tflite_graph.activation(options)
    known = {"NONE": lambda x: x, "RELU": F.relu, "RELU6": F.relu6}
    if name not in known:
        raise ValueError(f"not a landmark network: activation {name}")
    return known[name]


def _simple(kind: str, constant: np.ndarray | None) -> Callable[[Tensor], Tensor]:
    """An operator without weights; constant: its second input."""
    if kind == "PAD":
        (top, bottom), (left, right) = (tuple(int(n) for n in row) for row in constant[1:3])
        return lambda x: F.pad(x, (left, right, top, bottom))
    if kind == "RESIZE_BILINEAR":
        size = tuple(int(n) for n in constant)
        return lambda x: F.interpolate(x, size, mode="bilinear", align_corners=False)
    known = {"MAX_POOL_2D": lambda x: F.max_pool2d(x, 2), "LOGISTIC": torch.sigmoid,
             "RESHAPE": lambda x: x.flatten(1)}
    if kind not in known:
        raise ValueError(f"not a landmark network: operator {kind}")
    return known[kind]


def pictures_of(views: list[np.ndarray]) -> Tensor:
    """[N, 3, 256, 256] of views [256, 256, 3], in the memory order that is quicker on a CPU."""
    assert views[0].shape == (LANDMARK_SIZE, LANDMARK_SIZE, 3)
    return torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
