"""Bugs in the embedded queue, ledger, fan-out and store."""

from __future__ import annotations

from .plant import Bug

EMBEDDED = "src/hevcq/embedded"
QUEUE = ("tests/contracts/test_queue_contract.py", "-k", "embedded")
LEDGER = ("tests/contracts/test_ledger_contract.py", "-k", "embedded")
STORE = ("tests/contracts/test_store_contract.py", "-k", "embedded")
FANOUT = ("tests/contracts/test_fanout_contract.py", "-k", "embedded")
OPEN = ("tests/unit/embedded/test_open.py", "tests/unit/embedded/test_sharing.py")
PURE = ("tests/chaos/test_planted_survivors.py",)
POWER = ("tests/chaos/test_powercut_embedded.py",)

BUGS = (
    Bug(
        "publication without a look at the fence",
        f"{EMBEDDED}/store/metadata.py",
        "    return there.job_id == publication.job_id and there.fence >= publication.fence",
        "    return False",
        STORE,
    ),
    Bug(
        "completion without a look at the fence",
        f"{EMBEDDED}/jobs/ledger.py",
        "cpu_s = :cpu_s,\nfinished_at = :now, updated_at = :now\n"
        "WHERE job_id = :job_id AND fence = :fence AND state",
        "cpu_s = :cpu_s,\nfinished_at = :now, updated_at = :now\nWHERE job_id = :job_id AND state",
        LEDGER,
    ),
    Bug(
        "progress brings a finished job back",
        f"{EMBEDDED}/jobs/ledger.py",
        'PROGRESS = """UPDATE job SET phase = :phase, percent = :percent, speed = :speed,'
        " eta_s = :eta_s\nWHERE job_id = :job_id AND fence = :fence AND state = 'running'",
        'PROGRESS = """UPDATE job SET state = \'running\', phase = :phase, percent = :percent,'
        " speed = :speed, eta_s = :eta_s\nWHERE job_id = :job_id AND fence = :fence",
        LEDGER,
    ),
    Bug(
        "claim without counting the crash",
        f"{EMBEDDED}/jobs/ledger.py",
        "crashes = crashes + (state = 'running' AND (lease_until <= :now OR owner IS :dead)),\n",
        "",
        LEDGER,
    ),
    Bug(
        "a running job granted twice",
        f"{EMBEDDED}/jobs/ledger.py",
        "AND (lease_until <= :now OR owner = :owner OR owner IS :dead)))\nRETURNING",
        "))\nRETURNING",
        LEDGER,
    ),
    Bug(
        "failures forgotten on a release",
        f"{EMBEDDED}/jobs/ledger.py",
        "failures = failures + :counted,",
        "failures = (failures + 1) * :counted,",
        PURE,
    ),
    Bug(
        "redrive does not reset the failures",
        f"{EMBEDDED}/jobs/ledger.py",
        "SET state = 'queued', failures = 0, crashes = 0,",
        "SET state = 'queued',",
        LEDGER,
    ),
    Bug(
        "settled by a stale receipt",
        f"{EMBEDDED}/jobs/message_table.py",
        'ACK = "DELETE FROM message WHERE id = ? AND held = ?"',
        'ACK = "DELETE FROM message WHERE id = ? AND held >= 0 * ?"',
        QUEUE,
    ),
    Bug(
        "a stale receipt extends",
        f"{EMBEDDED}/jobs/message_table.py",
        'owner = ? WHERE id = ? AND held = ?"\nACK',
        'owner = ? WHERE id = ? AND held >= 0 * ?"\nACK',
        QUEUE,
    ),
    Bug(
        "dead letter without a reason",
        f"{EMBEDDED}/jobs/message_table.py",
        "job_of(body), why.reason, why.failure_class",
        'job_of(body), "", why.failure_class',
        QUEUE,
    ),
    Bug(
        "one receive more than allowed",
        f"{EMBEDDED}/jobs/queue.py",
        "                    if one.attempts > self._config.max_receives:",
        "                    if one.attempts > self._config.max_receives + 1:",
        QUEUE,
    ),
    Bug(
        "a released message comes without its delay",
        f"{EMBEDDED}/jobs/queue.py",
        "        state = message_table.DELAYED if delay_s > 0 else message_table.READY",
        "        state = message_table.READY",
        QUEUE,
    ),
    Bug(
        "a redriven letter stays as well",
        f"{EMBEDDED}/jobs/message_table.py",
        'RETURN_LETTER = "DELETE FROM dead_letter WHERE id = ? AND queue = ? RETURNING body, grp"',
        'RETURN_LETTER = "UPDATE dead_letter SET id = id WHERE id = ? AND queue = ?'
        ' RETURNING body, grp"',
        QUEUE,
    ),
    Bug(
        "fan-out in two transactions",
        f"{EMBEDDED}/jobs/task_publisher.py",
        "                    message_table.send(connection, profile, task, now=now)\n            return",
        '                    connection.execute("COMMIT")\n'
        '                    connection.execute("BEGIN IMMEDIATE")\n'
        "                    message_table.send(connection, profile, task, now=now)\n            return",
        POWER,
    ),
    Bug(
        "an acknowledgement that a power cut undoes",
        f"{EMBEDDED}/jobs/queue.py",
        "        return self._change(message_table.ACK, (receipt.number, receipt.held))",
        "        return self._change(message_table.ACK, (receipt.number, receipt.held), durable=False)",
        POWER,
    ),
    Bug(
        "a source accepted that a power cut undoes",
        f"{EMBEDDED}/jobs/task_publisher.py",
        "        found = self._database.write(work)\n        for profile in new:",
        "        found = self._database.write(work, durable=False)\n        for profile in new:",
        POWER,
    ),
    Bug(
        "a publication that a power cut undoes",
        f"{EMBEDDED}/store/store.py",
        "        return self._database.write(work)",
        "        return self._database.write(work, durable=False)",
        POWER,
    ),
    Bug(
        "a rendition visible before its bytes are durable",
        f"{EMBEDDED}/store/store.py",
        "        files.sync(data)\n        return data.stat().st_size",
        "        return data.stat().st_size",
        POWER,
    ),
    Bug(
        "an error of one writer told to nobody",
        f"{EMBEDDED}/database.py",
        "        if ticket.error is not None:\n            raise ticket.error\n",
        "        ticket.result = getattr(ticket, 'result', None)\n",
        ("tests/unit/embedded/test_database.py",),
    ),
    Bug(
        "the living taken for dead",
        f"{EMBEDDED}/liveness.py",
        "        except BlockingIOError:\n            return False",
        "        except BlockingIOError:\n            return True",
        OPEN,
    ),
    Bug(
        "the dead taken for living",
        f"{EMBEDDED}/liveness.py",
        "        return self._unlocked(self._path(match.group()))",
        "        return False",
        OPEN,
    ),
    Bug(
        "a source that changed is not noticed",
        f"{EMBEDDED}/store/sources.py",
        "        if _version(facts) != source.version or facts.st_size != source.size:",
        "        if False:",
        STORE,
    ),
    Bug(
        "an unknown profile queued in part",
        f"{EMBEDDED}/jobs/task_publisher.py",
        "        for profile in profiles:\n            self._known(profile)\n",
        "",
        FANOUT,
    ),
)
