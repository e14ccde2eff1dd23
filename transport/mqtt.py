"""MQTT 5 and 3.1.1 by paho: one session that lasts.

`MqttClient` keeps one session with a stable client id (clean start off, session expiry of days),
comes back by itself with back-off and jitter, and restores its subscriptions. QoS 1 messages are
acknowledged by the caller, once their content is safe, from any thread.

What a caller may not assume:
    - Callbacks run on the network thread: they must be quick and must not block. One that raises
      ends the session; `raise_if_failed` tells of it, and the broker keeps what was not
      acknowledged.
    - A message comes at least once: again after every dropped connection until acknowledged.
      A token dies with its connection; acknowledging a dead one does nothing.
    - User properties, content type and the will delay exist in MQTT 5 only. Under 3.1.1 they are
      left out, so nothing may hang on them that does not stand in the payload too.
"""

import contextlib
import random
import selectors
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import cast

import paho.mqtt.client as paho
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from schemas.errors import MotorcadeError, SettingsError, TransientError
from transport.backoff import backoff_s
from transport.mqtt_packets import Publication
from transport.mqtt_paho import (
    HotClient,
    PublishProperties,
)
from transport.mqtt_session import AVRO_CONTENT_TYPE, Incoming, SessionSettings, Will
from transport.mqtt_setup import connect_error, make_client, open_connection, refusal
from transport.mqtt_waker import Waker
from transport.settings import MqttSettings, TlsSettings

__all__ = [
    "AVRO_CONTENT_TYPE",
    "Incoming",
    "MqttClient",
    "MqttSettings",
    "OnMessage",
    "OnPublished",
    "SessionSettings",
    "TlsSettings",
    "Will",
]

FILTERS_PER_SUBSCRIBE = 100
STABLE_AFTER_S = 5.0
_POLL_S = 1.0
_READS_PER_POLL = 8
_STOP_TIMEOUT_S = 5.0
_MID_BITS = 16
_MID_MASK = (1 << _MID_BITS) - 1

OnMessage = Callable[[Incoming], object]
OnPublished = Callable[[MotorcadeError | None], object]
"""Called once a publication is through: None, or why the broker refused it."""


def _ignore(*_: object) -> None:
    """A callback that nobody asked for."""


class MqttClient:
    """One MQTT session that comes back by itself. Threads: `start` makes one, `stop` ends it.

    Args:
        settings: The broker.
        session: This client.
        on_message: Gets every message, for example `deque.append` of the caller.
        on_connected: Called after each connect, True if the broker still had the session.
            Subscriptions are already on their way. May publish.
        on_disconnected: Called after each loss, with the reason in words.
        on_turn: Called each time that the network thread comes round, at least once a second
            while connected, with the pause in seconds that it is about to make.
        rng: Source of the jitter of the back-off.
    """

    def __init__(
        self,
        settings: MqttSettings,
        session: SessionSettings,
        *,
        on_message: OnMessage = _ignore,
        on_connected: Callable[[bool], object] = _ignore,
        on_disconnected: Callable[[str], object] = _ignore,
        on_turn: Callable[[float], object] = _ignore,
        rng: random.Random | None = None,
    ) -> None:
        self._settings = settings
        self._session = session
        self._on_message = on_message
        self._on_connected = on_connected
        self._on_disconnected = on_disconnected
        self._on_turn = on_turn
        self._rng = rng or random.Random()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._generation = 0
        self._connected = False
        self._stopping = False
        self._failure: MotorcadeError | None = None
        self._last_error: MotorcadeError | None = None
        self._subscriptions: dict[str, int] = {}
        self._asked: dict[int, list[str]] = {}
        self._outgoing: dict[int, tuple[int, OnPublished]] = {}
        self._through: deque[tuple[int, MotorcadeError | None]] = deque()
        self._inflight_max = session.inflight_max
        self._waker = Waker()
        self._client = self._make_client()
        self._thread: threading.Thread | None = None

    # --- life ---

    def start(self) -> None:
        """Begin to connect, and keep at it. Returns at once."""
        if self._thread is not None:
            raise SettingsError("this MQTT client was already started")
        self._thread = threading.Thread(
            target=self._run, name=f"mqtt {self._session.client_id}", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Leave the broker in order and end the thread; waits a few seconds at most.

        What is queued and not through is abandoned: `flush` first. Stopping twice is harmless.
        """
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._waker.wake()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_STOP_TIMEOUT_S + self._settings.connect_timeout_s)
        self._waker.close()

    def __enter__(self) -> "MqttClient":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted this client and not been lost since."""
        return self._connected

    @property
    def outstanding(self) -> int:
        """Publications that are not through yet."""
        return len(self._outgoing)

    @property
    def last_error(self) -> MotorcadeError | None:
        """Why the last connect or connection failed; None if none did."""
        return self._last_error

    def raise_if_failed(self) -> None:
        """Raise what ended the session: a callback's error or a refused subscription."""
        if self._failure is not None:
            raise self._failure

    def wait_connected(self, timeout_s: float) -> None:
        """Wait until the broker has accepted this client.

        Raises:
            SettingsError: The broker refuses this client as it is (credentials, version).
            TransientError: It could not be reached in `timeout_s`. Attempts go on.
        """
        with self._changed:
            self._changed.wait_for(self._settled, timeout_s)
            if self._connected:
                return
            if isinstance(self._last_error, SettingsError):
                raise self._last_error
            raise TransientError(
                f"no MQTT broker at {self._settings.host}:{self._settings.port} "
                f"in {timeout_s} s: {self._last_error or 'no answer'}"
            )

    def flush(self, timeout_s: float) -> bool:
        """Wait until every publication is through; False if `timeout_s` was not enough."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._outgoing, timeout_s)

    def _settled(self) -> bool:
        return self._connected or isinstance(self._last_error, SettingsError)

    # --- what callers do, from any thread ---

    def subscribe(self, filters: Iterable[str], *, qos: int = 1) -> None:
        """Subscribe now if connected, and again after every reconnect.

        A filter that the broker refuses is a SettingsError of `raise_if_failed`.
        """
        added = list(filters)
        with self._lock:
            self._subscriptions.update(dict.fromkeys(added, qos))
            if self._connected:
                self._send_subscribe(added)

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        user_properties: Sequence[tuple[str, str]] = (),
        content_type: str | None = None,
        on_published: OnPublished = _ignore,
    ) -> None:
        """Hand one message over; does not wait.

        QoS 1 messages wait for a broker that is away, up to `queue_max`; they do not outlive this
        process.

        Raises:
            TransientError: The queue is full, or a QoS 0 message found no connection. Nothing
                was sent and `on_published` will not be called.
        """
        properties = self._publish_properties(user_properties, content_type)
        with self._lock:
            if len(self._outgoing) >= self._session.queue_max:
                raise TransientError(f"{self._session.queue_max} MQTT messages wait already")
            if qos == 0 and not self._connected:
                raise TransientError("no MQTT connection for a QoS 0 message")
            info = self._client.publish(topic, payload, qos, retain, properties)
            if info.rc == MQTTErrorCode.MQTT_ERR_QUEUE_SIZE:
                raise TransientError("65,535 MQTT messages wait already")
            self._outgoing[info.mid] = (qos, on_published)

    def publish_many(
        self, messages: Iterable[tuple[str, bytes]], *, content_type: str | None = None
    ) -> None:
        """Publish (topic, payload) pairs with QoS 0, all in one write; nobody hears of the outcome.

        Raises:
            TransientError: There is no connection; nothing was sent.
        """
        with self._lock:
            if not self._connected:
                raise TransientError("no MQTT connection for a QoS 0 message")
            self._client.publish_hot(messages, content_type)

    def ack(self, token: int) -> None:
        """Tell the broker that the message of this token is safe.

        MQTT wants acknowledgements in the order of arrival. One of an earlier connection is
        dropped here: the broker sends that message again.
        """
        self.ack_many((token,))

    def ack_many(self, tokens: Iterable[int]) -> None:
        """`ack` for a whole group, in one write."""
        with self._lock:
            if self._connected:
                current = self._generation
                self._client.ack_hot(
                    [
                        token & _MID_MASK
                        for token in tokens
                        if token and token >> _MID_BITS == current
                    ]
                )

    # --- the network thread ---

    def _run(self) -> None:
        attempt = 0
        while not self._stopping and self._failure is None:
            began_s = time.monotonic()
            self._on_turn(0.0)
            self._connect_and_serve()
            attempt = 0 if time.monotonic() - began_s > STABLE_AFTER_S else attempt + 1
            self._pause(attempt)

    def _connect_and_serve(self) -> None:
        """One connection, from connect to loss."""
        with self._lock:
            self._generation += 1
            self._asked.clear()
        try:
            self._open()
            self._serve()
        except Exception as error:  # noqa: BLE001 - paho raises many kinds on a hostile broker
            self._note_error(connect_error(error, self._settings))
        finally:
            self._lost()

    def _open(self) -> None:
        if self._client.max_inflight_messages != self._inflight_max:
            self._client.max_inflight_messages_set(self._inflight_max)
        open_connection(self._client, self._settings, self._session)

    def _serve(self) -> None:
        """Move packets until the connection is lost or the client is stopped."""
        sock = cast(socket.socket, self._client.socket())
        connect_by_s = time.monotonic() + self._settings.connect_timeout_s
        misc_at_s = 0.0
        with selectors.DefaultSelector() as selector:
            selector.register(self._waker.reader, selectors.EVENT_READ)
            selector.register(sock, selectors.EVENT_READ)
            while self._client.socket() is not None and not self._stopping and not self._failure:
                self._on_turn(0.0)
                self._serve_once(selector, sock)
                now_s = time.monotonic()
                if now_s >= misc_at_s:
                    misc_at_s = now_s + _POLL_S
                    self._client.loop_misc()
                if not self._connected and now_s > connect_by_s:
                    raise TimeoutError("the broker accepted the connection and said nothing")
        self._leave()

    def _serve_once(self, selector: selectors.BaseSelector, sock: socket.socket) -> None:
        wanted = selectors.EVENT_READ
        if self._client.want_write():
            wanted |= selectors.EVENT_WRITE
        if selector.get_key(sock).events != wanted:
            selector.modify(sock, wanted)
        # Bytes that TLS has decrypted already are invisible to the selector.
        pending = isinstance(sock, ssl.SSLSocket) and sock.pending() > 0
        for key, events in selector.select(0.0 if pending else _POLL_S):
            if key.fileobj is self._waker.reader:
                self._waker.drain()
                self._client.loop_write()
            elif events & selectors.EVENT_WRITE:
                self._client.loop_write()
            if key.fileobj is sock and events & selectors.EVENT_READ:
                self._read()
        if pending:
            self._read()
        self._report_through()

    def _read(self) -> None:
        """Read while there is more, up to a bound, so that writing gets its turn."""
        for _ in range(_READS_PER_POLL):
            if not self._client.read_hot():
                return

    def _leave(self) -> None:
        """Say goodbye, so that the broker does not publish the will; bounded."""
        if not self._connected or self._failure is not None:
            return
        self._client.disconnect()
        until_s = time.monotonic() + _POLL_S
        while self._client.want_write() and time.monotonic() < until_s:
            if self._client.loop_write() != MQTTErrorCode.MQTT_ERR_SUCCESS:
                return
            time.sleep(0.001)

    def _lost(self) -> None:
        """Whatever ended the connection: close it and tell."""
        was_connected = self._connected
        with self._changed:
            self._connected = False
            unsent = [mid for mid, (qos, _) in self._outgoing.items() if qos == 0]
            self._through.extend((mid, TransientError("connection lost")) for mid in unsent)
            self._changed.notify_all()
        self._close()
        self._report_through()
        if was_connected:
            self._guarded(lambda: self._on_disconnected(str(self._last_error or "stopped")))

    def _close(self) -> None:
        """Close the socket without a goodbye, and have paho know that it is closed."""
        if (sock := self._client.socket()) is not None:
            sock.close()
        self._client.disconnect()
        with contextlib.suppress(OSError):
            self._client.loop_write()

    def _pause(self, attempt: int) -> None:
        s = self._settings
        wait_s = backoff_s(
            max(0, attempt - 1), minimum_s=s.backoff_min_s, maximum_s=s.backoff_max_s, rng=self._rng
        )
        self._on_turn(wait_s)
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or self._failure is not None, wait_s)

    def _report_through(self) -> None:
        """Call back for publications that are through; here, where paho holds no lock."""
        if not self._through:
            return
        done: list[tuple[OnPublished, MotorcadeError | None]] = []
        with self._changed:
            while self._through:
                mid, error = self._through.popleft()
                if (entry := self._outgoing.pop(mid, None)) is not None:
                    done.append((entry[1], error))
            if not self._outgoing:
                self._changed.notify_all()
        for callback, error in done:
            self._guarded(partial(callback, error))

    def _guarded(self, act: Callable[[], object]) -> None:
        try:
            act()
        except Exception as error:  # noqa: BLE001 - a caller's callback; kept for raise_if_failed
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        failure = error if isinstance(error, MotorcadeError) else MotorcadeError(repr(error))
        if failure is not error:
            failure.__cause__ = error
        with self._changed:
            self._failure = self._failure or failure
            self._changed.notify_all()

    def _note_error(self, error: MotorcadeError) -> None:
        with self._changed:
            self._last_error = error
            self._changed.notify_all()

    # --- paho's callbacks, on the network thread ---

    def _make_client(self) -> HotClient:
        client = make_client(self._settings, self._session, self._published)
        client.on_connect = self._paho_connect
        client.on_disconnect = self._paho_disconnect
        client.on_publish = self._paho_publish
        client.on_subscribe = self._paho_subscribe
        # With this callback paho writes on the network thread only, never on a publisher's.
        client.on_socket_register_write = lambda *_: self._waker.wake()
        return client

    def _paho_connect(
        self,
        client: paho.Client,
        _userdata: object,
        flags: paho.ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if reason.is_failure:
            self._note_error(refusal(reason, self._settings))
            return
        allowed = int(getattr(properties, "ReceiveMaximum", self._inflight_max))
        if allowed < self._inflight_max:
            # paho takes a new limit only while unconnected, so come again with the lower one.
            self._inflight_max = allowed
            self._note_error(TransientError(f"the broker's receive maximum is {allowed}"))
            client.disconnect()
            return
        with self._changed:
            self._connected = True
            self._last_error = None
            self._send_subscribe(list(self._subscriptions))
            self._changed.notify_all()
        self._guarded(lambda: self._on_connected(flags.session_present))

    def _paho_disconnect(
        self,
        _client: paho.Client,
        _userdata: object,
        _flags: object,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        # paho may hold its queue's lock here, so ours must not be taken: `_lost` tells the others.
        if not self._stopping and self._connected:
            self._last_error = TransientError(f"MQTT connection lost: {reason}")

    def _published(self, found: Publication) -> None:
        if self._failure is not None:
            return
        number = found.message_id
        incoming = Incoming(
            found.topic,
            found.payload,
            (self._generation << _MID_BITS) | number if number else 0,
            found.user_properties,
            found.retained,
            found.duplicate,
        )
        try:
            self._on_message(incoming)
        except Exception as error:  # noqa: BLE001 - a caller's callback; kept for raise_if_failed
            self._fail(error)

    def _paho_publish(
        self,
        _client: paho.Client,
        _userdata: object,
        mid: int,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        # paho holds its queue's lock here; `_report_through` takes ours and calls back.
        error = TransientError(f"the broker refused: {reason}") if reason.is_failure else None
        self._through.append((mid, error))

    def _paho_subscribe(
        self,
        _client: paho.Client,
        _userdata: object,
        mid: int,
        reasons: list[ReasonCode],
        _properties: Properties | None,
    ) -> None:
        with self._lock:
            filters = self._asked.pop(mid, [])
        refused = [
            f"{name} ({reason})"
            for name, reason in zip(filters, reasons, strict=False)
            if reason.is_failure
        ]
        if refused:
            self._fail(SettingsError(f"the broker refused to subscribe to {', '.join(refused)}"))

    def _send_subscribe(self, filters: Sequence[str]) -> None:
        """Ask in groups, so that no packet grows with the fleet. Called with the lock held."""
        for start in range(0, len(filters), FILTERS_PER_SUBSCRIBE):
            group = list(filters[start : start + FILTERS_PER_SUBSCRIBE])
            _, mid = self._client.subscribe(self._subscribe_argument(group))
            if mid is not None:
                self._asked[mid] = group

    def _subscribe_argument(
        self, filters: Sequence[str]
    ) -> list[tuple[str, SubscribeOptions]] | list[tuple[str, int]]:
        wanted = [(name, self._subscriptions[name]) for name in filters]
        if self._settings.version == 5:
            return [(name, SubscribeOptions(qos=qos)) for name, qos in wanted]
        return wanted

    def _publish_properties(
        self, user_properties: Sequence[tuple[str, str]], content_type: str | None
    ) -> Properties | None:
        if self._settings.version != 5 or not (user_properties or content_type):
            return None
        return PublishProperties(user_properties, content_type)
