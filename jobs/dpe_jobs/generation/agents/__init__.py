"""Agents that are models: planner, selector, writer and validator by OpenAI-compatible endpoints. docs/agents.md.

What models, pictures, captions and web pages say is data to every one of them. It stands between markers that it cannot
close, apart from the instructions; and whatever a model makes of it, quotas, sources, graders and tools are not its to
change.
"""
