"""How much work fits into this machine at once."""

from __future__ import annotations

import os

from replayctl.settings.declared import Settings

# The pool of the local Airflow whose slots keep parallel steps inside the machine.
LOCAL_POOL = "replayctl_spark"
# Memory of Airflow and MLflow themselves, in GiB.
_SERVICES_MEMORY_GIB = 4
_MAX_TASK_CORES = 4


def local_cores(settings: Settings) -> int:
    """Cores that one local step may use; small datasets cannot use more than a few."""
    return settings.local.spark_cores or min(_usable_cores(), _MAX_TASK_CORES)


def local_slots(settings: Settings) -> int:
    """How many steps fit into this machine at once, by cores and by memory; at least 1.

    A Spark step takes one slot per core: two steps that share cores run longer than one after the other.
    """
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    by_memory = int((memory_gib - _SERVICES_MEMORY_GIB) // settings.local.task_memory_gib)
    return max(1, min(_usable_cores(), by_memory))


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
