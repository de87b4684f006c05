# Types of the compiled gathering of rows; visavis.serving.customers is the face to use.

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

class Rows:
    def __init__(
        self,
        indicators: Sequence[npt.NDArray[np.float32]],
        ends: Sequence[memoryview],
        texts: Sequence[memoryview],
        starts: npt.NDArray[np.int64],
        heads: npt.NDArray[np.uint64],
        row_of: npt.NDArray[np.int64],
    ) -> None: ...
    def indicators(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]: ...
    def find(self, ids: list[str]) -> npt.NDArray[np.int64]: ...
    def find_one(self, customer_id: str) -> int: ...

def entries_of(
    indptr: npt.NDArray[np.int64],
    index: npt.NDArray[np.int32],
    amount: npt.NDArray[np.float32],
    rows: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]]: ...
def heads_of(ends: memoryview, text: memoryview) -> npt.NDArray[np.uint64]: ...
