# What no metric shows: a release that was rolled back, tasks that never start, and workers that the
# kernel killed for their memory. With a broken image and no task wanted, ECS calls a release deployed;
# the first task that fails to start tells.

locals {
  ecs     = "arn:${data.aws_partition.current.partition}:ecs:${local.region}:${local.account_id}"
  stopped = { clusterArn = ["${local.ecs}:cluster/${var.name}"], lastStatus = ["STOPPED"] }

  events = {
    release-failed = {
      says = "A release failed and was rolled back"
      why  = "$.detail.reason"
      pattern = jsonencode({
        detail-type = ["ECS Deployment State Change"]
        resources   = [{ prefix = "${local.ecs}:service/${var.name}/" }]
        detail      = { eventName = ["SERVICE_DEPLOYMENT_FAILED"] }
      })
    }
    start-failed = {
      says = "A task did not start"
      why  = "$.detail.stoppedReason"
      pattern = jsonencode({
        detail-type = ["ECS Task State Change"]
        detail      = merge(local.stopped, { stopCode = ["TaskFailedToStart"] })
      })
    }
    out-of-memory = {
      says = "A task ran out of memory"
      why  = "$.detail.stoppedReason"
      pattern = jsonencode({
        detail-type = ["ECS Task State Change"]
        detail      = merge(local.stopped, { containers = { reason = [{ prefix = "OutOfMemory" }] } })
      })
    }
  }
}

resource "aws_cloudwatch_event_rule" "this" {
  for_each = { for name, event in local.events : name => event if var.alarm_topic_arn != "" }

  name          = "${var.name}-${each.key}"
  description   = "${each.value.says}."
  event_pattern = each.value.pattern
  tags          = local.tags
}

resource "aws_cloudwatch_event_target" "this" {
  for_each = aws_cloudwatch_event_rule.this

  rule = each.value.name
  arn  = var.alarm_topic_arn

  input_transformer {
    input_paths    = { what = "$.resources[0]", why = local.events[each.key].why }
    input_template = "\"${local.events[each.key].says}: <what> (<why>). See docs/farm/operations.md.\""
  }
}
