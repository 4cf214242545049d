"""Images from the web: addresses that may be reached, downloads within limits, pictures out of untrusted bytes."""
