"""What somebody who has not signed in can hold of the server."""

import asyncio
import errno
from collections.abc import Awaitable, Callable

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from uvicorn.server import ServerState

from hevcq.web import connections, services
from hevcq.web.connections import BoundedProtocol
from hevcq.web.services import read_form

ASK = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
Opened = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def answer(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
    await PlainTextResponse("here")(scope, receive, send)


def attack(scenario: Callable[[Callable[[], Awaitable[Opened]]], Awaitable[None]]) -> None:
    """Run a scenario, which is given a function that connects, against a server."""

    async def run() -> None:
        config = uvicorn.Config(answer, http=BoundedProtocol, lifespan="off", log_config=None)
        config.load()
        state = ServerState()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: BoundedProtocol(config, state, {}), "127.0.0.1", 0
        )
        port, held = server.sockets[0].getsockname()[1], []

        async def connect() -> Opened:
            held.append(await asyncio.open_connection("127.0.0.1", port))
            return held[-1]

        try:
            async with asyncio.timeout(20):
                await scenario(connect)
        finally:
            for _, writer in held:
                writer.close()
            server.close()

    asyncio.run(run())


async def ended(reader: asyncio.StreamReader) -> bool:
    try:
        return await reader.read() == b""
    except ConnectionResetError:
        return True


async def asked(opened: Opened) -> bytes:
    opened[1].write(ASK)
    return await opened[0].readuntil(b"here")


@pytest.mark.parametrize("start", [b"", b"GET / HTTP/1.1\r\nHost: 127"])
def test_a_head_that_never_ends_is_cut_off(start: bytes, monkeypatch) -> None:
    monkeypatch.setattr(connections, "HEAD_S", 0.05)

    async def scenario(connect) -> None:  # type: ignore[no-untyped-def]
        reader, writer = await connect()
        writer.write(start)
        assert await ended(reader)
        used = await connect()
        await asked(used)
        used[1].write(b"GET / HTT")
        assert await ended(used[0]), "nor the second one of a connection"

    attack(scenario)


def test_connections_are_bounded_and_those_that_are_open_go_on(monkeypatch) -> None:
    monkeypatch.setattr(connections, "most_connections", lambda: 4)

    async def scenario(connect) -> None:  # type: ignore[no-untyped-def]
        kept = [await connect() for _ in range(4)]
        for each in kept:
            await asked(each)
        assert await ended((await connect())[0])
        await asked(kept[0])
        kept.pop()[1].close()
        await asked(kept[0])
        await asked(await connect())

    attack(scenario)


def test_one_peer_of_the_network_gets_half_of_them(monkeypatch) -> None:
    monkeypatch.setattr(connections, "most_connections", lambda: 4)
    monkeypatch.setattr(connections, "is_loopback", lambda _peer: False)

    async def scenario(connect) -> None:  # type: ignore[no-untyped-def]
        kept = [await connect() for _ in range(2)]
        for each in kept:
            await asked(each)
        assert await ended((await connect())[0])
        await asked(kept[1])

    attack(scenario)


def test_a_process_with_few_files_takes_fewer_connections(monkeypatch) -> None:
    limits = {"now": (1024, 65_536)}
    monkeypatch.setattr(connections.resource, "getrlimit", lambda _kind: limits["now"])
    monkeypatch.setattr(
        connections.resource, "setrlimit", lambda _kind, pair: limits.update(now=pair)
    )

    assert connections.most_connections() == 512
    connections.raise_open_files()
    assert limits["now"] == (4096, 65_536)
    assert connections.most_connections() == 2048
    limits["now"] = (256, 256)
    connections.raise_open_files()
    assert (limits["now"], connections.most_connections()) == ((256, 256), 128)


def test_too_many_open_files_fill_no_log(capsys) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(connections.AcceptFailures())

        class Full:
            def accept(self) -> None:
                raise OSError(errno.EMFILE, "Too many open files")

            def fileno(self) -> int:
                return 0

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "_remove_reader", lambda _fd: None)
            patch.setattr(loop, "call_later", lambda *_given: None)
            for _ in range(connections.AT_ONCE):
                loop._accept_connection(asyncio.Protocol, Full(), backlog=1)  # type: ignore[attr-defined]
        loop.call_exception_handler({"message": "something else"})

    asyncio.run(run())
    assert capsys.readouterr().out.count("Too many open files") == 1


def test_a_form_that_comes_byte_by_byte_is_given_up(monkeypatch) -> None:
    monkeypatch.setattr(services, "BODY_S", 0.01)

    async def never() -> dict[str, object]:
        await asyncio.Event().wait()
        raise AssertionError

    kind = [(b"content-type", b"application/x-www-form-urlencoded")]
    scope = {"type": "http", "method": "POST", "headers": kind}

    async def read() -> None:
        async with asyncio.timeout(10):
            await read_form(Request(scope, never))

    with pytest.raises(services.HTTPException) as caught:
        asyncio.run(read())
    assert caught.value.status_code == 408
