"""The kernel beside its neighbours: exact top-k inner products, for that is all they do.

Identity link, no rules, no history, no limits; values 1 and costs 0, so that an expected value is a
product. Each neighbour runs as its makers recommend, on all processors, by turns with the match::

    pip install -e '.[peers]' torch==2.13.0
    make bench BENCH_ARGS='-k peers -s'

Neighbours that are not installed are named and skipped. Their answers are compared with ours: they
add up in float32, so near ties may stand in another order.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os

import numpy as np
import pytest

from kernel_worlds import THREADS, N, World, match_all, paired, timed, world

K = 10
#: The slowest gets a sixteenth of them.
ROWS_MAX = int(os.environ.get("BENCH_PEER_CUSTOMERS", str(min(N, 20_480))))


def faiss_flat(x, w):
    """FAISS IndexFlatIP: the default batch of queries goes through BLAS."""
    import faiss

    faiss.omp_set_num_threads(THREADS)
    index = faiss.IndexFlatIP(w.shape[1])
    index.add(w)
    return lambda: index.search(x, K)[1]


def scann_brute_force(x, w):
    """ScaNN's brute force, batched and parallel."""
    from scann.scann_ops.py import scann_ops_pybind

    searcher = scann_ops_pybind.builder(w, K, "dot_product").score_brute_force().build()
    searcher.set_num_threads(THREADS)
    return lambda: searcher.search_batched_parallel(x)[0]


def implicit_topk(x, w):
    """implicit: the product and selection behind its `recommend`."""
    from implicit.cpu.topk import topk

    return lambda: topk(w, x, K, num_threads=THREADS)[0]


def torch_topk(x, w):
    """torch: matmul and topk, in blocks of rows that fit a cache."""
    import torch

    torch.set_num_threads(THREADS)
    rows, right = torch.from_numpy(x), torch.from_numpy(w).T.contiguous()

    def search():
        parts = [torch.topk(rows[i : i + 256] @ right, K)[1] for i in range(0, len(rows), 256)]
        return torch.cat(parts).numpy()

    return search


def usearch_exact(x, w):
    """usearch: exact search by inner product."""
    from usearch.index import MetricKind, search

    return lambda: search(w, x, K, MetricKind.IP, exact=True, threads=THREADS, dtype="f32").keys


PEERS = {
    "faiss-cpu": ("faiss", faiss_flat, 1),
    "scann-core": ("scann", scann_brute_force, 1),
    "implicit": ("implicit", implicit_topk, 1),
    "torch": ("torch", torch_topk, 1),
    "usearch": ("usearch", usearch_exact, 16),
}


@pytest.mark.parametrize("peer", PEERS)
def test_peers(benchmark, capsys, peer):
    module, make, divisor = PEERS[peer]
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{peer} is not installed")
    given = world(n=ROWS_MAX // divisor, link="identity", ev_min=None)
    m = len(given.w)
    plain = {"value": np.ones(m), "cost": np.zeros(m), "link": "identity"}
    given = World(given.x, given.w, np.zeros(m, np.float32), plain, ev_min=None)
    panel = given.pack()
    search = make(given.x, given.w)
    ours = np.concatenate([r.capability_index for r in match_all(given, panel)])
    theirs = np.asarray(search()).astype(np.int64)
    same = np.mean([len(set(a) & set(b)) / K for a, b in zip(ours, theirs, strict=True)])
    assert same > 0.999, f"{peer} finds something else: {same:.4f} of {K} are shared"
    name = f"beside {peer} {importlib.metadata.version(peer)}, {len(given.x):,} × {m:,} × 128"
    paired(capsys, name, given, panel, search, peer, rounds=5 if timed(search) > 5 else 15)
    benchmark.pedantic(match_all, (given, panel), rounds=1)
