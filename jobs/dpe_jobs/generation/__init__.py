"""The generation stage: samples aimed at the weak categories of a diagnosis."""
