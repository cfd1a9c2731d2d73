"""The pruning methods: a module each, or one for a few that share their arithmetic.

Each module here is found by itself and enters its methods in `contest.pruning.registry`.
"""

import importlib
import pkgutil

for _found in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_found.name}")
