output "repository_url" {
  description = "Address to push worker images to."
  value       = aws_ecr_repository.worker.repository_url
}

output "repository_arn" {
  description = "ARN of the repository."
  value       = aws_ecr_repository.worker.arn
}
