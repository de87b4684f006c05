"""The kernel in company: threads, forked and spawned children, memory that ends at a page.

Each scene is a process of its own, because what it provokes would end this one.
"""

from __future__ import annotations

import pytest

from company import play
from visavis import kernel

RUNNABLE = [name for name, variant in kernel.built_variants().items() if variant.lacks is None]


@pytest.mark.parametrize("variant", RUNNABLE)
def test_many_threads_beside_numpy(variant: str) -> None:
    play("threads", variant)


@pytest.mark.parametrize("variant", RUNNABLE)
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_answer_as_their_parent(variant: str, method: str) -> None:
    play("children", variant, method)


@pytest.mark.parametrize("variant", RUNNABLE)
def test_nothing_beyond_an_argument_is_read(variant: str) -> None:
    play("guarded", variant)
