"""The exception tree.

```text
StreamprocError            anything we raise on purpose
├── ConfigError            the operator's file or arguments are wrong   (exit 2)
├── InputError             a file handed to `replay` cannot be used      (exit 2)
├── WorldError             broker, registry, disk or network failed      (exit 1)
│   ├── Unreachable        may heal by itself: retriable
│   │   └── StoreFull      no room left in the store
│   ├── Forbidden          the broker refuses us a right: not retriable
│   └── StoreFault         a store said no or lied: not retriable
├── ProtocolError          exactly-once would be broken: stop this partition
│   ├── Fenced             another owner has taken the log over
│   ├── LogCorrupt         chain, hash, size or version does not fit
│   └── SourceMismatch     topic, offsets or fingerprint are not the log's
└── VerificationFailed     a check found a difference                    (exit 3)
```

Three families: *bad data* is never an exception, it is a quarantine row;
*the world* is `WorldError`; *our bug* is an `assert`.
"""


class StreamprocError(Exception):
    """Anything streamproc raises on purpose."""

    retriable: bool = False


class ConfigError(StreamprocError):
    """The configuration or the arguments cannot be used.

    `faults` holds every fault found, one line each, with file, key path and value.
    """

    def __init__(self, *faults: str) -> None:
        self.faults = faults
        super().__init__("\n".join(faults))


class InputError(StreamprocError):
    """A file handed over for replay cannot be used; the message names file and line."""


class WorldError(StreamprocError):
    """Something outside the process failed."""


class Unreachable(WorldError):
    """The other side does not answer; waiting may help."""

    retriable = True


class StoreFull(Unreachable):
    """A store has no room; nothing was given a name, and what is freed lets work go on."""


class Forbidden(WorldError):
    """The broker refuses us a right.

    `topic` is set where one topic alone is concerned, so that the others can go on.
    """

    def __init__(self, message: str, topic: str = "") -> None:
        self.topic = topic
        super().__init__(message)


class StoreFault(WorldError):
    """A store refused an operation, or its bytes are not what was written."""


class ProtocolError(StreamprocError):
    """Going on could lose or double a reading, so the partition stops."""


class Fenced(ProtocolError):
    """Another owner created the record we wanted to create."""


class LogCorrupt(ProtocolError):
    """The commit log's chain, a hash, a size or a version does not fit."""


class SourceMismatch(ProtocolError):
    """Topic id, offset bounds or fingerprint are not those of the log.

    `source` (`<topic>/<partition>`) is set where a fetch found it, so that the one
    partition can be stopped; else it is empty.
    """

    def __init__(self, message: str, source: str = "") -> None:
        self.source = source
        super().__init__(message)


class VerificationFailed(StreamprocError):
    """A verification ran and found differences; `findings` lists them."""

    def __init__(self, *findings: str) -> None:
        self.findings = findings
        super().__init__("\n".join(findings))
