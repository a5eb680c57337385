// SPDX-License-Identifier: Apache-2.0
// Masks of instance_flow_msgs as pixels. It needs C++17 and nothing else: take the file with you.
//
// All are templates over the message: those of rclcpp, and any struct with the same fields.

#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

namespace instance_flow_examples
{

/// Pixels row by row: pixel (row, column) is values[row * width + column].
template<typename Value>
struct Pixels
{
  std::size_t height;
  std::size_t width;
  std::vector<Value> values;

  Pixels(std::size_t height, std::size_t width)
  : height(height), width(width), values(height * width)
  {
  }

  Value & at(std::size_t row, std::size_t column) {return values[row * width + column];}
  const Value & at(std::size_t row, std::size_t column) const {return values[row * width + column];}
};

/// Throws std::invalid_argument where the runs of a RunLengthMask do not fill its window.
template<typename RunLengthMask>
void check_runs(const RunLengthMask & mask)
{
  const std::uint64_t expected = std::uint64_t{mask.width} * mask.height;
  std::uint64_t total = 0;
  for (const std::uint32_t run : mask.runs) {
    total += run;
  }
  if (total != expected) {
    throw std::invalid_argument(
            "the runs make " + std::to_string(total) + " pixels, but the window is " +
            std::to_string(mask.width) + " x " + std::to_string(mask.height));
  }
}

/// Call visit(row, column), in pixels of the mask's window, for each pixel inside a RunLengthMask.
/// The window's top left pixel is the pixel (mask.y, mask.x) of the image.
/// Throws as check_runs does, before the first call.
template<typename RunLengthMask, typename Visit>
void for_each_pixel(const RunLengthMask & mask, Visit visit)
{
  check_runs(mask);
  // The window is read column by column; runs of pixels outside and inside take turns, outside first.
  std::size_t row = 0;
  std::size_t column = 0;
  bool inside = false;
  for (const std::uint32_t run : mask.runs) {
    for (std::uint32_t pixel = 0; pixel < run; ++pixel) {
      if (inside) {
        visit(row, column);
      }
      if (++row == mask.height) {
        row = 0;
        ++column;
      }
    }
    inside = !inside;
  }
}

/// Write a value to the pixels of the image that lie in a RunLengthMask.
/// Throws std::invalid_argument where the mask is damaged or does not lie in the image; nothing is written then.
template<typename RunLengthMask, typename Value>
void paint(const RunLengthMask & mask, Value value, Pixels<Value> & image)
{
  const std::uint64_t bottom = std::uint64_t{mask.y} + mask.height;
  const std::uint64_t right = std::uint64_t{mask.x} + mask.width;
  if (bottom > image.height || right > image.width) {
    throw std::invalid_argument(
            "the mask reaches to row " + std::to_string(bottom) + " and column " + std::to_string(right) +
            ", but the image has " + std::to_string(image.height) + " rows and " +
            std::to_string(image.width) + " columns");
  }
  for_each_pixel(
    mask, [&](std::size_t row, std::size_t column) {
      image.at(mask.y + row, mask.x + column) = value;
    });
}

/// The pixels of a RunLengthMask within its own window, 1 = inside. Throws as check_runs does.
template<typename RunLengthMask>
Pixels<std::uint8_t> window(const RunLengthMask & mask)
{
  check_runs(mask);
  Pixels<std::uint8_t> pixels(mask.height, mask.width);
  for_each_pixel(mask, [&](std::size_t row, std::size_t column) {pixels.at(row, column) = 1;});
  return pixels;
}

/// The pixels of a RunLengthMask in the whole image, 1 = inside. Throws as paint does.
template<typename RunLengthMask>
Pixels<std::uint8_t> whole_image(const RunLengthMask & mask, std::size_t height, std::size_t width)
{
  Pixels<std::uint8_t> pixels(height, width);
  paint(mask, std::uint8_t{1}, pixels);
  return pixels;
}

/// The track ids of a TrackedInstanceArray, 0 = no object; an instance without a mask leaves no pixels.
/// Throws as paint does, and std::out_of_range for an id above 2^31 - 1.
template<typename TrackedInstanceArray>
Pixels<std::int32_t> label_map(const TrackedInstanceArray & message)
{
  Pixels<std::int32_t> labels(message.height, message.width);
  for (const auto & instance : message.instances) {
    if (instance.id > static_cast<std::uint64_t>(std::numeric_limits<std::int32_t>::max())) {
      throw std::out_of_range("track id " + std::to_string(instance.id) + " does not fit into 32 bits");
    }
    if (instance.has_mask) {
      paint(instance.mask, static_cast<std::int32_t>(instance.id), labels);
    }
  }
  return labels;
}

}  // namespace instance_flow_examples
