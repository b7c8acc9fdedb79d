# Both fall below 1 only when people cannot open the page.
resource "aws_cloudwatch_metric_alarm" "down" {
  alarm_name          = "${var.name}-web-down"
  alarm_description   = "No task of the page answers /healthz."
  namespace           = "AWS/ApplicationELB"
  metric_name         = "HealthyHostCount"
  dimensions          = { LoadBalancer = aws_lb.this.arn_suffix, TargetGroup = aws_lb_target_group.this.arn_suffix }
  statistic           = "Maximum"
  comparison_operator = "LessThanThreshold"
  threshold           = 1
  period              = 60
  evaluation_periods  = 5
  treat_missing_data  = "breaching"
  alarm_actions       = var.alarm_topic_arn != "" ? [var.alarm_topic_arn] : []
  tags                = var.tags
}
