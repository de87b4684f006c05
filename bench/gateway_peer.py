"""milvus-lite as a client asks it: `python bench/gateway_peer.py PORT CATALOG BATCH K`.

The catalog's weights are the collection's vectors, in a FLAT index by inner product; batches of
Gaussian customers are the queries. For every line on standard input it searches one batch and says
how long it took, in a line of JSON; the first line says what share of the exact answer it finds.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np
from pymilvus import DataType, MilvusClient

from full_base import INDICATORS, NAMES
from visavis.catalog import Catalog

ROWS = 1_000
CHECKED = 50


def main(port: str, catalog: str, batch: int, k: int) -> None:
    """Fill it, then search as often as asked."""
    w = np.ascontiguousarray(Catalog.read(catalog).aligned_weights(NAMES))
    client = connected(f"http://127.0.0.1:{port}")
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("weights", DataType.FLOAT_VECTOR, dim=INDICATORS)
    index = client.prepare_index_params()
    index.add_index("weights", index_type="FLAT", metric_type="IP")
    client.create_collection("capabilities", schema=schema, index_params=index)
    for begin in range(0, len(w), ROWS):
        rows = enumerate(w[begin : begin + ROWS], start=begin)
        client.insert("capabilities", [{"id": j, "weights": row} for j, row in rows])
    client.flush("capabilities")
    client.load_collection("capabilities")
    x = np.random.default_rng(3).standard_normal((batch, INDICATORS), dtype=np.float32)
    queries = list(x)

    def search() -> Any:
        return client.search("capabilities", queries, anns_field="weights", limit=k)

    theirs = [{hit["id"] for hit in hits} for hits in search()[:CHECKED]]
    exact = np.argsort(-(x[:CHECKED] @ w.T), axis=1)[:, :k].tolist()
    shared = np.mean(
        [len(found & set(best)) / k for found, best in zip(theirs, exact, strict=False)]
    )
    print(json.dumps({"shared": shared}), flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        found = search()
        print(json.dumps({"seconds": time.perf_counter() - began, "found": len(found)}), flush=True)


def connected(uri: str, within_s: float = 60.0) -> MilvusClient:
    """A client, as soon as the server listens."""
    ends = time.monotonic() + within_s
    while True:
        try:
            return MilvusClient(uri=uri)
        except Exception:
            if time.monotonic() > ends:
                raise
            time.sleep(0.2)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
