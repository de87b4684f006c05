// What every driver needs around its loops: sizes, aligned memory, a known floating-point state.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <ctime>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace visavis {
namespace {

inline std::int64_t smaller(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
inline std::int64_t larger(std::int64_t a, std::int64_t b) { return a > b ? a : b; }

// Uninitialised, cache-line aligned memory that frees itself; `ok()` is false when there was none.
// Only for trivially copyable types: each element is assigned before it is read.
template <typename T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(std::int64_t size) { allocate(size); }
  ~Buffer() { std::free(values_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  // Once, and only where no size was given before.
  void allocate(std::int64_t size) {
    constexpr std::size_t line = 64;
    if (size < 0 || static_cast<std::uint64_t>(size) > (SIZE_MAX - line) / sizeof(T)) return;
    // Not rounded up to whole lines: what is read beyond the end is for a sanitizer to find.
    const std::size_t bytes = size > 0 ? static_cast<std::size_t>(size) * sizeof(T) : 1;
    void* memory = nullptr;
    if (posix_memalign(&memory, line, bytes) == 0) values_ = static_cast<T*>(memory);
  }
  bool ok() const { return values_ != nullptr; }
  T* get() { return values_; }
  T& operator[](std::int64_t position) { return values_[position]; }

 private:
  T* values_ = nullptr;
};

// Time by stage: each lap is added to where it belongs.
class Stopwatch {
 public:
  void lap(std::int64_t* nanoseconds) {
    const std::int64_t now = read();
    *nanoseconds += now - last_;
    last_ = now;
  }

 private:
  static std::int64_t read() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<std::int64_t>(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
  }

  std::int64_t last_ = read();
};

// Round to nearest, denormals kept, exceptions masked, for as long as it lives. Loading a library
// built with -Ofast switches on flush-to-zero for a whole process, and callers may have done so.
class FloatingPointState {
 public:
#if defined(__x86_64__)
  FloatingPointState() : saved_(_mm_getcsr()) {
    _mm_setcsr(0x1f80);
    fence();
  }
  ~FloatingPointState() {
    fence();
    _mm_setcsr(saved_);
  }

 private:
  unsigned saved_;
#elif defined(__aarch64__)
  FloatingPointState() {
    asm volatile("mrs %0, fpcr" : "=r"(saved_));
    asm volatile("msr fpcr, %0" : : "r"(std::uint64_t{0}));
    fence();
  }
  ~FloatingPointState() {
    fence();
    asm volatile("msr fpcr, %0" : : "r"(saved_));
  }

 private:
  std::uint64_t saved_;
#else
#error "say how this processor's rounding and denormal modes are saved and set"
#endif
 public:
  FloatingPointState(const FloatingPointState&) = delete;
  FloatingPointState& operator=(const FloatingPointState&) = delete;

 private:
  // Compilers do not model the control register: no load or store may cross its change.
  static void fence() { asm volatile("" ::: "memory"); }
};

}  // namespace
}  // namespace visavis
