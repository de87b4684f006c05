"""Reads a job's results as fast as they come: `python bench/gateway_read.py PORT JOB_ID`.

The channel is as the Python client's; the frames are not looked into. A line of JSON: bytes of all
messages, frames, seconds from the request to the end, and how many of them this process had a
processor.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import grpc

from visavis.client.channel import options
from visavis.v1 import job_service_pb2 as v1

PATH = "/visavis.v1.JobService/ReadResults"


async def main(port: int, job_id: str) -> None:
    """Read everything once."""
    request = v1.ReadResultsRequest(job_id=job_id).SerializeToString()
    chosen = options(is_local=True)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", chosen) as channel:
        await channel.channel_ready()
        size = frames = 0
        began, spent = time.perf_counter(), time.process_time()
        async for frame in channel.unary_stream(PATH)(request):
            size += len(frame)
            frames += 1
        seconds = time.perf_counter() - began
        spent = time.process_time() - spent
    told = {"bytes": size, "frames": frames, "seconds": seconds, "processor_s": spent}
    print(json.dumps(told))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
