// SPDX-License-Identifier: Apache-2.0
// Runs the C++ decoders on what stdin says, so that test_examples.py can compare what they give with Python's.
//
//     map HEIGHT WIDTH COUNT, then COUNT times ID HAS_MASK X Y WIDTH HEIGHT RUNS RUN...
//         -> the track ids row by row, or "refused" where the decoder throws
//     window X Y WIDTH HEIGHT RUNS RUN...       -> 0 and 1 row by row, or "refused"
//     image HEIGHT WIDTH, then as for window    -> the same for the whole image
//     first SEC NANOSEC, second SEC NANOSEC     -> "SEC.NANOSEC" where that makes a pair, else "waits"

#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>

#include "instance_flow_examples/masks.hpp"
#include "instance_flow_examples/pairs.hpp"

#ifdef WITH_ROS_MESSAGES
#include "instance_flow_msgs/msg/tracked_instance_array.hpp"
#include "std_msgs/msg/header.hpp"
using instance_flow_msgs::msg::RunLengthMask;
using instance_flow_msgs::msg::TrackedInstanceArray;
#else
#include "plain_messages.hpp"
#endif

// The other side of a pair; what else an image has does not matter here.
struct Picture
{
  decltype(TrackedInstanceArray::header) header;
};

template<typename Number>
Number read()
{
  Number number;
  std::cin >> number;
  return number;
}

RunLengthMask read_mask()
{
  RunLengthMask mask;
  std::cin >> mask.x >> mask.y >> mask.width >> mask.height;
  mask.runs.resize(read<std::size_t>());
  for (auto & run : mask.runs) {
    std::cin >> run;
  }
  return mask;
}

TrackedInstanceArray read_array()
{
  TrackedInstanceArray message;
  std::cin >> message.height >> message.width;
  message.instances.resize(read<std::size_t>());
  for (auto & instance : message.instances) {
    instance.id = read<std::uint64_t>();
    instance.has_mask = read<int>() != 0;
    instance.mask = read_mask();
  }
  return message;
}

template<typename Value>
void print(const instance_flow_examples::Pixels<Value> & pixels)
{
  for (const Value value : pixels.values) {
    std::cout << static_cast<std::int64_t>(value) << ' ';
  }
  std::cout << '\n';
}

void decode(const std::string & task)
{
  try {
    if (task == "map") {
      print(instance_flow_examples::label_map(read_array()));
    } else if (task == "window") {
      print(instance_flow_examples::window(read_mask()));
    } else {
      const auto height = read<std::size_t>(), width = read<std::size_t>();
      print(instance_flow_examples::whole_image(read_mask(), height, width));
    }
  } catch (const std::logic_error &) {
    std::cout << "refused\n";
  }
}

template<typename Message>
std::shared_ptr<const Message> read_stamped()
{
  auto message = std::make_shared<Message>();
  std::cin >> message->header.stamp.sec >> message->header.stamp.nanosec;
  return message;
}

int main()
{
  bool paired = false;
  instance_flow_examples::StampPairs<Picture, TrackedInstanceArray> pairs(
    [&paired](const Picture & picture, const TrackedInstanceArray & message) {
      paired = true;
      std::cout << picture.header.stamp.sec << '.' << message.header.stamp.nanosec << '\n';
    }, 2);
  for (std::string task; std::cin >> task; ) {
    paired = false;
    if (task == "first") {
      pairs.add(read_stamped<Picture>());
    } else if (task == "second") {
      pairs.add(read_stamped<TrackedInstanceArray>());
    } else {
      decode(task);
      continue;
    }
    if (!paired) {
      std::cout << "waits\n";
    }
  }
}
