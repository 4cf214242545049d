"""Pools of unlabelled images in the object store: indexed by `python -m dpe_jobs index`, searched by `Pool`."""

from dpe_jobs.generation.pool.search import Hit, Pool, Query

__all__ = ["Hit", "Pool", "Query"]
