// A bounded collector in the total order of docs/score.md: value descending, then index ascending.
#pragma once

#include <cstdint>

namespace visavis {
namespace {

struct Ranked {
  double expected_value;
  double propensity;
  std::int64_t index;
};

// True when `a` stands before `b`. Total: no two entries share an index.
inline bool before(const Ranked& a, const Ranked& b) {
  return a.expected_value != b.expected_value ? a.expected_value > b.expected_value
                                              : a.index < b.index;
}

// Keeps the first `capacity` of all entries offered, in memory that the caller owns.
// A binary heap with the last kept entry at its root, so that most offers end at one comparison.
class TopK {
 public:
  TopK() = default;
  TopK(Ranked* entries, std::int64_t capacity) : entries_(entries), capacity_(capacity) {}

  std::int64_t size() const { return size_; }
  bool full() const { return size_ == capacity_; }
  void clear() { size_ = 0; }
  const Ranked& operator[](std::int64_t position) const { return entries_[position]; }

  void offer(const Ranked& entry) {
    if (size_ < capacity_) {
      sift_up(size_++, entry);
    } else if (capacity_ > 0 && before(entry, entries_[0])) {
      sift_down(0, size_, entry);
    }
  }

  // Puts the kept entries in order, first one first; no offer may follow but after clear().
  void sort() {
    for (std::int64_t last = size_ - 1; last > 0; --last) {
      const Ranked entry = entries_[last];
      entries_[last] = entries_[0];
      sift_down(0, last, entry);
    }
  }

 private:
  void sift_up(std::int64_t position, const Ranked& entry) {
    while (position > 0) {
      const std::int64_t parent = (position - 1) / 2;
      if (!before(entries_[parent], entry)) break;
      entries_[position] = entries_[parent];
      position = parent;
    }
    entries_[position] = entry;
  }

  void sift_down(std::int64_t position, std::int64_t size, const Ranked& entry) {
    for (;;) {
      std::int64_t child = 2 * position + 1;
      if (child >= size) break;
      if (child + 1 < size && before(entries_[child], entries_[child + 1])) ++child;
      if (!before(entry, entries_[child])) break;
      entries_[position] = entries_[child];
      position = child;
    }
    entries_[position] = entry;
  }

  Ranked* entries_ = nullptr;
  std::int64_t capacity_ = 0;
  std::int64_t size_ = 0;
};

}  // namespace
}  // namespace visavis
