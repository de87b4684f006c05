// One match by the portable variant over numbers that every processor draws alike, as a digest:
// `make aarch64` builds this file twice and compares what the two print.
#include <cstdint>
#include <cstdio>
#include <vector>

#include "kernel.h"

namespace {

constexpr int rows = 50;
constexpr int capabilities = 333;
constexpr int columns = 37;
constexpr int padded_columns = 40;
constexpr int k = 7;
constexpr int families = 11;

// xorshift64: numbers in [−1, 1).
double draw() {
  static std::uint64_t state = 88172645463325252u;
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return static_cast<double>(state >> 11) * 0x1p-52 - 1.0;
}

// FNV-1a.
template <typename T>
void add(std::uint64_t& digest, const std::vector<T>& values) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(values.data());
  for (std::size_t i = 0; i < values.size() * sizeof(T); ++i) {
    digest = (digest ^ bytes[i]) * 1099511628211u;
  }
}

}  // namespace

int main() {
  std::vector<float> x(rows * columns);
  std::vector<float> w(capabilities * padded_columns, 0.0f);
  std::vector<float> b(capabilities);
  std::vector<double> value(capabilities);
  std::vector<double> cost(capabilities);
  std::vector<std::uint8_t> link(capabilities);
  std::vector<std::int32_t> family(capabilities);
  for (float& number : x) number = static_cast<float>(3.0 * draw());
  for (int j = 0; j < capabilities; ++j) {
    for (int d = 0; d < columns; ++d) w[j * padded_columns + d] = static_cast<float>(draw());
    b[j] = static_cast<float>(draw());
    value[j] = draw() + 1.0;
    cost[j] = 0.1 * draw();
    link[j] = static_cast<std::uint8_t>(j % 3);
    family[j] = j % families;
  }
  visavis::Problem problem{};
  problem.indicators = {x.data(), rows, columns};
  problem.panel = {capabilities, columns,       padded_columns, w.data(),      b.data(),
                   value.data(), cost.data(),   link.data(),    family.data(), family.data(),
                   family.data(), families,     families,       families,      nullptr};
  problem.ev_min = -1.0;
  std::vector<std::int32_t> index(rows * k);
  std::vector<std::int32_t> count(rows);
  std::vector<double> expected_value(rows * k);
  std::vector<double> propensity(rows * k);
  const visavis::MatchOutput out{k, index.data(), expected_value.data(), propensity.data(),
                                 count.data()};
  visavis::Stats stats{};
  const visavis::Status status =
      visavis::variant_portable.match(problem, visavis::Limits{0, 0, 1}, out, &stats);
  if (status.code != visavis::Code::ok) return 1;
  std::uint64_t digest = 1469598103934665603u;
  add(digest, index);
  add(digest, count);
  add(digest, expected_value);
  add(digest, propensity);
  std::printf("%016llx\n", static_cast<unsigned long long>(digest));
}
