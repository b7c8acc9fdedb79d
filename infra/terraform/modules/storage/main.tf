# Two buckets: what comes in and what goes out. Renditions never land in the bucket that
# announces uploads, so that they cannot start work themselves.

locals {
  buckets = {
    input  = "${var.name}-in-${var.account_id}"
    output = "${var.name}-out-${var.account_id}"
  }
  # Built from names, which are known at plan time, so that policies can be read in a plan.
  arns = { for kind, bucket in aws_s3_bucket.this : kind => "arn:${data.aws_partition.current.partition}:s3:::${bucket.bucket}" }
}

data "aws_partition" "current" {}

resource "aws_s3_bucket" "this" {
  for_each = local.buckets

  bucket        = each.value
  force_destroy = var.force_destroy
  tags          = var.tags
}

resource "aws_s3_bucket_public_access_block" "this" {
  for_each = local.buckets

  bucket                  = aws_s3_bucket.this[each.key].id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "this" {
  for_each = local.buckets

  bucket = aws_s3_bucket.this[each.key].id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_versioning" "this" {
  for_each = local.buckets

  bucket = aws_s3_bucket.this[each.key].id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "this" {
  for_each = local.buckets

  bucket = aws_s3_bucket.this[each.key].id

  rule {
    bucket_key_enabled = var.kms_key_arn != ""

    apply_server_side_encryption_by_default {
      sse_algorithm     = var.kms_key_arn != "" ? "aws:kms" : "AES256"
      kms_master_key_id = var.kms_key_arn != "" ? var.kms_key_arn : null
    }
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "this" {
  for_each = local.buckets

  bucket = aws_s3_bucket.this[each.key].id

  rule {
    id     = "abort-unfinished-uploads"
    status = "Enabled"

    filter {}

    # Counted from an upload's beginning: one that somebody's slow line is still sending goes too.
    abort_incomplete_multipart_upload {
      days_after_initiation = each.key == "input" ? 7 : 2
    }

    # An overwritten upload may be the only copy of its video: only what is tagged expires there.
    dynamic "noncurrent_version_expiration" {
      for_each = each.key == "output" ? [1] : []

      content {
        noncurrent_days = 30
      }
    }

    expiration {
      expired_object_delete_marker = true
    }
  }

  # Without it a tag deletes nothing, whoever sets it.
  dynamic "rule" {
    for_each = each.key == "input" && var.input_expiry_days != null ? [1] : []

    content {
      id     = "expire-finished-inputs"
      status = "Enabled"

      filter {
        tag {
          key   = "hevcq"
          value = "done"
        }
      }

      expiration {
        days = var.input_expiry_days
      }

      noncurrent_version_expiration {
        noncurrent_days = 30
      }
    }
  }

  dynamic "rule" {
    for_each = each.key == "output" ? [1] : []

    content {
      id     = "expire-work"
      status = "Enabled"

      filter {
        prefix = "work/"
      }

      expiration {
        days = var.work_expiry_days
      }

      # The parts of a video are as large as the video, and of no use once it is joined.
      noncurrent_version_expiration {
        noncurrent_days = 1
      }
    }
  }

  depends_on = [aws_s3_bucket_versioning.this]
}

module "tls_only" {
  source   = "../tls_only"
  for_each = local.buckets

  actions   = ["s3:*"]
  resources = [local.arns[each.key], "${local.arns[each.key]}/*"]
}

# A bucket has one policy: what the farm denies, and beside it what it lets CloudFront read.
data "aws_iam_policy_document" "output" {
  source_policy_documents = concat(var.tls_only ? [module.tls_only["output"].json] : [], var.public_reading)
}

resource "aws_s3_bucket_policy" "tls_only" {
  for_each = { for kind, bucket in local.buckets : kind => bucket if var.tls_only || (kind == "output" && length(var.public_reading) > 0) }

  bucket = aws_s3_bucket.this[each.key].id
  policy = each.key == "output" ? data.aws_iam_policy_document.output.json : module.tls_only[each.key].json

  depends_on = [aws_s3_bucket_public_access_block.this]
}

# Browsers send a video straight to the bucket, and read the tag of each part to name it at the end.
resource "aws_s3_bucket_cors_configuration" "input" {
  count = length(var.upload_origins) > 0 ? 1 : 0

  bucket = aws_s3_bucket.this["input"].id

  cors_rule {
    allowed_origins = var.upload_origins
    allowed_methods = ["PUT"]
    allowed_headers = ["*"]
    expose_headers  = ["ETag"]
    max_age_seconds = 3600
  }
}

# A page plays and offers renditions by signed links to the bucket.
resource "aws_s3_bucket_cors_configuration" "output" {
  count = length(var.upload_origins) > 0 ? 1 : 0

  bucket = aws_s3_bucket.this["output"].id

  cors_rule {
    allowed_origins = var.upload_origins
    allowed_methods = ["GET", "HEAD"]
    allowed_headers = ["Range"]
    expose_headers  = ["Accept-Ranges", "Content-Length", "Content-Range", "ETag"]
    max_age_seconds = 3600
  }
}
