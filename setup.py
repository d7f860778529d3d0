"""ament_python package; colcon and pip both read this file."""

from glob import glob

from setuptools import find_packages, setup

NAME = "blur_motion_ros"

setup(
    name=NAME,
    version="0.1.0",
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    package_data={f"{NAME}.assets": ["*.npz", "*.json", "*.md", "*.txt", "*.onnx", "*.pt", "*.ts", "*.tflite"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", glob("launch/*.launch.py")),
        (f"share/{NAME}/config", glob("config/*")),
        (f"share/{NAME}/rviz", glob("rviz/*")),
    ],
    python_requires=">=3.10",
    install_requires=["setuptools"],
    zip_safe=False,
    maintainer="blur_motion_ros maintainers",
    maintainer_email="maintainers@blur-motion-ros.invalid",
    description="Measures human motion from motion blur, live in ROS 2",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            f"blur-motion = {NAME}.cli:main",
            f"blur-motion-pipeline = {NAME}.nodes.entry:pipeline",
            f"camera_node = {NAME}.nodes.entry:camera",
            f"fitting_node = {NAME}.nodes.entry:fitting",
            f"camera_player = {NAME}.nodes.entry:player",
        ],
    },
)
