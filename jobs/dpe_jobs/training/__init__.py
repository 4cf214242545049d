"""GRPO on the kept samples: TRL and DeepSpeed under torchrun, one pod per node, checkpoints in the object store."""
