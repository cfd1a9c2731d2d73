"""Who does the trials: one process, many on a shared storage, or a Ray cluster."""
