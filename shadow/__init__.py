"""The device shadow: one versioned document of desired and reported state per thing and name.

``document``, ``ledger``, ``commands``, ``decisions``, ``wire``, ``history`` are rules without I/O;
``service`` loads, decides, commits and announces. No MQTT and no HTTP in here.
"""
