# syntax=docker/dockerfile:1
# SPDX-License-Identifier: Apache-2.0
# The node on an official ROS 2 Jazzy (Ubuntu 24.04, Python 3.12), installed by `make setup` as everywhere else.
#
#   CPU                    docker build -t instance-flow .
#   NVIDIA, driver 580+    docker build -t instance-flow:cuda --build-arg PROVIDER=cuda .    (PC; Jetson with JetPack 7)
#   NVIDIA, driver 525+    docker build -t instance-flow:cuda12 --build-arg PROVIDER=cuda12 .
#   Jetson with JetPack 6  docker compose -f deploy/compose.yaml -f deploy/compose.jetpack.yaml build
#
# Run, beside a camera that publishes on /camera/image_raw (docs/deploy.md says more):
#   docker run --rm --net host --ipc host instance-flow                   NVIDIA: --gpus all, Jetson: --runtime nvidia
# Net and ipc of the host, since DDS finds its peers by multicast and hands images over in shared memory; for the latter
# the camera's driver must run as the same user id. Other commands follow the name of the image:
#   ros2 launch instance_flow_ros cameras.launch.py cameras:=front,rear        instance-flow info
#
# Not built yet, for want of a Docker engine: the scripts that it calls are tested, its bases and apt packages are not.

# To pin the very image: --build-arg BASE=ros:jazzy-ros-core-noble@sha256:...
ARG BASE=ros:jazzy-ros-core-noble

# The compiler and all that only building needs stay behind in this stage.
FROM ${BASE} AS build

# Only an official base has these: the apt repository of ROS, ROS_DISTRO and /opt/ros/jazzy. python3-dev is for the
# Python bindings of the messages.
ARG ROS_SETUP=/opt/ros/jazzy/setup.sh
ARG BUILD_PACKAGES="g++ make python3-colcon-common-extensions python3-dev python3-pip python3-venv \
    ros-jazzy-vision-msgs"
RUN apt-get update \
    && apt-get install -y --no-install-recommends ${BUILD_PACKAGES} \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/instance-flow
COPY . .
RUN . ${ROS_SETUP} && make setup PYTHON=/usr/bin/python3

# cpu, cuda, cuda12, tensorrt or jetpack (deploy/provider.sh); for jetpack, PROVIDER_INDEX is a pip index of wheels for it.
ARG PROVIDER=cpu
ARG PROVIDER_INDEX=
RUN deploy/provider.sh .venv ${PROVIDER} ${PROVIDER_INDEX} \
    && rm -rf ros2_ws/build ros2_ws/log

FROM ${BASE}

# More of ROS where it is wanted, as ros-jazzy-rmw-zenoh-cpp. python3-yaml is what the launch files need.
ARG RUN_PACKAGES="python3-yaml ros-jazzy-vision-msgs"
RUN apt-get update \
    && apt-get install -y --no-install-recommends ${RUN_PACKAGES} \
    && rm -rf /var/lib/apt/lists/*

COPY --from=build /opt/instance-flow /opt/instance-flow

# Shared memory joins only processes of one user: give the id of the user that the camera's driver runs as.
ARG USER_ID=1000
ENV HOME=/var/lib/instance-flow \
    NUMBA_CACHE_DIR=/var/lib/instance-flow/kernels \
    PYTHONUNBUFFERED=1
RUN mkdir -p ${NUMBA_CACHE_DIR} && chown -R ${USER_ID}:${USER_ID} ${HOME}
USER ${USER_ID}:${USER_ID}
WORKDIR /var/lib/instance-flow

# The first start compiles the kernels, which takes half a minute, and TensorRT may build an engine.
HEALTHCHECK --interval=30s --timeout=15s --start-period=120s --retries=3 \
    CMD ["/opt/instance-flow/deploy/run.sh", "instance_flow_healthcheck"]
# The node ends on either signal; `ros2 launch` may leave its nodes behind on SIGTERM.
STOPSIGNAL SIGINT
ENTRYPOINT ["/opt/instance-flow/deploy/run.sh"]
CMD ["instance_flow_node", "--ros-args", "-r", "image:=/camera/image_raw"]
