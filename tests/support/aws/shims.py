"""What moto 5.2 does differently from AWS in a way that matters here; each shim has its reason.

`serve()` starts the server with all of them.
Known differences that are not shimmed are a free test: the spurious ObjectCreated:Put before
CompleteMultipartUpload (a duplicate event), stale receipts that still work, StartMessageMoveTask
that is not there.
"""

import functools
import logging
import os
import threading
from urllib.parse import quote_plus, unquote


def serve(host="127.0.0.1", port=0):
    """Start a shimmed server in a thread of this process; return it, and its address."""
    apply()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address=host, port=port, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    return server, f"http://{host}:{port}"


@functools.cache
def apply() -> None:
    """Apply every shim once, before a server answers its first request."""
    shims = (
        conditional_writes,
        event_keys,
        event_versions,
        joins,
        line_breaks,
        policies,
        quick_counts,
    )
    shims += (quick_lookups, redrive_allow, scaling_tags, transport, twelve_hours)
    for shim in shims:
        shim()
    # moto leaves the managed policies out to start faster; attaching one is then NoSuchEntity.
    os.environ.setdefault("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")


def conditional_writes() -> None:
    """AWS checks a condition and writes in one step; moto's threads can come between the two, so
    that (rarely) one fence is granted twice."""
    from moto.dynamodb.models import DynamoDBBackend
    from moto.s3.responses import S3Response

    for owner, names in (
        (
            DynamoDBBackend,
            ("put_item", "update_item", "delete_item", "transact_write_items"),
        ),
        (S3Response, ("put_object",)),
    ):
        lock = threading.RLock()
        for name in names:
            setattr(owner, name, _one_at_a_time(getattr(owner, name), lock))


def _one_at_a_time(call, lock):
    @functools.wraps(call)
    def locked(*args, **kwargs):
        with lock:
            return call(*args, **kwargs)

    return locked


def event_keys() -> None:
    """AWS keeps "/" in an event's key; moto writes %2F, which no SNS prefix filter matches."""
    from moto.s3 import notifications

    notifications.quote_plus = functools.partial(quote_plus, safe="/")


def event_versions() -> None:
    """AWS names the version id in events of a versioned bucket; moto leaves it out."""
    from moto.s3 import notifications

    plain = notifications._get_s3_event

    def with_version(event_name, bucket, key, notification_id):
        event = plain(event_name, bucket, key, notification_id)
        if bucket.is_versioned:
            event["Records"][0]["s3"]["object"]["versionId"] = key.version_id
        return event

    notifications._get_s3_event = with_version


def joins() -> None:
    """AWS heeds If-Match when it joins parts, as moto does for If-None-Match only."""
    from moto.s3.exceptions import PreconditionFailed
    from moto.s3.responses import S3Response

    plain = S3Response._complete_multipart_body

    def heeding(self, body):
        wanted = self.headers.get("If-Match")
        key = unquote(self.path).removeprefix(f"/{self.bucket_name}/")
        there = self.backend.get_object(self.bucket_name, key) if wanted else None
        if wanted and (there is None or there.etag.strip('"') != wanted.strip('"')):
            raise PreconditionFailed("If-Match")
        return plain(self, body)

    S3Response._complete_multipart_body = heeding


def line_breaks() -> None:
    """S3 takes keys with line breaks; moto's routes end at them and answer 404."""
    from moto.moto_server import utilities

    plain = utilities.RegexConverter.__init__

    def over_lines(self, url_map, *items):
        plain(self, url_map, *items)
        self.regex = self.regex.replace(".+", r"[\s\S]+")

    utilities.RegexConverter.__init__ = over_lines


def policies() -> None:
    """AWS keeps a queue's Policy when other attributes are set; moto erases it."""
    from moto.sqs.models import Queue

    plain = Queue._set_attributes

    def keeping(self, attributes, now=None):
        kept = getattr(self, "policy", None)
        plain(self, attributes, now)
        if "Policy" not in attributes:
            self.policy = kept

    Queue._set_attributes = keeping


def quick_counts() -> None:
    """AWS answers as fast from a long queue; moto counts every message nine times to look up the
    one number that each receive asks for, and so often again for each attribute."""
    from moto.sqs import models

    plain = models.SQSBackend.get_queue_attributes

    def at_once(self, queue_name, attribute_names):
        found = plain(self, queue_name, ["All"])
        if not attribute_names or any(name not in found for name in attribute_names):
            return plain(self, queue_name, attribute_names)
        return {name: found[name] for name in attribute_names if found[name] is not None}

    def kept(self, queue_name, message):
        kept_s = self.get_queue(queue_name).message_retention_period
        return kept_s * 1000 + message.sent_timestamp > models.unix_time_millis()

    models.SQSBackend.get_queue_attributes = at_once
    models.SQSBackend.is_message_valid_based_on_retention_period = kept


def quick_lookups() -> None:
    """For each request moto lists its own folder and looks at every name of a class: a fifth of all
    that a call costs."""
    from moto import backends
    from moto.core import responses

    modules = tuple(backends.list_of_moto_modules())
    backends.list_of_moto_modules = lambda: modules
    responses.method_names_from_class = functools.cache(responses.method_names_from_class)


def redrive_allow() -> None:
    """AWS returns RedriveAllowPolicy; moto takes it and calls the name invalid, for ever."""
    from moto.sqs.models import Queue

    Queue.redrive_allow_policy = None
    Queue.BASE_ATTRIBUTES = [*Queue.BASE_ATTRIBUTES, "RedriveAllowPolicy"]
    plain = Queue.attributes.fget

    def attributes(self):
        found = plain(self)
        # An empty value takes the policy away.
        if not found.get("RedriveAllowPolicy"):
            found.pop("RedriveAllowPolicy", None)
        return found

    Queue.attributes = property(attributes)


def scaling_tags() -> None:
    """Terraform reads the tags of a scalable target; moto answers HTTP 500, retried 25 times."""
    from moto.applicationautoscaling.responses import ApplicationAutoScalingResponse

    ApplicationAutoScalingResponse.list_tags_for_resource = lambda self: '{"Tags": {}}'
    ApplicationAutoScalingResponse.tag_resource = lambda self: "{}"
    ApplicationAutoScalingResponse.untag_resource = lambda self: "{}"


def transport() -> None:
    """AWS denies by a bucket's TLS policy whoever comes without TLS; moto denies everybody, because
    it knows no aws:SecureTransport. Whoever asks it counts as coming with TLS."""
    import json

    from moto.iam.access_control import IAMPolicy, PermissionResult
    from moto.s3.models import FakeBucket

    without = {"Bool": {"aws:SecureTransport": "false"}}

    def with_tls(self, action, resource):
        policy = json.loads(self.policy) if self.policy is not None else {"Statement": []}
        kept = [each for each in policy["Statement"] if each.get("Condition") != without]
        if not kept:
            return PermissionResult.NEUTRAL
        rest = IAMPolicy(json.dumps({**policy, "Statement": kept}))
        return rest.is_action_permitted(action, resource)

    FakeBucket.get_permission = with_tls


def twelve_hours() -> None:
    """AWS counts the 12 hours of a receipt from its receive; moto from when the message was sent."""
    from moto.sqs import models

    plain, mark = models.SQSBackend.change_message_visibility, models.Message.mark_received

    def marked(self, visibility_timeout=None):
        self.received_at = models.unix_time_millis()
        mark(self, visibility_timeout)

    def since_receive(self, queue_name, receipt_handle, visibility_timeout):
        for message in self.get_queue(queue_name)._messages:
            if message.had_receipt_handle(receipt_handle):
                sent, message.sent_timestamp = message.sent_timestamp, message.received_at
                try:
                    return plain(self, queue_name, receipt_handle, visibility_timeout)
                finally:
                    message.sent_timestamp = sent
        return plain(self, queue_name, receipt_handle, visibility_timeout)

    models.Message.mark_received = marked
    models.SQSBackend.change_message_visibility = since_receive
