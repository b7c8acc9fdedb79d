"""Let browsers send uploads directly to the input bucket, by URLs that allow exactly one upload.

The server begins a multipart upload, so that no client chooses the owner or the type, and signs the URL
of each part with its length. `complete` ends the upload, which invalidates its URLs, and then checks the
object.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from botocore.awsrequest import AWSRequest
from botocore.exceptions import ClientError, HTTPClientError
from botocore.httpsession import URLLib3Session

from hevcq.backends.aws.clients import code_of, translate_errors
from hevcq.backends.aws.s3.metadata import ETAG, find_object, version_of
from hevcq.backends.aws.s3.store import Buckets
from hevcq.backends.aws.s3.transfer import MIB, part_bytes
from hevcq.domain.job import Source
from hevcq.domain.keys import OUTBOX, UPLOADS
from hevcq.domain.videos import Video, content_disposition, raw_key
from hevcq.errors import BadUpload, HevcqError, SourceChanged, SourceGone, Unavailable
from hevcq.ports.videos import UploadWay, VideoFiles
from hevcq.util.file_io import sha256_bytes
from hevcq.util.text import reason_of

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

PART_BYTES = 64 * MIB
UPLOAD_URL_S = 3600
"""Seconds that the URL of a part is valid; S3 checks it when a request begins."""
DOWNLOAD_URL_S = 6 * 3600
"""Seconds that a link to a stored file is valid, longer than anybody watches."""
PREFLIGHT_S = 10
"""Timeout of a CORS preflight request in seconds."""
OWNER = "owner"
MAX_HEADER = 1_000
GONE_CODES = frozenset({"NoSuchUpload", "404", "NotFound"})


class S3VideoFiles(VideoFiles):
    """Uploads at `UPLOAD/<id>` of the input bucket; published files by signed links."""

    def __init__(self, s3: S3Client, buckets: Buckets) -> None:
        self._s3, self._buckets = s3, buckets

    def prepare(self, video: Video) -> str:
        if video.upload.multipart_id:
            return video.upload.multipart_id
        with translate_errors(f"begin the upload {video.video_id}"):
            answer = self._s3.create_multipart_upload(
                **self._place(video),
                ContentType=video.upload.media_type,
                Metadata={OWNER: owner_value(video)},
            )
        return answer["UploadId"]

    def way(self, video: Video) -> UploadWay:
        part = part_bytes(video.upload.size, PART_BYTES)
        parts = math.ceil(video.upload.size / part)
        return UploadWay("parts", part_size=part, parts=parts, valid_s=UPLOAD_URL_S)

    def part_url(self, video: Video, number: int) -> str:
        way = self.way(video)
        if not 1 <= number <= way.parts:
            raise BadUpload(f"The parts of this upload are 1 to {way.parts}.")
        last = video.upload.size - way.part_size * (way.parts - 1)
        parameters = {
            **self._place(video),
            "UploadId": video.upload.multipart_id,
            "PartNumber": number,
            "ContentLength": last if number == way.parts else way.part_size,
        }
        with translate_errors(f"sign a part of the upload {video.video_id}"):
            return self._s3.generate_presigned_url(
                "upload_part", parameters, ExpiresIn=UPLOAD_URL_S
            )

    def received_parts(self, video: Video) -> Mapping[int, int]:
        return {part["PartNumber"]: part["Size"] for part in self._parts(video) or []}

    def received_bytes(self, video: Video) -> int:
        return _total_bytes(self._parts(video) or [])

    def complete(self, video: Video) -> Source | int:
        """Complete the upload, then check size and owner of the object and pin its version."""
        parts = self._parts(video)
        if parts is not None:  # otherwise it was completed or aborted, and the object decides
            numbers, received = {part["PartNumber"] for part in parts}, _total_bytes(parts)
            if numbers != set(range(1, self.way(video).parts + 1)) or received < video.upload.size:
                return received
            _require_size(received, video)
            self._complete_upload(video, parts)
        head = find_object(self._s3, self._buckets.input, raw_key(video), unknown_is_absent=False)
        if head is None:
            return 0
        _require_size(head["ContentLength"], video)
        if head["Metadata"].get(OWNER) != owner_value(video):
            raise BadUpload("The file was not uploaded by the owner of the video.")
        return Source(
            bucket=self._buckets.input,
            key=raw_key(video),
            version=version_of(head),
            size=video.upload.size,
        )

    def _complete_upload(self, video: Video, parts: Sequence[Any]) -> None:
        etags: Any = [{"PartNumber": part["PartNumber"], "ETag": part["ETag"]} for part in parts]
        with translate_errors(f"complete the upload {video.video_id}"):
            self._s3.complete_multipart_upload(
                **self._place(video),
                UploadId=video.upload.multipart_id,
                MultipartUpload={"Parts": etags},
            )

    def _parts(self, video: Video) -> list[Any] | None:
        """Return the parts that arrived, or None if the multipart upload was completed or aborted."""
        try:
            with translate_errors(f"list the parts of {video.video_id}"):
                pages = self._s3.get_paginator("list_parts").paginate(
                    **self._place(video), UploadId=video.upload.multipart_id
                )
                return [part for page in pages for part in page.get("Parts", [])]
        except HevcqError as error:
            if code_of(error.__cause__) in GONE_CODES:
                return None
            raise

    def discard(self, video: Video) -> None:
        if video.upload.multipart_id:
            try:
                with translate_errors(f"abort the upload {video.video_id}"):
                    self._s3.abort_multipart_upload(
                        **self._place(video), UploadId=video.upload.multipart_id
                    )
            except HevcqError as error:
                if code_of(error.__cause__) not in GONE_CODES:
                    raise
        self._delete_versions(video)

    def delete_raw(self, video: Video) -> None:
        """Delete every version of the object if the newest is the source's.

        A plain delete would only add a marker, and the bytes would be paid for for ever.
        """
        if video.source is None:
            return
        head = find_object(self._s3, video.source.bucket, video.source.key, unknown_is_absent=False)
        if head is not None and version_of(head) != video.source.version:
            raise SourceChanged("The uploaded file is not the one that was encoded.")
        self._delete_versions(video)

    def _delete_versions(self, video: Video) -> None:
        key, bucket = raw_key(video), self._buckets.input
        with translate_errors(f"delete {key!r}"), self._unversioned(key):
            pages = self._s3.get_paginator("list_object_versions").paginate(
                Bucket=bucket, Prefix=key
            )
            for page in pages:
                for version in [*page.get("Versions", []), *page.get("DeleteMarkers", [])]:
                    if version["Key"] == key:
                        self._s3.delete_object(
                            Bucket=bucket, Key=key, VersionId=version["VersionId"]
                        )

    @contextmanager
    def _unversioned(self, key: str) -> Iterator[None]:
        """Delete the only object of a key if the server has no versions (R2, Garage)."""
        try:
            yield
        except ClientError as error:
            if code_of(error) != "NotImplemented":
                raise
            self._s3.delete_object(Bucket=self._buckets.input, Key=key)

    def raw(self, video: Video, *, name: str, media_type: str, attachment: bool) -> str:
        if video.source is None:
            raise SourceGone("The upload is not complete.")
        place = {"Bucket": video.source.bucket, "Key": video.source.key}
        if not ETAG.match(video.source.version):
            place["VersionId"] = video.source.version
        return self._signed(place, name, media_type, attachment=attachment)

    def published(self, key: str, *, name: str, media_type: str, attachment: bool) -> str:
        place = {"Bucket": self._buckets.output, "Key": key}
        return self._signed(place, name, media_type, attachment=attachment)

    def _signed(
        self, place: Mapping[str, Any], name: str, media_type: str, *, attachment: bool
    ) -> str:
        parameters = {
            **place,
            "ResponseContentType": media_type,
            "ResponseContentDisposition": content_disposition(name, attachment=attachment),
        }
        with translate_errors(f"sign a link to {place['Key']!r}"):
            url = self._s3.generate_presigned_url(
                "get_object", parameters, ExpiresIn=DOWNLOAD_URL_S
            )
        if not url:
            raise Unavailable("S3 signed no link.")
        return url

    def origins(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(map(_origin, self._addresses())))

    def refusals(self, origin: str) -> Iterator[str]:
        upload, play = self._addresses()
        for method, header, address, bucket in (
            ("PUT", "", upload, self._buckets.input),
            ("GET", "range", play, self._buckets.output),
        ):
            if not _is_allowed(origin, method, header, address):
                what = "play videos of" if header else "send videos to"
                yield (
                    f"Browsers may not {what} the bucket {bucket} from pages at {origin}: its CORS"
                    f" rules do not allow {method} from there."
                )

    def _addresses(self) -> tuple[str, str]:
        """Return the unsigned URLs of an upload and of a published file."""
        keys = ((self._buckets.input, f"{UPLOADS}/cors"), (self._buckets.output, f"{OUTBOX}/cors"))
        with translate_errors("find the addresses of the buckets"):
            upload, play = (
                self._s3.generate_presigned_url("get_object", {"Bucket": bucket, "Key": key})
                for bucket, key in keys
            )
        return upload.partition("?")[0], play.partition("?")[0]

    def _place(self, video: Video) -> dict[str, Any]:
        return {"Bucket": self._buckets.input, "Key": raw_key(video)}


def _total_bytes(parts: Iterable[Any]) -> int:
    return sum(part["Size"] for part in parts)


def _require_size(received: int, video: Video) -> None:
    """Raise BadUpload unless the declared number of bytes arrived."""
    if received != video.upload.size:
        raise BadUpload(f"{received:,} bytes came where {video.upload.size:,} were declared.")


def _origin(address: str) -> str:
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}"


def _is_allowed(origin: str, method: str, header: str, address: str) -> bool:
    """Return whether the answer to a preflight request allows this origin. Raises Unavailable."""
    headers = {"Origin": origin, "Access-Control-Request-Method": method}
    if header:
        headers["Access-Control-Request-Headers"] = header
    request = AWSRequest("OPTIONS", address, headers=headers).prepare()
    try:
        answer = URLLib3Session(timeout=PREFLIGHT_S).send(request)
    except HTTPClientError as error:
        raise Unavailable(
            f"{_origin(address)} does not answer, where browsers send videos: {reason_of(error)}.",
            remedy="Look at this machine's way to the internet, and at aws.region.",
        ) from error
    return answer.status_code < HTTPStatus.BAD_REQUEST and answer.headers.get(
        "Access-Control-Allow-Origin"
    ) in (origin, "*")


def owner_value(video: Video) -> str:
    """Return the owner as a header value. S3 allows 2 KB of metadata, so a long name becomes a digest."""
    quoted = quote(video.owner, safe="")
    return quoted if len(quoted) <= MAX_HEADER else sha256_bytes(quoted.encode())
