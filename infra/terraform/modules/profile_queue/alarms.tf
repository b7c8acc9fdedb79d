resource "aws_cloudwatch_metric_alarm" "dead_letters" {
  for_each = {
    dlq              = aws_sqs_queue.dead_letters.name
    subscription-dlq = aws_sqs_queue.subscription_dead_letters.name
  }

  alarm_name          = "${var.name}-${each.key}-not-empty"
  alarm_description   = "Dead letters of ${var.profile}: hevcq failures list --profile ${var.profile}"
  namespace           = "AWS/SQS"
  metric_name         = "ApproximateNumberOfMessagesVisible"
  dimensions          = { QueueName = each.value }
  statistic           = "Maximum"
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  period              = 300
  evaluation_periods  = 1
  treat_missing_data  = "notBreaching"
  alarm_actions       = local.alarm_actions
  tags                = var.tags
}

resource "aws_cloudwatch_metric_alarm" "oldest" {
  alarm_name          = "${var.name}-oldest-task"
  alarm_description   = "A task of ${var.profile} has waited too long. Poison tasks do not show here; see the dead letters."
  namespace           = "AWS/SQS"
  metric_name         = "ApproximateAgeOfOldestMessage"
  dimensions          = { QueueName = aws_sqs_queue.this.name }
  statistic           = "Maximum"
  comparison_operator = "GreaterThanThreshold"
  threshold           = var.oldest_task_alarm_s
  period              = 300
  evaluation_periods  = 3
  treat_missing_data  = "notBreaching"
  alarm_actions       = local.alarm_actions
  tags                = var.tags
}

# What SQS has kept for its retention it deletes, and says nothing.
resource "aws_cloudwatch_metric_alarm" "expiring" {
  alarm_name          = "${var.name}-tasks-expire"
  alarm_description   = "Tasks of ${var.profile} have waited so long that SQS soon deletes them: add workers. What is gone, hevcq retry --missing queues again."
  namespace           = "AWS/SQS"
  metric_name         = "ApproximateAgeOfOldestMessage"
  dimensions          = { QueueName = aws_sqs_queue.this.name }
  statistic           = "Maximum"
  comparison_operator = "GreaterThanThreshold"
  threshold           = floor(local.retention_s * 3 / 4)
  period              = 300
  evaluation_periods  = 3
  treat_missing_data  = "notBreaching"
  alarm_actions       = local.alarm_actions
  tags                = var.tags
}
