"""The place of the task function in the release before this one; gone in the next."""
