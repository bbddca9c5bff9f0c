"""Devices that do not exist, and the reference agent for those that do.

An independent witness of the protocol: it imports nothing of `shadow`,
`broker_bridge` or the services of `ota`, so a mistake there cannot hide behind the same mistake here.

    plan        which homes there are (pure)
    physics     what happens in a house (pure)
    appliances  what each kind of device measures and obeys
    device      how a device keeps its shadow in step (no I/O)
    connection  MQTT 5 on asyncio, light enough for thousands
    simulation  brings a plan to life
    load        asks as fast as told, and keeps a history
    agent       one file to copy, for makers of real devices

and for firmware:

    flash, boot     what survives a power cut, and who starts which image; `flash_file` is for those of a city
    transfer        one file by windows, every block judged
    offers          may this be installed? (the checks are those of `ota`, the one thing shared)
    firmware        the state machine; `hardware` carries it from one start to the next
    upgrades        thousands of them at once, as a load
    upgrading_agent the reference agent with firmware, also over HTTP (`http_update`)
"""
