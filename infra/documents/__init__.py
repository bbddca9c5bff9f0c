"""The document store: a port, and its adapters for memory, SQLite and MongoDB."""
