"""The scenarios of the use case, played against a running Gnomon."""
