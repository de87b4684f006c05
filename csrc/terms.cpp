// The largest terms of pairs, which are their reasons (docs/score.md §12). No variant has its own: most
// of the work is to pick, which wider vectors do not shorten.
#include <cmath>

#include "eligible.h"
#include "kernel.h"
#include "top_k.h"
#include "workspace.h"

namespace visavis {
namespace {

class TermFinder {
 public:
  TermFinder(const TermsProblem& problem, const TermsOutput& out)
      : problem_(problem),
        out_(out),
        columns_(problem.panel.columns),
        product_(columns_ + 1),
        is_named_(columns_ + 1),
        kept_(problem.count) {}

  Status run() {
    if (!product_.ok() || !is_named_.ok() || !kept_.ok()) return {Code::out_of_memory, -1, -1};
    Status status = validate_columns();
    std::int64_t row = -1;
    std::int64_t count = 0;
    out_.offsets[0] = 0;
    for (std::int64_t pair = 0; status.code == Code::ok && pair < problem_.pairs; ++pair) {
      // Pairs of one customer usually follow each other: the row is looked at once.
      const bool is_known = pair > 0 && problem_.customer_index[pair] == row;
      row = problem_.customer_index[pair];
      status = validate_pair(pair, row, is_known);
      if (status.code != Code::ok) break;
      multiply(row, problem_.capability_index[pair]);
      count += pick(out_.name_index + count, out_.contribution + count);
      out_.offsets[pair + 1] = count;
    }
    return status;
  }

 private:
  // The names are an order of all columns, and what is taken from the weights is finite.
  Status validate_columns() {
    for (std::int64_t d = 0; d <= columns_; ++d) is_named_[d] = 0;
    for (std::int64_t rank = 0; rank <= columns_; ++rank) {
      const std::int64_t d = problem_.by_name[rank];
      if (d < 0 || d > columns_ || is_named_[d] != 0) return {Code::names_not_an_order, rank, -1};
      is_named_[d] = 1;
    }
    for (std::int64_t d = 0; problem_.against != nullptr && d < columns_; ++d) {
      if (!std::isfinite(problem_.against[d])) return {Code::against_not_finite, d, -1};
    }
    return {};
  }

  Status validate_pair(std::int64_t pair, std::int64_t row, bool is_known) const {
    const PanelView& panel = problem_.panel;
    const std::int64_t j = problem_.capability_index[pair];
    if (j < 0 || j >= panel.capabilities) return {Code::pair_capability_out_of_range, pair, -1};
    if (is_known) return {};
    if (row < 0 || row >= problem_.indicators.rows) {
      return {Code::pair_customer_out_of_range, pair, -1};
    }
    const Status status = validate_indicators_of(problem_.indicators, row);
    if (status.code != Code::ok) return status;
    return validate_history_of(problem_.history, row, panel.capabilities);
  }

  // All terms of a pair; products of two float32 are exact.
  void multiply(std::int64_t row, std::int64_t j) {
    const float* x = problem_.indicators.values + row * columns_;
    const float* w = problem_.panel.weights + j * problem_.panel.padded_columns;
    const double* m = problem_.against;
    double* product = product_.get();
    if (m == nullptr) {
      for (std::int64_t d = 0; d < columns_; ++d) {
        product[d] = static_cast<double>(x[d]) * static_cast<double>(w[d]);
      }
    } else {
      for (std::int64_t d = 0; d < columns_; ++d) {
        product[d] = static_cast<double>(x[d]) * (static_cast<double>(w[d]) - m[d]);
      }
    }
    product[columns_] = adjustment_of(problem_.history, row, j);
  }

  // The largest positive terms, largest first, equal ones in order of their names; returns how many.
  std::int64_t pick(std::int64_t* name_index, double* contribution) {
    TopK list(kept_.get(), problem_.count);
    double least = problem_.count > 0 ? 0.0 : INFINITY;
    for (std::int64_t rank = 0; rank <= columns_; ++rank) {
      const double term = product_[problem_.by_name[rank]];
      // A later name loses a tie: what only equals the last one kept need not be offered.
      if (!(term > least)) continue;
      list.offer({term, 0.0, rank});
      if (list.full()) least = list.last().expected_value;
    }
    list.sort();
    for (std::int64_t i = 0; i < list.size(); ++i) {
      name_index[i] = problem_.by_name[list[i].index];
      contribution[i] = list[i].expected_value;
    }
    return list.size();
  }

  const TermsProblem& problem_;
  const TermsOutput& out_;
  const std::int64_t columns_;
  Buffer<double> product_;
  Buffer<std::uint8_t> is_named_;
  Buffer<Ranked> kept_;
};

}  // namespace

Status largest_terms(const TermsProblem& problem, const TermsOutput& out) {
  const FloatingPointState state;
  TermFinder finder(problem, out);
  return finder.run();
}

}  // namespace visavis
