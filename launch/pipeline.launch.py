"""ros2 launch blur_motion_ros pipeline.launch.py image:=/camera/image_raw

One process by default (composed:=false splits camera and fitting). `play:=FOLDER` plays a recording instead of a
camera; `rviz:=true` shows everything.
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from blur_motion_ros.nodes import specs


def generate_launch_description():
    arguments = [DeclareLaunchArgument(name, default_value=default, description=text)
                 for name, (default, text) in specs.LAUNCH_ARGUMENTS.items()]
    environment = [SetEnvironmentVariable(name, value) for name, value in specs.environment().items()]
    return LaunchDescription([*arguments, *environment, OpaqueFunction(function=_nodes)])


def _nodes(context):
    values = {name: LaunchConfiguration(name).perform(context) for name in specs.LAUNCH_ARGUMENTS}
    return [Node(package=n.package, executable=n.executable, name=n.name, namespace=values["namespace"],
                 parameters=n.parameters, remappings=list(n.remappings.items()), arguments=n.arguments,
                 output="screen", emulate_tty=True)
            for n in specs.launch_nodes(values)]
