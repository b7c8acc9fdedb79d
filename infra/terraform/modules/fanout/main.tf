# An upload below TODO/ is announced on one topic; every profile's queue subscribes to it.

data "aws_partition" "current" {}

locals {
  # Built from the name, which is known at plan time, so that policies can be read in a plan.
  topic_arn = "arn:${data.aws_partition.current.partition}:sns:${var.region}:${var.account_id}:${aws_sns_topic.uploads.name}"
}

resource "aws_sns_topic" "uploads" {
  name = "${var.name}-uploads"
  tags = var.tags
}

module "tls_only" {
  source = "../tls_only"

  actions   = ["sns:Publish"]
  resources = [local.topic_arn]
}

data "aws_iam_policy_document" "topic" {
  source_policy_documents = var.tls_only ? [module.tls_only.json] : []

  statement {
    sid       = "BucketMayPublish"
    actions   = ["sns:Publish"]
    resources = [local.topic_arn]

    principals {
      type        = "Service"
      identifiers = ["s3.amazonaws.com"]
    }

    condition {
      test     = "ArnLike"
      variable = "aws:SourceArn"
      values   = [var.bucket_arn]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [var.account_id]
    }
  }
}

resource "aws_sns_topic_policy" "uploads" {
  arn    = aws_sns_topic.uploads.arn
  policy = data.aws_iam_policy_document.topic.json
}

# One owner: this call replaces a bucket's whole notification configuration.
resource "aws_s3_bucket_notification" "uploads" {
  bucket = var.bucket

  topic {
    id            = "uploads"
    topic_arn     = aws_sns_topic.uploads.arn
    events        = ["s3:ObjectCreated:*"]
    filter_prefix = "TODO/"
  }

  depends_on = [aws_sns_topic_policy.uploads]
}
