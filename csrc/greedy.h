// The greedy walk under limits, and whether another round is needed because it fell short.
#pragma once

#include <cstdint>

#include "kernel.h"
#include "top_k.h"
#include "workspace.h"

namespace visavis {
namespace {

inline bool is_limited(const Limits& limits) {
  return limits.product > 0 || limits.channel > 0 || limits.family > 0;
}

// How many opportunities one customer holds per product, channel and family.
class GroupCounts {
 public:
  GroupCounts(const PanelView& panel, const Limits& limits)
      : panel_(panel),
        limits_(limits),
        open_products_(panel.product_count),
        open_channels_(panel.channel_count),
        open_families_(panel.family_count),
        product_(limits.product > 0 ? panel.product_count : 0),
        channel_(limits.channel > 0 ? panel.channel_count : 0),
        family_(limits.family > 0 ? panel.family_count : 0) {
    if (!ok()) return;
    for (std::int64_t g = 0; limits.product > 0 && g < panel.product_count; ++g) product_[g] = 0;
    for (std::int64_t g = 0; limits.channel > 0 && g < panel.channel_count; ++g) channel_[g] = 0;
    for (std::int64_t g = 0; limits.family > 0 && g < panel.family_count; ++g) family_[g] = 0;
  }

  bool ok() const { return product_.ok() && channel_.ok() && family_.ok(); }

  bool open(std::int64_t j) {
    return !(limits_.product > 0 && product_[panel_.product[j]] >= limits_.product) &&
           !(limits_.channel > 0 && channel_[panel_.channel[j]] >= limits_.channel) &&
           !(limits_.family > 0 && family_[panel_.family[j]] >= limits_.family);
  }

  // False when the limits leave no capability at all: looking further would find nothing.
  bool any_open() const { return open_products_ > 0 && open_channels_ > 0 && open_families_ > 0; }

  void add(std::int64_t j, std::int32_t amount) {
    const auto count = [amount](std::int32_t limit, std::int32_t& held, std::int64_t& open) {
      open -= held < limit ? 1 : 0;
      held += amount;
      open += held < limit ? 1 : 0;
    };
    if (limits_.product > 0) count(limits_.product, product_[panel_.product[j]], open_products_);
    if (limits_.channel > 0) count(limits_.channel, channel_[panel_.channel[j]], open_channels_);
    if (limits_.family > 0) count(limits_.family, family_[panel_.family[j]], open_families_);
  }

  // What a row has been given so far: 1 adds it, −1 takes it back.
  void add_all(const MatchOutput& out, std::int64_t row, std::int64_t count, std::int32_t amount) {
    for (std::int64_t rank = 0; rank < count; ++rank) {
      add(out.capability_index[row * out.k + rank], amount);
    }
  }

 private:
  const PanelView& panel_;
  const Limits limits_;
  std::int64_t open_products_;
  std::int64_t open_channels_;
  std::int64_t open_families_;
  Buffer<std::int32_t> product_;
  Buffer<std::int32_t> channel_;
  Buffer<std::int32_t> family_;
};

// Walks one customer's sorted list and takes what the limits allow, appending at `count`.
// Returns the new count; the groups keep what was taken.
inline std::int64_t walk(const TopK& list, GroupCounts& groups, const MatchOutput& out,
                         std::int64_t row, std::int64_t count) {
  for (std::int64_t position = 0; position < list.size() && count < out.k; ++position) {
    const Ranked& entry = list[position];
    if (!groups.open(entry.index)) continue;
    groups.add(entry.index, 1);
    const std::int64_t cell = row * out.k + count++;
    out.capability_index[cell] = static_cast<std::int32_t>(entry.index);
    out.expected_value[cell] = entry.expected_value;
    out.propensity[cell] = entry.propensity;
  }
  return count;
}

// Whether a walk has left fewer than k though the list may not have held all there was. The walk is
// its own certificate when it reaches k, or when the list was not full, or as long as the catalog.
inline bool is_short(const TopK& list, const GroupCounts& groups, std::int64_t capabilities,
                     const MatchOutput& out, std::int64_t count) {
  return count < out.k && list.full() && list.size() < capabilities && groups.any_open();
}

// Writes how many opportunities a row has, and what stands beyond them.
inline void complete(const MatchOutput& out, std::int64_t row, std::int64_t count) {
  out.opportunity_count[row] = static_cast<std::int32_t>(count);
  for (std::int64_t position = count; position < out.k; ++position) {
    const std::int64_t cell = row * out.k + position;
    out.capability_index[cell] = -1;
    out.expected_value[cell] = 0.0;
    out.propensity[cell] = 0.0;
  }
}

}  // namespace
}  // namespace visavis
