"""The names of RQ's keys that our scripts read or write; a test compares each one with RQ's own.

A name that ends in `:` is a prefix, followed by the ID of a job or the name of a queue.
"""

JOB = "rq:job:"
"""A job's hash; its field `origin` names its queue."""

RESULTS = "rq:results:"
QUEUES = "rq:queues"
QUEUE = "rq:queue:"
"""The list of the jobs that wait; workers pop from its left end."""

INTERMEDIATE = ":intermediate"
"""After the key of a queue: the list of the jobs that were popped and not yet started."""

FIRST_SEEN = ":first_seen:"
"""Between the key of an intermediate list and a job's ID: when the job was first seen there."""

STARTED = "rq:wip:"
"""A queue's executions, each `JOB_ID:EXECUTION_ID`, by the time when they expire."""

FINISHED = "rq:finished:"
FAILED = "rq:failed:"
CANCELED = "rq:canceled:"
SCHEDULED = "rq:scheduled:"
DEFERRED = "rq:deferred:"
READY = "rq:ready:"
EXECUTION = "rq:execution:"
"""An execution's hash, with the same ID as in `STARTED`."""

EXECUTIONS = "rq:executions:"
"""A job's executions, by the time when they expire."""

EXECUTIONS_OF_WORKER = ":executions"
"""After the key of a worker: the set of the executions that it runs."""

WORKERS = "rq:workers"
WORKERS_OF = "rq:workers:"
SUSPENDED = "rq:suspended"

PERMANENT_PREFIXES = (QUEUES, QUEUE, WORKERS, STARTED, FINISHED, FAILED, CANCELED)
"""The keys that may have no TTL: RQ's lists, sets and registries, whose members are removed instead."""
