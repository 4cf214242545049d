"""Ask a model what it can do, and turn the answers into quotas."""
