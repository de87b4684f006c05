"""What test_company.py and test_beside_torch.py run in a process of its own.

`python company.py SCENE VARIANT …`, by `play`.
"""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from threading import Thread
from typing import Any

import numpy as np

from visavis import kernel

ROWS, CAPABILITIES, COLUMNS = 200, 700, 37


def play(*scene: str) -> None:
    """Run a scene in a process of its own, where it must end well."""
    command = [sys.executable, "-X", "faulthandler", __file__, *scene]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr


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


def denormal_arguments() -> tuple[Any, Any, dict[str, Any]]:
    """Indicators that a processor may read as 0, and expected values that show it."""
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((ROWS, COLUMNS)) * 1e-41).astype(np.float32)
    w = rng.standard_normal((CAPABILITIES, COLUMNS)).astype(np.float32)
    one, zero = np.ones(CAPABILITIES), np.zeros(CAPABILITIES)
    return x, kernel.pack(w, zero, value=one, cost=zero, link="identity"), {"ev_min": None}


def beside_torch(variant: str) -> None:
    """Threads that match and multiply on torch, which flushes denormals every other time.

    The bytes of a match do not depend on it, in the kernel as behind torch's screen, and torch
    finds its own setting as it was and its sums untouched.
    """
    import torch

    from visavis import gpu

    worlds = [*(arguments(seed) for seed in range(2)), denormal_arguments()]
    wanted = [digest("portable", *world) for world in worlds]
    screens = [gpu.GpuScreen(panel, device="cpu") for _, panel, _ in worlds]
    listed = [kernel.match(x, panel, k=7, **asked) for x, panel, asked in worlds]
    # Whole numbers add up exactly in any order.
    left, right = (torch.randint(-8, 9, (300, 300)).float() for _ in range(2))
    product = (left.long() @ right.long()).float()
    tiny = torch.full((64,), 1e-41)

    def work(turn: int) -> bool:
        flushes = turn % 2 == 0
        assert torch.set_flush_denormal(flushes)
        x, panel, asked = worlds[turn % 3]
        same = digest(variant, x, panel, asked) == wanted[turn % 3]
        found = screens[turn % 3].match(x, k=7, variant=variant, **asked)
        same &= found.capability_index.tobytes() == listed[turn % 3].capability_index.tobytes()
        same &= found.expected_value.tobytes() == listed[turn % 3].expected_value.tobytes()
        unflushed = ((tiny * 1.0).view(torch.int32) != 0).all()
        return same and bool((left @ right == product).all()) and bool(unflushed) != flushes

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(48)))


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
    scenes = {each.__name__: each for each in (threads, children, guarded, beside_torch)}
    scenes[sys.argv[1]](*sys.argv[2:])
