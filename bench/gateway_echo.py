"""A bare grpc.aio server: `python bench/gateway_echo.py BYTES` answers so many to every call.

What is left of a call when there is nothing to do: no interceptor, no message to parse.
"""

from __future__ import annotations

import asyncio
import json
import sys

import grpc


async def main(size: int) -> None:
    """Serve until killed."""
    answer = bytes(size)

    async def echo(request: bytes, context: grpc.aio.ServicerContext) -> bytes:  # noqa: ARG001
        return answer

    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    handlers = {"Echo": grpc.unary_unary_rpc_method_handler(echo)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("bench.Echo", handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(json.dumps({"port": port}), flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
