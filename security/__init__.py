"""Who is who, who may do what, keys and certificates, and what is written down about it."""
