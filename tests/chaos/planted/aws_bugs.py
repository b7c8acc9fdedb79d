"""Bugs in what only AWS has: receipts without guards, 12 hours, lost replies, conditional writes."""

from __future__ import annotations

from .plant import Bug

AWS = "src/hevcq/aws"
SQS, LETTERS = ("tests/aws/test_sqs.py",), ("tests/aws/test_dead_letters.py",)
DYNAMO, PUBLISH = ("tests/aws/test_dynamodb.py",), ("tests/aws/test_publish.py",)
RECEIPTS = ("tests/aws/test_receipts.py",)
SPLITS = ("tests/aws/test_split_writes.py",)
QUEUE = ("tests/contracts/test_queue_contract.py", "-k", "aws")
LEDGER = ("tests/contracts/test_ledger_contract.py", "-k", "aws")
PARTS = ("tests/contracts/test_subjob_ledger_contract.py", "-k", "aws")
STORE = ("tests/contracts/test_store_contract.py", "-k", "aws")
ENVELOPE = ("tests/aws/test_envelope.py",)

BUGS = (
    Bug(
        "a receipt past its deadline extends on SQS",
        f"{AWS}/sqs/receipts.py",
        "            lease = self._leases.get(receipt)\n"
        "            return lease if lease is not None and now < lease.deadline else None",
        "            lease = self._leases.get(receipt)\n            return lease",
        RECEIPTS,
    ),
    Bug(
        "a receipt settled twice on SQS",
        f"{AWS}/sqs/receipts.py",
        "            lease = self._leases.pop(receipt, None)\n            return",
        "            lease = self._leases.get(receipt)\n            return",
        QUEUE,
    ),
    Bug(
        "the deadline counted from SQS's late answer",
        f"{AWS}/sqs/queue.py",
        "        handed_out = min(now, asked + wait)",
        "        handed_out = now",
        SQS,
    ),
    Bug(
        "SQS asked for more than it may hide",
        f"{AWS}/sqs/queue.py",
        "min(math.ceil(seconds), math.floor(lease.ends_at_latest - now))",
        "math.ceil(seconds)",
        SQS,
    ),
    Bug(
        "a release past SQS's twelve hours",
        f"{AWS}/sqs/queue.py",
        "max(0, min(math.ceil(delay_s), room))",
        "math.ceil(delay_s)",
        SQS,
    ),
    Bug(
        "a heartbeat that does not move the deadline",
        f"{AWS}/sqs/queue.py",
        "        lease.deadline = now + whole\n        return lease.deadline",
        "        return now + whole",
        RECEIPTS,
    ),
    Bug(
        "a heartbeat that SQS refused keeps the receipt",
        f"{AWS}/sqs/queue.py",
        "        except LeaseLost:\n            self._leases.drop(delivery.receipt)\n            raise",
        "        except LeaseLost:\n            raise",
        SQS,
    ),
    Bug(
        "a settling that got no answer gives the receipt up",
        f"{AWS}/sqs/queue.py",
        "            self._leases.put_back(delivery.receipt, lease)\n            raise",
        "            raise",
        SQS,
    ),
    Bug(
        "messages that SQS did not take forgotten",
        f"{AWS}/sqs/queue.py",
        "        if failed:",
        "        if False:",
        SQS,
    ),
    Bug(
        "more received than there is room for",
        f"{AWS}/sqs/queue.py",
        "MaxNumberOfMessages=min(limit, BATCH)",
        "MaxNumberOfMessages=BATCH",
        SQS,
    ),
    Bug(
        "the message deleted before its letter is written",
        f"{AWS}/sqs/queue.py",
        "        if not self._settle(delivery, lambda _lease: self._desk.post(body, delivery, why)):\n"
        "            return False\n",
        "        if not self._settle(delivery, lambda _lease: self._delete(delivery)):\n"
        "            return False\n"
        "        self._desk.post(body, delivery, why)\n",
        LETTERS,
    ),
    Bug(
        "a letter removed before its task is sent again",
        f"{AWS}/sqs/queue.py",
        '            self._send_batch([{"Id": "0", "MessageBody": dead.body, **group}])\n'
        "            self._desk.remove(held)\n",
        "            self._desk.remove(held)\n"
        '            self._send_batch([{"Id": "0", "MessageBody": dead.body, **group}])\n',
        ("tests/aws/test_redrive.py", *LETTERS),
    ),
    Bug(
        "listed letters not given back",
        f"{AWS}/sqs/dead_letters.py",
        "                self._show(url, receipts[start : start + BATCH])",
        "                pass",
        LETTERS,
    ),
    Bug(
        "a ledger write on AWS without a look at the fence",
        f"{AWS}/dynamodb/job_table.py",
        '            under = {"state": text(state.value), "fence": number(fence)}',
        '            under = {"state": text(state.value)}',
        LEDGER,
    ),
    Bug(
        "a claim on AWS of what somebody changed since the look",
        f"{AWS}/dynamodb/changes.py",
        '        "fence": number(record.fence),\n        "lease_until": number(record.lease_until),\n',
        "",
        DYNAMO,
    ),
    Bug(
        "a running job on AWS granted twice",
        f"{AWS}/dynamodb/job_table.py",
        "            if live and record.owner != owner:",
        "            if False:",
        LEDGER,
    ),
    Bug(
        "a claim on AWS without counting the crash",
        f"{AWS}/dynamodb/job_table.py",
        "            crashes = record.crashes + (1 if running and not live else 0)",
        "            crashes = record.crashes",
        LEDGER,
    ),
    Bug(
        "a lost reply of DynamoDB taken for a refusal",
        f"{AWS}/dynamodb/job_table.py",
        '            return there.get("last_write") == token',
        "            return False",
        DYNAMO,
    ),
    Bug(
        "a refusal of DynamoDB taken for a success",
        f"{AWS}/dynamodb/job_table.py",
        '            return there.get("last_write") == token',
        "            return True",
        LEDGER,
    ),
    Bug(
        "failures on AWS not counted",
        f"{AWS}/dynamodb/ledger.py",
        'blame(reason, failure_class), {"failures": number(1)})',
        "blame(reason, failure_class), {})",
        (*LEDGER[:2], "aws and counted"),
    ),
    Bug(
        "progress on AWS written at every tick",
        f"{AWS}/dynamodb/ledger.py",
        "            if phase is progress.phase and now - at < PROGRESS_EVERY_S:",
        "            if False:",
        ("tests/aws/test_progress_writes.py",),
    ),
    Bug(
        "a redrive on AWS does not reset the failures",
        f"{AWS}/dynamodb/ledger.py",
        '            "failures": number(0),\n            "crashes": number(0),\n            "doubts"',
        '            "doubts"',
        (*LEDGER[:2], "aws and reopened"),
    ),
    Bug(
        "a job registered again on AWS begins anew",
        f"{AWS}/dynamodb/ledger.py",
        "                    Item=item,\n"
        '                    ConditionExpression="attribute_not_exists(pk)",\n',
        "                    Item=item,\n",
        LEDGER,
    ),
    Bug(
        "a split on AWS named before its parts are there",
        f"{AWS}/dynamodb/subjobs.py",
        "        chunks: list[tuple[int | None, int]] = [*enumerate(frames), (None, 0)]\n",
        "        self._under(job_id, fence, {**moved(job_id, JobState.SPLIT, self._clock.now()),"
        ' "split": text(split.model_dump_json())})\n'
        "        chunks: list[tuple[int | None, int]] = [*enumerate(frames), (None, 0)]\n",
        SPLITS,
    ),
    Bug(
        "a split on AWS without a look at the fence",
        f"{AWS}/dynamodb/subjobs.py",
        "job.state is not JobState.RUNNING or job.fence != fence:",
        "job.state is not JobState.RUNNING:",
        SPLITS,
    ),
    Bug(
        "a split on AWS given up under a stale fence",
        f"{AWS}/dynamodb/subjobs.py",
        '        under = {"state": text(JobState.SPLIT.value), "fence": number(fence)}',
        '        under = {"state": text(JobState.SPLIT.value)}',
        (*PARTS[:2], "aws and given_up"),
    ),
    Bug(
        "a publication on S3 without a look at the fence",
        f"{AWS}/s3/publish.py",
        "        if not fence.isdecimal() or int(fence) >= publication.fence:",
        "        if False:",
        STORE,
    ),
    Bug(
        "a publication on S3 over what came meanwhile",
        f"{AWS}/s3/publish.py",
        '            condition={"IfNoneMatch": "*"} if there is None else {"IfMatch": there["ETag"]},',
        "            condition={},",
        PUBLISH,
    ),
    Bug(
        "one bad record of an event passed over",
        f"{AWS}/sqs/message_parser.py",
        '    if not isinstance(record, dict) or record.get("eventSource") != "aws:s3":\n'
        '        raise BadMessage("The event has a record that is not from S3.")',
        '    if not isinstance(record, dict) or record.get("eventSource") != "aws:s3":\n'
        '        return "not from S3"',
        ENVELOPE,
    ),
    Bug(
        "what a killed attempt had sent is left open",
        f"{AWS}/s3/publish.py",
        "            if attempt == 0:\n                self._clear(publication)\n",
        "",
        ("tests/aws/test_publish.py",),
    ),
    Bug(
        "another film's open upload aborted",
        f"{AWS}/s3/publish.py",
        '            if begun["Key"] == key:\n',
        "            if begun:\n",
        ("tests/aws/test_publish.py",),
    ),
)
