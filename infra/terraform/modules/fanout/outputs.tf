output "topic_arn" {
  description = "ARN of the topic that announces uploads."
  value       = local.topic_arn
}
