"""The queue on PostgreSQL beside procrastinate and Celery + Redis: empty jobs, wake-up, idle cost.

Run as `python benchmarks/queue_peers.py [ROUNDS [JOBS [WAITING]]]`. The three take turns; each works with
one process, and a server of its own with the settings that its maker gives it. procrastinate and Celery
are installed by pip into a temporary environment. With WAITING, a claim among so many waiting messages
is compared with one among a thousand.
"""

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from threading import Event

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[1] / "tests")]
IDLE_S, WAKES = 10.0, 10
RUNS = ("hevcq", "procrastinate", "celery")
PEER = """
import os, sys, time
def note():
    with open("log", "a") as log:
        log.write(f"{time.time()}\\n")
if os.environ["KIND"] == "celery":
    from celery import Celery
    app = Celery("peer", broker="redis+socket://" + os.path.abspath("redis.sock"))
    app.conf.update(task_ignore_result=True, task_acks_late=True, worker_prefetch_multiplier=1)
    task = app.task(note, name="note")
    send = task.delay
else:
    import procrastinate
    new = procrastinate.PsycopgConnector if "procrastinate" in sys.argv[0] else procrastinate.SyncPsycopgConnector
    app = procrastinate.App(connector=new(conninfo=os.environ["DSN"]))
    task = app.task(note, name="note")
    send = task.defer
"""
SEND = """
import sys, time, peer
if peer.os.environ["KIND"] != "celery":
    peer.app.open()
    if "schema" in sys.argv:
        peer.app.schema_manager.apply_schema()
for line in sys.stdin:
    began = time.time()
    for _ in range(int(line)):
        peer.send()
    print(began, flush=True)
"""


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process and of all below it, living or waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        below = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    except OSError:
        return 0.0
    own = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return own + sum(map(cpu_s, map(int, below)))


def wait_for(condition: Callable[[], object]) -> None:
    """Look at a condition until it is true."""
    until = time.monotonic() + 300
    while not condition():
        if time.monotonic() > until:
            raise SystemExit("It did not end in time.")
        time.sleep(0.005)


def serve_redis(folder: Path, ending: ExitStack) -> int:
    """Start Redis on a socket; return its process id."""
    words = ["redis-server", "--port", "0", "--unixsocket", "redis.sock", "--appendonly", "yes"]
    child = subprocess.Popen(words, cwd=folder, stdout=subprocess.DEVNULL)
    ending.callback(child.wait, 30)
    ending.callback(child.terminate)
    wait_for((folder / "redis.sock").exists)
    return child.pid


def serve_postgres(ending: ExitStack) -> tuple[int, str]:
    """Start PostgreSQL on a socket, durable as by default; return its process id and how to reach it."""
    from support import postgres

    for name in ("fsync", "full_page_writes", "autovacuum"):
        postgres.SETTINGS[name] = "on"
    server = ending.enter_context(postgres.own_server())
    return int((server.folder / "data/postmaster.pid").read_text().split()[0]), server.dsn


def hevcq_worker(folder: Path, dsn: str) -> None:
    """Take each job as a worker's slot does, and skip it instead of encoding it."""
    app = _app(folder, dsn)
    queue, ledger, woken, never = app.backend.queues["hevc"], app.backend.ledger, Event(), Event()
    queue.listen(woken.set)
    with (folder / "log").open("a", buffering=1) as log:
        while True:
            woken.clear()
            found = queue.receive(1, wait_s=0, stop=never)
            for delivery in found:
                (task,) = delivery.tasks
                claim = ledger.claim(task.source, task.profile, owner=app.backend.owner, lease_s=60)
                print(time.time(), file=log)
                ledger.skip(task.job_id, claim.fence, "not_smaller")
                queue.ack(delivery)
            if not found:
                woken.wait(60)


def hevcq_sender(folder: Path, dsn: str) -> None:
    """Queue as many jobs as each line of the input says."""
    from contracts.backends import source

    app, number = _app(folder, dsn), 0
    publisher = app.backend.task_publisher
    for line in sys.stdin:
        began = time.time()
        for _ in range(int(line)):
            number += 1
            publisher.publish(source(f"{os.getpid()}-{number}"), ["hevc"], announced=True)
        print(began, flush=True)


def _app(folder: Path, dsn: str):  # type: ignore[no-untyped-def]  # noqa: ANN202
    from hevcq.settings.model import Settings
    from hevcq.util.clock import SystemClock
    from hevcq.wiring.app import App

    given = {"data_dir": folder / "data", "backend": "postgres", "postgres": {"dsn": dsn}}
    return App(Settings.model_validate(given), SystemClock())


def measure(kind: str, python: str, jobs: int) -> tuple[float, float, float]:
    """Return CPU milliseconds of an empty job, the median wake-up (ms), and the idle share of a core (%)."""
    with ExitStack() as ending:
        folder = Path(ending.enter_context(tempfile.TemporaryDirectory(prefix="hevcq-peers-")))
        (folder / "peer.py").write_text(PEER)
        log, dsn = folder / "log", ""
        if kind == "celery":
            server = serve_redis(folder, ending)
        else:
            server, dsn = serve_postgres(ending)
        env = {"PATH": os.environ["PATH"], "KIND": kind, "DSN": dsn, "PYTHONPATH": str(folder)}
        send = [python, "-c", SEND, "schema"]
        work = [python, "-m", "celery", "-A", "peer", "worker", "-c", "1", "-l", "error"]
        if kind == "procrastinate":
            work = [str(Path(python).parent / kind), "--app=peer.app", "worker", "--concurrency=1"]
        elif kind == "hevcq":
            send, work = ([python, str(HERE), each, str(folder), dsn] for each in ("send", "work"))
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        sender = subprocess.Popen(send, cwd=folder, env=env, text=True, **pipes)
        assert sender.stdin is not None
        assert sender.stdout is not None
        told, heard = sender.stdin, sender.stdout

        def queue(number: int) -> float:
            print(number, file=told, flush=True)
            return float(heard.readline())

        def done() -> list[float]:
            return [float(line) for line in log.read_text().split()] if log.exists() else []

        queue(0)  # its tables are there
        with (folder / "words").open("wb") as words:
            worker = subprocess.Popen(work, cwd=folder, env=env, stdout=words, stderr=words)
        ending.callback(worker.wait, 60)
        ending.callback(worker.send_signal, signal.SIGKILL if kind == "hevcq" else signal.SIGTERM)
        ending.callback(sender.wait, 60)
        ending.callback(told.close)
        queue(1)
        wait_for(done)
        all_of_it = (server, sender.pid, worker.pid)
        waits = []
        for _ in range(WAKES):
            time.sleep(0.7)
            seen = len(done())
            began = queue(1)
            wait_for(lambda least=seen: len(done()) > least)
            waits.append((done()[-1] - began) * 1e3)
        before, seen = sum(map(cpu_s, all_of_it)), len(done())
        queue(jobs)
        wait_for(lambda: len(done()) == seen + jobs)
        time.sleep(0.5)
        each_ms = (sum(map(cpu_s, all_of_it)) - before) / jobs * 1e3
        if kind == "hevcq":  # the stand-in lacks what a whole worker does beside its queue
            worker.kill()
            env |= {
                "HEVCQ_BACKEND": "postgres",
                "HEVCQ_POSTGRES__DSN": dsn,
                "HEVCQ_MIN_FREE_MIB": "1",
            }
            work = [python, "-m", "hevcq", "--data-dir", str(folder / "data"), "worker", "-w", "1"]
            whole = subprocess.Popen(work, cwd=folder, env=env, stderr=subprocess.DEVNULL)
            ending.callback(whole.wait, 60)
            ending.callback(whole.terminate)
            all_of_it = (server, sender.pid, whole.pid)
        time.sleep(6)
        before = sum(map(cpu_s, all_of_it))
        time.sleep(IDLE_S)
        idle = (sum(map(cpu_s, all_of_it)) - before) / IDLE_S * 100
        return each_ms, statistics.median(waits), idle


def claims(waiting: int) -> float:
    """Return the time of a claim with its ack among `waiting` messages / among a thousand, interleaved."""
    from contracts.backends import task

    with ExitStack() as ending:
        folder = Path(ending.enter_context(tempfile.TemporaryDirectory()))
        took: dict[int, list[float]] = {1000: [], waiting: []}
        queues = {}
        for number in took:
            _, dsn = serve_postgres(ending)
            app = _app(folder / str(number), dsn)
            ending.callback(app.close)
            queues[number] = queue = app.backend.queues["hevc"]
            queue.send([task("first")])
            app._sql.database.change(
                "INSERT INTO message (queue, state, turn, visible_at, grp, sent_at, body) SELECT queue,"
                f" 0, turn, visible_at, grp, sent_at, body FROM message, generate_series(2, {number})"
            )
            app._sql.database.change("ANALYZE message")
        for _ in range(400):
            for number, queue in queues.items():
                began = time.perf_counter()
                (delivery,) = queue.receive(1, wait_s=0, stop=Event())
                queue.ack(delivery)
                took[number].append(time.perf_counter() - began)
        return statistics.median(took[waiting]) / statistics.median(took[1000])


def main() -> int:
    """Measure, print, write, judge."""
    from benchmarks.measured import report

    rounds, jobs, waiting = [*map(int, sys.argv[1:]), *(3, 500, 0)[len(sys.argv) - 1 :]]
    rows: list[dict[str, object]] = []
    if waiting:
        figure = f"a claim among {waiting:,} / among 1,000"
        rows.append({"figure": figure, "value": claims(waiting), "limit": 1.2})
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        peers = f"{folder}/bin/python"
        wanted = ["procrastinate", "celery[redis]"] if shutil.which("redis-server") else []
        pip = [peers, "-m", "pip", "-q", "install", *wanted]
        if not wanted or subprocess.run(pip, check=False).returncode:
            print("skipped: it needs redis-server, and a registry with procrastinate and celery")
            return report("queue_peers", rows)
        pythons = dict.fromkeys(RUNS, peers) | {"hevcq": sys.executable}
        found: dict[str, list[tuple[float, float, float]]] = {kind: [] for kind in RUNS}
        for _ in range(rounds):
            for kind in RUNS:
                found[kind].append(measure(kind, pythons[kind], jobs))
                print(kind, json.dumps(found[kind][-1]), flush=True)
    for kind in RUNS:
        each_ms, wake, idle = map(statistics.median, zip(*found[kind], strict=True))
        rows.append({"figure": f"{kind}: empty jobs a CPU second", "value": 1000 / each_ms})
        limit = 50.0 if kind == "hevcq" else None
        rows.append({"figure": f"{kind}: wake-up", "value": wake, "limit": limit, "unit": "ms"})
        rows.append({"figure": f"{kind}: idle, share of a core", "value": idle, "unit": "%"})
    return report("queue_peers", rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["work"]:
        hevcq_worker(Path(sys.argv[2]), sys.argv[3])
    elif sys.argv[1:2] == ["send"]:
        hevcq_sender(Path(sys.argv[2]), sys.argv[3])
    else:
        sys.exit(main())
