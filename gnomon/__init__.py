"""The composition root and the command line: builds the services, starts the roles, stops them in order."""
