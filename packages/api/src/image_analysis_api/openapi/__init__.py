"""The OpenAPI document beyond what the signatures say."""
