output "topic_arn" {
  description = "ARN of the topic that announces uploads."
  value       = aws_sns_topic.uploads.arn
}
