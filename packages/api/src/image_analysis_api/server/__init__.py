"""HTTP below the routes: connections, request context, the memory budget of bodies, error documents."""
