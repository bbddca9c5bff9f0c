"""The commands of ``gnomon`` that come in groups, a module a group."""
