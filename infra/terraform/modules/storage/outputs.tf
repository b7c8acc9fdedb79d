output "input_bucket" {
  description = "Name of the bucket that uploads go to."
  value       = aws_s3_bucket.this["input"].bucket
}

output "output_bucket" {
  description = "Name of the bucket that renditions go to."
  value       = aws_s3_bucket.this["output"].bucket
}

output "input_bucket_arn" {
  description = "ARN of the input bucket."
  value       = local.arns.input
}

output "output_bucket_arn" {
  description = "ARN of the output bucket."
  value       = local.arns.output
}

output "output_bucket_domain" {
  description = "Regional domain name of the bucket that renditions appear in."
  value       = aws_s3_bucket.this["output"].bucket_regional_domain_name
}
