# What the page may do: what an operator may, since its board does all of it, and the uploads.

module "roles" {
  source = "../task_roles"

  name           = "${var.name}-web"
  region         = var.region
  account_id     = var.account_id
  log_group      = local.log_group
  repository_arn = var.repository_arn
  secrets        = values(local.secrets)
  tags           = var.tags
}

resource "aws_iam_role_policy_attachment" "operator" {
  role       = module.roles.task_role
  policy_arn = var.operator_policy_arn
}

data "aws_iam_policy_document" "task" {
  statement {
    sid       = "Videos"
    actions   = ["dynamodb:GetItem", "dynamodb:BatchGetItem", "dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem", "dynamodb:Query"]
    resources = [local.table_arn, "${local.table_arn}/index/*"]
  }

  # Signed links carry these rights to a browser, for one key and some hours.
  statement {
    sid       = "Uploads"
    actions   = ["s3:PutObject", "s3:GetObject", "s3:GetObjectVersion", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts", "s3:DeleteObject", "s3:DeleteObjectVersion"]
    resources = ["${var.storage.input_arn}/UPLOAD/*"]
  }

  # A video gets a picture, and a person deletes it with what was made of it.
  statement {
    sid       = "PicturesAndDeletions"
    actions   = ["s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts", "s3:DeleteObject"]
    resources = ["${var.storage.output_arn}/DONE/*/UPLOAD/*"]
  }

  # An upload that is queued again loses its tag; the tag that lets uploads expire is not the page's.
  statement {
    sid       = "NeverLetExpire"
    effect    = "Deny"
    actions   = ["s3:PutObjectVersionTagging"]
    resources = ["${var.storage.input_arn}/*"]

    condition {
      test     = "StringEquals"
      variable = "s3:RequestObjectTag/hevcq"
      values   = ["done"]
    }
  }
}

locals {
  table_arn = module.videos.table_arn
}

resource "aws_iam_role_policy" "task" {
  name   = "web"
  role   = module.roles.task_role
  policy = data.aws_iam_policy_document.task.json
}
