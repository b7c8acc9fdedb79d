# Least privilege. A worker sends to its own queue (the chunks of a video that it split, and their join)
# and to its own dead letters, which it also looks through for what the queue itself gave up. It
# deletes nothing but what it kept for a split video, and reads no other profile.

data "aws_partition" "current" {}

locals {
  partition = data.aws_partition.current.partition
  log_group = "/${var.name}/worker"
}

module "roles" {
  source = "../task_roles"

  name           = var.name
  region         = var.region
  account_id     = var.account_id
  log_group      = local.log_group
  repository_arn = var.repository_arn
  tags           = var.tags
}

data "aws_iam_policy_document" "task" {
  statement {
    sid       = "OwnQueue"
    actions   = ["sqs:GetQueueUrl", "sqs:GetQueueAttributes", "sqs:ReceiveMessage", "sqs:SendMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility"]
    resources = [var.queue.arn]
  }

  statement {
    sid       = "OwnDeadLetters"
    actions   = ["sqs:GetQueueUrl", "sqs:GetQueueAttributes", "sqs:SendMessage", "sqs:ReceiveMessage", "sqs:ChangeMessageVisibility"]
    resources = [var.queue.dlq_arn]
  }

  statement {
    sid       = "ReadInputs"
    actions   = ["s3:GetObject", "s3:GetObjectVersion"]
    resources = concat(["${var.storage.input_arn}/TODO/*"], var.uploads ? ["${var.storage.input_arn}/UPLOAD/*"] : [])
  }

  statement {
    sid       = "TellMissingFromForbidden"
    actions   = ["s3:ListBucket"]
    resources = [var.storage.input_arn]

    condition {
      test     = "StringLike"
      variable = "s3:prefix"
      values   = concat(["TODO/*"], var.uploads ? ["UPLOAD/*"] : [])
    }
  }

  statement {
    sid       = "TellMissingOutputs"
    actions   = ["s3:ListBucket"]
    resources = [var.storage.output_arn]

    condition {
      test     = "StringLike"
      variable = "s3:prefix"
      values   = ["DONE/${var.profile}/*", "work/${var.profile}/*"]
    }
  }

  statement {
    sid       = "WriteRenditions"
    actions   = ["s3:PutObject", "s3:GetObject", "s3:GetObjectVersion", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
    resources = ["${var.storage.output_arn}/DONE/${var.profile}/*", "${var.storage.output_arn}/work/${var.profile}/*"]
  }

  statement {
    sid       = "SweepWork"
    actions   = ["s3:DeleteObject"]
    resources = ["${var.storage.output_arn}/work/${var.profile}/*"]
  }

  # The files of a set that a new one replaced are in a folder of their own, named after job and
  # fence; its certificate, named after its digest, is beside the master playlist.
  dynamic "statement" {
    for_each = var.makes_sets ? [true] : []

    content {
      sid       = "SweepSets"
      actions   = ["s3:DeleteObject"]
      resources = ["${var.storage.output_arn}/DONE/${var.profile}/*/????????-*/*", "${var.storage.output_arn}/DONE/${var.profile}/*/master.m3u8.*"]
    }
  }

  statement {
    sid       = "ReadLedger"
    actions   = ["dynamodb:GetItem", "dynamodb:BatchGetItem"]
    resources = [var.table.arn]
  }

  # A captured worker can write no other profile's jobs.
  statement {
    sid       = "WriteOwnJobs"
    actions   = ["dynamodb:PutItem", "dynamodb:UpdateItem"]
    resources = [var.table.arn]

    condition {
      test     = "ForAllValues:StringLike"
      variable = "dynamodb:LeadingKeys"
      values   = ["${var.profile}#*"]
    }

    condition {
      test     = "Null"
      variable = "dynamodb:LeadingKeys"
      values   = ["false"]
    }
  }

  statement {
    sid       = "Protection"
    actions   = ["ecs:GetTaskProtection", "ecs:UpdateTaskProtection"]
    resources = ["arn:${local.partition}:ecs:${var.region}:${var.account_id}:task/${var.cluster.name}/*"]
  }

  dynamic "statement" {
    for_each = var.storage.kms_key_arn != "" ? [1] : []

    content {
      sid       = "Key"
      actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
      resources = [var.storage.kms_key_arn]
    }
  }
}

resource "aws_iam_role_policy" "task" {
  name   = "worker"
  role   = module.roles.task_role
  policy = data.aws_iam_policy_document.task.json
}
