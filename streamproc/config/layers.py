"""Where values come from: the file, secret files, the environment, the command line.

Later layers win, key by key; lists are replaced whole (in the environment as JSON). Every
value keeps the name of the layer it came from, for the faults.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic_settings import EnvSettingsSource, SettingsError

from streamproc.config.base import key_of
from streamproc.config.faults import SECRET_KEYS, Fault, KeyPath, nearest
from streamproc.config.file import ENV_PREFIX, NESTED, Environment, File

SECRETS_DIR: Final = ENV_PREFIX + "SECRETS_DIR"
SYSTEMD_SECRETS_DIR: Final = "CREDENTIALS_DIRECTORY"
COMMAND_LINE: Final = "command line"
SECRET_BYTES_MAX: Final = 64 * 1024

_TOML_PLACE: Final = re.compile(
    r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)"
)


@dataclass(slots=True)
class Layers:
    """The merged document, who gave which value, and the faults found on the way."""

    name: str
    document: dict[str, Any] = field(default_factory=dict)
    given: dict[KeyPath, str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    readable: bool = True

    def add(self, origin: str, values: Mapping[str, Any], at: KeyPath = ()) -> None:
        """Merge a layer over what is there."""
        target = self.document
        for part in at:
            target = target[str(part)]
        for key, value in values.items():
            place = (*at, key)
            if isinstance(value, Mapping):
                if not isinstance(target.get(key), dict):
                    target[key] = {}
                    self.given[place] = origin
                self.add(origin, value, place)
            else:
                target[key] = value
                self.given[place] = origin

    def origin(self, path: KeyPath) -> str:
        """Return the layer that gave the value at `path`; the file where none did."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.given:
                return self.given[path[:length]]
        return self.name

    def line(self, fault: Fault) -> str:
        """Return a fault as the operator reads it."""
        return fault.line(self.origin(fault.path))


def read_layers(
    path: Path | None, env: Mapping[str, str], overrides: Mapping[str, Any]
) -> Layers:
    """Return every layer merged; where the file cannot be read, nothing but why."""
    layers = Layers("defaults" if path is None else str(path))
    if path is not None:
        document = read_toml(path, layers.lines)
        if layers.lines:
            layers.readable = False
            return layers
        _refuse_secrets(layers, document)
        layers.add(layers.name, document)
    for origin, name, value in _secret_files(env, layers.lines):
        _add_variable(layers, origin, name, value)
    for name in sorted(env):
        if name.upper().startswith(ENV_PREFIX):
            _add_variable(layers, name, name, env[name])
    for key, value in overrides.items():
        nested: Any = value
        for part in reversed(key.split(".")):
            nested = {part: nested}
        layers.add(COMMAND_LINE, nested)
    return layers


def read_toml(path: Path, lines: list[str]) -> dict[str, Any]:
    """Return a TOML file's content; what hinders reading goes to `lines`."""
    try:
        return tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        lines.append(f"{path}: {error.strerror or error}")
    except UnicodeDecodeError as error:
        lines.append(f"{path}: byte {error.start}: not UTF-8")
    except tomllib.TOMLDecodeError as error:
        lines.append(f"{path}: {_toml_fault(str(error))}")
    return {}


def _toml_fault(text: str) -> str:
    found = _TOML_PLACE.fullmatch(text)
    if found is None:
        return text
    what, line, column = found.groups()
    place = f"line {line}, column {column}" if line else "end of the file"
    return f"{place}: {what}"


# --- environment and secret files -----------------------------------------------------


def _add_variable(layers: Layers, origin: str, name: str, value: str) -> None:
    """Merge one variable; names without a nested key that are no section are not ours."""
    short = name[len(ENV_PREFIX) :].lower()
    section, nested, _ = short.partition(NESTED)
    known = {key_of(field) for field in File.model_fields}
    if section not in known:
        if nested:
            layers.lines.append(f"{origin}: unknown section; {nearest(section, known)}")
        return
    source = EnvSettingsSource(Environment)
    # The library reads os.environ; here the caller's mapping counts, one variable at a
    # time so that each fault has its name, and numbers are parsed by their field's type.
    source.env_vars = {short: value}
    source.config = {**Environment.model_config, "strict": True}
    try:
        layers.add(origin, source())
    except SettingsError:
        layers.lines.append(f"{origin}: not JSON; lists and tables are written as JSON")


def _secret_files(
    env: Mapping[str, str], lines: list[str]
) -> Iterable[tuple[str, str, str]]:
    """Yield (path, variable's name, content) of the secret files there are."""
    given = env.get(SECRETS_DIR)
    folder = given or env.get(SYSTEMD_SECRETS_DIR)
    if not folder:
        return
    if given and not Path(given).is_dir():
        lines.append(f"{SECRETS_DIR}: {given}: no such folder")
        return
    for path in sorted(Path(folder).iterdir()):
        if path.name.upper().startswith(ENV_PREFIX) and path.is_file():
            content = read_secret(path, str(path), lines)
            if content is not None:
                yield str(path), path.name, content


def read_secret(path: Path, where: str, lines: list[str]) -> str | None:
    """Return a secret file's text without its last line end; faults go to `lines`."""
    try:
        with path.open("rb") as file:
            data = file.read(SECRET_BYTES_MAX + 1)
    except OSError as error:
        lines.append(f"{where}: {error.strerror or error}")
        return None
    try:
        text = data.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        lines.append(f"{where}: not UTF-8")
        return None
    if not text or len(data) > SECRET_BYTES_MAX:
        lines.append(f"{where}: {'too long' if text else 'empty'}")
        return None
    return text


# --- secrets do not belong in the file ------------------------------------------------

_ADVICE: Final = {
    ("source", "password"): "name a file with password_file, or set "
    "STREAMPROC_SOURCE__PASSWORD",
    ("source", "key_password"): "name a file with key_password_file, or set "
    "STREAMPROC_SOURCE__KEY_PASSWORD",
    ("registry", "password"): "name a file with password_file, or set "
    "STREAMPROC_REGISTRY__PASSWORD",
    ("s3", "secret_access_key"): "name a file with secret_access_key_file, or set "
    "STREAMPROC_S3__SECRET_ACCESS_KEY",
    ("s3", "session_token"): "name a file with session_token_file, or set "
    "STREAMPROC_S3__SESSION_TOKEN",
}


def _refuse_secrets(layers: Layers, document: dict[str, Any]) -> None:
    """Take secrets out of the file's content and say where they belong."""
    for (section, key), advice in _ADVICE.items():
        table = document.get(section)
        if isinstance(table, dict) and key in table:
            _refuse(layers, table, (section, key), advice)
    hooks = document.get("webhooks")
    for index, hook in enumerate(hooks if isinstance(hooks, list) else []):
        for key in SECRET_KEYS & set(hook if isinstance(hook, dict) else ()):
            advice = "name a file with secret_file"
            _refuse(layers, hook, ("webhooks", index, key), advice)


def _refuse(layers: Layers, table: dict[str, Any], path: KeyPath, advice: str) -> None:
    fault = Fault(path, f"a secret does not belong in the file; {advice}", "")
    layers.lines.append(fault.line(layers.name))
    del table[str(path[-1])]
