// Pairs with an adjustment, in the order in which blocks are screened.
//
// A history is sorted by capability and by row; a screen meets pairs block by block. Sorted once per
// block of rows, its pairs cost no product of their own: the tile multiplies them with all others.
#pragma once

#include <cstdint>

#include "kernel.h"
#include "workspace.h"

namespace visavis {
namespace {

// Entries held at a time: rows are taken fewer at once where histories are long.
constexpr std::int64_t history_entries = 256 * 1024;

// One pair: its row among those at hand, its place in the screen, h.
struct Adjusted {
  std::int32_t row;
  std::int32_t place;
  float h;
};

class HistoryByBlock {
 public:
  HistoryByBlock(const HistoryView& history, const PanelView& panel)
      : history_(history), blocks_(panel.screen->blocks), begin_(blocks_ + 1) {
    if (!begin_.ok()) return;
    for (std::int64_t block = 0; block <= blocks_; ++block) begin_[block] = 0;
    if (history.indptr == nullptr) return;
    // A row has at most one entry for each capability.
    const std::int64_t most = larger(history_entries, panel.capabilities);
    const std::int64_t capacity = smaller(most, history.entries);
    given_.allocate(capacity);
    sorted_.allocate(capacity);
    capacity_ = capacity;
  }

  bool ok() {
    return begin_.ok() && (history_.indptr == nullptr || (given_.ok() && sorted_.ok()));
  }

  // How many rows from `first` on, at least one and at most `most`, it can hold.
  std::int64_t rows_from(std::int64_t first, std::int64_t most) const {
    if (history_.indptr == nullptr) return most;
    std::int64_t count = 1;
    while (count < most &&
           history_.indptr[first + count + 1] - history_.indptr[first] <= capacity_) {
      ++count;
    }
    return count;
  }

  void clear() { size_ = 0; }

  // Rows must ascend.
  void add(const Adjusted& pair) { given_[size_++] = pair; }

  // By block; within a block in the order given.
  void sort() {
    for (std::int64_t block = 0; block <= blocks_; ++block) begin_[block] = 0;
    for (std::int64_t n = 0; n < size_; ++n) ++begin_[block_of(given_[n]) + 1];
    for (std::int64_t block = 0; block < blocks_; ++block) begin_[block + 1] += begin_[block];
    for (std::int64_t n = 0; n < size_; ++n) sorted_[begin_[block_of(given_[n])]++] = given_[n];
    for (std::int64_t block = blocks_; block > 0; --block) begin_[block] = begin_[block - 1];
    begin_[0] = 0;
  }

  std::int64_t begin(std::int64_t block) { return begin_[block]; }
  std::int64_t end(std::int64_t block) { return begin_[block + 1]; }
  const Adjusted& operator[](std::int64_t n) { return sorted_[n]; }

 private:
  static std::int64_t block_of(const Adjusted& pair) { return pair.place / block_capabilities; }

  const HistoryView& history_;
  const std::int64_t blocks_;
  std::int64_t capacity_ = 0;
  std::int64_t size_ = 0;
  Buffer<std::int64_t> begin_;
  Buffer<Adjusted> given_;
  Buffer<Adjusted> sorted_;
};

}  // namespace
}  // namespace visavis
