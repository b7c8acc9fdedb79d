output "table_name" {
  description = "Name of the table."
  value       = aws_dynamodb_table.this.name
}

output "table_arn" {
  description = "ARN of the table."
  value       = "arn:${data.aws_partition.current.partition}:dynamodb:${var.region}:${var.account_id}:table/${aws_dynamodb_table.this.name}"
}
