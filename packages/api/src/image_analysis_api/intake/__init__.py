"""From a request's body to the bytes of an image worth queuing."""
