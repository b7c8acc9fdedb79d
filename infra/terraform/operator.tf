# What a person who ingests, watches and redrives may do; attach it to a group or a role.

locals {
  videos_arn = "arn:${data.aws_partition.current.partition}:dynamodb:${local.region}:${local.account_id}:table/${var.name}-videos"
}

data "aws_iam_policy_document" "operator" {
  statement {
    sid     = "Queues"
    actions = ["sqs:GetQueueUrl", "sqs:GetQueueAttributes", "sqs:SendMessage", "sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility"]
    resources = flatten([for queue in module.profile_queue : [
      queue.queue.arn, queue.queue.dlq_arn, queue.queue.subscription_dlq_arn,
    ]])
  }

  statement {
    sid       = "Fanout"
    actions   = ["sns:GetTopicAttributes"]
    resources = [module.fanout.topic_arn]
  }

  statement {
    sid       = "Ledger"
    actions   = ["dynamodb:GetItem", "dynamodb:BatchGetItem", "dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:Query"]
    resources = [module.ledger.table_arn, "${module.ledger.table_arn}/index/*"]
  }

  # hevcq doctor counts them; changes go through the page, which knows whose they are.
  dynamic "statement" {
    for_each = var.web == null ? [] : [1]

    content {
      sid       = "Videos"
      actions   = ["dynamodb:GetItem", "dynamodb:BatchGetItem", "dynamodb:Query"]
      resources = [local.videos_arn, "${local.videos_arn}/index/*"]
    }
  }

  statement {
    sid       = "List"
    actions   = ["s3:ListBucket", "s3:ListBucketVersions"]
    resources = [module.storage.input_bucket_arn, module.storage.output_bucket_arn]
  }

  statement {
    sid       = "Upload"
    actions   = ["s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts", "s3:GetObject", "s3:GetObjectVersion"]
    resources = ["${module.storage.input_bucket_arn}/TODO/*"]
  }

  # Whoever ingests tells when all is collected; whoever queues an upload again, that it is needed.
  dynamic "statement" {
    for_each = var.tag_finished_inputs ? [1] : []

    content {
      sid       = "TagInputs"
      actions   = ["s3:GetObjectVersionTagging", "s3:PutObjectVersionTagging"]
      resources = ["${module.storage.input_bucket_arn}/TODO/*"]
    }
  }

  statement {
    sid       = "Collect"
    actions   = ["s3:GetObject", "s3:GetObjectVersion"]
    resources = ["${module.storage.output_bucket_arn}/DONE/*"]
  }

  # What a video that is cancelled had kept of its chunks.
  statement {
    sid       = "SweepWork"
    actions   = ["s3:GetObject", "s3:DeleteObject"]
    resources = ["${module.storage.output_bucket_arn}/work/*"]
  }

  # What hevcq doctor --farm had published for it, and no other rendition.
  statement {
    sid       = "TidyAfterCheck"
    actions   = ["s3:DeleteObject"]
    resources = ["${module.storage.output_bucket_arn}/DONE/*/hevcq-doctor/*"]
  }

  dynamic "statement" {
    for_each = var.kms_key_arn != "" ? [1] : []

    content {
      sid       = "Key"
      actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
      resources = [var.kms_key_arn]
    }
  }
}

resource "aws_iam_policy" "operator" {
  name        = "${var.name}-operator"
  description = "Ingest, watch and redrive ${var.name}."
  policy      = data.aws_iam_policy_document.operator.json
  tags        = local.tags
}
