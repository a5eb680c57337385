// SPDX-License-Identifier: Apache-2.0
// Messages of two topics that belong together.

#pragma once

#include <cstddef>
#include <functional>
#include <list>
#include <memory>
#include <utility>

namespace instance_flow_examples
{

/// Brings together the two messages that have exactly the same stamp, whichever of them comes first.
///
/// An instance-flow node copies the stamp of the image, so that nothing nearly right needs to be sought. Where
/// message_filters is installed, its TimeSynchronizer does the same.
template<typename First, typename Second>
class StampPairs
{
public:
  using OnPair = std::function<void (const First &, const Second &)>;

  /// kept: messages that wait for their partner at most; the oldest is dropped.
  explicit StampPairs(OnPair on_pair, std::size_t kept = 30)
  : on_pair_(std::move(on_pair)), kept_(kept)
  {
  }

  /// Take a message of the first topic.
  void add(std::shared_ptr<const First> message)
  {
    const auto stamp = message->header.stamp;
    add(stamp, Waiting{stamp, std::move(message), nullptr});
  }

  /// Take a message of the second topic.
  void add(std::shared_ptr<const Second> message)
  {
    const auto stamp = message->header.stamp;
    add(stamp, Waiting{stamp, nullptr, std::move(message)});
  }

private:
  using Stamp = decltype(First().header.stamp);

  struct Waiting
  {
    Stamp stamp;
    std::shared_ptr<const First> first;
    std::shared_ptr<const Second> second;
  };

  void add(const Stamp & stamp, Waiting arrived)
  {
    for (auto other = waiting_.begin(); other != waiting_.end(); ++other) {
      if (other->stamp.sec != stamp.sec || other->stamp.nanosec != stamp.nanosec) {
        continue;
      }
      if (!arrived.first) {
        arrived.first = other->first;
      }
      if (!arrived.second) {
        arrived.second = other->second;
      }
      waiting_.erase(other);
      break;
    }
    if (arrived.first && arrived.second) {
      on_pair_(*arrived.first, *arrived.second);
      return;
    }
    waiting_.push_back(std::move(arrived));
    if (waiting_.size() > kept_) {
      waiting_.pop_front();
    }
  }

  OnPair on_pair_;
  std::size_t kept_;
  std::list<Waiting> waiting_;
};

}  // namespace instance_flow_examples
