# Public playback by CloudFront: what is made of uploads below one folder of each profile's inbox, and
# nothing else. The bucket stays private: only this distribution reads, by origin access control, and
# only those prefixes. Cache headers are those that hevcq publishes with: a set's master playlist for a
# minute, everything else for a year, since its name changes with its content.

locals {
  origin = "renditions"
}

resource "aws_cloudfront_origin_access_control" "this" {
  name                              = var.name
  description                       = "Reads the public renditions of ${var.name}."
  origin_access_control_origin_type = "s3"
  signing_behavior                  = "always"
  signing_protocol                  = "sigv4"
}

resource "aws_cloudfront_cache_policy" "this" {
  name        = "${var.name}-playback"
  comment     = "As the objects say; a day where one says nothing."
  min_ttl     = 0
  default_ttl = 86400
  max_ttl     = 31536000

  parameters_in_cache_key_and_forwarded_to_origin {
    enable_accept_encoding_gzip   = true
    enable_accept_encoding_brotli = true

    cookies_config {
      cookie_behavior = "none"
    }

    headers_config {
      header_behavior = "none"
    }

    query_strings_config {
      query_string_behavior = "none"
    }
  }
}

# Players on other sites read ranges by script, which browsers allow only with these headers.
resource "aws_cloudfront_response_headers_policy" "this" {
  name    = "${var.name}-playback"
  comment = "CORS for players, and no guessing of types."

  cors_config {
    access_control_allow_credentials = false
    access_control_max_age_sec       = 86400
    origin_override                  = true

    access_control_allow_headers {
      items = ["Range"]
    }

    access_control_allow_methods {
      items = ["GET", "HEAD", "OPTIONS"]
    }

    access_control_allow_origins {
      items = var.allowed_origins
    }

    access_control_expose_headers {
      items = ["Accept-Ranges", "Content-Length", "Content-Range", "ETag"]
    }
  }

  security_headers_config {
    content_type_options {
      override = true
    }

    strict_transport_security {
      access_control_max_age_sec = 31536000
      override                   = true
    }
  }
}

resource "aws_cloudfront_distribution" "this" {
  enabled         = true
  comment         = "Public playback of ${var.name}"
  aliases         = var.aliases
  http_version    = "http2and3"
  is_ipv6_enabled = true
  price_class     = var.price_class
  tags            = var.tags

  origin {
    origin_id                = local.origin
    domain_name              = var.bucket.domain_name
    origin_path              = "/DONE"
    origin_access_control_id = aws_cloudfront_origin_access_control.this.id
  }

  default_cache_behavior {
    target_origin_id           = local.origin
    allowed_methods            = ["GET", "HEAD", "OPTIONS"]
    cached_methods             = ["GET", "HEAD"]
    cache_policy_id            = aws_cloudfront_cache_policy.this.id
    response_headers_policy_id = aws_cloudfront_response_headers_policy.this.id
    viewer_protocol_policy     = "redirect-to-https"
    compress                   = true # playlists and captions; media is not compressible and not touched
  }

  # S3 answers 403 for what is not there, too. Ask again soon: a rendition may be on its way.
  custom_error_response {
    error_code            = 403
    error_caching_min_ttl = 10
  }

  restrictions {
    geo_restriction {
      restriction_type = "none"
    }
  }

  viewer_certificate {
    cloudfront_default_certificate = var.certificate_arn == ""
    acm_certificate_arn            = var.certificate_arn != "" ? var.certificate_arn : null
    ssl_support_method             = var.certificate_arn != "" ? "sni-only" : null
    minimum_protocol_version       = var.certificate_arn != "" ? "TLSv1.2_2021" : "TLSv1"
  }

  lifecycle {
    precondition {
      condition     = length(var.aliases) == 0 || var.certificate_arn != ""
      error_message = "Names of your own (aliases) need a certificate of us-east-1 (certificate_arn)."
    }
  }
}

data "aws_iam_policy_document" "read" {
  statement {
    sid       = "PublicPlayback"
    actions   = ["s3:GetObject"]
    resources = [for profile in var.profiles : "${var.bucket.arn}/DONE/${profile}/${var.folder}/*"]

    principals {
      type        = "Service"
      identifiers = ["cloudfront.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceArn"
      values   = [aws_cloudfront_distribution.this.arn]
    }
  }

  # A certificate names the bucket, the upload and the account.
  statement {
    sid       = "NoCertificates"
    effect    = "Deny"
    actions   = ["s3:GetObject"]
    resources = ["${var.bucket.arn}/DONE/*.certificate.json"]

    principals {
      type        = "Service"
      identifiers = ["cloudfront.amazonaws.com"]
    }
  }
}
