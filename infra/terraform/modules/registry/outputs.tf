output "repository_url" {
  description = "Address to push worker images to."
  value       = aws_ecr_repository.worker.repository_url
}

output "repository_arn" {
  description = "ARN of the repository."
  value       = "arn:${data.aws_partition.current.partition}:ecr:${var.region}:${var.account_id}:repository/${aws_ecr_repository.worker.name}"
}

output "repository_name" {
  description = "Name of the repository."
  value       = aws_ecr_repository.worker.name
}
