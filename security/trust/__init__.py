"""The Trust Center: who may be known under which name, and for how long."""
