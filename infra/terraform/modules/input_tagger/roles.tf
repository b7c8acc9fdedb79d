# What the daily task may do, and what may start it.

module "roles" {
  source = "../task_roles"

  name           = "${var.name}-tagger"
  region         = var.region
  account_id     = var.account_id
  log_group      = local.log_group
  repository_arn = var.repository_arn
  tags           = var.tags
}

data "aws_iam_policy_document" "task" {
  statement {
    sid       = "Ledger"
    actions   = ["dynamodb:GetItem", "dynamodb:BatchGetItem", "dynamodb:Query"]
    resources = [var.table.arn, "${var.table.arn}/index/*"]
  }

  # Of one version by its id, never of whatever is at the key: only that was worked on.
  statement {
    sid       = "TagFinishedInputs"
    actions   = ["s3:GetObjectVersion", "s3:GetObjectVersionTagging", "s3:PutObjectVersionTagging"]
    resources = ["${var.storage.input_arn}/TODO/*"]
  }

  statement {
    sid       = "SeeRenditions"
    actions   = ["s3:GetObject"]
    resources = ["${var.storage.output_arn}/DONE/*"]
  }

  statement {
    sid       = "TellMissingFromForbidden"
    actions   = ["s3:ListBucket"]
    resources = [var.storage.output_arn]
  }

  dynamic "statement" {
    for_each = var.storage.kms_key_arn != "" ? [1] : []

    content {
      sid       = "Key"
      actions   = ["kms:Decrypt"]
      resources = [var.storage.kms_key_arn]
    }
  }
}

resource "aws_iam_role_policy" "task" {
  name   = "tagger"
  role   = module.roles.task_role
  policy = data.aws_iam_policy_document.task.json
}

data "aws_iam_policy_document" "trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["events.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [var.account_id]
    }
  }
}

resource "aws_iam_role" "start" {
  name               = "${var.name}-tagger-start"
  assume_role_policy = data.aws_iam_policy_document.trust.json
  tags               = var.tags
}

data "aws_iam_policy_document" "start" {
  statement {
    sid       = "Run"
    actions   = ["ecs:RunTask"]
    resources = [local.task_arn, "${local.task_arn}:*"]
  }

  statement {
    sid       = "AsItsRoles"
    actions   = ["iam:PassRole"]
    resources = [module.roles.task_role_arn, module.roles.execution_role_arn]
  }
}

resource "aws_iam_role_policy" "start" {
  name   = "start-task"
  role   = aws_iam_role.start.id
  policy = data.aws_iam_policy_document.start.json
}
