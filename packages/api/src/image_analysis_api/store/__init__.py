"""The API's Redis client."""
