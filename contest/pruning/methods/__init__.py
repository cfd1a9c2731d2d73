"""The pruning methods: one small file each, entered in `contest.pruning.registry`."""
