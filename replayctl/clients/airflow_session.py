"""A session with Airflow's REST API: signs in at the first call and again when the token has expired.

Errors of the client become those of `replayctl.errors` here.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from replayctl.errors import AuthFailed, NotFound, OperationFailed, ServerTrouble, Unreachable, in_words
from replayctl.settings.proxies import proxy_from_environment

if TYPE_CHECKING:
    from airflow_client.client import ApiClient, Configuration

T = TypeVar("T")
PAGE = 100
REQUEST_TIMEOUT_S = 30.0


class AirflowSession:
    """A server by its base URL (`http://host:8080`) and a user of it.

    `pages` is the address under which people open its pages, where that is another one.
    """

    def __init__(self, url: str, *, username: str, password: str, pages: str | None = None) -> None:
        self.url = url.rstrip("/")
        self.pages = (pages or url).rstrip("/")
        self._username = username
        self._password = password
        self._signed_in: ApiClient | None = None
        # How far the server's clock is ahead of this machine's, in whole seconds rounded down.
        self._ahead = datetime.timedelta()

    def _call(self, what: str, request: Callable[..., T]) -> T:
        """The server's answer; signs in again, once, if the token has expired."""
        from airflow_client.client.exceptions import UnauthorizedException

        with translated(self.url, what):
            try:
                return request(self._client())
            except UnauthorizedException:
                self._signed_in = None
                return request(self._client())

    def _json(self, what: str, path: str) -> Any:
        """The raw answer of a GET below `/api/v2/`: the generated models drop parts of some answers."""
        from airflow_client.client.exceptions import ApiException

        def fetch(client: ApiClient) -> Any:
            response: Any = client.call_api(
                "GET",
                f"{self.url}/api/v2/{path}",
                header_params={"Accept": "application/json", "Authorization": f"Bearer {self._token}"},
                _request_timeout=REQUEST_TIMEOUT_S,
            )
            body = response.read()
            if response.status != 200:
                text = body.decode("utf-8", "replace") if isinstance(body, bytes) else str(body)
                raise ApiException.from_response(http_resp=response, body=text, data=None)
            return json.loads(body)

        return self._call(what, fetch)

    def _client(self) -> ApiClient:
        if self._signed_in is None:
            from airflow_client.client import ApiClient

            self._token = self._sign_in()
            configuration = self._configuration(access_token=self._token)
            configuration.retries = 3
            self._signed_in = ApiClient(configuration)
        return self._signed_in

    def _configuration(self, access_token: str | None = None) -> Configuration:
        """The client's configuration, with the environment's proxy for this server, if any."""
        from airflow_client.client import Configuration

        proxy = proxy_from_environment(self.url, os.environ)
        # By itself, the client would use the environment's proxy even for this machine.
        return Configuration(host=self.url, access_token=access_token, proxy=proxy, no_proxy=None if proxy else "*")

    def _sign_in(self) -> str:
        """A token of the server's auth manager.

        See https://airflow.apache.org/docs/apache-airflow/stable/security/api.html.
        """
        from airflow_client.client import ApiClient

        with ApiClient(self._configuration()) as client:
            response = client.call_api(
                "POST",
                f"{self.url}/auth/token",
                header_params={"Content-Type": "application/json"},
                body={"username": self._username, "password": self._password},
                _request_timeout=REQUEST_TIMEOUT_S,
            )
            body = response.read()
            self._ahead = _ahead(response.headers.get("Date"))
        if response.status in (401, 403):
            raise AuthFailed(
                f"Airflow at {self.url} refused user {self._username!r}",
                hint="run `replayctl settings show` to check airflow.username and airflow.password_file",
            )
        if response.status not in (200, 201):
            kind = ServerTrouble if response.status >= 500 else OperationFailed
            raise kind(f"Airflow at {self.url} did not issue a token (HTTP {response.status})")
        try:
            return str(json.loads(body)["access_token"])
        except (ValueError, TypeError, KeyError) as error:
            raise OperationFailed(
                f"{self.url} answered the sign-in with something else than a token: is it Airflow?",
                hint="run `replayctl settings show` to check airflow.url",
            ) from error


def _ahead(date: str | None) -> datetime.timedelta:
    # With the client, which is imported by now.
    from email.utils import parsedate_to_datetime

    now = datetime.datetime.now(tz=datetime.UTC)
    try:
        return parsedate_to_datetime(date or "") - now
    except (ValueError, TypeError):
        # No date, or one without a time zone.
        return datetime.timedelta()


def quoted(part: str) -> str:
    """A part of a URL's path, percent-encoded."""
    from urllib.parse import quote

    return quote(part, safe="")


def has_status(error: BaseException, status: int) -> bool:
    """Whether an error was caused by an answer with this HTTP status."""
    return getattr(error.__cause__, "status", None) == status


@contextmanager
def translated(url: str, what: str) -> Iterator[None]:
    """Translates HTTP errors and lost connections to errors of `replayctl.errors`."""
    from airflow_client.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        detail = _detail(error)
        if error.status == 404:
            raise NotFound(f"Airflow at {url} does not know {what}", details=detail) from error
        if error.status in (401, 403):
            raise AuthFailed(f"Airflow at {url} does not allow {what} (HTTP {error.status})", details=detail) from error
        kind = ServerTrouble if error.status == 429 or (error.status or 0) >= 500 else OperationFailed
        raise kind(f"Airflow at {url} failed on {what} (HTTP {error.status})", details=detail) from error
    except (HTTPError, OSError) as error:
        raise unreachable(url, error) from error


def unreachable(url: str, error: Exception) -> Unreachable:
    """The error for a server that does not answer."""
    return Unreachable(
        f"Airflow at {url} does not answer",
        hint="check that it is running; in the local profile, run `replayctl local status`",
        details=in_words(error),
    )


def _detail(error: Any) -> str | None:
    try:
        return str(json.loads(error.body)["detail"])
    except (TypeError, ValueError, KeyError):
        return str(error.body) if error.body else None
