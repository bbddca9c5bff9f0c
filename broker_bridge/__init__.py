"""Between the broker and the services: MQTT messages become calls, outcomes become messages."""
