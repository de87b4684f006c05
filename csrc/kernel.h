// The only C++ face of the compiled core: plain views in, plain buffers out, a Status back.
//
// Everything here is an aggregate of pointers and numbers that the caller owns, so that no C++
// type with a layout of its own crosses a file boundary. One call runs on one thread, allocates
// O(block) memory and throws nothing. What a score is, is said in docs/score.md.
#pragma once

#include <cstdint>

#ifdef __FAST_MATH__
#error "docs/score.md fixes the order of every operation: fast-math would break it"
#endif

namespace visavis {

enum class Link : std::uint8_t { logistic = 0, count = 1, identity = 2 };

enum class Code : std::int32_t {
  ok = 0,
  out_of_memory = 1,
  indicator_not_finite = 2,             // row, column
  history_pointer_invalid = 3,          // row
  history_index_out_of_range = 4,       // row, column = offset of the entry
  history_not_sorted = 5,               // row, column = offset of the entry
  history_not_allowed = 6,              // row, column = offset of the entry: NaN or +inf
  candidates_pointer_invalid = 7,       // row
  candidates_index_out_of_range = 8,    // row, column = offset of the entry
  candidates_not_sorted = 9,            // row, column = offset of the entry
  candidates_beyond_not_a_number = 10,  // row
  pair_customer_out_of_range = 11,      // row = pair
  pair_capability_out_of_range = 12,    // row = pair
  names_not_an_order = 13,              // row = rank
  against_not_finite = 14,              // row = column
};

struct Status {
  Code code = Code::ok;
  std::int64_t row = -1;
  std::int64_t column = -1;
};

// Customers' indicators: `rows` × `columns` float32, row after row without gaps.
struct IndicatorsView {
  const float* values;
  std::int64_t rows;
  std::int64_t columns;
};

// The catalog once more, quantised and ordered in blocks for screening: visavis.kernel.screen.
// A screen decides which pairs are scored, never what a score is: every bound it needs is proven in
// docs/kernel.md from the norms here, which are rounded up.
struct ScreenView {
  std::int64_t blocks;          // of `block_capabilities` places each
  std::int64_t padded_columns;  // a multiple of 64
  const std::uint8_t* weights;  // blocks × padded_columns / 4 × places × 4, 128 stands for 0
  const float* bias;            // blocks × places
  const std::uint64_t* valid;   // blocks: which places hold a capability
  const std::int32_t* capability;  // blocks × places, −1 where there is none
  const std::int32_t* position;    // per capability: its place
  const float* column_scale;       // per column: powers of two that multiply x and divide w
  const float* weight_scale;       // blocks × places: what one step of a weight is worth
  const float* weight_norm;        // per block: largest ‖w‖ + ‖e_w‖
  const float* weight_error;       // per block: largest ‖e_w‖
  const float* norm;               // per capability: ‖w‖
  const float* bias_size;          // per block: largest |b|
  const float* bias_max;           // per block
  const double* value_max;         // per block; 0 is +0.0, for thresholds divide by it
  const double* value_min;
  const double* cost_min;
  const std::uint8_t* link;  // per block
  std::int32_t is_uniform;   // all capabilities share link, value and cost
};

// The packed catalog. Weights are padded with zeros to a multiple of `lane_count` columns; the
// group codes are dense (0 … group_count − 1), so that limits count in plain arrays.
struct PanelView {
  std::int64_t capabilities;
  std::int64_t columns;
  std::int64_t padded_columns;
  const float* weights;  // capabilities × padded_columns
  const float* bias;
  const double* value;
  const double* cost;
  const std::uint8_t* link;
  const std::int32_t* product;
  const std::int32_t* channel;
  const std::int32_t* family;
  std::int64_t product_count;
  std::int64_t channel_count;
  std::int64_t family_count;
  const ScreenView* screen;  // null for variants that need none
};

// Which pairs may meet. At most one form is set; none set means that all may.
struct EligibilityView {
  const std::uint8_t* dense;        // rows × capabilities, non-zero = eligible
  const std::uint64_t* planes;      // rows × plane_words, bit q of row i = plane q holds for i
  std::int64_t plane_words;
  const std::int32_t* plane_index;  // per capability, −1 = always
  // Per block of the screen what `block_plane_of` says, for whoever asks again and again with the same
  // planes; null = each call looks for itself.
  const std::int32_t* block_plane;
};

// Adjustments h per (customer, capability), CSR; h = −inf makes the pair ineligible.
struct HistoryView {
  const std::int64_t* indptr;  // rows + 1, or null when there is no history
  const std::int32_t* capability_index;
  const float* adjustment;
  std::int64_t entries;
};

// At most so many opportunities per group and customer; 0 = no limit.
struct Limits {
  std::int32_t product;
  std::int32_t channel;
  std::int32_t family;
};

// Rows and capabilities handled together; 0 lets the variant choose. No result depends on it.
struct Block {
  std::int64_t rows;
  std::int64_t capabilities;
};

struct Problem {
  IndicatorsView indicators;
  PanelView panel;
  EligibilityView eligibility;
  HistoryView history;
  double ev_min;  // −inf = no minimum
  Block block;
  // What a match of rows like these has learned (Stats), so that the first rows need not find out;
  // NaN = nothing. No result depends on it.
  double guess;
};

// skipped_by_rule + skipped_by_bound + screened = rows × capabilities.
struct Stats {
  std::int64_t skipped_by_rule;
  std::int64_t skipped_by_bound;
  std::int64_t screened;
  std::int64_t verified;   // pairs scored in float64
  std::int64_t rescreens;  // customers × extra rounds that the limits made necessary
  // Where a screened match spent its time, in nanoseconds: reading and quantising rows, history
  // pairs, products and bounds, exact scores and lists, walks under limits.
  std::int64_t quantise_ns;
  std::int64_t history_ns;
  std::int64_t screen_ns;
  std::int64_t verify_ns;
  std::int64_t walk_ns;
  double guess;  // for the next match of rows like these
};

struct MatchOutput {
  std::int64_t k;
  std::int32_t* capability_index;  // rows × k, −1 beyond the count
  double* expected_value;          // rows × k, 0 beyond the count
  double* propensity;              // rows × k, 0 beyond the count
  std::int32_t* opportunity_count; // rows
};

// Pairs that another screen could not exclude, CSR. Every other capability of a row is ineligible or
// has an expected value strictly below `beyond`: whoever screened has proven it.
struct CandidatesView {
  const std::int64_t* indptr;  // rows + 1
  const std::int32_t* capability_index;
  std::int64_t entries;
  const double* beyond;  // rows; −inf = every eligible capability is a candidate
};

// What is written of a row that is not certain is the beginning of its match.
struct VerifyOutput {
  MatchOutput match;
  std::uint8_t* is_certain;  // rows
};

struct AudienceOutput {
  std::int64_t k;
  const std::int32_t* capability_index;  // which capabilities, `capability_count` of them
  std::int64_t capability_count;
  const double* ev_min;          // of each of them, −inf = no minimum; Problem's is not looked at
  std::int64_t* customer_index;  // capability_count × k, −1 beyond the count
  double* expected_value;        // capability_count × k
  double* propensity;            // capability_count × k
  std::int64_t* customer_count;  // capability_count
};

// All pairs, row after row; NaN where h = −inf, for no score exists there.
struct ScoresOutput {
  double* linear_predictor;  // z
  double* expected_value;
  double* propensity;
};

// Some pairs, and how many of their terms are wanted: x_d·w_d of every column d, and h.
struct TermsProblem {
  IndicatorsView indicators;
  PanelView panel;
  HistoryView history;  // of the rows of `indicators`
  const std::int64_t* customer_index;    // pairs: rows of `indicators`
  const std::int32_t* capability_index;  // pairs
  std::int64_t pairs;
  const std::int64_t* by_name;  // columns + 1: all columns in order of name; h is one behind the last
  const double* against;        // columns: taken from the weights first; null = nothing is
  std::int64_t count;           // at most so many per pair
};

// CSR: the positive terms of each pair, largest first, equal ones in order of name.
struct TermsOutput {
  std::int64_t* offsets;     // pairs + 1
  std::int64_t* name_index;  // room for pairs × count, as is the next
  double* contribution;
};

// One compiled form of the kernel. A variant file exports exactly one of these.
struct Variant {
  const char* name;
  const char* (*lacks)();  // what this processor or system lacks for it; null = supported
  bool screened;           // needs the panel's screen
  Status (*match)(const Problem&, const Limits&, const MatchOutput&, Stats*);
  // Stats over the candidates.
  Status (*verify)(const Problem&, const Limits&, const CandidatesView&, const VerifyOutput&,
                   Stats*);
  Status (*audience)(const Problem&, const AudienceOutput&, Stats*);
  Status (*scores)(const Problem&, const ScoresOutput&);
};

extern const Variant variant_portable;
#if defined(__x86_64__)
extern const Variant variant_avx2;
extern const Variant variant_avx512;
extern const Variant variant_amx;
extern const Variant variant_amx_emulated;  // its tile unit in plain C++: for tests, and slow
#endif

// dispatch.cpp: every variant in this build, best last.
std::int64_t variant_count();
const Variant* variant_at(std::int64_t index);

// dispatch.cpp: for each block of the panel's screen, the plane that all its capabilities share.
void find_block_planes(const Problem& problem, std::int32_t* block_plane);

// dispatch.cpp: the first row of a problem that every call would refuse, if there is one.
Status validate_problem(const Problem& problem);

// terms.cpp: the reasons of pairs.
Status largest_terms(const TermsProblem& problem, const TermsOutput& out);

// elementary.cpp: the law's own exp (y ≤ 0) and log1p (x ≥ 0) over arrays.
void exp_nonpositive(const double* y, double* result, std::int64_t size);
void log1p_nonnegative(const double* x, double* result, std::int64_t size);

constexpr std::int64_t lane_count = 8;           // partial sums of a dot product
constexpr std::int64_t block_capabilities = 64;  // places of a screen's block

}  // namespace visavis
