"""What everything stands on: clock, ids, settings, the document store, logs, metrics, traces, wake-ups.

The only package that may touch drivers, the environment and the machine's clocks. It knows nothing of
shadows or things.
"""
