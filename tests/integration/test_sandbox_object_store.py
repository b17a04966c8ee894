import os
from collections.abc import Callable, Iterator
from typing import Any

import botocore.exceptions
import botocore.session
import pytest
from botocore.config import Config

from azaion_daemon.sandbox.object_store import Credentials, ObjectStore

Client = Any
Connect = Callable[[Credentials], Client]


@pytest.fixture
def connect(object_store: ObjectStore) -> Iterator[Connect]:
    clients: list[Client] = []

    def connected(credentials: Credentials) -> Client:
        client = botocore.session.get_session().create_client(
            "s3",
            region_name=object_store.region,
            endpoint_url=object_store.endpoint,
            aws_access_key_id=credentials.key,
            aws_secret_access_key=credentials.secret,
            config=Config(
                s3={"addressing_style": "path"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                retries={"total_max_attempts": 1},
            ),
        )
        clients.append(client)
        return client

    yield connected
    for client in clients:
        client.close()


def refused(code: str) -> Any:
    return pytest.raises(botocore.exceptions.ClientError, match=code)


def test_the_uploader_writes_and_the_downloader_reads(object_store: ObjectStore, connect: Connect) -> None:
    connect(object_store.uploader).put_object(Bucket=object_store.bucket, Key="plain", Body=b"content")
    answer = connect(object_store.downloader).get_object(Bucket=object_store.bucket, Key="plain")
    with answer["Body"] as body:
        assert body.read() == b"content"


def test_the_uploader_may_not_read_nor_copy_until_it_is_granted(object_store: ObjectStore, connect: Connect) -> None:
    uploader = connect(object_store.uploader)
    here = {"Bucket": object_store.bucket, "Key": "secret"}
    copy = {"Bucket": object_store.bucket, "Key": "copy", "CopySource": f"{object_store.bucket}/secret"}
    uploader.put_object(Body=b"x", **here)
    with refused("AccessDenied"):
        uploader.get_object(**here)
    with refused("403"):
        uploader.head_object(**here)
    with refused("AccessDenied"):
        uploader.copy_object(**copy)
    object_store.grant_read(True)
    try:
        uploader.copy_object(**copy)
    finally:
        object_store.grant_read(False)
    with refused("AccessDenied"):
        uploader.get_object(**here)


def test_the_downloader_may_not_write_nor_delete(object_store: ObjectStore, connect: Connect) -> None:
    downloader = connect(object_store.downloader)
    with refused("AccessDenied"):
        downloader.put_object(Bucket=object_store.bucket, Key="plain", Body=b"x")
    with refused("AccessDenied"):
        downloader.delete_object(Bucket=object_store.bucket, Key="plain")


def test_a_wrong_secret_or_key_is_refused(object_store: ObjectStore, connect: Connect) -> None:
    with refused("SignatureDoesNotMatch"):
        connect(Credentials(object_store.owner.key, "changeme")).list_objects_v2(Bucket=object_store.bucket)
    with refused("InvalidAccessKeyId|AccessDenied|SignatureDoesNotMatch"):
        connect(Credentials("cdn:nobody", "changeme")).list_objects_v2(Bucket=object_store.bucket)


def test_a_multipart_upload_of_the_uploader_is_one_object(object_store: ObjectStore, connect: Connect) -> None:
    uploader = connect(object_store.uploader)
    here = {"Bucket": object_store.bucket, "Key": "parts"}
    content = [os.urandom(5 << 20), os.urandom(1000)]
    upload = uploader.create_multipart_upload(**here)["UploadId"]
    parts = [
        {"PartNumber": number, "ETag": uploader.upload_part(UploadId=upload, PartNumber=number, Body=part, **here)["ETag"]}
        for number, part in enumerate(content, 1)
    ]
    uploader.complete_multipart_upload(UploadId=upload, MultipartUpload={"Parts": parts}, **here)
    with connect(object_store.downloader).get_object(**here)["Body"] as body:
        assert body.read() == b"".join(content)


def test_an_aborted_multipart_upload_leaves_nothing(object_store: ObjectStore, connect: Connect) -> None:
    uploader, owner = connect(object_store.uploader), connect(object_store.owner)
    here = {"Bucket": object_store.bucket, "Key": "aborted"}
    upload = uploader.create_multipart_upload(**here)["UploadId"]
    uploader.upload_part(UploadId=upload, PartNumber=1, Body=bytes(1000), **here)
    uploader.abort_multipart_upload(UploadId=upload, **here)
    assert "Uploads" not in owner.list_multipart_uploads(Bucket=object_store.bucket, Prefix=here["Key"])
    with refused("NoSuchKey"):
        owner.get_object(**here)


def test_an_outage_refuses_connections_and_loses_nothing(object_store: ObjectStore, connect: Connect) -> None:
    owner = connect(object_store.owner)
    owner.put_object(Bucket=object_store.bucket, Key="kept", Body=b"kept")
    endpoint = object_store.endpoint
    object_store.stop()
    try:
        with pytest.raises(botocore.exceptions.EndpointConnectionError):
            owner.head_object(Bucket=object_store.bucket, Key="kept")
    finally:
        object_store.start()
    assert object_store.endpoint == endpoint
    assert owner.head_object(Bucket=object_store.bucket, Key="kept")["ContentLength"] == 4


def test_secrets_are_not_shown(object_store: ObjectStore) -> None:
    assert object_store.owner.secret not in repr(object_store.owner)
