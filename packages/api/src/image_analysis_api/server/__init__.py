"""HTTP below the routes: connections, request context, the memory limit for bodies, error documents."""
