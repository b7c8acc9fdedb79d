"""Every SQL statement of jobs, messages and pauses.

A row of `job` is a job, or a subjob of a split job: one chunk, or the join. Each transition is one UPDATE
conditional on the old state.
"""
# ruff: noqa: S608 - statements are put together from constants only

from hevcq.sql.database import SKIP_LOCKED, upsert

COLUMNS = (
    "job_id, bucket, key, version, size, profile, state, fence, failures, crashes, owner, "
    "lease_until, phase, percent, speed, eta_s, reason, failure_class, rendition_key, "
    "rendition_size, rendition_sha256, certificate_key, created_at, updated_at, started_at, "
    "finished_at, cpu_s, split, whole, parent, part_split, chunk, frames, doubts, notices, "
    "certificate_sha256, target, verified"
)
BY_ID = f"SELECT {COLUMNS} FROM job WHERE job_id = ?"
INSERT_JOB = """INSERT INTO job
(job_id, bucket, key, version, size, profile, state, created_at, updated_at)
VALUES (?, ?, ?, ?, ?, ?, 'queued', ?, ?) ON CONFLICT (job_id) DO NOTHING"""
INSERT_SUBJOB = """INSERT INTO job (job_id, bucket, key, version, size, profile, state, parent, part_split,
chunk, frames, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, 'queued', ?, ?, ?, ?, ?, ?)"""
SPLIT = """UPDATE job SET state = 'split', split = :split, owner = '', lease_until = 0,
phase = NULL, reason = '', failure_class = NULL, updated_at = :now
WHERE job_id = :job_id AND fence = :fence AND state = 'running'"""
MARK_ENQUEUED = """UPDATE job SET split = json_set(split, '$.announced', json('true'))
WHERE job_id = ? AND state = 'split' AND json_extract(split, '$.name') = ?"""
ABANDON_SPLIT = """UPDATE job SET state = 'queued', split = NULL, whole = :reason, reason = :reason,
failure_class = NULL, updated_at = :now
WHERE job_id = :job_id AND fence = :fence AND state = 'split'"""
# Not if the subjob is done or under a live lease: then the message was a duplicate.
BURY_SPLIT_JOB = """UPDATE job SET state = 'dead', reason = :reason, failure_class = :class,
finished_at = :now, updated_at = :now
WHERE job_id = :job_id AND state = 'split' AND json_extract(split, '$.name') = :split
AND EXISTS (SELECT 1 FROM job AS part WHERE part.job_id = :part AND (part.state IN ('queued', 'dead')
OR (part.state = 'running' AND part.lease_until <= :now)))"""
DELETE_SUBJOBS = "DELETE FROM job WHERE parent <> '' AND parent = ?"
# A late cleanup may run after the job was requeued and split again.
DELETE_SUBJOBS_UNLESS_SPLIT = """DELETE FROM job WHERE parent <> '' AND parent = :job_id
AND NOT EXISTS (SELECT 1 FROM job AS whole WHERE whole.job_id = :job_id AND whole.state = 'split')"""
# The join has no chunk number and sorts last.
SUBJOBS = f"""SELECT {COLUMNS} FROM job WHERE parent <> '' AND parent = ? AND part_split = ?
ORDER BY chunk IS NULL, chunk"""
PLACE = "SELECT seq, key, size FROM job WHERE job_id = ?"

# A claim takes a QUEUED job, or a RUNNING one of the same owner, with an expired lease, or of an
# owner known to be dead; in the last two cases the earlier attempt vanished.
GRANT = """UPDATE job SET state = 'running', fence = fence + 1,
crashes = crashes + CASE WHEN state = 'running' AND (lease_until <= :now OR owner = :dead)
THEN 1 ELSE 0 END,
owner = :owner, lease_until = :until, started_at = :now, updated_at = :now, phase = NULL,
percent = NULL, speed = NULL, eta_s = NULL
WHERE job_id = :job_id AND (state = 'queued' OR (state = 'running'
AND (lease_until <= :now OR owner = :owner OR owner = :dead)))
RETURNING fence, failures, crashes, doubts"""
RENEW = """UPDATE job SET lease_until = :until
WHERE job_id = :job_id AND fence = :fence AND state = 'running'"""
PROGRESS = """UPDATE job SET phase = :phase, percent = :percent, speed = :speed, eta_s = :eta_s
WHERE job_id = :job_id AND fence = :fence AND state = 'running'"""
CERTIFY = """UPDATE job SET certificate_sha256 = :certificate
WHERE job_id = :job_id AND fence = :fence AND state IN ('running', 'split')"""
ENDED = """owner = '', lease_until = 0, phase = NULL, reason = :reason, failure_class = :class,
finished_at = :now, updated_at = :now"""
UNDER_FENCE = "WHERE job_id = :job_id AND fence = :fence AND state IN ('running', 'split')"
COMPLETE = f"""UPDATE job SET state = 'done', {ENDED}, rendition_key = :key, rendition_size = :size,
rendition_sha256 = :sha256, certificate_key = :certificate,
certificate_sha256 = :certificate_sha256, notices = :notices, cpu_s = :cpu_s,
target = :target, verified = :verified {UNDER_FENCE}"""
SKIP = f"UPDATE job SET state = 'skipped', {ENDED} {UNDER_FENCE}"
BURY = f"UPDATE job SET state = 'dead', {ENDED} {UNDER_FENCE}"
BURY_UNCLAIMED = f"""UPDATE job SET state = 'dead', {ENDED} WHERE job_id = :job_id AND (state = 'queued'
OR (state = 'running' AND (lease_until <= :now OR owner = :dead)))"""
CANCEL = f"""UPDATE job SET state = 'dead', {ENDED}
WHERE job_id = :job_id AND parent = '' AND state IN ('queued', 'running', 'split')"""
REQUEUE = """UPDATE job SET state = 'queued', owner = '', lease_until = 0, phase = NULL,
reason = :reason, failure_class = :class, failures = failures + :counted,
doubts = doubts + :doubted, updated_at = :now
WHERE job_id = :job_id AND fence = :fence AND state = 'running'"""
REOPEN = """UPDATE job SET state = 'queued', failures = 0, crashes = 0, doubts = 0, place = '',
interruptions = 0,
reason = 'reopened by ' || :who || ': ' || :why,
failure_class = NULL, rendition_key = NULL, rendition_size = NULL, rendition_sha256 = NULL,
split = NULL, whole = '', certificate_key = NULL, notices = '[]', cpu_s = NULL,
target = NULL, verified = NULL,
started_at = NULL, finished_at = NULL, updated_at = :now
WHERE job_id = :job_id AND state IN ('done', 'skipped', 'dead')"""
RUNNING_OF = """state = 'running'
AND (owner = :owner OR owner >= :owner || ':' AND owner < :owner || ';')"""
"""Jobs that a process runs: its owners are its name, or begin with it and a colon."""
END_LEASES = f"UPDATE job SET lease_until = 0 WHERE {RUNNING_OF}"
LEASED_BY = f"SELECT 1 FROM job WHERE {RUNNING_OF} LIMIT 1"
MAX_INTERRUPTIONS = 200
"""Interruptions from which on each counts as a crash: a job that ends the program each time would else
be tried for ever."""
# Of all numbers in the assignments SQLite takes the old values.
INTERRUPT_JOBS = f"""UPDATE job SET state = 'queued', owner = '', lease_until = 0,
crashes = crashes + CASE WHEN interruptions >= {MAX_INTERRUPTIONS}
OR (percent >= 1 AND place = phase || ' ' || CAST(percent AS INTEGER)) THEN 1 ELSE 0 END,
place = CASE WHEN percent >= 1 THEN phase || ' ' || CAST(percent AS INTEGER) ELSE place END,
interruptions = interruptions + 1, phase = NULL, failure_class = NULL, updated_at = :now,
reason = 'Interrupted: hevcq or the machine ended while this ran.' WHERE {RUNNING_OF}"""
HAS_LETTER = "SELECT 1 FROM dead_letter WHERE job_id = ? LIMIT 1"
COUNTS = "SELECT profile, state, count FROM job_count WHERE count > 0"
REMEMBER = upsert(
    "remembered",
    "source_sha256, profile, revision, reason, made_at",
    "source_sha256, profile, revision",
)
RECALL = """SELECT reason, made_at FROM remembered
WHERE source_sha256 = ? AND profile = ? AND revision = ?"""
PAUSES = """SELECT profile, by, since, until, running FROM pause
WHERE until IS NULL OR until > ? ORDER BY profile"""
SET_PAUSE = upsert("pause", "profile, by, since, until, running", "profile")
END_PAUSE = """DELETE FROM pause WHERE ?1 IS NULL OR profile = ?1
RETURNING profile, by, since, until, running"""


READY, IN_FLIGHT, DELAYED = 0, 1, 2
MAX_DUE_PER_CLAIM = 128
"""Maximum number of due messages that one claim makes ready; bounds its cost."""

MAX_RETURNED_SCANNED = 64
"""Maximum number of returned messages that a send skips to find the served round; bounds its cost."""

FIRST = 0
"""The round of joins, served before any other: a join needs nothing but its own video's chunks, which
are all done, and frees their space."""
PRIORITY = 2**32
"""Rounds between a message's round and its place one priority lower: all rounds of one come first."""
HEAD = f"""SELECT turn, attempts FROM message WHERE queue = ? AND state = 0 AND turn > 0
AND turn < {PRIORITY} ORDER BY turn LIMIT ?"""
LAST_OF_GROUP = "SELECT MAX(turn) FROM message WHERE queue = ? AND grp = ? AND grp <> ''"
MOVED_IN_HAND = f"""SELECT turn, body FROM message WHERE queue = ? AND state = 1
AND (turn < 0 OR turn >= {PRIORITY})"""
"""What consumers hold that was moved: the tasks that they send for its job keep its place."""
ROUNDS = "SELECT MIN(turn), MAX(turn) FROM message WHERE queue = ? AND state <> 1"
WITH_A_CHOICE = "SELECT body FROM message WHERE queue = ? AND state <> 1 AND body LIKE ?"
"""What a command chose for its jobs is in their message, so its text does not follow from the job."""
MOVED_AT_ONCE = 100
MOVE = f"""UPDATE message SET turn = turn * ? + ? WHERE queue = ? AND state <> 1
AND body IN ({", ".join("?" * MOVED_AT_ONCE)}) RETURNING body"""
INSERT_MESSAGE = """INSERT INTO message (queue, state, turn, visible_at, grp, sent_at, body)
VALUES (?, ?, ?, ?, ?, ?, ?)"""
MAKE_READY = f"""WITH due AS (SELECT id FROM message WHERE queue = ? AND state > 0
AND visible_at <= ? ORDER BY visible_at LIMIT ? {SKIP_LOCKED})
UPDATE message SET state = 0 WHERE id IN (SELECT id FROM due)"""
CLAIM = f"""WITH head AS (SELECT id FROM message WHERE queue = ? AND state = 0
ORDER BY turn, id LIMIT ? {SKIP_LOCKED})
UPDATE message SET state = 1, attempts = attempts + 1, held = attempts + 1, owner = ?,
visible_at = ? WHERE id IN (SELECT id FROM head) RETURNING id, turn, attempts, sent_at, body"""
CLAIM_PARTS = CLAIM.replace("state = 0\nORDER", "state = 0 AND (grp <> '' OR turn = 0)\nORDER")
"""Claims only parts of split videos: chunks have their video's group, and joins the first round."""
CLAIM_ONE = """UPDATE message SET state = 1, attempts = attempts + 1, held = attempts + 1, owner = ?,
visible_at = ? WHERE id = ? AND state = 0 RETURNING id, turn, attempts, sent_at, body"""
MAX_LOOKED_AT = 5000
"""Maximum number of waiting messages that a claim reads to find one of a preferred job, about 50 ms;
beyond it the usual order decides."""
ALL_IN_ORDER = "SELECT id, body FROM message WHERE queue = ? AND state = 0 ORDER BY turn, id"
IN_ORDER = f"{ALL_IN_ORDER} LIMIT {MAX_LOOKED_AT}"
FREE_MESSAGES = """UPDATE message SET state = 0, held = NULL, owner = ''
WHERE state > 0 AND state = 1 AND owner = ?"""
# Never back to 0: a first delivery is known to be no duplicate.
INTERRUPT_MESSAGES = """UPDATE message SET state = 0, held = NULL, owner = '',
attempts = CASE WHEN attempts > 1 THEN attempts - 1 ELSE 1 END WHERE state > 0 AND state = 1 AND owner = ?"""
TOO_LATE = "SELECT 1 FROM message WHERE state = 2 AND visible_at > ? LIMIT 1"
RECALL_TOO_LATE = "UPDATE message SET visible_at = ? WHERE state = 2 AND visible_at > ?"
HELD_BY = "SELECT 1 FROM message WHERE state > 0 AND state = 1 AND owner = ? LIMIT 1"
EXTEND = "UPDATE message SET state = 1, visible_at = ?, owner = ? WHERE id = ? AND held = ?"
ACK = "DELETE FROM message WHERE id = ? AND held = ?"
RELEASE = """UPDATE message SET state = ?, visible_at = ?, held = NULL, owner = ''
WHERE id = ? AND held = ?"""
UNCOUNT = "UPDATE message SET attempts = ?, held = ? WHERE id = ?"
REMOVE = """DELETE FROM message WHERE id = ? AND held = ? RETURNING queue, body, attempts, grp"""
INSERT_DEAD_LETTER = """INSERT INTO dead_letter
(queue, body, job_id, reason, failure_class, attempts, tail, grp, buried_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"""
DELETE_OBSOLETE_LETTERS = """DELETE FROM dead_letter WHERE job_id = :job_id AND failure_class = 'receives'
AND (SELECT state FROM job WHERE job_id = :job_id) IN ('done', 'skipped')"""
REDRIVE_LETTER = "DELETE FROM dead_letter WHERE id = ? AND queue = ? RETURNING body, grp"
PEEK_PARTS = """SELECT EXISTS (SELECT 1 FROM message WHERE queue = ?1 AND state = 0
AND (grp <> '' OR turn = 0)), (SELECT MIN(visible_at) FROM message WHERE queue = ?1 AND state > 0
AND (grp <> '' OR turn = 0))"""
PEEK = """SELECT EXISTS (SELECT 1 FROM message WHERE queue = ?1 AND state = 0),
(SELECT MIN(visible_at) FROM message WHERE queue = ?1 AND state > 0)"""
COUNT = """SELECT
(SELECT COUNT(*) FROM message WHERE queue = ?1 AND state = 0),
(SELECT COUNT(*) FROM message WHERE queue = ?1 AND state > 0 AND visible_at <= ?2),
(SELECT COUNT(*) FROM message WHERE queue = ?1 AND state > 0 AND state = 1 AND visible_at > ?2),
(SELECT COUNT(*) FROM message WHERE queue = ?1 AND state > 0 AND state = 2 AND visible_at > ?2),
(SELECT COUNT(*) FROM dead_letter WHERE queue = ?1),
(SELECT sent_at FROM message WHERE queue = ?1 AND state = 0 ORDER BY turn, id LIMIT 1),
(SELECT sent_at FROM message WHERE queue = ?1 AND state > 0 ORDER BY visible_at LIMIT 1)"""
LETTERS = """SELECT id, body, reason, failure_class, attempts, tail, buried_at FROM dead_letter
WHERE queue = :queue AND id > :after AND (:class IS NULL OR failure_class = :class)
AND (:job IS NULL OR job_id = :job)
ORDER BY id LIMIT :page"""
FILES_MARK = "SELECT files FROM hevcq_schema"
MARK_FILES = "UPDATE hevcq_schema SET files = ?"
PURGE = "DELETE FROM dead_letter WHERE id = ? AND queue = ?"
