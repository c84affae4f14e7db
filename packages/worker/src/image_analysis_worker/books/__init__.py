"""Where the previous release keeps its task function; the next release removes this package."""
