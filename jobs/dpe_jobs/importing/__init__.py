"""`python -m dpe_jobs import SOURCE --to FOLDER`: what people have becomes a question set. docs/probes.md."""
