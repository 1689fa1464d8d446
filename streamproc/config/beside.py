"""What lies beside the configuration: secrets, certificates and the device list."""

from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import SecretStr

from streamproc.config.base import Section
from streamproc.config.devices import device_spec, read_devices
from streamproc.config.faults import KeyPath
from streamproc.config.file import File
from streamproc.config.job_options import Webhook
from streamproc.config.layers import Layers, read_secret
from streamproc.config.parsed import Parsed
from streamproc.config.store_options import S3
from streamproc.core.definition import DeviceSpec

S = TypeVar("S", bound=Section)

SECRET_CHARS_MIN: Final = 24
"""Of a webhook's signing secret: Standard Webhooks ask for 24 to 64 bytes."""

_PEM_KEYS: Final = ("ca_file", "cert_file", "key_file")
_SECRETS: Final = ("password", "key_password", "secret_access_key", "session_token")


class Beside:
    """Reads the files that the configuration names, relative to its folder."""

    def __init__(self, folder: Path, parsed: Parsed, layers: Layers) -> None:
        self._folder = folder.absolute()
        self._parsed = parsed
        self._layers = layers

    def resolved(self) -> File:
        """Return the file with its secrets read and its file names absolute."""
        file = self._parsed.file
        source = self._with_files(("source",), file.source)
        registry = file.registry
        if registry is not None:
            registry = self._with_files(("registry",), registry)
        hooks = tuple(self._signed(i, hook) for i, hook in enumerate(file.webhooks))
        changes = {
            "source": source,
            "registry": registry,
            "s3": self.s3(),
            "webhooks": hooks,
        }
        return file.model_copy(update=changes)

    def s3(self) -> S3 | None:
        """Return `[s3]` with its secrets read and its file names absolute."""
        s3 = self._parsed.file.s3
        return None if s3 is None else self._with_files(("s3",), s3)

    def devices(self) -> tuple[DeviceSpec, ...]:
        """Return both device lists as one, sorted by city and device."""
        file = self._parsed.file
        found = {(one.city, one.device): device_spec(one) for one in file.devices}
        if file.devices_file is not None:
            path = self._folder / file.devices_file
            slugs = self._parsed.slugs()
            for spec in read_devices(path, slugs, self._layers.lines):
                if (spec.city, spec.device) in found:
                    message = f"{spec.device!r} of {spec.city} is in [[devices]] too"
                    self._parsed.report(("devices_file",), message)
                found[spec.city, spec.device] = spec
        return tuple(found[key] for key in sorted(found))

    def _with_files(self, place: KeyPath, section: S) -> S:
        changes: dict[str, Any] = {}
        for key in _PEM_KEYS:
            given = getattr(section, key, None)
            if given is None:
                continue
            changes[key] = str(self._folder / given)
            if not (self._folder / given).is_file():
                self._parsed.report((*place, key), "no such file")
        for key in _SECRETS:
            name = f"{key}_file"
            given = getattr(section, name, None)
            text = None if given is None else self._secret((*place, name), given)
            if text is not None:
                changes[key] = SecretStr(text)
        return section.model_copy(update=changes)

    def _signed(self, index: int, hook: Webhook) -> Webhook:
        named: list[tuple[KeyPath, str]] = [
            (("webhooks", index, "secret_files", at), given)
            for at, given in enumerate(hook.secret_files)
        ]
        if hook.secret_file is not None:
            named.append((("webhooks", index, "secret_file"), hook.secret_file))
        secrets = []
        for place, given in named:
            text = self._secret(place, given)
            if text is not None and len(text) < SECRET_CHARS_MIN:
                message = (
                    f"the secret in it is shorter than {SECRET_CHARS_MIN} characters"
                )
                self._parsed.report(place, message)
            secrets.append(SecretStr(text or ""))
        hook = self._with_files(("webhooks", index), hook)
        return hook.model_copy(update={"secrets": tuple(secrets)})

    def _secret(self, place: KeyPath, given: str) -> str | None:
        problems: list[str] = []
        text = read_secret(self._folder / given, "", problems)
        for problem in problems:
            self._parsed.report(place, problem.removeprefix(": "))
        return text
