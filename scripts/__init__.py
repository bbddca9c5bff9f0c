"""What the Makefile calls: set-up, pins, generators."""
