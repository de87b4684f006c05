// Screen, then verify: the best capabilities of every row (docs/kernel.md).
//
//   places that the bound cannot exclude (screen_rows.h) ──────────┐ one pool per row
//   history pairs: the same sums, their own h (screen_history.h) ──┤
//                                                                  ▼
//                                  thresholds rise ◄─condense─ pools ─settle─► float64 scores ─► TopK
//
// The output is that of exhaustive_inl.h, byte for byte.
#pragma once

#include <cmath>
#include <cstdint>

#include "eligible.h"
#include "exhaustive_inl.h"
#include "greedy.h"
#include "kernel.h"
#include "predictors.h"
#include "score.h"
#include "screen_history.h"
#include "screen_rows.h"
#include "threshold.h"
#include "top_k.h"
#include "workspace.h"

namespace visavis {
namespace {

// Rows of the first pass of a call, which have no guess, and how many must have found K′ pairs for
// their thresholds to be one.
constexpr std::int64_t first_rows = 48;
constexpr std::int64_t guess_rows_min = 16;

// Candidates that a row's pool takes beyond the K′ it must be able to keep, before it is condensed.
constexpr std::int64_t pool_slack = 192;
// Candidates of the next row whose weights are asked for while a row is scored.
constexpr std::int64_t asked_ahead = 32;
constexpr std::int64_t pools_bytes = 1024 * 1024;

// A pair of a row that the bound has not excluded: its z, `h` included, lies within `margin` of `z`.
// Side by side, for a row's next one is written long after its last.
struct Candidate {
  std::int32_t place;
  float z;
  float margin;
  float h;
};

// How far the search for one row's opportunities is.
struct Search {
  double threshold;    // in expected value: K′ pairs are known, or guessed, to reach it
  double guess;        // the guessed one; −∞ where there is none
  double reach;        // how far the row's largest z lie above the mean bias, but for a factor
  float least;         // the threshold in z, for uniform catalogs
  std::int64_t count;  // of candidates
  bool asked;          // the pass at hand is about it
  bool finished;       // its opportunities are complete
  std::int64_t taken;  // of them written
};

template <class Traits>
class MatchScreener {
 public:
  MatchScreener(const Problem& problem, const Limits& limits, const MatchOutput& out, Stats* stats)
      : problem_(problem),
        panel_(problem.panel),
        screen_(*problem.panel.screen),
        out_(out),
        stats_(stats),
        kept_(list_capacity(problem, limits, out.k)),
        pool_size_(3 * kept_ + pool_slack + places),
        guess_(problem.guess),
        mean_bias_(mean_bias()),
        rows_(problem, rows_for(pool_size_), is_limited(limits)),
        history_(problem.history, panel_),
        search_(rows_.capacity()),
        threshold_(rows_.capacity()),
        least_(rows_.capacity()),
        adjusted_(rows_.capacity()),
        wide_(panel_.padded_columns),
        candidates_(rows_.capacity() * pool_size_),
        keys_(whole_vectors(pool_size_)),
        guess_keys_(whole_vectors(rows_.capacity())),
        predictor_(pool_size_),
        value_(pool_size_),
        cost_(pool_size_),
        worth_(pool_size_),
        propensity_(pool_size_),
        index_(pool_size_),
        order_(pool_size_),
        entries_(rows_.capacity() * kept_),
        lists_(rows_.capacity()),
        groups_(panel_, limits) {}

  Status run() {
    if (!ok()) return {Code::out_of_memory, -1, -1};
    const std::int64_t rows = problem_.indicators.rows;
    for (std::int64_t first = 0; first < rows; first += rows_.count()) {
      // The first rows teach the others what threshold to guess, so they are few.
      const bool is_blind = first == 0 && !(guess_ > -INFINITY);
      const std::int64_t most =
          is_blind ? smaller(rows_.capacity(), first_rows) : rows_.capacity();
      rows_.take(first, history_.rows_from(first, smaller(most, rows - first)));
      begin_rows();
      watch_.lap(&stats_->quantise_ns);
      screen_all();
      if (doubt_guesses()) screen_all();
      learn_guess();
      while (walk_lists()) screen_all();
      watch_.lap(&stats_->walk_ns);
    }
    stats_->guess = learned_;
    return {};
  }

 private:
  // Pools, too, stay in the second-level cache, as far as whole tiles of rows allow it.
  static std::int64_t rows_for(std::int64_t pool_size) {
    const std::int64_t bytes = pool_size * static_cast<std::int64_t>(sizeof(Candidate));
    return larger(Traits::rows, pools_bytes / bytes);
  }

  bool ok() {
    return rows_.ok() && history_.ok() && search_.ok() && threshold_.ok() && least_.ok() &&
           adjusted_.ok() && wide_.ok() && candidates_.ok() && keys_.ok() && guess_keys_.ok() &&
           predictor_.ok() && value_.ok() && cost_.ok() && worth_.ok() && propensity_.ok() &&
           index_.ok() && order_.ok() && entries_.ok() && lists_.ok() && groups_.ok();
  }

  Candidate* pool(std::int64_t r) { return candidates_.get() + r * pool_size_; }

  // ---- passes ------------------------------------------------------------------------------

  void begin_rows() {
    is_first_pass_ = true;
    for (std::int64_t r = 0; r < rows_.count(); ++r) {
      Search& search = search_[r];
      search.count = 0;
      if (rows_.has_closed()) rows_.reset_closed(r);
      const std::int64_t closed = rows_.count_closed(r, screen_.valid);
      stats_->skipped_by_rule += closed;
      search.reach = reach_of(r, rows_.count_admitted(r) - closed);
      search.guess = guess_for(r);
      set_threshold(search, search.guess > -INFINITY ? search.guess : problem_.ev_min);
      search.asked = true;
      search.finished = false;
      search.taken = 0;
      lists_[r] = TopK(entries_.get() + r * kept_, kept_);
    }
  }

  void screen_all() {
    // What lies before a second pass, doubts and walks, belongs to the walk.
    if (!is_first_pass_) watch_.lap(&stats_->walk_ns);
    take_history();
    watch_.lap(&stats_->history_ns);
    for (std::int64_t block = 0; block < screen_.blocks;) block = screen_run(block);
    watch_.lap(&stats_->screen_ns);
    std::int64_t previous = -1;
    for (std::int64_t r = 0; r < rows_.count(); ++r) {
      if (!search_[r].asked) continue;
      if (search_[r].count > kept_) condense(r);
      // What a row needs next comes from afar: it is on its way while another row is scored.
      ask_for_weights(r);
      if (previous >= 0) settle(previous);
      previous = r;
    }
    if (previous >= 0) settle(previous);
    watch_.lap(&stats_->verify_ns);
    is_first_pass_ = false;
  }

  // A guess is right when the K′-th best pair found reaches it: whatever was dropped lies below.
  // Rows whose guess was too high are screened once more, from what is proven by then.
  bool doubt_guesses() {
    bool any = false;
    for (std::int64_t r = 0; r < rows_.count(); ++r) {
      Search& search = search_[r];
      const bool full = lists_[r].full();
      search.asked =
          search.guess > -INFINITY && !(full && lists_[r].last().expected_value >= search.guess);
      if (!search.asked) continue;
      any = true;
      set_threshold(search, problem_.ev_min);
      if (full) raise(search, lists_[r].last().expected_value);
      lists_[r].clear();
      if (rows_.has_closed()) rows_.reset_closed(r);
    }
    return any;
  }

  // What 99 of 100 rows reached: their threshold by what the row may reach where catalogs are uniform,
  // else as it is. Rows are alike as far as customers are; where they are not, guesses are low.
  void learn_guess() {
    std::int64_t full = 0;
    for (std::int64_t r = 0; r < rows_.count(); ++r) {
      if (!lists_[r].full() || !(search_[r].reach > 0.0)) continue;
      const double reached = lists_[r].last().expected_value;
      guess_keys_[full++] = ordered(
          screen_.is_uniform != 0
              ? static_cast<float>((block_least(0, reached) - mean_bias_) / search_[r].reach)
              : static_cast<float>(reached));
    }
    guess_ = -INFINITY;
    if (full < guess_rows_min || full < rows_.count() - rows_.count() / 10) return;
    guess_ = reached_by(guess_keys_.get(), full, full - full / 100);
    if (guess_ > -INFINITY) learned_ = guess_;
  }

  // Of so many normal numbers with the row's size for their deviation, what K′ of them reach, roughly
  // (Abramowitz and Stegun, 26.2.22); 0 where that is no more than a few times K′.
  double reach_of(std::int64_t r, std::int64_t open) {
    const double share = static_cast<double>(kept_) / static_cast<double>(larger(open, 1));
    if (!(share < 0.25)) return 0.0;
    const double t = std::sqrt(-2.0 * log_near(share));
    const double deviations = t - (2.30753 + 0.27061 * t) / (1.0 + t * (0.99229 + 0.04481 * t));
    return deviations * static_cast<double>(rows_[r].norm);
  }

  // Of some capabilities all over the catalog.
  double mean_bias() const {
    constexpr std::int64_t some = 64;
    const std::int64_t count = smaller(some, panel_.capabilities);
    double sum = 0.0;
    for (std::int64_t n = 0; n < count; ++n) {
      sum += static_cast<double>(panel_.bias[n * panel_.capabilities / count]);
    }
    return sum / static_cast<double>(count);
  }

  double guess_for(std::int64_t r) {
    if (!(guess_ > -INFINITY) || !(search_[r].reach > 0.0)) return -INFINITY;
    const double guess =
        screen_.is_uniform != 0
            ? worth_below(mean_bias_ + guess_ * search_[r].reach, screen_.capability[0])
            : guess_;
    return guess > problem_.ev_min && guess < INFINITY ? guess : -INFINITY;
  }

  // Walks the new lists. Rows that limits have left short are asked again, over what is still open
  // to them: limits only ever close, so nothing is missed.
  bool walk_lists() {
    bool any = false;
    for (std::int64_t r = 0; r < rows_.count(); ++r) {
      Search& search = search_[r];
      if (search.finished) continue;
      TopK& list = lists_[r];
      const std::int64_t row = rows_.first() + r;
      groups_.add_all(out_, row, search.taken, 1);
      list.sort();
      search.taken = walk(list, groups_, out_, row, search.taken);
      search.asked = is_short(list, groups_, panel_.capabilities, out_, search.taken);
      search.finished = !search.asked;
      if (search.asked) narrow(r);
      groups_.add_all(out_, row, search.taken, -1);
      if (search.finished) complete(out_, row, search.taken);
      any = any || search.asked;
    }
    return any;
  }

  // Closes to a row what limits have closed and what it has been offered already; what it was not
  // offered though it stood in a list, limits have closed.
  void narrow(std::int64_t r) {
    ++stats_->rescreens;
    rows_.use_closed();
    rows_.reset_closed(r);
    for (std::int32_t j = 0; j < panel_.capabilities; ++j) {
      if (!groups_.open(j)) rows_.close(r, screen_.position[j]);
    }
    for (std::int64_t rank = 0; rank < search_[r].taken; ++rank) {
      const std::int64_t cell = (rows_.first() + r) * out_.k + rank;
      rows_.close(r, screen_.position[out_.capability_index[cell]]);
    }
    lists_[r].clear();
    set_threshold(search_[r], problem_.ev_min);
  }

  // ---- history -----------------------------------------------------------------------------

  // Closes pairs with an adjustment to the dense screen: their block adds their own h.
  void take_history() {
    const HistoryView& history = problem_.history;
    history_.clear();
    if (history.indptr == nullptr) return;
    for (std::int64_t r = 0; r < rows_.count(); ++r) {
      if (!search_[r].asked) continue;
      const std::int64_t end = history.indptr[rows_.first() + r + 1];
      for (std::int64_t entry = history.indptr[rows_.first() + r]; entry < end; ++entry) {
        take_entry(r, history.capability_index[entry], history.adjustment[entry]);
      }
    }
    history_.sort();
  }

  void take_entry(std::int64_t r, std::int32_t j, float h) {
    const std::int32_t place = screen_.position[j];
    if (!rows_.is_open(r, place)) return;
    rows_.close(r, place);
    // What a plane excludes is counted with its block.
    if (!rows_.allowed(r, j)) return;
    if (is_first_pass_) ++(h == -INFINITY ? stats_->skipped_by_rule : stats_->screened);
    if (h > -INFINITY) history_.add({static_cast<std::int32_t>(r), place, h});
  }

  // ---- blocks ------------------------------------------------------------------------------

  // Screens the run of blocks from `begin` that one plane decides; returns where it ends.
  std::int64_t screen_run(std::int64_t begin) {
    const Run run = rows_.gather(begin, [&](std::int64_t r) { return search_[r].asked; });
    for (std::int64_t a = 0; a < run.count; ++a) {
      threshold_[a] = search_[rows_.active(a)].threshold;
      least_[a] = search_[rows_.active(a)].least;
    }
    for (std::int64_t block = run.begin; block < run.end; ++block) {
      const std::int64_t members = __builtin_popcountll(screen_.valid[block]);
      if (is_first_pass_) stats_->skipped_by_rule += (rows_.count() - run.count) * members;
      if (run.count > 0) screen_block(run, block);
    }
    return run.end;
  }

  void screen_block(const Run& run, std::int64_t block) {
    find_least(run, block);
    const float* const least = least_.get();
    const bool any =
        rows_.prepare(run, block, true, [least](std::int64_t a) { return least[a]; });
    if (is_first_pass_) {
      // Pairs of a block that neither a rule nor the history path has taken.
      (any ? stats_->screened : stats_->skipped_by_bound) +=
          rows_.count_open(run, block, screen_.valid[block]);
    }
    const bool has_adjusted = find_adjusted(run, block);
    if (!any && !has_adjusted) return;
    const std::int64_t end = history_.end(block);
    const auto is_adjusted = [&](std::int64_t a) {
      if (!has_adjusted || adjusted_[a] == end) return false;
      return history_[adjusted_[a]].row == rows_.active(a);
    };
    rows_.scan(run, block, screen_.bias + block * places, is_adjusted,
               [&](std::int64_t a, std::uint64_t kept, const std::int32_t* sums) {
                 keep(block, a, kept, has_adjusted ? adjusted_[a] : end, sums);
               });
  }

  // Where the pairs with an adjustment of each row of the run begin; false where there are none.
  bool find_adjusted(const Run& run, std::int64_t block) {
    std::int64_t next = history_.begin(block);
    const std::int64_t end = history_.end(block);
    if (next == end) return false;
    for (std::int64_t a = 0; a < run.count; ++a) {
      while (next < end && history_[next].row < rows_.active(a)) ++next;
      adjusted_[a] = next;
    }
    return true;
  }

  void find_least(const Run& run, std::int64_t block) {
    if (screen_.is_uniform != 0) return;
    const Worth worth{screen_.value_max[block], screen_.value_min[block], screen_.cost_min[block]};
    switch (static_cast<Link>(screen_.link[block])) {
      case Link::logistic: return find_least_of<Link::logistic>(worth, run.count);
      case Link::count: return find_least_of<Link::count>(worth, run.count);
      default: return find_least_of<Link::identity>(worth, run.count);
    }
  }

  template <Link link>
  void find_least_of(const Worth& worth, std::int64_t count) {
    const double* const threshold = threshold_.get();
    float* __restrict const least = least_.get();
    for (std::int64_t a = 0; a < count; ++a) least[a] = least_predictor<link>(threshold[a], worth);
  }

  float block_least(std::int64_t block, double threshold) const {
    return least_predictor_of(
        static_cast<Link>(screen_.link[block]), threshold,
        {screen_.value_max[block], screen_.value_min[block], screen_.cost_min[block]});
  }

  // Takes the places kept of a block into the pool of the run's a-th row, and those of its pairs with
  // an adjustment, from `next` on, that the bound cannot exclude.
  void keep(std::int64_t block, std::int64_t a, std::uint64_t kept, std::int64_t next,
            const std::int32_t* sums) {
    const std::int64_t r = rows_.active(a);
    const QuantisedRow& row = rows_[r];
    const float* bias = screen_.bias + block * places;
    const float* scale = screen_.weight_scale + block * places;
    const float margin = margin_of(row.norm, row.error, screen_.weight_norm[block],
                                   screen_.weight_error[block], screen_.bias_size[block]);
    // In float64, so that it overflows float32 only where the margin does.
    const double step = static_cast<double>(row.step);
    const auto near_z = [&](std::int32_t l, float h) {
      const double sum = static_cast<double>(less_offset(sums[l], row.offset));
      const double z = sum * static_cast<double>(scale[l]) * step + static_cast<double>(bias[l]);
      return static_cast<float>(z + static_cast<double>(h));
    };
    for (; kept != 0; kept &= kept - 1) {
      const int l = __builtin_ctzll(kept);
      append(r, static_cast<std::int32_t>(block * places + l), {near_z(l, 0.0f), margin}, 0.0f);
    }
    // At +∞ nothing reaches the threshold, whatever its z.
    const float least = least_[a] - std::fabs(least_[a]) * float_slack;
    const std::int64_t end = least_[a] < INFINITY ? history_.end(block) : next;
    for (; next < end && history_[next].row == r; ++next) {
      const Adjusted& pair = history_[next];
      const float z = near_z(pair.place % places, pair.h);
      const float wider = margin + std::fabs(pair.h) * float_slack;
      if (!(z + wider < least)) append(r, pair.place, {z, wider}, pair.h);
    }
    if (search_[r].count > pool_size_ - places) {
      condense(r);
      threshold_[a] = search_[r].threshold;
      least_[a] = search_[r].least;
    }
  }

  void append(std::int64_t r, std::int32_t place, const NearPredictor& near, float h) {
    pool(r)[search_[r].count++] = {place, near.z, near.margin, h};
  }

  // ---- pools -------------------------------------------------------------------------------

  // Raises the row's threshold from the lower bounds of its candidates and drops those that can no
  // longer be taken. Where the bounds are too wide for that, the candidates are scored.
  void condense(std::int64_t r) {
    Search& search = search_[r];
    raise_threshold(r);
    drop_candidates(r);
    if (search.count > pool_size_ - places - pool_slack / 2) settle(r);
  }

  void raise_threshold(std::int64_t r) {
    Search& search = search_[r];
    if (search.count < kept_) return;
    Candidate* const candidates = pool(r);
    double reached;
    if (screen_.is_uniform != 0) {
      for (std::int64_t n = 0; n < search.count; ++n) {
        keys_[n] = ordered(candidates[n].z - candidates[n].margin);
      }
      reached = worth_below(reached_by(keys_.get(), search.count, kept_), screen_.capability[0]);
    } else {
      for (std::int64_t n = 0; n < search.count; ++n) {
        predictor_[n] = static_cast<double>(candidates[n].z - candidates[n].margin);
      }
      find_worth(r);
      for (std::int64_t n = 0; n < search.count; ++n) {
        const double below = worth_[n] - rounding_of(worth_[n], cost_[n]);
        // Without a lower bound there is none of the worth either.
        keys_[n] = ordered(predictor_[n] > -INFINITY ? rounded_down(below) : NAN);
      }
      reached = static_cast<double>(reached_by(keys_.get(), search.count, kept_));
    }
    raise(search, reached);
  }

  void raise(Search& search, double reached) const {
    if (reached > search.threshold) set_threshold(search, reached);
  }

  void set_threshold(Search& search, double threshold) const {
    search.threshold = threshold;
    search.least = screen_.is_uniform != 0 ? block_least(0, threshold) : -INFINITY;
  }

  // Expected values, propensities and costs of a row's candidates whose z stand in predictor_.
  void find_worth(std::int64_t r) {
    const std::int64_t count = search_[r].count;
    const Candidate* const candidates = pool(r);
    for (std::int64_t n = 0; n < count; ++n) {
      const std::int64_t j = screen_.capability[candidates[n].place];
      value_[n] = panel_.value[j];
      cost_[n] = panel_.cost[j];
    }
    // Neighbours in a pool mostly share a link, for they come block by block.
    for (std::int64_t begin = 0; begin < count;) {
      const std::uint8_t link = screen_.link[candidates[begin].place / places];
      std::int64_t end = begin + 1;
      while (end < count && screen_.link[candidates[end].place / places] == link) ++end;
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

  // Drops candidates that even the upper ends of their bounds leave below the threshold.
  void drop_candidates(std::int64_t r) {
    Search& search = search_[r];
    Candidate* const candidates = pool(r);
    if (screen_.is_uniform != 0) {
      const float least = search.least - std::fabs(search.least) * float_slack;
      return keep_candidates(r, [&](std::int64_t n) {
        return !(candidates[n].z + candidates[n].margin < least);
      });
    }
    for (std::int64_t n = 0; n < search.count; ++n) {
      predictor_[n] =
          static_cast<double>(candidates[n].z) + static_cast<double>(candidates[n].margin);
    }
    find_worth(r);
    keep_candidates(r, [&](std::int64_t n) {
      // Without an upper end, which may be NaN, there is none of the worth either.
      return !(predictor_[n] < INFINITY) ||
             !(worth_[n] + rounding_of(worth_[n], cost_[n]) < search.threshold);
    });
  }

  template <class Taken>
  void keep_candidates(std::int64_t r, Taken taken) {
    Candidate* const candidates = pool(r);
    std::int64_t kept = 0;
    for (std::int64_t n = 0; n < search_[r].count; ++n) {
      const bool is_taken = taken(n);
      candidates[kept] = candidates[n];
      kept += is_taken ? 1 : 0;
    }
    search_[r].count = kept;
  }

  void ask_for_weights(std::int64_t r) {
    const Candidate* const candidates = pool(r);
    for (std::int64_t n = 0; n < smaller(search_[r].count, asked_ahead); ++n) {
      prefetch(panel_.weights + screen_.capability[candidates[n].place] * panel_.padded_columns,
               panel_.padded_columns);
    }
  }

  // Scores every candidate of a row in float64 and offers it to the row's list.
  void settle(std::int64_t r) {
    Search& search = search_[r];
    stats_->verified += search.count;
    find_predictors(r);
    if (screen_.is_uniform != 0) drop_below(r);
    find_worth(r);
    list_worth(r);
    search.count = 0;
    if (lists_[r].full()) raise(search, lists_[r].last().expected_value);
  }

  // Offers the candidates whose expected values stand in worth_.
  void list_worth(std::int64_t r) {
    const std::int64_t count = search_[r].count;
    double least = problem_.ev_min;
    if (count > kept_) {
      for (std::int64_t n = 0; n < count; ++n) keys_[n] = ordered(rounded_down(worth_[n]));
      const double reached = static_cast<double>(reached_by(keys_.get(), count, kept_));
      least = reached > least ? reached : least;
    }
    const Candidate* const candidates = pool(r);
    std::int64_t taken = 0;
    for (std::int64_t n = 0; n < count; ++n) {
      // NaN reaches nothing.
      const bool reaches = worth_[n] >= least;
      index_[taken] = static_cast<double>(screen_.capability[candidates[n].place]);
      worth_[taken] = worth_[n];
      propensity_[taken] = propensity_[n];
      taken += reaches ? 1 : 0;
    }
    TopK& list = lists_[r];
    if (list.size() == 0) {
      const std::int32_t* order =
          put_in_order(taken, worth_.get(), index_.get(), order_.get(), keys_.get());
      list.assign(taken, worth_.get(), propensity_.get(), index_.get(), order);
      return;
    }
    for (std::int64_t n = 0; n < taken; ++n) {
      list.offer({worth_[n], propensity_[n], static_cast<std::int64_t>(index_[n])});
    }
  }

  // z of every candidate, into predictor_.
  void find_predictors(std::int64_t r) {
    Candidate* const candidates = pool(r);
    const std::int64_t row = rows_.first() + r;
    widen_row(problem_.indicators, row, panel_.padded_columns, wide_.get());
    exact_predictors<Traits>(
        panel_, wide_.get(), search_[r].count,
        [&](std::int64_t n) { return screen_.capability[candidates[n].place]; },
        [&](std::int64_t n, std::int64_t) { return candidates[n].h; },
        predictor_.get());
  }

  // With one link, value and cost, exact z alone tell most candidates from the first K′. Of those that
  // are left, place and predictor_ move together; the bounds are not needed any more.
  void drop_below(std::int64_t r) {
    Search& search = search_[r];
    if (search.count < kept_) return;
    for (std::int64_t n = 0; n < search.count; ++n) {
      keys_[n] = ordered(rounded_down(predictor_[n]));
    }
    raise(search, worth_below(reached_by(keys_.get(), search.count, kept_), screen_.capability[0]));
    Candidate* const candidates = pool(r);
    std::int64_t kept = 0;
    for (std::int64_t n = 0; n < search.count; ++n) {
      const bool taken = !(predictor_[n] < static_cast<double>(search.least));
      candidates[kept].place = candidates[n].place;
      predictor_[kept] = predictor_[n];
      kept += taken ? 1 : 0;
    }
    search.count = kept;
  }

  const Problem& problem_;
  const PanelView& panel_;
  const ScreenView& screen_;
  const MatchOutput& out_;
  Stats* const stats_;
  const std::int64_t kept_;  // K′
  const std::int64_t pool_size_;
  Stopwatch watch_;
  bool is_first_pass_ = true;
  double guess_;
  double learned_ = NAN;
  const double mean_bias_;
  ScreenedRows<Traits> rows_;
  HistoryByBlock history_;
  Buffer<Search> search_;
  // By place among the active rows of a run.
  Buffer<double> threshold_;
  Buffer<float> least_;
  Buffer<std::int64_t> adjusted_;  // where in history_ a row's pairs of the block at hand begin
  Buffer<double> wide_;
  Buffer<Candidate> candidates_;
  Buffer<std::int32_t> keys_;
  Buffer<std::int32_t> guess_keys_;
  // By candidate of the row that is condensed or settled.
  Buffer<double> predictor_;
  Buffer<double> value_;
  Buffer<double> cost_;
  Buffer<double> worth_;
  Buffer<double> propensity_;
  Buffer<double> index_;
  Buffer<std::int32_t> order_;
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
  MatchScreener<Traits> screener(problem, limits, out, stats);
  return screener.run();
}

}  // namespace
}  // namespace visavis
