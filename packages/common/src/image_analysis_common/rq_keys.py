"""RQ's names of its keys, as far as our scripts read or write them; a test compares each one with RQ's own.

A name that ends in `:` is a prefix: the ID of a job follows, or the name of a queue.
"""

JOB = "rq:job:"
"""A job's hash; its field `origin` names its queue."""

RESULTS = "rq:results:"
QUEUES = "rq:queues"
QUEUE = "rq:queue:"
"""The list of the jobs that wait; a worker pops from its end."""

INTERMEDIATE = ":intermediate"
"""After the key of a queue: the list of the jobs between pop and start."""

FIRST_SEEN = ":first_seen:"
"""After the key of an intermediate list and before a job's ID: when the job was first seen there."""

STARTED = "rq:wip:"
"""A queue's executions, each `JOB_ID:EXECUTION_ID`, by when they expire."""

FINISHED = "rq:finished:"
FAILED = "rq:failed:"
CANCELED = "rq:canceled:"
SCHEDULED = "rq:scheduled:"
DEFERRED = "rq:deferred:"
READY = "rq:ready:"
WORKERS = "rq:workers"
WORKERS_OF = "rq:workers:"
SUSPENDED = "rq:suspended"

PERMANENT_PREFIXES = (QUEUES, QUEUE, WORKERS, STARTED, FINISHED, FAILED, CANCELED)
"""The keys that may stand without a TTL: RQ's books, whose members expire instead."""
