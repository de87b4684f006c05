// Verification alone: the walk over candidates that somebody else has screened, another processor
// say, and whether it is certain (docs/kernel.md, "A screen on a GPU").
//
// Whoever screened promises of each row that every capability that is no candidate is ineligible or
// has an expected value strictly below `beyond`. Candidates that reach `beyond` therefore stand before
// all that is not known, and a walk over them is the beginning of the walk over everything.
#pragma once

#include <cmath>
#include <cstdint>

#include "eligible.h"
#include "exhaustive_inl.h"
#include "greedy.h"
#include "kernel.h"
#include "predictors.h"
#include "score.h"
#include "top_k.h"
#include "workspace.h"

namespace visavis {
namespace {

inline Status validate_candidates(const CandidatesView& view, std::int64_t rows,
                                  std::int64_t capabilities) {
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::int64_t begin = view.indptr[row];
    const std::int64_t end = view.indptr[row + 1];
    if (begin < 0 || end < begin || end > view.entries) {
      return {Code::candidates_pointer_invalid, row, -1};
    }
    std::int64_t previous = -1;
    for (std::int64_t entry = begin; entry < end; ++entry) {
      const std::int64_t j = view.capability_index[entry];
      if (j < 0 || j >= capabilities) return {Code::candidates_index_out_of_range, row, entry};
      if (j <= previous) return {Code::candidates_not_sorted, row, entry};
      previous = j;
    }
    if (std::isnan(view.beyond[row])) return {Code::candidates_beyond_not_a_number, row, -1};
  }
  return {};
}

inline std::int64_t most_candidates(const CandidatesView& view, std::int64_t rows) {
  std::int64_t most = 1;
  for (std::int64_t row = 0; row < rows; ++row) {
    most = larger(most, view.indptr[row + 1] - view.indptr[row]);
  }
  return most;
}

template <class Traits>
class CandidateVerifier {
 public:
  CandidateVerifier(const Problem& problem, const Limits& limits, const CandidatesView& candidates,
                    const VerifyOutput& out, Stats* stats)
      : problem_(problem),
        panel_(problem.panel),
        candidates_(candidates),
        out_(out),
        stats_(stats),
        size_(most_candidates(candidates, problem.indicators.rows)),
        wide_(panel_.padded_columns),
        capability_(size_),
        h_(size_),
        predictor_(size_),
        worth_(size_),
        propensity_(size_),
        index_(size_),
        order_(size_),
        scratch_(size_),
        entries_(size_),
        groups_(panel_, limits) {}

  Status run() {
    if (!ok()) return {Code::out_of_memory, -1, -1};
    TopK list(entries_.get(), size_);
    for (std::int64_t row = 0; row < problem_.indicators.rows; ++row) {
      list.clear();
      list_reaching(row, take_eligible(row), list);
      const std::int64_t taken = walk(list, groups_, out_.match, row, 0);
      // What is not known reaches neither `beyond` nor, then, the minimum.
      const bool certain = taken == out_.match.k || candidates_.beyond[row] <= problem_.ev_min ||
                           !groups_.any_open();
      out_.is_certain[row] = certain ? 1 : 0;
      groups_.add_all(out_.match, row, taken, -1);
      complete(out_.match, row, taken);
    }
    return {};
  }

 private:
  bool ok() {
    return wide_.ok() && capability_.ok() && h_.ok() && predictor_.ok() && worth_.ok() &&
           propensity_.ok() && index_.ok() && order_.ok() && scratch_.ok() && entries_.ok() &&
           groups_.ok();
  }

  // The row's candidates that may meet it, into capability_ and h_; returns how many.
  std::int64_t take_eligible(std::int64_t row) {
    HistoryCursor cursor(problem_.history, row);
    std::int64_t count = 0;
    for (std::int64_t entry = candidates_.indptr[row]; entry < candidates_.indptr[row + 1];
         ++entry) {
      const std::int32_t j = candidates_.capability_index[entry];
      const float h = cursor.at(j);
      const bool open =
          h != -INFINITY && eligible(problem_.eligibility, panel_.capabilities, row, j);
      ++(open ? stats_->screened : stats_->skipped_by_rule);
      capability_[count] = j;
      h_[count] = h;
      count += open ? 1 : 0;
    }
    stats_->verified += count;
    return count;
  }

  // Scores `count` candidates and puts those that reach both the minimum and `beyond` in order.
  void list_reaching(std::int64_t row, std::int64_t count, TopK& list) {
    widen_row(problem_.indicators, row, panel_.padded_columns, wide_.get());
    exact_predictors<Traits>(
        panel_, wide_.get(), count, [&](std::int64_t n) { return capability_[n]; },
        [&](std::int64_t n, std::int64_t) { return h_[n]; }, predictor_.get());
    const double beyond = candidates_.beyond[row];
    const double least = beyond > problem_.ev_min ? beyond : problem_.ev_min;
    std::int64_t taken = 0;
    for (std::int64_t n = 0; n < count; ++n) {
      const Score score = score_from(panel_, predictor_[n], capability_[n]);
      worth_[taken] = score.expected_value;
      propensity_[taken] = score.propensity;
      index_[taken] = static_cast<double>(capability_[n]);
      taken += score.expected_value >= least ? 1 : 0;
    }
    const std::int32_t* order =
        put_in_order(taken, worth_.get(), index_.get(), order_.get(), scratch_.get());
    list.assign(taken, worth_.get(), propensity_.get(), index_.get(), order);
  }

  const Problem& problem_;
  const PanelView& panel_;
  const CandidatesView& candidates_;
  const VerifyOutput& out_;
  Stats* const stats_;
  const std::int64_t size_;  // of the longest row of candidates
  Buffer<double> wide_;
  Buffer<std::int32_t> capability_;
  Buffer<float> h_;
  Buffer<double> predictor_;
  Buffer<double> worth_;
  Buffer<double> propensity_;
  Buffer<double> index_;
  Buffer<std::int32_t> order_;
  Buffer<std::int32_t> scratch_;
  Buffer<Ranked> entries_;
  GroupCounts groups_;
};

template <class Traits>
inline Status verified_match(const Problem& problem, const Limits& limits,
                             const CandidatesView& candidates, const VerifyOutput& out,
                             Stats* stats) {
  const FloatingPointState state;
  Status status = validate(problem);
  if (status.code != Code::ok) return status;
  status = validate_candidates(candidates, problem.indicators.rows, problem.panel.capabilities);
  if (status.code != Code::ok) return status;
  CandidateVerifier<Traits> verifier(problem, limits, candidates, out, stats);
  return verifier.run();
}

}  // namespace
}  // namespace visavis
