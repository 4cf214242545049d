"""What a candidate has to pass beside its validator: small checks, each with a reason that is written down."""
