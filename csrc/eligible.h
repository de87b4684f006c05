// Which pairs may meet: eligibility and history of one block of customers, and their validation.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernel.h"

namespace visavis {
namespace {

// Whether a plane holds for a row; −1 holds for all.
inline bool plane_holds(const EligibilityView& view, std::int64_t row, std::int32_t plane) {
  if (plane < 0) return true;
  const std::uint64_t word = view.planes[row * view.plane_words + (plane >> 6)];
  return (word >> (plane & 63) & 1) != 0;
}

inline bool eligible(const EligibilityView& view, std::int64_t capabilities, std::int64_t row,
                     std::int64_t j) {
  if (view.dense != nullptr) return view.dense[row * capabilities + j] != 0;
  return view.planes == nullptr || plane_holds(view, row, view.plane_index[j]);
}

// Which plane decides a whole block of a screen.
constexpr std::int32_t everybody = -1;
constexpr std::int32_t mixed = -2;

// The plane that all capabilities of a block share, `everybody` or `mixed`.
inline std::int32_t block_plane_of(const EligibilityView& view, const ScreenView& screen,
                                   std::int64_t block) {
  if (view.dense != nullptr) return mixed;
  if (view.plane_index == nullptr) return everybody;
  if (view.block_plane != nullptr) return view.block_plane[block];
  const std::int32_t* members = screen.capability + block * block_capabilities;
  const std::int32_t plane = view.plane_index[members[0]];
  for (std::int64_t l = 1; l < block_capabilities && members[l] >= 0; ++l) {
    if (view.plane_index[members[l]] != plane) return mixed;
  }
  return plane;
}

// h of one pair, 0 where absent: a binary search, for pairs that come in no order.
inline float adjustment_of(const HistoryView& view, std::int64_t row, std::int64_t j) {
  if (view.indptr == nullptr) return 0.0f;
  const std::int64_t end = view.indptr[row + 1];
  std::int64_t low = view.indptr[row];
  std::int64_t high = end;
  while (low < high) {
    const std::int64_t middle = low + (high - low) / 2;
    if (view.capability_index[middle] < j) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low < end && view.capability_index[low] == j ? view.adjustment[low] : 0.0f;
}

// A customer's adjustments, read in ascending order of capability.
class HistoryCursor {
 public:
  HistoryCursor() = default;
  HistoryCursor(const HistoryView& view, std::int64_t row)
      : view_(&view),
        next_(view.indptr == nullptr ? 0 : view.indptr[row]),
        end_(view.indptr == nullptr ? 0 : view.indptr[row + 1]) {}

  // h of capability `j`; calls must come with ascending j.
  float at(std::int64_t j) {
    while (next_ < end_ && view_->capability_index[next_] < j) ++next_;
    return next_ < end_ && view_->capability_index[next_] == j ? view_->adjustment[next_] : 0.0f;
  }

 private:
  const HistoryView* view_ = nullptr;
  std::int64_t next_ = 0;
  std::int64_t end_ = 0;
};

inline Status validate_history_of(const HistoryView& view, std::int64_t row,
                                  std::int64_t capabilities) {
  if (view.indptr == nullptr) return {};
  const std::int64_t begin = view.indptr[row];
  const std::int64_t end = view.indptr[row + 1];
  if (begin < 0 || end < begin || end > view.entries) {
    return {Code::history_pointer_invalid, row, -1};
  }
  std::int64_t previous = -1;
  for (std::int64_t entry = begin; entry < end; ++entry) {
    const std::int64_t j = view.capability_index[entry];
    if (j < 0 || j >= capabilities) return {Code::history_index_out_of_range, row, entry};
    if (j <= previous) return {Code::history_not_sorted, row, entry};
    previous = j;
    const float h = view.adjustment[entry];
    if (std::isnan(h) || h == INFINITY) return {Code::history_not_allowed, row, entry};
  }
  return {};
}

inline Status validate_history(const HistoryView& view, std::int64_t rows,
                               std::int64_t capabilities) {
  for (std::int64_t row = 0; row < rows; ++row) {
    const Status status = validate_history_of(view, row, capabilities);
    if (status.code != Code::ok) return status;
  }
  return {};
}

inline Status validate_indicators_of(const IndicatorsView& view, std::int64_t row) {
  const float* x = view.values + row * view.columns;
  bool finite = true;
  for (std::int64_t d = 0; d < view.columns; ++d) finite &= std::isfinite(x[d]);
  if (finite) return {};
  for (std::int64_t d = 0; d < view.columns; ++d) {
    if (!std::isfinite(x[d])) return {Code::indicator_not_finite, row, d};
  }
  return {};
}

inline Status validate_indicators(const IndicatorsView& view) {
  for (std::int64_t row = 0; row < view.rows; ++row) {
    const Status status = validate_indicators_of(view, row);
    if (status.code != Code::ok) return status;
  }
  return {};
}

inline Status validate(const Problem& problem) {
  const Status status = validate_indicators(problem.indicators);
  if (status.code != Code::ok) return status;
  return validate_history(problem.history, problem.indicators.rows, problem.panel.capabilities);
}

}  // namespace
}  // namespace visavis
