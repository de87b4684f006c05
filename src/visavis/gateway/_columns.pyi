# Types of the compiled writer; visavis.gateway.answers is the face to use.

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

class Texts:
    def __init__(self, field: int, texts: Sequence[str]) -> None: ...

def written(
    begun: bytes,
    ended: bytes,
    opportunity_count: npt.NDArray[np.int32],
    is_control: npt.NDArray[np.bool_],
    capability_index: npt.NDArray[np.int32],
    propensity: npt.NDArray[np.float64],
    expected_value: npt.NDArray[np.float64],
    capability_ids: Texts,
    reasons: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]] | None,
    indicator_names: Texts,
) -> bytes: ...
