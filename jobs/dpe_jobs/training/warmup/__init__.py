"""Supervised fine-tuning before GRPO, on samples of the categories that are out of reach of sampling.

A gang of its own, before that of GRPO and with the same ranks: it leaves a model in the store, and GRPO starts from it.
So a run that is resumed never repeats a warm-up that is done, and one that was cut short begins it again, the same way.
"""
