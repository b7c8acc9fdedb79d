output "url" {
  description = "Address of public renditions: <url>/<profile>/<folder>/…"
  value       = "https://${length(var.aliases) > 0 ? var.aliases[0] : aws_cloudfront_distribution.this.domain_name}"
}

output "reading" {
  description = "Policy statement (JSON) that the bucket's policy needs for it."
  value       = data.aws_iam_policy_document.read.json
}
