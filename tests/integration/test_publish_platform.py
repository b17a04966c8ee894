"""The platform's client against the platform's double, over HTTP."""

import asyncio
import stat
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from pydantic import HttpUrl, SecretStr
from structlog.testing import capture_logs

from azaion_daemon.errors import OperatorError
from azaion_daemon.publish.platform import (
    LoginRefusedError,
    NoSuchResourceError,
    NotServedError,
    PlatformClient,
    PlatformError,
    RetryRule,
)
from azaion_daemon.sandbox.platform_api import PlatformApi
from azaion_daemon.sandbox.platform_state import User
from azaion_daemon.sections import ApiSettings

HARDWARE = "CPU: TestCPU. GPU: TestGPU. Memory: 16384. DriveSerial: SN123"
QUICK = RetryRule(attempts=4, first_s=0.01, most_s=0.05)

Connect = Callable[..., PlatformClient]


@pytest.fixture
async def connect(platform_api: PlatformApi, platform_user: User, tmp_path: Path) -> AsyncIterator[Connect]:
    """Makes clients of the double, with settings changed as asked; they are closed after the test."""
    clients = []

    def make(retry: RetryRule = QUICK, kept_refusal: Path | None = None, **changes: object) -> PlatformClient:
        settings = ApiSettings(
            url=HttpUrl(platform_api.url),
            email=platform_user.email,
            password=SecretStr(platform_user.password),
            hardware=HARDWARE,
            timeout_s=5,
        ).model_copy(update=changes)
        clients.append(PlatformClient(settings, tmp_path / "hardware.txt", retry=retry, kept_refusal=kept_refusal))
        return clients[-1]

    yield make
    for client in clients:
        await client.__aexit__(None, None, None)


@pytest.fixture(params=["old", "new"])
def generation(request: pytest.FixtureRequest, platform_api: PlatformApi) -> str:
    platform_api.generation = request.param
    return str(request.param)


async def test_a_call_that_fails_again_and_again_is_told_ever_more_rarely_until_it_works(
    connect: Connect, platform_api: PlatformApi
) -> None:
    client = connect(retry=RetryRule(attempts=30, first_s=0.001, most_s=0.001))
    with capture_logs() as logs:
        for status in (500, 500, 502):
            platform_api.fail_next("/users/current", status, times=10)
            await client.current_user()
    told = [(entry["why"].split()[1], entry["repeated"]) for entry in logs if entry["event"] == "platform.retry"]
    assert told == [(status, times) for status in ("500", "500", "502") for times in (1, 2, 4, 8)]


async def test_uploads_lists_and_asks_on_either_generation(connect: Connect, platform_api: PlatformApi, generation: str) -> None:
    client = connect()
    await client.check_hardware()
    await client.upload("models", "azaion.onnx.small", b"\x00\xff" * 1536)
    assert await client.list("models") == ["azaion.onnx.small"]
    assert (await client.current_user())["Email"] == "daemon@example.org"
    assert platform_api.resource("models", "azaion.onnx.small") == b"\x00\xff" * 1536
    assert platform_api.calls["POST /login"] == 1


@pytest.mark.parametrize("folder", ["", "models"])
async def test_fetches_what_only_this_account_and_machine_can_open(connect: Connect, platform_api: PlatformApi, folder: str) -> None:
    client = connect()
    await client.upload(folder, "cdn.yaml", b"host: x")
    assert await client.get_resource(folder, "cdn.yaml") == b"host: x"


async def test_a_file_that_is_not_there_is_named(connect: Connect) -> None:
    with pytest.raises(NoSuchResourceError, match="no such file"):
        await connect().get_resource("models", "nothing")


async def test_newer_servers_hand_out_nothing(connect: Connect, platform_api: PlatformApi) -> None:
    platform_api.generation = "new"
    with pytest.raises(NotServedError, match="/resources/get"):
        await connect().get_resource("models", "azaion.onnx.small")


async def test_another_machine_is_told_what_to_set(connect: Connect, platform_user: User) -> None:
    platform_user.hardware = "CPU: the old server"
    client = connect()
    with pytest.raises(PlatformError, match=r"api\.hardware") as caught:
        await client.check_hardware()
    assert "CPU: TestCPU. GPU: TestGPU. Memory: 16384. DriveSerial: S*** of 5 characters" in str(caught.value)
    assert "SN123" not in str(caught.value)
    with pytest.raises(PlatformError, match=r"api\.hardware"):
        await client.get_resource("", "cdn.yaml")


@pytest.mark.parametrize("status", [500, 502, 503, 408])
async def test_a_server_that_fails_twice_is_asked_again(connect: Connect, platform_api: PlatformApi, status: int) -> None:
    platform_api.fail_next("/resources", status, 2)
    client = connect(RetryRule(attempts=4, first_s=0.01, most_s=2))
    await client.upload("models", "a", b"content")
    assert client.retries == 2
    assert platform_api.resource("models", "a") == b"content"


async def test_a_server_that_goes_on_failing_is_given_up(connect: Connect, platform_api: PlatformApi) -> None:
    platform_api.fail_next("/resources/list", 502, 99)
    with pytest.raises(PlatformError, match="HTTP 502"):
        await connect().list("models")
    assert platform_api.calls["GET /resources/list"] == QUICK.attempts


async def test_a_server_that_is_away_is_an_error_that_says_so(connect: Connect, platform_api: PlatformApi) -> None:
    platform_api.down = True
    with pytest.raises(PlatformError, match=r"127\.0\.0\.1 does not answer /login"):
        await connect().list("models")


async def test_a_server_that_is_away_for_a_moment_is_waited_for(connect: Connect, platform_api: PlatformApi) -> None:
    platform_api.down = True
    listing = asyncio.create_task(connect(RetryRule(attempts=20, first_s=0.05, most_s=0.2)).list("models"))
    await asyncio.sleep(0.1)
    await asyncio.to_thread(setattr, platform_api, "down", False)
    assert await listing == []


async def test_a_server_that_does_not_answer_in_time_is_an_error(connect: Connect, platform_api: PlatformApi) -> None:
    platform_api.slow(5)
    with pytest.raises(PlatformError, match="does not answer"):
        await connect(RetryRule(attempts=1), timeout_s=0.2).list("models")


async def test_the_wait_that_a_busy_server_asks_for_is_kept(connect: Connect, platform_api: PlatformApi) -> None:
    platform_api.fail_next("/resources/list", 429)
    start = time.monotonic()
    await connect(RetryRule(attempts=2, first_s=0.01, most_s=5)).list("models")
    assert time.monotonic() - start >= 1


async def test_a_wait_too_long_to_sit_out_is_handed_on(connect: Connect, platform_api: PlatformApi) -> None:
    platform_api.fail_next("/login", 423)
    with pytest.raises(PlatformError, match="left alone for 60 s") as caught:
        await connect().list("models")
    assert caught.value.retry_after_s == 60
    assert platform_api.calls["POST /login"] == 1


async def test_a_wrong_password_is_tried_once_and_never_again(
    connect: Connect, platform_api: PlatformApi, platform_user: User, generation: str
) -> None:
    client = connect(password=SecretStr("last quarter's"))
    for _ in range(3):
        with pytest.raises(LoginRefusedError, match="AZAION_API_PASSWORD"):
            await client.list("models")
    assert platform_api.calls["POST /login"] == 1
    assert platform_user.failures == 1


async def test_a_refused_login_is_not_tried_again_by_later_starts_until_something_changes(
    connect: Connect, platform_api: PlatformApi, platform_user: User, tmp_path: Path
) -> None:
    kept = tmp_path / "login-refused.json"
    for _ in range(3):  # starts
        client = connect(kept_refusal=kept, password=SecretStr("last quarter's"))
        with pytest.raises(LoginRefusedError, match="AZAION_API_PASSWORD"):
            await client.list("models")
    assert platform_api.calls["POST /login"] == 1
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert "last quarter" not in kept.read_text()
    client.reconfigure(client._session.settings)  # an operator asks
    refused = [client.login_refused]
    with pytest.raises(LoginRefusedError):
        await client.list("models")
    assert [*refused, client.login_refused] == [False, True]
    assert platform_user.failures == 2
    client.reconfigure(client._session.settings.model_copy(update={"password": SecretStr(platform_user.password)}))
    assert await client.list("models") == []
    client = connect(kept_refusal=kept)
    assert await client.list("models") == []
    assert not kept.exists() or await connect(kept_refusal=kept).list("models") == []


async def test_new_settings_are_for_the_next_call_and_what_is_under_way_ends_as_it_began(
    connect: Connect, platform_api: PlatformApi
) -> None:
    client = connect()
    platform_api.slow(0.2)
    listing = asyncio.create_task(client.list("models"))
    await asyncio.sleep(0.05)
    client.reconfigure(client._session.settings.model_copy(update={"timeout_s": 7}))
    assert await listing == []
    assert await client.list("models") == []
    assert platform_api.calls["POST /login"] == 2
    assert client._retired == []


async def test_a_locked_account_is_left_alone(connect: Connect, platform_api: PlatformApi) -> None:
    platform_api.fail_next("/login", 423)
    client = connect()
    for _ in range(3):
        with pytest.raises(PlatformError, match="left alone") as caught:
            await client.list("models")
    assert caught.value.retry_after_s > 50
    assert platform_api.calls["POST /login"] == 1


async def test_a_login_that_may_have_counted_is_not_repeated(connect: Connect, platform_api: PlatformApi) -> None:
    platform_api.fail_next("/login", 500)
    with pytest.raises(PlatformError, match="HTTP 500"):
        await connect().list("models")
    assert platform_api.calls["POST /login"] == 1


async def test_many_calls_at_once_log_in_once(connect: Connect, platform_api: PlatformApi) -> None:
    client = connect()
    await asyncio.gather(*(client.list("models") for _ in range(10)))
    assert platform_api.calls["POST /login"] == 1


async def test_a_disabled_account_and_an_unknown_one_are_told_apart(connect: Connect, platform_user: User) -> None:
    with pytest.raises(LoginRefusedError, match="AZAION_API_EMAIL"):
        await connect(email="nobody@example.org").list("models")
    platform_user.disabled = True
    with pytest.raises(LoginRefusedError, match="disabled"):
        await connect().list("models")


async def test_a_password_changed_under_a_token_is_not_tried_again_either(
    connect: Connect, platform_api: PlatformApi, platform_user: User
) -> None:
    client = connect()
    await client.list("models")
    platform_user.password = "rotated"
    for _ in range(2):
        with pytest.raises(LoginRefusedError, match="AZAION_API_PASSWORD"):
            await client.get_resource("", "cdn.yaml")
    assert platform_user.failures == 1


async def test_a_token_is_renewed_before_it_ends(connect: Connect, platform_api: PlatformApi) -> None:
    platform_api.tokens.lifetime_s = 3.0
    client = connect()
    await client.list("models")
    await client.list("models")
    assert platform_api.calls["POST /login"] == 1
    await asyncio.sleep(2.9)
    await client.list("models")
    assert platform_api.calls == {"POST /login": 2, "GET /resources/list": 3}  # no call was refused


async def test_a_token_that_the_server_forgot_is_replaced_once(connect: Connect, platform_api: PlatformApi) -> None:
    client = connect()
    await client.list("models")
    platform_api.tokens.revoke_all()
    await client.list("models")
    assert platform_api.calls["POST /login"] == 2


@pytest.mark.parametrize("status", [401, 403])
async def test_a_right_that_is_missing_is_asked_for_twice_and_given_up(connect: Connect, platform_api: PlatformApi, status: int) -> None:
    platform_api.fail_next("/resources/list", status, 99)
    client = connect()
    with pytest.raises(PlatformError, match="Ask an administrator"):
        await client.list("models")
    assert platform_api.calls == {"POST /login": 2, "GET /resources/list": 2}
    await client.current_user()  # what the account may do, it still can


async def test_a_file_of_certificates_that_is_none_is_the_operators_to_mend(connect: Connect, tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match=r"api\.ca_file"):
        await connect(ca_file=tmp_path / "missing.pem").list("models")


async def test_no_secret_is_logged(connect: Connect, platform_api: PlatformApi, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    platform_api.fail_next("/login", 502)
    platform_api.fail_next("/resources", 502)
    client = connect()
    await client.upload("", "cdn.yaml", b"x")
    await client.get_resource("", "cdn.yaml")
    assert 'p#ss: "w' not in caplog.text
    assert "Bearer" not in caplog.text
    assert HARDWARE not in caplog.text


async def test_the_event_loop_is_not_blocked(connect: Connect, no_blocking_calls: object) -> None:
    client = connect(hardware=None)
    await client.upload("models", "a", b"content")
    assert await client.get_resource("models", "a") == b"content"
