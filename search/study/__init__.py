"""The study: its trials, settings, sampler and storage."""
