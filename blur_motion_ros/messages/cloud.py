"""sensor_msgs/PointCloud2 with float32 fields, from and to structured columns."""

from __future__ import annotations

from typing import Any

import numpy as np

from blur_motion_ros.messages.image import byte_array

FLOAT32 = 7  # sensor_msgs/PointField.FLOAT32


def fill_cloud(msg: Any, names: tuple[str, ...], columns: np.ndarray, point_field: type) -> Any:
    """Write `columns` [N, len(names)] as float32 fields into a PointCloud2 and return it; the header is left alone.

    NaN rows are allowed (then `is_dense` is false). `point_field` is the PointField message class.
    """
    data = np.ascontiguousarray(columns, np.float32)
    if data.ndim != 2 or data.shape[1] != len(names):
        raise ValueError(f"cloud columns have shape {data.shape}; expected [N, {len(names)}] for {names}")
    msg.height, msg.width = 1, data.shape[0]
    msg.fields = [point_field(name=n, offset=4 * i, datatype=FLOAT32, count=1) for i, n in enumerate(names)]
    msg.is_bigendian = False
    msg.point_step = 4 * len(names)
    msg.row_step = msg.point_step * msg.width
    msg.data = byte_array(data)
    msg.is_dense = bool(np.isfinite(data).all())
    return msg


def read_cloud(msg: Any) -> dict[str, np.ndarray]:
    """PointCloud2 of float32 fields -> {field: [N] float32} (copies)."""
    rows = np.frombuffer(msg.data, np.uint8).reshape(-1, msg.point_step)
    order = ">f4" if msg.is_bigendian else "<f4"
    for f in msg.fields:
        if f.datatype != FLOAT32:
            raise ValueError(f"cloud field '{f.name}' has datatype {f.datatype}; only float32 (7) is read here")
    return {f.name: rows[:, f.offset:f.offset + 4].copy().view(order)[:, 0].astype(np.float32) for f in msg.fields}
