"""`blur-motion export vibe`: checkpoints -> TorchScript files that run without this package.

Official image network: `--checkpoint vibe_model_w_3dpw.pth.tar --backbone spin_model_checkpoint.pth.tar
[--mean smpl_mean_params.npz]`. Our landmark network: `--run FOLDER` of `blur-motion train vibe`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

WHAT = ("vibe",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=WHAT, help="which network")
    parser.add_argument("--checkpoint", type=Path, help="official VIBE checkpoint (gen_state_dict)")
    parser.add_argument("--backbone", type=Path, help="SPIN checkpoint with the ResNet-50 (model)")
    parser.add_argument("--mean", type=Path, help="smpl_mean_params.npz, where the checkpoint lacks init_*")
    parser.add_argument("--run", type=Path, help="folder of a landmark training run (checkpoint.pt)")
    parser.add_argument("--out", type=Path, required=True, help="TorchScript file to write")


def run(args: argparse.Namespace) -> int:
    if (args.run is None) == (args.checkpoint is None):
        raise ValueError("give either --checkpoint (official image network) or --run (landmark network)")
    if args.run is not None:
        return export_run(args.run, args.out)
    return export_official(args.checkpoint, args.backbone, args.mean, args.out)


def export_official(checkpoint: Path, backbone: Path | None, mean: Path | None, out: Path) -> int:
    """Backbone, encoder and regressor as one network: crops [N, T, 3, 224, 224] and state -> SMPL."""
    from blur_motion_ros.initialiser import vibe_checkpoint as files
    from blur_motion_ros.initialiser.vibe_model import ImageVibe

    if backbone is None:
        raise ValueError("--backbone is missing: VIBE's checkpoint holds no ResNet-50; give SPIN's checkpoint")
    means = files.load_mean_params(mean) if mean else None
    vibe = files.load_vibe(checkpoint, mean=means)
    features = files.load_spin_backbone(backbone)
    if vibe.encoder.gru.input_size != 2048:
        raise ValueError(f"{checkpoint}: encoder reads {vibe.encoder.gru.input_size} features; ResNet-50 gives 2048")
    save(ImageVibe(features, vibe).eval(), out, {
        "what": "VIBE on image crops", "inputs": "crops [N, T, 3, 224, 224] ImageNet-normalised RGB, GRU state or None",
        "licence": "non-commercial, as the weights it was made from", "checkpoint": checkpoint.name,
        "backbone": backbone.name})
    return 0


def export_run(folder: Path, out: Path) -> int:
    """The landmark network of a training run."""
    import torch

    from blur_motion_ros.initialiser.vibe_landmarks import LandmarkSizes, LandmarkVibe

    path = folder / "checkpoint.pt"
    if not path.is_file():
        raise ValueError(f"{path}: no such file; --run takes the --out folder of `blur-motion train vibe`")
    data = torch.load(path, weights_only=True)
    settings = json.loads(data["settings"])
    model = LandmarkVibe(LandmarkSizes(**settings["sizes"]))
    model.load_state_dict(data["model"])
    save(model.eval(), out, {"what": "landmark encoder", "step": data["step"], "settings": settings},
         half=model.vibe.encoder.gru.bidirectional)
    return 0


def save(model: Any, out: Path, record: dict[str, Any], half: bool = False) -> None:
    """Script, write, and say what was written."""
    from blur_motion_ros.learning.vibe_train import export

    out.parent.mkdir(parents=True, exist_ok=True)
    digest = export(model, out, record, half)
    print(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB, sha256 {digest[:12]}) and {out.with_suffix('.json')}")
