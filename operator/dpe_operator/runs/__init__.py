"""DPERuns: the same observe, decide and act as for an iteration, whose children are iterations."""
