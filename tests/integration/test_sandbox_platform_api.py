import time

import httpx
import pytest

from azaion_daemon.sandbox import formulas
from azaion_daemon.sandbox.platform_api import PlatformApi
from azaion_daemon.sandbox.platform_state import User

HARDWARE = "CPU: C. GPU: G. Memory: 1. DriveSerial: S"


def login(api: PlatformApi, user: User, password: str | None = None) -> httpx.Response:
    body = {"email": user.email, "password": user.password if password is None else password}
    return httpx.post(f"{api.url}/login", json=body)


@pytest.fixture
def bearer(platform_api: PlatformApi, platform_user: User) -> dict[str, str]:
    return {"Authorization": f"Bearer {login(platform_api, platform_user).json()['token']}"}


def get(api: PlatformApi, user: User, bearer: dict[str, str], name: str, folder: str = "/models", **changes: str) -> httpx.Response:
    body = {"password": user.password, "hardware": HARDWARE, "fileName": name} | changes
    return httpx.post(f"{api.url}/resources/get{folder}", json=body, headers=bearer)


def upload(api: PlatformApi, bearer: dict[str, str], name: str, content: bytes, part: str = "data") -> httpx.Response:
    return httpx.post(f"{api.url}/resources/models", files={part: (name, content)}, headers=bearer)


def business_error(response: httpx.Response) -> int:
    assert response.status_code == 409
    assert response.json()["Message"]
    code: int = response.json()["ErrorCode"]
    return code


def test_what_is_uploaded_is_listed_and_comes_back_encrypted(
    platform_api: PlatformApi, platform_user: User, bearer: dict[str, str]
) -> None:
    assert upload(platform_api, bearer, "a.small", b"old").is_success
    assert upload(platform_api, bearer, "a.small", b"content").is_success
    assert httpx.get(f"{platform_api.url}/resources/list/models", headers=bearer).json() == ["a.small"]
    answer = get(platform_api, platform_user, bearer, "a.small")
    assert b"content" not in answer.content
    key = formulas.api_key(platform_user.email, platform_user.password, HARDWARE)
    assert formulas.decrypt(answer.content, key) == b"content"
    assert platform_api.resource("models", "a.small") == b"content"


def test_the_file_part_must_be_named_data(platform_api: PlatformApi, bearer: dict[str, str]) -> None:
    assert upload(platform_api, bearer, "a.small", b"x", part="file").status_code == 400


def test_cdn_yaml_is_in_the_root_folder(platform_api: PlatformApi, platform_user: User, bearer: dict[str, str]) -> None:
    platform_api.serve_cdn(host="http://cdn", downloader=("d", "ds"), uploader=("u", "us"))
    key = formulas.api_key(platform_user.email, platform_user.password, HARDWARE)
    for folder in ("", "/"):
        text = formulas.decrypt(get(platform_api, platform_user, bearer, "cdn.yaml", folder).content, key).decode()
        assert text.splitlines()[0] == 'host: "http://cdn"'


def test_login_errors(platform_api: PlatformApi, platform_user: User) -> None:
    assert business_error(login(platform_api, User("nobody@example.org", "x"))) == 10
    assert business_error(login(platform_api, platform_user, "wrong")) == 30
    platform_user.disabled = True
    assert business_error(login(platform_api, platform_user)) == 38


def test_the_first_hardware_is_registered_and_another_one_refused(
    platform_api: PlatformApi, platform_user: User, bearer: dict[str, str]
) -> None:
    check = f"{platform_api.url}/resources/check"
    assert business_error(httpx.post(check, json={"hardware": ""}, headers=bearer)) == 45
    assert httpx.post(check, json={"hardware": HARDWARE}, headers=bearer).status_code == 200
    assert business_error(httpx.post(check, json={"hardware": "another"}, headers=bearer)) == 40
    assert business_error(get(platform_api, platform_user, bearer, "a", hardware="another")) == 40
    assert httpx.get(f"{platform_api.url}/users/current", headers=bearer).json()["Hardware"] == HARDWARE


def test_get_errors(platform_api: PlatformApi, platform_user: User, bearer: dict[str, str]) -> None:
    assert business_error(get(platform_api, platform_user, bearer, "a", password="wrong")) == 30
    assert business_error(get(platform_api, platform_user, bearer, "none")) == 60
    assert business_error(get(platform_api, platform_user, bearer, "../cdn.yaml")) == 50
    assert business_error(get(platform_api, platform_user, bearer, "")) == 50


def test_a_token_expires(platform_api: PlatformApi, platform_user: User) -> None:
    platform_api.tokens.lifetime_s = 0.3
    bearer = {"Authorization": f"Bearer {login(platform_api, platform_user).json()['token']}"}
    current = f"{platform_api.url}/users/current"
    assert httpx.get(current, headers=bearer).status_code == 200
    time.sleep(0.35)
    assert httpx.get(current, headers=bearer).status_code == 401
    assert httpx.get(current).status_code == 401


def test_failures_are_answered_as_often_as_asked(platform_api: PlatformApi, platform_user: User) -> None:
    platform_api.fail_next("/login", 429, times=2)
    answers = [login(platform_api, platform_user) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [429, 429, 200]
    assert answers[0].headers["Retry-After"] == "1"
    assert platform_api.calls["POST /login"] == 3


def test_it_is_slow_when_asked(platform_api: PlatformApi, platform_user: User) -> None:
    platform_api.slow(0.3)
    before = time.monotonic()
    login(platform_api, platform_user)
    assert time.monotonic() - before >= 0.3


def test_down_refuses_connections_and_comes_back_on_the_same_url(platform_api: PlatformApi, platform_user: User) -> None:
    platform_api.down = True
    with pytest.raises(httpx.ConnectError):
        login(platform_api, platform_user)
    platform_api.down = False
    assert login(platform_api, platform_user).is_success


def test_the_new_generation_names_the_token_otherwise_and_hands_out_no_resources(platform_api: PlatformApi, platform_user: User) -> None:
    platform_api.generation = "new"
    answer = login(platform_api, platform_user).json()
    assert answer["AccessToken"] == answer["Token"]
    assert "token" not in answer
    bearer = {"Authorization": f"Bearer {answer['AccessToken']}"}
    assert upload(platform_api, bearer, "a.small", b"x").is_success
    assert get(platform_api, platform_user, bearer, "a.small").status_code == 404


def test_the_new_generation_locks_an_account(platform_api: PlatformApi, platform_user: User) -> None:
    platform_api.generation = "new"
    for _ in range(5):
        assert business_error(login(platform_api, platform_user, "wrong")) == 30
    answer = login(platform_api, platform_user)
    assert answer.status_code == 423
    assert answer.headers["Retry-After"] == str(answer.json()["RetryAfterSeconds"])
