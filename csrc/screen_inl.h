// Screen, then verify: the driver that every screened variant shares (docs/kernel.md).
//
//   rows ─quantise─► int8 ─┐
//   panel blocks (uint8) ──┴─tile─► int32 sums ─scan─► pairs that the bound cannot exclude
//                                                          │ one pool per row
//   history pairs ─float32 dot with a bound────────────────┤
//                                                          ▼
//                          thresholds rise ◄─condense─ pools ─settle─► float64 scores ─► TopK
//
// A variant's Traits bind its primitives (tile, scan, dots, their sizes, and the State that a unit of
// the processor needs around them); nothing else depends on the instruction set. The output is that
// of exhaustive_inl.h, byte for byte.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "eligible.h"
#include "exhaustive_inl.h"
#include "greedy.h"
#include "kernel.h"
#include "score.h"
#include "threshold.h"
#include "top_k.h"
#include "workspace.h"

namespace visavis {
namespace {

constexpr std::int64_t places = block_capabilities;

// Rows screened together: their quantised form stays in the second-level cache.
constexpr std::int64_t screen_rows_max = 384;
constexpr std::int64_t screen_row_bytes = 256 * 1024;
constexpr std::int64_t closed_bytes = 16 * 1024 * 1024;

// Rows of the first pass of a call, which have no guess, and how many must have found K′ pairs for
// their thresholds to be one.
constexpr std::int64_t first_rows = 48;
constexpr std::int64_t guess_rows_min = 16;

// Candidates that a row's pool takes beyond the K′ it must be able to keep, before it is condensed.
constexpr std::int64_t pool_slack = 192;

// How a float32 evaluation of ẑ, of its threshold and of the bound may differ from the real ones,
// relative to ‖x‖‖w‖ + |b| + |h| + |T|: twice what eight roundings add up to.
constexpr float float_slack = 0x1p-20f;

// What underflow can take away on top of that, in all products and norms together.
constexpr float underflow_slack = 0x1p-100f;

// Which plane decides a whole block.
constexpr std::int32_t everybody = -1;
constexpr std::int32_t mixed = -2;

// Pairs of one row that the bound has not excluded, each with z within `margin` of `z`.
struct Pool {
  std::int32_t* place;
  float* z;
  float* margin;
};

// One row of the block of rows at hand.
struct Row {
  double threshold;   // in expected value: K′ pairs are known, or guessed, to reach it
  double guess;       // the guessed one; −∞ where there is none
  std::int64_t count;  // of candidates
  float least;        // the threshold in z, for uniform catalogs
  bool again;         // its guess was too high
  float step;         // what one step of the quantised row is worth
  float inverse_step;
  float norm;   // ‖x‖ + ‖e_x‖, rounded up
  float error;  // ‖e_x‖, rounded up
  std::int32_t offset;  // 128 · Σ x̂: what storing weights plus 128 adds to every sum
};

// x̂ and what is known about its error. All columns beyond the indicators' are 0.
inline void quantise_row(const IndicatorsView& view, const ScreenView& screen, std::int64_t row,
                         int largest_step, std::int8_t* quantised, double* scaled, Row& out) {
  const float* x = view.values + row * view.columns;
  double largest = 0.0;
  for (std::int64_t d = 0; d < view.columns; ++d) {
    scaled[d] = static_cast<double>(x[d]) * static_cast<double>(screen.column_scale[d]);
    const double size = std::fabs(scaled[d]);
    largest = size > largest ? size : largest;
  }
  float step = static_cast<float>(largest / largest_step);
  const bool usable = step >= 0x1p-100f && step <= 0x1p100f;
  step = usable ? step : 1.0f;
  const double wide = static_cast<double>(step);
  const double inverse = usable ? 1.0 / wide : 0.0;
  double norm = 0.0;
  double error = 0.0;
  std::int32_t sum = 0;
  constexpr double to_integer = 0x1.8p52;
  for (std::int64_t d = 0; d < view.columns; ++d) {
    // |x|/step may round to just above largest_step; no further.
    const double multiple = (scaled[d] * inverse + to_integer) - to_integer;
    const double e = scaled[d] - multiple * wide;
    norm += scaled[d] * scaled[d];
    error += e * e;
    const std::int32_t whole = static_cast<std::int32_t>(multiple);
    sum += whole;
    quantised[d] = static_cast<std::int8_t>(whole);
  }
  for (std::int64_t d = view.columns; d < screen.padded_columns; ++d) quantised[d] = 0;
  // Enlarged by more than the sums' own rounding, and rounded up: denormals lie far apart.
  const double error_up = std::sqrt(error) * (1.0 + 0x1p-20);
  out.step = step;
  out.inverse_step = 1.0f / step;
  out.error = rounded_up(error_up);
  out.norm = rounded_up((std::sqrt(norm) + error_up) * (1.0 + 0x1p-20));
  // Unsigned: with very many columns it wraps around, as the sums of the tile do.
  out.offset = static_cast<std::int32_t>(128u * static_cast<std::uint32_t>(sum));
}

// The bound of docs/kernel.md for one row and one block, without what depends on T.
inline float margin_of(float norm, float error, float weight_norm, float weight_error,
                       float bias_size) {
  const float quantised = norm * weight_error + error * weight_norm;
  const float size = norm * weight_norm + bias_size;
  return quantised * (1.0f + float_slack) + size * float_slack + underflow_slack;
}

template <class Traits>
class Screener {
 public:
  Screener(const Problem& problem, const Limits& limits, const MatchOutput& out, Stats* stats)
      : problem_(problem),
        panel_(problem.panel),
        screen_(*problem.panel.screen),
        out_(out),
        stats_(stats),
        stride_(screen_.padded_columns),
        kept_(list_capacity(problem, limits, out.k)),
        pool_size_(kept_ + pool_slack + places),
        rows_max_(rows_together(problem)),
        has_closed_(problem.history.indptr != nullptr || problem.eligibility.dense != nullptr),
        plane_(screen_.blocks),
        rows_(rows_max_),
        // A tile may read, and ignore, as many rows as it has beyond the last one.
        quantised_((rows_max_ + Traits::rows) * stride_),
        gathered_((rows_max_ + Traits::rows) * stride_),
        active_(rows_max_),
        threshold_(rows_max_),
        least_(rows_max_),
        norm_(rows_max_),
        error_(rows_max_),
        inverse_step_(rows_max_),
        base_(rows_max_),
        wide_(larger(panel_.padded_columns, stride_)),
        sums_(Traits::rows * places),
        place_(rows_max_ * pool_size_),
        z_(rows_max_ * pool_size_),
        margin_(rows_max_ * pool_size_),
        keys_(whole_vectors(pool_size_)),
        guess_keys_(whole_vectors(rows_max_)),
        predictor_(pool_size_),
        value_(pool_size_),
        cost_(pool_size_),
        worth_(pool_size_),
        propensity_(pool_size_),
        scratch_(panel_.padded_columns),
        entries_(rows_max_ * kept_),
        lists_(rows_max_),
        groups_(panel_, limits) {
    if (!plane_.ok()) return;
    for (std::int64_t b = 0; b < screen_.blocks; ++b) {
      plane_[b] = plane_of(b);
      has_closed_ = has_closed_ || plane_[b] == mixed;
    }
    if (has_closed_) closed_.allocate(rows_max_ * screen_.blocks);
  }

  Status run() {
    if (!ok()) return {Code::out_of_memory, -1, -1};
    const std::int64_t rows = problem_.indicators.rows;
    for (first_ = 0; first_ < rows; first_ += row_count_) {
      // The first rows teach the others what threshold to guess, so they are few.
      const std::int64_t most = first_ == 0 ? smaller(rows_max_, first_rows) : rows_max_;
      row_count_ = smaller(most, rows - first_);
      begin_rows();
      screen_all();
      if (begin_again()) screen_all();
      learn_guess();
      for (std::int64_t r = 0; r < row_count_; ++r) finish(r);
    }
    return {};
  }

 private:
  // ---- sizes -----------------------------------------------------------------------------

  static std::int64_t rows_together(const Problem& problem) {
    const ScreenView& screen = *problem.panel.screen;
    std::int64_t rows = problem.block.rows > 0
                            ? problem.block.rows
                            : larger(Traits::rows, screen_row_bytes / screen.padded_columns);
    rows = smaller(rows, screen_rows_max);
    rows = smaller(rows, larger(1, closed_bytes / (screen.blocks * 8)));
    return larger(1, smaller(rows, problem.indicators.rows));
  }

  bool ok() {
    return plane_.ok() && rows_.ok() && quantised_.ok() && gathered_.ok() && active_.ok() &&
           threshold_.ok() && least_.ok() && norm_.ok() && error_.ok() && inverse_step_.ok() &&
           base_.ok() && wide_.ok() && sums_.ok() && place_.ok() && z_.ok() && margin_.ok() &&
           keys_.ok() && guess_keys_.ok() && predictor_.ok() && value_.ok() && cost_.ok() &&
           worth_.ok() && propensity_.ok() && scratch_.ok() && entries_.ok() && lists_.ok() &&
           groups_.ok() && (!has_closed_ || closed_.ok());
  }

  Pool pool(std::int64_t r) {
    const std::int64_t begin = r * pool_size_;
    return {place_.get() + begin, z_.get() + begin, margin_.get() + begin};
  }

  std::uint64_t& closed(std::int64_t r, std::int64_t block) {
    return closed_[r * screen_.blocks + block];
  }

  // ---- passes ------------------------------------------------------------------------------

  // Whether the pass at hand is about a row: all rows, then those whose guess was too high.
  bool is_asked(std::int64_t r) { return rows_[r].again || !is_again_; }

  void screen_all() {
    take_history();
    for (std::int64_t block = 0; block < screen_.blocks;) block = screen_run(block);
    for (std::int64_t r = 0; r < row_count_; ++r) {
      if (!is_asked(r)) continue;
      if (rows_[r].count > kept_) condense(r);
      settle(r);
    }
  }

  // A guess is right when the K′-th best pair found reaches it: whatever was dropped lies below.
  // Rows whose guess was too high are screened once more, from what is proven by then.
  bool begin_again() {
    bool any = false;
    for (std::int64_t r = 0; r < row_count_; ++r) {
      Row& row = rows_[r];
      const bool full = lists_[r].full();
      row.again = row.guess > -INFINITY && !(full && lists_[r][0].expected_value >= row.guess);
      if (!row.again) continue;
      any = true;
      set_threshold(row, problem_.ev_min);
      if (full) raise(row, lists_[r][0].expected_value);
      row.guess = -INFINITY;
      lists_[r].clear();
    }
    is_again_ = any;
    return any;
  }

  // What 98 of 100 rows reached: their threshold by the size of the row where catalogs are uniform,
  // else as it is. Rows are alike as far as customers are; where they are not, guesses are low.
  void learn_guess() {
    is_again_ = false;
    std::int64_t full = 0;
    for (std::int64_t r = 0; r < row_count_; ++r) {
      if (!lists_[r].full()) continue;
      const double reached = lists_[r][0].expected_value;
      guess_keys_[full++] = ordered(screen_.is_uniform != 0
                                        ? block_least(0, reached) / rows_[r].norm
                                        : static_cast<float>(reached));
    }
    guess_ = -INFINITY;
    if (full < guess_rows_min || full < row_count_ - row_count_ / 10) return;
    guess_ = reached_by(guess_keys_.get(), full, full - full / 50);
  }

  double guess_for(const Row& row) const {
    if (!(guess_ > -INFINITY)) return -INFINITY;
    const double guess = screen_.is_uniform != 0
                             ? worth_below(guess_ * row.norm, screen_.capability[0])
                             : static_cast<double>(guess_);
    return guess > problem_.ev_min && guess < INFINITY ? guess : -INFINITY;
  }

  // ---- which pairs may meet ----------------------------------------------------------------

  // The plane that all capabilities of a block share, `everybody` or `mixed`.
  std::int32_t plane_of(std::int64_t block) const {
    if (problem_.eligibility.dense != nullptr) return mixed;
    if (problem_.eligibility.planes == nullptr) return everybody;
    const std::int32_t* members = screen_.capability + block * places;
    const std::int32_t plane = problem_.eligibility.plane_index[members[0]];
    for (std::int64_t l = 1; l < places && members[l] >= 0; ++l) {
      if (problem_.eligibility.plane_index[members[l]] != plane) return mixed;
    }
    return plane;
  }

  void begin_rows() {
    for (std::int64_t r = 0; r < row_count_; ++r) {
      Row& row = rows_[r];
      quantise_row(problem_.indicators, screen_, first_ + r, Traits::largest_step,
                   quantised_.get() + r * stride_, wide_.get(), row);
      row.guess = guess_for(row);
      set_threshold(row, row.guess > -INFINITY ? row.guess : problem_.ev_min);
      row.count = 0;
      row.again = false;
      lists_[r] = TopK(entries_.get() + r * kept_, kept_);
      if (has_closed_) close_mixed(r);
    }
  }

  // Closes what no whole plane excludes: pairs of blocks of many planes, or of a dense matrix.
  void close_mixed(std::int64_t r) {
    for (std::int64_t block = 0; block < screen_.blocks; ++block) {
      std::uint64_t word = ~screen_.valid[block];
      if (plane_[block] == mixed) {
        const std::int32_t* members = screen_.capability + block * places;
        for (std::int64_t l = 0; l < places && members[l] >= 0; ++l) {
          const bool open =
              eligible(problem_.eligibility, panel_.capabilities, first_ + r, members[l]);
          word |= static_cast<std::uint64_t>(open ? 0 : 1) << l;
        }
        const std::int64_t shut = __builtin_popcountll(word & screen_.valid[block]);
        stats_->skipped_by_rule += shut;
      }
      closed(r, block) = word;
    }
  }

  // ---- history -----------------------------------------------------------------------------

  // Pairs with an adjustment are screened one by one with their own h, and first: what a customer
  // did before is what most raises a threshold.
  void take_history() {
    if (problem_.history.indptr == nullptr) return;
    for (std::int64_t r = 0; r < row_count_; ++r) {
      if (!is_asked(r)) continue;
      const std::int64_t end = problem_.history.indptr[first_ + r + 1];
      for (std::int64_t entry = problem_.history.indptr[first_ + r]; entry < end; ++entry) {
        take_entry(r, entry);
      }
    }
  }

  void take_entry(std::int64_t r, std::int64_t entry) {
    const std::int32_t j = problem_.history.capability_index[entry];
    const float h = problem_.history.adjustment[entry];
    const std::int32_t place = screen_.position[j];
    const std::int64_t block = place / places;
    const std::uint64_t bit = std::uint64_t{1} << (place % places);
    const bool is_open = eligible(problem_.eligibility, panel_.capabilities, first_ + r, j);
    if (!is_again_) {
      // What a rule closes is counted with its block, or was when mixed blocks were closed.
      stats_->screened += is_open && h != -INFINITY ? 1 : 0;
      stats_->skipped_by_rule += is_open && h == -INFINITY ? 1 : 0;
      closed(r, block) |= bit;
    }
    if (!is_open || h == -INFINITY) return;
    Row& row = rows_[r];
    const float z = (float_dot(first_ + r, j) + panel_.bias[j]) + h;
    const float size = row.norm * screen_.norm[j];
    const float slack = static_cast<float>(panel_.columns + 16) * 0x1p-23f;
    const float margin = size * (slack + float_slack) +
                         (std::fabs(panel_.bias[j]) + std::fabs(h)) * float_slack +
                         underflow_slack;
    const float least = least_of(row, block);
    if (z + margin < least - std::fabs(least) * float_slack) return;
    append(r, place, z, margin);
    if (row.count > pool_size_ - places) condense(r);
  }

  // x·w in float32, in sixteen partial sums.
  float float_dot(std::int64_t row, std::int64_t j) const {
    const float* x = problem_.indicators.values + row * panel_.columns;
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
    return sum[0];
  }

  // ---- blocks ------------------------------------------------------------------------------

  // Screens the run of blocks from `begin` that one plane decides; returns where it ends.
  std::int64_t screen_run(std::int64_t begin) {
    const std::int32_t plane = plane_[begin];
    std::int64_t end = begin + 1;
    while (end < screen_.blocks && plane_[end] == plane) ++end;
    std::int64_t count = 0;
    for (std::int64_t r = 0; r < row_count_; ++r) {
      active_[count] = static_cast<std::int32_t>(r);
      count += is_asked(r) && plane_holds(problem_.eligibility, first_ + r, plane) ? 1 : 0;
    }
    const std::int8_t* rows = quantised_.get();
    if (count < row_count_) {
      for (std::int64_t a = 0; a < count; ++a) {
        std::memcpy(gathered_.get() + a * stride_, rows + active_[a] * stride_,
                    static_cast<std::size_t>(stride_));
      }
      rows = gathered_.get();
    }
    for (std::int64_t a = 0; a < count; ++a) {
      const Row& row = rows_[active_[a]];
      threshold_[a] = row.threshold;
      least_[a] = row.least;
      norm_[a] = row.norm;
      error_[a] = row.error;
      inverse_step_[a] = row.inverse_step;
    }
    for (std::int64_t block = begin; block < end; ++block) {
      const std::int64_t members = __builtin_popcountll(screen_.valid[block]);
      if (!is_again_) stats_->skipped_by_rule += (row_count_ - count) * members;
      if (count > 0) screen_block(block, rows, count);
    }
    return end;
  }

  void screen_block(std::int64_t block, const std::int8_t* rows, std::int64_t count) {
    const bool any = prepare_scan(block, count);
    if (!any) {
      count_screened(block, count, &stats_->skipped_by_bound);
      return;
    }
    count_screened(block, count, &stats_->screened);
    const std::uint8_t* weights = screen_.weights + block * stride_ * places;
    for (std::int64_t a = 0; a < count; a += Traits::rows) {
      const std::int64_t together = smaller(Traits::rows, count - a);
      bool skipped = true;
      for (std::int64_t t = 0; t < together; ++t) skipped &= base_[a + t] == INFINITY;
      if (skipped) continue;
      Traits::tile(rows + a * stride_, stride_, together, weights, panel_.columns, sums_.get());
      for (std::int64_t t = 0; t < together; ++t) {
        if (base_[a + t] != INFINITY) scan_row(block, a + t, sums_.get() + t * places);
      }
    }
  }

  // Pairs of a block that neither a rule nor the history path has taken.
  void count_screened(std::int64_t block, std::int64_t count, std::int64_t* counter) {
    if (is_again_) return;
    const std::uint64_t valid = screen_.valid[block];
    if (!has_closed_) {
      *counter += count * __builtin_popcountll(valid);
      return;
    }
    for (std::int64_t a = 0; a < count; ++a) {
      *counter += __builtin_popcountll(valid & ~closed(active_[a], block));
    }
  }

  // What step_w·sum must reach, row by row: base − b/step_x. A pair is kept when
  //   ẑ + ε ≥ T,  ẑ = step_x·step_w·sum + b,
  // so when step_w·sum ≥ (T − ε)/step_x − b/step_x. False when no row needs the block.
  bool prepare_scan(std::int64_t block, std::int64_t count) {
    const Worth worth{screen_.value_max[block], screen_.value_min[block], screen_.cost_min[block]};
    if (screen_.is_uniform == 0) {
      switch (static_cast<Link>(screen_.link[block])) {
        case Link::logistic: find_least<Link::logistic>(worth, count); break;
        case Link::count: find_least<Link::count>(worth, count); break;
        default: find_least<Link::identity>(worth, count);
      }
    }
    const float weight_norm = screen_.weight_norm[block];
    const float weight_error = screen_.weight_error[block];
    const float bias_size = screen_.bias_size[block];
    const float bias_max = screen_.bias_max[block];
    std::int32_t needed = 0;
    for (std::int64_t a = 0; a < count; ++a) {
      const float least = least_[a];
      const float margin = margin_of(norm_[a], error_[a], weight_norm, weight_error, bias_size) +
                           std::fabs(least) * float_slack;
      const float factor = inverse_step_[a];
      const float base = (least - margin) * factor;
      // Beyond these sizes the factor's own rounding is no longer relative: NaN admits every pair.
      const bool usable = factor > 1e-30f && factor < 1e30f && std::fabs(base) < 1e37f;
      // Cauchy and Schwarz: no pair of the block can be above this.
      const float most = norm_[a] * weight_norm + bias_max;
      const bool out_of_reach = least == INFINITY || most + margin < least;
      base_[a] = out_of_reach ? INFINITY : (usable ? base : NAN);
      needed += out_of_reach ? 0 : 1;
    }
    return needed > 0;
  }

  template <Link link>
  void find_least(const Worth& worth, std::int64_t count) {
    for (std::int64_t a = 0; a < count; ++a) least_[a] = least_predictor<link>(threshold_[a], worth);
  }

  float least_of(const Row& row, std::int64_t block) const {
    if (screen_.is_uniform != 0) return row.least;
    return block_least(block, row.threshold);
  }

  float block_least(std::int64_t block, double threshold) const {
    return least_predictor_of(
        static_cast<Link>(screen_.link[block]), threshold,
        {screen_.value_max[block], screen_.value_min[block], screen_.cost_min[block]});
  }

  void scan_row(std::int64_t block, std::int64_t a, const std::int32_t* sums) {
    const std::int64_t r = active_[a];
    Row& row = rows_[r];
    const float* bias = screen_.bias + block * places;
    const float* scale = screen_.weight_scale + block * places;
    std::uint64_t kept = Traits::scan(sums, row.offset, scale, bias, base_[a], inverse_step_[a]);
    kept &= has_closed_ ? ~closed(r, block) : screen_.valid[block];
    if (kept == 0) return;
    const float margin = margin_of(row.norm, row.error, screen_.weight_norm[block],
                                   screen_.weight_error[block], screen_.bias_size[block]);
    do {
      const int l = __builtin_ctzll(kept);
      kept &= kept - 1;
      const float z = static_cast<float>(sums[l] - row.offset) * scale[l] * row.step + bias[l];
      append(r, static_cast<std::int32_t>(block * places + l), z, margin);
    } while (kept != 0);
    if (row.count > pool_size_ - places) {
      condense(r);
      threshold_[a] = row.threshold;
      least_[a] = row.least;
    }
  }

  void append(std::int64_t r, std::int32_t place, float z, float margin) {
    const Pool candidates = pool(r);
    const std::int64_t n = rows_[r].count++;
    candidates.place[n] = place;
    candidates.z[n] = z;
    candidates.margin[n] = margin;
  }

  // ---- pools -------------------------------------------------------------------------------

  // Raises the row's threshold from the lower bounds of its candidates and drops those that can no
  // longer be taken. Where the bounds are too wide for that, the candidates are scored.
  void condense(std::int64_t r) {
    Row& row = rows_[r];
    raise_threshold(r);
    drop_candidates(r);
    if (row.count > kept_ + pool_slack / 2) settle(r);
  }

  void raise_threshold(std::int64_t r) {
    Row& row = rows_[r];
    if (row.count < kept_) return;
    const Pool candidates = pool(r);
    double reached;
    if (screen_.is_uniform != 0) {
      for (std::int64_t n = 0; n < row.count; ++n) {
        keys_[n] = ordered(candidates.z[n] - candidates.margin[n]);
      }
      reached = worth_below(reached_by(keys_.get(), row.count, kept_), screen_.capability[0]);
    } else {
      for (std::int64_t n = 0; n < row.count; ++n) {
        predictor_[n] = static_cast<double>(candidates.z[n] - candidates.margin[n]);
      }
      find_worth(r);
      for (std::int64_t n = 0; n < row.count; ++n) {
        const double below = worth_[n] - rounding_of(worth_[n], cost_[n]);
        // Without a lower bound there is none of the worth either.
        keys_[n] = ordered(predictor_[n] > -INFINITY ? rounded_down(below) : NAN);
      }
      reached = static_cast<double>(reached_by(keys_.get(), row.count, kept_));
    }
    raise(row, reached);
  }

  void raise(Row& row, double reached) const {
    if (reached > row.threshold) set_threshold(row, reached);
  }

  void set_threshold(Row& row, double threshold) const {
    row.threshold = threshold;
    if (screen_.is_uniform != 0) row.least = block_least(0, threshold);
  }

  // Expected values, propensities and costs of a row's candidates whose z stand in predictor_.
  void find_worth(std::int64_t r) {
    const std::int64_t count = rows_[r].count;
    const std::int32_t* place = pool(r).place;
    for (std::int64_t n = 0; n < count; ++n) {
      const std::int64_t j = screen_.capability[place[n]];
      value_[n] = panel_.value[j];
      cost_[n] = panel_.cost[j];
    }
    // Neighbours in a pool mostly share a link, for they come block by block.
    for (std::int64_t begin = 0; begin < count;) {
      const std::uint8_t link = screen_.link[place[begin] / places];
      std::int64_t end = begin + 1;
      while (end < count && screen_.link[place[end] / places] == link) ++end;
      find_worth_of(static_cast<Link>(link), begin, end - begin);
      begin = end;
    }
  }

  void find_worth_of(Link link, std::int64_t begin, std::int64_t count) {
    const double* z = predictor_.get() + begin;
    const double* value = value_.get() + begin;
    const double* cost = cost_.get() + begin;
    double* worth = worth_.get() + begin;
    double* propensity = propensity_.get() + begin;
    switch (link) {
      case Link::logistic:
        return scores_at<Link::logistic>(count, z, value, cost, worth, propensity);
      case Link::count: return scores_at<Link::count>(count, z, value, cost, worth, propensity);
      default: return scores_at<Link::identity>(count, z, value, cost, worth, propensity);
    }
  }

  // By how much the rounded expected value of a larger z may lie below that of a smaller one.
  static double rounding_of(double ev, double cost) {
    return 0x1p-48 * (std::fabs(ev) + 2.0 * std::fabs(cost));
  }

  // Not above the expected value of any z' ≥ z, in the rounded arithmetic of score_at.
  double worth_below(double z, std::int64_t j) const {
    if (!(z > -INFINITY)) return -INFINITY;
    const double ev = score_from(panel_, z, j).expected_value;
    return ev - rounding_of(ev, panel_.cost[j]);
  }

  void drop_candidates(std::int64_t r) {
    Row& row = rows_[r];
    const Pool candidates = pool(r);
    std::int64_t kept = 0;
    for (std::int64_t n = 0; n < row.count; ++n) {
      const float least = least_of(row, candidates.place[n] / places);
      const float margin = candidates.margin[n] + std::fabs(least) * float_slack;
      const bool taken = !(candidates.z[n] + margin < least);
      candidates.place[kept] = candidates.place[n];
      candidates.z[kept] = candidates.z[n];
      candidates.margin[kept] = candidates.margin[n];
      kept += taken ? 1 : 0;
    }
    row.count = kept;
  }

  // Scores every candidate of a row in float64 and offers it to the row's list.
  void settle(std::int64_t r) {
    Row& row = rows_[r];
    stats_->verified += row.count;
    find_predictors(r);
    if (screen_.is_uniform != 0) drop_below(r);
    find_worth(r);
    const Pool candidates = pool(r);
    for (std::int64_t n = 0; n < row.count; ++n) {
      if (worth_[n] >= problem_.ev_min) {
        lists_[r].offer({worth_[n], propensity_[n], screen_.capability[candidates.place[n]]});
      }
    }
    row.count = 0;
    if (lists_[r].full()) raise(row, lists_[r][0].expected_value);
  }

  // z of every candidate, into predictor_.
  void find_predictors(std::int64_t r) {
    const Pool candidates = pool(r);
    const std::int64_t count = rows_[r].count;
    widen_row(problem_.indicators, first_ + r, panel_.padded_columns, wide_.get());
    // Four at a time, for a dot alone waits for its own additions; the last one fills up.
    constexpr std::int64_t together = 4;
    constexpr std::int64_t ahead = 8;
    for (std::int64_t n = 0; n < smaller(ahead, count); ++n) {
      prefetch(weights_at(candidates.place[n]));
    }
    for (std::int64_t n = 0; n < count; n += together) {
      const float* w[together];
      double sum[together];
      for (std::int64_t i = 0; i < together; ++i) {
        if (n + i + ahead < count) prefetch(weights_at(candidates.place[n + i + ahead]));
        w[i] = weights_at(candidates.place[smaller(n + i, count - 1)]);
      }
      Traits::dots(wide_.get(), w, panel_.padded_columns, sum);
      for (std::int64_t i = 0; i < smaller(together, count - n); ++i) {
        const std::int64_t j = screen_.capability[candidates.place[n + i]];
        const float h = adjustment_of(problem_.history, first_ + r, j);
        predictor_[n + i] = (sum[i] + static_cast<double>(panel_.bias[j])) + static_cast<double>(h);
      }
    }
  }

  const float* weights_at(std::int32_t place) const {
    return panel_.weights + screen_.capability[place] * panel_.padded_columns;
  }

  // With one link, value and cost, exact z alone tell most candidates from the first K′.
  void drop_below(std::int64_t r) {
    Row& row = rows_[r];
    if (row.count < kept_) return;
    for (std::int64_t n = 0; n < row.count; ++n) {
      keys_[n] = ordered(rounded_down(predictor_[n]));
    }
    raise(row, worth_below(reached_by(keys_.get(), row.count, kept_), screen_.capability[0]));
    const Pool candidates = pool(r);
    std::int64_t kept = 0;
    for (std::int64_t n = 0; n < row.count; ++n) {
      const bool taken = !(predictor_[n] < static_cast<double>(row.least));
      candidates.place[kept] = candidates.place[n];
      predictor_[kept] = predictor_[n];
      kept += taken ? 1 : 0;
    }
    row.count = kept;
  }

  void prefetch(const float* weights) const {
    for (std::int64_t d = 0; d < panel_.padded_columns; d += 16) __builtin_prefetch(weights + d);
  }

  void finish(std::int64_t r) {
    const auto rescreen = [&](const Ranked& last, TopK& list) {
      widen_row(problem_.indicators, first_ + r, panel_.padded_columns, wide_.get());
      rescreen_row(problem_, first_ + r, wide_.get(), scratch_.get(), last, groups_, list, stats_);
    };
    finish_row(lists_[r], groups_, panel_.capabilities, out_, first_ + r, stats_, rescreen);
  }

  const Problem& problem_;
  const PanelView& panel_;
  const ScreenView& screen_;
  const MatchOutput& out_;
  Stats* const stats_;
  const std::int64_t stride_;
  const std::int64_t kept_;  // K′
  const std::int64_t pool_size_;
  const std::int64_t rows_max_;
  bool has_closed_;
  Buffer<std::uint64_t> closed_;  // per row and block: places that are not to be screened
  std::int64_t first_ = 0;
  std::int64_t row_count_ = 0;
  bool is_again_ = false;  // the pass over rows whose guess was too high
  float guess_ = -INFINITY;
  Buffer<std::int32_t> plane_;
  Buffer<Row> rows_;
  Buffer<std::int8_t> quantised_;
  Buffer<std::int8_t> gathered_;
  Buffer<std::int32_t> active_;
  // By place among the active rows: what a block's thresholds are computed from, side by side.
  Buffer<double> threshold_;
  Buffer<float> least_;
  Buffer<float> norm_;
  Buffer<float> error_;
  Buffer<float> inverse_step_;
  Buffer<float> base_;
  Buffer<double> wide_;
  Buffer<std::int32_t> sums_;
  Buffer<std::int32_t> place_;
  Buffer<float> z_;
  Buffer<float> margin_;
  Buffer<std::int32_t> keys_;
  Buffer<std::int32_t> guess_keys_;
  // By candidate of the row that is condensed or settled.
  Buffer<double> predictor_;
  Buffer<double> value_;
  Buffer<double> cost_;
  Buffer<double> worth_;
  Buffer<double> propensity_;
  Buffer<double> scratch_;
  Buffer<Ranked> entries_;
  Buffer<TopK> lists_;
  GroupCounts groups_;
};

template <class Traits>
inline Status screened_match(const Problem& problem, const Limits& limits, const MatchOutput& out,
                             Stats* stats) {
  const FloatingPointState state;
  const Status status = validate(problem);
  if (status.code != Code::ok) return status;
  [[maybe_unused]] const typename Traits::State unit;
  Screener<Traits> screener(problem, limits, out, stats);
  return screener.run();
}

}  // namespace
}  // namespace visavis
