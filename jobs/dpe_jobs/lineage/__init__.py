"""From a model back to everything that it came from, by the manifests."""
