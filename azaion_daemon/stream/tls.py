"""TLS to the broker: the files of the settings as a context, with an error for each that cannot be used."""

import ssl
from pathlib import Path

from azaion_daemon.errors import ConfigError
from azaion_daemon.sections import StreamSettings


def tls_context(settings: StreamSettings) -> ssl.SSLContext | None:
    """The context of a new connection, read from the files as they are now; None without TLS. Blocks.

    Raises:
        ConfigError: A file is missing, unreadable or not what it should be.
    """
    if not settings.tls:
        return None
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise _unusable("stream.ca_file", settings.ca_file, "PEM certificates", error) from error
    if settings.client_cert_file is not None and settings.client_key_file is not None:
        for name, path in (("stream.client_cert_file", settings.client_cert_file), ("stream.client_key_file", settings.client_key_file)):
            try:
                path.read_bytes()
            except OSError as error:
                raise _unusable(name, path, "PEM", error) from error
        try:
            context.load_cert_chain(settings.client_cert_file, settings.client_key_file, password=_refuse_to_ask)
        except (OSError, ssl.SSLError, ValueError) as error:
            raise _unusable("stream.client_key_file", settings.client_key_file, "the unencrypted key of the certificate", error) from error
    return context


def _unusable(setting: str, path: Path | None, expected: str, error: Exception) -> ConfigError:
    if isinstance(error, ssl.SSLError | ValueError):
        return ConfigError(f"{setting}: {path} does not hold {expected}: {getattr(error, 'reason', None) or error}")
    return ConfigError(f"{setting}: {path} cannot be read: {getattr(error, 'strerror', None) or error}")


def _refuse_to_ask() -> str:
    """OpenSSL would ask for the password of an encrypted key on the terminal, and wait."""
    raise ValueError("it is encrypted")
