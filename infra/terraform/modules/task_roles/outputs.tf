output "task_role" {
  description = "Name of the role that tasks run with."
  value       = aws_iam_role.task.id
}

output "task_role_arn" {
  description = "ARN of the role that tasks run with."
  value       = aws_iam_role.task.arn
}

output "execution_role_arn" {
  description = "ARN of the role that tasks are started with."
  value       = aws_iam_role.execution.arn
}
