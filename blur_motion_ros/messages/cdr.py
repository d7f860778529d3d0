"""Messages that are serialised once and then patched: their numbers are written into the CDR bytes.

A message built of thousands of Python objects costs milliseconds with the interpreter locked, of which the next image
gets nothing. Where a number lies in the bytes is found by serialising a message with numbers that occur nowhere else.
"""

from __future__ import annotations

import struct


def mark(kind: str, count: int, number: int = 0) -> tuple[float, ...]:
    """`count` values of struct type `kind` (d, f or i) that stand for nothing else; another set for every `number`."""
    if kind == "i":
        return tuple(0x13579BDF + 977 * (count * number + i) for i in range(count))
    tiny = 1.2345678901e-300 if kind == "d" else struct.unpack("<f", struct.pack("<f", 1.2345678e-30))[0]
    step = 1e-300 if kind == "d" else 1e-30
    return tuple(tiny + step * (count * number + i) for i in range(count))


def find(data: bytes | bytearray, kind: str, values: tuple[float, ...]) -> int:
    """Offset of values of struct type `kind`, one after the other. RuntimeError unless they occur exactly once."""
    pattern = struct.pack(f"<{len(values)}{kind}", *values)
    at = data.find(pattern)
    if at < 0 or data.find(pattern, at + 1) >= 0:
        raise RuntimeError("a message's numbers are not where CDR puts them (little-endian CDR is required)")
    return at
