"""The HTTP routes: parse, call one use case, choose a status, return a model."""
