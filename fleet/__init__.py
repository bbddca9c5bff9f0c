"""Devices that do not exist, and the reference agent for those that do.

An independent witness of the protocol: it imports nothing of `shadow` or
`broker_bridge`, so a mistake there cannot hide behind the same mistake here.

    plan        which homes there are (pure)
    physics     what happens in a house (pure)
    appliances  what each kind of device measures and obeys
    device      how a device keeps its shadow in step (no I/O)
    connection  MQTT 5 on asyncio, light enough for thousands
    simulation  brings a plan to life
    load        asks as fast as told, and keeps a history
    agent       one file to copy, for makers of real devices
"""
