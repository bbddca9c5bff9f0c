"""How equipment gets into a home area network and into programs: the workflow over the domains below."""
