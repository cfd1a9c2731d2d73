"""The search: space, trials, studies, workers."""
