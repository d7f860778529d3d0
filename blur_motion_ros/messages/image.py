"""sensor_msgs/Image -> RGB uint8, checked; and back.

Common encodings are converted here: views where the data already is RGB, one OpenCV call otherwise. Rare ones go to
ROS 2's own cv_bridge where that is installed. Everything a publisher can get wrong (length, step, endianness, size,
NaN) raises `ImageError` with one sentence naming the field.
"""

from __future__ import annotations

import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

MAX_SIDE = 16384


class ImageError(ValueError):
    """An Image message that cannot be used. The message names the field, what is wrong and the fix."""


@dataclass(frozen=True)
class Encoding:
    """Memory layout of one encoding: element type, channels per pixel, and how it becomes RGB uint8.

    rows: rows of data per image row (1.5 for nv12 and nv21).
    """

    dtype: type
    channels: int
    to_rgb: Callable[[np.ndarray], np.ndarray]
    rows: float = 1.0


def _cvt(code: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda pixels: cv2.cvtColor(np.ascontiguousarray(pixels), code)


def _grey16(pixels: np.ndarray) -> np.ndarray:
    return cv2.cvtColor((pixels >> 8).astype(np.uint8), cv2.COLOR_GRAY2RGB)


def _grey_float(pixels: np.ndarray) -> np.ndarray:
    if not np.isfinite(pixels).all():
        raise ImageError("image data holds NaN or infinite values in a 32FC1 image; publish finite values in [0, 1]")
    return cv2.cvtColor(np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8), cv2.COLOR_GRAY2RGB)


# OpenCV names a Bayer pattern by the pixel at (1, 1), ROS by the one at (0, 0): rggb is COLOR_Bayer*BG* in OpenCV.
ENCODINGS: dict[str, Encoding] = {
    "rgb8": Encoding(np.uint8, 3, lambda p: p),
    "bgr8": Encoding(np.uint8, 3, _cvt(cv2.COLOR_BGR2RGB)),
    "8UC3": Encoding(np.uint8, 3, _cvt(cv2.COLOR_BGR2RGB)),
    "rgba8": Encoding(np.uint8, 4, _cvt(cv2.COLOR_RGBA2RGB)),
    "bgra8": Encoding(np.uint8, 4, _cvt(cv2.COLOR_BGRA2RGB)),
    "mono8": Encoding(np.uint8, 1, _cvt(cv2.COLOR_GRAY2RGB)),
    "8UC1": Encoding(np.uint8, 1, _cvt(cv2.COLOR_GRAY2RGB)),
    "mono16": Encoding(np.uint16, 1, _grey16),
    "16UC1": Encoding(np.uint16, 1, _grey16),
    "32FC1": Encoding(np.float32, 1, _grey_float),
    "bayer_rggb8": Encoding(np.uint8, 1, _cvt(cv2.COLOR_BayerBG2RGB)),
    "bayer_bggr8": Encoding(np.uint8, 1, _cvt(cv2.COLOR_BayerRG2RGB)),
    "bayer_gbrg8": Encoding(np.uint8, 1, _cvt(cv2.COLOR_BayerGR2RGB)),
    "bayer_grbg8": Encoding(np.uint8, 1, _cvt(cv2.COLOR_BayerGB2RGB)),
    "uyvy": Encoding(np.uint8, 2, _cvt(cv2.COLOR_YUV2RGB_UYVY)),
    "yuv422": Encoding(np.uint8, 2, _cvt(cv2.COLOR_YUV2RGB_UYVY)),
    "yuyv": Encoding(np.uint8, 2, _cvt(cv2.COLOR_YUV2RGB_YUY2)),
    "yuv422_yuy2": Encoding(np.uint8, 2, _cvt(cv2.COLOR_YUV2RGB_YUY2)),
    "nv12": Encoding(np.uint8, 1, _cvt(cv2.COLOR_YUV2RGB_NV12), 1.5),
    "nv21": Encoding(np.uint8, 1, _cvt(cv2.COLOR_YUV2RGB_NV21), 1.5),
}


def to_rgb(msg: Any) -> np.ndarray:
    """Image message -> [H, W, 3] uint8 RGB. A read-only view of the message for tightly or padded packed rgb8."""
    encoding = ENCODINGS.get(msg.encoding)
    if encoding is None:
        return _with_cv_bridge(msg)
    return encoding.to_rgb(_pixels(msg, encoding))


def _pixels(msg: Any, encoding: Encoding) -> np.ndarray:
    """The message's data as [rows, W(, C)] in native byte order, without the padding at the end of each row."""
    width, height, step = int(msg.width), int(msg.height), int(msg.step)
    for name, value in (("width", width), ("height", height)):
        if not 1 <= value <= MAX_SIDE:
            raise ImageError(f"image {name} is {value}; expected 1 to {MAX_SIDE}")
    item = np.dtype(encoding.dtype).itemsize
    row = width * encoding.channels * item
    if step < row:
        raise ImageError(f"image step is {step} bytes but {width} pixels of {msg.encoding} need {row}; "
                         "set step to the length of one row in bytes")
    if step % item:
        raise ImageError(f"image step is {step} bytes, no multiple of the {item}-byte elements of {msg.encoding}")
    if encoding.channels == 2 and width % 2:
        raise ImageError(f"image width is {width}; {msg.encoding} needs an even width")
    if encoding.rows != 1 and (width % 2 or height % 2):
        raise ImageError(f"image is {width}x{height}; {msg.encoding} needs an even width and height")
    rows = int(height * encoding.rows)
    length = len(msg.data)
    # The last row may come without its padding.
    if length < step * (rows - 1) + row:
        raise ImageError(f"image data holds {length} bytes but {rows} rows of step {step} need {step * rows}; "
                         "the message was cut short or its height or step is wrong")
    dtype = np.dtype(encoding.dtype).newbyteorder(">" if msg.is_bigendian else "<")
    flat = np.frombuffer(msg.data, np.uint8, min(length, step * rows))
    pixels = np.lib.stride_tricks.as_strided(flat, (rows, row), (step, 1), writeable=False)
    pixels = pixels.view(dtype) if item > 1 else pixels
    if not dtype.isnative:
        pixels = pixels.astype(dtype.newbyteorder("="))
    return pixels.reshape(rows, width, encoding.channels) if encoding.channels > 1 else pixels


def _with_cv_bridge(msg: Any) -> np.ndarray:
    try:
        from cv_bridge import CvBridge
    except ImportError:
        raise ImageError(f"image encoding is '{msg.encoding}'; supported: {', '.join(sorted(ENCODINGS))} "
                         "(others need ROS 2's cv_bridge)") from None
    try:
        return CvBridge().imgmsg_to_cv2(msg, "rgb8")
    except Exception as error:  # cv_bridge raises several unrelated types
        raise ImageError(f"image encoding '{msg.encoding}' cannot be converted by cv_bridge: {error}") from error


def fill_image(msg: Any, image: np.ndarray, encoding: str = "rgb8") -> Any:
    """Write [H, W, 3] (or [H, W]) uint8 pixels into an Image message and return it; the header is left alone.

    The data goes through `array.array.frombytes`: rclpy takes that without checking every byte.
    """
    image = np.ascontiguousarray(image, np.uint8)
    msg.height, msg.width = image.shape[:2]
    msg.encoding = encoding
    msg.is_bigendian = 0
    msg.step = image.strides[0]
    msg.data = byte_array(image)
    return msg


def byte_array(data: Any) -> array.array:
    """Any contiguous buffer -> array('B'), the only type that rclpy assigns to uint8[] without a slow check."""
    out = array.array("B")
    out.frombytes(memoryview(data).cast("B"))
    return out
