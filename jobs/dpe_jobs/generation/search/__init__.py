"""Image searches of others behind one interface: what they find, and where each result comes from."""
