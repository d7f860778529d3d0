"""Making a TFLite graph smaller before it is run, since an interpreter computes everything in its file, asked for or
not; and what training needs to read and write such files.

BlazePose's person mask costs a third of the landmark network (256 x 256 x 8 numbers in ten layers), more than where the
body is. Most callers need no mask, the others none of that resolution.
"""

from __future__ import annotations

import numpy as np

_IDENTIFIER = b"TFL3"


def without(content: bytes, output: tuple[int, ...]) -> bytes:
    """The graph without the output of that shape and what only it needs; as it was where there is none such."""
    model = parsed(content)
    if model is None:
        return content
    graph = model.subgraphs[0]
    kept = [i for i in graph.outputs if _shape(graph, i) != output]
    if len(kept) == len(graph.outputs):
        return content
    _keep(graph, kept)
    return packed(model)


def at_half_size(content: bytes, output: tuple[int, ...]) -> bytes:
    """The graph with the output [1, H, W, C] of that shape made at [1, H / 2, W / 2, C].

    The last enlargement is left out and what follows it sees the smaller maps. As it was where that is not what the
    graph looks like: convolutions of that size after exactly one enlargement to it."""
    model = parsed(content)
    if model is None:
        return content
    graph = model.subgraphs[0]
    large, small = output[1:3], tuple(n // 2 for n in output[1:3])
    enlarging = [op for op in graph.operators
                 if _is_enlargement(model, op) and _shape(graph, op.outputs[0])[1:3] == large
                 and _shape(graph, op.inputs[0])[1:3] == small]
    if len(enlarging) != 1 or output not in [_shape(graph, i) for i in graph.outputs]:
        return content
    before, after = int(enlarging[0].inputs[0]), int(enlarging[0].outputs[0])
    graph.operators.remove(enlarging[0])
    smaller = {after}
    for op in graph.operators:  # in order of execution
        if not smaller.isdisjoint(int(i) for i in op.inputs):
            smaller.update(int(i) for i in op.outputs)
        op.inputs = np.array([before if i == after else i for i in op.inputs], np.int32)
    for i in smaller:
        shape = _shape(graph, i)
        if shape[1:3] != large:
            return content
        graph.tensors[i].shape = np.array((shape[0], *small, *shape[3:]), np.int32)
    return packed(model)


def parsed(content: bytes):
    """The model as objects; None where it is none."""
    if content[4:8] != _IDENTIFIER:
        return None
    from ai_edge_litert import schema_py_generated as schema

    try:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
        return model if len(model.subgraphs) == 1 else None
    except Exception:  # a damaged file fails in any way; the interpreter says of it what there is to say
        return None


def packed(model) -> bytes:
    import flatbuffers

    model.signatureDefs = None  # they name outputs by their old places
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


def _keep(graph, outputs: list[int]) -> None:
    """Make `outputs` the graph's outputs and leave out the operators that none of them needs."""
    needed, operators = {int(i) for i in outputs}, []
    for op in reversed(graph.operators):
        if not needed.isdisjoint(int(i) for i in op.outputs):
            operators.append(op)
            needed.update(int(i) for i in op.inputs)
    graph.operators, graph.outputs = operators[::-1], np.array(outputs, np.int32)


def _shape(graph, tensor: int) -> tuple[int, ...]:
    shape = graph.tensors[tensor].shape
    return () if shape is None else tuple(int(n) for n in shape)


def _is_enlargement(model, operator) -> bool:
    return code(model, operator) == "RESIZE_BILINEAR"


# -- for those who train them ------------------------------------------------------------------------------------


def code(model, operator) -> str:
    """An operator's name, as TFLite has it."""
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    known = model.operatorCodes[operator.opcodeIndex]
    return _name(BuiltinOperator, max(known.builtinCode, known.deprecatedBuiltinCode))


def activation(options) -> str:
    """The name of what is applied to an operator's answer."""
    from ai_edge_litert.schema_py_generated import ActivationFunctionType

    return _name(ActivationFunctionType, options.fusedActivationFunction)


def pads_same(options) -> bool:
    """Whether a convolution keeps the size of its map (over its stride)."""
    from ai_edge_litert.schema_py_generated import Padding

    return int(options.padding) == Padding.SAME


def array(model, tensor) -> np.ndarray:
    """The constant in a tensor."""
    data = np.asarray(model.buffers[tensor.buffer].data, np.uint8)
    shape = () if tensor.shape is None else tuple(int(n) for n in tensor.shape)
    return np.frombuffer(data.tobytes(), _kind(tensor)).reshape(shape)


def set_array(model, index: int, values: np.ndarray) -> None:
    """Replace the constant in a tensor of the model's graph. Raises ValueError for another shape."""
    tensor = model.subgraphs[0].tensors[index]
    if _shape(model.subgraphs[0], index) != values.shape:
        raise ValueError(f"tensor {index} is {_shape(model.subgraphs[0], index)}, not {values.shape}")
    data = np.ascontiguousarray(values.astype(_kind(tensor)))
    model.buffers[tensor.buffer].data = np.frombuffer(data.tobytes(), np.uint8)


def _kind(tensor) -> type:
    from ai_edge_litert.schema_py_generated import TensorType

    kinds = {TensorType.FLOAT32: np.float32, TensorType.FLOAT16: np.float16, TensorType.INT32: np.int32}
    if tensor.type not in kinds:
        raise ValueError(f"a tensor of type {_name(TensorType, tensor.type)}")
    return kinds[tensor.type]


def _name(enumeration: type, value: int) -> str:
    return next(name for name, v in vars(enumeration).items() if v == value)
