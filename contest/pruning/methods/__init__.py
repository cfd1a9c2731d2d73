"""The pruning methods: one small file each, found by itself; it enters its row in `contest.pruning.registry`."""

import importlib
import pkgutil

for _found in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_found.name}")
