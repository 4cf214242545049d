"""The operator: brings each DPEIteration to a better model, or says why it cannot."""
