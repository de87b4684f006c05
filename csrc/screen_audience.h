// Screen, then verify, the other way round: the best rows of every asked capability.
//
// Thresholds belong to capabilities, so that a block's places each have their own: what a place's T
// exceeds the block's smallest by is taken off its bias, and one comparison serves all (docs/kernel.md,
// "Audiences"). Candidates of a block are verified as soon as its rows have been screened. The output
// is that of exhaustive_inl.h, byte for byte.
#pragma once

#include <cmath>
#include <cstdint>

#include "eligible.h"
#include "exhaustive_inl.h"
#include "kernel.h"
#include "score.h"
#include "screen_rows.h"
#include "threshold.h"
#include "top_k.h"
#include "workspace.h"

namespace visavis {
namespace {

// The first rows of a call have no threshold to fall short of, so they are few.
constexpr std::int64_t audience_first_rows = 32;

template <class Traits>
class AudienceScreener {
 public:
  AudienceScreener(const Problem& problem, const AudienceOutput& out, Stats* stats)
      : problem_(problem),
        panel_(problem.panel),
        screen_(*problem.panel.screen),
        out_(out),
        stats_(stats),
        kept_(smaller(out.k, problem.indicators.rows)),
        rows_(problem, screen_rows_max, false),
        asked_(screen_.blocks),
        slot_(screen_.blocks * places),
        least_(screen_.blocks * places),
        lifted_(places),
        candidate_(places * rows_.capacity()),
        count_(places),
        padded_(panel_.columns == panel_.padded_columns ? 0
                                                        : rows_.capacity() * panel_.padded_columns),
        wide_(panel_.padded_columns),
        entries_(out.capability_count * kept_),
        lists_(out.capability_count) {}

  Status run() {
    if (!ok()) return {Code::out_of_memory, -1, -1};
    begin();
    const std::int64_t rows = problem_.indicators.rows;
    for (std::int64_t first = 0; first < rows; first += rows_.count()) {
      const std::int64_t most = smaller(rows_.capacity(), larger(audience_first_rows, first));
      rows_.take(first, smaller(most, rows - first));
      watch_.lap(&stats_->quantise_ns);
      for (std::int64_t r = 0; r < rows_.count(); ++r) begin_row(r);
      watch_.lap(&stats_->history_ns);
      for (std::int64_t block = 0; block < screen_.blocks;) block = screen_run(block);
    }
    write_audience(lists_.get(), out_);
    return {};
  }

 private:
  bool ok() {
    return rows_.ok() && asked_.ok() && slot_.ok() && least_.ok() && lifted_.ok() &&
           candidate_.ok() && count_.ok() && padded_.ok() && wide_.ok() && entries_.ok() &&
           lists_.ok();
  }

  void begin() {
    for (std::int64_t block = 0; block < screen_.blocks; ++block) asked_[block] = 0;
    for (std::int64_t place = 0; place < screen_.blocks * places; ++place) {
      slot_[place] = -1;
      least_[place] = INFINITY;
    }
    for (std::int64_t l = 0; l < places; ++l) count_[l] = 0;
    for (std::int64_t slot = 0; slot < out_.capability_count; ++slot) {
      const std::int32_t place = screen_.position[out_.capability_index[slot]];
      asked_[place / places] |= std::uint64_t{1} << (place % places);
      slot_[place] = static_cast<std::int32_t>(slot);
      lists_[slot] = TopK(entries_.get() + slot * kept_, kept_);
      set_threshold(place, out_.ev_min[slot]);
    }
  }

  void begin_row(std::int64_t r) {
    if (rows_.has_closed()) rows_.reset_closed(r);
    stats_->skipped_by_rule += rows_.count_closed(r, asked_.get());
    if (padded_columns_differ()) pad_row(r);
    if (problem_.history.indptr != nullptr) take_history(r);
  }

  // ---- history -----------------------------------------------------------------------------

  void take_history(std::int64_t r) {
    const HistoryView& history = problem_.history;
    const std::int64_t row = rows_.first() + r;
    bool is_wide = false;
    for (std::int64_t entry = history.indptr[row]; entry < history.indptr[row + 1]; ++entry) {
      const std::int32_t j = history.capability_index[entry];
      const std::int32_t place = screen_.position[j];
      if (slot_[place] < 0 || !rows_.is_open(r, place)) continue;
      rows_.close(r, place);
      // What a plane excludes is counted with its block.
      if (!rows_.allowed(r, j)) continue;
      const float h = history.adjustment[entry];
      ++(h == -INFINITY ? stats_->skipped_by_rule : stats_->screened);
      if (h == -INFINITY) continue;
      const NearPredictor near = near_predictor(r, j, h);
      if (near.z + near.margin < least_[place]) continue;
      if (!is_wide) widen_row(problem_.indicators, row, panel_.padded_columns, wide_.get());
      is_wide = true;
      const float* w = panel_.weights + j * panel_.padded_columns;
      const double sum = dot(wide_.get(), w, panel_.padded_columns);
      ++stats_->verified;
      offer(place, row, sum, h);
      raise(place);
    }
  }

  // z of a pair with an adjustment: x·w in float32, in sixteen partial sums.
  NearPredictor near_predictor(std::int64_t r, std::int32_t j, float h) {
    const float* x = problem_.indicators.values + (rows_.first() + r) * panel_.columns;
    const float* w = panel_.weights + j * panel_.padded_columns;
    float sum[16] = {};
    std::int64_t d = 0;
    for (; d + 16 <= panel_.columns; d += 16) {
      for (int lane = 0; lane < 16; ++lane) sum[lane] += x[d + lane] * w[d + lane];
    }
    for (int lane = 0; d + lane < panel_.columns; ++lane) sum[lane] += x[d + lane] * w[d + lane];
    for (int half = 8; half > 0; half /= 2) {
      for (int lane = 0; lane < half; ++lane) sum[lane] += sum[lane + half];
    }
    const float slack = static_cast<float>(panel_.columns + 16) * 0x1p-23f + float_slack;
    const float other = std::fabs(panel_.bias[j]) + std::fabs(h);
    // Added in float64: a large h may bring back what float32 has lost to infinity.
    const double z = static_cast<double>(sum[0]) + static_cast<double>(panel_.bias[j]);
    return {static_cast<float>(z + static_cast<double>(h)),
            rows_[r].norm * screen_.norm[j] * slack + other * float_slack + underflow_slack};
  }

  // ---- blocks ------------------------------------------------------------------------------

  std::int64_t screen_run(std::int64_t begin) {
    const Run run = rows_.gather(begin, [](std::int64_t) { return true; });
    for (std::int64_t block = run.begin; block < run.end; ++block) {
      if (asked_[block] == 0) continue;
      const std::int64_t members = __builtin_popcountll(asked_[block]);
      stats_->skipped_by_rule += (rows_.count() - run.count) * members;
      if (run.count == 0) continue;
      const bool any = screen_block(run, block);
      (any ? stats_->screened : stats_->skipped_by_bound) +=
          rows_.count_open(run, block, asked_[block]);
    }
    return run.end;
  }

  // False when no pair of the block can reach its capability's threshold.
  bool screen_block(const Run& run, std::int64_t block) {
    const float* bias = screen_.bias + block * places;
    const float* least = least_.get() + block * places;
    float smallest = INFINITY;
    bool all_known = true;
    for (std::int64_t l = 0; l < places; ++l) {
      const bool known = least[l] > -INFINITY;
      all_known = all_known && known;
      smallest = known && least[l] < smallest ? least[l] : smallest;
    }
    // Places that are not asked stand at +∞.
    if (smallest == INFINITY && all_known) return false;
    if (smallest == INFINITY) smallest = 0.0f;
    for (std::int64_t l = 0; l < places; ++l) {
      lifted_[l] = least[l] > -INFINITY ? bias[l] - (least[l] - smallest) : INFINITY;
    }
    const auto least_at = [smallest](std::int64_t) { return smallest; };
    if (!rows_.prepare(run, block, all_known, least_at)) return false;
    const std::int64_t capacity = rows_.capacity();
    const std::uint64_t asked = asked_[block];
    const auto never = [](std::int64_t) { return false; };
    rows_.scan(run, block, lifted_.get(), never,
               [&](std::int64_t a, std::uint64_t kept, const std::int32_t*) {
                 for (kept &= asked; kept != 0; kept &= kept - 1) {
                   const int l = __builtin_ctzll(kept);
                   candidate_[l * capacity + count_[l]++] =
                       static_cast<std::int32_t>(rows_.active(a));
                 }
               });
    watch_.lap(&stats_->screen_ns);
    for (std::int64_t l = 0; l < places; ++l) {
      if (count_[l] > 0) settle(static_cast<std::int32_t>(block * places + l), l);
    }
    watch_.lap(&stats_->verify_ns);
    return true;
  }

  // Scores a capability's candidates in float64, four at a time, and offers them to its list.
  void settle(std::int32_t place, std::int64_t l) {
    constexpr std::int64_t together = 4;
    const std::int32_t* candidates = candidate_.get() + l * rows_.capacity();
    const std::int64_t count = count_[l];
    stats_->verified += count;
    count_[l] = 0;
    widen_weights(panel_, screen_.capability[place], wide_.get());
    for (std::int64_t n = 0; n < count; n += together) {
      const float* x[together];
      double sum[together];
      for (std::int64_t i = 0; i < together; ++i) {
        x[i] = indicators_of(candidates[smaller(n + i, count - 1)]);
      }
      // A product is the same whichever of the two is called the weight.
      Traits::dots(wide_.get(), x, panel_.padded_columns, sum);
      for (std::int64_t i = 0; i < smaller(together, count - n); ++i) {
        offer(place, rows_.first() + candidates[n + i], sum[i], 0.0f);
      }
    }
    raise(place);
  }

  void offer(std::int32_t place, std::int64_t row, double sum, float h) {
    const std::int32_t j = screen_.capability[place];
    const double z = (sum + static_cast<double>(panel_.bias[j])) + static_cast<double>(h);
    const Score score = score_from(panel_, z, j);
    const std::int32_t slot = slot_[place];
    if (score.expected_value >= out_.ev_min[slot]) {
      lists_[slot].offer({score.expected_value, score.propensity, row});
    }
  }

  void raise(std::int32_t place) {
    const TopK& list = lists_[slot_[place]];
    if (list.full()) set_threshold(place, list.last().expected_value);
  }

  // Lowered by what float32 may lose of it in the comparison: `prepare` knows of the smallest only.
  void set_threshold(std::int32_t place, double threshold) {
    const std::int32_t j = screen_.capability[place];
    const double value = panel_.value[j] + 0.0;  // never −0.0
    const float least = least_predictor_of(static_cast<Link>(panel_.link[j]), threshold,
                                           {value, value, panel_.cost[j]});
    const bool finite = std::fabs(least) < INFINITY;
    least_[place] = finite ? least - std::fabs(least) * float_slack : least;
  }

  // ---- rows as `dots` reads them -----------------------------------------------------------

  bool padded_columns_differ() const { return panel_.columns != panel_.padded_columns; }

  void pad_row(std::int64_t r) {
    const float* x = problem_.indicators.values + (rows_.first() + r) * panel_.columns;
    float* padded = padded_.get() + r * panel_.padded_columns;
    for (std::int64_t d = 0; d < panel_.columns; ++d) padded[d] = x[d];
    for (std::int64_t d = panel_.columns; d < panel_.padded_columns; ++d) padded[d] = 0.0f;
  }

  const float* indicators_of(std::int64_t r) {
    if (padded_columns_differ()) return padded_.get() + r * panel_.padded_columns;
    return problem_.indicators.values + (rows_.first() + r) * panel_.columns;
  }

  const Problem& problem_;
  const PanelView& panel_;
  const ScreenView& screen_;
  const AudienceOutput& out_;
  Stats* const stats_;
  const std::int64_t kept_;
  Stopwatch watch_;
  ScreenedRows<Traits> rows_;
  Buffer<std::uint64_t> asked_;  // per block: places that are asked
  Buffer<std::int32_t> slot_;    // per place: which of the asked it is, −1 = none
  Buffer<float> least_;          // per place: its threshold in z; +∞ where it is not asked
  Buffer<float> lifted_;
  Buffer<std::int32_t> candidate_;  // of the block at hand, by place
  Buffer<std::int64_t> count_;
  Buffer<float> padded_;
  Buffer<double> wide_;
  Buffer<Ranked> entries_;
  Buffer<TopK> lists_;
};

template <class Traits>
inline Status screened_audience(const Problem& problem, const AudienceOutput& out, Stats* stats) {
  const FloatingPointState state;
  const Status status = validate(problem);
  if (status.code != Code::ok) return status;
  [[maybe_unused]] const typename Traits::State unit;
  AudienceScreener<Traits> screener(problem, out, stats);
  return screener.run();
}

}  // namespace
}  // namespace visavis
