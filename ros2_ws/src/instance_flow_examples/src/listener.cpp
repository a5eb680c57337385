// SPDX-License-Identifier: Apache-2.0
// Subscribe to an instance-flow node, and to the images that it works on.
//
//     ros2 run instance_flow_examples listener --ros-args -r image:=/camera/image_raw
//
// With a node of another name, or with several cameras: -r instance_flow/instances:=/detector/front/instances

#include <cinttypes>
#include <cstddef>
#include <memory>
#include <string>
#include <utility>

#include "instance_flow_examples/masks.hpp"
#include "instance_flow_examples/pairs.hpp"
#include "instance_flow_msgs/msg/class_table.hpp"
#include "instance_flow_msgs/msg/tracked_instance_array.hpp"
#include "rclcpp/rclcpp.hpp"
#include "sensor_msgs/msg/image.hpp"

using instance_flow_msgs::msg::ClassTable;
using instance_flow_msgs::msg::TrackedInstance;
using instance_flow_msgs::msg::TrackedInstanceArray;
using sensor_msgs::msg::Image;

namespace
{

const char * state_name(const TrackedInstance & instance)
{
  switch (instance.state) {
    case TrackedInstance::NEW:
      return "new";
    case TrackedInstance::TRACKED:
      return "tracked";
    case TrackedInstance::RECOVERED:
      return "recovered";
    default:
      return "unknown";
  }
}

std::size_t pixels_of(const TrackedInstance & instance)
{
  std::size_t count = 0;
  instance_flow_examples::for_each_pixel(instance.mask, [&count](std::size_t, std::size_t) {++count;});
  return count;
}

/// Logs the classes once, and the objects of each image.
class InstanceListener : public rclcpp::Node
{
public:
  InstanceListener()
  : Node("instance_listener"),
    pairs_([this](const Image & image, const TrackedInstanceArray & message) {on_pair(image, message);})
  {
    // The class table is published once and kept for those who come later: only a subscriber that asks for the past
    // gets it.
    class_table_ = create_subscription<ClassTable>(
      "instance_flow/class_table", rclcpp::QoS(1).reliable().transient_local(),
      [this](ClassTable::ConstSharedPtr table) {on_class_table(*table);});
    // Best effort fits every camera; a reliable subscriber gets nothing, without an error, from one that is best
    // effort.
    image_ = create_subscription<Image>(
      "image", rclcpp::SensorDataQoS(),
      [this](Image::ConstSharedPtr image) {pairs_.add(std::move(image));});
    // The node publishes reliably. Ask for that where no frame may be missing; best effort is enough for the newest.
    instances_ = create_subscription<TrackedInstanceArray>(
      "instance_flow/instances", rclcpp::QoS(10).reliable(),
      [this](TrackedInstanceArray::ConstSharedPtr message) {pairs_.add(std::move(message));});
  }

private:
  void on_class_table(const ClassTable & table)
  {
    std::string names;
    for (const auto & name : table.class_names) {
      names += (names.empty() ? "" : ", ") + name;
    }
    RCLCPP_INFO(get_logger(), "model %s knows %s", table.model.c_str(), names.c_str());
  }

  /// Use both: the pixels of `image` are those that the masks of `message` speak of.
  void on_pair(const Image & image, const TrackedInstanceArray & message)
  {
    const auto & stamp = message.header.stamp;
    RCLCPP_INFO(
      get_logger(), "%d.%09u: %s image of %u x %u, %zu objects", stamp.sec, stamp.nanosec,
      image.encoding.c_str(), image.width, image.height, message.instances.size());
    for (const auto & instance : message.instances) {
      // Without a mask, which mask_budget can take away, area still says how many pixels the object has.
      const std::string pixels =
        instance.has_mask ? std::to_string(pixels_of(instance)) :
        "no mask, " + std::to_string(instance.area);
      RCLCPP_INFO(
        get_logger(), "id %" PRIu64 ": %s, %s, velocity (%.1f, %.1f) px/s, %s pixels", instance.id,
        instance.class_name.c_str(), state_name(instance), instance.velocity.x, instance.velocity.y,
        pixels.c_str());
    }
  }

  instance_flow_examples::StampPairs<Image, TrackedInstanceArray> pairs_;
  rclcpp::Subscription<ClassTable>::SharedPtr class_table_;
  rclcpp::Subscription<Image>::SharedPtr image_;
  rclcpp::Subscription<TrackedInstanceArray>::SharedPtr instances_;
};

}  // namespace

int main(int argc, char ** argv)
{
  rclcpp::init(argc, argv);
  rclcpp::spin(std::make_shared<InstanceListener>());
  rclcpp::shutdown();
  return 0;
}
