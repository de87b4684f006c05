"""`AsyncClient`: the methods, each awaited, or iterated over asynchronously."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import grpc

from visavis.client import jobs as of_jobs
from visavis.client import matches as of_matches
from visavis.client import plans
from visavis.client.carrying import dressed
from visavis.client.channel import ADDRESS, TIMEOUT_S, Certificates, Token
from visavis.client.congestion import is_held_back
from visavis.client.errors import GatewayError, OverloadedError, error_of_call, late
from visavis.client.frames import Window
from visavis.client.state import State, check_size
from visavis.client.steps import (
    STREAM_S,
    Call,
    Emit,
    Open,
    Plan,
    Read,
    Sleep,
    Step,
    Stream,
)

__all__ = ["AsyncClient"]

P = ParamSpec("P")
T = TypeVar("T")


class _Wire:
    """Carries out the steps of one plan."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._call: Any = None

    async def done(self, step: Step) -> Any:
        """What comes of a step.

        Raises
        ------
        GatewayError, InputError
        """
        match step:
            case Call():
                return await self._asked(step)
            case Open():
                return self._opened(step)
            case Read():
                return await self._read(step)
            case Sleep():
                return await asyncio.sleep(step.seconds)

    async def _asked(self, step: Call) -> Any:
        check_size(step.request)
        method = self._client._method(step.rpc)
        timeout_s = step.budget.left_s(self._client.timeout_s)
        try:
            with self._client._congestion(step.rpc).call():
                try:
                    return await method(
                        step.request, timeout=timeout_s, metadata=self._client._metadata()
                    )
                except grpc.RpcError as failed:
                    raise error_of_call(failed) from failed
        except OverloadedError as error:
            if is_held_back(error):
                # Who asks again and again must not keep the loop from the answers of others.
                await asyncio.sleep(0)
            raise

    def _opened(self, step: Open) -> None:
        self.close()
        request = step.request
        if isinstance(request, Window):
            request.room = asyncio.Semaphore(request.open_frames)
            request = request.messages_async()
        method = self._client._method(step.rpc)
        self._call = method(request, timeout=STREAM_S, metadata=self._client._metadata())

    async def _read(self, step: Read) -> Any:
        reading = asyncio.ensure_future(self._call.read())
        try:
            while not (await asyncio.wait({reading}, timeout=step.timeout_s))[0]:
                if step.is_due():
                    raise late()
            answer = reading.result()
        except grpc.RpcError as failed:
            raise error_of_call(failed) from failed
        finally:
            reading.cancel()
        return None if answer is grpc.aio.EOF else answer

    def close(self) -> None:
        """Give up a call with many answers, if one is open."""
        if self._call is not None:
            self._call.cancel()
            self._call = None


def _whole(
    plan: Callable[Concatenate[Any, P], Plan[T]],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    """A method with one result."""

    async def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._run(plan(self, *args, **kwargs))

    dressed(method, plan, "{}")
    return method


def _each(
    plan: Callable[Concatenate[Any, P], Stream[T]],
) -> Callable[Concatenate[AsyncClient, P], AsyncIterator[T]]:
    """A method that is iterated over."""

    def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        return self._iterate(plan(self, *args, **kwargs))

    dressed(method, plan, "AsyncIterator[{}]")
    return method


class AsyncClient(State):
    """A gateway, asked from one event loop.

    ``async with AsyncClient("gateway:8420") as client: …``; make it inside the loop. Close what
    you iterate over and leave early (``contextlib.aclosing``): its call is given up then.

    Parameters
    ----------
    target, token, certificates, timeout_s
        As of `Client`.

    Raises
    ------
    InputError
        If an argument is none, or the token would travel in the open.
    """

    def __init__(
        self,
        target: str = ADDRESS,
        *,
        token: Token | None = None,
        certificates: Certificates | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        super().__init__(target, token, certificates, timeout_s, grpc.aio)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; calls under way are given up."""
        self._is_closed = True
        await self._channel.close()

    async def _run(self, plan: Plan[T]) -> T:
        wire = _Wire(self)
        try:
            step = next(plan)
            while True:
                try:
                    came = await wire.done(step)
                except GatewayError as error:
                    step = plan.throw(error)
                else:
                    step = plan.send(came)
        except StopIteration as ended:
            result: T = ended.value
            return result

    async def _iterate(self, plan: Stream[T]) -> AsyncIterator[T]:
        wire = _Wire(self)
        try:
            step = next(plan)
            while True:
                if isinstance(step, Emit):
                    yield step.value
                    step = plan.send(None)
                    continue
                try:
                    came = await wire.done(step)
                except GatewayError as error:
                    step = plan.throw(error)
                else:
                    step = plan.send(came)
        except StopIteration:
            return
        finally:
            plan.close()
            wire.close()

    match = _whole(of_matches.match)
    match_many = _whole(of_matches.match_many)
    stream = _each(of_matches.stream)
    explain = _whole(of_matches.explain)
    find_audience = _each(of_matches.find_audience)
    record_facts = _whole(plans.record_facts)
    forget = _whole(plans.forget)
    serving_info = _whole(plans.serving_info)
    list_capabilities = _each(plans.list_capabilities)
    publish = _whole(plans.publish)
    create_rescore_job = _whole(of_jobs.create_rescore_job)
    job = _whole(of_jobs.job)
    jobs = _each(of_jobs.jobs)
    cancel_job = _whole(of_jobs.cancel_job)
    watch_job = _each(of_jobs.watch_job)
    read_results = _each(of_jobs.read_results)
