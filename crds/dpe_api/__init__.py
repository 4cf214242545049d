"""The contract between the operator, the stage jobs and the people who write DPEIteration resources."""
