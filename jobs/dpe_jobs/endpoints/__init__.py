"""Asking the spec's endpoints: replies of a known form, text that stays data, work that is bounded."""
