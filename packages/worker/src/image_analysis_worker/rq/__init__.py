"""RQ's registries and queues: the only package that imports rq."""
