# SPDX-License-Identifier: Apache-2.0
# The node on an official ROS 2 Jazzy, on the CPU. Build: docker build -t instance-flow .
# Run, beside a camera that publishes on /camera/image_raw:
#     docker run --rm --net host --ipc host instance-flow
# Other arguments: append  ros2 launch instance_flow_ros instance_flow.launch.py image:=/other/image_raw
# (net and ipc of the host, since DDS finds its peers by multicast and hands images over in shared memory.)
FROM ros:jazzy-ros-base

RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        g++ \
        make \
        python3-pip \
        python3-venv \
        ros-jazzy-diagnostic-msgs \
        ros-jazzy-domain-coordinator \
        ros-jazzy-vision-msgs \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/instance-flow
COPY . .
RUN . /opt/ros/jazzy/setup.sh && make setup PYTHON=/usr/bin/python3

ENTRYPOINT ["/bin/bash", "-c", "source ros2_ws/install/setup.bash && source .venv/bin/activate && exec \"$@\"", "--"]
CMD ["ros2", "launch", "instance_flow_ros", "instance_flow.launch.py"]
