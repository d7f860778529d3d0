"""A set of synthetic sequences: seeds, parallel work, a manifest with checksums."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from blur_motion_ros.data.mocap import MotionClip, load_training_clips
from blur_motion_ros.data.synth.sequence import make_sequence
from blur_motion_ros.data.synth.settings import SynthSettings

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Job:
    """One sequence to make.  clips: only motions whose name contains one of these words (() = all)."""

    folder: Path
    seed: int
    settings: SynthSettings
    clips: tuple[str, ...] = ()
    photos: tuple[Path, ...] = ()
    mocap: Path | None = None
    deepmimic: Path | None = None


def jobs(out: Path, count: int, seed: int, settings: SynthSettings, prefix: str = "", **sources: object) -> list[Job]:
    """`count` sequences named PREFIX_SEED (or SPLIT_SEED) in `out`; sequence i depends on seed + i only."""
    prefix = prefix or settings.split
    return [Job(out / f"{prefix}_{seed + i:05d}", seed + i, settings, **sources) for i in range(count)]


def make(work: list[Job], workers: int = 1, step: Callable[[], None] = lambda: None) -> list[dict]:
    """Make every sequence (those already finished are kept) and return their meta. Calls `step` after each one."""
    if workers <= 1:
        return [_stepped(make_one(job), step) for job in work]
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return [_stepped(meta, step) for meta in pool.map(make_one, work)]


def make_one(job: Job) -> dict:
    """Make one sequence unless its folder is complete and was made by the same job."""
    wanted = {"seed": job.seed, "settings": asdict(job.settings), "clips": list(job.clips)}
    done = job.folder / "meta.json"
    if done.is_file():
        meta = json.loads(done.read_text())
        if meta.get("synth") == wanted:
            return meta
    clips = chosen_clips(job)
    meta = make_sequence(job.folder, clips, job.settings, job.seed, list(job.photos)) | {"synth": wanted}
    done.write_text(json.dumps(meta, indent=1) + "\n")
    return meta


def chosen_clips(job: Job) -> list[MotionClip]:
    """Motions of the job's split alone, filtered by name. ValueError if none is left."""
    clips = load_training_clips(job.settings.split, job.mocap, job.deepmimic)
    if job.clips:
        clips = [c for c in clips if any(word in c.name for word in job.clips)]
    if not clips:
        raise ValueError(f"no {job.settings.split} motion has a name containing {' or '.join(job.clips)}")
    return clips


def write_manifest(out: Path, metas: Iterable[dict]) -> Path:
    """manifest.json: what each sequence is, and SHA-256 and size of every file. Entries of other sequences that lie in
    the folder are kept."""
    metas = list(metas)
    path = out / MANIFEST
    known = json.loads(path.read_text())["sequences"] if path.is_file() else []
    renewed = {meta["name"] for meta in metas}
    entries = [e for e in known if e["name"] not in renewed and (out / e["name"]).is_dir()]
    for meta in metas:
        folder = out / meta["name"]
        files = {p.name: {"sha256": checksum(p), "bytes": p.stat().st_size} for p in sorted(folder.iterdir())}
        keep = ("name", "seed", "split", "clip", "clip_t0", "body", "scene", "n", "fps", "duty", "blur_rate_mean")
        entries.append({k: meta[k] for k in keep} | {"files": files})
    entries.sort(key=lambda e: e["name"])
    path.write_text(json.dumps({"sequences": entries}, indent=1) + "\n")
    return path


def verify(out: Path) -> list[str]:
    """Files that are missing or differ from the manifest, as SEQUENCE/FILE; [] when all is well."""
    path = out / MANIFEST
    if not path.is_file():
        raise ValueError(f"{out} has no {MANIFEST}; make the set with blur-motion synth")
    bad = []
    for entry in json.loads(path.read_text())["sequences"]:
        for name, known in entry["files"].items():
            file = out / entry["name"] / name
            if not file.is_file() or checksum(file) != known["sha256"]:
                bad.append(f"{entry['name']}/{name}")
    return bad


def checksum(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _stepped(meta: dict, step: Callable[[], None]) -> dict:
    step()
    return meta
