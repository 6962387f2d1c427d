"""A replica that is none: it holds a session as any other and says what a test tells it to say."""

import asyncio
import random
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

import grpc

from headrace.v1 import execution_pb2 as pb
from headrace.v1.task_pb2 import Report, Verdict
from servicekit.grpc_server import GrpcServer
from tests.faults.harness.stack import Stack
from tests.support.waiting import wait_until

_SERVICE_NAME = "headrace.v1.ExecutionService"
_BEAT_SECONDS = 1.0
_VERDICT_SECONDS = 10.0

_Context = grpc.aio.ServicerContext[Any, Any]


class Forger:
    """Managers find it in the task database. It asks for no work, so it is given none."""

    def __init__(self, stack: Stack) -> None:
        self.session_id = random.getrandbits(62) + 1
        self._stack = stack
        self._server = GrpcServer("127.0.0.1", 0)
        self._streams: list[asyncio.Queue[pb.DispatchResponse]] = []
        self._verdicts: asyncio.Queue[pb.VerdictItem] = asyncio.Queue()
        self._beat = 0
        self._echoed = 0
        self._address = ""

    async def __aenter__(self) -> Self:
        self._server.add(_add_to_server, self, _SERVICE_NAME)
        self._address = f"127.0.0.1:{await self._server.start()}"
        self._server.set_serving(True)
        await self._stack.query(
            "INSERT INTO executors (session_id, replica, address, types)"
            f" VALUES ({self.session_id}, 'forger', '{self._address}', '{{}}')"
        )
        await wait_until(lambda: self._echoed, timeout=15)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._server.stop(0)

    async def report(self, report: Report) -> Verdict.ValueType:
        """Send a report to a manager; return the verdict on it."""
        self._streams[-1].put_nowait(pb.DispatchResponse(reports=[report]))
        async with asyncio.timeout(_VERDICT_SECONDS):
            while True:
                item = await self._verdicts.get()
                if (item.task_id, item.attempt) == (report.task_id, report.attempt):
                    return item.verdict

    async def leave(self) -> None:
        """End the session."""
        self._streams[-1].put_nowait(pb.DispatchResponse(bye=True))

        async def ended() -> bool:
            sql = f"SELECT 1 FROM executors WHERE session_id = {self.session_id} AND ended_at IS NOT NULL"
            return bool(await self._stack.query(sql))

        await wait_until(ended)

    async def dispatch(
        self, request_iterator: AsyncIterator[pb.DispatchRequest], context: _Context
    ) -> AsyncIterator[pb.DispatchResponse]:
        outgoing: asyncio.Queue[pb.DispatchResponse] = asyncio.Queue()
        reader = asyncio.create_task(self._read(request_iterator))
        yield pb.DispatchResponse(
            hello=pb.Hello(session_id=self.session_id, replica="forger", address=self._address, heartbeat=self._beat)
        )
        self._streams.append(outgoing)
        try:
            while True:
                try:
                    async with asyncio.timeout(_BEAT_SECONDS):
                        message = await outgoing.get()
                except TimeoutError:
                    self._beat += 1
                    beat = pb.Heartbeat(session_id=self.session_id, number=self._beat, echoed=self._echoed)
                    message = pb.DispatchResponse(heartbeat=beat)
                yield message
        finally:
            self._streams.remove(outgoing)
            reader.cancel()

    async def _read(self, requests: AsyncIterator[pb.DispatchRequest]) -> None:
        async for request in requests:
            self._echoed = max(self._echoed, request.echo)
            for item in request.verdicts:
                self._verdicts.put_nowait(item)


def _add_to_server(forger: Forger, server: grpc.aio.Server) -> None:
    """Serve the one method that managers call by themselves."""
    dispatch = grpc.stream_stream_rpc_method_handler(
        forger.dispatch,
        request_deserializer=pb.DispatchRequest.FromString,
        response_serializer=pb.DispatchResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE_NAME, {"Dispatch": dispatch}),))
