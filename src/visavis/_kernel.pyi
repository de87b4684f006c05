# Types of the compiled binding; visavis.kernel is the face to use.

from typing import Any

import numpy as np
import numpy.typing as npt

def processor_features() -> str: ...
def variants() -> list[tuple[str, str | None, bool]]: ...
def exp_nonpositive(y: npt.NDArray[np.float64], result: npt.NDArray[np.float64]) -> None: ...
def log1p_nonnegative(x: npt.NDArray[np.float64], result: npt.NDArray[np.float64]) -> None: ...

class PackedPanel:
    @property
    def capability_count(self) -> int: ...
    @property
    def indicator_count(self) -> int: ...
    @property
    def has_screen(self) -> bool: ...
    @property
    def arrays(self) -> tuple[memoryview, memoryview, memoryview, memoryview, memoryview]: ...
    def set_screen(self, *arrays: npt.NDArray[Any] | bool) -> None: ...
    def __init__(
        self,
        weights: npt.NDArray[np.float32],
        columns: int,
        bias: npt.NDArray[np.float32],
        value: npt.NDArray[np.float64],
        cost: npt.NDArray[np.float64],
        link: npt.NDArray[np.uint8],
        product: npt.NDArray[np.int32],
        channel: npt.NDArray[np.int32],
        family: npt.NDArray[np.int32],
        group_counts: tuple[int, int, int],
    ) -> None: ...

class BoundProblem:
    def __init__(
        self,
        indicators: npt.NDArray[np.float32],
        panel: PackedPanel,
        dense: npt.NDArray[np.uint8] | None,
        planes: npt.NDArray[np.uint64] | None,
        plane_index: npt.NDArray[np.int32] | None,
        indptr: npt.NDArray[np.int64] | None,
        capability_index: npt.NDArray[np.int32] | None,
        adjustment: npt.NDArray[np.float32] | None,
        ev_min: float,
        block_rows: int,
        block_capabilities: int,
        guess: float,
    ) -> None: ...

def validate(bound: BoundProblem) -> tuple[int, int, int]: ...
def match(
    variant: int,
    bound: BoundProblem,
    limits: tuple[int, int, int],
    capability_index: npt.NDArray[np.int32],
    expected_value: npt.NDArray[np.float64],
    propensity: npt.NDArray[np.float64],
    opportunity_count: npt.NDArray[np.int32],
) -> tuple[tuple[int, int, int], dict[str, int], dict[str, int], float]: ...
def verify(
    variant: int,
    bound: BoundProblem,
    limits: tuple[int, int, int],
    indptr: npt.NDArray[np.int64],
    candidates: npt.NDArray[np.int32],
    beyond: npt.NDArray[np.float64],
    capability_index: npt.NDArray[np.int32],
    expected_value: npt.NDArray[np.float64],
    propensity: npt.NDArray[np.float64],
    opportunity_count: npt.NDArray[np.int32],
    is_certain: npt.NDArray[np.uint8],
) -> tuple[tuple[int, int, int], dict[str, int]]: ...
def audience(
    variant: int,
    bound: BoundProblem,
    capability_index: npt.NDArray[np.int32],
    ev_min: npt.NDArray[np.float64],
    customer_index: npt.NDArray[np.int64],
    expected_value: npt.NDArray[np.float64],
    propensity: npt.NDArray[np.float64],
    customer_count: npt.NDArray[np.int64],
) -> tuple[tuple[int, int, int], dict[str, int], dict[str, int]]: ...
def scores(
    variant: int,
    bound: BoundProblem,
    linear_predictor: npt.NDArray[np.float64],
    expected_value: npt.NDArray[np.float64],
    propensity: npt.NDArray[np.float64],
) -> tuple[int, int, int]: ...
def largest_terms(
    indicators: npt.NDArray[np.float32],
    panel: PackedPanel,
    customer_index: npt.NDArray[np.int64],
    capability_index: npt.NDArray[np.int32],
    indptr: npt.NDArray[np.int64] | None,
    entries: npt.NDArray[np.int32] | None,
    adjustment: npt.NDArray[np.float32] | None,
    by_name: npt.NDArray[np.int64],
    against: npt.NDArray[np.float64] | None,
    count: int,
    offsets: npt.NDArray[np.int64],
    name_index: npt.NDArray[np.int64],
    contribution: npt.NDArray[np.float64],
) -> tuple[int, int, int]: ...

class BoundRow:
    def __init__(
        self,
        variant: int,
        panel: PackedPanel,
        plane_index: npt.NDArray[np.int32],
        plane_words: int,
        ev_min: float,
        guess: float,
        limits: tuple[int, int, int],
        by_name: npt.NDArray[np.int64],
        against: npt.NDArray[np.float64],
    ) -> None: ...
    def match(
        self,
        indicators: npt.NDArray[np.float32],
        planes: npt.NDArray[np.uint64],
        entries: npt.NDArray[np.int32],
        adjustment: npt.NDArray[np.float32],
        capability_index: npt.NDArray[np.int32],
        expected_value: npt.NDArray[np.float64],
        propensity: npt.NDArray[np.float64],
    ) -> tuple[tuple[int, int, int], int, dict[str, int]]: ...
    def largest_terms(
        self,
        indicators: npt.NDArray[np.float32],
        entries: npt.NDArray[np.int32],
        adjustment: npt.NDArray[np.float32],
        customer_index: npt.NDArray[np.int64],
        capability_index: npt.NDArray[np.int32],
        pairs: int,
        count: int,
        is_distinctive: bool,
        offsets: npt.NDArray[np.int64],
        name_index: npt.NDArray[np.int64],
        contribution: npt.NDArray[np.float64],
    ) -> tuple[int, int, int]: ...
