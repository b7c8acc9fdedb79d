output "queue" {
  description = "The queue and its dead letters: names, addresses and ARNs."
  value = {
    name                 = aws_sqs_queue.this.name
    url                  = aws_sqs_queue.this.id
    arn                  = local.arns.queue
    dlq_name             = aws_sqs_queue.dead_letters.name
    dlq_url              = aws_sqs_queue.dead_letters.id
    dlq_arn              = local.arns.dead_letters
    subscription_dlq_url = aws_sqs_queue.subscription_dead_letters.id
    subscription_dlq_arn = local.arns.subscription
  }
}
