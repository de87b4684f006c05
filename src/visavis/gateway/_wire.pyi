# Types of the compiled writer; visavis.gateway.answers is the face to use.

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

class Card:
    def __init__(
        self, capability_id: bytes, before: bytes, behind: bytes, needs_message: bool
    ) -> None: ...

def written(
    version: bytes,
    check: int,
    customer_ids: Sequence[str],
    opportunity_count: npt.NDArray[np.int32],
    control: npt.NDArray[np.bool_],
    capability_index: npt.NDArray[np.int32],
    propensity: npt.NDArray[np.float64],
    expected_value: npt.NDArray[np.float64],
    reasons: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]] | None,
    names: list[bytes],
    cards: list[Card | None],
    make_card: Callable[[int], Card],
    message: Callable[[int, int], bytes],
) -> list[bytes]: ...
