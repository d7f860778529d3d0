"""The methods of the benchmark table: ours, and what it is compared with.

A method takes a sequence (inputs only) and gives a `Prediction`. `methods()` lists them by name. A baseline that sees
one pose per frame comes twice: *held* over the exposure, and *interpolated* linearly between mid-exposures (which looks
at the next frame, so it could not run live).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from blur_motion_ros.config import Settings
from blur_motion_ros.data.sequence import Sequence
from blur_motion_ros.evaluation import baselines as b
from blur_motion_ros.evaluation.predictions import Prediction
from blur_motion_ros.evaluation.runs import PerFrame, held, interpolated, run_offline, run_pipeline


@dataclass(frozen=True)
class Method:
    """name: in tables and on the command line.  doc: one line.  run: sequence, settings -> prediction.

    causal: it uses nothing from after the exposure's own frame.  available: whether the files it needs are here."""

    name: str
    doc: str
    run: Callable[[Sequence, Settings], Prediction]
    causal: bool = True
    available: Callable[[], bool] = lambda: True


def select(names: Iterable[str] | None) -> list[Method]:
    """Methods by name (None: all whose files are here). ValueError lists the known ones."""
    table = methods()
    if names is None:
        return [m for m in table.values() if m.available()]
    unknown = [n for n in names if n not in table]
    if unknown:
        raise ValueError(f"unknown method '{unknown[0]}'; known: {', '.join(table)}")
    return [table[n] for n in names]


def methods() -> dict[str, Method]:
    """Every method by name, in the order of the table."""
    pairs = (("blazepose", "BlazePose per frame, root by reprojection", b.BlazePoseFrames),
             ("initialiser", "BlazePose registered to the body, without the temporal network", b.InitialiserFrames),
             ("vibe", "our initialiser alone: the registration fused with the temporal network (VIBE)", b.VibeFrames),
             ("deblur_wiener", "Wiener deconvolution along the measured flow, then BlazePose", b.WienerFrames),
             ("deblur_rl", "Richardson-Lucy deconvolution along the measured flow, then BlazePose",
              b.RichardsonLucyFrames),
             ("deblur_onnx", "a learned deblurring network (ONNX file in BLUR_MOTION_DEBLUR_ONNX), then BlazePose",
              b.OnnxFrames))
    out = [Method("blur_fit", "ours, live: polynomial motion fitted to the blurred images", run_pipeline),
           Method("blur_fit_offline", "ours with two exposures of hindsight, as `blur-motion fit`", run_offline, False),
           Method("registration_n1", "ours without the blur model: one sharp sub-frame per exposure (N = 1)",
                  b.run_single_subframe),
           Method("rigid_two_frames", "one rigid motion over two frames, same renderer (as in MfB)", b.run_rigid_two),
           Method("rigid_one_frame", "one rigid motion per frame, same renderer (as in SfB)", b.run_rigid_one)]
    for name, doc, make in pairs:
        available = getattr(make, "available", Method.available)
        out.append(Method(f"{name}_held", f"{doc}; held", _Bound(held, make), available=available))
        out.append(Method(f"{name}_interp", f"{doc}; interpolated", _Bound(interpolated, make), False, available))
    return {m.name: m for m in out}


@dataclass(frozen=True)
class _Bound:
    """`held` or `interpolated` with its per-frame method."""

    schedule: Callable
    make: Callable[[Settings], PerFrame]

    def __call__(self, sequence: Sequence, settings: Settings) -> Prediction:
        return self.schedule(sequence, settings, self.make)
