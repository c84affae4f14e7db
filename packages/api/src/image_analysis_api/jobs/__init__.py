"""Jobs in Redis as the API submits, reads, lists and cancels them."""
