"""How a session of MQTT is made and opened with paho, and what its refusals mean."""

import socket
import ssl
from collections.abc import Callable

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from schemas.errors import MotorcadeError, SettingsError, TransientError
from transport.mqtt_packets import Publication
from transport.mqtt_paho import HotClient, connect_properties, properties_of
from transport.mqtt_session import SessionSettings, Will
from transport.settings import MqttSettings

# What a person must put right; anything else that a broker answers may pass by itself.
_SETTINGS_REFUSALS = frozenset(
    {
        "Unsupported protocol version",
        "Client identifier not valid",
        "Bad user name or password",
        "Not authorized",
        "Bad authentication method",
        "Banned",
    }
)


def make_client(
    settings: MqttSettings,
    session: SessionSettings,
    on_publication: Callable[[Publication], object],
) -> HotClient:
    """A client that is not connected yet.

    Raises:
        SettingsError: The TLS files cannot be used.
    """
    version5 = settings.version == 5
    client = HotClient(
        on_publication,
        callback_api_version=CallbackAPIVersion.VERSION2,
        client_id=session.client_id,
        clean_session=None if version5 else session.clean_start,
        protocol=MQTTProtocolVersion.MQTTv5 if version5 else MQTTProtocolVersion.MQTTv311,
        reconnect_on_failure=False,
        manual_ack=session.manual_ack,
    )
    client.max_queued_messages_set(session.queue_max)
    client.connect_timeout = settings.connect_timeout_s
    _set_credentials(client, settings)
    _set_will(client, session.will, version5=version5)
    return client


def open_connection(client: HotClient, settings: MqttSettings, session: SessionSettings) -> None:
    """Open the socket and ask to be let in; the answer comes with the network loop.

    Raises:
        OSError: Also of a name that is not known, and of TLS.
    """
    client.begin()
    if settings.version != 5:
        client.connect(settings.host, settings.port, settings.keepalive_s)
    else:
        client.connect(
            settings.host,
            settings.port,
            settings.keepalive_s,
            clean_start=session.clean_start,
            properties=connect_properties(
                session_expiry_s=settings.session_expiry_s, receive_max=session.receive_max
            ),
        )
    if isinstance(connection := client.socket(), socket.socket):
        # An alert must not wait until the other end has acknowledged what went before it.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _set_credentials(client: paho.Client, settings: MqttSettings) -> None:
    if settings.username is not None:
        client.username_pw_set(settings.username, settings.password)
    if (tls := settings.tls) is not None:
        try:
            client.tls_set(ca_certs=tls.ca, certfile=tls.certificate, keyfile=tls.key)
        except (OSError, ValueError) as error:
            raise SettingsError(f"the TLS files of MQTT cannot be used: {error}") from error


def _set_will(client: paho.Client, will: Will | None, *, version5: bool) -> None:
    if will is None:
        return
    properties = None
    if version5 and will.delay_s:
        properties = properties_of(PacketTypes.WILLMESSAGE)
        properties.WillDelayInterval = will.delay_s
    client.will_set(will.topic, will.payload, qos=1, retain=will.retain, properties=properties)


def refusal(reason: ReasonCode, settings: MqttSettings) -> MotorcadeError:
    """The project's error for a broker that answers a connect with no."""
    text = f"the MQTT broker at {settings.host}:{settings.port} refused: {reason}"
    return SettingsError(text) if str(reason) in _SETTINGS_REFUSALS else TransientError(text)


def connect_error(error: Exception, settings: MqttSettings) -> MotorcadeError:
    """The project's error for a connection that does not come about."""
    where = f"{settings.host}:{settings.port}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return SettingsError(f"the certificate of the MQTT broker at {where}: {error}")
    return TransientError(f"no connection to the MQTT broker at {where}: {error}")
