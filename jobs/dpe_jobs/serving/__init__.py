"""Fetch a model and serve it with vLLM."""
