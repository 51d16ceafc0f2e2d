"""The tasks of this checkout: those of opsgate, and the project's own (devtasks.py)."""

from __future__ import annotations

from invoke import Collection

import devtasks
import opsgate.tasks

namespace = Collection.from_module(opsgate.tasks)
for task in (devtasks.bench, devtasks.docs, devtasks.lint, devtasks.test):
    namespace.add_task(task)
