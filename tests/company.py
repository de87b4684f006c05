"""What test_company.py runs in a process of its own: `python company.py SCENE VARIANT …`."""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import os
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from threading import Thread
from typing import Any

import numpy as np

from visavis import kernel

ROWS, CAPABILITIES, COLUMNS = 200, 700, 37


def arguments(seed: int = 0) -> tuple[Any, Any, dict[str, Any]]:
    """Indicators, a panel and what is asked of them, with everything that a call may be given."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((ROWS, COLUMNS)).astype(np.float32)
    w = rng.standard_normal((CAPABILITIES, COLUMNS)).astype(np.float32)
    held = rng.random((ROWS, CAPABILITIES)) < 0.05
    indptr = np.concatenate([[0], np.cumsum(held.sum(axis=1))]).astype(np.int64)
    h = rng.normal(0, 1, indptr[-1]).astype(np.float32)
    history = kernel.History(indptr, np.nonzero(held)[1].astype(np.int32), h)
    index = np.arange(CAPABILITIES, dtype=np.int32) % 70
    planes = rng.integers(0, 2**64, (ROWS, 2), dtype=np.uint64)
    value = rng.lognormal(0, 1, CAPABILITIES)
    cost = np.full(CAPABILITIES, 0.1)
    bias = np.zeros(CAPABILITIES)
    panel = kernel.pack(w, bias, value=value, cost=cost, link="logistic", family=index % 9)
    return x, panel, {"history": history, "eligible": kernel.Eligibility(planes, index)}


def digest(variant: str, x: Any, panel: kernel.Panel, asked: dict[str, Any]) -> str:
    """Of every byte of a match and of all audiences."""
    found = kernel.match(x, panel, k=7, limits=kernel.Limits(family=2), variant=variant, **asked)
    people = kernel.audience(
        x, panel, k=7, capability_index=np.arange(CAPABILITIES), variant=variant, **asked
    )
    parts = (
        *(found.capability_index, found.expected_value, found.propensity, found.opportunity_count),
        *(people.customer_index, people.expected_value, people.propensity, people.customer_count),
    )
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


def digest_of(variant: str) -> str:
    return digest(variant, *arguments())


def threads(variant: str) -> None:
    """One panel each for many threads, its screen built by whoever comes first, beside numpy."""
    wanted = [digest("portable", *arguments(seed)) for seed in range(4)]
    worlds = [arguments(seed) for seed in range(4)]
    square = np.ones((300, 300), np.float32)

    def work(turn: int) -> bool:
        product = square @ square
        same = digest(variant, *worlds[turn % 4]) == wanted[turn % 4]
        return same and bool((product == 300.0).all())

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(work, range(64)))


def children(variant: str, method: str) -> None:
    """Children made while other threads match answer as their parent does."""
    wanted = digest_of(variant)
    assert wanted == digest_of("portable")
    busy = [Thread(target=digest_of, args=(variant,)) for _ in range(3)]
    for thread in busy:
        thread.start()
    if method == "fork":
        for _ in range(4):
            child = os.fork()
            if child == 0:
                os._exit(0 if digest_of(variant) == wanted else 1)
            assert os.waitpid(child, 0)[1] == 0
    else:
        with ProcessPoolExecutor(2, mp_context=get_context(method)) as pool:
            assert list(pool.map(digest_of, [variant] * 4)) == [wanted] * 4
    for thread in busy:
        thread.join()


def at_the_end_of_a_page(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A copy whose last byte is the last that may be read: the next page is forbidden."""
    page = mmap.PAGESIZE
    size = -(-array.nbytes // page) * page
    memory = mmap.mmap(-1, size + page)
    begin = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mprotect(ctypes.c_void_p(begin + size), ctypes.c_size_t(page), 0) == 0
    copy = np.frombuffer(memory, array.dtype, array.size, size - array.nbytes)
    copy = copy.reshape(array.shape)
    copy[...] = array
    return copy


def guarded(variant: str) -> None:
    """No byte beyond an argument is read: the process would end."""
    for rows in (1, 5, 33, ROWS):
        x, panel, asked = arguments()
        history, eligible = asked["history"], asked["eligible"]
        indptr = history.indptr[: rows + 1]
        cut = {
            "history": (indptr, *(part[: indptr[-1]] for part in history[1:])),
            "eligible": (eligible.planes[:rows], eligible.plane_index),
        }
        dense = np.random.default_rng(0).random((rows, CAPABILITIES)) < 0.5
        wanted = digest(
            "portable",
            x[:rows],
            panel,
            {
                "history": kernel.History(*cut["history"]),
                "eligible": kernel.Eligibility(*cut["eligible"]),
            },
        )
        given = {
            "history": kernel.History(*map(at_the_end_of_a_page, cut["history"])),
            "eligible": kernel.Eligibility(*map(at_the_end_of_a_page, cut["eligible"])),
        }
        at_end = at_the_end_of_a_page(x[:rows])
        assert digest(variant, at_end, panel, given) == wanted
        digest(variant, at_end, panel, {**given, "eligible": at_the_end_of_a_page(dense)})


if __name__ == "__main__":
    {"threads": threads, "children": children, "guarded": guarded}[sys.argv[1]](*sys.argv[2:])
