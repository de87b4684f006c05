// What this processor can do at most: products a second of one thread, by instruction.
//
// Each loop keeps every unit busy with as many independent accumulators as registers allow and
// touches no memory. Prints one line each: name, then 10⁹ multiply-adds a second.
#include <chrono>
#include <cstdint>
#include <cstdio>

#if defined(__x86_64__)
#include <immintrin.h>

#include "cpu.h"
#include "tiles_amx.h"
#endif

namespace {

constexpr std::int64_t rounds = 40'000'000;

template <typename Work>
void report(const char* name, double products, Work work) {
  work(rounds / 10);
  const auto begin = std::chrono::steady_clock::now();
  work(rounds);
  const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - begin;
  std::printf("%s %.1f\n", name, products * static_cast<double>(rounds) / spent.count() / 1e9);
}

#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) void fma256(std::int64_t count) {
  __m256 sum[10] = {};
  const __m256 one = _mm256_set1_ps(1.0f);
  for (std::int64_t i = 0; i < count; ++i) {
#pragma GCC unroll 10
    for (int a = 0; a < 10; ++a) asm volatile("vfmadd231ps %1, %1, %0" : "+x"(sum[a]) : "x"(one));
  }
}

__attribute__((target("avx512f"))) void fma512(std::int64_t count) {
  __m512 sum[10] = {};
  const __m512 one = _mm512_set1_ps(1.0f);
  for (std::int64_t i = 0; i < count; ++i) {
#pragma GCC unroll 10
    for (int a = 0; a < 10; ++a) asm volatile("vfmadd231ps %1, %1, %0" : "+v"(sum[a]) : "v"(one));
  }
}

__attribute__((target("avx512f,avx512vnni"))) void vnni512(std::int64_t count) {
  __m512i sum[10] = {};
  const __m512i one = _mm512_set1_epi8(1);
  for (std::int64_t i = 0; i < count; ++i) {
#pragma GCC unroll 10
    for (int a = 0; a < 10; ++a) asm volatile("vpdpbusd %1, %1, %0" : "+v"(sum[a]) : "v"(one));
  }
}

__attribute__((target("avx2"))) void maddubs256(std::int64_t count) {
  __m256i sum[10] = {};
  const __m256i one = _mm256_set1_epi8(1);
  for (std::int64_t i = 0; i < count; ++i) {
#pragma GCC unroll 10
    for (int a = 0; a < 10; ++a) {
      __m256i pairs;
      asm volatile("vpmaddubsw %1, %1, %0" : "=x"(pairs) : "x"(one));
      asm volatile("vpmaddwd %1, %1, %0" : "=x"(pairs) : "x"(pairs));
      asm volatile("vpaddd %1, %0, %0" : "+x"(sum[a]) : "x"(pairs));
    }
  }
}

void tiles(std::int64_t count) {
  using visavis::TileUnit;
  const TileUnit::State unit;
  for (std::int64_t i = 0; i < count; ++i) {
    TileUnit::multiply<0, 4, 6>();
    TileUnit::multiply<1, 4, 7>();
    TileUnit::multiply<2, 5, 6>();
    TileUnit::multiply<3, 5, 7>();
  }
}
#endif

}  // namespace

int main() {
#if defined(__x86_64__)
  // Ten independent instructions a round.
  if (__builtin_cpu_supports("avx2")) {
    report("fma_256", 10 * 8, fma256);
    report("maddubs_256", 10 * 32, maddubs256);
  }
  if (__builtin_cpu_supports("avx512f")) report("fma_512", 10 * 16, fma512);
  if (__builtin_cpu_supports("avx512vnni")) report("vnni_512", 10 * 64, vnni512);
  if (visavis::lacks_amx() == nullptr) report("amx_int8", 4 * 16 * 16 * 64, tiles);
#endif
}
