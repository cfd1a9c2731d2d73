"""What an experiment measures: latency, sizes on disk, floating point operations, the machine."""
