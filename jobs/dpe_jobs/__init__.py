"""The stages of one iteration, each a process in a pod: `python -m dpe_jobs STAGE`."""
