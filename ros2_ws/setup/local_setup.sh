# SPDX-License-Identifier: Apache-2.0
# Copied into the virtual environment by install_ros.sh, with its path in place of @PREFIX@. It makes the environment an
# underlay of the workspace: after `source ros2_ws/install/setup.bash` nothing else needs to be sourced.

_instance_flow_prepend() {
  eval "_instance_flow_value=\"\${$1-}\""
  case ":$_instance_flow_value:" in
    *":$2:"*) ;;
    *) export "$1=$2${_instance_flow_value:+:$_instance_flow_value}" ;;
  esac
  unset _instance_flow_value
}

_instance_flow_prepend AMENT_PREFIX_PATH "@PREFIX@"
_instance_flow_prepend CMAKE_PREFIX_PATH "@PREFIX@"
_instance_flow_prepend PATH "@PREFIX@/bin"
unset -f _instance_flow_prepend
