# SPDX-License-Identifier: Apache-2.0
"""`instance-flow doctor`: what is wrong with the installation, the machine and the ROS graph, and what to do."""
