"""The HTTP service around the board: API, schemas, limits, security headers, observability."""
