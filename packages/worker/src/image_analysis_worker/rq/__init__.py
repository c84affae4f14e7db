"""RQ's queues, registries and workers; the only package that imports rq."""
