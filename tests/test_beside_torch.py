"""The kernel beside torch in one process: the same bytes, and torch's own results untouched.

torch may switch on flush-to-zero for a thread, runs its products on threads of its own, and brings
its own OpenMP. Each scene is a process of its own, as in test_company.py.
"""

from __future__ import annotations

import pytest

from company import play
from visavis import kernel

RUNNABLE = [name for name, variant in kernel.built_variants().items() if variant.lacks is None]


@pytest.mark.parametrize("variant", RUNNABLE)
def test_threads_beside_torch_whether_it_flushes_denormals_or_not(variant: str) -> None:
    play("beside_torch", variant)
