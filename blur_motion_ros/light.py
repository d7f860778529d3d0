"""Camera response: uint8 code values <-> linear light in [0, 1].

A response is named by a string: 'srgb' (the standard curve), 'linear' (codes are already proportional to
light), or a gamma such as '2.2' (light = code ** gamma). Everything that averages, subtracts or scales
light converts first; the tables are exact and one lookup long.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np


def decode_table(response: str = "srgb") -> np.ndarray:
    """[256] float32: linear light of every code value (read-only). ValueError for an unknown response."""
    return _decode_table(str(response))


def to_linear(image: np.ndarray, response: str = "srgb") -> np.ndarray:
    """uint8 code values [...] -> float32 linear light in [0, 1], same shape."""
    if image.dtype != np.uint8:
        raise ValueError(f"image is {image.dtype}; to_linear takes uint8 code values")
    table = decode_table(response)
    if image.ndim in (2, 3) and (image.ndim == 2 or image.shape[2] <= 4) and image.size:
        return cv2.LUT(image, table).reshape(image.shape)
    return table[image]


def encode_table(response: str = "srgb") -> np.ndarray:
    """[65536] uint8: the code whose light is nearest to each of 65536 equal steps of light (read-only)."""
    return _encode_table(str(response))


def to_codes(linear: np.ndarray, response: str = "srgb") -> np.ndarray:
    """Linear light [...] (clipped to [0, 1]) -> uint8 code values, the nearest one; inverse of `to_linear`."""
    index = (np.clip(linear, 0.0, 1.0) * (_ENCODE_STEPS - 1) + 0.5).astype(np.uint16)
    return encode_table(response)[index]


def slope(linear: np.ndarray, response: str = "srgb") -> np.ndarray:
    """d(linear) / d(code) at `linear` [...]: what one code step of noise is worth in linear light."""
    steps = np.gradient(decode_table(response).astype(np.float64)).astype(np.float32)
    return steps[to_codes(linear, response)]


_ENCODE_STEPS = 1 << 16


@lru_cache(maxsize=8)
def _decode_table(response: str) -> np.ndarray:
    code = np.arange(256) / 255.0
    table = _curve(code, response).astype(np.float32)
    table.setflags(write=False)
    return table


@lru_cache(maxsize=8)
def _encode_table(response: str) -> np.ndarray:
    light = _decode_table(response).astype(np.float64)
    middles = 0.5 * (light[1:] + light[:-1])
    table = np.searchsorted(middles, np.linspace(0.0, 1.0, _ENCODE_STEPS)).astype(np.uint8)
    table.setflags(write=False)
    return table


def _curve(code: np.ndarray, response: str) -> np.ndarray:
    if response == "srgb":
        return np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)
    if response == "linear":
        return code
    try:
        gamma = float(response)
    except ValueError:
        gamma = float("nan")
    if not 0.2 <= gamma <= 5.0:
        raise ValueError(f"response is '{response}'; use 'srgb', 'linear' or a gamma between 0.2 and 5 such as '2.2'")
    return code**gamma
