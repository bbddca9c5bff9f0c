"""A server certificate ends after 90 days; a service that runs longer shows another one in time."""

import socket
import ssl

import pytest
from cryptography import x509

from tests.broker_rig import BrokerRig
from tests.certificates import issue_server
from tests.system.mqtt import until

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("broker_program")]


def shown(rig):
    """The serial number of the certificate that a new connection sees."""
    context = ssl.create_default_context(cafile=rig.root_certificate)
    context.load_cert_chain(*rig.certificate("looker"))
    with (
        socket.create_connection(("127.0.0.1", rig.device_port), 5) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        certificate = connection.getpeercert(binary_form=True)
        assert certificate is not None
        return x509.load_der_x509_certificate(certificate).serial_number


def test_new_connections_see_the_new_certificate_and_old_ones_and_their_rights_stay(tmp_path):
    rig = BrokerRig(tmp_path)
    rig.start()
    try:
        with rig.bridge() as bridge, rig.thing("lamp") as lamp:
            bridge.subscribe("$aws/things/+/shadow/get")
            before = shown(rig)
            rig.broker.renew(issue_server(rig.authority))
            until(lambda: shown(rig) != before, "the broker shows another certificate")
            lamp.publish("$aws/things/lamp/shadow/get", b"still there")
            assert bridge.wait_on("$aws/things/lamp/shadow/get").payload == b"still there"
            with rig.thing("plug") as plug:
                plug.publish("$aws/things/lamp/shadow/get", b"not mine")
                plug.publish("$aws/things/plug/shadow/get", b"mine")
                bridge.wait_on("$aws/things/plug/shadow/get")
            assert [one.payload for one in bridge.received] == [b"still there", b"mine"]
    finally:
        rig.close()


def test_a_renewal_without_a_child_is_for_the_next_start(tmp_path):
    rig = BrokerRig(tmp_path)
    credentials = issue_server(rig.authority, ["localhost"])
    rig.start()
    rig.call(rig.broker.stop())
    rig.broker.renew(credentials)
    rig.start()
    try:
        wanted = x509.load_pem_x509_certificate(credentials.certificate_pem).serial_number
        assert shown(rig) == wanted
    finally:
        rig.close()
