"""visualization_msgs/MarkerArray of the skeleton, and of the mesh by patching serialised bytes."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from blur_motion_ros.messages import cdr

DISTRUSTED_OPACITY = 0.25  # of that of a body which the estimate stands for

_STAMP, _COLOUR, _POINT, _WHOLE = cdr.mark("i", 2), cdr.mark("f", 4), cdr.mark("d", 3), cdr.mark("f", 4, 1)

# Colour map of speed, dark blue -> cyan -> yellow -> red (0, 1/3, 2/3, 1 of the top speed).
_SPEED_COLOURS = np.array([[0.1, 0.2, 0.7], [0.1, 0.75, 0.85], [0.95, 0.85, 0.2], [0.9, 0.15, 0.1]])


def speed_colour(speed: np.ndarray, top: float) -> np.ndarray:
    """Speeds [...] m/s -> RGB [..., 3] in [0, 1]; `top` m/s and above gets the last colour."""
    x = np.clip(np.nan_to_num(np.asarray(speed, float)) / top, 0, 1) * (len(_SPEED_COLOURS) - 1)
    i = np.minimum(x.astype(int), len(_SPEED_COLOURS) - 2)
    f = (x - i)[..., None]
    return (1 - f) * _SPEED_COLOURS[i] + f * _SPEED_COLOURS[i + 1]


def skeleton_markers(types: Any, header: Any, body: str, positions: np.ndarray, speeds: np.ndarray,
                     parents: Sequence[int], top: float) -> Any:
    """MarkerArray with joints (spheres) and bones (lines) coloured by speed.

    types: module or namespace with MarkerArray, Marker, Point, ColorRGBA.  positions: [24, 3] m.  speeds: [24] m/s.
    """
    colours = [types.ColorRGBA(r=r, g=g, b=b, a=1.0) for r, g, b in speed_colour(speeds, top).tolist()]
    points = [types.Point(x=x, y=y, z=z) for x, y, z in np.asarray(positions, float).tolist()]
    joints = _marker(types, header, f"{body}/joints", types.Marker.SPHERE_LIST, 0.05)
    joints.points, joints.colors = points, colours
    bones = _marker(types, header, f"{body}/bones", types.Marker.LINE_LIST, 0.025)
    ends = [k for j, p in enumerate(parents) if p >= 0 for k in (p, j)]
    bones.points, bones.colors = [points[k] for k in ends], [colours[k] for k in ends]
    return types.MarkerArray(markers=[joints, bones])


class SkeletonMarkers:
    """`skeleton_markers` serialised once: `patch` writes positions, colours and stamp into the bytes.

    types, body, parents, top: as there.  serialise: message -> bytes.
    """

    def __init__(self, types: Any, serialise: Callable[[Any], bytes], frame_id: str, body: str,
                 parents: Sequence[int], top: float) -> None:
        self.frame_id, self.top = frame_id, top
        ends = [k for j, p in enumerate(parents) if p >= 0 for k in (p, j)]
        self._indices = (np.arange(len(parents)), np.array(ends))
        header = types.Header(frame_id=frame_id)
        msg = skeleton_markers(types, header, body, np.zeros((len(parents), 3)), np.zeros(len(parents)), parents, top)
        for i, marker in enumerate(msg.markers):
            marker.header = types.Header(frame_id=frame_id)
            marker.header.stamp.sec, marker.header.stamp.nanosec = cdr.mark("i", 2, i)
            marker.points = [types.Point() for _ in marker.points]  # of their own, to be marked
            marker.colors = [types.ColorRGBA() for _ in marker.colors]
            marker.points[0].x, marker.points[0].y, marker.points[0].z = cdr.mark("d", 3, i)
            c = marker.colors[0]
            c.r, c.g, c.b, c.a = cdr.mark("f", 4, i)
        self._bytes = bytearray(serialise(msg))
        self._stamps = [cdr.find(self._bytes, "i", cdr.mark("i", 2, i)) for i in range(2)]
        self._points, self._colours = ([self._view(kind, letter, width, i) for i in range(2)]
                                       for kind, letter, width in (("<f8", "d", 3), ("<f4", "f", 4)))

    def _view(self, kind: str, letter: str, width: int, marker: int) -> np.ndarray:
        """[n, width] of a marker's points or colours, in the bytes."""
        start = cdr.find(self._bytes, letter, cdr.mark(letter, width, marker))
        return np.frombuffer(self._bytes, kind, width * len(self._indices[marker]), start).reshape(-1, width)

    def patch(self, positions: np.ndarray, speeds: np.ndarray, stamp: Any, opacity: float = 1.0) -> bytes:
        """positions [24, 3] m, speeds [24] m/s -> CDR bytes of the MarkerArray."""
        colours = speed_colour(speeds, self.top)
        for i, index in enumerate(self._indices):
            struct.pack_into("<iI", self._bytes, self._stamps[i], stamp.sec, stamp.nanosec)
            self._points[i][:] = positions[index]
            self._colours[i][:, :3] = colours[index]
            self._colours[i][:, 3] = opacity
        return bytes(self._bytes)


def clear_markers(types: Any, header: Any) -> Any:
    """MarkerArray that removes everything this publisher has shown."""
    marker = types.Marker(header=header, action=types.Marker.DELETEALL)
    return types.MarkerArray(markers=[marker])


class MeshMarker:
    """A triangle-list marker that is serialised once; `patch` writes new vertices and a new stamp into the bytes.

    faces: [F, 3] vertex indices, fixed.  colour: of the whole mesh; with `painted`, `patch` takes colours per vertex
    and only its opacity is used.  Building 13.8k triangles from Point messages takes about 100 ms; patching
    takes a fraction of a millisecond. The result is published with `publisher.publish(bytes)`.
    """

    def __init__(self, types: Any, serialise: Callable[[Any], bytes], frame_id: str, body: str, faces: np.ndarray,
                 colour: tuple[float, float, float, float] = (0.35, 0.65, 0.9, 0.75), painted: bool = False) -> None:
        self.painted, self._opaque = painted, colour[3]
        self._index = np.asarray(faces, np.int64).ravel()
        header = types.Header(frame_id=frame_id)
        header.stamp.sec, header.stamp.nanosec = _STAMP
        marker = _marker(types, header, f"{body}/mesh", types.Marker.TRIANGLE_LIST, 1.0)
        marker.color = types.ColorRGBA(**dict(zip("rgba", _WHOLE, strict=True)))
        first = types.Point(**dict(zip("xyz", _POINT, strict=True)))
        marker.points = [first] + [types.Point()] * (len(self._index) - 1)
        if painted:
            first = types.ColorRGBA(**dict(zip("rgba", _COLOUR, strict=True)))
            marker.colors = [first] + [types.ColorRGBA(a=colour[3])] * (len(self._index) - 1)
        self._bytes = bytearray(serialise(types.MarkerArray(markers=[marker])))
        self._stamp = cdr.find(self._bytes, "i", _STAMP)
        self._whole = np.frombuffer(self._bytes, "<f4", 4, cdr.find(self._bytes, "f", _WHOLE))
        self._whole[:] = colour
        start = cdr.find(self._bytes, "d", _POINT)
        self._points = np.frombuffer(self._bytes, "<f8", 3 * len(self._index), start).reshape(-1, 3)
        if painted:
            start = cdr.find(self._bytes, "f", _COLOUR)
            self._colours = np.frombuffer(self._bytes, "<f4", 4 * len(self._index), start).reshape(-1, 4)

    def patch(self, vertices: np.ndarray, stamp: Any, colours: np.ndarray | None = None, opacity: float = 1.0) -> bytes:
        """vertices [V, 3] m, a builtin_interfaces Time, and if painted colours [V, 3] as displayed, in [0, 1]; opacity:
        in that of the mesh's colour -> CDR bytes of the MarkerArray."""
        self._whole[3] = opacity * self._opaque
        if self.painted:
            self._colours[:, 3] = opacity * self._opaque
        if colours is not None:
            self._colours[:, :3] = colours[self._index]
        struct.pack_into("<iI", self._bytes, self._stamp, stamp.sec, stamp.nanosec)
        self._points[:] = vertices[self._index]
        return bytes(self._bytes)


def _marker(types: Any, header: Any, namespace: str, kind: int, size: float) -> Any:
    marker = types.Marker(header=header, ns=namespace, type=kind, action=types.Marker.ADD)
    marker.scale.x = marker.scale.y = marker.scale.z = size
    marker.pose.orientation.w = 1.0
    marker.color.r = marker.color.g = marker.color.b = marker.color.a = 1.0
    return marker
