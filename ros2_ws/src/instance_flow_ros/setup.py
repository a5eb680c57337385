# SPDX-License-Identifier: Apache-2.0
from glob import glob

from setuptools import find_packages, setup

package_name = "instance_flow_ros"

setup(
    name=package_name,
    version="0.1.0",
    packages=find_packages(),
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{package_name}"]),
        (f"share/{package_name}", ["package.xml"]),
        (f"share/{package_name}/config", glob("config/*")),
        (f"share/{package_name}/launch", glob("launch/*.launch.py")),
    ],
    install_requires=["setuptools"],
    maintainer="The instance-flow developers",
    maintainer_email="instance-flow@example.com",
    description="The instance-flow node: the mask, class, id and motion of every object in a camera's images",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            f"instance_flow_node = {package_name}.main:main",
            f"instance_flow_healthcheck = {package_name}.healthcheck:main",
        ]
    },
)
