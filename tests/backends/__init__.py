"""Where the servers that tests need come from: given by name, in a container, or as our own child."""
