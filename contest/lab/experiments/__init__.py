"""The experiments, one module each: what is trained, pruned and measured."""
