# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Binding of csrc/kernel.h. Takes arrays that visavis.kernel has checked; releases the GIL."""

from libc.math cimport NAN
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.string cimport memset
from cython cimport view


cdef extern from "kernel.h" namespace "visavis" nogil:
    cdef enum class Code(int32_t):
        ok
        out_of_memory
        indicator_not_finite
        history_pointer_invalid
        history_index_out_of_range
        history_not_sorted
        history_not_allowed
        candidates_pointer_invalid
        candidates_index_out_of_range
        candidates_not_sorted
        candidates_beyond_not_a_number
        pair_customer_out_of_range
        pair_capability_out_of_range
        names_not_an_order
        against_not_finite

    cdef struct Status:
        Code code
        int64_t row
        int64_t column

    cdef struct IndicatorsView:
        const float* values
        int64_t rows
        int64_t columns

    cdef struct ScreenView:
        int64_t blocks
        int64_t padded_columns
        const uint8_t* weights
        const float* bias
        const uint64_t* valid
        const int32_t* capability
        const int32_t* position
        const float* column_scale
        const float* weight_scale
        const float* weight_norm
        const float* weight_error
        const float* norm
        const float* bias_size
        const float* bias_max
        const double* value_max
        const double* value_min
        const double* cost_min
        const uint8_t* link
        int32_t is_uniform

    cdef struct PanelView:
        int64_t capabilities
        int64_t columns
        int64_t padded_columns
        const float* weights
        const float* bias
        const double* value
        const double* cost
        const uint8_t* link
        const int32_t* product
        const int32_t* channel
        const int32_t* family
        int64_t product_count
        int64_t channel_count
        int64_t family_count
        const ScreenView* screen

    cdef struct EligibilityView:
        const uint8_t* dense
        const uint64_t* planes
        int64_t plane_words
        const int32_t* plane_index
        const int32_t* block_plane

    cdef struct HistoryView:
        const int64_t* indptr
        const int32_t* capability_index
        const float* adjustment
        int64_t entries

    cdef struct Limits:
        int32_t product
        int32_t channel
        int32_t family

    cdef struct Block:
        int64_t rows
        int64_t capabilities

    cdef struct Problem:
        IndicatorsView indicators
        PanelView panel
        EligibilityView eligibility
        HistoryView history
        double ev_min
        Block block
        double guess

    cdef struct Stats:
        int64_t skipped_by_rule
        int64_t skipped_by_bound
        int64_t screened
        int64_t verified
        int64_t rescreens
        int64_t quantise_ns
        int64_t history_ns
        int64_t screen_ns
        int64_t verify_ns
        int64_t walk_ns
        double guess

    cdef struct MatchOutput:
        int64_t k
        int32_t* capability_index
        double* expected_value
        double* propensity
        int32_t* opportunity_count

    cdef struct CandidatesView:
        const int64_t* indptr
        const int32_t* capability_index
        int64_t entries
        const double* beyond

    cdef struct VerifyOutput:
        MatchOutput match
        uint8_t* is_certain

    cdef struct AudienceOutput:
        int64_t k
        const int32_t* capability_index
        int64_t capability_count
        const double* ev_min
        int64_t* customer_index
        double* expected_value
        double* propensity
        int64_t* customer_count

    cdef struct ScoresOutput:
        double* linear_predictor
        double* expected_value
        double* propensity

    cdef struct TermsProblem:
        IndicatorsView indicators
        PanelView panel
        HistoryView history
        const int64_t* customer_index
        const int32_t* capability_index
        int64_t pairs
        const int64_t* by_name
        const double* against
        int64_t count

    cdef struct TermsOutput:
        int64_t* offsets
        int64_t* name_index
        double* contribution

    cdef struct Variant:
        const char* name
        const char* (*lacks)() noexcept nogil
        bint screened
        Status (*match)(const Problem&, const Limits&, const MatchOutput&, Stats*) noexcept nogil
        Status (*verify)(
            const Problem&, const Limits&, const CandidatesView&, const VerifyOutput&, Stats*
        ) noexcept nogil
        Status (*audience)(const Problem&, const AudienceOutput&, Stats*) noexcept nogil
        Status (*scores)(const Problem&, const ScoresOutput&) noexcept nogil

    int64_t variant_count()
    const Variant* variant_at(int64_t index)
    Status c_validate "visavis::validate_problem"(const Problem& problem)
    void c_find_block_planes "visavis::find_block_planes"(
        const Problem& problem, int32_t* block_plane
    )
    Status c_largest_terms "visavis::largest_terms"(
        const TermsProblem& problem, const TermsOutput& out
    )
    void c_exp "visavis::exp_nonpositive"(const double* y, double* result, int64_t size)
    void c_log1p "visavis::log1p_nonnegative"(const double* x, double* result, int64_t size)


cdef const float* _float_matrix(const float[:, ::1] array) noexcept:
    return &array[0, 0] if array.shape[0] > 0 and array.shape[1] > 0 else NULL


cdef extern from "cpu.h" namespace "visavis" nogil:
    const char* c_processor_features "visavis::processor_features"()


def processor_features():
    """What this processor has of the features that variants ask for: str."""
    return c_processor_features().decode("ascii")


def variants():
    """Every variant in this build, best last: list of (name, what is lacking or None, screened)."""
    found = []
    for index in range(variant_count()):
        lacks = variant_at(index).lacks()
        found.append(
            (
                variant_at(index).name.decode("ascii"),
                None if lacks == NULL else lacks.decode("ascii"),
                bool(variant_at(index).screened),
            )
        )
    return found


def exp_nonpositive(const double[::1] y not None, double[::1] result not None):
    """e^y, element by element, into `result`."""
    cdef int64_t size = y.shape[0]
    if size:
        with nogil:
            c_exp(&y[0], &result[0], size)


def log1p_nonnegative(const double[::1] x not None, double[::1] result not None):
    """log(1+x), element by element, into `result`."""
    cdef int64_t size = x.shape[0]
    if size:
        with nogil:
            c_log1p(&x[0], &result[0], size)


cdef class PackedPanel:
    """The arrays of a panel and the view of them that the kernel reads."""

    cdef PanelView view
    cdef ScreenView screen
    cdef object _owned
    cdef object _screen

    @property
    def has_screen(self):
        return self.view.screen != NULL

    @property
    def arrays(self):
        """Weights (padded), bias, value, cost, link: what a screen is built from."""
        return self._owned[:5]

    def set_screen(
        self,
        const uint8_t[:, :, :, ::1] weights not None,
        const float[:, ::1] bias not None,
        const uint64_t[::1] valid not None,
        const int32_t[:, ::1] capability not None,
        const int32_t[::1] position not None,
        const float[::1] column_scale not None,
        const float[:, ::1] weight_scale not None,
        const float[::1] weight_norm not None,
        const float[::1] weight_error not None,
        const float[::1] norm not None,
        const float[::1] bias_size not None,
        const float[::1] bias_max not None,
        const double[::1] value_max not None,
        const double[::1] value_min not None,
        const double[::1] cost_min not None,
        const uint8_t[::1] link not None,
        bint is_uniform,
    ):
        """Attach what visavis.kernel.screen made of this panel; once."""
        if self.view.screen != NULL:
            raise ValueError("the panel has its screen already")
        self._screen = (
            weights, bias, valid, capability, position, column_scale, weight_scale, weight_norm,
            weight_error, norm, bias_size, bias_max, value_max, value_min, cost_min, link
        )
        self.screen.blocks = weights.shape[0]
        self.screen.padded_columns = weights.shape[1] * 4
        self.screen.weights = &weights[0, 0, 0, 0]
        self.screen.bias = &bias[0, 0]
        self.screen.valid = &valid[0]
        self.screen.capability = &capability[0, 0]
        self.screen.position = &position[0]
        self.screen.column_scale = &column_scale[0]
        self.screen.weight_scale = &weight_scale[0, 0]
        self.screen.weight_norm = &weight_norm[0]
        self.screen.weight_error = &weight_error[0]
        self.screen.norm = &norm[0]
        self.screen.bias_size = &bias_size[0]
        self.screen.bias_max = &bias_max[0]
        self.screen.value_max = &value_max[0]
        self.screen.value_min = &value_min[0]
        self.screen.cost_min = &cost_min[0]
        self.screen.link = &link[0]
        self.screen.is_uniform = is_uniform
        self.view.screen = &self.screen

    @property
    def capability_count(self):
        return self.view.capabilities

    @property
    def indicator_count(self):
        return self.view.columns

    def __init__(
        self,
        const float[:, ::1] weights not None,
        int64_t columns,
        const float[::1] bias not None,
        const double[::1] value not None,
        const double[::1] cost not None,
        const uint8_t[::1] link not None,
        const int32_t[::1] product not None,
        const int32_t[::1] channel not None,
        const int32_t[::1] family not None,
        group_counts,
    ):
        self._owned = (weights, bias, value, cost, link, product, channel, family)
        self.view.screen = NULL
        self.view.capabilities = weights.shape[0]
        self.view.columns = columns
        self.view.padded_columns = weights.shape[1]
        self.view.weights = &weights[0, 0]
        self.view.bias = &bias[0]
        self.view.value = &value[0]
        self.view.cost = &cost[0]
        self.view.link = &link[0]
        self.view.product = &product[0]
        self.view.channel = &channel[0]
        self.view.family = &family[0]
        self.view.product_count, self.view.channel_count, self.view.family_count = group_counts


cdef void _bind_history(
    HistoryView* history,
    const int64_t* indptr,
    const int32_t[::1] entries,
    const float[::1] adjustment,
) noexcept:
    """The history of some rows; what is bound must outlive it."""
    history.indptr = indptr
    history.entries = entries.shape[0]
    if entries.shape[0]:
        history.capability_index = &entries[0]
        history.adjustment = &adjustment[0]


cdef class BoundProblem:
    """A problem with the arrays it points to; kept alive for as long as the call runs."""

    cdef Problem problem
    cdef object _owned

    def __init__(
        self,
        const float[:, ::1] indicators not None,
        PackedPanel panel not None,
        const uint8_t[:, ::1] dense,
        const uint64_t[:, ::1] planes,
        const int32_t[::1] plane_index,
        const int64_t[::1] indptr,
        const int32_t[::1] capability_index,
        const float[::1] adjustment,
        double ev_min,
        int64_t block_rows,
        int64_t block_capabilities,
        double guess,
    ):
        self._owned = (
            indicators, panel, dense, planes, plane_index, indptr, capability_index, adjustment
        )
        memset(&self.problem, 0, sizeof(Problem))
        self.problem.indicators.values = _float_matrix(indicators)
        self.problem.indicators.rows = indicators.shape[0]
        self.problem.indicators.columns = indicators.shape[1]
        self.problem.panel = panel.view
        if dense is not None and dense.shape[0]:
            self.problem.eligibility.dense = &dense[0, 0]
        if planes is not None and planes.shape[0] and planes.shape[1]:
            self.problem.eligibility.planes = &planes[0, 0]
            self.problem.eligibility.plane_words = planes.shape[1]
            self.problem.eligibility.plane_index = &plane_index[0]
        if indptr is not None:  # also without entries: its pointers are still to be validated
            _bind_history(&self.problem.history, &indptr[0], capability_index, adjustment)
        self.problem.ev_min = ev_min
        self.problem.block.rows = block_rows
        self.problem.block.capabilities = block_capabilities
        self.problem.guess = guess


cdef tuple _status(Status status):
    return (<int32_t>status.code, status.row, status.column)


cdef dict _stats(const Stats& stats):
    return {
        "skipped_by_rule": stats.skipped_by_rule,
        "skipped_by_bound": stats.skipped_by_bound,
        "screened": stats.screened,
        "verified": stats.verified,
        "rescreens": stats.rescreens,
    }


cdef dict _nanoseconds(const Stats& stats):
    return {
        "quantise": stats.quantise_ns,
        "history": stats.history_ns,
        "screen": stats.screen_ns,
        "verify": stats.verify_ns,
        "walk": stats.walk_ns,
    }


cdef _require_screen(const Variant* chosen, const Problem& problem):
    if chosen.screened and problem.panel.screen == NULL:
        raise ValueError("the panel was bound before its screen was built")


def validate(BoundProblem bound not None):
    """The status with which every call would end, or that there is nothing to refuse."""
    cdef Status status
    with nogil:
        status = c_validate(bound.problem)
    return _status(status)


def match(
    int64_t variant,
    BoundProblem bound not None,
    limits,
    int32_t[:, ::1] capability_index not None,
    double[:, ::1] expected_value not None,
    double[:, ::1] propensity not None,
    int32_t[::1] opportunity_count not None,
):
    """Fills the four outputs; returns (status, stats, nanoseconds by stage, what to guess next)."""
    cdef Limits c_limits
    cdef MatchOutput out
    cdef Stats stats
    cdef Status status
    cdef const Variant* chosen = variant_at(variant)
    c_limits.product, c_limits.channel, c_limits.family = limits
    _require_screen(chosen, bound.problem)
    memset(&stats, 0, sizeof(Stats))
    stats.guess = NAN
    out.k = capability_index.shape[1]
    out.capability_index = &capability_index[0, 0]
    out.expected_value = &expected_value[0, 0]
    out.propensity = &propensity[0, 0]
    out.opportunity_count = &opportunity_count[0]
    with nogil:
        status = chosen.match(bound.problem, c_limits, out, &stats)
    return _status(status), _stats(stats), _nanoseconds(stats), stats.guess


def verify(
    int64_t variant,
    BoundProblem bound not None,
    limits,
    const int64_t[::1] indptr not None,
    const int32_t[::1] candidates not None,
    const double[::1] beyond not None,
    int32_t[:, ::1] capability_index not None,
    double[:, ::1] expected_value not None,
    double[:, ::1] propensity not None,
    int32_t[::1] opportunity_count not None,
    uint8_t[::1] is_certain not None,
):
    """Fills the five outputs; returns (status, stats over the candidates)."""
    cdef Limits c_limits
    cdef CandidatesView given
    cdef VerifyOutput out
    cdef Stats stats
    cdef Status status
    cdef const Variant* chosen = variant_at(variant)
    c_limits.product, c_limits.channel, c_limits.family = limits
    memset(&stats, 0, sizeof(Stats))
    given.indptr = &indptr[0]
    given.entries = candidates.shape[0]
    given.capability_index = &candidates[0] if candidates.shape[0] else NULL
    given.beyond = &beyond[0]
    out.match.k = capability_index.shape[1]
    out.match.capability_index = &capability_index[0, 0]
    out.match.expected_value = &expected_value[0, 0]
    out.match.propensity = &propensity[0, 0]
    out.match.opportunity_count = &opportunity_count[0]
    out.is_certain = &is_certain[0]
    with nogil:
        status = chosen.verify(bound.problem, c_limits, given, out, &stats)
    return _status(status), _stats(stats)


def audience(
    int64_t variant,
    BoundProblem bound not None,
    const int32_t[::1] capability_index not None,
    const double[::1] ev_min not None,
    int64_t[:, ::1] customer_index not None,
    double[:, ::1] expected_value not None,
    double[:, ::1] propensity not None,
    int64_t[::1] customer_count not None,
):
    """Fills the four outputs; returns (status, stats, nanoseconds by stage)."""
    cdef AudienceOutput out
    cdef Stats stats
    cdef Status status
    cdef const Variant* chosen = variant_at(variant)
    _require_screen(chosen, bound.problem)
    memset(&stats, 0, sizeof(Stats))
    out.k = customer_index.shape[1]
    out.capability_index = &capability_index[0]
    out.capability_count = capability_index.shape[0]
    out.ev_min = &ev_min[0]
    out.customer_index = &customer_index[0, 0]
    out.expected_value = &expected_value[0, 0]
    out.propensity = &propensity[0, 0]
    out.customer_count = &customer_count[0]
    with nogil:
        status = chosen.audience(bound.problem, out, &stats)
    return _status(status), _stats(stats), _nanoseconds(stats)


def scores(
    int64_t variant,
    BoundProblem bound not None,
    double[:, ::1] linear_predictor not None,
    double[:, ::1] expected_value not None,
    double[:, ::1] propensity not None,
):
    """Fills the three outputs; returns the status."""
    cdef ScoresOutput out
    cdef Status status
    cdef const Variant* chosen = variant_at(variant)
    out.linear_predictor = &linear_predictor[0, 0]
    out.expected_value = &expected_value[0, 0]
    out.propensity = &propensity[0, 0]
    with nogil:
        status = chosen.scores(bound.problem, out)
    return _status(status)


def largest_terms(
    const float[:, ::1] indicators not None,
    PackedPanel panel not None,
    const int64_t[::1] customer_index not None,
    const int32_t[::1] capability_index not None,
    const int64_t[::1] indptr,
    const int32_t[::1] entries,
    const float[::1] adjustment,
    const int64_t[::1] by_name not None,
    const double[::1] against,
    int64_t count,
    int64_t[::1] offsets not None,
    int64_t[::1] name_index not None,
    double[::1] contribution not None,
):
    """Fills the three outputs, the last two as far as the last offset; returns the status."""
    cdef TermsProblem problem
    cdef TermsOutput out
    cdef Status status
    memset(&problem, 0, sizeof(TermsProblem))
    problem.indicators.values = _float_matrix(indicators)
    problem.indicators.rows = indicators.shape[0]
    problem.indicators.columns = indicators.shape[1]
    problem.panel = panel.view
    if indptr is not None:
        _bind_history(&problem.history, &indptr[0], entries, adjustment)
    problem.pairs = customer_index.shape[0]
    if problem.pairs:
        problem.customer_index = &customer_index[0]
        problem.capability_index = &capability_index[0]
    problem.by_name = &by_name[0]
    if against is not None:
        problem.against = &against[0]
    problem.count = count
    out.offsets = &offsets[0]
    out.name_index = &name_index[0] if name_index.shape[0] else NULL
    out.contribution = &contribution[0] if contribution.shape[0] else NULL
    with nogil:
        status = c_largest_terms(problem, out)
    return _status(status)


cdef class BoundRow:
    """Everything about the match of one customer that is the same for every customer."""

    cdef const Variant* chosen
    cdef Problem problem
    cdef Limits limits
    cdef const int64_t* by_name
    cdef const double* against
    cdef object _owned

    def __init__(
        self,
        int64_t variant,
        PackedPanel panel not None,
        const int32_t[::1] plane_index not None,
        int64_t plane_words,
        double ev_min,
        double guess,
        limits,
        const int64_t[::1] by_name not None,
        const double[::1] against not None,
    ):
        self.chosen = variant_at(variant)
        memset(&self.problem, 0, sizeof(Problem))
        self.problem.panel = panel.view
        self.problem.indicators.rows = 1
        self.problem.indicators.columns = panel.view.columns
        self.problem.eligibility.plane_words = plane_words
        if plane_words:  # else everybody may meet everything
            self.problem.eligibility.plane_index = &plane_index[0]
        self.problem.ev_min = ev_min
        self.problem.guess = guess
        self.limits.product, self.limits.channel, self.limits.family = limits
        self.by_name = &by_name[0]
        self.against = &against[0]
        cdef int32_t[::1] block_plane = None
        _require_screen(self.chosen, self.problem)
        if self.chosen.screened:
            block_plane = view.array((panel.screen.blocks,), sizeof(int32_t), "i")
            c_find_block_planes(self.problem, &block_plane[0])
            self.problem.eligibility.block_plane = &block_plane[0]
        self._owned = (panel, plane_index, by_name, against, block_plane)

    cdef _check_row(
        self,
        const float[::1] indicators,
        const int32_t[::1] entries,
        const float[::1] adjustment,
    ):
        if indicators.shape[0] != self.problem.indicators.columns:
            raise ValueError("the row has not the panel's columns")
        if adjustment.shape[0] != entries.shape[0]:
            raise ValueError("every entry must have an adjustment")

    def match(
        self,
        const float[::1] indicators not None,
        const uint64_t[::1] planes not None,
        const int32_t[::1] entries not None,
        const float[::1] adjustment not None,
        int32_t[::1] capability_index not None,
        double[::1] expected_value not None,
        double[::1] propensity not None,
    ):
        """Fills the three outputs; returns (status, how many there are, stats)."""
        cdef Problem problem = self.problem
        cdef int64_t[2] indptr = [0, entries.shape[0]]
        cdef int32_t count = 0
        cdef MatchOutput out
        cdef Stats stats
        cdef Status status
        self._check_row(indicators, entries, adjustment)
        if planes.shape[0] != problem.eligibility.plane_words:
            raise ValueError("the row has not the version's planes")
        problem.indicators.values = &indicators[0]
        if planes.shape[0]:
            problem.eligibility.planes = &planes[0]
        if entries.shape[0]:
            _bind_history(&problem.history, indptr, entries, adjustment)
        out.k = capability_index.shape[0]
        if expected_value.shape[0] != out.k or propensity.shape[0] != out.k or out.k < 1:
            raise ValueError("the outputs must have room for k opportunities each")
        out.capability_index = &capability_index[0]
        out.expected_value = &expected_value[0]
        out.propensity = &propensity[0]
        out.opportunity_count = &count
        memset(&stats, 0, sizeof(Stats))
        with nogil:
            status = self.chosen.match(problem, self.limits, out, &stats)
        return _status(status), count, _stats(stats)

    def largest_terms(
        self,
        const float[::1] indicators not None,
        const int32_t[::1] entries not None,
        const float[::1] adjustment not None,
        const int64_t[::1] customer_index not None,
        const int32_t[::1] capability_index not None,
        int64_t pairs,
        int64_t count,
        bint is_distinctive,
        int64_t[::1] offsets not None,
        int64_t[::1] name_index not None,
        double[::1] contribution not None,
    ):
        """Fills the three outputs, the last two as far as the last offset; returns the status.

        All of `customer_index` is 0: there is one row.
        """
        cdef TermsProblem problem
        cdef TermsOutput out
        cdef int64_t[2] indptr = [0, entries.shape[0]]
        cdef Status status
        self._check_row(indicators, entries, adjustment)
        if not 0 <= pairs <= min(capability_index.shape[0], customer_index.shape[0]) or count < 0:
            raise ValueError("there are fewer pairs than that")
        if offsets.shape[0] != pairs + 1 or not (
            pairs * count <= min(name_index.shape[0], contribution.shape[0])
        ):
            raise ValueError("the outputs must have room for the terms of all pairs")
        memset(&problem, 0, sizeof(TermsProblem))
        problem.indicators = self.problem.indicators
        problem.indicators.values = &indicators[0]
        problem.panel = self.problem.panel
        if entries.shape[0]:
            _bind_history(&problem.history, indptr, entries, adjustment)
        problem.customer_index = &customer_index[0]
        problem.capability_index = &capability_index[0]
        problem.pairs = pairs
        problem.by_name = self.by_name
        problem.against = self.against if is_distinctive else NULL
        problem.count = count
        out.offsets = &offsets[0]
        out.name_index = &name_index[0] if name_index.shape[0] else NULL
        out.contribution = &contribution[0] if contribution.shape[0] else NULL
        # Some microseconds: to take the interpreter back from another thread might take longer.
        status = c_largest_terms(problem, out)
        return _status(status)
