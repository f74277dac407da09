"""Every error that BigBrotr raises on purpose, as one tree.

    BigBrotrError
    ├── ConfigError              a setting is missing or wrong
    │   └── FilterInvalid        an event filter is not a NIP-01 filter
    ├── DatabaseError            the archive cannot be used
    │   ├── DatabaseUnavailable  it does not answer; waiting may help
    │   ├── DatabaseFull         its disk is full; somebody has to make room
    │   ├── AccessDenied         it refuses the role or the password
    │   └── SchemaMismatch       its schema is not the one of this code
    ├── RelayError               one relay cannot be used
    │   ├── RelayUrlRefused      its URL breaks the URL rules
    │   ├── AddressRefused       its name leads to a non-public address
    │   ├── ConnectFailed        no WebSocket could be opened
    │   └── SyncAbandoned        its synchronization cannot go on for now
    ├── MessageMalformed         a relay sent a frame that is no message
    ├── EventRefused             a relay sent something that is no valid event
    ├── FileUnusable             a file of events cannot be read or written
    ├── AggregatorFailed         an aggregator or relay gave no list of relays
    └── ServiceError             a service cannot go on
        ├── PortTaken            its health check port is in use
        ├── ComponentMissing     a program or service it needs is absent
        └── WorkerDied           one of its worker processes was killed

The docstring of a class says what it means; an instance carries one line that names the
setting, URL or value at fault and says what to do.
"""


class BigBrotrError(Exception):
    """Something that BigBrotr foresees went wrong."""


class ConfigError(BigBrotrError):
    """A setting is missing, empty, of the wrong type or out of range."""


class FilterInvalid(ConfigError):
    """A filter is not an object of NIP-01 filter keys with values of the right types."""


class DatabaseError(BigBrotrError):
    """The archive's database cannot be used."""


class DatabaseUnavailable(DatabaseError):
    """The database does not answer, or the connection was lost; waiting may help."""


class DatabaseFull(DatabaseError):
    """The database's disk is full; what was being written is not committed."""


class AccessDenied(DatabaseError):
    """The database refuses the role, the password or the database name."""


class SchemaMismatch(DatabaseError):
    """The schema is newer than this code, not migrated yet, or was edited by hand."""


class RelayError(BigBrotrError):
    """One relay cannot be used; the others are not concerned."""


class RelayUrlRefused(RelayError):
    """A relay URL breaks the URL rules; `reason` is a short token for counting."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(f"relay URL refused ({reason}): {text[:200]!r}")
        self.reason = reason
        self.text = text

    def __reduce__(self) -> tuple[type["RelayUrlRefused"], tuple[str, str]]:
        return type(self), (self.reason, self.text)


class AddressRefused(RelayError, OSError):
    """A host name leads to an address outside the public Internet (an OSError, so that
    HTTP clients treat it as a failed connection)."""


class ConnectFailed(RelayError):
    """No WebSocket could be opened; `kind` is a short token for counting."""

    def __init__(self, kind: str, url: str, detail: str = "") -> None:
        super().__init__(f"cannot connect to {url} ({kind}){': ' + detail if detail else ''}")
        self.kind = kind
        self.url = url
        self.detail = detail

    def __reduce__(self) -> tuple[type["ConnectFailed"], tuple[str, str, str]]:
        return type(self), (self.kind, self.url, self.detail)


class SyncAbandoned(RelayError):
    """A relay's synchronization cannot go on for now; `outcome` is a short token for counting."""

    def __init__(self, outcome: str, detail: str = "") -> None:
        super().__init__(f"synchronization abandoned ({outcome}){': ' + detail if detail else ''}")
        self.outcome = outcome
        self.detail = detail

    def __reduce__(self) -> tuple[type["SyncAbandoned"], tuple[str, str]]:
        return type(self), (self.outcome, self.detail)


class MessageMalformed(BigBrotrError):
    """A frame is not JSON, or not a relay-to-client message of NIP-01."""


class EventRefused(BigBrotrError):
    """An object is not a valid event; `reason` is a short token for counting."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"event refused ({reason}){': ' + detail if detail else ''}")
        self.reason = reason


class FileUnusable(BigBrotrError):
    """A file that events are exported to or imported from cannot be written or read."""


class AggregatorFailed(BigBrotrError):
    """An HTTP aggregator, or a relay asked for NIP-66 events, gave no usable list of relays;
    `reason` is a short token for counting.

    `retry_after` is the number of seconds that it asked to be left alone, if it did.
    """

    def __init__(
        self, reason: str, url: str, detail: str = "", *, retry_after: int | None = None
    ) -> None:
        super().__init__(f"no relays from {url} ({reason}){': ' + detail if detail else ''}")
        self.reason = reason
        self.url = url
        self.detail = detail
        self.retry_after = retry_after


class ServiceError(BigBrotrError):
    """A service cannot go on."""


class PortTaken(ServiceError):
    """The port of the health check server is in use."""


class ComponentMissing(ServiceError):
    """A program or service that is needed is absent and could not be installed."""


class WorkerDied(ServiceError):
    """A worker process ended while it had work; the work is free to be claimed again."""
