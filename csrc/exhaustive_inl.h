// The definition itself as a driver: every eligible pair is scored in float64, block by block.
//
// It promises nothing but the answer. Screened variants replace `match` and `audience` by drivers
// that score fewer pairs, and keep everything else in this folder: score.h, greedy.h, eligible.h.
#pragma once

#include <cstdint>

#include "eligible.h"
#include "greedy.h"
#include "kernel.h"
#include "score.h"
#include "top_k.h"
#include "workspace.h"

namespace visavis {
namespace {

// Weights of one capability block are widened to float64 once and then read by every row of a row
// block. Measured at D = 64, 128 and 345 with 2,820 capabilities: one row at a time costs 10–35 %,
// from 8 rows and from 16 capabilities on, all sizes lie within 10 % of each other. 256 KiB of
// weights stay in a second-level cache.
constexpr std::int64_t exhaustive_block_rows = 32;
constexpr std::int64_t exhaustive_block_bytes = 256 * 1024;

inline Block exhaustive_block(const Problem& problem) {
  const PanelView& panel = problem.panel;
  const std::int64_t row_bytes = panel.padded_columns * static_cast<std::int64_t>(sizeof(double));
  const std::int64_t fit = larger(8, exhaustive_block_bytes / larger(1, row_bytes));
  const std::int64_t rows = problem.block.rows > 0 ? problem.block.rows : exhaustive_block_rows;
  const std::int64_t width = problem.block.capabilities > 0 ? problem.block.capabilities : fit;
  return {larger(1, smaller(rows, problem.indicators.rows)),
          larger(1, smaller(width, panel.capabilities))};
}

inline void widen_row(const IndicatorsView& view, std::int64_t row, std::int64_t padded_columns,
                      double* x) {
  const float* source = view.values + row * view.columns;
  for (std::int64_t d = 0; d < view.columns; ++d) x[d] = static_cast<double>(source[d]);
  for (std::int64_t d = view.columns; d < padded_columns; ++d) x[d] = 0.0;
}

inline void widen_weights(const PanelView& panel, std::int64_t j, double* w) {
  const float* source = panel.weights + j * panel.padded_columns;
  for (std::int64_t d = 0; d < panel.padded_columns; ++d) w[d] = static_cast<double>(source[d]);
}

// z = (dot + b) + h.
inline double linear_predictor(const PanelView& panel, const double* x, const double* w,
                               std::int64_t j, float h) {
  const double sum = dot(x, w, panel.padded_columns);
  return (sum + static_cast<double>(panel.bias[j])) + static_cast<double>(h);
}

inline Score score_from(const PanelView& panel, double z, std::int64_t j) {
  return score_at(z, static_cast<Link>(panel.link[j]), panel.value[j], panel.cost[j]);
}

// Which capabilities a call is about: all of them, or those listed in ascending order.
struct Selection {
  const std::int32_t* capability_index;  // null = all
  std::int64_t count;

  std::int64_t operator[](std::int64_t position) const {
    return capability_index == nullptr ? position : capability_index[position];
  }
};

// One pair as the driver hands it to a visitor.
struct Pair {
  std::int64_t block_row;  // row within the row block
  std::int64_t row;
  std::int64_t position;  // within the selection
  std::int64_t capability;
  float h;
  bool eligible;
  const double* x;
  const double* w;
};

// Visits every selected pair, block by block; for one row, positions ascend. After each row block
// comes finish(first_row, row_count, x), where `x` holds the block's widened rows.
template <typename Visit, typename Finish>
inline Status for_each_pair(const Problem& problem, const Selection& selection, Visit visit,
                            Finish finish) {
  const PanelView& panel = problem.panel;
  const Block block = exhaustive_block(problem);
  const std::int64_t columns = panel.padded_columns;
  Buffer<double> x(block.rows * columns);
  Buffer<double> w(block.capabilities * columns);
  Buffer<HistoryCursor> cursors(block.rows);
  if (!x.ok() || !w.ok() || !cursors.ok()) return {Code::out_of_memory, -1, -1};

  for (std::int64_t first = 0; first < problem.indicators.rows; first += block.rows) {
    const std::int64_t row_count = smaller(block.rows, problem.indicators.rows - first);
    for (std::int64_t r = 0; r < row_count; ++r) {
      widen_row(problem.indicators, first + r, columns, x.get() + r * columns);
      cursors[r] = HistoryCursor(problem.history, first + r);
    }
    for (std::int64_t begin = 0; begin < selection.count; begin += block.capabilities) {
      const std::int64_t end = smaller(begin + block.capabilities, selection.count);
      for (std::int64_t position = begin; position < end; ++position) {
        widen_weights(panel, selection[position], w.get() + (position - begin) * columns);
      }
      for (std::int64_t r = 0; r < row_count; ++r) {
        for (std::int64_t position = begin; position < end; ++position) {
          const std::int64_t j = selection[position];
          const float h = cursors[r].at(j);
          const bool open =
              h != -INFINITY && eligible(problem.eligibility, panel.capabilities, first + r, j);
          visit(Pair{r, first + r, position, j, h, open, x.get() + r * columns,
                     w.get() + (position - begin) * columns});
        }
      }
    }
    finish(first, row_count, x.get());
  }
  return {};
}

// Scores one visited pair if it is eligible and offers it to `list` under the name `index`.
inline void offer_pair(const Problem& problem, const Pair& pair, std::int64_t index, double ev_min,
                       TopK& list, Stats* stats) {
  if (!pair.eligible) {
    ++stats->skipped_by_rule;
    return;
  }
  ++stats->screened;
  ++stats->verified;
  const double z = linear_predictor(problem.panel, pair.x, pair.w, pair.capability, pair.h);
  const Score score = score_from(problem.panel, z, pair.capability);
  if (score.expected_value >= ev_min) {
    list.offer({score.expected_value, score.propensity, index});
  }
}

// One customer again, over the capabilities still open, strictly beyond `last`.
inline void rescreen_row(const Problem& problem, std::int64_t row, const double* x, double* w,
                         const Ranked& last, GroupCounts& groups, TopK& list, Stats* stats) {
  const PanelView& panel = problem.panel;
  HistoryCursor cursor(problem.history, row);
  for (std::int64_t j = 0; j < panel.capabilities; ++j) {
    const float h = cursor.at(j);
    if (h == -INFINITY || !groups.open(j)) continue;
    if (!eligible(problem.eligibility, panel.capabilities, row, j)) continue;
    widen_weights(panel, j, w);
    const Score score = score_from(panel, linear_predictor(panel, x, w, j, h), j);
    ++stats->verified;
    const Ranked entry{score.expected_value, score.propensity, j};
    if (score.expected_value >= problem.ev_min && before(last, entry)) list.offer(entry);
  }
}

// Completes one row whose best pairs have been collected in `list`: when a walk falls short, another
// round collects from beyond the last pair walked. Limits only ever close, so nothing is missed.
inline void finish_row(const Problem& problem, std::int64_t row, const double* x, double* w,
                       GroupCounts& groups, TopK& list, const MatchOutput& out, Stats* stats) {
  list.sort();
  std::int64_t count = walk(list, groups, out, row, 0);
  while (is_short(list, groups, problem.panel.capabilities, out, count)) {
    const Ranked last = list[list.size() - 1];
    list.clear();
    rescreen_row(problem, row, x, w, last, groups, list, stats);
    ++stats->rescreens;
    list.sort();
    count = walk(list, groups, out, row, count);
  }
  groups.add_all(out, row, count, -1);
  complete(out, row, count);
}

// How many pairs to keep per customer before the limits are looked at (K′ of docs/score.md).
inline std::int64_t list_capacity(const Problem& problem, const Limits& limits, std::int64_t k) {
  return smaller(is_limited(limits) ? larger(4 * k, 32) : k, problem.panel.capabilities);
}

inline Status exhaustive_match(const Problem& problem, const Limits& limits,
                               const MatchOutput& out, Stats* stats) {
  const FloatingPointState state;
  const Status status = validate(problem);
  if (status.code != Code::ok) return status;
  const PanelView& panel = problem.panel;
  const std::int64_t rows = exhaustive_block(problem).rows;
  const std::int64_t capacity = list_capacity(problem, limits, out.k);
  Buffer<Ranked> entries(rows * capacity);
  Buffer<TopK> lists(rows);
  Buffer<double> scratch(panel.padded_columns);
  GroupCounts groups(panel, limits);
  if (!entries.ok() || !lists.ok() || !scratch.ok() || !groups.ok()) {
    return {Code::out_of_memory, -1, -1};
  }
  for (std::int64_t r = 0; r < rows; ++r) {
    lists[r] = TopK(entries.get() + r * capacity, capacity);
  }
  return for_each_pair(
      problem, Selection{nullptr, panel.capabilities},
      [&](const Pair& pair) {
        offer_pair(problem, pair, pair.capability, problem.ev_min, lists[pair.block_row], stats);
      },
      [&](std::int64_t first, std::int64_t row_count, const double* x) {
        for (std::int64_t r = 0; r < row_count; ++r) {
          finish_row(problem, first + r, x + r * panel.padded_columns, scratch.get(), groups,
                     lists[r], out, stats);
          lists[r].clear();
        }
      });
}

inline void write_audience(TopK* lists, const AudienceOutput& out) {
  for (std::int64_t c = 0; c < out.capability_count; ++c) {
    lists[c].sort();
    out.customer_count[c] = lists[c].size();
    for (std::int64_t position = 0; position < out.k; ++position) {
      const bool held = position < lists[c].size();
      const std::int64_t cell = c * out.k + position;
      out.customer_index[cell] = held ? lists[c][position].index : -1;
      out.expected_value[cell] = held ? lists[c][position].expected_value : 0.0;
      out.propensity[cell] = held ? lists[c][position].propensity : 0.0;
    }
  }
}

inline Status exhaustive_audience(const Problem& problem, const AudienceOutput& out,
                                  Stats* stats) {
  const FloatingPointState state;
  const Status status = validate(problem);
  if (status.code != Code::ok) return status;
  const std::int64_t capacity = smaller(out.k, problem.indicators.rows);
  Buffer<Ranked> entries(out.capability_count * capacity);
  Buffer<TopK> lists(out.capability_count);
  if (!entries.ok() || !lists.ok()) return {Code::out_of_memory, -1, -1};
  for (std::int64_t c = 0; c < out.capability_count; ++c) {
    lists[c] = TopK(entries.get() + c * capacity, capacity);
  }
  const Status walked = for_each_pair(
      problem, Selection{out.capability_index, out.capability_count},
      [&](const Pair& pair) {
        offer_pair(problem, pair, pair.row, out.ev_min[pair.position], lists[pair.position], stats);
      },
      [](std::int64_t, std::int64_t, const double*) {});
  if (walked.code != Code::ok) return walked;
  write_audience(lists.get(), out);
  return {};
}

inline Status exhaustive_scores(const Problem& problem, const ScoresOutput& out) {
  const FloatingPointState state;
  const Status status = validate(problem);
  if (status.code != Code::ok) return status;
  const PanelView& panel = problem.panel;
  return for_each_pair(
      problem, Selection{nullptr, panel.capabilities},
      [&](const Pair& pair) {
        const std::int64_t cell = pair.row * panel.capabilities + pair.capability;
        if (pair.h == -INFINITY) {
          out.linear_predictor[cell] = out.expected_value[cell] = out.propensity[cell] = NAN;
          return;
        }
        const double z = linear_predictor(panel, pair.x, pair.w, pair.capability, pair.h);
        const Score score = score_from(panel, z, pair.capability);
        out.linear_predictor[cell] = z;
        out.expected_value[cell] = score.expected_value;
        out.propensity[cell] = score.propensity;
      },
      [](std::int64_t, std::int64_t, const double*) {});
}

}  // namespace
}  // namespace visavis
