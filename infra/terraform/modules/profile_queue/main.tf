# One profile's queue, its dead letters, its subscription and the alarms on them.
# Queue, dead-letter queue and both redrive policies are separate resources, so that one apply
# can make them all.

locals {
  retention_s = 864000 # as in src/hevcq/backends/aws/sqs/queue.py; workers send anew what waits for half of it
  # A filter only saves messages; the worker decides. It reads the S3 event in the message body.
  # Keys in events are URL-encoded, but these prefixes hold no character that encoding changes.
  filter = var.subscribe ? null : jsonencode({
    Records = { s3 = { object = { key = [{ prefix = "TODO/${var.profile}/" }] } } }
  })
  # Built from names, which are known at plan time, so that policies can be read in a plan.
  prefix = "arn:${data.aws_partition.current.partition}:sqs:${var.region}:${var.account_id}"
  arns = {
    queue        = "${local.prefix}:${aws_sqs_queue.this.name}"
    dead_letters = "${local.prefix}:${aws_sqs_queue.dead_letters.name}"
    subscription = "${local.prefix}:${aws_sqs_queue.subscription_dead_letters.name}"
  }
  filled_by_the_topic = { for name in ["queue", "subscription"] : name => local.arns[name] }
  alarm_actions       = var.alarm_topic_arn != "" ? [var.alarm_topic_arn] : []
}

data "aws_partition" "current" {}

resource "aws_sqs_queue" "this" {
  name                       = var.name
  visibility_timeout_seconds = var.numbers.visibility_s
  receive_wait_time_seconds  = 20
  message_retention_seconds  = local.retention_s
  sqs_managed_sse_enabled    = true
  tags                       = var.tags
}

resource "aws_sqs_queue" "dead_letters" {
  name                      = "${var.name}-dlq"
  message_retention_seconds = 1209600 # the longest that SQS allows
  sqs_managed_sse_enabled   = true
  tags                      = var.tags
}

resource "aws_sqs_queue" "subscription_dead_letters" {
  name                      = "${var.name}-subscription-dlq"
  message_retention_seconds = 1209600 # the longest that SQS allows
  sqs_managed_sse_enabled   = true
  tags                      = var.tags
}

resource "aws_sqs_queue_redrive_policy" "this" {
  queue_url = aws_sqs_queue.this.id
  redrive_policy = jsonencode({
    deadLetterTargetArn = local.arns.dead_letters
    maxReceiveCount     = var.numbers.max_receives
  })
}

resource "aws_sqs_queue_redrive_allow_policy" "dead_letters" {
  queue_url = aws_sqs_queue.dead_letters.id
  redrive_allow_policy = jsonencode({
    redrivePermission = "byQueue"
    sourceQueueArns   = [local.arns.queue]
  })
}

module "tls_only" {
  source   = "../tls_only"
  for_each = local.arns

  actions   = ["sqs:SendMessage", "sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility"]
  resources = [each.value]
}

data "aws_iam_policy_document" "topic_may_send" {
  for_each                = local.filled_by_the_topic
  source_policy_documents = var.tls_only ? [module.tls_only[each.key].json] : []

  statement {
    sid       = "TopicMaySend"
    actions   = ["sqs:SendMessage"]
    resources = [each.value]

    principals {
      type        = "Service"
      identifiers = ["sns.amazonaws.com"]
    }

    condition {
      test     = "ArnEquals"
      variable = "aws:SourceArn"
      values   = [var.topic_arn]
    }
  }
}

resource "aws_sqs_queue_policy" "this" {
  queue_url = aws_sqs_queue.this.id
  policy    = data.aws_iam_policy_document.topic_may_send["queue"].json

  depends_on = [aws_sqs_queue_redrive_policy.this]
}

resource "aws_sqs_queue_policy" "dead_letters" {
  count = var.tls_only ? 1 : 0

  queue_url = aws_sqs_queue.dead_letters.id
  policy    = module.tls_only["dead_letters"].json

  depends_on = [aws_sqs_queue_redrive_allow_policy.dead_letters]
}

resource "aws_sqs_queue_policy" "subscription" {
  queue_url = aws_sqs_queue.subscription_dead_letters.id
  policy    = data.aws_iam_policy_document.topic_may_send["subscription"].json
}

resource "aws_sns_topic_subscription" "this" {
  topic_arn            = var.topic_arn
  protocol             = "sqs"
  endpoint             = local.arns.queue
  raw_message_delivery = true
  filter_policy        = local.filter
  filter_policy_scope  = local.filter == null ? null : "MessageBody"
  redrive_policy       = jsonencode({ deadLetterTargetArn = local.arns.subscription })

  depends_on = [aws_sqs_queue_policy.this, aws_sqs_queue_policy.subscription]
}
