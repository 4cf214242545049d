"""Stand-ins for what costs money or minutes: a served model, an object store."""
