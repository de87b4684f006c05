// The rows that are screened together: quantised, with bounds on their errors, and the pairs closed
// to them. What both screened drivers (screen_match.h, screen_audience.h) stand on.
//
//   rows ─quantise─► int8 ─┐
//   panel blocks (uint8) ──┴─tile─► int32 sums ─scan─► places that the bound cannot exclude
//
// A variant's Traits bind its primitives (tile, scan, dots, their sizes, and the State that a unit of
// the processor needs around them); nothing else depends on the instruction set.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "eligible.h"
#include "kernel.h"
#include "threshold.h"
#include "workspace.h"

namespace visavis {
namespace {

constexpr std::int64_t places = block_capabilities;

// Rows screened together: their quantised form stays in the second-level cache.
constexpr std::int64_t screen_rows_max = 192;
constexpr std::int64_t screen_row_bytes = 256 * 1024;
constexpr std::int64_t closed_bytes = 16 * 1024 * 1024;

// How a float32 evaluation of ẑ, of its threshold and of the bound may differ from the real ones,
// relative to ‖x‖‖w‖ + |b| + |h| + |T|: twice what eight roundings add up to.
constexpr float float_slack = 0x1p-20f;

// What underflow can take away on top of that, in all products and norms together.
constexpr float underflow_slack = 0x1p-100f;

// What is known about one quantised row, x = step · x̂ + e.
struct QuantisedRow {
  float step;
  float inverse_step;
  float norm;   // ‖x‖ + ‖e‖, rounded up
  float error;  // ‖e‖, rounded up
  std::int32_t offset;  // 128 · Σ x̂: what storing weights plus 128 adds to every sum
};

// What a sum is without what storing weights plus 128 has added; both wrap around alike.
inline std::int32_t less_offset(std::int32_t sum, std::int32_t offset) {
  return static_cast<std::int32_t>(static_cast<std::uint32_t>(sum) -
                                   static_cast<std::uint32_t>(offset));
}

// Σ v² over `count` numbers, a multiple of 8, in eight partial sums.
inline double sum_of_squares(const double* values, std::int64_t count) {
  double sum[8] = {};
  for (std::int64_t d = 0; d < count; d += 8) {
    for (int lane = 0; lane < 8; ++lane) sum[lane] += values[d + lane] * values[d + lane];
  }
  return ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
}

// The largest of `count` sizes, a multiple of 8.
inline double largest_size(const double* values, std::int64_t count) {
  double sizes[8] = {};
  for (std::int64_t d = 0; d < count; d += 8) {
    for (int lane = 0; lane < 8; ++lane) {
      const double size = std::fabs(values[d + lane]);
      sizes[lane] = size > sizes[lane] ? size : sizes[lane];
    }
  }
  double largest = sizes[0];
  for (int lane = 1; lane < 8; ++lane) largest = sizes[lane] > largest ? sizes[lane] : largest;
  return largest;
}

// x̂ and what is known about its error. All columns beyond the indicators' are 0. `scaled` and `rest`
// have room for the screen's columns. Loop by loop, for each is vector code so.
inline void quantise_row(const IndicatorsView& view, const ScreenView& screen, std::int64_t row,
                         int largest_step, std::int8_t* __restrict quantised,
                         double* __restrict scaled, double* __restrict rest, QuantisedRow& out) {
  const float* x = view.values + row * view.columns;
  const float* scale = screen.column_scale;
  const std::int64_t whole = whole_vectors(view.columns);
  for (std::int64_t d = 0; d < view.columns; ++d) {
    scaled[d] = static_cast<double>(x[d]) * static_cast<double>(scale[d]);
  }
  for (std::int64_t d = view.columns; d < whole; ++d) scaled[d] = 0.0;
  float step = static_cast<float>(largest_size(scaled, whole) / largest_step);
  const bool usable = step >= 0x1p-100f && step <= 0x1p100f;
  step = usable ? step : 1.0f;
  const double wide = static_cast<double>(step);
  const double inverse = usable ? 1.0 / wide : 0.0;
  constexpr double to_integer = 0x1.8p52;
  for (std::int64_t d = 0; d < whole; ++d) {
    // |x|/step may round to just above largest_step; no further.
    const double multiple = (scaled[d] * inverse + to_integer) - to_integer;
    rest[d] = scaled[d] - multiple * wide;
    quantised[d] = static_cast<std::int8_t>(static_cast<std::int32_t>(multiple));
  }
  for (std::int64_t d = whole; d < screen.padded_columns; ++d) quantised[d] = 0;
  // Unsigned: with very many columns it wraps around, as the sums of the tile do.
  std::uint32_t sum = 0;
  for (std::int64_t d = 0; d < whole; ++d) sum += static_cast<std::uint32_t>(quantised[d]);
  const double norm = sum_of_squares(scaled, whole);
  const double error = sum_of_squares(rest, whole);
  // Enlarged by more than the sums' own rounding, and rounded up: denormals lie far apart.
  const double error_up = std::sqrt(error) * (1.0 + 0x1p-20);
  out.step = step;
  out.inverse_step = 1.0f / step;
  out.error = rounded_up(error_up);
  out.norm = rounded_up((std::sqrt(norm) + error_up) * (1.0 + 0x1p-20));
  out.offset = static_cast<std::int32_t>(128u * sum);
}

// The bound of docs/kernel.md for one row and one block, without what depends on T.
inline float margin_of(float norm, float error, float weight_norm, float weight_error,
                       float bias_size) {
  const float quantised = norm * weight_error + error * weight_norm;
  const float size = norm * weight_norm + bias_size;
  return quantised * (1.0f + float_slack) + size * float_slack + underflow_slack;
}

// A z whose real value lies within `margin`.
struct NearPredictor {
  float z;
  float margin;
};

// Successive blocks that one plane decides, and the rows for which it holds, quantised.
struct Run {
  std::int64_t begin;
  std::int64_t end;
  std::int64_t count;
  const std::int8_t* rows;
};

template <class Traits>
class ScreenedRows {
 public:
  // At most `rows_max` rows at a time. `closes`: whether the driver closes pairs for reasons of its
  // own, in some of its passes.
  ScreenedRows(const Problem& problem, std::int64_t rows_max, bool closes)
      : problem_(problem),
        panel_(problem.panel),
        screen_(*problem.panel.screen),
        stride_(screen_.padded_columns),
        capacity_(smaller(rows_max, rows_together(problem))),
        plane_(screen_.blocks),
        run_end_(screen_.blocks),
        run_members_(screen_.blocks),
        rows_(capacity_),
        // A tile may read, and ignore, as many rows as it has beyond the last one.
        quantised_((capacity_ + Traits::rows) * stride_),
        gathered_((capacity_ + Traits::rows) * stride_),
        active_(capacity_),
        norm_(capacity_),
        error_(capacity_),
        inverse_step_(capacity_),
        base_(capacity_),
        scaled_(stride_),
        rest_(stride_),
        sums_(Traits::rows * places) {
    if (!plane_.ok() || !run_end_.ok() || !run_members_.ok()) return;
    always_closed_ = problem.history.indptr != nullptr || problem.eligibility.dense != nullptr;
    for (std::int64_t b = 0; b < screen_.blocks; ++b) {
      plane_[b] = block_plane_of(problem.eligibility, screen_, b);
      has_mixed_ = has_mixed_ || plane_[b] == mixed;
    }
    always_closed_ = always_closed_ || has_mixed_;
    find_runs();
    ever_closed_ = always_closed_ || closes;
    if (ever_closed_) closed_.allocate(capacity_ * screen_.blocks);
  }

  bool ok() {
    return plane_.ok() && run_end_.ok() && run_members_.ok() && rows_.ok() && quantised_.ok() &&
           gathered_.ok() && active_.ok() && norm_.ok() && error_.ok() && inverse_step_.ok() && base_.ok() && scaled_.ok() &&
           rest_.ok() && sums_.ok() && (!ever_closed_ || closed_.ok());
  }

  std::int64_t capacity() const { return capacity_; }
  std::int64_t first() const { return first_; }
  std::int64_t count() const { return count_; }
  const QuantisedRow& operator[](std::int64_t r) { return rows_[r]; }

  // The rows at hand from here on.
  void take(std::int64_t first, std::int64_t count) {
    first_ = first;
    count_ = count;
    has_closed_ = always_closed_;
    for (std::int64_t r = 0; r < count; ++r) {
      quantise_row(problem_.indicators, screen_, first + r, Traits::largest_step,
                   quantised_.get() + r * stride_, scaled_.get(), rest_.get(), rows_[r]);
    }
  }

  // ---- which pairs may meet ----------------------------------------------------------------

  bool allowed(std::int64_t r, std::int64_t j) const {
    return eligible(problem_.eligibility, panel_.capabilities, first_ + r, j);
  }

  // Whether pairs are closed one by one; else a block's plane and its valid places say it all.
  bool has_closed() const { return has_closed_; }
  void use_closed() { has_closed_ = true; }  // until the next rows are taken

  // Closes again what rules close in blocks of many planes or of a dense matrix, and nothing else.
  void reset_closed(std::int64_t r) {
    std::uint64_t* const closed = closed_.get() + r * screen_.blocks;
    for (std::int64_t block = 0; block < screen_.blocks; ++block) {
      closed[block] = ~screen_.valid[block];
    }
    if (!has_mixed_) return;
    for (std::int64_t block = 0; block < screen_.blocks; ++block) {
      std::uint64_t word = closed[block];
      if (plane_[block] == mixed) {
        const std::int32_t* members = screen_.capability + block * places;
        for (std::int64_t l = 0; l < places && members[l] >= 0; ++l) {
          word |= static_cast<std::uint64_t>(allowed(r, members[l]) ? 0 : 1) << l;
        }
      }
      closed[block] = word;
    }
  }

  // Pairs that rules have closed one by one, among some places of each block; before anything else is
  // closed to the row.
  std::int64_t count_closed(std::int64_t r, const std::uint64_t* among) {
    std::int64_t count = 0;
    for (std::int64_t block = 0; has_mixed_ && block < screen_.blocks; ++block) {
      count += __builtin_popcountll(among[block] & ~open(r, block));
    }
    return count;
  }

  // Places of the blocks whose planes hold for a row.
  std::int64_t count_admitted(std::int64_t r) {
    std::int64_t count = 0;
    for (std::int64_t run = 0; run < runs_; ++run) {
      const std::int32_t plane = plane_[run_end_[run] - 1];
      count += plane_holds(problem_.eligibility, first_ + r, plane) ? run_members_[run] : 0;
    }
    return count;
  }

  void close(std::int64_t r, std::int32_t place) {
    closed_[r * screen_.blocks + place / places] |= std::uint64_t{1} << (place % places);
  }

  // Places of a block that may be screened for a row whom the block's plane admits.
  std::uint64_t open(std::int64_t r, std::int64_t block) {
    return has_closed_ ? ~closed_[r * screen_.blocks + block] : screen_.valid[block];
  }

  bool is_open(std::int64_t r, std::int32_t place) {
    return (open(r, place / places) >> (place % places) & 1) != 0;
  }

  // ---- screening ---------------------------------------------------------------------------

  // The run of blocks from `begin` that one plane decides, for the rows that `asked` names.
  template <class Asked>
  Run gather(std::int64_t begin, Asked asked) {
    const std::int32_t plane = plane_[begin];
    Run run{begin, begin + 1, 0, quantised_.get()};
    while (run.end < screen_.blocks && plane_[run.end] == plane) ++run.end;
    for (std::int64_t r = 0; r < count_; ++r) {
      active_[run.count] = static_cast<std::int32_t>(r);
      run.count += asked(r) && plane_holds(problem_.eligibility, first_ + r, plane) ? 1 : 0;
    }
    if (run.count < count_) {
      for (std::int64_t a = 0; a < run.count; ++a) {
        std::memcpy(gathered_.get() + a * stride_, quantised_.get() + active_[a] * stride_,
                    static_cast<std::size_t>(stride_));
      }
      run.rows = gathered_.get();
    }
    for (std::int64_t a = 0; a < run.count; ++a) {
      const QuantisedRow& row = rows_[active_[a]];
      norm_[a] = row.norm;
      error_[a] = row.error;
      inverse_step_[a] = row.inverse_step;
    }
    return run;
  }

  // The a-th row of the run at hand.
  std::int64_t active(std::int64_t a) { return active_[a]; }

  // What step_w·sum must reach, row by row: base − b/step_x. A pair is kept when
  //   ẑ + ε ≥ T,  ẑ = step_x·step_w·sum + b,
  // so when step_w·sum ≥ (T − ε)/step_x − b/step_x. `least_at(a)` is T, the same for all places of
  // the block. False when no row of the run needs the block; `may_skip`: Cauchy and Schwarz decide.
  template <class LeastAt>
  bool prepare(const Run& run, std::int64_t block, bool may_skip, LeastAt least_at) {
    const float weight_norm = screen_.weight_norm[block];
    const float weight_error = screen_.weight_error[block];
    const float bias_size = screen_.bias_size[block];
    const float bias_max = may_skip ? screen_.bias_max[block] : INFINITY;
    const float* const norms = norm_.get();
    const float* const errors = error_.get();
    const float* const factors = inverse_step_.get();
    float* __restrict const bases = base_.get();
    std::int32_t needed = 0;
    // Free of branches, so that it becomes vector code.
    for (std::int64_t a = 0; a < run.count; ++a) {
      const float least = least_at(a);
      const float margin = margin_of(norms[a], errors[a], weight_norm, weight_error, bias_size) +
                           std::fabs(least) * float_slack;
      const float factor = factors[a];
      const float base = (least - margin) * factor;
      // Beyond these sizes the factor's own rounding is no longer relative: NaN admits every pair.
      const int usable = (factor > 1e-30f) & (factor < 1e30f) & (std::fabs(base) < 1e37f);
      // No pair of the block can be above this.
      const float most = norms[a] * weight_norm + bias_max;
      const int out_of_reach = (least == INFINITY) | (most + margin < least);
      const float admitting = usable != 0 ? base : NAN;
      bases[a] = out_of_reach != 0 ? INFINITY : admitting;
      needed += 1 - out_of_reach;
    }
    return needed > 0;
  }

  // Multiplies the run's rows by a block and calls visit(a, kept, sums) for each row with places
  // that are open and not excluded, and for each whose sums are `wanted(a)` besides. `bias`: b of
  // each place, less what its own T exceeds T by.
  template <class Wanted, class Visit>
  void scan(const Run& run, std::int64_t block, const float* bias, Wanted wanted, Visit visit) {
    const std::uint8_t* weights = screen_.weights + block * stride_ * places;
    const float* scale = screen_.weight_scale + block * places;
    for (std::int64_t a = 0; a < run.count; a += Traits::rows) {
      const std::int64_t together = smaller(Traits::rows, run.count - a);
      bool skipped = true;
      for (std::int64_t t = 0; t < together; ++t) {
        skipped &= base_[a + t] == INFINITY && !wanted(a + t);
      }
      if (skipped) continue;
      Traits::tile(run.rows + a * stride_, stride_, together, weights, panel_.columns, sums_.get());
      for (std::int64_t t = 0; t < together; ++t) {
        const bool is_wanted = wanted(a + t);
        if (base_[a + t] == INFINITY && !is_wanted) continue;
        const std::int64_t r = active_[a + t];
        const std::int32_t* sums = sums_.get() + t * places;
        // A base of +∞ keeps nothing, or what overflows: then it is verified.
        const std::uint64_t kept =
            open(r, block) & Traits::scan(sums, rows_[r].offset, scale, bias, base_[a + t],
                                          rows_[r].inverse_step);
        if (kept != 0 || is_wanted) visit(a + t, kept, sums);
      }
    }
  }

  // Open places of a block, over all rows of the run.
  std::int64_t count_open(const Run& run, std::int64_t block, std::uint64_t among) {
    if (!has_closed_) return run.count * __builtin_popcountll(screen_.valid[block] & among);
    std::int64_t count = 0;
    for (std::int64_t a = 0; a < run.count; ++a) {
      count += __builtin_popcountll(open(active_[a], block) & among);
    }
    return count;
  }

 private:
  static std::int64_t rows_together(const Problem& problem) {
    const ScreenView& screen = *problem.panel.screen;
    std::int64_t rows = problem.block.rows > 0
                            ? problem.block.rows
                            : larger(Traits::rows, screen_row_bytes / screen.padded_columns);
    rows = smaller(rows, screen_rows_max);
    rows = smaller(rows, larger(1, closed_bytes / (screen.blocks * 8)));
    return larger(1, smaller(rows, problem.indicators.rows));
  }

  // Successive blocks that one plane decides.
  void find_runs() {
    for (std::int64_t block = 0; block < screen_.blocks; ++block) {
      if (block == 0 || plane_[block] != plane_[block - 1]) run_members_[runs_++] = 0;
      run_members_[runs_ - 1] += __builtin_popcountll(screen_.valid[block]);
      run_end_[runs_ - 1] = block + 1;
    }
  }

  const Problem& problem_;
  const PanelView& panel_;
  const ScreenView& screen_;
  const std::int64_t stride_;
  const std::int64_t capacity_;
  std::int64_t first_ = 0;
  std::int64_t count_ = 0;
  bool ever_closed_ = false;
  bool always_closed_ = false;
  bool has_mixed_ = false;
  std::int64_t runs_ = 0;
  bool has_closed_ = false;
  Buffer<std::uint64_t> closed_;  // per row and block: places that are not to be screened
  Buffer<std::int32_t> plane_;
  Buffer<std::int64_t> run_end_;
  Buffer<std::int64_t> run_members_;
  Buffer<QuantisedRow> rows_;
  Buffer<std::int8_t> quantised_;
  Buffer<std::int8_t> gathered_;
  // By place among the active rows: what a block's bounds are computed from, side by side.
  Buffer<std::int32_t> active_;
  Buffer<float> norm_;
  Buffer<float> error_;
  Buffer<float> inverse_step_;
  Buffer<float> base_;
  Buffer<double> scaled_;
  Buffer<double> rest_;
  Buffer<std::int32_t> sums_;
};

}  // namespace
}  // namespace visavis
