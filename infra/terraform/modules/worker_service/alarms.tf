# What the workers themselves report (docs/metrics.md), as alarms, and a standstill. Those on queues are in profile_queue.

locals {
  alarm_actions = var.alarm_topic_arn != "" ? [var.alarm_topic_arn] : []
  # Sums of JobsEnded, by the labels that tell its kinds apart.
  ended = {
    failing = {
      period      = 900
      expression  = "IF(FILL(buried, 0) + FILL(retry, 0) > FILL(done, 0), FILL(buried, 0) + FILL(retry, 0), 0)"
      description = "More attempts of ${var.profile} fail than end well: an outage, or a bad release. Look at the class."
      metrics     = { for end in ["buried", "retry", "done"] : end => { End = end } }
    }
    encoder-breaks = {
      period      = 900
      expression  = join(" + ", [for name in keys(local.encoder_ends) : "FILL(${name}, 0)"])
      description = "ffmpeg failed for ${var.profile}, or a gate refused its rendition. A repeat points at the ffmpeg build."
      metrics     = local.encoder_ends
    }
  }
  encoder_ends = { for pair in setproduct(["buried", "retry"], ["encoder", "verification"]) : join("_", pair) => { End = pair[0], Class = pair[1] } }
  reported = {
    leases-lost = {
      metric      = "LeasesLost", statistic = "Sum", period = 3600, threshold = 3, actions = local.alarm_actions
      description = "Workers of ${var.profile} lose their leases: they hang, a clock jumps, or heartbeats are throttled. Work is done twice."
    }
    gates-expensive = {
      metric      = "VerifyOverheadPercent", statistic = "Average", period = 86400, threshold = 60, actions = []
      description = "The gates of ${var.profile} take more than 60 % of the encoder's time; the certificates say which. Tells nobody: look monthly."
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "ended" {
  for_each = local.ended

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.description
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  evaluation_periods  = 1
  treat_missing_data  = "notBreaching"
  alarm_actions       = local.alarm_actions
  tags                = var.tags

  metric_query {
    id          = "ended"
    label       = each.key
    expression  = each.value.expression
    return_data = true
  }

  dynamic "metric_query" {
    for_each = each.value.metrics

    content {
      id = metric_query.key

      metric {
        namespace   = "hevcq"
        metric_name = "JobsEnded"
        dimensions  = merge({ Profile = var.profile }, metric_query.value)
        period      = each.value.period
        stat        = "Sum"
      }
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "reported" {
  for_each = local.reported

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.description
  namespace           = "hevcq"
  metric_name         = each.value.metric
  dimensions          = { Profile = var.profile }
  statistic           = each.value.statistic
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.threshold
  period              = each.value.period
  evaluation_periods  = 1
  treat_missing_data  = "notBreaching"
  alarm_actions       = each.value.actions
  tags                = var.tags
}

# Against what is usual for this farm's videos: no fixed speed fits every recipe and source.
resource "aws_cloudwatch_metric_alarm" "slow" {
  alarm_name          = "${var.name}-slow-encodes"
  alarm_description   = "Encodes of ${var.profile} are slower than is usual for this farm: the wrong machine type, or too many slots for its cores."
  comparison_operator = "LessThanLowerThreshold"
  threshold_metric_id = "usual"
  evaluation_periods  = 3
  treat_missing_data  = "notBreaching"
  alarm_actions       = local.alarm_actions
  tags                = var.tags

  metric_query {
    id          = "usual"
    label       = "usual speed"
    expression  = "ANOMALY_DETECTION_BAND(speed, 4)"
    return_data = true
  }

  metric_query {
    id          = "speed"
    return_data = true

    metric {
      namespace   = "hevcq"
      metric_name = "EncodeSpeed"
      dimensions  = { Profile = var.profile }
      period      = 3600
      stat        = "p50"
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "waiting_and_nobody_runs" {
  for_each = {
    for kind, alarm in {
      from-zero = {
        periods     = 3, datapoints = 2, actions = aws_appautoscaling_policy.from_zero[*].arn
        description = "Tasks of ${var.profile} wait and no worker runs: start one."
      }
      no-progress = {
        periods     = 30, datapoints = 25, actions = local.alarm_actions
        description = "Tasks of ${var.profile} have waited for 30 minutes and no worker runs: look at the service's events."
      }
    } : kind => alarm if kind != "from-zero" || var.autoscaling
  }

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.description
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  evaluation_periods  = each.value.periods
  datapoints_to_alarm = each.value.datapoints
  treat_missing_data  = "notBreaching"
  alarm_actions       = each.value.actions
  tags                = var.tags

  metric_query {
    id    = "stuck"
    label = "waiting with nobody running"
    # At zero tasks their count may be missing for good, so it is filled; that nothing is in work, which
    # comes with the same delay as what waits, keeps a late count from starting more beside a busy fleet.
    expression  = "IF(FILL(running, 0) < 1 AND waiting > 0 AND inwork < 1, waiting, 0)"
    return_data = true
  }

  dynamic "metric_query" {
    for_each = { waiting = local.waiting, inwork = local.in_work, running = local.running }

    content {
      id = metric_query.key

      metric {
        namespace   = metric_query.value.namespace
        metric_name = metric_query.value.metric_name
        dimensions  = metric_query.value.dimensions
        period      = 60
        stat        = "Maximum"
      }
    }
  }
}
