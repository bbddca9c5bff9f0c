"""Things and which gateway speaks for them: the truth that every message is checked against."""
