"""The package as a whole: settings and their documentation, command line, imports, build."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from blur_motion_ros import __version__, cli, config
from blur_motion_ros.settings import SettingError

ROOT = Path(__file__).resolve().parents[1]


def test_parameter_documentation_is_up_to_date():
    assert (ROOT / "docs" / "parameters.md").read_text() == config.parameters_markdown(), \
        "run: python -m blur_motion_ros.config"


def test_links_of_the_documents_lead_somewhere():
    """Files, and headings of Markdown files (as GitHub numbers them: lower case, no punctuation, dashes for blanks)."""
    lost = []
    for page in (ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")):
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            path, _, heading = link.partition("#")
            target = page.parent / path if path else page
            if "://" not in link and not (target.exists() and (not heading or heading in _headings(target))):
                lost.append(f"{page.relative_to(ROOT)}: {link}")
    assert not lost


def _headings(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in titles}


def test_every_setting_has_a_meaning_and_a_default_in_range():
    from blur_motion_ros.settings import check

    for leaf in config.leaves():
        assert len(leaf.info.doc) > 5, leaf.name
        assert check(leaf, leaf.value) == leaf.value
        assert isinstance(leaf.value, (bool, int, float, str)), f"{leaf.name} is no ROS parameter type"


def test_yaml_plain_and_ros_style_mean_the_same(tmp_path):
    plain, ros = tmp_path / "a.yaml", tmp_path / "b.yaml"
    plain.write_text("fit: {degree: 3}\ncamera: {duty: 1}\n")
    ros.write_text("/**:\n  ros__parameters:\n    fit: {degree: 3}\n    camera.duty: 1\n")
    assert config.load(plain) == config.load(ros)
    assert config.load(plain).fit.degree == 3 and config.load(plain).camera.duty == 1.0
    assert config.load(plain, {"fit.degree": "2"}).fit.degree == 2


@pytest.mark.parametrize("text, words", [("fit: {degre: 3}", "unknown setting 'fit.degre'"),
                                         ("fit: {degree: 99}", "allowed"), ("a: [", "not valid YAML"),
                                         ("- 1", "holds a list"), ("camera: {reference: never}", "choose one of")])
def test_wrong_settings_files_are_one_sentence(tmp_path, text, words):
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(SettingError, match=re.escape(words)) as caught:
        config.load(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(SettingError, match="cannot be read"):
        config.load(tmp_path / "missing.yaml")
    with pytest.raises(SettingError, match="name=value"):
        config.parse_assignments(["fit.degree"])


def test_shipped_parameter_file_is_valid_and_equal_to_the_defaults():
    assert config.load(ROOT / "config" / "pipeline.yaml") == config.Settings()


def test_versions_agree():
    package = ElementTree.parse(ROOT / "package.xml").getroot()
    assert package.findtext("version") == __version__
    assert f'version="{__version__}"' in (ROOT / "setup.py").read_text()
    assert package.get("format") == "3" and package.findtext("export/build_type") == "ament_python"
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_importing_the_package_loads_nothing_heavy():
    code = ("import blur_motion_ros, sys; "
            "print([m for m in ('numpy', 'torch', 'cv2', 'rclpy', 'numba') if m in sys.modules])")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT).stdout.strip() == "[]"


def test_only_nodes_messages_and_the_demo_know_ros():
    ros = re.compile(r"^\s*(?:from|import) (rclpy|rcl_interfaces|std_srvs|\w+_msgs|builtin_interfaces)\b", re.M)
    for path in (ROOT / "blur_motion_ros").rglob("*.py"):
        part = path.relative_to(ROOT / "blur_motion_ros").parts[0]
        if part not in ("nodes", "demo"):
            assert not ros.search(path.read_text()), f"{path} imports ROS"


def test_every_command_of_the_table_exists_and_has_help():
    for name, (module, text) in cli.COMMANDS.items():
        assert importlib.util.find_spec(module), f"'{name}' has no module {module}"
        result = subprocess.run([sys.executable, "-m", "blur_motion_ros.cli", name, "--help"], capture_output=True,
                                text=True, cwd=ROOT)
        assert result.returncode == 0 and f"blur-motion {name}" in result.stdout and text, result.stderr


def test_command_line_errors_are_one_line(tmp_path):
    result = subprocess.run([sys.executable, "-m", "blur_motion_ros.cli", "fit", str(tmp_path / "nothing"), "--out",
                             str(tmp_path / "m.npz")], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 1 and result.stderr.startswith("blur-motion fit: ")
    assert result.stderr.strip().count("\n") == 0


def test_run_script_is_valid_and_explains_itself():
    assert subprocess.run(["bash", "-n", ROOT / "run"]).returncode == 0
    text = subprocess.run([ROOT / "run"], capture_output=True, text=True).stdout
    assert "./run demo" in text and "./run test" in text


def test_run_script_names_what_is_missing(tmp_path):
    """Without a usable Python, and on a machine for which PyPI has no ROS wheels."""
    copy = tmp_path / "r"
    copy.mkdir()
    for path in (ROOT / "run", ROOT / "setup.py", *ROOT.glob("requirements*.txt")):
        (copy / path.name).write_bytes(path.read_bytes())
    environment = {k: v for k, v in os.environ.items() if k not in ("ROS_DISTRO", "PYTHONPATH")}
    result = subprocess.run(["bash", copy / "run", "setup"], env=environment | {"PYTHON": "no-such-python"},
                            capture_output=True, text=True)
    assert result.returncode == 1 and "Python 3.10 to 3.13" in result.stderr and not (copy / ".venv").exists()
    (copy / "uname").write_text("#!/bin/sh\necho Linux aarch64\n")
    (copy / "uname").chmod(0o755)
    (copy / "python").write_text(f'#!/bin/sh\ncase "$*" in *rclpy*) exit 1;; esac\nexec {sys.executable} "$@"\n')
    (copy / "python").chmod(0o755)
    result = subprocess.run(["bash", copy / "run", "setup"], capture_output=True, text=True,
                            env=environment | {"PYTHON": str(copy / "python"), "PATH": f"{copy}:{os.environ['PATH']}"})
    assert result.returncode == 1 and "aarch64" in result.stderr and "source a ROS 2" in result.stderr


@pytest.mark.long
def test_colcon_builds_and_installs_where_ros_looks(tmp_path):
    """colcon from PyPI in an environment of its own."""
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    pip = subprocess.run([venv / "bin" / "pip", "install", "-q", "colcon-core", "colcon-ros",
                          "colcon-python-setup-py", "setuptools<80"], capture_output=True, text=True)
    if pip.returncode:
        pytest.skip("colcon cannot be fetched from PyPI here")
    build = subprocess.run([venv / "bin" / "colcon", "--log-base", "log", "build", "--base-paths", ROOT],
                           cwd=tmp_path, capture_output=True, text=True,
                           env=os.environ | {"PATH": f"{venv / 'bin'}:{os.environ['PATH']}"})
    assert build.returncode == 0, build.stdout + build.stderr
    prefix = tmp_path / "install" / "blur_motion_ros"
    for executable in ("blur-motion-pipeline", "camera_node", "fitting_node", "camera_player", "blur-motion"):
        script = prefix / "lib" / "blur_motion_ros" / executable
        assert os.access(script, os.X_OK) and script.read_text().startswith("#!/usr/bin/env python3")
    share = prefix / "share"
    assert (share / "ament_index/resource_index/packages/blur_motion_ros").is_file()
    for name in ("launch/pipeline.launch.py", "config/fastdds.xml", "config/pipeline.yaml", "rviz/pipeline.rviz"):
        assert (share / "blur_motion_ros" / name).is_file()
    assets = list(prefix.glob("lib/python3*/site-packages/blur_motion_ros/assets/body_fit.npz"))
    assert len(assets) == 1
    player = subprocess.run([prefix / "lib/blur_motion_ros/camera_player"], capture_output=True, text=True,
                            env=os.environ | {"PYTHONPATH": str(assets[0].parents[2]),
                                              "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"})
    assert "parameter 'input' is empty" in player.stderr + player.stdout


def test_offline_defaults_are_settings_and_give_way_to_what_is_asked():
    live, offline = config.load(), config.load(offline=True)
    changed = {leaf.name for leaf, other in zip(config.leaves(live), config.leaves(offline), strict=True)
               if leaf.value != other.value}
    assert changed == set(config.OFFLINE)
    assert config.load(None, {"fit.size": "64"}, offline=True).fit.size == 64
