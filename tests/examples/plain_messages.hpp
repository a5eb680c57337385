// SPDX-License-Identifier: Apache-2.0
// Structs with those fields of the messages that the decoders look at, for machines without ROS.

#pragma once

#include <cstdint>
#include <vector>

struct Stamp
{
  std::int32_t sec = 0;
  std::uint32_t nanosec = 0;
};

struct Header
{
  Stamp stamp;
};

struct RunLengthMask
{
  std::uint32_t x = 0, y = 0, width = 0, height = 0;
  std::vector<std::uint32_t> runs;
};

struct TrackedInstance
{
  std::uint64_t id = 0;
  bool has_mask = false;
  RunLengthMask mask;
};

struct TrackedInstanceArray
{
  Header header;
  std::uint32_t height = 0, width = 0;
  std::vector<TrackedInstance> instances;
};
