"""RQ's books: the one package that imports rq."""
