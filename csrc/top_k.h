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

// Positions of `count` entries, given side by side, in the order of `before`; `order` and `scratch`
// have room for them, and one of the two is returned. Neighbours are ordered by counting how many
// stand before each, which takes more comparisons than other ways, but none that is a branch.
inline const std::int32_t* put_in_order(std::int64_t count, const double* expected_value,
                                        const double* index, std::int32_t* order,
                                        std::int32_t* scratch) {
  constexpr std::int64_t neighbours = 64;
  for (std::int64_t begin = 0; begin < count; begin += neighbours) {
    const std::int64_t end = begin + neighbours < count ? begin + neighbours : count;
    for (std::int64_t i = begin; i < end; ++i) {
      const double ev = expected_value[i];
      const double own = index[i];
      std::int64_t place = begin;
      for (std::int64_t j = begin; j < end; ++j) {
        const int larger_value = expected_value[j] > ev;
        const int tie = (expected_value[j] == ev) & (index[j] < own);
        place += larger_value | tie;
      }
      order[place] = static_cast<std::int32_t>(i);
    }
  }
  for (std::int64_t width = neighbours; width < count; width *= 2) {
    for (std::int64_t begin = 0; begin < count; begin += 2 * width) {
      std::int64_t left = begin;
      const std::int64_t middle = begin + width < count ? begin + width : count;
      std::int64_t right = middle;
      const std::int64_t end = middle + width < count ? middle + width : count;
      for (std::int64_t to = begin; to < end; ++to) {
        // Of a side that is used up the last entry is compared again, and not taken.
        const std::int32_t a = order[left < middle ? left : middle - 1];
        const std::int32_t b = order[right < end ? right : end - 1];
        const int larger_value = expected_value[b] > expected_value[a];
        const int tie = (expected_value[b] == expected_value[a]) & (index[b] < index[a]);
        const int take = ((larger_value | tie) & (right < end ? 1 : 0)) | (left < middle ? 0 : 1);
        scratch[to] = take != 0 ? b : a;
        right += take;
        left += 1 - take;
      }
    }
    std::int32_t* const merged = scratch;
    scratch = order;
    order = merged;
  }
  return order;
}

// Keeps the first `capacity` of all entries offered, in memory that the caller owns.
// Offered one by one they form a binary heap with the last kept entry at its root, so that most
// offers end at one comparison; given all at once they are put in order at once.
class TopK {
 public:
  TopK() = default;
  TopK(Ranked* entries, std::int64_t capacity) : entries_(entries), capacity_(capacity) {}

  std::int64_t size() const { return size_; }
  bool full() const { return size_ == capacity_; }
  void clear() { size_ = 0, sorted_ = false; }
  const Ranked& operator[](std::int64_t position) const { return entries_[position]; }

  // The last entry kept. Not of an empty list.
  const Ranked& last() const { return entries_[sorted_ ? size_ - 1 : 0]; }

  // Takes the first `capacity` of `count` entries, given side by side, into an empty list; `order` as
  // put_in_order has left it.
  void assign(std::int64_t count, const double* expected_value, const double* propensity,
              const double* index, const std::int32_t* order) {
    size_ = count < capacity_ ? count : capacity_;
    sorted_ = true;
    for (std::int64_t i = 0; i < size_; ++i) {
      const std::int32_t n = order[i];
      entries_[i] = {expected_value[n], propensity[n], static_cast<std::int64_t>(index[n])};
    }
  }

  void offer(const Ranked& entry) {
    if (sorted_) unsort();
    if (size_ < capacity_) {
      sift_up(size_++, entry);
    } else if (capacity_ > 0 && before(entry, entries_[0])) {
      sift_down(0, size_, entry);
    }
  }

  // Puts the kept entries in order, first one first.
  void sort() {
    if (sorted_) return;
    sorted_ = true;
    for (std::int64_t last = size_ - 1; last > 0; --last) {
      const Ranked entry = entries_[last];
      entries_[last] = entries_[0];
      sift_down(0, last, entry);
    }
  }

 private:
  // Last one first is a heap.
  void unsort() {
    for (std::int64_t i = 0; i < size_ / 2; ++i) {
      const Ranked entry = entries_[i];
      entries_[i] = entries_[size_ - 1 - i];
      entries_[size_ - 1 - i] = entry;
    }
    sorted_ = false;
  }

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
  bool sorted_ = false;
};

}  // namespace
}  // namespace visavis
