"""What somebody who has not signed in can hold of the server."""

import asyncio
import errno

import pytest
from starlette.requests import Request

from hevcq.web import server, services


@pytest.mark.parametrize(
    ("soft", "hard", "after", "most"), [(1024, 65_536, 4096, 2048), (256, 256, 256, 128)]
)
def test_a_process_with_few_files_serves_fewer_connections(soft, hard, after, most, monkeypatch):
    limits = {"now": (soft, hard)}
    monkeypatch.setattr(server.resource, "getrlimit", lambda _kind: limits["now"])
    monkeypatch.setattr(server.resource, "setrlimit", lambda _kind, pair: limits.update(now=pair))

    assert server.connection_limit() == most
    assert limits["now"] == (after, hard)


def test_too_many_open_files_fill_no_log(capsys) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(server.AcceptFailures())

        class Full:
            def accept(self) -> None:
                raise OSError(errno.EMFILE, "Too many open files")

            def fileno(self) -> int:
                return 0

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "_remove_reader", lambda _fd: None)
            patch.setattr(loop, "call_later", lambda *_given: None)
            for _ in range(server.BACKLOG):
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
            await services.read_form(Request(scope, never))

    with pytest.raises(services.HTTPException) as caught:
        asyncio.run(read())
    assert caught.value.status_code == 408
