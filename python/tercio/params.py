"""The class of a pool's ``pool_params``, where programs for mpire look for it."""

from __future__ import annotations

from tercio._params import WorkerPoolParams as WorkerPoolParams
